/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise functions of layers and their derivatives (activation_body.h).
 * Any n; y may be x, dx may be dy. NaN stays NaN. */
#ifndef FLK_NN_ACTIVATION_H
#define FLK_NN_ACTIVATION_H

#include <stddef.h>

enum {
  FLK_RELU = 0,
  FLK_GELU = 1, /* x/2 (1 + erf(x / sqrt 2)) */
  FLK_SILU = 2, /* x / (1 + e^-x) */
  FLK_TANH = 3,
  FLK_SIGMOID = 4,
  FLK_ACTIVATIONS = 5
};

typedef struct flk_activation_kernels {
  /* y = f(x). gelu and silu of -infinity are NaN, as PyTorch's. */
  void (*forward[FLK_ACTIVATIONS])(float *y, const float *x, size_t n);
  /* dx = dy f'(x). `known`: x for gelu and silu, y for the others. That of
   * relu is also a masked copy: dy where `known` is above 0 or NaN, else 0. */
  void (*backward[FLK_ACTIVATIONS])(float *dx, const float *dy,
                                    const float *known, size_t n);
} flk_activation_kernels;

/* Whether `backward` needs x. */
static inline int flk_activation_keeps_x(int activation)
{
  return activation == FLK_GELU || activation == FLK_SILU;
}

#endif
