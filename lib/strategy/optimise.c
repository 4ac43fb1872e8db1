/* SPDX-License-Identifier: Apache-2.0 */
/* From D to the step: server momentum (Hsu, Qi, Brown 2019) and the adaptive
 * optimisers (Reddi et al., ICLR 2021, algorithm 2). State is kept in float32,
 * computed in double. */
#include <math.h>

#include "base/context.h"
#include "base/dmath.h"
#include "base/error.h"
#include "strategy/strategy.h"

static void with_momentum(const fl_strategy *s, fli_pending *p)
{
  const double rate = (double)s->options.rate;
  const double beta = (double)s->options.momentum;
  for (uint64_t i = 0; i < s->n; i++) {
    double moved = (double)p->step[i];
    if (p->momentum) {
      p->momentum[i] = (float)(beta * (double)s->momentum[i] + moved);
      moved = (double)p->momentum[i];
    }
    p->step[i] = (float)(rate * moved);
  }
}

/* 1 - beta^t */
static double correction(double beta, uint64_t t)
{
  return beta > 0.0 ? 1.0 - fli_exp((double)t * fli_ln(beta)) : 1.0;
}

static double next_second(const fl_strategy_options *o, double v, double square)
{
  const double rest = 1.0 - (double)o->beta2;
  switch (o->optimiser) {
  case FL_STEP_ADAGRAD: return v + square;
  case FL_STEP_YOGI:
    return v - rest * square * (double)((v > square) - (v < square));
  default: return (double)o->beta2 * v + rest * square;
  }
}

static void adaptively(const fl_strategy *s, fli_pending *p)
{
  const fl_strategy_options *o = &s->options;
  const double beta1 = (double)o->beta1, tau = (double)o->tau;
  const uint64_t t = s->steps + 1;
  const double by_m =
      o->bias_correction ? correction((double)o->beta1, t) : 1.0;
  const double by_v =
      o->bias_correction ? correction((double)o->beta2, t) : 1.0;
  for (uint64_t i = 0; i < s->n; i++) {
    const double d = (double)p->step[i];
    p->momentum[i] =
        (float)(beta1 * (double)s->momentum[i] + (1.0 - beta1) * d);
    p->second[i] = (float)next_second(o, (double)s->second[i], d * d);
    const double m = (double)p->momentum[i] / by_m;
    const double v = (double)p->second[i] / by_v;
    p->step[i] = (float)((double)o->rate * m / (sqrt(v) + tau));
  }
}

static fl_status by_host(const fl_strategy *s, const float *weights,
                         fli_pending *p)
{
  const size_t n = (size_t)s->n;
  float *step = fli_alloc(s->context, n, sizeof *step);
  if (!step) return fli_nomem(n * sizeof *step);
  fl_status st = fli_host_status(
      s->options.optimise(s->options.user, p->step, weights, step, s->n),
      "optimise");
  float *combined = p->step;
  p->step = step;
  fli_free(s->context, combined, n * sizeof *combined);
  return st;
}

fl_status fli_optimise(const fl_strategy *s, const float *weights,
                       fli_pending *p)
{
  const size_t n = (size_t)s->n;
  fl_status st = FL_OK;
  if (s->momentum) p->momentum = fli_alloc(s->context, n, sizeof(float));
  if (s->second) p->second = fli_alloc(s->context, n, sizeof(float));
  if ((s->momentum && !p->momentum) || (s->second && !p->second))
    return fli_nomem(n * sizeof(float));
  switch (s->options.optimiser) {
  case FL_STEP_SGD: with_momentum(s, p); break;
  case FL_STEP_HOST: st = by_host(s, weights, p); break;
  default: adaptively(s, p); break;
  }
  if (st == FL_OK) st = fli_expect_finite(p->step, s->n, "the step");
  if (st == FL_OK && p->momentum)
    st = fli_expect_finite(p->momentum, s->n, "the momentum");
  if (st == FL_OK && p->second)
    st = fli_expect_finite(p->second, s->n, "the second moment");
  return st;
}
