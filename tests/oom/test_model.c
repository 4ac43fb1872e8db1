/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures in building, reading, testing and training a model. */
#include <fl/model.h>

#include "base/error.h"
#include "oom.h"

enum { INPUTS = 6, N = 20 };

static fl_status build(fl_context *context, fl_model **out)
{
  const uint64_t dims[2] = {2, 3};
  const uint64_t fixed = 4;
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, context));
  FLI_TRY(fl_model_builder_tensor(builder, "fixed", &fixed, 1, 0));
  FLI_TRY(fl_model_builder_input(builder, dims, 2, 1.0f, 0.0f));
  FLI_TRY(fl_model_builder_flatten(builder, "f"));
  FLI_TRY(fl_model_builder_dense(builder, "a", 5));
  FLI_TRY(fl_model_builder_relu(builder, "r"));
  FLI_TRY(fl_model_builder_dense(builder, "b", 3));
  FLI_TRY(fl_model_builder_softmax_cross_entropy(builder, "l"));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

static fl_status build_and_read(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_model *copy = NULL;
  uint8_t bytes[512];
  size_t n = 0;
  (void)arg;
  FLI_TRY(build(context, &model));
  FLI_TRY(fl_model_copy_description(model, bytes, sizeof bytes, &n));
  FLI_TRY(fl_model_from_description(&copy, context, bytes, n));
out:
  fl_model_free(copy);
  fl_model_free(model);
  return st;
}

/* A failed call leaves the model usable: its weights are as they were. */
static fl_status use(fl_context *context, void *arg)
{
  static float x[N * INPUTS];
  static int32_t y[N];
  fl_status st = FL_OK;
  fl_model *model = NULL;
  float *weights = NULL;
  float logits[N * 3];
  fl_dataset data;
  fl_fit_options options;
  fl_evaluation evaluation;
  (void)arg;
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  CHECK_OK(fl_fit_options_init(&options, sizeof options));
  CHECK_OK(fl_evaluation_init(&evaluation, sizeof evaluation));
  data.x = x;
  data.y = y;
  data.n = N;
  options.batch_size = 8;
  FLI_TRY(build(context, &model));
  FLI_TRY(fl_model_init_weights(model, 1));
  FLI_TRY(fl_model_get_weights(model, &weights, NULL));
  float first = weights[0];
  st = fl_model_self_test(model);
  CHECK(weights[0] == first);
  if (st != FL_OK) goto out;
  data.n = 4;
  FLI_TRY(fl_model_step(model, &data, 0.1f, NULL));
  data.n = N;
  FLI_TRY(fl_model_fit(model, &data, &options, NULL));
  FLI_TRY(fl_model_evaluate(model, &data, &evaluation));
  FLI_TRY(fl_model_predict(model, &data, logits, N * 3));
out:
  fl_model_free(model);
  return st;
}

static void building_and_reading(void)
{
  oom_loop(build_and_read, NULL);
}

static void testing_and_training(void)
{
  oom_loop(use, NULL);
}

int main(void)
{
  CHECK_CASE(building_and_reading);
  CHECK_CASE(testing_and_training);
  return check_report();
}
