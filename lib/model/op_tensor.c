/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "tensor": a named tensor without a layer, for hosts that train with
 * something else. It declares itself as its own only parameter. Attributes:
 * 16 = dims, 17 = is it trainable. */
#include "model/node.h"

static uint32_t tensor_parameters(const fli_node *node,
                                  fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  parameters[0] = (fli_parameter){
      .suffix = "",
      .shape = node->attributes.tensor.shape,
      .is_trainable = node->attributes.tensor.is_trainable,
  };
  return 1;
}

static void tensor_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_writer_u64(writer, FLI_FIRST_ATTRIBUTE);
  fli_shape_pack(&node->attributes.tensor.shape, writer);
  fli_writer_u64(writer, FLI_FIRST_ATTRIBUTE + 1);
  fli_writer_bool(writer, node->attributes.tensor.is_trainable);
}

static int tensor_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    fli_shape_unpack(&node->attributes.tensor.shape, reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.tensor.is_trainable = fli_reader_bool(reader);
    return 1;
  default: return 0;
  }
}

const fli_node_op fli_op_tensor = {
    .kind = FLI_OP_TENSOR,
    .name = "tensor",
    .n_attributes = 2,
    .parameters = tensor_parameters,
    .pack = tensor_pack,
    .unpack = tensor_unpack,
};
