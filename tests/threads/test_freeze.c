/* SPDX-License-Identifier: Apache-2.0 */
/* A controller that measures plasticity on the threads that the steps compute
 * on, too: the same plans and weights as with none, for any number of them.
 * Runs under TSan. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include <fl/freeze.h>
#include <fl/train.h>

#include "base/rng.h"
#include "check.h"
#include "model/model.h"
#include "models.h"
#include "pool_hooks.h"

enum {
  SAMPLES = 24,
  BATCH = 8,
  STEPS = 36,
  INPUTS = 784,
  CLASSES = 10,
  EVENTS = 64,
  CALLERS = 3
};

static fl_context *new_context(fli_host_pool *pool)
{
  fl_context *context = NULL;
  CHECK_OK(pool_context(&context, pool, 1));
  return context;
}

static uint8_t pixels[SAMPLES * INPUTS];
static int32_t labels[SAMPLES];

static void draw_data(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < sizeof pixels; i++) {
    pixels[i] = (uint8_t)fli_rng_below(&rng, 256);
  }
  for (size_t i = 0; i < SAMPLES; i++) {
    labels[i] = (int32_t)fli_rng_below(&rng, CLASSES);
  }
}

typedef struct outcome {
  float *weights;
  size_t n;
  double raw[EVENTS];
  uint64_t steps[EVENTS];
  uint32_t n_events;
  uint32_t first_active;
} outcome;

static fl_freeze *new_freeze(const fl_model *model, uint64_t lag)
{
  fl_freeze_options o;
  fl_freeze *freeze = NULL;
  uint32_t n_modules = model->segments[model->n_segments - 1].module + 1;
  CHECK_OK(fl_freeze_options_init(&o, sizeof o));
  o.criterion = FL_FREEZE_RELATIVE_PLASTICITY;
  o.steps_per_epoch = SAMPLES / BATCH;
  o.interval = 3;
  o.lag = lag;
  o.refresh = 2;
  o.window = 3;
  o.patience = 2;
  o.gap = 1;
  o.tolerance = 100.0f;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  CHECK_OK(fl_freeze_new(&freeze, NULL, n_modules, &o));
  if (!freeze) exit(1);
  return freeze;
}

static void train(fl_model *model)
{
  for (uint32_t i = 0; i < STEPS; i++) {
    fl_dataset data;
    uint32_t order[BATCH];
    CHECK_OK(fl_dataset_init(&data, sizeof data));
    data.x_dtype = FL_DTYPE_U8;
    data.x = pixels;
    data.y = labels;
    data.n = SAMPLES;
    data.indices = order;
    data.n_indices = BATCH;
    for (uint32_t k = 0; k < BATCH; k++) {
      order[k] = (i * 5 + k * 3) % SAMPLES;
    }
    CHECK_OK(fl_model_step(model, &data, 0.01f, NULL));
  }
}

static void take_events(fl_freeze *freeze, outcome *out)
{
  fl_freeze_event event;
  CHECK_OK(fl_freeze_event_init(&event, sizeof event));
  while (fl_freeze_poll(freeze, &event) == FL_OK && out->n_events < EVENTS) {
    out->raw[out->n_events] = isnan(event.raw) ? -1 : event.raw;
    out->steps[out->n_events++] = event.step;
  }
}

static outcome play(fl_context *context, uint32_t index, uint64_t lag)
{
  outcome out = {.n = 0};
  fl_model *model = models_new(index, context);
  if (!model) exit(1);
  fl_freeze *freeze = new_freeze(model, lag);
  CHECK_OK(fl_freeze_attach(freeze, model, NULL));
  train(model);
  take_events(freeze, &out);
  out.first_active = fl_model_first_active(model);
  out.n = (size_t)fl_model_weight_count(model);
  out.weights = malloc(out.n * sizeof *out.weights);
  if (!out.weights) exit(1);
  CHECK_OK(fl_model_copy_weights(model, out.weights, out.n));
  fl_freeze_free(freeze); /* something may be under way */
  fl_model_free(model);
  return out;
}

static void check_same(const outcome *got, const outcome *want)
{
  CHECK_EQ_U64(got->first_active, want->first_active);
  CHECK_EQ_U64(got->n_events, want->n_events);
  CHECK_EQ_MEM(got->steps, want->steps, sizeof got->steps);
  CHECK_EQ_MEM(got->raw, want->raw, sizeof got->raw);
  CHECK_EQ_U64(got->n, want->n);
  CHECK_EQ_MEM(got->weights, want->weights, got->n * sizeof *got->weights);
}

static void check_model(uint32_t index, uint64_t lag)
{
  outcome want = play(NULL, index, lag);
  CHECK(want.n_events > 4);
  CHECK(index != 1 || want.first_active > 0);
  for (uint32_t threads = 2; threads < 4; threads++) {
    fli_host_pool *pool = NULL;
    CHECK_OK(fli_host_pool_new(&pool, threads));
    if (!pool) exit(1);
    fl_context *context = new_context(pool);
    outcome got = play(context, index, lag);
    check_same(&got, &want);
    free(got.weights);
    fl_context_free(context);
    fli_host_pool_free(pool);
  }
  free(want.weights);
}

static void plans_are_the_same_for_any_number_of_threads(void)
{
  for (uint64_t lag = 0; lag < 3; lag += 2) {
    check_model(1, lag);
    check_model(2, lag);
  }
}

typedef struct caller {
  fl_context *context;
  outcome out;
} caller;

static void *train_one(void *arg)
{
  caller *c = arg;
  c->out = play(c->context, 1, 2);
  return NULL;
}

static void jobs_share_a_pool(void)
{
  pthread_t threads[CALLERS];
  static caller callers[CALLERS];
  outcome want = play(NULL, 1, 2);
  fli_host_pool *pool = NULL;
  CHECK_OK(fli_host_pool_new(&pool, 2));
  if (!pool) exit(1);
  fl_context *context = new_context(pool);
  for (int i = 0; i < CALLERS; i++) {
    callers[i] = (caller){.context = context};
    if (pthread_create(&threads[i], NULL, train_one, &callers[i]) != 0) {
      exit(1);
    }
  }
  for (int i = 0; i < CALLERS; i++) {
    pthread_join(threads[i], NULL);
    check_same(&callers[i].out, &want);
    free(callers[i].out.weights);
  }
  fl_context_free(context);
  fli_host_pool_free(pool);
  free(want.weights);
}

int main(void)
{
  draw_data();
  CHECK_CASE(plans_are_the_same_for_any_number_of_threads);
  CHECK_CASE(jobs_share_a_pool);
  return check_report();
}
