/* SPDX-License-Identifier: Apache-2.0 */
/* Building models: order of layers, names, limits, modules, and the first
 * error that sticks. */
#include <fl/layers.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"

static fl_model_builder *new_builder(void)
{
  fl_model_builder *builder = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  return builder;
}

static void add_input(fl_model_builder *builder, uint64_t n)
{
  cr_assert_eq(fl_model_builder_input(builder, &n, 1, 1.0f, 0.0f), FL_OK);
}

static fl_model *build(fl_model_builder *builder)
{
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

/* The call failed with `want`, a text, and from now on so do all others. */
static void assert_sticks(fl_model_builder *builder, fl_status got,
                          fl_status want)
{
  char text[256];
  fl_model *model = NULL;
  (void)snprintf(text, sizeof text, "%s", fl_last_error());
  cr_assert_eq(got, want, "got %s: %s", fl_status_name(got), text);
  cr_assert(strlen(text) > 0);
  cr_assert_eq(fl_model_builder_relu(builder, "later"), want);
  cr_assert_str_eq(fl_last_error(), text);
  cr_assert_eq(fl_model_builder_build(builder, &model), want);
  cr_assert_str_eq(fl_last_error(), text);
  cr_assert_null(model);
  fl_model_builder_free(builder);
}

Test(model_builder, mlp_has_pytorchs_tensors_in_order)
{
  const uint64_t dims[3] = {1, 28, 28};
  static const char *const names[4] = {"a.weight", "a.bias", "b.weight",
                                       "b.bias"};
  static const uint64_t counts[4] = {128 * 784, 128, 1280, 10};
  static const uint64_t offsets[4] = {0, 128 * 784, 128 * 785,
                                      128 * 785 + 1280};
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_input(builder, dims, 3, 1 / 255.0f, 0), FL_OK);
  cr_assert_eq(fl_model_builder_flatten(builder, "flat"), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "a", 128), FL_OK);
  cr_assert_eq(fl_model_builder_relu(builder, "r"), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "b", 10), FL_OK);
  cr_assert_eq(fl_model_builder_softmax_cross_entropy(builder, "l"), FL_OK);
  fl_model *model = build(builder);
  cr_assert_eq(fl_model_tensor_count(model), 4);
  cr_assert_eq(fl_model_weight_count(model), 101770);
  cr_assert_eq(fl_model_input_count(model), 784);
  cr_assert_eq(fl_model_output_count(model), 10);
  for (uint32_t i = 0; i < 4; i++) {
    fl_tensor_info info;
    cr_assert_eq(fl_tensor_info_init(&info, sizeof info), FL_OK);
    cr_assert_eq(fl_model_get_tensor(model, i, &info), FL_OK);
    cr_assert_str_eq(info.name, names[i]);
    cr_assert_eq(info.dtype, FL_DTYPE_F32);
    cr_assert_eq(info.count, counts[i]);
    cr_assert_eq(info.offset, offsets[i]);
    cr_assert_eq(info.module, i / 2);
    cr_assert_eq(info.is_trainable, 1);
  }
  fl_model_free(model);
}

Test(model_builder, each_layer_starts_a_module_and_loose_tensors_join_it)
{
  const uint64_t dim = 3;
  static const uint32_t modules[6] = {0, 0, 0, 1, 1, 1};
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_dense(builder, "a", 4), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "x", &dim, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "b", 2), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "y", &dim, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_softmax_cross_entropy(builder, "l"), FL_OK);
  fl_model *model = build(builder);
  uint64_t sizes[2];
  for (uint32_t i = 0; i < 6; i++) {
    cr_assert_eq(model->tensors[i].module, modules[i]);
  }
  cr_assert_eq(fl_model_segment_count(model), 2);
  cr_assert_eq(fl_model_copy_segments(model, sizes, 2), FL_OK);
  cr_assert_eq(sizes[0], 8 + 4 + 3);
  cr_assert_eq(sizes[1], 8 + 2 + 3);
  cr_assert_eq(fl_model_copy_segments(model, sizes, 1), FL_E_DIM);
  fl_model_free(model);
}

