/* SPDX-License-Identifier: Apache-2.0 */
/* The model as a set of named tensors: look up, copy out, set. Whatever comes
 * in is checked to be finite, as a whole, before the first value is stored. */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/rng.h"
#include "kernels/kernels.h"

float *fli_tensor_values(const fl_model *model, const fli_tensor *tensor)
{
  uint64_t part = tensor->is_trainable ? 0 : model->n_weights;
  return model->values + part + tensor->offset;
}

fl_status fli_values_check(const float *values, uint64_t n, const char *before,
                           const char *name)
{
  if (!values) return FL_OK;
  size_t i = flk_kernels()->find_not_finite(values, (size_t)n);
  if (i == n) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "%s%s: value %zu is not finite", before,
                   name, i);
}

static fl_status check_model(const fl_model *model, const void *values)
{
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  if (!values) return fli_error(FL_E_ARGUMENT, "model: a pointer is NULL");
  return FL_OK;
}

/* The tensor and whether `count` is its number of elements. */
static fl_status check_tensor(const fl_model *model, uint32_t index,
                              const void *values, uint64_t count)
{
  fl_status st = check_model(model, values);
  if (st != FL_OK) return st;
  if (index >= model->n_tensors) {
    return fli_error(FL_E_NOT_FOUND, "tensor: got index %u, want < %u", index,
                     model->n_tensors);
  }
  if (count != model->tensors[index].shape.count) {
    return fli_error(
        FL_E_DIM, "tensor %s: got %" PRIu64 " values, want %" PRIu64,
        model->tensors[index].name, count, model->tensors[index].shape.count);
  }
  return FL_OK;
}

static fl_status check_weights(const fl_model *model, const void *weights,
                               uint64_t count)
{
  fl_status st = check_model(model, weights);
  if (st != FL_OK) return st;
  if (count != model->n_weights) {
    return fli_error(FL_E_DIM, "weights: got %" PRIu64 " values, want %" PRIu64,
                     count, model->n_weights);
  }
  return FL_OK;
}

fl_status fl_tensor_info_init(fl_tensor_info *info, size_t size)
{
  static const fl_tensor_info defaults = {.dtype = FL_DTYPE_F32};
  fli_clear_error();
  return fli_options_init(info, size, &defaults, sizeof defaults);
}

uint32_t fl_model_tensor_count(const fl_model *model)
{
  return model ? model->n_tensors : 0;
}

fl_status fl_model_get_tensor(const fl_model *model, uint32_t index,
                              fl_tensor_info *info)
{
  fli_clear_error();
  fl_status st = check_model(model, info);
  if (st != FL_OK) return st;
  if (index >= model->n_tensors) {
    return fli_error(FL_E_NOT_FOUND, "tensor: got index %u, want < %u", index,
                     model->n_tensors);
  }
  const fli_tensor *tensor = &model->tensors[index];
  fl_tensor_info full = {
      .dtype = FL_DTYPE_F32,
      .name = tensor->name,
      .module = tensor->module,
      .is_trainable = tensor->is_trainable,
      .n_dims = tensor->shape.n_dims,
      .count = tensor->shape.count,
      .offset = tensor->offset,
  };
  memcpy(full.dims, tensor->shape.dims, sizeof full.dims);
  return fli_options_store(info, &full, sizeof full, "fl_tensor_info");
}

fl_status fl_model_find_tensor(const fl_model *model, const char *name,
                               uint32_t *index)
{
  fli_clear_error();
  fl_status st = check_model(model, index);
  if (st != FL_OK) return st;
  if (!name) return fli_error(FL_E_ARGUMENT, "find_tensor: name is NULL");
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    if (strcmp(model->tensors[i].name, name) == 0) {
      *index = i;
      return FL_OK;
    }
  }
  return fli_error(FL_E_NOT_FOUND, "tensor: there is no \"%s\"", name);
}

fl_status fl_model_copy_tensor(const fl_model *model, uint32_t index,
                               float *values, uint64_t count)
{
  fli_clear_error();
  fl_status st = check_tensor(model, index, values, count);
  if (st != FL_OK) return st;
  memcpy(values, fli_tensor_values(model, &model->tensors[index]),
         (size_t)count * sizeof *values);
  return FL_OK;
}

