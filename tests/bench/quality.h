/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of quality_embedding: what is compared, and one training of it. */
#ifndef QUALITY_H
#define QUALITY_H

#include <fl/embedding.h>

#include "common/clicks.h"

/* How ids that hold no chunk are remembered. */
enum { QUALITY_EXACT, QUALITY_SKETCH };

typedef struct quality_method {
  const char *name;
  uint32_t dim;
  uint32_t chunks;
  double keep;      /* the budget is for that share of all values' rows */
  uint32_t as_dim;  /* or: for the bytes of a plain array of rows of so many
                       values */
  double hash;      /* share of a field's values that ids are folded to; 0 = no
                       folding */
  uint64_t fold_at; /* fields of so many values or more are folded */
  int memory;       /* QUALITY_*, with a budget */
  uint64_t budget;  /* bytes, in place of keep and as_dim */
} quality_method;

typedef struct quality_recipe {
  uint32_t batch;
  uint32_t window;       /* batches that are shuffled together */
  uint32_t adjust_every; /* steps; and at 3, 6, 9, 30, 60, 90 */
  float rate;            /* of the net, Adam */
  float rows_rate;       /* of the rows, AdaGrad */
  float decay;           /* of utilities, per adjust */
  float hysteresis;
  double sketch; /* counters of each row of the sketch per value */
} quality_recipe;

typedef struct quality_result {
  double auc;
  double seconds;   /* of processor time, the training */
  double adjusting; /* of it */
  uint64_t bytes;   /* of the budget, at the end */
  uint64_t scratch; /* beside it, of a batch */
  uint64_t peak;    /* of all, at most */
  uint64_t budget;  /* that it was given; 0 = none */
  uint64_t evicted; /* chunks */
  uint64_t grown;
} quality_result;

void quality_must(fl_status st, const char *what);
/* Bytes of a plain array of rows of `dim` values for all ids, after folding,
 * an accumulator each. */
uint64_t quality_array_bytes(const struct clicks *clicks,
                             const quality_method *method, uint32_t dim);
void quality_train(const struct clicks *clicks, const quality_recipe *recipe,
                   const quality_method *method, uint64_t seed,
                   quality_result *result);

#endif
