/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of a sparse embedding as the simplest provider has them: an array
 * of `count`, an id's row being the one at its remainder. Updates are what the
 * model makes of the tensor of an embedding: gradients added up in order, then
 * the optimiser's formula. With `fails` it does nothing and says so. */
#ifndef TESTS_ARRAY_ROWS_H
#define TESTS_ARRAY_ROWS_H

#include <stdlib.h>
#include <string.h>

#include "kernels/nn/nn.h"
#include "model/model.h"

typedef struct array_rows {
  size_t count;
  size_t width;
  float *values;   /* [count][width] */
  float *gradient; /* the same */
  fli_optimiser optimiser;
  fl_status fails[3]; /* lookup, forward, backward */
  uint64_t calls[3];
  uint64_t gone;
  float rate;       /* of the last update */
  uint64_t last_id; /* of the last call */
} array_rows;

static inline fl_status array_rows_read(array_rows *rows, const fli_ids *ids,
                                        float *values, int call)
{
  size_t n = ids->n * ids->fields;
  rows->calls[call]++;
  rows->last_id = ids->ids[n - 1];
  if (rows->fails[call] != FL_OK) return rows->fails[call];
  for (size_t i = 0; i < n; i++) {
    memcpy(values + i * ids->width,
           rows->values + (size_t)(ids->ids[i] % rows->count) * ids->width,
           ids->width * sizeof *values);
  }
  return FL_OK;
}

static inline fl_status array_rows_lookup(void *user, const fli_ids *ids,
                                          float *values)
{
  return array_rows_read(user, ids, values, 0);
}

static inline fl_status array_rows_forward(void *user, const fli_ids *ids,
                                           float *values)
{
  return array_rows_read(user, ids, values, 1);
}

static inline fl_status array_rows_backward(void *user, const fli_ids *ids,
                                            const float *gradient, float rate)
{
  array_rows *rows = user;
  size_t n = rows->count * rows->width;
  rows->calls[2]++;
  rows->rate = rate;
  if (rows->fails[2] != FL_OK) return rows->fails[2];
  memset(rows->gradient, 0, n * sizeof *rows->gradient);
  for (size_t i = 0; i < ids->n * ids->fields; i++) {
    int32_t at = (int32_t)(ids->ids[i] % rows->count);
    flk_nn()->vector.scatter_add(rows->gradient, gradient + i * ids->width, &at,
                                 1, ids->width);
  }
  fli_optimiser_apply(&rows->optimiser, rate, rows->values, rows->gradient,
                      1.0f, 0, n);
  return FL_OK;
}

static inline void array_rows_gone(void *user)
{
  ((array_rows *)user)->gone++;
}

static const fli_provider array_rows_provider = {
    .lookup = array_rows_lookup,
    .forward = array_rows_forward,
    .backward = array_rows_backward,
    .gone = array_rows_gone,
};

/* `values` NULL: some that are not alike. NULL without memory. */
static inline array_rows *array_rows_new(size_t count, size_t width,
                                         const float *values)
{
  array_rows *rows = calloc(1, sizeof *rows);
  size_t n = count * width;
  if (!rows) return NULL;
  *rows = (array_rows){.count = count, .width = width};
  rows->values = malloc(n * sizeof *rows->values);
  rows->gradient = malloc(n * sizeof *rows->gradient);
  (void)fli_optimiser_init(&rows->optimiser, NULL, &fli_optimiser_defaults, 0,
                           n);
  for (size_t i = 0; i < n && rows->values; i++) {
    rows->values[i] = values ? values[i] : (float)(i * 37 % 101) / 101 - .5f;
  }
  if (rows->values && rows->gradient) return rows;
  free(rows->values);
  free(rows->gradient);
  free(rows);
  return NULL;
}

static inline void array_rows_free(array_rows *rows)
{
  if (!rows) return;
  fli_optimiser_free(&rows->optimiser, NULL);
  free(rows->values);
  free(rows->gradient);
  free(rows);
}

#endif
