/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures while weight files are written and read. */
#include "base/error.h"
#include "oom.h"
#include "weight_file.h"

enum { N = 5 };

static weight_file file;

static fl_status build(fl_context *context, fl_model **out)
{
  const uint64_t dims[2] = {1, N};
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, context));
  FLI_TRY(fl_model_builder_tensor(builder, "w", dims, 2, 1));
  FLI_TRY(fl_model_builder_tensor(builder, "fixed", dims, 1, 0));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

static fl_status save(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_model *model = NULL;
  (void)arg;
  FLI_TRY(build(context, &model));
  st = weight_file_save(&file, model);
  if (st != FL_OK) CHECK_EQ_U64(file.n, 0);
out:
  fl_model_free(model);
  return st;
}

/* A load that fails leaves the weights as they were. */
static fl_status load(fl_context *context, void *arg)
{
  static const float ones[N] = {1, 1, 1, 1, 1};
  fl_status st = FL_OK;
  fl_model *model = NULL;
  float *weights = NULL;
  (void)arg;
  FLI_TRY(build(context, &model));
  FLI_TRY(fl_model_get_weights(model, &weights, NULL));
  FLI_TRY(fl_model_set_weights(model, NULL, ones, N));
  st = weight_file_load(&file, model, 0, NULL);
  CHECK(weights[0] == (st == FL_OK ? 0.0f : 1.0f));
out:
  fl_model_free(model);
  return st;
}

static void saving_and_loading(void)
{
  weight_file_clear(&file);
  oom_loop(save, NULL);
  oom_loop(load, NULL);
}

int main(void)
{
  CHECK_CASE(saving_and_loading);
  return check_report();
}
