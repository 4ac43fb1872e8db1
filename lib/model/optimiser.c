/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers: SGD with momentum or Nesterov's (Sutskever et al., ICML 2013),
 * Adam (Kingma and Ba, ICLR 2015), AdamW (Loshchilov and Hutter, ICLR 2019),
 * Adagrad (Duchi et al., JMLR 2011), in the form that torch.optim gives them.
 * The loops themselves are kernels. */
#include "model/optimiser.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "kernels/nn/nn.h"
#include "model/schedule.h"

enum { KINDS = FL_OPTIMISER_ADAGRAD + 1, SCHEDULES = FL_SCHEDULE_COSINE + 1 };

const fl_optimiser_options fli_optimiser_defaults = {
    .struct_size = sizeof(fl_optimiser_options),
    .learning_rate = 0.05f,
    .beta1 = 0.9f,
    .beta2 = 0.999f,
    .accumulate = 1,
    .factor = 0.1f,
};

fl_status fl_optimiser_options_init(fl_optimiser_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &fli_optimiser_defaults,
                          sizeof fli_optimiser_defaults);
}

uint32_t fli_optimiser_arrays(const fl_optimiser_options *options)
{
  switch (options->kind) {
  case FL_OPTIMISER_ADAM:
  case FL_OPTIMISER_ADAMW: return 2;
  case FL_OPTIMISER_ADAGRAD: return 1;
  default: return options->momentum > 0.0f;
  }
}

int fli_optimiser_is_plain(const fl_optimiser_options *options)
{
  return options->kind == FL_OPTIMISER_SGD && options->momentum == 0.0f;
}

static int is_in(float value, float low, float high)
{
  return value >= low && value <= high; /* NaN is in nothing */
}

static fl_status check(const fl_optimiser_options *o)
{
  const char *what = NULL;
  if (o->kind >= KINDS) what = "kind: want FL_OPTIMISER_*";
  if (o->schedule >= SCHEDULES) what = "schedule: want FL_SCHEDULE_*";
  if (!is_in(o->learning_rate, 0.0f, 1e30f)) what = "learning_rate: want >= 0";
  if (!is_in(o->momentum, 0.0f, 1.0f)) what = "momentum: want 0..1";
  if (o->nesterov > 1) what = "nesterov: want 0 or 1";
  if (o->nesterov && o->momentum == 0.0f) what = "nesterov: wants a momentum";
  if (!is_in(o->beta1, 0.0f, 0.999999f)) what = "beta1: want 0..1, not 1";
  if (!is_in(o->beta2, 0.0f, 0.9999999f)) what = "beta2: want 0..1, not 1";
  if (!is_in(o->epsilon, 0.0f, 1.0f)) what = "epsilon: want 0..1";
  if (!is_in(o->weight_decay, 0.0f, 1e30f)) what = "weight_decay: want >= 0";
  if (!is_in(o->clip_norm, 0.0f, 1e30f)) what = "clip_norm: want >= 0";
  if (o->accumulate == 0) what = "accumulate: want >= 1";
  if (!is_in(o->factor, 0.0f, 1e6f)) what = "factor: want >= 0";
  if (o->schedule != FL_SCHEDULE_CONSTANT && o->period == 0) {
    what = "period: want >= 1 with a schedule";
  }
  if (!what) return FL_OK;
  return fli_error(FL_E_OPTIONS, "optimiser: %s", what);
}

static fl_status take_state(fli_optimiser *optimiser, fl_context *context)
{
  size_t n = (size_t)optimiser->n;
  uint32_t n_arrays = fli_optimiser_arrays(&optimiser->options);
  for (uint32_t i = 0; i < n_arrays; i++) {
    optimiser->state[i] = fli_alloc(context, n, sizeof(float));
    if (!optimiser->state[i]) {
      fli_optimiser_free(optimiser, context);
      return fli_nomem(n * sizeof(float));
    }
  }
  return FL_OK;
}

fl_status fli_optimiser_init(fli_optimiser *optimiser, fl_context *context,
                             const fl_optimiser_options *options,
                             uint64_t first, uint64_t n)
{
  fl_status st = FL_OK;
  fli_optimiser made = {.options = fli_optimiser_defaults, .first = first};
  made.n = n;
  FLI_TRY(fli_options_load(&made.options, sizeof made.options, options,
                           "fl_optimiser_options"));
  made.options.struct_size = sizeof made.options;
  FLI_TRY(check(&made.options));
  if (made.options.epsilon == 0.0f) {
    int is_adagrad = made.options.kind == FL_OPTIMISER_ADAGRAD;
    made.options.epsilon = is_adagrad ? 1e-10f : 1e-8f;
  }
  FLI_TRY(take_state(&made, context));
  *optimiser = made;
out:
  return st;
}

