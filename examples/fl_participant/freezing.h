/* SPDX-License-Identifier: Apache-2.0 */
/* Following the aggregator's freeze plan, and telling it what to decide from:
 * how much the gradient of the front-most trained module changes. */
#ifndef FL_PARTICIPANT_FREEZING_H
#define FL_PARTICIPANT_FREEZING_H

#include <fl/client.h>
#include <fl/freeze.h>
#include <fl/train.h>

struct freezing {
  fl_freeze *controller; /* NULL until a plan came */
  fl_model *model;       /* borrowed */
  uint64_t *sizes;       /* of the model's segments */
  uint32_t *modules;
  uint32_t n_segments;
  float learning_rate; /* of the task */
};

/* Before training: freeze what the task says. */
fl_status freezing_begin(struct freezing *freezing, fl_model *model,
                         const fl_train_task *task, uint32_t samples);
/* After it: add the report, if there is one. */
void freezing_end(struct freezing *freezing, fl_train_result *result);
void freezing_close(struct freezing *freezing);

#endif
