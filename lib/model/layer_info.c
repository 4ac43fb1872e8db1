/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is made of, for those who show it or take it elsewhere. */
#include <fl/layers.h>

#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "model/model.h"

fl_status fl_layer_info_init(fl_layer_info *info, size_t size)
{
  static const fl_layer_info defaults = {0};
  fli_clear_error();
  return fli_options_init(info, size, &defaults, sizeof defaults);
}

uint32_t fl_model_layer_count(const fl_model *model)
{
  return model ? model->n_chain : 0;
}

/* One kind of node may be several to a reader. */
static const char *kind_of(const fli_node *node)
{
  if (node->op == &fli_op_activation) {
    switch (node->attributes.activation.kind) {
    case FL_ACTIVATION_GELU: return "gelu";
    case FL_ACTIVATION_SILU: return "silu";
    case FL_ACTIVATION_TANH: return "tanh";
    case FL_ACTIVATION_SIGMOID: return "sigmoid";
    default: break;
    }
  }
  if (node->op == &fli_op_pool2d) {
    return node->attributes.pool.kind == FL_POOL_MAX ? "max_pool2d"
                                                     : "average_pool2d";
  }
  return node->op->name;
}

fl_status fl_model_get_layer(const fl_model *model, uint32_t index,
                             fl_layer_info *info)
{
  fli_clear_error();
  if (!model || !info) {
    return fli_error(FL_E_ARGUMENT, "model or info: is NULL");
  }
  if (index >= model->n_chain) {
    return fli_error(FL_E_NOT_FOUND, "layer: got index %u, want < %u", index,
                     model->n_chain);
  }
  const fli_node *node = &model->nodes[model->chain[index]];
  fl_layer_info full = {
      .module = node->module,
      .name = node->name,
      .kind = kind_of(node),
      .is_trained = node->trained != 0,
      .n_tensors = node->n_parameters,
      .first_tensor = node->first_tensor,
      .n_inputs = node->op->n_inputs,
      .n_dims = node->declared.n_dims,
  };
  for (uint32_t i = 0; i < full.n_inputs; i++) {
    full.inputs[i] = model->nodes[node->inputs[i]].position;
  }
  for (uint32_t i = 0; i < node->n_parameters; i++) {
    full.n_parameters += node->counts[i];
  }
  memcpy(full.dims, node->declared.dims, sizeof full.dims);
  return fli_options_store(info, &full, sizeof full, "fl_layer_info");
}
