/* SPDX-License-Identifier: Apache-2.0 */
/* Partial training: what is frozen keeps its values and costs nothing; what is
 * trained goes on as it did. And tensors that no layer has. */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "net_check.h"

enum { MODULES = 4 };

/* Four modules: convolution, group norm, dense, dense. */
static net *new_net(const fl_optimiser_options *o)
{
  const uint64_t dims[3] = {2, 5, 5};
  net *t = net_begin(NULL, dims, 3);
  fl_conv2d_options conv = net_conv_options(4, 3, 1);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_group_norm(t, 2, 1e-5f);
  (void)net_activation(t, FL_ACTIVATION_GELU);
  (void)net_flatten(t);
  (void)net_dense(t, 6);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 5, NET_SEED);
  if (o) cr_assert_eq(fl_model_set_optimiser(t->model, o), FL_OK);
  return t;
}

static fl_optimiser_options momentum(void)
{
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.momentum = 0.9f;
  o.weight_decay = 0.01f;
  return o;
}

static void step(net *t)
{
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_model_step(t->model, &data, FL_RATE_SCHEDULED, NULL), FL_OK,
               "%s", fl_last_error());
}

static const float *weights_of(const net *t)
{
  return t->model->values;
}

static float *copy_weights(const net *t)
{
  size_t n = (size_t)t->model->n_weights;
  float *copy = malloc(n * sizeof *copy);
  cr_assert_not_null(copy);
  cr_assert_eq(fl_model_copy_weights(t->model, copy, n), FL_OK);
  return copy;
}

/* Whether the tensor has other values than in `before`. */
static int has_changed(const net *t, uint32_t tensor, const float *before)
{
  const fli_tensor *x = &t->model->tensors[tensor];
  return memcmp(weights_of(t) + x->offset, before + x->offset,
                (size_t)x->shape.count * sizeof *before) != 0;
}

static fl_status look_only(float *gradient, const float *weights,
                           uint64_t count, void *user)
{
  (void)gradient;
  (void)weights;
  *(uint64_t *)user = count;
  return FL_OK;
}

Test(first_active, modules_in_front_of_it_do_not_change)
{
  for (uint32_t first = 0; first < 2 * MODULES; first++) {
    fl_optimiser_options o = momentum();
    net *t = new_net(&o);
    uint64_t count = 0;
    if (first >= MODULES) {
      (void)fl_model_set_gradient_hook(t->model, look_only, &count);
    }
    cr_assert_eq(fl_model_first_active(t->model), 0);
    cr_assert_eq(fl_model_set_first_active(t->model, first % MODULES), FL_OK);
    cr_assert_eq(fl_model_first_active(t->model), first % MODULES);
    float *before = copy_weights(t);
    step(t);
    for (uint32_t i = 0; i < t->n_tensors; i++) {
      cr_assert_eq(has_changed(t, i, before),
                   t->model->tensors[i].module >= first % MODULES,
                   "first %u, tensor %s", first % MODULES,
                   t->model->tensors[i].name);
    }
    free(before);
    net_free(t);
  }
}

Test(first_active, gradient_is_the_last_part_of_the_whole_one)
{
  net *whole = new_net(NULL);
  fl_dataset data = net_data(whole);
  float *all = NULL;
  uint64_t n = 0;
  cr_assert_eq(fl_model_accumulate(whole->model, &data, NULL), FL_OK);
  cr_assert_eq(fl_model_get_gradient(whole->model, &all, &n), FL_OK);
  for (uint32_t first = 1; first < MODULES; first++) {
    net *t = new_net(NULL);
    float *part = NULL;
    uint64_t count = 0;
    uint64_t hooked = 0;
    (void)fl_model_set_gradient_hook(t->model, look_only, &hooked);
    cr_assert_eq(fl_model_set_first_active(t->model, first), FL_OK);
    cr_assert_eq(fl_model_accumulate(t->model, &data, NULL), FL_OK);
    cr_assert_eq(fl_model_get_gradient(t->model, &part, &count), FL_OK);
    cr_assert_lt(count, n);
    cr_assert_eq(count, n - t->model->tensors[2 * first].offset);
    for (uint64_t i = 0; i < count; i++) {
      cr_assert_eq(part[i], all[n - count + i]);
    }
    cr_assert_eq(fl_model_update(t->model, 0.1f), FL_OK);
    cr_assert_eq(hooked, count);
    net_free(t);
  }
  net_free(whole);
}

