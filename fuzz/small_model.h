/* SPDX-License-Identifier: Apache-2.0 */
/* The model whose checkpoints are fuzzed, and its data. */
#ifndef FUZZ_SMALL_MODEL_H
#define FUZZ_SMALL_MODEL_H

#include <fl/layers.h>
#include <fl/train.h>

#include "fuzz.h"

enum { SMALL_INPUTS = 3, SMALL_SAMPLES = 5 };

/* Two modules, dropout; `optimiser`: FL_OPTIMISER_*. */
static inline fl_model *small_model(uint32_t optimiser, uint32_t accumulate)
{
  const uint64_t inputs = SMALL_INPUTS;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  fl_optimiser_options o;
  FUZZ_CHECK(fl_model_builder_new(&builder, NULL) == FL_OK);
  (void)fl_model_builder_input(builder, &inputs, 1, 1.0f, 0.0f);
  (void)fl_model_builder_dense(builder, "a", 2);
  (void)fl_model_builder_activation(builder, "t", FL_ACTIVATION_TANH);
  (void)fl_model_builder_dropout(builder, "d", 0.25f);
  (void)fl_model_builder_dense(builder, "b", 2);
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  FUZZ_CHECK(fl_model_builder_build(builder, &model) == FL_OK);
  fl_model_builder_free(builder);
  FUZZ_CHECK(fl_model_init_weights(model, 3) == FL_OK);
  FUZZ_CHECK(fl_optimiser_options_init(&o, sizeof o) == FL_OK);
  o.kind = optimiser;
  o.momentum = 0.5f;
  o.accumulate = accumulate;
  FUZZ_CHECK(fl_model_set_optimiser(model, &o) == FL_OK);
  return model;
}

static inline fl_dataset small_data(void)
{
  static const float x[SMALL_SAMPLES * SMALL_INPUTS] = {
      0.5f, -1.0f, 2.0f,  0.25f, 0.0f, 1.0f, -0.5f, 0.75f,
      1.5f, 0.1f,  -0.2f, 0.3f,  1.0f, 1.0f, 1.0f};
  static const int32_t y[SMALL_SAMPLES] = {0, 1, 1, 0, 1};
  fl_dataset data;
  FUZZ_CHECK(fl_dataset_init(&data, sizeof data) == FL_OK);
  data.x = x;
  data.y = y;
  data.n = SMALL_SAMPLES;
  return data;
}

#endif
