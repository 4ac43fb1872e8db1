/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of ids and targets. Rows are taken in the order of time, shuffled
 * within windows of some batches: what one customer buys at once stands
 * together, and would be all that a batch has.
 */
#include "recommender/data.h"

#include <err.h>
#include <stdlib.h>

#include "common/auc.h"

enum {
  WINDOW = 64, /* batches */
  MADE_ROWS = 400000,
  TEST_SHARE = 10 /* a tenth */
};

/* SplitMix64 (Steele et al., OOPSLA 2014). */
static uint64_t next(uint64_t *state)
{
  uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return x ^ x >> 31;
}

static void shuffle(uint32_t *rows, uint64_t n, uint64_t *state)
{
  for (uint64_t i = n; i > 1; i--) {
    uint64_t other = next(state) % i;
    uint32_t row = rows[i - 1];
    rows[i - 1] = rows[other];
    rows[other] = row;
  }
}

static void make_order(struct data *data, uint64_t seed)
{
  uint64_t window = data->batch * WINDOW;
  uint64_t n = data->clicks.n_train;
  for (uint64_t i = 0; i < data->clicks.n_rows; i++)
    data->order[i] = (uint32_t)i;
  for (uint64_t first = 0; first < n; first += window) {
    uint64_t left = n - first;
    shuffle(data->order + first, left < window ? left : window, &seed);
  }
}

static int load(struct clicks *clicks, const struct config *config)
{
  char error[2048];
  struct clicks_recipe recipe = {.seed = config->seed,
                                 .n_rows = config->rows,
                                 .n_fields = 6,
                                 .customers = 2000,
                                 .n_values = 100000,
                                 .exponent = 1.05,
                                 .strength = 1.0};
  if (config->data[0]) {
    if (clicks_load(clicks, config->data, error, sizeof error) == 0) return 0;
    warnx("data: %s", error);
    return -1;
  }
  if (recipe.n_rows == 0) recipe.n_rows = MADE_ROWS;
  recipe.n_train = recipe.n_rows - recipe.n_rows / TEST_SHARE;
  if (clicks_make(clicks, &recipe) == 0) return 0;
  warnx("out of memory for %llu rows", (unsigned long long)recipe.n_rows);
  return -1;
}

/* There is something to train on, and to tell apart in a test. */
static int check(const struct clicks *clicks)
{
  uint64_t ones = 0;
  for (uint64_t i = clicks->n_train; i < clicks->n_rows; i++)
    ones += clicks->labels[i];
  if (clicks->n_train == 0) {
    warnx("data: no rows to train on");
    return -1;
  }
  if (ones == 0 || ones == clicks->n_rows - clicks->n_train) {
    warnx("data: the %llu rows to test on: want both labels",
          (unsigned long long)(clicks->n_rows - clicks->n_train));
    return -1;
  }
  return 0;
}

int data_open(struct data *data, const struct config *config)
{
  struct clicks *clicks = &data->clicks;
  *data = (struct data){.batch = config->batch};
  if (load(clicks, config) != 0) return -1;
  if (config->rows > 0 && config->rows < clicks->n_rows) {
    clicks->n_rows = config->rows;
    clicks->n_train = config->rows - config->rows / TEST_SHARE;
  }
  if (check(clicks) != 0) return -1;
  size_t n = (size_t)clicks->n_rows, batch = (size_t)data->batch;
  data->order = malloc(n * sizeof *data->order);
  data->scores = malloc(n * sizeof *data->scores);
  data->ids = malloc(batch * clicks->n_fields * sizeof *data->ids);
  data->targets = malloc(batch * sizeof *data->targets);
  if (!data->order || !data->scores || !data->ids || !data->targets) {
    warnx("out of memory for %zu rows", n);
    return -1;
  }
  make_order(data, config->seed);
  if (clicks->truth)
    (void)auc_of(clicks->truth + clicks->n_train,
                 clicks->labels + clicks->n_train,
                 (size_t)(clicks->n_rows - clicks->n_train), &data->ceiling);
  return 0;
}

void data_free(struct data *data)
{
  clicks_free(&data->clicks);
  free(data->order);
  free(data->ids);
  free(data->targets);
  free(data->scores);
}

uint64_t data_array_bytes(const struct data *data, uint64_t dim)
{
  return clicks_count_values(&data->clicks) * 4 * (dim + 1);
}

uint64_t data_steps(const struct data *data)
{
  return (data->clicks.n_train + data->batch - 1) / data->batch;
}

void data_fill(struct data *data, const uint32_t *rows, uint64_t n,
               fl_dataset *batch)
{
  batch->n = n;
  clicks_ids(&data->clicks, rows, n, data->ids);
  for (uint64_t i = 0; i < n; i++)
    data->targets[i] = data->clicks.labels[rows[i]];
  batch->x_dtype = FL_DTYPE_U64;
  batch->x = data->ids;
  batch->targets = data->targets;
}

/* Rows from place `first` of the order on, before place `end`. */
static void fill(struct data *data, uint64_t first, uint64_t end,
                 fl_dataset *batch)
{
  const uint32_t *rows = data->order + first;
  batch->n = 0;
  if (first >= end) return;
  data_fill(data, rows, end - first < data->batch ? end - first : data->batch,
            batch);
}

void data_batch(struct data *data, uint64_t step, fl_dataset *batch)
{
  fill(data, step * data->batch, data->clicks.n_train, batch);
}

fl_status data_test(struct data *data, fl_model *model, double *auc)
{
  const struct clicks *clicks = &data->clicks;
  uint64_t n = clicks->n_rows - clicks->n_train;
  fl_dataset batch;
  fl_status st = fl_dataset_init(&batch, sizeof batch);
  for (uint64_t at = 0; st == FL_OK && at < n; at += batch.n) {
    fill(data, clicks->n_train + at, clicks->n_rows, &batch);
    st = fl_model_predict(model, &batch, data->scores + at, batch.n);
  }
  if (st != FL_OK) return st;
  switch (
      auc_of(data->scores, clicks->labels + clicks->n_train, (size_t)n, auc)) {
  case 0: return FL_OK;
  case -1: return FL_E_NOMEM;
  default: return FL_E_NOT_FINITE;
  }
}
