/* SPDX-License-Identifier: Apache-2.0 */
/* Set/get self-test: every element gets a value that stands nowhere else
 * near, by one road, and is looked for by the other. The expected layout is
 * computed here anew from the shapes, so a wrong offset cannot confirm itself.
 * The round that fails must not cost the host its weights: they are put back
 * on every path. */
#include "model/model.h"

#include <string.h>

#include "base/error.h"

/* A whole number below 2^24: exact in float32. `salt` tells the two rounds
 * apart. */
static float pattern(uint64_t element, uint32_t salt)
{
  uint32_t mixed = ((uint32_t)element + salt) * UINT32_C(2654435761);
  return (float)(mixed >> 8);
}

static void fill(float *values, uint64_t first, uint64_t n, uint32_t salt)
{
  for (uint64_t i = 0; i < n; i++) {
    values[i] = pattern(first + i, salt);
  }
}

static fl_status compare(const float *values, uint64_t first, uint64_t n,
                         uint32_t salt, const char *name)
{
  for (uint64_t i = 0; i < n; i++) {
    if (values[i] != pattern(first + i, salt)) {
      return fli_error(FL_E_INTERNAL,
                       "self-test: tensor %s does not give back what was set",
                       name);
    }
  }
  return FL_OK;
}

/* Places as the shapes demand them; also keeps what follows in bounds. */
static fl_status check_layout(const fl_model *model)
{
  uint64_t next[2] = {0, 0};
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (tensor->offset != next[tensor->is_trainable]) {
      return fli_error(FL_E_INTERNAL,
                       "self-test: tensor %s is not where its shape says",
                       tensor->name);
    }
    next[tensor->is_trainable] += tensor->shape.count;
  }
  if (next[1] != model->n_weights || next[0] != model->n_fixed) {
    return fli_error(FL_E_INTERNAL, "self-test: the tensors do not add up");
  }
  return FL_OK;
}

/* Set flat, get by name. */
static fl_status flat_to_named(fl_model *model, float *scratch)
{
  fl_status st = FL_OK;
  uint64_t next = 0;
  fill(scratch, 0, model->n_weights, 1);
  FLI_TRY(
      fl_model_set_weights(model, model->schema, scratch, model->n_weights));
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trainable) continue;
    FLI_TRY(fl_model_copy_tensor(model, i, scratch, tensor->shape.count));
    FLI_TRY(compare(scratch, next, tensor->shape.count, 1, tensor->name));
    next += tensor->shape.count;
  }
out:
  return st;
}

/* Set by name; get flat, and by name when all are set. */
static fl_status named_to_flat(fl_model *model, float *scratch)
{
  fl_status st = FL_OK;
  uint64_t next[2] = {model->n_weights, 0};
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    uint64_t *first = &next[tensor->is_trainable];
    fill(scratch, *first, tensor->shape.count, 2);
    FLI_TRY(fl_model_set_tensor(model, i, scratch, tensor->shape.count));
    *first += tensor->shape.count;
  }
  FLI_TRY(fl_model_copy_weights(model, scratch, model->n_weights));
  next[0] = model->n_weights;
  next[1] = 0;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    uint64_t *first = &next[tensor->is_trainable];
    if (tensor->is_trainable) {
      FLI_TRY(compare(scratch + *first, *first, tensor->shape.count, 2,
                      tensor->name));
    }
    FLI_TRY(compare(fli_tensor_values(model, tensor), *first,
                    tensor->shape.count, 2, tensor->name));
    *first += tensor->shape.count;
  }
out:
  return st;
}

fl_status fl_model_self_test(fl_model *model)
{
  fl_status st = FL_OK;
  fli_clear_error();
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  size_t n = (size_t)(model->n_weights + model->n_fixed);
  size_t bytes = n * sizeof(float);
  float *saved = fli_alloc(model->context, n, sizeof *saved);
  float *scratch = fli_alloc(model->context, n, sizeof *scratch);
  if (!saved || !scratch) {
    st = fli_nomem(bytes);
    goto out;
  }
  memcpy(saved, model->values, bytes);
  FLI_TRY(check_layout(model));
  st = flat_to_named(model, scratch);
  if (st == FL_OK) st = named_to_flat(model, scratch);
  memcpy(model->values, saved, bytes);
out:
  fli_free(model->context, saved, bytes);
  fli_free(model->context, scratch, bytes);
  return st;
}
