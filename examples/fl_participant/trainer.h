/* SPDX-License-Identifier: Apache-2.0 */
/* Local data and the model that is trained on it. */
#ifndef FL_PARTICIPANT_TRAINER_H
#define FL_PARTICIPANT_TRAINER_H

#include <fl/client.h>
#include <fl/model.h>
#include <fl/strategy.h>

#include "common/idx.h"
#include "common/stored.h"
#include "fl_participant/config.h"
#include "fl_participant/freezing.h"

struct trainer {
  struct idx_set data;
  uint32_t *shard; /* indices into data */
  uint64_t *ids;   /* of data: places in the shard; NULL without a cache */
  uint32_t samples;
  struct stored cache_file;
  fl_cache *cache; /* NULL: what is frozen is computed again each time */
  fl_model *model; /* NULL until the aggregator has described it */
  fl_cancel *cancel;
  uint64_t die_in_round;
  float mu;        /* FedProx's; 0 = none */
  fl_local *local; /* made for it, and for SCAFFOLD */
  float *change;   /* SCAFFOLD: of the own control, in the last round */
  struct freezing freezing;
};

/* Load the data and cut our shard. 0, or -1 with a line on stderr;
 * trainer_close is fine after both. `cancel` is borrowed. */
int trainer_open(struct trainer *trainer, const struct config *config,
                 fl_cancel *cancel);
void trainer_close(struct trainer *trainer);
/* Make the model from its description if there is none yet. */
fl_status trainer_set_model(struct trainer *trainer, const uint8_t *description,
                            size_t n);
/* Samples that came out of the cache. */
uint64_t trainer_cache_hits(const struct trainer *trainer);
/* FL_E_CANCELLED when `cancel` was raised. The result's weights are the
 * model's. */
fl_status trainer_train(struct trainer *trainer, const fl_train_task *task,
                        fl_train_result *result);
fl_status trainer_score(struct trainer *trainer, const fl_train_task *task,
                        fl_score *score);

#endif
