/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of activation.h; included once per instruction set. */
#ifndef FLK_NN_ACTIVATION_BODY_H
#define FLK_NN_ACTIVATION_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_math.h"

NN_INLINE nn_vec relu(nn_vec x)
{
  return (nn_vec)(~(x < 0.0f) & (nn_ivec)x);
}

NN_INLINE nn_vec relu_back(nn_vec dy, nn_vec y)
{
  return (nn_vec)(~(y <= 0.0f) & (nn_ivec)dy);
}

NN_INLINE nn_vec gelu(nn_vec x)
{
  nn_vec half = x * 0.5f;
  return half * vec_erf(x * 0.707106781f) + half;
}

/* The derivative is P(x) + x p(x), P being the normal distribution and p its
 * density. With a = |x| and t = 1 / (1 + 0.28 a), P(-a) is e^(-a^2 / 2) times a
 * polynomial of t (minimax in the product, error 1e-8; the form is Hastings',
 * Abramowitz and Stegun, 26.2.17). Beyond 13 both are 0. */
NN_INLINE nn_vec gelu_back(nn_vec dy, nn_vec x)
{
  nn_vec a = vec_at_most(vec_abs(x), 13.0f);
  nn_vec t = 1.0f / (a * 0.28f + 1.0f);
  nn_vec e = vec_exp_within(a * a * -0.5f);
  nn_vec tt = t * t;
  nn_vec p = t * -0.105808103f + 0.38987345f;
  p = p * tt + (t * -0.236992571f + 0.268909441f);
  p = p * tt + (t * 0.0674970396f + 0.116520734f);
  nn_vec below = e * (p * t - a * 0.398942280f);
  return dy * vec_select(x < 0.0f, below, 1.0f - below);
}

NN_INLINE nn_vec silu(nn_vec x)
{
  return x * vec_sigmoid(x);
}

NN_INLINE nn_vec silu_back(nn_vec dy, nn_vec x)
{
  nn_vec s = vec_sigmoid(x);
  /* s (1 - s) is 0 long before x is infinite. */
  nn_vec near = vec_at_most(vec_at_least(x, -100.0f), 100.0f);
  return dy * (s + near * s * (1.0f - s));
}

NN_INLINE nn_vec tanh_back(nn_vec dy, nn_vec y)
{
  return dy * (1.0f - y * y);
}

NN_INLINE nn_vec sigmoid_back(nn_vec dy, nn_vec y)
{
  return dy * (y * (1.0f - y));
}

#define MAP(name, f)                                               \
  static void name##_map(float *y, const float *x, size_t n)       \
  {                                                                \
    NN_EACH(n, vec_put(y + at, f(vec_get(x + at, count)), count)); \
  }
#define MAP_BACK(f)                                                            \
  static void f##_map(float *dx, const float *dy, const float *known,          \
                      size_t n)                                                \
  {                                                                            \
    NN_EACH(n, vec_put(dx + at,                                                \
                       f(vec_get(dy + at, count), vec_get(known + at, count)), \
                       count));                                                \
  }

MAP(relu, relu)
MAP(gelu, gelu)
MAP(silu, silu)
MAP(tanh, vec_tanh)
MAP(sigmoid, vec_sigmoid)
MAP_BACK(relu_back)
MAP_BACK(gelu_back)
MAP_BACK(silu_back)
MAP_BACK(tanh_back)
MAP_BACK(sigmoid_back)

#undef MAP
#undef MAP_BACK

static void fill_activations(flk_nn_table *table)
{
  table->activation = (flk_activation_kernels){
      .forward = {relu_map, gelu_map, silu_map, tanh_map, sigmoid_map},
      .backward = {relu_back_map, gelu_back_map, silu_back_map, tanh_back_map,
                   sigmoid_back_map}};
}

#endif