fl_status fl_model_set_tensor(fl_model *model, uint32_t index,
                              const float *values, uint64_t count)
{
  fl_status st = FL_OK;
  fli_clear_error();
  FLI_TRY(check_tensor(model, index, values, count));
  FLI_TRY(fli_values_check(values, count, "", model->tensors[index].name));
  memmove(fli_tensor_values(model, &model->tensors[index]), values,
          (size_t)count * sizeof *values);
  model->n_writes++;
out:
  return st;
}

uint64_t fl_model_weight_count(const fl_model *model)
{
  return model ? model->n_weights : 0;
}

fl_status fl_model_get_weights(fl_model *model, float **weights,
                               uint64_t *count)
{
  fli_clear_error();
  fl_status st = check_model(model, weights);
  if (st != FL_OK) return st;
  *weights = model->values;
  model->is_lent = 1;
  if (count) *count = model->n_weights;
  return FL_OK;
}

fl_status fl_model_copy_weights(const fl_model *model, float *weights,
                                uint64_t count)
{
  fli_clear_error();
  fl_status st = check_weights(model, weights, count);
  if (st != FL_OK) return st;
  memcpy(weights, model->values, (size_t)count * sizeof *weights);
  return FL_OK;
}

fl_status fl_model_set_weights(fl_model *model, const uint8_t *schema,
                               const float *weights, uint64_t count)
{
  fl_status st = FL_OK;
  fli_clear_error();
  FLI_TRY(check_model(model, weights));
  if (schema && memcmp(schema, model->schema, FL_HASH_BYTES) != 0) {
    return fli_error(FL_E_SCHEMA,
                     "weights: they are of a model with another schema");
  }
  FLI_TRY(check_weights(model, weights, count));
  FLI_TRY(fli_values_check(weights, count, "", "weights"));
  memmove(model->values, weights, (size_t)count * sizeof *weights);
  model->n_writes++;
out:
  return st;
}

/* Initial values of tensor `index`. */
static void set_initial(const fl_model *model, uint32_t index, uint64_t seed)
{
  const fli_tensor *tensor = &model->tensors[index];
  float *values = fli_tensor_values(model, tensor);
  float bound = tensor->bound;
  fli_rng rng;
  if (tensor->fan_in > 0) {
    bound = (float)(1.0 / sqrt((double)tensor->fan_in));
  }
  fli_rng_init(&rng, seed, FLI_RNG_INIT_WEIGHTS, index, 0);
  for (uint64_t j = 0; j < tensor->shape.count; j++) {
    values[j] = bound == 0.0f ? tensor->initial
                              : bound * (2.0f * fli_rng_f32(&rng) - 1.0f);
  }
}

fl_status fl_model_init_weights(fl_model *model, uint64_t seed)
{
  fli_clear_error();
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  fli_fpguard guard;
  model->n_writes++;
  fli_fpguard_enter(&guard);
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    const fli_node *node = &model->nodes[i];
    if (!node->op->shape) continue; /* a loose tensor, the host's own */
    for (uint32_t p = 0; p < node->n_parameters; p++) {
      set_initial(model, node->first_tensor + p, seed);
    }
  }
  fli_fpguard_leave(&guard);
  return FL_OK;
}

fl_status fl_model_copy_schema(const fl_model *model,
                               uint8_t hash[FL_HASH_BYTES])
{
  fli_clear_error();
  fl_status st = check_model(model, hash);
  if (st != FL_OK) return st;
  memcpy(hash, model->schema, FL_HASH_BYTES);
  return FL_OK;
}

uint32_t fl_model_segment_count(const fl_model *model)
{
  return model ? model->n_segments : 0;
}

static fl_status check_segments(const fl_model *model, const void *values,
                                uint32_t count)
{
  fl_status st = check_model(model, values);
  if (st != FL_OK || count == model->n_segments) return st;
  return fli_error(FL_E_DIM, "segments: got room for %u, want %u", count,
                   model->n_segments);
}

fl_status fl_model_copy_segments(const fl_model *model, uint64_t *sizes,
                                 uint32_t count)
{
  fli_clear_error();
  const fl_status st = check_segments(model, sizes, count);
  for (uint32_t i = 0; st == FL_OK && i < count; i++)
    sizes[i] = model->segments[i].n;
  return st;
}

fl_status fl_model_copy_segment_modules(const fl_model *model,
                                        uint32_t *modules, uint32_t count)
{
  fli_clear_error();
  const fl_status st = check_segments(model, modules, count);
  for (uint32_t i = 0; st == FL_OK && i < count; i++)
    modules[i] = model->segments[i].module;
  return st;
}
