/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, and a step from its beginning to its end. */
#include "strategy/strategy.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "kernels/kernels.h"

static const fl_strategy_round round_defaults = {
    .struct_size = sizeof(fl_strategy_round),
};
static const fl_strategy_report report_defaults = {
    .struct_size = sizeof(fl_strategy_report),
};

/* ---- handle -------------------------------------------------------------- */

static fl_status alloc_state(fl_strategy *s)
{
  const fl_strategy_options *o = &s->options;
  const size_t n = (size_t)s->n;
  const int is_sgd = o->optimiser == FL_STEP_SGD;
  const int is_adaptive = !is_sgd && o->optimiser != FL_STEP_HOST;
  const int has_momentum = is_adaptive || (is_sgd && o->momentum > 0.0f);
  const int has_control = o->rule == FL_RULE_SCAFFOLD;
  if (has_momentum) s->momentum = fli_alloc(s->context, n, sizeof(float));
  if (is_adaptive) s->second = fli_alloc(s->context, n, sizeof(float));
  if (has_control) s->control = fli_alloc(s->context, n, sizeof(float));
  if ((has_momentum && !s->momentum) || (is_adaptive && !s->second) ||
      (has_control && !s->control))
    return fli_nomem(n * sizeof(float));
  for (size_t i = 0; s->second && i < n; i++)
    s->second[i] = o->v0;
  return FL_OK;
}

fl_status fl_strategy_new(fl_strategy **out, fl_context *context,
                          const fl_strategy_options *options, uint64_t n)
{
  fl_strategy_options local;
  fli_clear_error();
  if (!out || n == 0)
    return fli_error(FL_E_ARGUMENT, "strategy: out NULL, or 0 weights");
  if (n > SIZE_MAX / sizeof(double)) return fli_nomem(SIZE_MAX);
  fl_status st = fli_strategy_options_load(&local, options);
  if (st != FL_OK) return st;
  fl_strategy *s = fli_alloc(context, 1, sizeof *s);
  if (!s) return fli_nomem(sizeof *s);
  s->context = fli_context_ref(context);
  s->options = local;
  s->n = n;
  s->clip = (double)local.clip;
  s->gate_loss = (double)NAN;
  s->chosen = UINT32_MAX;
  st = alloc_state(s);
  if (st != FL_OK) {
    fl_strategy_free(s);
    return st;
  }
  *out = s;
  return FL_OK;
}

static void free_floats(const fl_strategy *s, float *values)
{
  fli_free(s->context, values, (size_t)s->n * sizeof *values);
}

void fl_strategy_free(fl_strategy *s)
{
  if (!s) return;
  fl_context *context = s->context;
  free_floats(s, s->momentum);
  free_floats(s, s->second);
  free_floats(s, s->control);
  fli_free(context, s->factors, s->n_factors * sizeof *s->factors);
  fli_free(context, s, sizeof *s);
  fli_context_unref(context);
}

/* ---- a step -------------------------------------------------------------- */

void fli_strategy_drop(const fl_strategy *s, fli_pending *p)
{
  free_floats(s, p->step);
  free_floats(s, p->momentum);
  free_floats(s, p->second);
  free_floats(s, p->control);
  fli_free(s->context, p->factors, p->count * sizeof *p->factors);
  *p = (fli_pending){0};
}

static void swap(float **state, float **pending)
{
  float *was = *state;
  if (!*pending) return;
  *state = *pending;
  *pending = was;
}

void fli_strategy_commit(fl_strategy *s, fli_pending *p)
{
  swap(&s->momentum, &p->momentum);
  swap(&s->second, &p->second);
  swap(&s->control, &p->control);
  fli_free(s->context, s->factors, s->n_factors * sizeof *s->factors);
  s->factors = p->factors;
  s->n_factors = p->factors ? p->count : 0;
  p->factors = NULL;
  s->clip = p->clip;
  s->gate_loss = p->gate_loss;
  s->length = p->length;
  s->count = p->count;
  s->clipped = p->clipped;
  s->chosen = p->chosen;
  s->steps++;
  fli_strategy_drop(s, p);
}

fl_status fli_strategy_judge(const fl_strategy *s, fli_pending *p,
                             const float *candidate)
{
  const fl_strategy_options *o = &s->options;
  double loss = (double)NAN;
  if (!o->score) return FL_OK;
  const fl_status st =
      fli_host_status(o->score(o->user, candidate, s->n, &loss), "score");
  if (st != FL_OK) return st;
  const double bound = s->gate_loss * (1.0 + (double)o->gate_tolerance);
  if (!isfinite(loss) || loss > bound)
    return fli_error(FL_E_LIMIT,
                     "strategy: the gate's loss, got %g, want <= %g", loss,
                     bound);
  p->gate_loss = loss;
  return FL_OK;
}

