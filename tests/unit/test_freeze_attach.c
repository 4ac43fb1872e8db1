/* SPDX-License-Identifier: Apache-2.0 */
/* A controller attached to a model: what it freezes, what it is shown, and the
 * cache in front of the frozen modules. */
#include <math.h>
#include <string.h>

#include "freeze/freeze.h"
#include "freeze/snapshot.h"
#include "freeze_net.h"

/* Index of the first weight of a module. */
static size_t first_weight(const net *t, uint32_t module)
{
  uint32_t i = 0;
  while (t->model->segments[i].module < module) {
    i++;
  }
  return (size_t)t->model->segments[i].offset;
}

Test(freeze_attach, frozen_modules_do_not_change_by_a_bit_and_the_others_do)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(STEPS_PER_EPOCH);
  size_t n = (size_t)t->model->n_weights;
  float *before = malloc(n * sizeof *before);
  cr_assert_not_null(before);
  attach(freeze, t, NULL);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 0);
  memcpy(before, t->model->values, n * sizeof *before);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 1);
  size_t end = first_weight(t, 1);
  cr_expect_arr_eq(before, t->model->values, end * sizeof *before);
  cr_expect_neq(
      memcmp(before + end, t->model->values + end, (n - end) * sizeof *before),
      0);
  memcpy(before, t->model->values, n * sizeof *before);
  (void)fit(t, 2);
  cr_expect_eq(fl_model_first_active(t->model), 2);
  end = first_weight(t, 2);
  cr_expect_arr_eq(before, t->model->values, end * sizeof *before);
  fl_freeze_free(freeze);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 2, "stays as it was left");
  free(before);
  net_free(t);
}

Test(freeze_attach, what_is_frozen_gives_its_memory_back_in_that_step)
{
  fl_context *context = NULL;
  uint64_t before = 0;
  uint64_t after = 0;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  net *t = new_net(context);
  fl_freeze *freeze = new_fixed(2);
  fl_dataset data = net_data(t);
  attach(freeze, t, NULL);
  data.n = BATCH;
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  }
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  cr_assert_eq(fl_context_get_memory(context, &after, NULL), FL_OK);
  /* Momentum of the first convolution, and what it kept for the way back. */
  cr_expect_lt(after + 4 * first_weight(t, 1), before);
  fl_freeze_free(freeze);
  net_free(t);
  fl_context_free(context);
}

/* ---- what it is shown --------------------------------------------------- */

/* The host's half of the same: a hook takes the gradient, the controller is
 * asked step by step. */
typedef struct by_hand {
  fl_freeze *freeze;
  net *t;
  fl_freeze_request request;
} by_hand;

static fl_status show_module(float *gradient, const float *weights,
                             uint64_t count, void *user)
{
  by_hand *h = user;
  const fl_model *model = h->t->model;
  (void)weights;
  (void)count;
  if (!(h->request.wants & FL_FREEZE_WANTS_GRADIENT)) return FL_OK;
  const fli_segment *s = &model->segments[h->request.module];
  return fl_freeze_push_gradient(h->freeze, h->request.module,
                                 gradient + (s->offset - model->first_weight),
                                 s->n);
}

Test(freeze_attach, decides_as_a_trainer_of_its_own_would_by_hand)
{
  fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
  net *by_us = new_net(NULL);
  net *t = new_net(NULL);
  fl_freeze *attached;
  by_hand h = {.t = t};
  uint32_t most = 0;
  o.interval = 2;
  o.patience = 2;
  o.gap = 1;
  o.tolerance = 1.1f;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  o.max_frozen = 3;
  attached = new_freeze(&o);
  h.freeze = new_freeze(&o);
  attach(attached, by_us, NULL);
  cr_assert_eq(fl_model_set_gradient_hook(t->model, show_module, &h), FL_OK);
  for (int i = 0; i < 120; i++) {
    fl_dataset data = net_data(t);
    double loss = 0.0;
    uint32_t order[BATCH];
    for (uint32_t k = 0; k < BATCH; k++) {
      order[k] = ((uint32_t)i * 7 + k * 3) % SAMPLES;
    }
    data.indices = order;
    data.n_indices = BATCH;
    cr_assert_eq(fl_freeze_request_init(&h.request, sizeof h.request), FL_OK);
    cr_assert_eq(fl_freeze_begin_step(h.freeze, 0.05f, &h.request), FL_OK);
    cr_assert_eq(fl_model_set_first_active(t->model, h.request.first_active),
                 FL_OK);
    cr_assert_eq(fl_model_step(t->model, &data, 0.05f, &loss), FL_OK, "%s",
                 fl_last_error());
    cr_assert_eq(fl_freeze_end_step(h.freeze, loss), FL_OK);
    fl_dataset same = net_data(by_us);
    same.indices = order;
    same.n_indices = BATCH;
    cr_assert_eq(fl_model_step(by_us->model, &same, 0.05f, NULL), FL_OK);
    cr_assert_eq(fl_model_first_active(by_us->model),
                 fl_model_first_active(t->model), "step %d", i);
    most = fl_model_first_active(t->model);
  }
  cr_expect_eq(most, 3, "all that may freeze did");
  fl_freeze_free(attached);
  fl_freeze_free(h.freeze);
  net_free(by_us);
  net_free(t);
}

