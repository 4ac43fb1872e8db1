/* SPDX-License-Identifier: Apache-2.0 */
/* Updates of weights by optimisers (optimiser_body.h), with the formulas of
 * torch.optim. One pass over memory; any n, so that a range may be cut
 * anywhere. With g = factor gradient (factor: clipping, and the mean over
 * accumulated steps). Sums of squares end at FLT_MAX, for infinity would never
 * decay. */
#ifndef FLK_NN_OPTIMISER_H
#define FLK_NN_OPTIMISER_H

#include <stddef.h>

typedef struct flk_sgd {
  float factor;
  float rate;
  float decay; /* g += decay w */
  float momentum;
} flk_sgd;

typedef struct flk_adam {
  float factor;
  float beta1;
  float beta2;
  float epsilon;
  /* adam: g += decay w. adamw: w -= decay w before the step, so here decay is
   * learning rate x weight decay. */
  float decay;
  float rate;        /* learning rate / (1 - beta1^t), t = 1, 2, ... */
  float root_factor; /* 1 / sqrt(1 - beta2^t) */
} flk_adam;

typedef struct flk_adagrad {
  float factor;
  float rate; /* learning rate / (1 + (t - 1) its decay) */
  float decay;
  float epsilon;
} flk_adagrad;

typedef struct flk_optimiser_kernels {
  /* w -= rate g */
  void (*sgd)(float *w, const float *gradient, size_t n, const flk_sgd *sgd);
  /* v = momentum v + g; w -= rate v. v is 0 at first; dampening is 0. */
  void (*momentum)(float *w, const float *gradient, float *v, size_t n,
                   const flk_sgd *sgd);
  /* v = momentum v + g; w -= rate (g + momentum v) */
  void (*nesterov)(float *w, const float *gradient, float *v, size_t n,
                   const flk_sgd *sgd);
  /* m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
   * w -= rate m / (sqrt(v) root_factor + epsilon) */
  void (*adam)(float *w, const float *gradient, float *m, float *v, size_t n,
               const flk_adam *adam);
  void (*adamw)(float *w, const float *gradient, float *m, float *v, size_t n,
                const flk_adam *adam);
  /* sum += g^2; w -= rate g / (sqrt(sum) + epsilon) */
  void (*adagrad)(float *w, const float *gradient, float *sum, size_t n,
                  const flk_adagrad *adagrad);
} flk_optimiser_kernels;

#endif
