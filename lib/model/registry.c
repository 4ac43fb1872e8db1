/* SPDX-License-Identifier: Apache-2.0 */
/* The one list of node kinds, and what they have in common: shapes. A kind
 * that is not listed here does not exist on the wire. */
#include "model/node.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/size.h"

static const fli_node_op *const node_ops[FLI_OPS] = {
    [FLI_OP_TENSOR] = &fli_op_tensor,
    [FLI_OP_INPUT] = &fli_op_input,
    [FLI_OP_FLATTEN] = &fli_op_flatten,
    [FLI_OP_DENSE] = &fli_op_dense,
    [FLI_OP_DENSE_LORA] = &fli_op_dense_lora,
    [FLI_OP_CONV2D] = &fli_op_conv2d,
    [FLI_OP_POOL2D] = &fli_op_pool2d,
    [FLI_OP_MEAN] = &fli_op_mean,
    [FLI_OP_RELU] = &fli_op_relu,
    [FLI_OP_ACTIVATION] = &fli_op_activation,
    [FLI_OP_SOFTMAX] = &fli_op_softmax,
    [FLI_OP_DROPOUT] = &fli_op_dropout,
    [FLI_OP_EMBEDDING] = &fli_op_embedding,
    [FLI_OP_SPARSE_EMBEDDING] = &fli_op_sparse_embedding,
    [FLI_OP_POSITIONS] = &fli_op_positions,
    [FLI_OP_LAYER_NORM] = &fli_op_layer_norm,
    [FLI_OP_GROUP_NORM] = &fli_op_group_norm,
    [FLI_OP_ATTENTION] = &fli_op_attention,
    [FLI_OP_ADD] = &fli_op_add,
    [FLI_OP_FACTORISATION_MACHINE] = &fli_op_factorisation_machine,
    [FLI_OP_PAIRWISE_DOTS] = &fli_op_pairwise_dots,
    [FLI_OP_SOFTMAX_CROSS_ENTROPY] = &fli_op_softmax_cross_entropy,
    [FLI_OP_CROSS_ENTROPY] = &fli_op_cross_entropy,
    [FLI_OP_MEAN_SQUARED_ERROR] = &fli_op_mean_squared_error,
    [FLI_OP_BINARY_CROSS_ENTROPY] = &fli_op_binary_cross_entropy,
};

const fli_node_op *fli_node_op_find(const char *name)
{
  for (size_t i = 0; i < FLI_COUNT_OF(node_ops); i++) {
    if (strcmp(node_ops[i]->name, name) == 0) return node_ops[i];
  }
  return NULL;
}

fl_status fli_refuse_dims(const fli_node *node, const char *want)
{
  return fli_error(FL_E_DIM, "%s %s: input has %u dimensions, want %s",
                   node->op->name, node->name, node->input.n_dims, want);
}

fl_status fli_shape_check(fli_shape *shape, const char *name)
{
  uint64_t count = 1;
  if (shape->n_dims > FL_MAX_DIMS) {
    return fli_error(FL_E_ARGUMENT, "%s: got %u dimensions, want 0..%d", name,
                     shape->n_dims, FL_MAX_DIMS);
  }
  for (uint32_t i = 0; i < shape->n_dims; i++) {
    uint64_t dim = shape->dims[i];
    if (dim == 0) {
      return fli_error(FL_E_ARGUMENT, "%s: dimension %u is 0, want >= 1", name,
                       i);
    }
    if (dim > FLI_MAX_DIM || !fli_mul_u64(count, dim, &count) ||
        count > FLI_MAX_ELEMENTS) {
      return fli_error(FL_E_TOO_LARGE,
                       "%s: too many elements at dimension %u (%" PRIu64
                       "), want <= 2^31 in all",
                       name, i, dim);
    }
  }
  shape->count = count;
  return FL_OK;
}

int fli_shape_is(const fli_shape *a, const fli_shape *b)
{
  return a->n_dims == b->n_dims &&
         memcmp(a->dims, b->dims, a->n_dims * sizeof *a->dims) == 0;
}

void fli_shape_pack(const fli_shape *shape, fli_msg_writer *writer)
{
  fli_writer_array(writer, shape->n_dims);
  for (uint32_t i = 0; i < shape->n_dims; i++) {
    fli_writer_u64(writer, shape->dims[i]);
  }
}

void fli_shape_unpack(fli_shape *shape, fli_msg_reader *reader)
{
  uint32_t n = fli_reader_array(reader);
  if (n > FL_MAX_DIMS) {
    fli_reader_fail(reader, FL_E_TOO_LARGE, "number of dimensions");
    return;
  }
  shape->n_dims = n;
  for (uint32_t i = 0; i < n; i++) {
    shape->dims[i] = fli_reader_u64(reader);
  }
  fli_reader_leave(reader);
}