Test(first_active, plan_is_smaller_with_every_module_that_is_frozen)
{
  fl_memory_plan last = {0};
  for (uint32_t first = 0; first < MODULES; first++) {
    fl_optimiser_options o = momentum();
    o.clip_norm = 1.0f;
    net *t = new_net(&o);
    fl_memory_plan plan;
    cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
    cr_assert_eq(fl_model_set_first_active(t->model, first), FL_OK);
    cr_assert_eq(fl_model_plan_memory(t->model, 32, 1, &plan), FL_OK);
    cr_assert_eq(plan.optimiser, plan.gradients);
    if (first > 0) {
      cr_assert_lt(plan.gradients, last.gradients);
      cr_assert_leq(plan.activations, last.activations);
      cr_assert_lt(plan.peak, last.peak);
    }
    last = plan;
    net_free(t);
  }
  /* Beyond what a prediction takes: the last layer's input, its output's
   * gradient and a tensor's. */
  net *t = new_net(NULL);
  fl_memory_plan plan;
  cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
  cr_assert_eq(fl_model_plan_memory(t->model, 32, 0, &plan), FL_OK);
  cr_assert_leq(last.activations,
                plan.activations + (32 * (6 + 3 + 3) + 18) * sizeof(float));
  net_free(t);
}

/* Modules that stay trained make the step that they would have made. */
Test(first_active, state_of_what_stays_trained_is_kept)
{
  for (uint32_t kind = 0; kind <= FL_OPTIMISER_ADAGRAD; kind++) {
    fl_optimiser_options o = momentum();
    o.kind = kind;
    o.learning_rate = 0.01f;
    net *t = new_net(&o);
    net *twin = new_net(&o);
    for (int i = 0; i < 3; i++) {
      step(t);
      step(twin);
    }
    cr_assert_eq(fl_model_set_first_active(t->model, 3), FL_OK);
    cr_assert_eq(fl_model_set_first_active(t->model, 2), FL_OK);
    cr_assert_eq(fl_model_set_first_active(t->model, 3), FL_OK);
    step(t);
    step(twin);
    size_t at = (size_t)t->model->tensors[6].offset;
    cr_assert_arr_eq(weights_of(t) + at, weights_of(twin) + at,
                     ((size_t)t->model->n_weights - at) * sizeof(float));
    net_free(t);
    net_free(twin);
  }
}

static fl_status keep_gradient(float *gradient, const float *weights,
                               uint64_t count, void *user)
{
  (void)weights;
  memcpy(user, gradient, (size_t)count * sizeof *gradient);
  return FL_OK;
}

Test(first_active, state_of_what_comes_back_starts_at_zero)
{
  fl_optimiser_options o = momentum();
  o.weight_decay = 0.0f;
  net *t = new_net(&o);
  size_t n = (size_t)t->model->n_weights;
  float *gradient = malloc(n * sizeof *gradient);
  cr_assert_not_null(gradient);
  for (int i = 0; i < 3; i++) {
    step(t);
  }
  cr_assert_eq(fl_model_set_first_active(t->model, 1), FL_OK);
  step(t);
  cr_assert_eq(fl_model_set_first_active(t->model, 0), FL_OK);
  float *before = copy_weights(t);
  (void)fl_model_set_gradient_hook(t->model, keep_gradient, gradient);
  step(t);
  size_t n_first = (size_t)t->model->tensors[2].offset;
  for (size_t i = 0; i < n_first; i++) {
    double want = (double)before[i] - 0.05 * (double)gradient[i];
    cr_assert(fabs((double)weights_of(t)[i] - want) < 1e-6, "weight %zu", i);
  }
  double most = 0.0;
  for (size_t i = n_first; i < n; i++) {
    double plain = (double)before[i] - 0.05 * (double)gradient[i];
    most = fmax(most, fabs((double)weights_of(t)[i] - plain));
  }
  cr_assert_gt(most, 1e-4, "no momentum is left in the other modules");
  free(before);
  free(gradient);
  net_free(t);
}