/* Plasticity of the front module, as it is pushed, against one computed here
 * from predictions of the parts. */
Test(freeze_attach, plasticity_is_that_of_the_module_and_its_snapshot)
{
  fl_freeze_options o = options_of(FL_FREEZE_PLASTICITY);
  net *t = new_net(NULL);
  fl_freeze_event event;
  fl_model *snapshot = NULL;
  fli_cut in, out;
  double want = 0.0;
  static float x[BATCH * 64 * 2];
  static float y[BATCH * 200];
  const float *part = NULL;
  o.interval = 2;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  fl_freeze *freeze = new_freeze(&o);
  attach(freeze, t, NULL);
  fl_dataset data = net_data(t);
  data.n = BATCH;
  while (!freeze->state.is_booted ||
         (freeze->state.step + 1) % o.interval != 0) {
    cr_assert_eq(fl_model_step(t->model, &data, 0.05f, NULL), FL_OK);
  }
  /* The next step makes the snapshot of the weights as they are now. */
  while (fl_freeze_poll(freeze, &event) == FL_OK) {
  }
  for (uint32_t m = 0; m < MODULES; m++) {
    cr_assert_eq(fli_snapshot_take(&snapshot, NULL, t->model, m), FL_OK);
  }
  cr_assert_eq(fli_model_cut(t->model, 0, &in), 1);
  cr_assert_eq(fli_model_cut(t->model, 1, &out), 1);
  cr_assert_leq(out.n_values, 200);
  for (size_t i = 0; i < BATCH * 64 * 2; i++) { /* channels side by side */
    x[i] = t->x[i / 128 * 128 + i % 2 * 64 + i % 128 / 2];
  }
  cr_assert_eq(fli_forward_part(t->model, &in, &out, x, BATCH, &part), FL_OK);
  memcpy(y, part, BATCH * (size_t)out.n_values * sizeof *y);
  cr_assert_eq(fli_forward_part(snapshot, &in, &out, x, BATCH, &part), FL_OK);
  cr_assert_eq(fl_plasticity(NULL, y, part, BATCH, out.n_values, &want), FL_OK);
  cr_assert_eq(fl_model_step(t->model, &data, 0.05f, NULL), FL_OK);
  cr_assert(has_event(freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_gt(want, 0.0);
  cr_expect_float_eq(event.raw, want, 1e-6 * want + 1e-12);
  fl_model_free(snapshot);
  fl_freeze_free(freeze);
  net_free(t);
}

/* A new attachment has no snapshot: it is asked for with the next pair. */
Test(freeze_attach, plasticity_goes_on_when_attached_anew)
{
  fl_freeze_options o = options_of(FL_FREEZE_PLASTICITY);
  net *t = new_net(NULL);
  fl_freeze_event event;
  o.interval = 2;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  fl_freeze *freeze = new_freeze(&o);
  fl_dataset data = net_data(t);
  data.n = BATCH;
  for (int round = 0; round < 2; round++) {
    attach(freeze, t, NULL);
    for (int i = 0; i < 16; i++) {
      cr_assert_eq(fl_model_step(t->model, &data, 0.05f, NULL), FL_OK);
    }
    cr_expect(has_event(freeze, FL_FREEZE_EVALUATED, &event), "round %d",
              round);
    while (fl_freeze_poll(freeze, &event) == FL_OK) {
    }
    cr_assert_eq(fl_freeze_detach(freeze), FL_OK);
  }
  /* A trainer of the host's own goes on: it has none, either. */
  for (int i = 0; i < 2; i++) {
    fl_freeze_request request;
    cr_assert_eq(fl_freeze_request_init(&request, sizeof request), FL_OK);
    cr_assert_eq(fl_freeze_begin_step(freeze, 0.05f, &request), FL_OK);
    if (i == 1) cr_expect(request.wants & FL_FREEZE_WANTS_SNAPSHOT);
    cr_assert_eq(fl_freeze_end_step(freeze, 1), FL_OK);
  }
  fl_freeze_free(freeze);
  net_free(t);
}

Test(freeze_attach, snapshot_is_within_half_a_level_of_each_channel)
{
  net *t = new_net(NULL);
  fl_model *snapshot = NULL;
  for (uint32_t m = 0; m < MODULES; m++) {
    cr_assert_eq(fli_snapshot_take(&snapshot, NULL, t->model, m), FL_OK);
  }
  for (uint32_t i = 0; i < t->model->n_tensors; i++) {
    const fli_tensor *tensor = &t->model->tensors[i];
    const float *a = fli_tensor_values(t->model, tensor);
    const float *b = fli_tensor_values(snapshot, tensor);
    if (tensor->shape.n_dims < 2) {
      cr_expect_arr_eq(a, b, (size_t)tensor->shape.count * sizeof *a);
      continue;
    }
    size_t n = (size_t)(tensor->shape.count / tensor->shape.dims[0]);
    for (size_t c = 0; c < tensor->shape.dims[0]; c++) {
      float largest = 0.0f;
      for (size_t k = 0; k < n; k++) {
        largest = fmaxf(largest, fabsf(a[c * n + k]));
      }
      for (size_t k = 0; k < n; k++) {
        double level = (double)b[c * n + k] * 127 / (double)largest;
        cr_expect(fabs(level - rint(level)) < 1e-4);
        cr_expect(fabsf(a[c * n + k] - b[c * n + k]) <=
                  largest / 254 * 1.0001f);
      }
    }
  }
  fl_model_free(snapshot);
  net_free(t);
}

/* ---- handling ----------------------------------------------------------- */

Test(freeze_attach, either_may_be_freed_first)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(0);
  attach(freeze, t, NULL);
  cr_expect_eq(fl_freeze_attach(freeze, t->model, NULL), FL_E_STATE);
  (void)fit(t, 1);
  net_free(t);
  cr_expect_eq(fl_freeze_detach(freeze), FL_E_STATE);
  t = new_net(NULL);
  attach(freeze, t, NULL);
  cr_expect_eq(fl_freeze_detach(freeze), FL_OK);
  attach(freeze, t, NULL);
  fl_freeze_free(freeze);
  (void)fit(t, 1);
  net_free(t);
}

Test(freeze_attach, models_that_do_not_fit_are_refused)
{
  fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
  net *t = new_net(NULL);
  fl_freeze *freeze = NULL;
  cr_assert_eq(fl_freeze_new(&freeze, NULL, MODULES + 1, &o), FL_OK);
  cr_expect_eq(fl_freeze_attach(freeze, t->model, NULL), FL_E_DIM);
  cr_expect_str_eq(fl_last_error(), "freeze: has 5 modules, the model has 4");
  fl_freeze_free(freeze);
  cr_expect_eq(fl_freeze_attach(NULL, t->model, NULL), FL_E_ARGUMENT);
  net_free(t);
}

/* Killed after some epochs: checkpoint and controller give the same plan and
 * the same bits as without. */
Test(freeze_attach, saved_and_loaded_beside_the_model_goes_on_to_the_same_bits)
{
  fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
  fl_buffer *buffers[2];
  fl_writer writer;
  fl_reader reader;
  o.interval = 2;
  o.patience = 2;
  o.gap = 1;
  o.tolerance = 1.1f;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  net *whole = new_net(NULL);
  net *first = new_net(NULL);
  net *second = new_net(NULL);
  fl_freeze *freezes[3] = {new_freeze(&o), new_freeze(&o), new_freeze(&o)};
  attach(freezes[0], whole, NULL);
  attach(freezes[1], first, NULL);
  (void)fit(whole, 3);
  (void)fit(first, 3);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_buffer_new(&buffers[i], NULL), FL_OK);
  }
  cr_assert_eq(fl_buffer_as_writer(buffers[0], &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(first->model, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffers[1], &writer), FL_OK);
  cr_assert_eq(fl_freeze_save(freezes[1], &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffers[0], &reader), FL_OK);
  cr_assert_eq(fl_model_load_checkpoint(second->model, &reader), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffers[1], &reader), FL_OK);
  cr_assert_eq(fl_freeze_load(freezes[2], &reader), FL_OK, "%s",
               fl_last_error());
  attach(freezes[2], second, NULL);
  (void)fit(whole, 12);
  (void)fit(second, 12);
  cr_expect_gt(fl_model_first_active(whole->model), 0);
  cr_expect_eq(fl_model_first_active(whole->model),
               fl_model_first_active(second->model));
  cr_expect_arr_eq(whole->model->values, second->model->values,
                   (size_t)whole->model->n_weights * sizeof(float));
  for (int i = 0; i < 2; i++) {
    fl_buffer_free(buffers[i]);
  }
  for (int i = 0; i < 3; i++) {
    fl_freeze_free(freezes[i]);
  }
  net_free(whole);
  net_free(first);
  net_free(second);
}
