/* SPDX-License-Identifier: Apache-2.0 */
/* What attention needs beside products (attention_body.h); linalg/attention.c
 * is its user. */
#ifndef FLK_NN_ATTENTION_H
#define FLK_NN_ATTENTION_H

#include <stddef.h>

/* A block of scores: one row per key, one column per query, so that all about
 * a query is vertical. Query c sees key r where r < c + visible; what others
 * hold is not used, and comes back as 0. Columns are computed up to a whole
 * vector. */
typedef struct flk_scores {
  size_t n_keys;
  size_t n_queries;
  size_t visible; /* >= 1; n_keys: all see all */
  float *scores;  /* log2 of weights */
  size_t row;
  float *dscores;    /* backward only; rows like those of scores */
  float *greatest;   /* [query] of the scores */
  float *total;      /* [query] of the weights; after the last, 1 / total */
  float *factor;     /* [query] what products of former blocks must be times */
  const float *dots; /* backward: [query] the sum of weights times dweights */
  int is_first;      /* no block of these queries came before */
  int is_last;
} flk_scores;

typedef struct flk_attention_kernels {
  /* From scores to weights in proportion to the greatest score so far. Updates
   * greatest and total; sets factor unless it is the first. NaN stays, and with
   * it the whole column is. */
  void (*softmax)(const flk_scores *scores);
  /* dscores: from derivatives of weights to those of scores in natural units.
   * Scores become weights of sum 1. */
  void (*softmax_back)(const flk_scores *scores);
  /* dots[r] = sum_c a[r][c] b[r][c]; behind n_rows 0 up to a whole vector. */
  void (*row_dots)(const float *a, const float *b, size_t row, size_t n_rows,
                   size_t n_columns, float *dots);
  /* x[r][c] *= factors[r] */
  void (*scale_rows)(float *x, size_t row, size_t n_rows, size_t n_columns,
                     const float *factors);
  /* Bring n floats near, into the second cache. */
  void (*fetch)(const float *at, size_t n);
} flk_attention_kernels;

#endif
