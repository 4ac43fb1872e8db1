/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of optimiser.h; included once per instruction set. Parameters
 * are copied: stores to arrays might change the caller's. */
#ifndef FLK_NN_OPTIMISER_BODY_H
#define FLK_NN_OPTIMISER_BODY_H

#include <float.h>

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_isa.h"

static void sgd(float *w, const float *gradient, size_t n, const flk_sgd *given)
{
  const flk_sgd o = *given;
  const float kept = 1.0f - o.rate * o.decay;
  const float step = o.rate * o.factor;
  NN_EACH(n, vec_put(w + at,
                     vec_get(w + at, count) * kept -
                         vec_get(gradient + at, count) * step,
                     count));
}

typedef struct momentum_arrays {
  float *w;
  const float *gradient;
  float *v;
} momentum_arrays;

NN_INLINE void momentum_step(momentum_arrays a, size_t count, flk_sgd o,
                             int is_nesterov)
{
  nn_vec w = vec_get(a.w, count);
  nn_vec g = vec_get(a.gradient, count) * o.factor + w * o.decay;
  nn_vec v = vec_get(a.v, count) * o.momentum + g;
  vec_put(a.v, v, count);
  if (is_nesterov) v = v * o.momentum + g;
  vec_put(a.w, w - v * o.rate, count);
}

static void momentum(float *w, const float *gradient, float *v, size_t n,
                     const flk_sgd *given)
{
  const flk_sgd o = *given;
  NN_EACH(n, momentum_step((momentum_arrays){w + at, gradient + at, v + at},
                           count, o, 0));
}

static void nesterov(float *w, const float *gradient, float *v, size_t n,
                     const flk_sgd *given)
{
  const flk_sgd o = *given;
  NN_EACH(n, momentum_step((momentum_arrays){w + at, gradient + at, v + at},
                           count, o, 1));
}

typedef struct adam_arrays {
  float *w;
  const float *gradient;
  float *m;
  float *v;
} adam_arrays;

NN_INLINE void adam_step(adam_arrays a, size_t count, flk_adam o,
                         int is_decoupled)
{
  nn_vec w = vec_get(a.w, count);
  nn_vec g = vec_get(a.gradient, count) * o.factor;
  if (is_decoupled) {
    w *= 1.0f - o.decay;
  } else {
    g += w * o.decay;
  }
  nn_vec m = vec_get(a.m, count) * o.beta1 + g * (1.0f - o.beta1);
  nn_vec v = vec_get(a.v, count) * o.beta2 + g * g * (1.0f - o.beta2);
  v = vec_at_most(v, FLT_MAX);
  vec_put(a.m, m, count);
  vec_put(a.v, v, count);
  nn_vec root = vec_sqrt(v) * o.root_factor + o.epsilon;
  vec_put(a.w, w - m * o.rate / root, count);
}

static void adam(float *w, const float *gradient, float *m, float *v, size_t n,
                 const flk_adam *given)
{
  const flk_adam o = *given;
  NN_EACH(n, adam_step((adam_arrays){w + at, gradient + at, m + at, v + at},
                       count, o, 0));
}

static void adamw(float *w, const float *gradient, float *m, float *v, size_t n,
                  const flk_adam *given)
{
  const flk_adam o = *given;
  NN_EACH(n, adam_step((adam_arrays){w + at, gradient + at, m + at, v + at},
                       count, o, 1));
}

NN_INLINE void adagrad_step(momentum_arrays a, size_t count, flk_adagrad o)
{
  nn_vec w = vec_get(a.w, count);
  nn_vec g = vec_get(a.gradient, count) * o.factor + w * o.decay;
  nn_vec sum = vec_at_most(vec_get(a.v, count) + g * g, FLT_MAX);
  vec_put(a.v, sum, count);
  vec_put(a.w, w - g * o.rate / (vec_sqrt(sum) + o.epsilon), count);
}

static void adagrad(float *w, const float *gradient, float *sum, size_t n,
                    const flk_adagrad *given)
{
  const flk_adagrad o = *given;
  NN_EACH(n, adagrad_step((momentum_arrays){w + at, gradient + at, sum + at},
                          count, o));
}

static void fill_optimisers(flk_nn_table *table)
{
  table->optimiser = (flk_optimiser_kernels){.sgd = sgd,
                                             .momentum = momentum,
                                             .nesterov = nesterov,
                                             .adam = adam,
                                             .adamw = adamw,
                                             .adagrad = adagrad};
}

#endif
