/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers, schedules, clipping, accumulation and hooks. The oracle is the
 * formula in double on the gradients that a hook sees; after 20 steps weights
 * differ from it by at most 2e-6 (float32 holds 1e-7 of a weight near 1). */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"

#define TOLERANCE 2e-6
enum { STEPS = 20 };

static fl_optimiser_options optimiser_of(uint32_t kind)
{
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.kind = kind;
  o.learning_rate = kind == FL_OPTIMISER_SGD ? 0.1f : 0.01f;
  return o;
}

static fl_model *new_model(const fl_optimiser_options *o)
{
  fl_model *model = fixture_small_mlp();
  cr_assert_eq(fl_model_set_optimiser(model, o), FL_OK, "%s", fl_last_error());
  return model;
}

static void weights_of(const fl_model *model, float *weights)
{
  cr_assert_eq(fl_model_copy_weights(model, weights, WEIGHTS), FL_OK);
}

/* ---- the oracle -----------------------------------------------------------
 */

typedef struct oracle {
  fl_optimiser_options o;
  double w[WEIGHTS];
  double a[WEIGHTS]; /* momentum, first moment, sum of squares */
  double b[WEIGHTS]; /* second moment */
  double seen[WEIGHTS];
  uint32_t n_seen; /* calls of the hook */
} oracle;

static void oracle_begin(oracle *x, const fl_model *model)
{
  float weights[WEIGHTS];
  *x = (oracle){.n_seen = 0};
  cr_assert_eq(fl_optimiser_options_init(&x->o, sizeof x->o), FL_OK);
  cr_assert_eq(fl_model_get_optimiser(model, &x->o), FL_OK);
  weights_of(model, weights);
  for (size_t i = 0; i < WEIGHTS; i++) {
    x->w[i] = (double)weights[i];
  }
}

static fl_status oracle_see(float *gradient, const float *weights,
                            uint64_t count, void *user)
{
  oracle *x = user;
  (void)weights;
  if (count != WEIGHTS) return FL_E_DIM;
  for (size_t i = 0; i < WEIGHTS; i++) {
    x->seen[i] = (double)gradient[i];
  }
  x->n_seen++;
  return FL_OK;
}

static double oracle_rate(const fl_optimiser_options *o, uint64_t updates)
{
  double rate = (double)o->learning_rate;
  double low = (double)o->factor;
  double part = fmin(1.0, (double)updates / (double)o->period);
  if (o->schedule == FL_SCHEDULE_STEP) {
    for (uint64_t t = o->period; t <= updates; t += o->period) {
      rate *= low;
    }
  } else if (o->schedule == FL_SCHEDULE_COSINE) {
    rate *= low + (1.0 - low) * (1.0 + cos(acos(-1.0) * part)) / 2.0;
  }
  if (updates < o->warmup) {
    rate *= (double)(updates + 1) / (double)o->warmup;
  }
  return rate;
}

static double oracle_step_sgd(oracle *x, size_t i, double g)
{
  double momentum = (double)x->o.momentum;
  x->a[i] = momentum * x->a[i] + g;
  return x->o.nesterov ? g + momentum * x->a[i] : x->a[i];
}

static double oracle_step_adam(oracle *x, size_t i, double g, double t)
{
  double b1 = (double)x->o.beta1;
  double b2 = (double)x->o.beta2;
  x->a[i] = b1 * x->a[i] + (1.0 - b1) * g;
  x->b[i] = b2 * x->b[i] + (1.0 - b2) * g * g;
  double mean = x->a[i] / (1.0 - pow(b1, t));
  return mean / (sqrt(x->b[i] / (1.0 - pow(b2, t))) + (double)x->o.epsilon);
}

/* Update number t, from 1, with the gradient seen last. */
static void oracle_update(oracle *x, uint64_t t)
{
  double rate = oracle_rate(&x->o, t - 1);
  double decay = (double)x->o.weight_decay;
  double limit = (double)x->o.clip_norm;
  double norm = 0.0;
  for (size_t i = 0; i < WEIGHTS; i++) {
    norm += x->seen[i] * x->seen[i];
  }
  norm = sqrt(norm);
  for (size_t i = 0; i < WEIGHTS; i++) {
    double g = x->seen[i] * (limit > 0.0 && norm > limit ? limit / norm : 1.0);
    if (x->o.kind == FL_OPTIMISER_ADAMW) {
      x->w[i] -= rate * decay * x->w[i];
    } else {
      g += decay * x->w[i];
    }
    switch (x->o.kind) {
    case FL_OPTIMISER_SGD: g = oracle_step_sgd(x, i, g); break;
    case FL_OPTIMISER_ADAGRAD:
      x->a[i] += g * g;
      g /= sqrt(x->a[i]) + (double)x->o.epsilon;
      break;
    default: g = oracle_step_adam(x, i, g, (double)t); break;
    }
    x->w[i] -= rate * g;
  }
}

