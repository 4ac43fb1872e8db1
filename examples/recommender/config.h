/* SPDX-License-Identifier: Apache-2.0 */
/* What the user of the recommender can set. */
#ifndef RECOMMENDER_CONFIG_H
#define RECOMMENDER_CONFIG_H

#include <stdint.h>

#include "common/settings.h"

enum { BUDGETS_MAX = 16 };

struct config {
  char data[SETTING_TEXT_BYTES], record[SETTING_TEXT_BYTES];
  char save[SETTING_TEXT_BYTES], budget[SETTING_TEXT_BYTES];
  uint64_t rows, epochs, batch, dim, chunks, adjust_every, auc_every, seed;
  uint64_t threads;
  uint64_t shards, rounds, participants, min_clients, device_batch;
  double device_budget, device_lr, device_rows_lr, server_rate, server_momentum;
  double server_decay;
  double lr, rows_lr, sketch;
  double budgets[BUDGETS_MAX]; /* MB of 10^6 bytes, of `budget` */
  uint32_t n_budgets;
};

/* Fill in the command line's settings and check them; what is wrong ends the
 * process with a line on standard error, and so do --help and the like. */
void config_parse(struct config *config, int argc, char **argv);

#endif
