/* SPDX-License-Identifier: Apache-2.0 */
/* A model as a set of named tensors: look up, copy, set, schema, initial
 * weights, self-test. */
#include <fl/layers.h>

#include <math.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"

Test(model_tensors, finds_a_tensor_by_name)
{
  fl_model *model = fixture_tensors(NULL);
  uint32_t index = 99;
  cr_assert_eq(fl_model_find_tensor(model, "mean", &index), FL_OK);
  cr_assert_eq(index, 1);
  cr_assert_eq(fl_model_find_tensor(model, "none", &index), FL_E_NOT_FOUND);
  cr_assert_eq(index, 1);
  fl_model_free(model);
}

Test(model_tensors, describes_shape_and_place)
{
  fl_model *model = fixture_tensors(NULL);
  fl_tensor_info info;
  cr_assert_eq(fl_tensor_info_init(&info, sizeof info), FL_OK);
  cr_assert_eq(fl_model_get_tensor(model, 0, &info), FL_OK);
  cr_assert_eq(info.n_dims, 2);
  cr_assert_eq(info.dims[0], 2);
  cr_assert_eq(info.dims[1], 3);
  cr_assert_eq(info.count, 6);
  cr_assert_eq(fl_model_get_tensor(model, 2, &info), FL_OK);
  cr_assert_eq(info.offset, 6);
  cr_assert_eq(fl_model_get_tensor(model, 3, &info), FL_E_NOT_FOUND);
  cr_assert_str_eq(info.name, "b");
  fl_model_free(model);
}

Test(model_tensors, info_of_an_older_host_is_cut_short)
{
  fl_model *model = fixture_tensors(NULL);
  fl_tensor_info info;
  memset(&info, 0x5a, sizeof info);
  uint64_t old_offset = info.offset;
  cr_assert_eq(fl_tensor_info_init(&info, offsetof(fl_tensor_info, offset)),
               FL_OK);
  cr_assert_eq(fl_model_get_tensor(model, 2, &info), FL_OK);
  cr_assert_eq(info.count, 3);
  cr_assert_eq(info.offset, old_offset);
  fl_model_free(model);
}

Test(model_tensors, what_is_set_by_name_is_got_by_name)
{
  fl_model *model = fixture_tensors(NULL);
  const float set[4] = {1.0f, -2.0f, 3.5f, -0.0f};
  float got[4] = {0};
  cr_assert_eq(fl_model_set_tensor(model, 1, set, 4), FL_OK);
  cr_assert_eq(fl_model_copy_tensor(model, 1, got, 4), FL_OK);
  cr_assert_arr_eq(got, set, sizeof set);
  fl_model_free(model);
}

Test(model_tensors, wrong_count_is_refused_and_nothing_changes)
{
  fl_model *model = fixture_tensors(NULL);
  const float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  float got[9] = {0};
  cr_assert_eq(fl_model_set_tensor(model, 2, values, 2), FL_E_DIM);
  cr_assert_eq(fl_model_set_tensor(model, 2, values, 4), FL_E_DIM);
  cr_assert_eq(fl_model_set_tensor(model, 3, values, 3), FL_E_NOT_FOUND);
  cr_assert_eq(fl_model_set_weights(model, NULL, values, 8), FL_E_DIM);
  cr_assert_eq(fl_model_copy_tensor(model, 2, got, 2), FL_E_DIM);
  cr_assert_eq(fl_model_copy_weights(model, got, 8), FL_E_DIM);
  cr_assert_eq(fl_model_copy_weights(model, got, 9), FL_OK);
  for (size_t i = 0; i < 9; i++) {
    cr_assert(got[i] == 0.0f);
  }
  fl_model_free(model);
}

Test(model_tensors, not_finite_values_are_refused_and_nothing_changes)
{
  static const float bad[3] = {NAN, INFINITY, -INFINITY};
  fl_model *model = fixture_tensors(NULL);
  float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  float got[9];
  cr_assert_eq(fl_model_set_weights(model, NULL, values, 9), FL_OK);
  for (size_t i = 0; i < 9; i++) {
    float set[9] = {9, 9, 9, 9, 9, 9, 9, 9, 9};
    set[i] = bad[i % 3];
    cr_assert_eq(fl_model_set_weights(model, NULL, set, 9), FL_E_NOT_FINITE);
    cr_assert_eq(fl_model_set_tensor(model, 0, set + (i < 6 ? 0 : 3), 6),
                 FL_E_NOT_FINITE);
    cr_assert_eq(fl_model_copy_weights(model, got, 9), FL_OK);
    cr_assert_arr_eq(got, values, sizeof values);
  }
  fl_model_free(model);
}

