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
  size_t n = pass->batch->n * (size_t)node->output.count;
  for (size_t i = 0; i < n; i++) {
    pass->y[i] = pass->x[i] < 0.0f ? 0.0f : pass->x[i];
  }
}

/* Zero the gradient where the output is. */
static void mask(float *restrict gradient, const float *restrict y, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    gradient[i] = y[i] > 0.0f ? gradient[i] : 0.0f;
  }
}

static void relu_backward(const fli_node *node, const fli_pass *pass)
{
  size_t n = pass->batch->n * (size_t)node->output.count;
  if (!pass->dx) return;
  if (pass->dx != pass->dy) memcpy(pass->dx, pass->dy, n * sizeof *pass->dx);
  mask(pass->dx, pass->y, n);
}

const fli_node_op fli_op_relu = {
    .name = "relu",
    .flags = FLI_NODE_IN_PLACE | FLI_NODE_KEEPS_OUTPUT,
    .shape = relu_shape,
    .forward = relu_forward,
    .backward = relu_backward,
};
