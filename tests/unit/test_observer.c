/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts between modules, what crosses them, and frozen layers whose outputs are
 * handed in instead of computed. */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "net_check.h"

enum { BATCH = 6, STEPS = 4, MODULES = 4 };

/* Convolution, ReLU and pool; convolution; dense; dense. */
static net *new_images(void)
{
  const uint64_t dims[3] = {2, 8, 8};
  net *t = net_begin(NULL, dims, 3);
  fl_conv2d_options conv = net_conv_options(5, 3, 1);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_pool(t, FL_POOL_MAX, 2, 0, 0);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_mean(t);
  (void)net_dropout(t, 0.5f);
  (void)net_dense(t, 6);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, BATCH, NET_SEED);
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.momentum = 0.9f;
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  return t;
}

/* What an observer at one cut sees, and gives back. */
typedef struct keeper {
  fli_watch watch;
  fli_cut taps[2];
  float *kept;
  size_t n_values;
  int has; /* hand it in */
  uint32_t n_tapped;
  uint32_t gone;
} keeper;

static fl_status begin(void *user, const fli_batch *batch, float rate,
                       fli_watch *watch)
{
  const keeper *k = user;
  (void)batch;
  (void)rate;
  *watch = k->watch;
  watch->taps = k->taps;
  return FL_OK;
}

static int load(void *user, const fli_batch *batch, float *values)
{
  const keeper *k = user;
  if (!k->has) return 0;
  memcpy(values, k->kept, batch->n * k->n_values * sizeof *values);
  return 1;
}

static void tap(void *user, uint32_t index, const fli_batch *batch,
                const float *values)
{
  keeper *k = user;
  size_t n = (size_t)k->taps[index].n_values;
  k->n_tapped++;
  if (index > 0) return;
  memcpy(k->kept, values, batch->n * n * sizeof *values);
}

static void gone(void *user)
{
  ((keeper *)user)->gone++;
}

static void observe(net *t, keeper *k, uint32_t module, int loads)
{
  *k = (keeper){0};
  cr_assert_eq(fli_model_cut(t->model, module, &k->taps[0]), 1);
  k->watch.n_taps = 1;
  k->watch.loads = loads;
  k->n_values = (size_t)k->taps[0].n_values;
  k->kept = calloc(BATCH * k->n_values, sizeof *k->kept);
  cr_assert_not_null(k->kept);
  const fli_observer observer = {
      .user = k, .begin = begin, .load = load, .tap = tap, .gone = gone};
  fli_model_set_observer(t->model, &observer);
}

static double step(net *t)
{
  double loss = 0.0;
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_model_step(t->model, &data, FL_RATE_SCHEDULED, &loss), FL_OK,
               "%s", fl_last_error());
  return loss;
}

Test(observer, modules_are_cut_in_front_of_their_first_layer)
{
  net *t = new_images();
  fli_cut cut;
  cr_expect_eq(fli_model_cut(t->model, 0, &cut), 1, "the input crosses");
  cr_expect_eq(cut.n_values, 2 * 8 * 8);
  cr_assert_eq(fli_model_cut(t->model, 1, &cut), 1);
  cr_expect_eq(cut.position, 4);
  cr_assert_eq(fli_model_cut(t->model, 2, &cut), 1);
  cr_expect_eq(cut.n_values, 5, "mean and dropout belong to what is before");
  cr_expect_eq(fli_model_cut(t->model, MODULES, &cut), 0, "no such module");
  net_free(t);
}

/* x + dense(x): two outputs cross in front of the second dense layer. */
Test(observer, there_is_no_cut_where_two_outputs_cross)
{
  const uint64_t dims = 4;
  net *t = net_begin(NULL, &dims, 1);
  size_t x = net_dense(t, 4);
  (void)net_dense(t, 4);
  (void)net_activation(t, FL_ACTIVATION_GELU);
  (void)net_dense(t, 4);
  (void)net_add(t, x);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  fli_cut cut;
  cr_expect_eq(fli_model_cut(t->model, 1, &cut), 1);
  cr_expect_eq(fli_model_cut(t->model, 2, &cut), 0);
  cr_expect_eq(fli_model_cut(t->model, 3, &cut), 1);
  net_free(t);
}