Test(first_active, module_that_has_no_weight_is_refused)
{
  net *t = new_net(NULL);
  cr_assert_eq(fl_model_set_first_active(t->model, 1), FL_OK);
  cr_assert_eq(fl_model_set_first_active(t->model, MODULES), FL_E_RANGE);
  cr_assert_not_null(strstr(fl_last_error(), "module"));
  cr_assert_eq(fl_model_set_first_active(t->model, UINT32_MAX), FL_E_RANGE);
  cr_assert_eq(fl_model_set_first_active(NULL, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_first_active(t->model), 1);
  float *before = copy_weights(t);
  step(t);
  cr_assert(!has_changed(t, 0, before));
  cr_assert(has_changed(t, 2, before));
  free(before);
  net_free(t);
}

Test(first_active, losses_do_not_depend_on_it)
{
  double want = 0.0;
  for (uint32_t first = 0; first < MODULES; first++) {
    net *t = new_net(NULL);
    fl_dataset data = net_data(t);
    double loss = 0.0;
    cr_assert_eq(fl_model_set_first_active(t->model, first), FL_OK);
    cr_assert_eq(fl_model_step(t->model, &data, 0.1f, &loss), FL_OK);
    if (first == 0) want = loss;
    cr_assert_eq(loss, want);
    net_free(t);
  }
}

/* ---- what has no gradient ----------------------------------------------- */

static fl_status add_one(float *gradient, const float *weights, uint64_t count,
                         void *user)
{
  float *largest = user;
  (void)weights;
  for (uint64_t i = 0; i < count; i++) {
    gradient[i] += 1.0f;
    *largest = fmaxf(*largest, fabsf(gradient[i]));
  }
  return FL_OK;
}

/* dense (module 1), dense (module 0), dense (module 1), and a tensor of
 * nobody (module 1). */
static net *new_mixed(void)
{
  const uint64_t dims[1] = {5};
  const uint64_t four = 4;
  net *t = net_begin(NULL, dims, 1);
  (void)fl_model_builder_module(t->builder, 1);
  (void)net_dense(t, 6);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)fl_model_builder_module(t->builder, 0);
  (void)net_dense(t, 5);
  (void)fl_model_builder_module(t->builder, 1);
  (void)net_dense(t, 3);
  (void)fl_model_builder_tensor(t->builder, "nobody's", &four, 1, 1);
  t->n_tensors++;
  (void)net_classes(t, 0.0f);
  net_draw(t, 6, NET_SEED);
  return t;
}

static void check_mixed(int is_hooked, float clip)
{
  fl_optimiser_options o = momentum();
  o.clip_norm = clip;
  net *t = new_mixed();
  float largest = 0.0f;
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  if (is_hooked) {
    (void)fl_model_set_gradient_hook(t->model, add_one, &largest);
  }
  cr_assert_eq(fl_model_set_first_active(t->model, 1), FL_OK);
  float *before = copy_weights(t);
  for (int i = 0; i < 5; i++) {
    step(t);
  }
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    int is_trained = i != 2 && i != 3 && i != 6;
    cr_assert_eq(has_changed(t, i, before), is_trained, "tensor %s",
                 t->model->tensors[i].name);
  }
  cr_assert_lt(largest, 4.0f, "what the hook wrote was still there");
  free(before);
  net_free(t);
}

Test(first_active, tensors_without_a_gradient_keep_their_values)
{
  for (int is_hooked = 0; is_hooked <= 1; is_hooked++) {
    check_mixed(is_hooked, 0.0f);
    check_mixed(is_hooked, 0.5f);
  }
}

Test(first_active, fixed_layers_are_no_part_of_the_weights)
{
  const uint64_t dims[1] = {5};
  net *t = net_begin(NULL, dims, 1);
  (void)fl_model_builder_trainable(t->builder, 0);
  (void)net_dense(t, 6);
  (void)net_activation(t, FL_ACTIVATION_TANH);
  (void)fl_model_builder_trainable(t->builder, 1);
  (void)net_dense(t, 5);
  (void)fl_model_builder_trainable(t->builder, 0);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 6, NET_SEED);
  size_t fixed = 5 * 6 + 6 + 5 * 3 + 3;
  float before[64];
  cr_assert_eq(fl_model_weight_count(t->model), 6 * 5 + 5);
  memcpy(before, t->model->values + 35, fixed * sizeof *before);
  step(t);
  cr_assert_arr_eq(before, t->model->values + 35, fixed * sizeof *before);
  net_check(t);
}