Test(model_builder, chosen_module_holds_until_the_next_choice)
{
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_module(builder, 7), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "a", 4), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "b", 4), FL_OK);
  cr_assert_eq(fl_model_builder_module(builder, 3), FL_OK);
  cr_assert_eq(fl_model_builder_dense(builder, "c", 2), FL_OK);
  cr_assert_eq(fl_model_builder_softmax_cross_entropy(builder, "l"), FL_OK);
  fl_model *model = build(builder);
  uint64_t sizes[2];
  cr_assert_eq(fl_model_copy_segments(model, sizes, 2), FL_OK);
  cr_assert_eq(sizes[0], (8 + 4) + (16 + 4));
  cr_assert_eq(sizes[1], 8 + 2);
  uint32_t modules[2];
  cr_assert_eq(fl_model_copy_segment_modules(model, modules, 2), FL_OK);
  cr_assert_eq(modules[0], 7);
  cr_assert_eq(modules[1], 3);
  cr_assert_eq(fl_model_copy_segment_modules(model, modules, 1), FL_E_DIM);
  fl_model_free(model);
}

Test(model_builder, fixed_tensors_lie_behind_the_flat_weights)
{
  const uint64_t dims[2] = {2, 3};
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, "w", dims, 2, 1), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "mean", dims, 1, 0), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "scale", NULL, 0, 1), FL_OK);
  fl_model *model = build(builder);
  cr_assert_eq(fl_model_weight_count(model), 7);
  cr_assert_eq(fl_model_input_count(model), 0);
  cr_assert_eq(fl_model_output_count(model), 0);
  cr_assert_eq(model->tensors[1].offset, 0);
  cr_assert_eq(fli_tensor_values(model, &model->tensors[1]), model->values + 7);
  cr_assert_eq(model->tensors[2].offset, 6);
  cr_assert_eq(fl_model_segment_count(model), 1);
  fl_model_free(model);
}

Test(model_builder, new_model_is_zero)
{
  const uint64_t dim = 100;
  float values[100];
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, "w", &dim, 1, 1), FL_OK);
  fl_model *model = build(builder);
  cr_assert_eq(fl_model_copy_weights(model, values, 100), FL_OK);
  for (size_t i = 0; i < 100; i++) {
    cr_assert(values[i] == 0.0f);
  }
  fl_model_free(model);
}

Test(model_builder, name_must_be_new)
{
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, "w", NULL, 0, 1), FL_OK);
  assert_sticks(builder, fl_model_builder_tensor(builder, "w", NULL, 0, 1),
                FL_E_ARGUMENT);
}

Test(model_builder, layer_name_must_be_new)
{
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_relu(builder, "r"), FL_OK);
  assert_sticks(builder, fl_model_builder_relu(builder, "r"), FL_E_ARGUMENT);
}

Test(model_builder, name_is_1_to_127_printable_bytes)
{
  char name[FL_NAME_BYTES + 1];
  memset(name, 'n', sizeof name);
  name[FL_NAME_BYTES - 1] = 0;
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, name, NULL, 0, 1), FL_OK);
  name[FL_NAME_BYTES - 1] = 'n';
  name[FL_NAME_BYTES] = 0;
  assert_sticks(builder, fl_model_builder_tensor(builder, name, NULL, 0, 1),
                FL_E_ARGUMENT);
  static const char *const bad[] = {"", "tab\t", "\xc3\xa4", NULL};
  for (size_t i = 0; i < FLI_COUNT_OF(bad); i++) {
    builder = new_builder();
    assert_sticks(builder, fl_model_builder_tensor(builder, bad[i], NULL, 0, 1),
                  FL_E_ARGUMENT);
  }
}

Test(model_builder, layer_name_leaves_room_for_its_tensors)
{
  char name[FL_NAME_BYTES];
  memset(name, 'n', sizeof name);
  name[FL_NAME_BYTES - 1] = 0;
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  assert_sticks(builder, fl_model_builder_dense(builder, name, 2),
                FL_E_ARGUMENT);
}

