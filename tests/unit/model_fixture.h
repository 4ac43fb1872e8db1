/* SPDX-License-Identifier: Apache-2.0 */
/* Small models for the tests of the model module. */
#ifndef MODEL_FIXTURE_H
#define MODEL_FIXTURE_H

#include <fl/model.h>

#include <criterion/criterion.h>
#include <stddef.h>

#include "base/rng.h"

/* input(inputs) - dense(hidden) - relu - dense(classes) - loss; zero
 * weights. */
static inline fl_model *fixture_mlp(fl_context *context, uint64_t inputs,
                                    uint64_t hidden, uint64_t classes)
{
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, context), FL_OK);
  (void)fl_model_builder_input(builder, &inputs, 1, 1.0f, 0.0f);
  (void)fl_model_builder_dense(builder, "a", hidden);
  (void)fl_model_builder_relu(builder, "r");
  (void)fl_model_builder_dense(builder, "b", classes);
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

/* Tensors without layers: "w" [2, 3], fixed "mean" [4], "b" [3]. */
static inline fl_model *fixture_tensors(fl_context *context)
{
  const uint64_t w[2] = {2, 3};
  const uint64_t mean = 4;
  const uint64_t b = 3;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, context), FL_OK);
  (void)fl_model_builder_tensor(builder, "w", w, 2, 1);
  (void)fl_model_builder_tensor(builder, "mean", &mean, 1, 0);
  (void)fl_model_builder_tensor(builder, "b", &b, 1, 1);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  return model;
}

static inline fl_dataset fixture_data(const float *x, const int32_t *y,
                                      uint64_t n)
{
  fl_dataset data;
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x_dtype = FL_DTYPE_F32;
  data.x = x;
  data.y = y;
  data.n = n;
  return data;
}

/* The network and samples that most training tests use. */
enum { SEED = 17, INPUTS = 7, HIDDEN = 5, CLASSES = 4, MAX_N = 40 };
enum { A = INPUTS * HIDDEN, WEIGHTS = A + HIDDEN + HIDDEN * CLASSES + CLASSES };

typedef struct sample_set {
  float x[MAX_N * INPUTS];
  int32_t y[MAX_N];
} sample_set;

static inline void fixture_samples(sample_set *set, uint64_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < MAX_N * INPUTS; i++) {
    set->x[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
  }
  for (size_t i = 0; i < MAX_N; i++) {
    set->y[i] = (int32_t)fli_rng_below(&rng, CLASSES);
  }
}

static inline fl_model *fixture_small_mlp(void)
{
  fl_model *model = fixture_mlp(NULL, INPUTS, HIDDEN, CLASSES);
  cr_assert_eq(fl_model_weight_count(model), WEIGHTS);
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  return model;
}

#endif