/* ---- any modules -------------------------------------------------------- */

Test(first_active, listed_modules_keep_their_bits_and_the_others_are_trained)
{
  for (uint32_t list = 1; list < 15; list++) {
    uint8_t frozen[MODULES];
    fl_optimiser_options o = momentum();
    net *t = new_net(&o);
    for (uint32_t m = 0; m < MODULES; m++) {
      frozen[m] = (uint8_t)(list >> m & 1);
    }
    cr_assert_eq(fl_model_set_frozen(t->model, frozen, MODULES), FL_OK);
    uint32_t first = 0;
    while (frozen[first]) {
      first++;
    }
    cr_expect_eq(fl_model_first_active(t->model), first);
    float *before = copy_weights(t);
    step(t);
    step(t);
    for (uint32_t i = 0; i < t->model->n_tensors; i++) {
      cr_expect_neq(has_changed(t, i, before),
                    frozen[t->model->tensors[i].module], "list %u, tensor %u",
                    list, i);
    }
    free(before);
    net_free(t);
  }
}

Test(first_active, listing_a_prefix_is_setting_the_first_active_module)
{
  const uint8_t frozen[2] = {1, 1};
  fl_optimiser_options o = momentum();
  net *a = new_net(&o);
  net *b = new_net(&o);
  cr_assert_eq(fl_model_set_first_active(a->model, 2), FL_OK);
  cr_assert_eq(fl_model_set_frozen(b->model, frozen, 2), FL_OK);
  cr_expect_eq(a->model->optimiser.n, b->model->optimiser.n);
  for (int i = 0; i < 3; i++) {
    step(a);
    step(b);
  }
  cr_expect_arr_eq(weights_of(a), weights_of(b),
                   (size_t)a->model->n_weights * sizeof(float));
  /* And setting it again frees those in the middle. */
  const uint8_t middle[3] = {0, 0, 1};
  cr_assert_eq(fl_model_set_frozen(b->model, middle, 3), FL_OK);
  cr_expect_eq(fl_model_first_active(b->model), 0);
  cr_assert_eq(fl_model_set_first_active(b->model, 0), FL_OK);
  for (uint32_t i = 0; i < b->model->n_tensors; i++) {
    cr_expect_eq(b->model->tensors[i].is_trained, 1);
  }
  net_free(a);
  net_free(b);
}

Test(first_active, freezing_everything_is_refused_and_changes_nothing)
{
  const uint8_t all[MODULES] = {1, 1, 1, 1};
  const uint8_t middle[3] = {0, 0, 1};
  net *t = new_net(NULL);
  cr_assert_eq(fl_model_set_frozen(t->model, middle, 3), FL_OK);
  cr_expect_eq(fl_model_set_frozen(t->model, all, MODULES), FL_E_RANGE);
  cr_expect_str_eq(fl_last_error(), "frozen modules: no other one has a weight "
                                    "to train");
  cr_expect_eq(fl_model_set_first_active(t->model, MODULES), FL_E_RANGE);
  cr_expect_eq(fl_model_first_active(t->model), 0);
  for (uint32_t i = 0; i < t->model->n_tensors; i++) {
    const fli_tensor *tensor = &t->model->tensors[i];
    cr_expect_eq(tensor->is_trained, tensor->module != 2);
  }
  net_free(t);
}

Test(first_active, checkpoints_hold_the_list)
{
  const uint8_t middle[3] = {1, 0, 1};
  fl_optimiser_options o = momentum();
  net *a = new_net(&o);
  net *b = new_net(NULL);
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  cr_assert_eq(fl_model_set_frozen(a->model, middle, 3), FL_OK);
  step(a);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(a->model, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_model_load_checkpoint(b->model, &reader), FL_OK, "%s",
               fl_last_error());
  cr_expect_eq(fl_model_first_active(b->model), 1);
  for (int i = 0; i < 3; i++) {
    step(a);
    step(b);
  }
  cr_expect_arr_eq(weights_of(a), weights_of(b),
                   (size_t)a->model->n_weights * sizeof(float));
  fl_buffer_free(buffer);
  net_free(a);
  net_free(b);
}