static fl_status propose(fl_strategy *s, const fl_strategy_round *round,
                         const float *mean, const float *weights,
                         fli_pending *p)
{
  const size_t n = (size_t)s->n;
  fl_status st = FL_OK;
  *p = (fli_pending){
      .clip = s->clip, .gate_loss = s->gate_loss, .chosen = UINT32_MAX};
  p->step = fli_alloc(s->context, n, sizeof(float));
  if (!p->step) return fli_nomem(n * sizeof(float));
  if (round) {
    FLI_TRY(fli_combine(s, round, p));
  } else {
    FLI_TRY(fli_expect_finite(mean, n, "the mean"));
    memcpy(p->step, mean, n * sizeof *mean);
  }
  p->length = sqrt(flk_kernels()->sum_squares(p->step, n));
  FLI_TRY(fli_optimise(s, weights, p));
out:
  return st;
}

fl_status fli_strategy_propose(fl_strategy *s, const fl_strategy_round *round,
                               const float *mean, const float *weights,
                               fli_pending *p)
{
  fli_fpguard guard;
  fl_status st = round ? fli_round_check(s, round) : FL_OK;
  *p = (fli_pending){0};
  if (st != FL_OK) return st;
  fli_fpguard_enter(&guard);
  st = propose(s, round, mean, weights, p);
  fli_fpguard_leave(&guard);
  if (st != FL_OK) fli_strategy_drop(s, p);
  return st;
}

static fl_status move(const fl_strategy *s, fli_pending *p,
                      const float *weights)
{
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  for (uint64_t i = 0; i < s->n; i++)
    p->step[i] += weights[i];
  fli_fpguard_leave(&guard);
  return fli_expect_finite(p->step, s->n, "the next model");
}

static fl_status step(fl_strategy *s, const fl_strategy_round *round,
                      const float *mean, float *weights)
{
  fli_pending p;
  fl_status st = fli_strategy_propose(s, round, mean, weights, &p);
  if (st != FL_OK) return st;
  FLI_TRY(move(s, &p, weights));
  FLI_TRY(fli_strategy_judge(s, &p, p.step));
  memcpy(weights, p.step, (size_t)s->n * sizeof *weights);
  fli_strategy_commit(s, &p);
out:
  fli_strategy_drop(s, &p);
  return st;
}

static fl_status check(const fl_strategy *s, const float *weights, uint64_t n)
{
  if (!s || !weights) return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  if (n == s->n) return FL_OK;
  return fli_error(FL_E_DIM, "strategy: got %llu weights, want %llu",
                   (unsigned long long)n, (unsigned long long)s->n);
}

fl_status fl_strategy_step(fl_strategy *s, const fl_strategy_round *given,
                           float *weights, uint64_t n)
{
  fl_strategy_round round = round_defaults;
  fli_clear_error();
  fl_status st = check(s, weights, n);
  if (st != FL_OK) return st;
  if (!given) return fli_error(FL_E_ARGUMENT, "strategy: round, got NULL");
  st = fli_options_load(&round, sizeof round, given, "strategy round");
  return st == FL_OK ? step(s, &round, NULL, weights) : st;
}

fl_status fl_strategy_step_mean(fl_strategy *s, const float *mean,
                                float *weights, uint64_t n)
{
  fli_clear_error();
  const fl_status st = check(s, weights, n);
  if (st != FL_OK) return st;
  if (!mean) return fli_error(FL_E_ARGUMENT, "strategy: mean, got NULL");
  if (fl_strategy_needs(&s->options) != 0)
    return fli_error(FL_E_STATE, "strategy: it needs the updates themselves");
  return step(s, NULL, mean, weights);
}

/* ---- what it has to say -------------------------------------------------- */

fl_status fl_strategy_round_init(fl_strategy_round *round, size_t size)
{
  fli_clear_error();
  return fli_options_init(round, size, &round_defaults, sizeof round_defaults);
}

fl_status fl_strategy_report_init(fl_strategy_report *report, size_t size)
{
  fli_clear_error();
  return fli_options_init(report, size, &report_defaults,
                          sizeof report_defaults);
}

fl_status fl_strategy_get_report(const fl_strategy *s,
                                 fl_strategy_report *report)
{
  fli_clear_error();
  if (!s || !report) return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  const fl_strategy_report now = {.struct_size = sizeof now,
                                  .count = s->count,
                                  .steps = s->steps,
                                  .clip = s->clip,
                                  .clipped = s->clipped,
                                  .chosen = s->chosen,
                                  .length = s->length,
                                  .gate_loss = s->gate_loss};
  return fli_options_store(report, &now, sizeof now, "strategy report");
}

fl_status fl_strategy_copy_factors(const fl_strategy *s, double *factors,
                                   uint32_t count)
{
  fli_clear_error();
  if (!s || !factors) return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  if (!s->factors)
    return fli_error(FL_E_EMPTY, "strategy: no step, or none by factors");
  if (count != s->n_factors)
    return fli_error(FL_E_DIM, "strategy: got %u factors, want %u", count,
                     s->n_factors);
  memcpy(factors, s->factors, count * sizeof *factors);
  return FL_OK;
}

fl_status fl_strategy_get_control(const fl_strategy *s, const float **control,
                                  uint64_t *n)
{
  fli_clear_error();
  if (!s || !control || !n)
    return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  if (!s->control)
    return fli_error(FL_E_STATE, "strategy: only SCAFFOLD has a control");
  *control = s->control;
  *n = s->n;
  return FL_OK;
}
