/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to train on in the order of time, and rows behind them to test on. */
#ifndef RECOMMENDER_DATA_H
#define RECOMMENDER_DATA_H

#include <fl/model.h>

#include "common/clicks.h"
#include "recommender/config.h"

struct data {
  struct clicks clicks;
  uint64_t batch;
  uint32_t *order; /* [n_rows] */
  uint64_t *ids;   /* [batch, fields] */
  float *targets;  /* [batch] */
  float *scores;   /* of the rows to test on */
  double ceiling;  /* AUC that no model beats, of made-up rows; else 0 */
};

/* Load the file, or make rows up; 0, or -1 with a line on standard error. Free
 * with data_free in any case. */
int data_open(struct data *data, const struct config *config);
void data_free(struct data *data);

/* What a plain array of all rows of `dim` values takes, with the accumulator
 * that each has. */
uint64_t data_array_bytes(const struct data *data, uint64_t dim);
uint64_t data_steps(const struct data *data); /* of an epoch */
/* Batch number `step` of an epoch, borrowed until the next; n = 0 behind the
 * last one. `batch` is initialised. */
void data_batch(struct data *data, uint64_t step, fl_dataset *batch);
/* The batch of these n rows, n <= config->batch, borrowed until the next. */
void data_fill(struct data *data, const uint32_t *rows, uint64_t n,
               fl_dataset *batch);
/* AUC of the model on the rows to test on. */
fl_status data_test(struct data *data, fl_model *model, double *auc);

#endif
