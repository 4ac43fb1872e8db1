/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks on the gradient, the two ways of updating (on the way back, or with
 * the gathered gradient), and steps that fail: a model that met a failure goes
 * on as if it had not. */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "net_check.h"

enum { BATCH = 6, STEPS = 5 };

static fl_status look_only(float *gradient, const float *weights,
                           uint64_t count, void *user)
{
  uint32_t *calls = user;
  cr_assert(gradient && weights && count > 0);
  ++*calls;
  return FL_OK;
}

/* A graph with most kinds of tensors: convolution, norm, dense, LoRA. */
static net *new_images(void)
{
  const uint64_t dims[3] = {3, 6, 6};
  net *t = net_begin(NULL, dims, 3);
  fl_conv2d_options o = net_conv_options(5, 3, 1);
  (void)net_conv(t, &o);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_group_norm(t, 5, 1e-5f);
  (void)net_pool(t, FL_POOL_MAX, 2, 0, 0);
  (void)net_flatten(t);
  (void)net_lora(t, 7, 2, 4.0f);
  (void)net_activation(t, FL_ACTIVATION_GELU);
  (void)net_dense(t, 4);
  (void)net_classes(t, 0.0f);
  net_draw(t, BATCH, NET_SEED);
  return t;
}

static net *new_tokens(void)
{
  const uint64_t dims[1] = {5};
  net *t = net_begin(NULL, dims, 1);
  (void)net_embedding(t, 9, 6);
  size_t x = net_positions(t);
  (void)net_layer_norm(t, 1e-5f);
  (void)net_attention(t, 2, 1);
  (void)net_add(t, x);
  (void)net_dense(t, 4);
  (void)net_classes(t, 0.1f);
  net_draw(t, BATCH, NET_SEED);
  return t;
}

static fl_optimiser_options optimiser_number(uint32_t i)
{
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.kind = i < 4 ? i : FL_OPTIMISER_SGD;
  o.learning_rate = 0.01f;
  if (i >= 4) o.momentum = 0.9f;
  if (i >= 5) o.nesterov = 1;
  if (i % 2) o.weight_decay = 0.01f;
  return o;
}
enum { OPTIMISERS = 6 };

static float *weights_of(fl_model *model)
{
  float *weights = NULL;
  cr_assert_eq(fl_model_get_weights(model, &weights, NULL), FL_OK);
  return weights;
}

static void step(net *t, fl_status want)
{
  fl_dataset data = net_data(t);
  fl_status st = fl_model_step(t->model, &data, FL_RATE_SCHEDULED, NULL);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
}

Test(gradient_hook, update_on_the_way_back_is_the_gathered_one)
{
  for (uint32_t i = 0; i < 2 * OPTIMISERS; i++) {
    net *pair[2];
    uint32_t calls = 0;
    fl_optimiser_options o = optimiser_number(i / 2);
    for (int k = 0; k < 2; k++) {
      pair[k] = i % 2 ? new_images() : new_tokens();
      cr_assert_eq(fl_model_set_optimiser(pair[k]->model, &o), FL_OK);
    }
    cr_assert_eq(fl_model_set_gradient_hook(pair[1]->model, look_only, &calls),
                 FL_OK);
    for (int s = 0; s < STEPS; s++) {
      step(pair[0], FL_OK);
      step(pair[1], FL_OK);
    }
    cr_assert_eq(calls, STEPS);
    const float *a = weights_of(pair[0]->model);
    const float *b = weights_of(pair[1]->model);
    for (size_t w = 0; w < pair[0]->model->n_weights; w++) {
      cr_assert(fabsf(a[w] - b[w]) < 2e-6f * fmaxf(1.0f, fabsf(a[w])),
                "optimiser %d, weight %zu: %.9g and %.9g", (int)i / 2, w,
                (double)a[w], (double)b[w]);
    }
    net_free(pair[0]);
    net_free(pair[1]);
  }
}

static fl_status all_ones(float *gradient, const float *weights, uint64_t count,
                          void *user)
{
  (void)weights;
  (void)user;
  for (uint64_t i = 0; i < count; i++) {
    gradient[i] = 1.0f;
  }
  return FL_OK;
}

