/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting the graph where one module ends and the next one begins. */
#include "model/model.h"

/* First layer of the chain with tensors of `module` or a later one. */
static uint32_t first_position(const fl_model *model, uint32_t module)
{
  uint32_t i = 0;
  while (i < model->n_chain) {
    const fli_node *node = &model->nodes[model->chain[i]];
    if (node->n_parameters > 0 && node->module >= module) break;
    i++;
  }
  return i;
}

int fli_model_cut(const fl_model *model, uint32_t module, fli_cut *cut)
{
  uint32_t position = first_position(model, module);
  uint32_t n = 0;
  if (position == 0 || position == model->n_chain) return 0;
  for (uint32_t i = 0; i < position; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    if (model->nodes[node->last_use].position < position) continue;
    *cut = (fli_cut){.position = position,
                     .node = model->chain[i],
                     .n_values = fli_shape_floats(&node->output)};
    n++;
  }
  return n == 1;
}
