/* SPDX-License-Identifier: Apache-2.0 */
/* Models made of others: with LoRA or adapters they compute what their base
 * does at first, train only what they should, and LoRA folds into weights. */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "net_check.h"

enum { SAMPLES = 6, OUTPUTS = 3 };

/* A block of a transformer and a head; modules 0.. in order. */
static net *new_base(void)
{
  net *t = net_sequence(4, 6);
  size_t x = t->from;
  (void)net_layer_norm(t, 1e-5f);
  (void)net_attention(t, 2, 0);
  x = net_add(t, x);
  (void)net_dense(t, 9);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 6);
  (void)net_add(t, x);
  (void)net_mean(t);
  (void)net_dense(t, OUTPUTS);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  return t;
}

static void outputs_of(fl_model *model, const net *t, float *y)
{
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_model_predict(model, &data, y, SAMPLES * OUTPUTS), FL_OK,
               "%s", fl_last_error());
}

static void assert_outputs(fl_model *model, const net *t, const float *want,
                           float tolerance)
{
  float y[SAMPLES * OUTPUTS];
  outputs_of(model, t, y);
  for (size_t i = 0; i < SAMPLES * OUTPUTS; i++) {
    cr_assert(fabsf(y[i] - want[i]) <= tolerance, "output %zu: %g, want %g", i,
              (double)y[i], (double)want[i]);
  }
}

static void train(fl_model *model, const net *t, int steps)
{
  fl_dataset data = net_data(t);
  for (int i = 0; i < steps; i++) {
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK, "%s",
                 fl_last_error());
  }
}

/* Tensors of the base have the base's values, but for those in `trained`. */
static void assert_base_kept(fl_model *model, const fl_model *base,
                             const char *trained)
{
  for (uint32_t i = 0; i < base->n_tensors; i++) {
    const fli_tensor *tensor = &base->tensors[i];
    uint32_t index = 0;
    cr_assert_eq(fl_model_find_tensor(model, tensor->name, &index), FL_OK);
    const fli_tensor *other = &model->tensors[index];
    int is_trained = strstr(tensor->name, trained) == tensor->name;
    int is_same =
        memcmp(fli_tensor_values(base, tensor), fli_tensor_values(model, other),
               (size_t)tensor->shape.count * sizeof(float)) == 0;
    cr_assert_eq(is_same, !is_trained, "%s", tensor->name);
    cr_assert_eq(other->is_trainable, (uint32_t)is_trained);
    cr_assert_eq(other->module, tensor->module);
  }
}

Test(adapters, lora_begins_as_its_base_and_trains_only_what_is_new)
{
  net *t = new_base();
  fl_model *model = NULL;
  float want[SAMPLES * OUTPUTS];
  float y[SAMPLES * OUTPUTS];
  fl_lora_options o;
  cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
  o.rank = 2;
  outputs_of(t->model, t, want);
  cr_assert_eq(fl_model_with_lora(&model, t->model, &o, 1), FL_OK, "%s",
               fl_last_error());
  assert_outputs(model, t, want, 1e-6f);
  /* in_proj, out_proj, two dense layers, and the head as it is */
  uint64_t n = 2 * (6 + 18) + 2 * (6 + 6) + 2 * (6 + 9) + 2 * (9 + 6);
  cr_assert_eq(fl_model_weight_count(model), n + OUTPUTS * 6 + OUTPUTS);
  cr_assert_eq(fl_model_self_test(model), FL_OK);
  train(model, t, 5);
  assert_base_kept(model, t->model, "l12");
  outputs_of(model, t, y);
  cr_assert(memcmp(y, want, sizeof y) != 0);
  fl_model_free(model);
  net_free(t);
}

Test(adapters, folded_lora_computes_the_same_with_the_bases_layers)
{
  net *t = new_base();
  fl_model *model = NULL;
  fl_model *merged = NULL;
  float want[SAMPLES * OUTPUTS];
  fl_lora_options o;
  cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
  o.rank = 3;
  o.alpha = 5.0f;
  cr_assert_eq(fl_model_with_lora(&model, t->model, &o, 1), FL_OK);
  train(model, t, 20);
  outputs_of(model, t, want);
  cr_assert_eq(fl_model_merge_lora(&merged, model), FL_OK, "%s",
               fl_last_error());
  assert_outputs(merged, t, want, 1e-5f);
  cr_assert_arr_eq(merged->schema, t->model->schema, FL_HASH_BYTES);
  cr_assert_eq(merged->description.size, t->model->description.size);
  train(merged, t, 1);
  fl_model_free(merged);
  merged = NULL;
  /* Without LoRA there is nothing to fold. */
  cr_assert_eq(fl_model_merge_lora(&merged, t->model), FL_OK);
  outputs_of(t->model, t, want);
  assert_outputs(merged, t, want, 0.0f);
  fl_model_free(merged);
  fl_model_free(model);
  net_free(t);
}