Test(gradient_hook, what_it_writes_is_what_happens)
{
  net *t = new_images();
  size_t n = (size_t)t->model->n_weights;
  float *before = malloc(n * sizeof *before);
  fl_dataset data = net_data(t);
  cr_assert_not_null(before);
  cr_assert_eq(fl_model_set_gradient_hook(t->model, all_ones, NULL), FL_OK);
  memcpy(before, weights_of(t->model), n * sizeof *before);
  cr_assert_eq(fl_model_step(t->model, &data, 0.25f, NULL), FL_OK);
  for (size_t i = 0; i < n; i++) {
    cr_assert_eq(weights_of(t->model)[i], before[i] - 0.25f, "weight %zu", i);
  }
  cr_assert_eq(fl_model_set_gradient_hook(t->model, NULL, NULL), FL_OK);
  memcpy(before, weights_of(t->model), n * sizeof *before);
  cr_assert_eq(fl_model_step(t->model, &data, 0.25f, NULL), FL_OK);
  cr_assert_neq(weights_of(t->model)[0], before[0] - 0.25f);
  cr_assert_eq(fl_model_set_gradient_hook(NULL, NULL, NULL), FL_E_ARGUMENT);
  free(before);
  net_free(t);
}

/* ---- failures -------------------------------------------------------------
 */

typedef struct trouble {
  fl_status answer;
  int is_nan;
  float nan; /* what is written instead of a gradient */
} trouble;

static fl_status make_trouble(float *gradient, const float *weights,
                              uint64_t count, void *user)
{
  const trouble *t = user;
  (void)weights;
  if (t->is_nan) gradient[count - 1] = t->nan;
  return t->answer;
}

/* The model of `t`, which has just failed, goes on like `twin`. */
static void assert_goes_on(net *t, net *twin)
{
  size_t bytes = (size_t)t->model->n_weights * sizeof(float);
  uint64_t updates[2] = {0, 1};
  cr_assert_arr_eq(weights_of(t->model), weights_of(twin->model), bytes);
  step(t, FL_OK);
  step(twin, FL_OK);
  cr_assert_arr_eq(weights_of(t->model), weights_of(twin->model), bytes);
  cr_assert_eq(fl_model_get_progress(t->model, &updates[0], NULL), FL_OK);
  cr_assert_eq(fl_model_get_progress(twin->model, &updates[1], NULL), FL_OK);
  cr_assert_eq(updates[0], updates[1]);
}

Test(gradient_hook, failing_hook_leaves_weights_and_optimiser_as_they_were)
{
  static const struct {
    trouble hook;
    fl_status want;
  } cases[] = {
      {{FL_E_IO, 0, 0.0f}, FL_E_IO},
      {{1, 0, 0.0f}, FL_E_CALLBACK},
      {{FL_OK, 1, NAN}, FL_E_NOT_FINITE},
      {{FL_OK, 1, INFINITY}, FL_E_NOT_FINITE},
  };
  for (uint32_t i = 0; i < OPTIMISERS * FLI_COUNT_OF(cases); i++) {
    fl_optimiser_options o = optimiser_number(i % OPTIMISERS);
    trouble hook = cases[i / OPTIMISERS].hook;
    trouble none = {0};
    net *t = new_images();
    net *twin = new_images();
    cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
    cr_assert_eq(fl_model_set_optimiser(twin->model, &o), FL_OK);
    (void)fl_model_set_gradient_hook(t->model, make_trouble, &hook);
    (void)fl_model_set_gradient_hook(twin->model, make_trouble, &none);
    step(t, cases[i / OPTIMISERS].want);
    hook = none;
    assert_goes_on(t, twin);
    net_free(t);
    net_free(twin);
  }
}

Test(gradient_hook, data_that_are_not_finite_leave_everything_as_it_was)
{
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (uint32_t i = 0; i < OPTIMISERS * FLI_COUNT_OF(bad); i++) {
    fl_optimiser_options o = optimiser_number(i % OPTIMISERS);
    net *t = new_images();
    net *twin = new_images();
    cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
    cr_assert_eq(fl_model_set_optimiser(twin->model, &o), FL_OK);
    step(t, FL_OK);
    step(twin, FL_OK);
    float kept = t->x[40];
    t->x[40] = bad[i / OPTIMISERS];
    step(t, FL_E_NOT_FINITE);
    cr_assert_not_null(strstr(fl_last_error(), "finite"));
    t->x[40] = kept;
    assert_goes_on(t, twin);
    net_free(t);
    net_free(twin);
  }
}

