/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of single elements, in place: kind "relu" (behind some layers the
 * forward half is done there), and kind "activation" for the others; attribute:
 * 16 = FL_ACTIVATION_*. NaN passes through, so that it reaches the loss and is
 * reported there instead of turning into zeros. */
#include <fl/layers.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

_Static_assert((int)FL_ACTIVATION_GELU == (int)FLK_GELU &&
                   (int)FL_ACTIVATION_SILU == (int)FLK_SILU &&
                   (int)FL_ACTIVATION_TANH == (int)FLK_TANH &&
                   (int)FL_ACTIVATION_SIGMOID == (int)FLK_SIGMOID,
               "the kernels' numbers are the public ones");

static fl_status activation_shape(fli_node *node)
{
  uint32_t kind = node->attributes.activation.kind;
  if (kind >= FLK_ACTIVATIONS) {
    return fli_error(FL_E_ARGUMENT, "activation %s: got %u, want 0..%d",
                     node->name, kind, FLK_ACTIVATIONS - 1);
  }
  node->output = node->input;
  node->flags |= flk_activation_keeps_x((int)kind) ? FLI_NODE_KEEPS_INPUT
                                                   : FLI_NODE_KEEPS_OUTPUT;
  return FL_OK;
}

static void activation_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.activation.kind);
}

static int activation_unpack(fli_node *node, uint32_t key,
                             fli_msg_reader *reader)
{
  if (key != FLI_FIRST_ATTRIBUTE) return 0;
  node->attributes.activation.kind = fli_reader_u32(reader);
  return 1;
}

static void activation_forward(const fli_node *node, fli_pass *pass)
{
  if (node->is_fused) return;
  flk_nn()->activation.forward[node->attributes.activation.kind](
      pass->y, pass->x[0], pass->n * (size_t)fli_shape_floats(&node->output));
}

static void activation_backward(const fli_node *node, fli_pass *pass)
{
  uint32_t kind = node->attributes.activation.kind;
  const float *known = flk_activation_keeps_x((int)kind) ? pass->x[0] : pass->y;
  if (!pass->dx[0]) return;
  flk_nn()->activation.backward[kind](
      pass->dx[0], pass->dy, known,
      pass->n * (size_t)fli_shape_floats(&node->output));
}

/* FL_ACTIVATION_RELU is 0, what attributes are when nobody sets them. */
const fli_node_op fli_op_relu = {
    .kind = FLI_OP_RELU,
    .name = "relu",
    .flags = FLI_NODE_IN_PLACE,
    .n_inputs = 1,
    .shape = activation_shape,
};

const fli_node_run fli_run_relu = {
    .forward = activation_forward,
    .backward = activation_backward,
};

const fli_node_op fli_op_activation = {
    .kind = FLI_OP_ACTIVATION,
    .name = "activation",
    .flags = FLI_NODE_IN_PLACE,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = activation_shape,
    .pack = activation_pack,
    .unpack = activation_unpack,
};

const fli_node_run fli_run_activation = {
    .forward = activation_forward,
    .backward = activation_backward,
};