static void assert_near(const fl_model *model, const double *want,
                        const char *what)
{
  float weights[WEIGHTS];
  weights_of(model, weights);
  for (size_t i = 0; i < WEIGHTS; i++) {
    cr_assert(fabs((double)weights[i] - want[i]) < TOLERANCE,
              "%s, weight %zu: %.9g, want %.9g", what, i, (double)weights[i],
              want[i]);
  }
}

/* Batches of changing sizes. */
static fl_dataset batch_of(const sample_set *set, int step)
{
  size_t n = 5 + (size_t)(step % 3) * 7;
  size_t first = (size_t)(step * 3 % (MAX_N - 19));
  return fixture_data(set->x + first * INPUTS, set->y + first, n);
}

/* STEPS updates of `o`, next to the oracle's. */
static void check_against_oracle(const fl_optimiser_options *o,
                                 const char *what)
{
  fl_model *model = new_model(o);
  sample_set set;
  oracle x;
  fixture_samples(&set, SEED);
  oracle_begin(&x, model);
  cr_assert_eq(fl_model_set_gradient_hook(model, oracle_see, &x), FL_OK);
  for (int i = 0; i < STEPS * (int)o->accumulate; i++) {
    fl_dataset data = batch_of(&set, i);
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
    if ((i + 1) % (int)o->accumulate == 0) oracle_update(&x, x.n_seen);
    cr_assert_eq((int)x.n_seen, (i + 1) / (int)o->accumulate);
    assert_near(model, x.w, what);
  }
  fl_model_free(model);
}

Test(optimiser, every_optimiser_is_its_formula)
{
  static const char *const names[] = {"SGD", "Adam", "AdamW", "Adagrad"};
  for (uint32_t kind = 0; kind <= FL_OPTIMISER_ADAGRAD; kind++) {
    for (int has_decay = 0; has_decay <= 1; has_decay++) {
      fl_optimiser_options o = optimiser_of(kind);
      o.weight_decay = has_decay ? 0.05f : 0.0f;
      check_against_oracle(&o, names[kind]);
    }
  }
}

Test(optimiser, momentum_and_nesterov_are_their_formulas)
{
  for (uint32_t nesterov = 0; nesterov <= 1; nesterov++) {
    for (int has_decay = 0; has_decay <= 1; has_decay++) {
      fl_optimiser_options o = optimiser_of(FL_OPTIMISER_SGD);
      o.momentum = 0.9f;
      o.nesterov = nesterov;
      o.weight_decay = has_decay ? 0.05f : 0.0f;
      o.learning_rate = 0.02f;
      check_against_oracle(&o, nesterov ? "Nesterov" : "momentum");
    }
  }
}

Test(optimiser, betas_and_epsilon_are_used)
{
  for (uint32_t kind = FL_OPTIMISER_ADAM; kind <= FL_OPTIMISER_ADAMW; kind++) {
    fl_optimiser_options o = optimiser_of(kind);
    o.beta1 = 0.5f;
    o.beta2 = 0.75f;
    o.epsilon = 0.01f;
    check_against_oracle(&o, "Adam with other constants");
  }
}

static void check_schedule(const fl_optimiser_options *o)
{
  fl_model *model = new_model(o);
  sample_set set;
  fixture_samples(&set, SEED);
  for (uint64_t t = 0; t < 30; t++) {
    fl_dataset data = batch_of(&set, (int)t);
    uint64_t updates = 0;
    float rate = 0.0f;
    double want = oracle_rate(o, t);
    cr_assert_eq(fl_model_get_progress(model, &updates, &rate), FL_OK);
    cr_assert_eq(updates, t);
    cr_assert(fabs((double)rate - want) < 1e-7, "update %d: %.9g, want %.9g",
              (int)t, (double)rate, want);
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  }
  fl_model_free(model);
}

Test(optimiser, schedules_and_warm_up_set_the_rate_of_each_update)
{
  for (uint32_t schedule = 0; schedule <= FL_SCHEDULE_COSINE; schedule++) {
    for (uint32_t warmup = 0; warmup <= 5; warmup += 5) {
      fl_optimiser_options o = optimiser_of(FL_OPTIMISER_SGD);
      o.schedule = schedule;
      o.warmup = warmup;
      o.period = 7;
      o.factor = 0.25f;
      check_schedule(&o);
      check_against_oracle(&o, "SGD with a schedule");
      o.kind = FL_OPTIMISER_ADAM;
      o.learning_rate = 0.01f;
      check_against_oracle(&o, "Adam with a schedule");
    }
  }
}

