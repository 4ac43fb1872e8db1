/* SPDX-License-Identifier: Apache-2.0 */
/* Sums in double, for the bodies of nn_<isa>.c. */
#ifndef FLK_NN_VEC_WIDE_H
#define FLK_NN_VEC_WIDE_H

#include "kernels/nn/vec_isa.h"

enum { NN_WIDE = NN_BYTES / sizeof(double) };

typedef double nn_wide __attribute__((vector_size(NN_BYTES), aligned(4)));
typedef float nn_narrow __attribute__((vector_size(NN_BYTES / 2), aligned(4)));

/* The halves of a vector. */
NN_INLINE void wide_halves(nn_wide halves[2], nn_vec x)
{
  union {
    nn_vec whole;
    nn_narrow half[2];
  } parts = {.whole = x};
  halves[0] = __builtin_convertvector(parts.half[0], nn_wide);
  halves[1] = __builtin_convertvector(parts.half[1], nn_wide);
}

NN_INLINE void wide_add(nn_wide sums[2], nn_vec x)
{
  nn_wide halves[2];
  wide_halves(halves, x);
  sums[0] += halves[0];
  sums[1] += halves[1];
}

NN_INLINE void wide_add_squares(nn_wide sums[2], nn_vec x)
{
  nn_wide halves[2];
  wide_halves(halves, x);
  sums[0] += halves[0] * halves[0];
  sums[1] += halves[1] * halves[1];
}

NN_INLINE double wide_sum(nn_wide x)
{
  double sum = 0.0;
  for (size_t i = 0; i < NN_WIDE; i++) {
    sum += x[i];
  }
  return sum;
}

#endif