Test(model_tensors, weights_of_another_schema_are_refused)
{
  fl_model *model = fixture_tensors(NULL);
  const float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  uint8_t schema[FL_HASH_BYTES];
  cr_assert_eq(fl_model_copy_schema(model, schema), FL_OK);
  cr_assert_eq(fl_model_set_weights(model, schema, values, 9), FL_OK);
  schema[31] ^= 1;
  cr_assert_eq(fl_model_set_weights(model, schema, values, 9), FL_E_SCHEMA);
  fl_model_free(model);
}

/* Schema of one loose tensor. */
static void schema_of(const char *name, uint64_t dim0, uint64_t dim1,
                      uint32_t module, int32_t trainable,
                      uint8_t schema[FL_HASH_BYTES])
{
  const uint64_t dims[2] = {dim0, dim1};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_module(builder, module);
  (void)fl_model_builder_tensor(builder, name, dims, 2, trainable);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  cr_assert_eq(fl_model_copy_schema(model, schema), FL_OK);
  fl_model_builder_free(builder);
  fl_model_free(model);
}

Test(model_tensors, schema_tells_names_shapes_modules_and_flags_apart)
{
  uint8_t hashes[6][FL_HASH_BYTES];
  uint8_t same[FL_HASH_BYTES];
  schema_of("w", 2, 3, 0, 1, hashes[0]);
  schema_of("v", 2, 3, 0, 1, hashes[1]);
  schema_of("w", 3, 2, 0, 1, hashes[2]);
  schema_of("w", 6, 1, 0, 1, hashes[3]);
  schema_of("w", 2, 3, 1, 1, hashes[4]);
  schema_of("w", 2, 3, 0, 0, hashes[5]);
  schema_of("w", 2, 3, 0, 1, same);
  cr_assert_arr_eq(hashes[0], same, sizeof same);
  for (size_t i = 0; i < 6; i++) {
    for (size_t j = 0; j < i; j++) {
      cr_assert(memcmp(hashes[i], hashes[j], sizeof same) != 0, "%zu %zu", i,
                j);
    }
  }
}

Test(model_tensors, borrowed_weights_are_the_models_own)
{
  fl_model *model = fixture_tensors(NULL);
  float *weights = NULL;
  float got[3];
  uint64_t count = 0;
  cr_assert_eq(fl_model_get_weights(model, &weights, &count), FL_OK);
  cr_assert_eq(count, 9);
  weights[7] = 42.0f;
  cr_assert_eq(fl_model_copy_tensor(model, 2, got, 3), FL_OK);
  cr_assert(got[1] == 42.0f);
  fl_model_free(model);
}

Test(model_tensors, initial_weights_fill_their_range_and_depend_on_the_seed)
{
  fl_model *one = fixture_mlp(NULL, 64, 50, 10);
  fl_model *two = fixture_mlp(NULL, 64, 50, 10);
  size_t n = (size_t)fl_model_weight_count(one);
  float *a = NULL;
  float *b = NULL;
  cr_assert_eq(fl_model_get_weights(one, &a, NULL), FL_OK);
  cr_assert_eq(fl_model_get_weights(two, &b, NULL), FL_OK);
  cr_assert_eq(fl_model_init_weights(one, 5), FL_OK);
  cr_assert_eq(fl_model_init_weights(two, 5), FL_OK);
  cr_assert_arr_eq(a, b, n * sizeof *a);
  cr_assert_eq(fl_model_init_weights(two, 6), FL_OK);
  cr_assert(memcmp(a, b, n * sizeof *a) != 0);
  float top = 0.0f;
  double sum = 0.0;
  for (size_t i = 0; i < 64 * 50; i++) {
    top = fmaxf(top, fabsf(a[i]));
    sum += (double)a[i];
  }
  cr_assert(top <= 0.125f && top > 0.124f, "top %g", (double)top);
  cr_assert(fabs(sum / 3200.0) < 0.005, "mean %g", sum / 3200.0);
  fl_model_free(one);
  fl_model_free(two);
}

Test(model_tensors, initial_weights_leave_loose_tensors_alone)
{
  fl_model *model = fixture_tensors(NULL);
  const float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  float got[9];
  cr_assert_eq(fl_model_set_weights(model, NULL, values, 9), FL_OK);
  cr_assert_eq(fl_model_init_weights(model, 5), FL_OK);
  cr_assert_eq(fl_model_copy_weights(model, got, 9), FL_OK);
  cr_assert_arr_eq(got, values, sizeof values);
  fl_model_free(model);
}

