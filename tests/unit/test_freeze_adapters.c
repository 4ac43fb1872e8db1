/* SPDX-License-Identifier: Apache-2.0 */
/* SAFE: what adapters change, and which of them are frozen for it. */
#include <string.h>

#include "freeze_net.h"

enum { WIDE = 6 };

/* Five dense layers over tokens, each a module, the middle three with adapters;
 * those of all but layer `idle` are given weights, its one stays without
 * effect. */
static fl_model *new_adapted(int is_low_rank, uint32_t idle)
{
  const uint64_t dims[2] = {5, WIDE};
  net *t = net_begin(NULL, dims, 2);
  fl_model *model = NULL;
  for (int i = 0; i < 5; i++) {
    (void)net_dense(t, WIDE);
    (void)net_activation(t, FL_ACTIVATION_GELU);
  }
  (void)net_mean(t);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  if (is_low_rank) {
    fl_lora_options o;
    cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
    o.rank = 2;
    cr_assert_eq(fl_model_with_lora(&model, t->model, &o, 3), FL_OK);
  } else {
    fl_adapter_options o;
    cr_assert_eq(fl_adapter_options_init(&o, sizeof o), FL_OK);
    o.width = 3;
    cr_assert_eq(fl_model_with_adapters(&model, t->model, &o, 3), FL_OK);
  }
  fli_rng rng;
  fli_rng_init(&rng, 8, FLI_RNG_TEST, 0, 0);
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!strstr(tensor->name, "lora_b") && !strstr(tensor->name, "up.weight")) {
      continue;
    }
    for (uint64_t k = 0; k < tensor->shape.count; k++) {
      float value = 2.0f * fli_rng_f32(&rng) - 1.0f;
      fli_tensor_values(model, tensor)[k] =
          tensor->module == idle ? 0.0f : value;
    }
  }
  net_free(t);
  return model;
}

