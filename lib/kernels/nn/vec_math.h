/* SPDX-License-Identifier: Apache-2.0 */
/* Elementary functions of whole vectors, for the bodies of nn_<isa>.c. NaN
 * stays NaN. Relative errors are those measured over the whole range. */
#ifndef FLK_NN_VEC_MATH_H
#define FLK_NN_VEC_MATH_H

#include "kernels/nn/vec.h"

static inline nn_vec vec_of(float value)
{
  return value - (nn_vec){0};
}

/* where the mask (all bits or none) is set a, else b */
static inline nn_vec vec_select(nn_ivec mask, nn_vec a, nn_vec b)
{
  return (nn_vec)((mask & (nn_ivec)a) | (~mask & (nn_ivec)b));
}

/* NaN in x stays; `bound` is none. */
static inline nn_vec vec_at_most(nn_vec x, float bound)
{
  return vec_select(x > bound, vec_of(bound), x);
}

static inline nn_vec vec_at_least(nn_vec x, float bound)
{
  return vec_select(x < bound, vec_of(bound), x);
}

/* e^x: 2^n e^r with |r| <= ln(2) / 2, e^r by its Taylor polynomial of degree 7
 * (error below 6e-9 there). Relative error 9e-8; 0 below -87.3, infinite
 * above 88.7. */
static inline nn_vec vec_exp(nn_vec x)
{
  const float round_to_whole = 12582912.0f; /* 1.5 2^23 */
  nn_vec bounded = vec_at_most(vec_at_least(x, -87.3f), 88.7f);
  nn_vec shifted = bounded * 1.44269504f + round_to_whole;
  nn_vec n = shifted - round_to_whole;
  nn_vec r = bounded - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  nn_vec p = vec_of(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  /* 2^n in two factors: n = 128 alone would be infinite. */
  nn_ivec whole = (nn_ivec)shifted - (nn_ivec)vec_of(round_to_whole);
  nn_ivec half = whole >> 1;
  nn_vec y = p * (nn_vec)((half + 127) << 23);
  y = y * (nn_vec)((whole - half + 127) << 23);
  y = vec_select(x < -87.3f, (nn_vec){0}, y);
  y = vec_select(x > 88.7f, vec_of(__builtin_inff()), y);
  return vec_select(x != x, x, y);
}

#endif