/* Layers with tensors that begin as 0 and as 1, drawn ones, and fixed ones. */
static fl_model *new_mixture(void)
{
  const uint64_t dims[2] = {3, 4};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_input(builder, dims, 2, 1.0f, 0.0f);
  (void)fl_model_builder_layer_norm(builder, "n", 1e-5f);
  (void)fl_model_builder_trainable(builder, 0);
  (void)fl_model_builder_dense(builder, "f", 4);
  (void)fl_model_builder_layer_norm(builder, "m", 1e-5f);
  (void)fl_model_builder_trainable(builder, 1);
  (void)fl_model_builder_dense(builder, "d", 2);
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

static void check_initial_values_return(fl_model *model)
{
  size_t n = (size_t)(model->n_weights + model->n_fixed);
  float first[256];
  cr_assert_leq(n, 256);
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  memcpy(first, model->values, n * sizeof *first);
  for (size_t i = 0; i < n; i++) {
    model->values[i] = 7.0f;
  }
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  for (size_t i = 0; i < n; i++) {
    cr_assert_eq(model->values[i], first[i], "value %zu: %g, was %g", i,
                 (double)model->values[i], (double)first[i]);
  }
}

Test(model_tensors, initial_weights_do_not_depend_on_those_before)
{
  fl_model *model = new_mixture();
  fl_model *with_lora = NULL;
  fl_lora_options o;
  cr_assert_eq(fl_lora_options_init(&o, sizeof o), FL_OK);
  o.rank = 2;
  o.layers = "f";
  cr_assert_eq(fl_model_with_lora(&with_lora, model, &o, 1), FL_OK, "%s",
               fl_last_error());
  check_initial_values_return(model);
  check_initial_values_return(with_lora);
  fl_model_free(with_lora);
  fl_model_free(model);
}

Test(model_tensors, self_test_passes_and_restores_the_values)
{
  fl_model *models[2] = {fixture_tensors(NULL), fixture_mlp(NULL, 5, 4, 3)};
  for (size_t i = 0; i < 2; i++) {
    float before[64];
    float after[64];
    uint64_t n = fl_model_weight_count(models[i]);
    float *weights = NULL;
    cr_assert_leq(n, 64);
    cr_assert_eq(fl_model_get_weights(models[i], &weights, NULL), FL_OK);
    for (uint64_t j = 0; j < n; j++) {
      weights[j] = (float)j - 3.25f;
    }
    cr_assert_eq(fl_model_copy_weights(models[i], before, n), FL_OK);
    cr_assert_eq(fl_model_self_test(models[i]), FL_OK, "%s", fl_last_error());
    cr_assert_eq(fl_model_copy_weights(models[i], after, n), FL_OK);
    cr_assert_arr_eq(after, before, n * sizeof *after);
    fl_model_free(models[i]);
  }
}

Test(model_tensors, self_test_names_the_tensor_whose_place_is_wrong)
{
  fl_model *model = fixture_tensors(NULL);
  const float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  float got[9];
  cr_assert_eq(fl_model_set_weights(model, NULL, values, 9), FL_OK);
  model->tensors[2].offset = 5;
  cr_assert_eq(fl_model_self_test(model), FL_E_INTERNAL);
  cr_assert_not_null(strstr(fl_last_error(), "tensor b"));
  model->tensors[2].offset = UINT64_MAX;
  cr_assert_eq(fl_model_self_test(model), FL_E_INTERNAL);
  cr_assert_eq(fl_model_copy_weights(model, got, 9), FL_OK);
  cr_assert_arr_eq(got, values, sizeof values);
  fl_model_free(model);
}

Test(model_tensors, self_test_notices_a_tensor_that_changed_its_part)
{
  fl_model *model = fixture_tensors(NULL);
  model->tensors[1].is_trainable = 1;
  cr_assert_eq(fl_model_self_test(model), FL_E_INTERNAL);
  fl_model_free(model);
}

Test(model_tensors, null_arguments_are_refused)
{
  fl_model *model = fixture_tensors(NULL);
  float values[9] = {0};
  uint32_t index = 0;
  cr_assert_eq(fl_model_get_tensor(NULL, 0, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_get_tensor(model, 0, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_find_tensor(model, NULL, &index), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_find_tensor(model, "w", NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_tensor(model, 0, NULL, 6), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_set_tensor(NULL, 0, values, 6), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_set_weights(model, NULL, NULL, 9), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_weights(NULL, values, 9), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_get_weights(model, NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_init_weights(NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_schema(model, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_segments(model, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_segment_modules(model, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_segment_modules(NULL, &index, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_self_test(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_weight_count(NULL), 0);
  cr_assert_eq(fl_model_tensor_count(NULL), 0);
  cr_assert_eq(fl_model_segment_count(NULL), 0);
  cr_assert_eq(fl_model_input_count(NULL), 0);
  cr_assert_eq(fl_model_output_count(NULL), 0);
  fl_model_free(model);
}