Test(model_builder, dims_are_checked)
{
  const uint64_t zero = 0;
  const uint64_t large[2] = {UINT64_C(1) << 31, 2};
  const uint64_t huge = UINT64_MAX;
  const uint64_t many[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  fl_model_builder *b = new_builder();
  assert_sticks(b, fl_model_builder_tensor(b, "w", &zero, 1, 1), FL_E_ARGUMENT);
  b = new_builder();
  assert_sticks(b, fl_model_builder_tensor(b, "w", large, 2, 1),
                FL_E_TOO_LARGE);
  b = new_builder();
  assert_sticks(b, fl_model_builder_tensor(b, "w", &huge, 1, 1),
                FL_E_TOO_LARGE);
  b = new_builder();
  assert_sticks(b, fl_model_builder_tensor(b, "w", many, 9, 1), FL_E_ARGUMENT);
  b = new_builder();
  assert_sticks(b, fl_model_builder_tensor(b, "w", NULL, 1, 1), FL_E_ARGUMENT);
  b = new_builder();
  cr_assert_eq(fl_model_builder_tensor(b, "w", many, 8, 1), FL_OK);
  fl_model_builder_free(b);
}

Test(model_builder, weights_of_all_tensors_together_are_bounded)
{
  const uint64_t half = UINT64_C(1) << 30;
  const uint64_t one = 1;
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, "a", &half, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "b", &half, 1, 0), FL_OK);
  assert_sticks(builder, fl_model_builder_tensor(builder, "c", &one, 1, 1),
                FL_E_TOO_LARGE);
}

Test(model_builder, layers_need_an_input_first)
{
  fl_model_builder *builder = new_builder();
  assert_sticks(builder, fl_model_builder_dense(builder, "a", 2), FL_E_STATE);
}

/* Every call that adds a layer, by number; returns 0 when there are no more. */
static int add_layer(fl_model_builder *builder, int which, const char *name,
                     fl_status *st)
{
  switch (which) {
  case 0: *st = fl_model_builder_flatten(builder, name); break;
  case 1: *st = fl_model_builder_dense(builder, name, 3); break;
  case 2: *st = fl_model_builder_relu(builder, name); break;
  case 3: *st = fl_model_builder_add(builder, name, "input"); break;
  case 4: *st = fl_model_builder_conv2d(builder, name, NULL); break;
  case 5: *st = fl_model_builder_pool2d(builder, name, NULL); break;
  case 6: *st = fl_model_builder_mean(builder, name); break;
  case 7: *st = fl_model_builder_activation(builder, name, 1); break;
  case 8: *st = fl_model_builder_softmax(builder, name); break;
  case 9: *st = fl_model_builder_dropout(builder, name, 0.5f); break;
  case 10: *st = fl_model_builder_embedding(builder, name, 3, 2); break;
  case 11: *st = fl_model_builder_positions(builder, name); break;
  case 12: *st = fl_model_builder_layer_norm(builder, name, 1e-5f); break;
  case 13: *st = fl_model_builder_group_norm(builder, name, 1, 1e-5f); break;
  case 14: *st = fl_model_builder_attention(builder, name, 1, 0); break;
  case 15: *st = fl_model_builder_cross_entropy(builder, name, NULL); break;
  case 16: *st = fl_model_builder_mean_squared_error(builder, name); break;
  case 17: *st = fl_model_builder_binary_cross_entropy(builder, name); break;
  case 18: *st = fl_model_builder_softmax_cross_entropy(builder, name); break;
  default: return 0;
  }
  return 1;
}

Test(model_builder, every_layer_says_what_is_wrong_with_name_and_place)
{
  for (int which = 0;; which++) {
    static const char *const bad_names[3] = {NULL, "", "\n"};
    fl_status st = FL_OK;
    fl_model_builder *builder = new_builder();
    if (!add_layer(builder, which, "x", &st)) {
      fl_model_builder_free(builder);
      break;
    }
    assert_sticks(builder, st, FL_E_STATE); /* no input yet */
    for (size_t i = 0; i < 3; i++) {
      builder = new_builder();
      add_input(builder, 4);
      (void)add_layer(builder, which, bad_names[i], &st);
      assert_sticks(builder, st, FL_E_ARGUMENT);
    }
    builder = new_builder();
    add_input(builder, 4);
    (void)fl_model_builder_mean_squared_error(builder, "loss");
    (void)add_layer(builder, which, "x", &st);
    assert_sticks(builder, st, FL_E_STATE); /* behind the loss */
  }
}

Test(model_builder, second_input_is_refused)
{
  const uint64_t dim = 2;
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  assert_sticks(builder, fl_model_builder_input(builder, &dim, 1, 1, 0),
                FL_E_STATE);
}

