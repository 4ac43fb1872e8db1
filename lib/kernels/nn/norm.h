/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm and group norm (norm_body.h): y = (x - mean) rstd gamma + beta
 * with rstd = 1 / sqrt(variance + epsilon), the variance being that of
 * differences to the mean. Any sizes; NaN stays NaN. */
#ifndef FLK_NN_NORM_H
#define FLK_NN_NORM_H

#include <stddef.h>

/* What backward gives. dx may be dy (unless it is added to) but not x. */
typedef struct flk_norm_gradients {
  float *dx;     /* NULL: not wanted */
  int does_add;  /* dx is added to instead of overwritten */
  float *dgamma; /* added to; NULL: neither it nor dbeta is wanted */
  float *dbeta;
} flk_norm_gradients;

/* Rows of n, each of its own mean. */
typedef struct flk_layer_norm {
  const float *x;     /* [rows][n] */
  float *y;           /* forward; may be x when there is no backward */
  const float *dy;    /* backward */
  const float *gamma; /* [n] */
  const float *beta;
  float *mean; /* [rows], as is rstd: written forward, read backward */
  float *rstd;
  size_t rows;
  size_t n;
  float epsilon; /* > 0 */
} flk_layer_norm;

/* Images [pixels][pixel]: channels lie side by side in `pixel` >= channels
 * floats, those behind them are neither read nor written. Every channels /
 * groups (a whole number) that follow each other share a mean per image. */
typedef struct flk_group_norm {
  const float *x;
  float *y;
  const float *dy;
  const float *gamma; /* [channels] */
  const float *beta;
  float *mean; /* [images][groups] */
  float *rstd;
  size_t images;
  size_t pixels; /* height x width */
  size_t pixel;
  size_t channels;
  size_t groups;
  float epsilon; /* > 0 */
} flk_group_norm;

typedef struct flk_norm_kernels {
  void (*layer)(const flk_layer_norm *norm);
  void (*layer_back)(const flk_layer_norm *norm,
                     const flk_norm_gradients *gradients);
  void (*group)(const flk_group_norm *norm);
  void (*group_back)(const flk_group_norm *norm,
                     const flk_norm_gradients *gradients);
} flk_norm_kernels;

#endif