/* SAFE freezes the adapter that changes nothing, and trains the others. */
Test(freeze_adapters, adapters_that_leave_features_as_they_are_are_frozen)
{
  for (uint32_t idle = 0; idle < 4; idle++) {
    for (int is_low_rank = 0; is_low_rank < 2; is_low_rank++) {
      fl_freeze_options o = options_of(FL_FREEZE_CKA);
      fl_freeze *freeze = NULL;
      fl_freeze_plan plan;
      fl_model *model = new_adapted(is_low_rank, idle);
      static float x[SAMPLES * 5 * WIDE];
      static int32_t y[SAMPLES];
      uint32_t n_frozen = 0;
      fli_rng rng;
      fli_rng_init(&rng, 9, FLI_RNG_TEST, 0, 0);
      for (size_t i = 0; i < SAMPLES * 5 * WIDE; i++) {
        x[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
      }
      for (size_t i = 0; i < SAMPLES; i++) {
        y[i] = (int32_t)fli_rng_below(&rng, 3);
      }
      o.total_steps = 40;
      o.interval = 2;
      cr_assert_eq(fl_freeze_new(&freeze, NULL, 6, &o), FL_OK, "%s",
                   fl_last_error());
      cr_assert_eq(fl_freeze_attach(freeze, model, NULL), FL_OK, "%s",
                   fl_last_error());
      fl_dataset data;
      cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
      data.x = x;
      data.y = y;
      data.n = SAMPLES;
      for (int i = 0; i < 21; i++) {
        cr_assert_eq(fl_model_step(model, &data, 1e-4f, NULL), FL_OK, "%s",
                     fl_last_error());
      }
      cr_assert_eq(fl_freeze_plan_init(&plan, sizeof plan), FL_OK);
      cr_assert_eq(fl_freeze_get_plan(freeze, &plan), FL_OK);
      for (uint32_t m = 0; m < 6; m++) {
        n_frozen += plan.frozen[m];
      }
      cr_expect_eq(plan.frozen[idle], 1, "low rank %d, module %u", is_low_rank,
                   idle);
      cr_expect(n_frozen >= 1 && n_frozen <= 2, "half of them at most, got %u",
                n_frozen);
      for (uint32_t i = 0; i < model->n_tensors; i++) {
        const fli_tensor *tensor = &model->tensors[i];
        if (!tensor->is_trainable) continue;
        cr_expect_neq(tensor->is_trained, plan.frozen[tensor->module]);
      }
      fl_freeze_free(freeze);
      fl_model_free(model);
    }
  }
}

/* What is pushed is what layers with and without their update give. */
Test(freeze_adapters, importance_of_a_low_rank_update_is_that_of_its_layer)
{
  fl_freeze_options o = options_of(FL_FREEZE_CKA);
  fl_freeze *freeze = NULL;
  fl_freeze_event event;
  fl_model *model = new_adapted(1, 9);
  static float x[SAMPLES * 5 * WIDE];
  static int32_t y[SAMPLES];
  double after[BATCH * 5 * WIDE];
  double before[BATCH * 5 * WIDE];
  float a[BATCH * 5 * WIDE];
  float b[BATCH * 5 * WIDE];
  double cka = 0.0;
  for (size_t i = 0; i < SAMPLES * 5 * WIDE; i++) {
    x[i] = (float)(i * 37 % 101) / 101.0f;
  }
  /* The first layer by hand: x W^T + b, and alpha / rank x A^T B^T more. */
  const float *w = fli_tensor_values(model, &model->tensors[0]);
  const float *bias = fli_tensor_values(model, &model->tensors[1]);
  const float *la = fli_tensor_values(model, &model->tensors[2]);
  const float *lb = fli_tensor_values(model, &model->tensors[3]);
  for (size_t r = 0; r < BATCH * 5; r++) {
    for (size_t j = 0; j < WIDE; j++) {
      double sum = (double)bias[j];
      double more = 0.0;
      for (size_t k = 0; k < WIDE; k++) {
        sum += (double)x[r * WIDE + k] * (double)w[j * WIDE + k];
        for (size_t q = 0; q < 2; q++) {
          more += 8.0 * (double)x[r * WIDE + k] * (double)la[q * WIDE + k] *
                  (double)lb[j * 2 + q];
        }
      }
      before[r * WIDE + j] = sum;
      after[r * WIDE + j] = sum + more;
    }
  }
  for (size_t i = 0; i < BATCH * 5 * WIDE; i++) {
    a[i] = (float)before[i];
    b[i] = (float)after[i];
  }
  cr_assert_eq(fl_cka(NULL, a, WIDE, b, WIDE, BATCH * 5, &cka), FL_OK);
  o.total_steps = 100;
  o.interval = 2;
  cr_assert_eq(fl_freeze_new(&freeze, NULL, 6, &o), FL_OK);
  cr_assert_eq(fl_freeze_attach(freeze, model, NULL), FL_OK);
  fl_dataset data;
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x = x;
  data.y = y;
  data.n = BATCH;
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_model_step(model, &data, 0.0f, NULL), FL_OK);
  }
  cr_assert(has_event(freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_eq(event.module, 0);
  cr_expect_gt(1.0 - cka, 1e-3);
  cr_expect_float_eq(event.raw, 1.0 - cka, 1e-5);
  fl_freeze_free(freeze);
  fl_model_free(model);
}

enum { TOKENS = 1501, KEPT = (TOKENS + 1) / 2 };

/* The first layer by hand, for every second token of x: its update is made to
 * add the first input to the third output. */
static double cka_of_every_second(fl_model *model, const float *x)
{
  static float kept[2][KEPT * WIDE];
  double cka = 0.0;
  const float *w = fli_tensor_values(model, &model->tensors[0]);
  const float *bias = fli_tensor_values(model, &model->tensors[1]);
  float *la = fli_tensor_values(model, &model->tensors[2]);
  float *lb = fli_tensor_values(model, &model->tensors[3]);
  for (size_t k = 0; k < WIDE; k++) {
    la[k] = k == 0 ? 1.0f : 0.0f;
    lb[k] = k == 2 ? 1.0f : 0.0f;
  }
  for (size_t r = 0; r < KEPT; r++) {
    const float *token = x + 2 * r * WIDE;
    for (size_t j = 0; j < WIDE; j++) {
      float sum = bias[j];
      for (size_t k = 0; k < WIDE; k++) {
        sum += token[k] * w[j * WIDE + k];
      }
      kept[0][r * WIDE + j] = sum;
      kept[1][r * WIDE + j] = sum + (j == 2 ? 16.0f * token[0] : 0.0f);
    }
  }
  cr_assert_eq(fl_cka(NULL, kept[0], WIDE, kept[1], WIDE, KEPT, &cka), FL_OK);
  return cka;
}

/* A sample with more tokens than can be compared: every second one is. */
Test(freeze_adapters, of_many_tokens_every_kth_is_compared)
{
  const uint64_t dims[2] = {TOKENS, WIDE};
  fl_freeze_options o = options_of(FL_FREEZE_CKA);
  fl_lora_options lora;
  fl_freeze *freeze = NULL;
  fl_freeze_event event;
  fl_model *model = NULL;
  static float x[TOKENS * WIDE];
  const int32_t y[1] = {1};
  net *t = net_begin(NULL, dims, 2);
  (void)net_dense(t, WIDE);
  (void)net_dense(t, WIDE);
  (void)net_mean(t);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 1, NET_SEED);
  cr_assert_eq(fl_lora_options_init(&lora, sizeof lora), FL_OK);
  lora.rank = 1;
  cr_assert_eq(fl_model_with_lora(&model, t->model, &lora, 3), FL_OK, "%s",
               fl_last_error());
  /* What the update takes up is not in the first 1024. */
  for (size_t i = 0; i < TOKENS * WIDE; i++) {
    x[i] = (float)(i * 37 % 101) / 101.0f;
    if (i % WIDE == 0 && i / WIDE < 1024) x[i] = 0.0f;
  }
  const double cka = cka_of_every_second(model, x);
  o.total_steps = 100;
  o.interval = 2;
  cr_assert_eq(fl_freeze_new(&freeze, NULL, 3, &o), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_freeze_attach(freeze, model, NULL), FL_OK, "%s",
               fl_last_error());
  fl_dataset data;
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x = x;
  data.y = y;
  data.n = 1;
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_model_step(model, &data, 0.0f, NULL), FL_OK, "%s",
                 fl_last_error());
  }
  cr_assert(has_event(freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_eq(event.module, 0);
  cr_expect_gt(1.0 - cka, 0.1);
  cr_expect_float_eq(event.raw, 1.0 - cka, 1e-5);
  fl_freeze_free(freeze);
  fl_model_free(model);
  net_free(t);
}

Test(freeze_adapters, models_without_adapters_are_refused_by_the_criterion)
{
  fl_freeze_options o = options_of(FL_FREEZE_CKA);
  net *t = new_net(NULL);
  o.total_steps = 100;
  fl_freeze *freeze = new_freeze(&o);
  cr_expect_eq(fl_freeze_attach(freeze, t->model, NULL), FL_E_NOT_FOUND);
  fl_freeze_free(freeze);
  net_free(t);
}

/* Low-rank updates of layers behind the first one: the front is the first
 * module that has something to train. */
Test(freeze_adapters, front_steps_over_modules_without_adapters)
{
  const uint64_t dims[2] = {5, WIDE};
  fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
  fl_lora_options lora;
  fl_freeze *freeze = NULL;
  fl_freeze_event event;
  fl_model *model = NULL;
  net *t = net_begin(NULL, dims, 2);
  for (int i = 0; i < 4; i++) {
    (void)net_dense(t, WIDE);
  }
  (void)net_mean(t);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  cr_assert_eq(fl_lora_options_init(&lora, sizeof lora), FL_OK);
  lora.layers = "l2"; /* the second of them */
  cr_assert_eq(fl_model_with_lora(&model, t->model, &lora, 3), FL_OK);
  o.interval = 2;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  o.patience = 1;
  o.gap = 1;
  o.tolerance = 5.0f;
  cr_assert_eq(fl_freeze_new(&freeze, NULL, 5, &o), FL_OK);
  cr_assert_eq(fl_freeze_attach(freeze, model, NULL), FL_OK, "%s",
               fl_last_error());
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_model_step(model, &data, 0.01f, NULL), FL_OK);
  cr_expect_eq(fl_model_first_active(model), 1, "as the plan has it");
  for (int i = 0; i < 60; i++) {
    cr_assert_eq(fl_model_step(model, &data, 0.01f, NULL), FL_OK);
  }
  cr_expect(has_event(freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_eq(event.module, 1);
  cr_expect(has_event(freeze, FL_FREEZE_CHANGED, &event));
  cr_expect_geq(event.first_active, 2);
  cr_expect_eq(fl_model_first_active(model), 4, "the head is what is left");
  fl_freeze_free(freeze);
  fl_model_free(model);
  net_free(t);
}
