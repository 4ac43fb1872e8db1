/* SPDX-License-Identifier: Apache-2.0 */
#include "freeze/snapshot.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum { LEVELS = 127 };

/* To the nearest of 255 values, ties to even. */
static void quantise(float *values, size_t n)
{
  float largest = 0.0f;
  for (size_t i = 0; i < n; i++) {
    float magnitude = fabsf(values[i]);
    if (magnitude > largest) largest = magnitude;
  }
  if (largest == 0.0f) return;
  double scale = (double)largest / LEVELS;
  for (size_t i = 0; i < n; i++) {
    values[i] = (float)(rint((double)values[i] / scale) * scale);
  }
}

fl_status fli_snapshot_take(fl_model **snapshot, fl_context *context,
                            const fl_model *model, uint32_t module)
{
  if (!*snapshot) {
    fl_status st = fl_model_from_description(
        snapshot, context, model->description.data, model->description.size);
    if (st != FL_OK) return st;
  }
  fl_model *copy = *snapshot;
  for (uint32_t i = 0; i < copy->n_tensors; i++) {
    const fli_tensor *tensor = &copy->tensors[i];
    if (tensor->module != module) continue;
    float *values = fli_tensor_values(copy, tensor);
    memcpy(values, fli_tensor_values(model, &model->tensors[i]),
           (size_t)tensor->shape.count * sizeof *values);
    if (tensor->shape.n_dims < 2) continue;
    size_t channels = (size_t)tensor->shape.dims[0];
    size_t n = (size_t)(tensor->shape.count / tensor->shape.dims[0]);
    for (size_t k = 0; k < channels; k++) {
      quantise(values + k * n, n);
    }
  }
  return FL_OK;
}
