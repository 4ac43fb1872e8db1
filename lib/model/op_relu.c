/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "relu": max(0, x), in place. Behind a dense layer the forward half is
 * done by that layer. NaN passes through, so that it reaches the loss and is
 * reported there instead of turning into zeros. */
#include "model/node.h"

#include <string.h>

static fl_status relu_shape(fli_node *node)
{
  node->output = node->input;
  return FL_OK;
}

static void relu_forward(const fli_node *node, fli_pass *pass)
{
  if (node->is_fused) return;
  const float *x = pass->x[0];
  size_t n = pass->n * (size_t)fli_shape_floats(&node->output);
  for (size_t i = 0; i < n; i++) {
    pass->y[i] = x[i] < 0.0f ? 0.0f : x[i];
  }
}

/* Zero the gradient where the output is. */
static void mask(float *restrict gradient, const float *restrict y, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    gradient[i] = y[i] > 0.0f ? gradient[i] : 0.0f;
  }
}

static void relu_backward(const fli_node *node, fli_pass *pass)
{
  float *dx = pass->dx[0];
  size_t n = pass->n * (size_t)fli_shape_floats(&node->output);
  if (!dx) return;
  if (dx != pass->dy) memcpy(dx, pass->dy, n * sizeof *dx);
  mask(dx, pass->y, n);
}

const fli_node_op fli_op_relu = {
    .name = "relu",
    .flags = FLI_NODE_IN_PLACE | FLI_NODE_KEEPS_OUTPUT,
    .n_inputs = 1,
    .shape = relu_shape,
    .forward = relu_forward,
    .backward = relu_backward,
};
