/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and losses (softmax_body.h). Any sizes; outputs may be inputs where
 * they begin at the same place. NaN stays NaN. A row of nothing but -infinity
 * has no softmax (NaN), nor has one with +infinity. */
#ifndef FLK_NN_SOFTMAX_H
#define FLK_NN_SOFTMAX_H

#include <stddef.h>
#include <stdint.h>

enum { FLK_IGNORE = -100 }; /* what PyTorch ignores unless told otherwise */

/* Softmax cross-entropy of rows of logits. The target distribution of a row is
 * 1 - smoothing at its target plus smoothing / n everywhere. */
typedef struct flk_cross_entropy {
  const float *logits;    /* [rows][n] */
  const int32_t *targets; /* [rows], 0..n-1 or `ignore` */
  float *gradient;        /* [rows][n], may be the logits; NULL: not wanted */
  size_t rows;
  size_t n;
  float smoothing; /* 0..1 */
  int32_t ignore;  /* rows of this target have no loss, their gradient is 0 */
  float factor;    /* of the gradient: 1 / (rows that are not ignored) */
} flk_cross_entropy;

/* A loss of single elements. */
typedef struct flk_loss {
  const float *x;
  const float *target;
  float *gradient; /* may be x or target; NULL: not wanted */
  size_t n;
  float factor; /* of the gradient: 1/n for the mean's */
} flk_loss;

typedef struct flk_softmax_kernels {
  /* Of every row of n. */
  void (*forward)(float *y, const float *x, size_t rows, size_t n);
  /* dx = y (dy - sum over the row of y dy), y being softmax's result. */
  void (*backward)(float *dx, const float *dy, const float *y, size_t rows,
                   size_t n);
  /* These give the sum of the losses, not their mean. */
  double (*cross_entropy)(const flk_cross_entropy *loss);
  /* (x - target)^2; the gradient is 2 factor (x - target). */
  double (*squared_error)(const flk_loss *loss);
  /* Of logits x and targets in 0..1: ln(1 + e^x) - target x. */
  double (*binary_cross_entropy)(const flk_loss *loss);
} flk_softmax_kernels;

/* Rows that have a loss. */
static inline size_t flk_count_targets(const int32_t *targets, size_t rows,
                                       int32_t ignore)
{
  size_t count = 0;
  for (size_t r = 0; r < rows; r++) {
    count += targets[r] != ignore;
  }
  return count;
}

#endif