Test(adapters, bottlenecks_begin_as_their_base_and_train_only_what_is_new)
{
  for (uint32_t kind = 0; kind <= FL_ACTIVATION_SIGMOID; kind++) {
    net *t = new_base();
    fl_model *model = NULL;
    float want[SAMPLES * OUTPUTS];
    float y[SAMPLES * OUTPUTS];
    fl_adapter_options o;
    cr_assert_eq(fl_adapter_options_init(&o, sizeof o), FL_OK);
    o.width = 2;
    o.activation = kind;
    outputs_of(t->model, t, want);
    cr_assert_eq(fl_model_with_adapters(&model, t->model, &o, 1), FL_OK, "%s",
                 fl_last_error());
    assert_outputs(model, t, want, 1e-6f);
    /* behind out_proj and the second dense layer, whose outputs are added */
    uint64_t n = 2 * (2 * 6 + 2 + 6 * 2 + 6);
    cr_assert_eq(fl_model_weight_count(model), n + OUTPUTS * 6 + OUTPUTS);
    train(model, t, 5);
    assert_base_kept(model, t->model, "l12");
    outputs_of(model, t, y);
    cr_assert(memcmp(y, want, sizeof y) != 0);
    fl_model_free(model);
    net_free(t);
  }
}

Test(adapters, layers_are_chosen_by_name)
{
  net *t = new_base();
  fl_model *model = NULL;
  fl_lora_options o;
  cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
  o.rank = 1;
  o.layers = "proj";
  o.trained = "";
  cr_assert_eq(fl_model_with_lora(&model, t->model, &o, 1), FL_OK);
  cr_assert_eq(fl_model_weight_count(model), 6 + 18 + 6 + 6);
  train(model, t, 3);
  assert_base_kept(model, t->model, "none of them");
  fl_model_free(model);
  net_free(t);
}

Test(adapters, same_seed_draws_the_same)
{
  net *t = new_base();
  fl_model *models[3] = {NULL};
  for (uint64_t i = 0; i < 3; i++) {
    cr_assert_eq(fl_model_with_lora(&models[i], t->model, NULL, i / 2), FL_OK);
  }
  size_t bytes = (size_t)models[0]->n_weights * sizeof(float);
  cr_assert_arr_eq(models[0]->values, models[1]->values, bytes);
  cr_assert(memcmp(models[0]->values, models[2]->values, bytes) != 0);
  for (size_t i = 0; i < 3; i++) {
    fl_model_free(models[i]);
  }
  net_free(t);
}

