/* SPDX-License-Identifier: Apache-2.0 */
/* Elementary functions of whole vectors, for the bodies of nn_<isa>.c. NaN
 * stays NaN. Errors are those measured over the whole range, with and without
 * fused multiply-add. */
#ifndef FLK_NN_VEC_MATH_H
#define FLK_NN_VEC_MATH_H

#include "kernels/nn/vec_isa.h"

/* Polynomials are summed up in pairs, so that few steps wait for each other:
 * a processor looks ahead no further than a few vectors. */

/* e^r for |r| <= ln(2) / 2 by its Taylor polynomial of degree 7 (error below
 * 6e-9 there). */
static inline nn_vec vec_exp_near(nn_vec r)
{
  nn_vec rr = r * r;
  nn_vec high = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
  nn_vec middle = r * (1.0f / 120.0f) + 1.0f / 24.0f;
  nn_vec low = r * (1.0f / 6.0f) + 0.5f;
  return ((high * rr + middle) * rr + low) * rr + r + 1.0f;
}

/* e^x for x in -87.3..0 (or NaN): 2^n e^r with |r| <= ln(2) / 2. Relative error
 * 9e-8. */
static inline nn_vec vec_exp_within(nn_vec x)
{
  const float round_to_whole = 12582912.0f; /* 1.5 2^23 */
  nn_vec shifted = x * 1.44269504f + round_to_whole;
  nn_vec n = shifted - round_to_whole;
  nn_vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  /* n is in the low bits of `shifted`, what else is there goes out of it. */
  nn_vec power = (nn_vec)(((nn_uvec)shifted << 23) + 0x3f800000u);
  return vec_exp_near(r) * power;
}

/* e^x for x <= 0 (or NaN). Relative error 9e-8; 0 below -87.3. */
static inline nn_vec vec_exp_down(nn_vec x)
{
  nn_vec y = vec_exp_within(vec_at_least(x, -87.3f));
  return (nn_vec)(~(x < -87.3f) & (nn_ivec)y);
}

/* ln(1 + e) for e in 0..1, from s = e / (2 + e): 2 artanh(s) by its Taylor
 * series. Relative error 7e-8. */
static inline nn_vec vec_log_1p(nn_vec s)
{
  nn_vec u = s * s, uu = u * u;
  nn_vec p = u * (1.0f / 13.0f) + 1.0f / 11.0f + uu * (1.0f / 15.0f);
  p = p * uu + (u * (1.0f / 9.0f) + 1.0f / 7.0f);
  p = p * uu + (u * 0.2f + 1.0f / 3.0f);
  s = s + s;
  return s + s * u * p;
}

/* 1 / (1 + e^-x). Relative error 2e-7 down to x = -87.3, below that 0. */
static inline nn_vec vec_sigmoid(nn_vec x)
{
  nn_vec e = vec_exp_down((nn_vec)((nn_ivec)x | INT32_MIN));
  nn_vec above = vec_select(x < 0.0f, e, vec_of(1.0f));
  return above / (e + 1.0f);
}

/* x P(x^2) / Q(x^2), minimax in relative error (2e-8) for |x| < 9.01, where
 * tanh is 1. Relative error 3e-7. */
static inline nn_vec vec_tanh(nn_vec x)
{
  nn_vec bounded = vec_at_most(vec_at_least(x, -9.01f), 9.01f);
  nn_vec u = bounded * bounded;
  nn_vec uu = u * u;
  nn_vec p = u * 2.05962033e-5f + 0.00349480672f + uu * 1.33367531e-8f;
  p = p * uu + (u * 0.13380368f + 0.999999979f);
  nn_vec q = u * 3.28435617e-4f + 0.0258740103f + uu * 7.76924345e-7f;
  q = q * uu + (u * 0.467136834f + 1.0f);
  nn_vec y = bounded * p / q;
  return vec_at_most(vec_at_least(y, -1.0f), 1.0f);
}

/* x P(x^2) / Q(x^2), minimax in relative error (6e-8) for |x| < 3.95; +-1 from
 * 3.92 on. Relative error 3.5e-7. */
static inline nn_vec vec_erf(nn_vec x)
{
  nn_vec bounded = vec_at_most(vec_at_least(x, -3.92f), 3.92f);
  nn_vec u = bounded * bounded;
  nn_vec uu = u * u;
  nn_vec p = u * -1.95089025e-6f + 1.43809041e-4f + uu * 1.96036473e-8f;
  p = p * uu + (u * 0.00380785075f + 0.0509233017f);
  p = p * uu + (u * 0.202583279f + 1.1283791f);
  nn_vec q = u * 0.0145757735f + 0.116094657f + uu * 9.79847093e-4f;
  q = q * uu + (u * 0.512866267f + 1.0f);
  nn_vec y = bounded * p / q;
  nn_vec one = (nn_vec)(((nn_ivec)x & INT32_MIN) | 0x3f800000);
  return vec_select(vec_abs(x) >= 3.92f, one, y);
}

#endif