Test(optimiser, rate_of_the_call_stands_above_the_schedule)
{
  fl_optimiser_options o = optimiser_of(FL_OPTIMISER_SGD);
  o.learning_rate = 123.0f;
  o.schedule = FL_SCHEDULE_STEP;
  o.period = 1;
  fl_model *a = new_model(&o);
  o = optimiser_of(FL_OPTIMISER_SGD);
  o.learning_rate = 0.1f;
  fl_model *b = new_model(&o);
  sample_set set;
  float weights[2][WEIGHTS];
  fixture_samples(&set, SEED);
  for (int i = 0; i < 3; i++) {
    fl_dataset data = batch_of(&set, i);
    cr_assert_eq(fl_model_step(a, &data, 0.1f, NULL), FL_OK);
    cr_assert_eq(fl_model_step(b, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  }
  weights_of(a, weights[0]);
  weights_of(b, weights[1]);
  cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
  fl_model_free(a);
  fl_model_free(b);
}

Test(optimiser, long_gradients_are_clipped_and_short_ones_are_not)
{
  static const float limits[] = {1e-3f, 0.3f, 1e3f};
  for (size_t i = 0; i < FLI_COUNT_OF(limits); i++) {
    for (uint32_t kind = 0; kind <= FL_OPTIMISER_ADAGRAD; kind++) {
      fl_optimiser_options o = optimiser_of(kind);
      o.clip_norm = limits[i];
      check_against_oracle(&o, "clipped");
    }
  }
}

Test(optimiser, accumulated_batches_make_one_update)
{
  for (uint32_t kind = 0; kind <= FL_OPTIMISER_ADAGRAD; kind++) {
    fl_optimiser_options o = optimiser_of(kind);
    o.accumulate = 3;
    o.clip_norm = 0.5f;
    check_against_oracle(&o, "accumulated");
  }
}

/* Gradient of one batch, by a model of its own. */
static void gradient_of(const float *weights, const fl_dataset *data,
                        double *gradient)
{
  fl_model *model = fixture_small_mlp();
  float *values = NULL;
  uint64_t count = 0;
  cr_assert_eq(fl_model_set_weights(model, NULL, weights, WEIGHTS), FL_OK);
  cr_assert_eq(fl_model_accumulate(model, data, NULL), FL_OK);
  cr_assert_eq(fl_model_get_gradient(model, &values, &count), FL_OK);
  cr_assert_eq(count, WEIGHTS);
  for (size_t i = 0; i < WEIGHTS; i++) {
    gradient[i] += (double)values[i];
  }
  fl_model_free(model);
}

Test(optimiser, accumulated_gradient_is_the_mean_of_the_batches)
{
  fl_optimiser_options o = optimiser_of(FL_OPTIMISER_SGD);
  o.accumulate = 3;
  fl_model *model = new_model(&o);
  sample_set set;
  oracle x;
  float before[WEIGHTS];
  float after[WEIGHTS];
  double sum[WEIGHTS] = {0};
  fixture_samples(&set, SEED);
  oracle_begin(&x, model);
  weights_of(model, before);
  cr_assert_eq(fl_model_set_gradient_hook(model, oracle_see, &x), FL_OK);
  for (int i = 0; i < 3; i++) {
    fl_dataset data = batch_of(&set, i);
    gradient_of(before, &data, sum);
    weights_of(model, after);
    cr_assert_arr_eq(after, before, sizeof before);
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  }
  cr_assert_eq(x.n_seen, 1);
  for (size_t i = 0; i < WEIGHTS; i++) {
    cr_assert(fabs(x.seen[i] - sum[i] / 3.0) < 1e-6, "weight %zu", i);
  }
  fl_model_free(model);
}

Test(optimiser, step_is_accumulate_and_update)
{
  fl_optimiser_options o = optimiser_of(FL_OPTIMISER_ADAM);
  fl_model *whole = new_model(&o);
  fl_model *parts = new_model(&o);
  sample_set set;
  float weights[2][WEIGHTS];
  float *gradient = NULL;
  fixture_samples(&set, SEED);
  for (int i = 0; i < 5; i++) {
    fl_dataset data = batch_of(&set, i);
    double losses[2] = {0};
    cr_assert_eq(fl_model_step(whole, &data, FL_RATE_SCHEDULED, &losses[0]),
                 FL_OK);
    cr_assert_eq(fl_model_get_gradient(parts, &gradient, NULL), FL_E_STATE);
    cr_assert_eq(fl_model_update(parts, FL_RATE_SCHEDULED), FL_E_STATE);
    cr_assert_eq(fl_model_accumulate(parts, &data, &losses[1]), FL_OK);
    cr_assert_eq(fl_model_update(parts, FL_RATE_SCHEDULED), FL_OK);
    cr_assert(fabs(losses[0] - losses[1]) < 1e-6);
  }
  weights_of(whole, weights[0]);
  weights_of(parts, weights[1]);
  for (size_t i = 0; i < WEIGHTS; i++) {
    cr_assert(fabsf(weights[0][i] - weights[1][i]) < (float)TOLERANCE);
  }
  fl_model_free(whole);
  fl_model_free(parts);
}

#define REFUSED(field, value)                                                 \
  do {                                                                        \
    fl_optimiser_options o_ = optimiser_of(0);                                \
    fl_model *model_ = fixture_small_mlp();                                   \
    o_.field = (value);                                                       \
    cr_assert_eq(fl_model_set_optimiser(model_, &o_), FL_E_OPTIONS);          \
    cr_assert_not_null(strstr(fl_last_error(), #field), "%s: \"%s\"", #field, \
                       fl_last_error());                                      \
    fl_model_free(model_);                                                    \
  } while (0)

Test(optimiser, options_out_of_range_are_named)
{
  REFUSED(kind, 4);
  REFUSED(schedule, 3);
  REFUSED(learning_rate, -0.1f);
  REFUSED(learning_rate, NAN);
  REFUSED(learning_rate, INFINITY);
  REFUSED(momentum, 1.5f);
  REFUSED(momentum, NAN);
  REFUSED(nesterov, 2);
  REFUSED(nesterov, 1); /* without momentum */
  REFUSED(beta1, 1.0f);
  REFUSED(beta1, NAN);
  REFUSED(beta2, 1.0f);
  REFUSED(beta2, -0.5f);
  REFUSED(epsilon, -1.0f);
  REFUSED(epsilon, NAN);
  REFUSED(weight_decay, -1.0f);
  REFUSED(weight_decay, INFINITY);
  REFUSED(clip_norm, -1.0f);
  REFUSED(clip_norm, NAN);
  REFUSED(accumulate, 0);
  REFUSED(factor, -1.0f);
  REFUSED(factor, NAN);
}

Test(optimiser, refused_options_change_nothing)
{
  fl_optimiser_options o = optimiser_of(FL_OPTIMISER_ADAM);
  fl_model *model = new_model(&o);
  fl_optimiser_options kept = optimiser_of(0);
  sample_set set;
  uint64_t updates = 0;
  fixture_samples(&set, SEED);
  fl_dataset data = batch_of(&set, 0);
  cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  o.schedule = FL_SCHEDULE_STEP; /* and no period */
  cr_assert_eq(fl_model_set_optimiser(model, &o), FL_E_OPTIONS);
  cr_assert_not_null(strstr(fl_last_error(), "period"));
  o = optimiser_of(0);
  o.struct_size = 3;
  cr_assert_eq(fl_model_set_optimiser(model, &o), FL_E_OPTIONS);
  cr_assert_eq(fl_model_set_optimiser(NULL, &o), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_get_optimiser(model, &kept), FL_OK);
  cr_assert_eq(kept.kind, FL_OPTIMISER_ADAM);
  cr_assert_eq(kept.epsilon, 1e-8f);
  cr_assert_eq(fl_model_get_progress(model, &updates, NULL), FL_OK);
  cr_assert_eq(updates, 1);
  fl_model_free(model);
}

/* A host built before the fields behind `nesterov` were there. */
Test(optimiser, shorter_options_leave_the_rest_at_their_defaults)
{
  fl_optimiser_options o = optimiser_of(FL_OPTIMISER_SGD);
  o.momentum = 0.5f;
  o.accumulate = 0;
  o.struct_size = offsetof(fl_optimiser_options, beta1);
  fl_model *model = new_model(&o);
  fl_optimiser_options full = optimiser_of(0);
  cr_assert_eq(fl_model_get_optimiser(model, &full), FL_OK);
  cr_assert_eq(full.momentum, 0.5f);
  cr_assert_eq(full.beta1, 0.9f);
  cr_assert_eq(full.accumulate, 1);
  fl_model_free(model);
}