/* "in" and "head" are fixed by their builder, "mid" and "n" are not. */
static fl_model *new_partly_fixed(void)
{
  const uint64_t inputs = 5;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_input(builder, &inputs, 1, 1.0f, 0.0f);
  (void)fl_model_builder_trainable(builder, 0);
  (void)fl_model_builder_dense(builder, "in", 4);
  (void)fl_model_builder_trainable(builder, 1);
  (void)fl_model_builder_dense(builder, "mid", 4);
  (void)fl_model_builder_layer_norm(builder, "n", 1e-5f);
  (void)fl_model_builder_trainable(builder, 0);
  (void)fl_model_builder_dense(builder, "head", OUTPUTS);
  (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

/* Whether the tensor is part of updates. */
static int is_trained(const fl_model *model, const char *name)
{
  uint32_t index = 0;
  cr_assert_eq(fl_model_find_tensor(model, name, &index), FL_OK, "%s", name);
  return (int)model->tensors[index].is_trainable;
}

Test(adapters, what_the_base_fixes_stays_fixed)
{
  fl_model *base = new_partly_fixed();
  fl_model *model = NULL;
  fl_lora_options lora;
  fl_adapter_options adapter;
  cr_assert_eq(fl_lora_options_init(&lora, sizeof lora), FL_OK);
  cr_assert_eq(fl_adapter_options_init(&adapter, sizeof adapter), FL_OK);
  lora.rank = 2;
  lora.layers = adapter.layers = "mid";
  cr_assert_eq(fl_model_with_lora(&model, base, &lora, 1), FL_OK);
  cr_expect(!is_trained(model, "head.weight"));
  cr_expect(is_trained(model, "mid.lora_a"));
  fl_model_free(model);
  lora.trained = "n"; /* in, n */
  cr_assert_eq(fl_model_with_lora(&model, base, &lora, 1), FL_OK);
  cr_expect(!is_trained(model, "in.weight"));
  cr_expect(is_trained(model, "n.weight"));
  fl_model_free(model);
  cr_assert_eq(fl_model_with_adapters(&model, base, &adapter, 1), FL_OK);
  cr_expect(!is_trained(model, "head.bias"));
  cr_expect(is_trained(model, "mid.up.weight"));
  fl_model_free(model);
  fl_model_free(base);
}

/* The same model from its description. */
static fl_model *described(const fl_model *model)
{
  fl_model *copy = NULL;
  cr_assert_eq(fl_model_from_description(&copy, NULL, model->description.data,
                                         model->description.size),
               FL_OK, "%s", fl_last_error());
  cr_assert_eq(copy->description.size, model->description.size);
  cr_assert_arr_eq(copy->description.data, model->description.data,
                   model->description.size);
  return copy;
}

Test(adapters, folded_lora_trains_and_fixes_what_its_base_does)
{
  static const char *const layers[3] = {"mid", "in", NULL};
  fl_model *base = new_partly_fixed();
  for (size_t i = 0; i < 3; i++) {
    fl_model *model = NULL;
    fl_model *merged = NULL;
    fl_lora_options o;
    cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
    o.layers = layers[i];
    cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_OK);
    fl_model *copy = described(model);
    cr_assert_eq(fl_model_merge_lora(&merged, copy), FL_OK);
    cr_expect_arr_eq(merged->schema, base->schema, FL_HASH_BYTES, "%zu", i);
    cr_expect_eq(merged->description.size, base->description.size);
    fl_model_free(merged);
    fl_model_free(copy);
    fl_model_free(model);
  }
  fl_model_free(base);
}

Test(adapters, without_lora_nothing_is_folded_and_nothing_freed)
{
  fl_model *base = new_partly_fixed();
  fl_model *models[2] = {base, NULL};
  fl_adapter_options o;
  cr_assert_eq(fl_adapter_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_model_with_adapters(&models[1], base, &o, 1), FL_OK);
  for (size_t i = 0; i < 2; i++) {
    fl_model *merged = NULL;
    cr_assert_eq(fl_model_merge_lora(&merged, models[i]), FL_OK);
    cr_expect_arr_eq(merged->schema, models[i]->schema, FL_HASH_BYTES);
    fl_model_free(merged);
    fl_model_free(models[i]);
  }
}

Test(adapters, options_that_cannot_be_are_refused)
{
  net *t = new_base();
  fl_model *base = t->model;
  fl_model *model = NULL;
  fl_lora_options lora;
  fl_adapter_options adapter;
  cr_assert_eq(fl_lora_options_init(&lora, sizeof lora), FL_OK);
  cr_assert_eq(fl_adapter_options_init(&adapter, sizeof adapter), FL_OK);
  fl_lora_options o = lora;
  o.layers = "no such layer";
  cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_E_NOT_FOUND);
  cr_assert_not_null(strstr(fl_last_error(), "no such layer"));
  o = lora;
  o.trained = "no such layer";
  cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_E_NOT_FOUND);
  o = lora;
  o.layers = "l12";
  cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_E_CONFLICT);
  o = lora;
  o.rank = 0;
  cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_E_ARGUMENT);
  o = lora;
  o.alpha = NAN;
  cr_assert_eq(fl_model_with_lora(&model, base, &o, 1), FL_E_ARGUMENT);
  fl_adapter_options a = adapter;
  a.width = 0;
  cr_assert_eq(fl_model_with_adapters(&model, base, &a, 1), FL_E_ARGUMENT);
  a = adapter;
  a.activation = 77;
  cr_assert_eq(fl_model_with_adapters(&model, base, &a, 1), FL_E_ARGUMENT);
  a = adapter;
  a.struct_size = 1;
  cr_assert_eq(fl_model_with_adapters(&model, base, &a, 1), FL_E_OPTIONS);
  cr_assert_eq(fl_model_with_lora(NULL, base, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_with_lora(&model, NULL, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_with_adapters(&model, NULL, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_merge_lora(&model, NULL), FL_E_ARGUMENT);
  cr_assert_null(model);
  net_free(t);
}
