/* SPDX-License-Identifier: Apache-2.0 */
/* Describing the layers of a model. */
#include <fl/layers.h>
#include <fl/train.h>

#include <criterion/criterion.h>
#include <stdio.h>

#include "model_fixture.h"

/* input - conv - max pool - gelu - conv "d" - add the gelu - mean pool -
 * flatten - dense - loss, behind a loose tensor. */
static fl_model *graph(void)
{
  const uint64_t dims[3] = {2, 8, 8};
  const uint64_t one = 1;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  fl_conv2d_options conv;
  fl_pool2d_options pool;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  cr_assert_eq(fl_conv2d_options_init(&conv, sizeof conv), FL_OK);
  cr_assert_eq(fl_pool2d_options_init(&pool, sizeof pool), FL_OK);
  conv.filters = 3;
  conv.padding = 1;
  (void)fl_model_builder_tensor(builder, "loose", &one, 1, 1);
  (void)fl_model_builder_input(builder, dims, 3, 1.0f, 0.0f);
  (void)fl_model_builder_conv2d(builder, "c", &conv);
  (void)fl_model_builder_pool2d(builder, "p", &pool);
  (void)fl_model_builder_activation(builder, "g", FL_ACTIVATION_GELU);
  (void)fl_model_builder_conv2d(builder, "d", &conv);
  (void)fl_model_builder_add(builder, "s", "g");
  pool.kind = FL_POOL_AVERAGE;
  (void)fl_model_builder_pool2d(builder, "q", &pool);
  (void)fl_model_builder_flatten(builder, "f");
  (void)fl_model_builder_trainable(builder, 0);
  (void)fl_model_builder_dense(builder, "e", 5);
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

static fl_layer_info describe(const fl_model *model, uint32_t index)
{
  fl_layer_info info;
  cr_assert_eq(fl_layer_info_init(&info, sizeof info), FL_OK);
  cr_assert_eq(fl_model_get_layer(model, index, &info), FL_OK, "%s",
               fl_last_error());
  return info;
}

Test(layer_info, kinds_and_names_are_in_order)
{
  static const char *const want[10][2] = {
      {"input", "input"},      {"c", "conv2d"},
      {"p", "max_pool2d"},     {"g", "gelu"},
      {"d", "conv2d"},         {"s", "add"},
      {"q", "average_pool2d"}, {"f", "flatten"},
      {"e", "dense"},          {"l", "softmax_cross_entropy"}};
  fl_model *model = graph();
  cr_assert_eq(fl_model_layer_count(model), 10);
  for (uint32_t i = 0; i < 10; i++) {
    fl_layer_info info = describe(model, i);
    cr_assert_str_eq(info.name, want[i][0]);
    cr_assert_str_eq(info.kind, want[i][1]);
  }
  fl_model_free(model);
}

Test(layer_info, shapes_are_those_of_one_sample)
{
  fl_model *model = graph();
  fl_layer_info pool = describe(model, 2);
  cr_assert_eq(pool.n_dims, 3);
  cr_assert_eq(pool.dims[0], 3);
  cr_assert_eq(pool.dims[1], 4);
  cr_assert_eq(pool.dims[2], 4);
  cr_assert_eq(pool.n_parameters, 0);
  cr_assert_eq(pool.n_tensors, 0);
  fl_layer_info flat = describe(model, 7);
  cr_assert_eq(flat.n_dims, 1);
  cr_assert_eq(flat.dims[0], 12);
  fl_layer_info loss = describe(model, 9);
  cr_assert_eq(loss.dims[0], fl_model_output_count(model));
  fl_model_free(model);
}

/* A convolution pools what it has computed by itself: no matter to readers. */
Test(layer_info, shapes_are_those_declared_whatever_is_computed_together)
{
  fl_model *model = graph();
  fl_layer_info conv = describe(model, 1);
  cr_assert_eq(conv.dims[0], 3);
  cr_assert_eq(conv.dims[1], 8);
  cr_assert_eq(conv.dims[2], 8);
  fl_model_free(model);
}

Test(layer_info, inputs_are_numbers_of_layers_not_of_tensors)
{
  fl_model *model = graph();
  cr_assert_eq(describe(model, 0).n_inputs, 0);
  fl_layer_info conv = describe(model, 4);
  cr_assert_eq(conv.n_inputs, 1);
  cr_assert_eq(conv.inputs[0], 3);
  fl_layer_info sum = describe(model, 5);
  cr_assert_eq(sum.n_inputs, 2);
  cr_assert_eq(sum.inputs[0], 4);
  cr_assert_eq(sum.inputs[1], 3);
  fl_model_free(model);
}

Test(layer_info, tensors_are_found_by_their_index)
{
  fl_model *model = graph();
  fl_layer_info conv = describe(model, 4);
  uint32_t index = 0;
  cr_assert_eq(fl_model_find_tensor(model, "d.weight", &index), FL_OK);
  cr_assert_eq(conv.first_tensor, index);
  cr_assert_eq(conv.n_tensors, 2);
  cr_assert_eq(conv.n_parameters, 3 * 3 * 9 + 3);
  cr_assert_eq(conv.module, 1);
  fl_model_free(model);
}

Test(layer_info, what_a_step_changes_is_trained)
{
  fl_model *model = graph();
  cr_assert_eq(describe(model, 1).is_trained, 1);
  cr_assert_eq(describe(model, 2).is_trained, 0);
  cr_assert_eq(describe(model, 4).is_trained, 1);
  cr_assert_eq(describe(model, 8).is_trained, 0);
  cr_assert_eq(fl_model_set_first_active(model, 1), FL_OK);
  cr_assert_eq(describe(model, 1).is_trained, 0);
  cr_assert_eq(describe(model, 4).is_trained, 1);
  fl_model_free(model);
}

Test(layer_info, every_activation_has_its_name)
{
  static const char *const names[5] = {"relu", "gelu", "silu", "tanh",
                                       "sigmoid"};
  for (uint32_t kind = 0; kind < 5; kind++) {
    const uint64_t n = 4;
    fl_model_builder *builder = NULL;
    fl_model *model = NULL;
    cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
    (void)fl_model_builder_input(builder, &n, 1, 1.0f, 0.0f);
    (void)fl_model_builder_dense(builder, "d", n);
    (void)fl_model_builder_activation(builder, "a", kind);
    (void)fl_model_builder_softmax_cross_entropy(builder, "l");
    cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
    fl_model_builder_free(builder);
    cr_assert_str_eq(describe(model, 2).kind, names[kind]);
    fl_model_free(model);
  }
}

Test(layer_info, models_of_tensors_have_no_layer)
{
  fl_model *model = fixture_tensors(NULL);
  fl_layer_info info;
  cr_assert_eq(fl_model_layer_count(model), 0);
  cr_assert_eq(fl_layer_info_init(&info, sizeof info), FL_OK);
  cr_assert_eq(fl_model_get_layer(model, 0, &info), FL_E_NOT_FOUND);
  fl_model_free(model);
}

Test(layer_info, wrong_arguments_are_refused)
{
  fl_model *model = graph();
  fl_layer_info info;
  cr_assert_eq(fl_layer_info_init(&info, sizeof info), FL_OK);
  cr_assert_eq(fl_model_layer_count(NULL), 0);
  cr_assert_eq(fl_model_get_layer(NULL, 0, &info), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_get_layer(model, 0, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_get_layer(model, 10, &info), FL_E_NOT_FOUND);
  info.struct_size = 3;
  cr_assert_eq(fl_model_get_layer(model, 0, &info), FL_E_OPTIONS);
  fl_model_free(model);
}
