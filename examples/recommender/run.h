/* SPDX-License-Identifier: Apache-2.0 */
/* One training, told as it goes, and what came of it. */
#ifndef RECOMMENDER_RUN_H
#define RECOMMENDER_RUN_H

#include <fl/base.h>

#include "recommender/data.h"
#include "recommender/model.h"

struct outcome {
  double budget; /* MB of 10^6 bytes; 0: all rows */
  double auc;
  double seconds; /* of the steps */
  int is_whole;   /* else it was stopped, or did not begin */
  int is_federated;
  int is_quiet;                  /* nothing is told as it goes */
  uint64_t bytes_up, bytes_down; /* of all devices */
  fl_embedding_statistics statistics;
};

/* A status: it failed, and a line on standard error says why. */
enum { SAID = 1 };

/* Train within outcome->budget. FL_E_CANCELLED: `stop` was raised; the outcome
 * is what is known then. SAID. */
fl_status run_training(const struct config *config, struct data *data,
                       fl_cancel *stop, struct outcome *outcome);
/* Read config->save back and test it. FL_OK or SAID. */
fl_status run_saved(const struct config *config, struct data *data,
                    const struct outcome *trained);

#endif