Test(observer, what_crosses_is_what_the_layers_behind_compute_with)
{
  for (uint32_t module = 1; module < MODULES; module++) {
    net *t = new_images();
    keeper k;
    const float *y = NULL;
    fl_dataset data = net_data(t);
    float logits[BATCH * 3];
    cr_assert_eq(fl_model_set_first_active(t->model, MODULES - 1), FL_OK);
    observe(t, &k, module, 0);
    (void)step(t);
    cr_expect_eq(k.n_tapped, 1);
    cr_assert_eq(fl_model_predict(t->model, &data, logits, BATCH * 3), FL_OK);
    cr_assert_eq(
        fli_forward_part(t->model, &k.taps[0], NULL, k.kept, BATCH, &y), FL_OK);
    cr_expect_arr_eq(y, logits, sizeof logits, "module %u", module);
    free(k.kept);
    net_free(t);
  }
}

Test(observer, part_between_two_cuts_gives_what_crosses_the_second)
{
  net *t = new_images();
  keeper k;
  const float *y = NULL;
  fli_cut to;
  cr_assert_eq(fl_model_set_first_active(t->model, 3), FL_OK);
  observe(t, &k, 1, 0);
  cr_assert_eq(fli_model_cut(t->model, 2, &to), 1);
  k.taps[1] = to;
  k.watch.n_taps = 2;
  (void)step(t);
  cr_expect_eq(k.n_tapped, 2);
  float *x = k.kept;
  keeper second;
  observe(t, &second, 2, 0);
  (void)step(t); /* modules 0 .. 2 are frozen: the same values again */
  cr_assert_eq(fli_forward_part(t->model, &k.taps[0], &to, x, BATCH, &y),
               FL_OK);
  cr_expect_arr_eq(y, second.kept, BATCH * second.n_values * sizeof *y);
  free(second.kept);
  free(x);
  net_free(t);
}

/* The frozen prefix is computed once, then handed in; the data are not looked
 * at any more, but for the labels. */
Test(observer, handing_in_what_was_kept_gives_the_same_bits)
{
  for (uint32_t module = 1; module < MODULES; module++) {
    net *computed = new_images();
    net *handed_in = new_images();
    keeper k;
    cr_assert_eq(fl_model_set_first_active(computed->model, module), FL_OK);
    cr_assert_eq(fl_model_set_first_active(handed_in->model, module), FL_OK);
    observe(handed_in, &k, module, 1);
    cr_assert(step(computed) == step(handed_in));
    k.has = 1;
    for (size_t i = 0; i < BATCH * 2 * 8 * 8; i++) {
      handed_in->x[i] = NAN;
    }
    for (int i = 0; i < STEPS; i++) {
      cr_assert(step(computed) == step(handed_in), "module %u", module);
    }
    cr_expect_arr_eq(computed->model->values, handed_in->model->values,
                     (size_t)computed->model->n_weights * sizeof(float));
    free(k.kept);
    net_free(computed);
    net_free(handed_in);
  }
}

Test(observer, freed_model_says_so)
{
  net *t = new_images();
  keeper k;
  observe(t, &k, 1, 0);
  float *kept = k.kept;
  net_free(t);
  cr_expect_eq(k.gone, 1);
  free(kept);
}

Test(observer, setting_the_first_active_module_gives_memory_back)
{
  net *t = new_images();
  (void)step(t);
  cr_assert_not_null(t->model->workspace.block);
  float *state = t->model->optimiser.state[0];
  cr_assert_eq(fl_model_set_first_active(t->model, 0), FL_OK);
  cr_expect_not_null(t->model->workspace.block, "nothing was changed");
  cr_expect_eq(t->model->optimiser.state[0], state);
  cr_assert_eq(fl_model_set_first_active(t->model, 2), FL_OK);
  cr_expect_null(t->model->workspace.block);
  cr_expect_eq(t->model->optimiser.n,
               t->model->n_weights - t->model->first_weight);
  net_free(t);
}
