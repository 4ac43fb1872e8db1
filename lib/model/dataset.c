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

/* The layers that read data know what it must be like. */
static fl_status check_data(const fl_model *model, const fl_dataset *data,
                            uint64_t count, int needs_labels)
{
  fl_status st = FL_OK;
  for (uint32_t i = 0; i < model->n_chain; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    int is_loss = (node->flags & FLI_NODE_IS_LOSS) != 0;
    const fli_node_run *run = fli_node_run_of(node);
    if (!run->check || (is_loss && !needs_labels)) continue;
    FLI_TRY(run->check(node, data, count));
  }
out:
  return st;
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
  FLI_TRY(fli_rows_check(model));
  *loaded = dataset_defaults;
  FLI_TRY(fli_options_load(loaded, sizeof *loaded, data, "fl_dataset"));
  *count = loaded->indices ? loaded->n_indices : loaded->n;
  if (*count == 0) return fli_error(FL_E_EMPTY, "data set: has no samples");
  if (!loaded->x) return fli_error(FL_E_ARGUMENT, "data set: x is NULL");
  if (loaded->indices) FLI_TRY(check_indices(loaded));
  FLI_TRY(check_data(model, loaded, *count, needs_labels));
out:
  return st;
}