/* Its label does not count, so that the loss is finite without a look at it. */
Test(gradient_hook, ignored_sample_that_is_not_finite_is_reported_too)
{
  static const float bad[] = {NAN, INFINITY};
  for (uint32_t i = 0; i < OPTIMISERS * FLI_COUNT_OF(bad); i++) {
    fl_optimiser_options o = optimiser_number(i % OPTIMISERS);
    net *t = new_images();
    net *twin = new_images();
    cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
    cr_assert_eq(fl_model_set_optimiser(twin->model, &o), FL_OK);
    cr_assert_eq(t->labels[1], t->classes.ignore_index);
    float kept = t->x[108 + 40];
    t->x[108 + 40] = bad[i / OPTIMISERS];
    step(t, FL_E_NOT_FINITE);
    t->x[108 + 40] = kept;
    assert_goes_on(t, twin);
    net_free(t);
    net_free(twin);
  }
}

/* The second of two batches of an update fails: the first one still counts. */
Test(gradient_hook, batch_that_fails_is_not_accumulated)
{
  fl_optimiser_options o = optimiser_number(1);
  o.accumulate = 2;
  net *t = new_tokens();
  net *twin = new_tokens();
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  cr_assert_eq(fl_model_set_optimiser(twin->model, &o), FL_OK);
  step(t, FL_OK);
  step(twin, FL_OK);
  t->ids[3] = 9;
  step(t, FL_E_RANGE);
  t->ids[3] = twin->ids[3];
  assert_goes_on(t, twin);
  net_free(t);
  net_free(twin);
}

static fl_status read_nothing(void *user, void *buf, size_t n, size_t *got)
{
  (void)user;
  (void)buf;
  (void)n;
  *got = 0;
  return FL_OK;
}

/* Tries all that a hook must not do; any of it would take away the gradient
 * that it looks at. */
static fl_status meddle(float *gradient, const float *weights, uint64_t count,
                        void *user)
{
  net *t = user;
  fl_dataset data = net_data(t);
  fl_optimiser_options o = optimiser_number(1);
  const fl_reader reader = {.read = read_nothing};
  fl_evaluation evaluation;
  float *seen = NULL;
  (void)weights;
  cr_expect_eq(fl_model_set_optimiser(t->model, &o), FL_E_STATE);
  cr_expect_str_eq(fl_last_error(), "model: is in the middle of a step: a "
                                    "gradient hook may read it only");
  cr_expect_eq(fl_model_set_gradient_hook(t->model, NULL, NULL), FL_E_STATE);
  cr_expect_eq(fl_model_set_first_active(t->model, 1), FL_E_STATE);
  cr_expect_eq(fl_model_set_memory_limit(t->model, 1), FL_E_STATE);
  cr_expect_eq(fl_model_load_checkpoint(t->model, &reader), FL_E_STATE);
  cr_expect_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_E_STATE);
  cr_expect_eq(fl_model_accumulate(t->model, &data, NULL), FL_E_STATE);
  cr_expect_eq(fl_model_update(t->model, 0.1f), FL_E_STATE);
  cr_expect_eq(fl_model_fit(t->model, &data, NULL, NULL), FL_E_STATE);
  cr_expect_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_expect_eq(fl_model_evaluate(t->model, &data, &evaluation), FL_OK);
  cr_expect_eq(fl_model_get_weights(t->model, &seen, NULL), FL_OK);
  gradient[0] = gradient[count - 1] = 1.0f; /* still there */
  return FL_OK;
}

Test(gradient_hook, hook_may_read_the_model_but_not_change_or_train_it)
{
  net *t = new_images();
  (void)fl_model_set_gradient_hook(t->model, meddle, t);
  step(t, FL_OK);
  uint64_t updates = 0;
  cr_expect_eq(fl_model_get_progress(t->model, &updates, NULL), FL_OK);
  cr_expect_eq(updates, 1);
  cr_expect_eq(fl_model_set_gradient_hook(t->model, NULL, NULL), FL_OK);
  step(t, FL_OK);
  net_free(t);
}