Test(model_builder, nothing_follows_the_loss)
{
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_softmax_cross_entropy(builder, "l"), FL_OK);
  assert_sticks(builder, fl_model_builder_relu(builder, "r"), FL_E_STATE);
}

Test(model_builder, build_wants_a_loss_behind_layers)
{
  fl_model *model = NULL;
  fl_model_builder *builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_dense(builder, "a", 2), FL_OK);
  assert_sticks(builder, fl_model_builder_build(builder, &model), FL_E_STATE);
}

Test(model_builder, build_wants_a_tensor)
{
  fl_model *model = NULL;
  fl_model_builder *builder = new_builder();
  assert_sticks(builder, fl_model_builder_build(builder, &model), FL_E_STATE);
  builder = new_builder();
  add_input(builder, 2);
  cr_assert_eq(fl_model_builder_softmax_cross_entropy(builder, "l"), FL_OK);
  assert_sticks(builder, fl_model_builder_build(builder, &model), FL_E_STATE);
}

Test(model_builder, dense_wants_units_and_no_image)
{
  const uint64_t dims[3] = {1, 2, 2};
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_input(builder, dims, 3, 1, 0), FL_OK);
  assert_sticks(builder, fl_model_builder_dense(builder, "a", 2), FL_E_DIM);
  builder = new_builder();
  add_input(builder, 2);
  assert_sticks(builder, fl_model_builder_dense(builder, "a", 0),
                FL_E_ARGUMENT);
  builder = new_builder();
  add_input(builder, 2);
  assert_sticks(builder, fl_model_builder_dense(builder, "a", UINT64_MAX),
                FL_E_TOO_LARGE);
}

Test(model_builder, loss_wants_no_image)
{
  const uint64_t dims[3] = {1, 2, 2};
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_input(builder, dims, 3, 1, 0), FL_OK);
  assert_sticks(builder, fl_model_builder_softmax_cross_entropy(builder, "l"),
                FL_E_DIM);
}

Test(model_builder, input_scale_must_be_finite)
{
  const uint64_t dim = 2;
  fl_model_builder *builder = new_builder();
  assert_sticks(builder, fl_model_builder_input(builder, &dim, 1, 1 / 0.0f, 0),
                FL_E_NOT_FINITE);
}

Test(model_builder, builds_once)
{
  fl_model *model = NULL;
  fl_model *second = NULL;
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_tensor(builder, "w", NULL, 0, 1), FL_OK);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  cr_assert_str_eq(fl_last_error(), "");
  cr_assert_eq(fl_model_builder_build(builder, &second), FL_E_STATE);
  cr_assert_null(second);
  cr_assert_eq(fl_model_builder_tensor(builder, "v", NULL, 0, 1), FL_E_STATE);
  fl_model_builder_free(builder);
  fl_model_free(model);
}

Test(model_builder, too_many_tensors_are_refused)
{
  char name[16];
  fl_model_builder *builder = new_builder();
  for (int i = 0; i < FLI_MAX_TENSORS; i++) {
    (void)snprintf(name, sizeof name, "%d", i);
    cr_assert_eq(fl_model_builder_tensor(builder, name, NULL, 0, 1), FL_OK);
  }
  assert_sticks(builder, fl_model_builder_tensor(builder, "x", NULL, 0, 1),
                FL_E_TOO_LARGE);
}

Test(model_builder, description_beyond_the_limit_is_refused_at_build)
{
  char name[FL_NAME_BYTES];
  fl_model *model = NULL;
  fl_model_builder *builder = new_builder();
  for (int i = 0; i < 2100; i++) {
    (void)snprintf(name, sizeof name, "%0127d", i);
    cr_assert_eq(fl_model_builder_tensor(builder, name, NULL, 0, 1), FL_OK);
  }
  assert_sticks(builder, fl_model_builder_build(builder, &model),
                FL_E_TOO_LARGE);
}

Test(model_builder, null_arguments_are_refused)
{
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_builder_module(NULL, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_builder_tensor(NULL, "w", NULL, 0, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_builder_relu(NULL, "r"), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_builder_build(NULL, &model), FL_E_ARGUMENT);
  fl_model_builder *builder = new_builder();
  cr_assert_eq(fl_model_builder_build(builder, NULL), FL_E_ARGUMENT);
  fl_model_builder_free(builder);
  fl_model_builder_free(NULL);
  fl_model_free(NULL);
}
