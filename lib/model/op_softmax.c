/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "softmax": over the last dimension of a vector or a sequence, in place.
 */
#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

static fl_status softmax_shape(fli_node *node)
{
  if (node->input.n_dims != 1 && node->input.n_dims != 2) {
    return fli_refuse_dims(node, "1 or 2");
  }
  node->output = node->input;
  return FL_OK;
}

static size_t width_of(const fli_node *node)
{
  return (size_t)node->input.dims[node->input.n_dims - 1];
}

static size_t rows_of(const fli_node *node, const fli_pass *pass)
{
  return pass->n * ((size_t)node->input.count / width_of(node));
}

static void softmax_forward(const fli_node *node, fli_pass *pass)
{
  flk_nn()->softmax.forward(pass->y, pass->x[0], rows_of(node, pass),
                            width_of(node));
}

static void softmax_backward(const fli_node *node, fli_pass *pass)
{
  if (!pass->dx[0]) return;
  flk_nn()->softmax.backward(pass->dx[0], pass->dy, pass->y,
                             rows_of(node, pass), width_of(node));
}

const fli_node_op fli_op_softmax = {
    .kind = FLI_OP_SOFTMAX,
    .name = "softmax",
    .flags = FLI_NODE_IN_PLACE | FLI_NODE_KEEPS_OUTPUT,
    .n_inputs = 1,
    .shape = softmax_shape,
};

const fli_node_run fli_run_softmax = {
    .forward = softmax_forward,
    .backward = softmax_backward,
};
