/* SPDX-License-Identifier: Apache-2.0 */
/* Checking a caller's data set against the model, once, before anything is
 * computed: a bad label must not be found halfway through a training. */
#include "model/model.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/options.h"

static const fl_dataset dataset_defaults = {
    .struct_size = sizeof(fl_dataset),
    .x_dtype = FL_DTYPE_F32,
};

fl_status fl_dataset_init(fl_dataset *data, size_t size)
{
  fli_clear_error();
  return fli_options_init(data, size, &dataset_defaults,
                          sizeof dataset_defaults);
}

static fl_status check_indices(const fl_dataset *data)
{
  for (uint64_t i = 0; i < data->n_indices; i++) {
    if (data->indices[i] >= data->n) {
      return fli_error(FL_E_RANGE,
                       "data set: index %" PRIu64 " is %u, want < %" PRIu64, i,
                       data->indices[i], data->n);
    }
  }
  return FL_OK;
}

static fl_status check_labels(const fl_dataset *data, uint64_t count,
                              uint64_t classes)
{
  if (!data->y) return fli_error(FL_E_ARGUMENT, "data set: y is NULL");
  for (uint64_t i = 0; i < count; i++) {
    uint64_t sample = data->indices ? data->indices[i] : i;
    int32_t label = data->y[sample];
    if (label < 0 || (uint64_t)label >= classes) {
      return fli_error(FL_E_RANGE,
                       "data set: label of sample %" PRIu64
                       " is %d, want 0..%" PRIu64,
                       sample, label, classes - 1);
    }
  }
  return FL_OK;
}

fl_status fli_dataset_load(const fl_model *model, const fl_dataset *data,
                           int needs_labels, fl_dataset *loaded,
                           uint64_t *count)
{
  fl_status st = FL_OK;
  if (!model || !data) {
    return fli_error(FL_E_ARGUMENT, "model or data set: is NULL");
  }
  if (model->n_chain == 0) {
    return fli_error(FL_E_STATE, "model: has tensors only, no layers");
  }
  *loaded = dataset_defaults;
  FLI_TRY(fli_options_load(loaded, sizeof *loaded, data, "fl_dataset"));
  if (loaded->x_dtype != FL_DTYPE_F32 && loaded->x_dtype != FL_DTYPE_U8) {
    return fli_error(FL_E_ARGUMENT, "data set: x_dtype is %u, want %d or %d",
                     loaded->x_dtype, FL_DTYPE_F32, FL_DTYPE_U8);
  }
  *count = loaded->indices ? loaded->n_indices : loaded->n;
  if (*count == 0) return fli_error(FL_E_EMPTY, "data set: has no samples");
  if (!loaded->x) return fli_error(FL_E_ARGUMENT, "data set: x is NULL");
  if (loaded->indices) FLI_TRY(check_indices(loaded));
  if (needs_labels) {
    FLI_TRY(check_labels(loaded, *count, fli_model_classes(model)));
  }
out:
  return st;
}
