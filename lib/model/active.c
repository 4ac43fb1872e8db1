/* SPDX-License-Identifier: Apache-2.0 */
/* Partial training: which tensors are trained when the modules in front are
 * frozen, and for which outputs a gradient is then needed. Everything else -
 * plan, way back, optimiser state - follows from these marks. */
#include "model/model.h"

#include "base/error.h"

uint64_t fli_model_first_weight(const fl_model *model, uint32_t first_active)
{
  uint64_t first = model->n_weights;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trainable || tensor->module < first_active) continue;
    if (tensor->offset < first) first = tensor->offset;
  }
  return first;
}

/* Rows lie in front of all modules: they are trained as long as the first
 * module is, and somebody has them. */
static int trains_rows(const fl_model *model, const fli_node *node,
                       uint32_t first_active)
{
  if (!(node->flags & FLI_NODE_HAS_ROWS) || !model->provider ||
      node->is_frozen) {
    return 0;
  }
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (tensor->is_trainable && tensor->module < first_active) return 0;
  }
  return 1;
}

int fli_model_mark(fl_model *model, uint32_t first_active)
{
  int is_any = 0;
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    fli_node *node = &model->nodes[i];
    node->trained = (uint32_t)trains_rows(model, node, first_active);
    node->carries = 0;
    for (uint32_t p = 0; p < node->n_parameters; p++) {
      fli_tensor *tensor = &model->tensors[node->first_tensor + p];
      tensor->is_trained = 0;
      if (!tensor->is_trainable || tensor->is_frozen ||
          tensor->module < first_active) {
        continue;
      }
      tensor->is_trained = node->op->shape != NULL;
      node->trained |= 1u << p;
      is_any = 1;
    }
    if (!node->op->shape) continue;
    node->carries = node->trained != 0;
    for (uint32_t k = 0; k < node->op->n_inputs; k++) {
      node->carries |= model->nodes[node->inputs[k]].carries;
    }
  }
  model->first_weight = fli_model_first_weight(model, first_active);
  model->first_active = first_active;
  return is_any;
}

/* Take what is marked as trained, with the optimiser's state of it. */
static fl_status take_marks(fl_model *model)
{
  fli_optimiser moved;
  fl_status st = fli_optimiser_move(&moved, model->context, &model->optimiser,
                                    model->first_weight,
                                    model->n_weights - model->first_weight);
  if (st != FL_OK) return st;
  fli_optimiser_free(&model->optimiser, model->context);
  model->optimiser = moved;
  fli_workspace_free(model);
  return FL_OK;
}

/* Whether tensor `i` is frozen in a list of modules. */
static int is_listed(const fl_model *model, uint32_t i, const uint8_t *frozen,
                     uint32_t n)
{
  uint32_t module = model->tensors[i].module;
  return module < n && frozen[module] != 0;
}

/* Freeze the modules of the list, and all below `first`. */
static fl_status freeze(fl_model *model, uint32_t first, const uint8_t *frozen,
                        uint32_t n, int *is_any)
{
  fl_status st = FL_OK;
  uint32_t before = model->first_active;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    fli_tensor *tensor = &model->tensors[i];
    tensor->was_frozen = tensor->is_frozen;
    tensor->is_frozen = (uint32_t)is_listed(model, i, frozen, n);
  }
  *is_any = fli_model_mark(model, first);
  if (*is_any) st = take_marks(model);
  if (*is_any && st == FL_OK) return FL_OK;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    model->tensors[i].is_frozen = model->tensors[i].was_frozen;
  }
  (void)fli_model_mark(model, before);
  return st;
}

static int has_frozen(const fl_model *model)
{
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    if (model->tensors[i].is_frozen) return 1;
  }
  return 0;
}

fl_status fl_model_set_first_active(fl_model *model, uint32_t module)
{
  fl_status st = FL_OK;
  int is_any = 0;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  if (module == model->first_active && !has_frozen(model)) return FL_OK;
  FLI_TRY(freeze(model, module, NULL, 0, &is_any));
  if (!is_any) {
    st = fli_error(FL_E_RANGE,
                   "first active module: got %u, and no module from there on "
                   "has a weight to train",
                   module);
  }
out:
  return st;
}

/* First module with a weight to train among those that are not listed. */
static uint32_t first_trained(const fl_model *model, const uint8_t *frozen,
                              uint32_t n)
{
  uint32_t first = UINT32_MAX;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trainable || is_listed(model, i, frozen, n)) continue;
    if (tensor->module < first) first = tensor->module;
  }
  return first;
}

fl_status fl_model_set_frozen(fl_model *model, const uint8_t *frozen,
                              uint32_t n_modules)
{
  fl_status st = FL_OK;
  int is_any = 0;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  if (!frozen) return fli_error(FL_E_ARGUMENT, "frozen modules: is NULL");
  FLI_TRY(freeze(model, first_trained(model, frozen, n_modules), frozen,
                 n_modules, &is_any));
  if (!is_any) {
    st = fli_error(FL_E_RANGE,
                   "frozen modules: no other one has a weight to train");
  }
out:
  return st;
}

uint32_t fl_model_first_active(const fl_model *model)
{
  return model ? model->first_active : 0;
}