void fli_optimiser_free(fli_optimiser *optimiser, fl_context *context)
{
  for (uint32_t i = 0; i < 2; i++) {
    fli_free(context, optimiser->state[i],
             (size_t)optimiser->n * sizeof *optimiser->state[i]);
    optimiser->state[i] = NULL;
  }
}

fl_status fli_optimiser_move(fli_optimiser *optimiser, fl_context *context,
                             const fli_optimiser *old, uint64_t first,
                             uint64_t n)
{
  fli_optimiser made = *old;
  made.state[0] = made.state[1] = NULL;
  made.first = first;
  made.n = n;
  fl_status st = take_state(&made, context);
  if (st != FL_OK) return st;
  uint64_t from = first > old->first ? first : old->first;
  uint64_t end =
      first + n < old->first + old->n ? first + n : old->first + old->n;
  for (uint32_t i = 0; i < 2 && from < end; i++) {
    if (!made.state[i]) continue;
    memcpy(made.state[i] + (from - first), old->state[i] + (from - old->first),
           (size_t)(end - from) * sizeof(float));
  }
  *optimiser = made;
  return FL_OK;
}

float fli_optimiser_rate(const fli_optimiser *optimiser)
{
  const fl_optimiser_options *o = &optimiser->options;
  const fli_schedule schedule = {.kind = o->schedule,
                                 .warmup = o->warmup,
                                 .rate = o->learning_rate,
                                 .factor = o->factor,
                                 .period = o->period};
  return fli_schedule_at(&schedule, optimiser->updates);
}

/* Adam's two bias corrections as factors, for update number t. */
static flk_adam adam_of(const fli_optimiser *optimiser, float rate, float scale)
{
  const fl_optimiser_options *o = &optimiser->options;
  double t = (double)optimiser->updates + 1.0;
  int is_adamw = o->kind == FL_OPTIMISER_ADAMW;
  return (flk_adam){
      .factor = scale,
      .beta1 = o->beta1,
      .beta2 = o->beta2,
      .epsilon = o->epsilon,
      .decay = is_adamw ? rate * o->weight_decay : o->weight_decay,
      .rate = (float)((double)rate / (1.0 - pow((double)o->beta1, t))),
      .root_factor = (float)(1.0 / sqrt(1.0 - pow((double)o->beta2, t))),
  };
}

static void apply_sgd(const fli_optimiser *optimiser, const flk_sgd *sgd,
                      float *weights, const float *gradient, float *velocity,
                      size_t n)
{
  const flk_optimiser_kernels *kernels = &flk_nn()->optimiser;
  if (!velocity) {
    kernels->sgd(weights, gradient, n, sgd);
  } else if (optimiser->options.nesterov) {
    kernels->nesterov(weights, gradient, velocity, n, sgd);
  } else {
    kernels->momentum(weights, gradient, velocity, n, sgd);
  }
}

void fli_optimiser_apply(const fli_optimiser *optimiser, float rate,
                         float *weights, const float *gradient, float scale,
                         uint64_t at, uint64_t n)
{
  const fl_optimiser_options *o = &optimiser->options;
  const flk_optimiser_kernels *kernels = &flk_nn()->optimiser;
  size_t from = (size_t)(at - optimiser->first);
  size_t count = (size_t)n;
  float *first = optimiser->state[0] ? optimiser->state[0] + from : NULL;
  float *second = optimiser->state[1] ? optimiser->state[1] + from : NULL;
  flk_sgd sgd = {scale, rate, o->weight_decay, o->momentum};
  flk_adagrad adagrad = {scale, rate, o->weight_decay, o->epsilon};
  flk_adam adam;
  switch (o->kind) {
  case FL_OPTIMISER_ADAM:
    adam = adam_of(optimiser, rate, scale);
    kernels->adam(weights, gradient, first, second, count, &adam);
    break;
  case FL_OPTIMISER_ADAMW:
    adam = adam_of(optimiser, rate, scale);
    kernels->adamw(weights, gradient, first, second, count, &adam);
    break;
  case FL_OPTIMISER_ADAGRAD:
    kernels->adagrad(weights, gradient, first, count, &adagrad);
    break;
  default: apply_sgd(optimiser, &sgd, weights, gradient, first, count); break;
  }
}
