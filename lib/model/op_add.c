/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "add": the sum of two layers' outputs (residual connections). It works
 * in the memory of the first; the gradient of the first is that of the sum,
 * the second gets a copy, or has it added to what others gave. */
#include "model/node.h"

#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"

static fl_status add_shape(fli_node *node)
{
  if (!fli_shape_is(&node->input, &node->other) ||
      node->input.pixel != node->other.pixel) {
    return fli_error(FL_E_DIM,
                     "add %s: its two inputs have different shapes, %u and %u "
                     "dimensions",
                     node->name, node->input.n_dims, node->other.n_dims);
  }
  node->output = node->input;
  return FL_OK;
}

static size_t add_count(const fli_node *node, const fli_pass *pass)
{
  return pass->n * (size_t)fli_shape_floats(&node->output);
}

static void add_forward(const fli_node *node, fli_pass *pass)
{
  size_t n = add_count(node, pass);
  for (size_t i = 0; i < n; i++) {
    pass->y[i] = pass->x[0][i] + pass->x[1][i];
  }
}

static void add_backward(const fli_node *node, fli_pass *pass)
{
  size_t n = add_count(node, pass);
  for (uint32_t k = 0; k < 2; k++) {
    float *dx = pass->dx[k];
    if (!dx || dx == pass->dy) continue;
    if (!pass->adds[k]) {
      memcpy(dx, pass->dy, n * sizeof *dx);
      continue;
    }
    for (size_t i = 0; i < n; i++) {
      dx[i] += pass->dy[i];
    }
  }
}

const fli_node_op fli_op_add = {
    .name = "add",
    .flags = FLI_NODE_IN_PLACE | FLI_NODE_ADDS,
    .n_inputs = 2,
    .shape = add_shape,
    .forward = add_forward,
    .backward = add_backward,
};
