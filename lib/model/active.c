/* SPDX-License-Identifier: Apache-2.0 */
/* Partial training: which tensors are trained when the modules in front are
 * frozen, and for which outputs a gradient is then needed. Everything else -
 * plan, way back, optimiser state - follows from these marks. */
#include "model/model.h"

#include "base/error.h"

int fli_model_mark(fl_model *model, uint32_t first_active)
{
  uint64_t first = model->n_weights;
  int is_any = 0;
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    fli_node *node = &model->nodes[i];
    node->trained = 0;
    node->carries = 0;
    for (uint32_t p = 0; p < node->n_parameters; p++) {
      fli_tensor *tensor = &model->tensors[node->first_tensor + p];
      tensor->is_trained = 0;
      if (!tensor->is_trainable || node->module < first_active) continue;
      tensor->is_trained = node->op->shape != NULL;
      node->trained |= 1u << p;
      if (node->places[p] < first) first = node->places[p];
      is_any = 1;
    }
    if (!node->op->shape) continue;
    node->carries = node->trained != 0;
    for (uint32_t k = 0; k < node->op->n_inputs; k++) {
      node->carries |= model->nodes[node->inputs[k]].carries;
    }
  }
  model->first_weight = first;
  model->first_active = first_active;
  return is_any;
}

fl_status fl_model_set_first_active(fl_model *model, uint32_t module)
{
  fl_status st = FL_OK;
  fli_optimiser moved;
  fli_clear_error();
  st = fli_model_check_idle(model);
  if (st != FL_OK) return st;
  uint32_t before = model->first_active;
  if (module == before) return FL_OK;
  if (!fli_model_mark(model, module)) {
    st = fli_error(FL_E_RANGE,
                   "first active module: got %u, and no module from there on "
                   "has a weight to train",
                   module);
    goto undo;
  }
  st = fli_optimiser_move(&moved, model->context, &model->optimiser,
                          model->first_weight,
                          model->n_weights - model->first_weight);
  if (st != FL_OK) goto undo;
  fli_optimiser_free(&model->optimiser, model->context);
  model->optimiser = moved;
  fli_workspace_free(model);
  return FL_OK;
undo:
  (void)fli_model_mark(model, before);
  return st;
}

uint32_t fl_model_first_active(const fl_model *model)
{
  return model ? model->first_active : 0;
}
