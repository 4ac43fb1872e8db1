/* SPDX-License-Identifier: Apache-2.0 */
/* The one list of how kinds of nodes are computed. Nothing that only declares
 * a model refers to it: a program that links libfl.a, and trains with
 * something else, has neither layers nor their kernels in it. */
#include "model/node.h"

static const fli_node_run run_none = {0};

static const fli_node_run *const node_runs[FLI_OPS] = {
    [FLI_OP_TENSOR] = &run_none,
    [FLI_OP_INPUT] = &fli_run_input,
    [FLI_OP_FLATTEN] = &fli_run_flatten,
    [FLI_OP_DENSE] = &fli_run_dense,
    [FLI_OP_DENSE_LORA] = &fli_run_dense_lora,
    [FLI_OP_CONV2D] = &fli_run_conv2d,
    [FLI_OP_POOL2D] = &fli_run_pool2d,
    [FLI_OP_MEAN] = &fli_run_mean,
    [FLI_OP_RELU] = &fli_run_relu,
    [FLI_OP_ACTIVATION] = &fli_run_activation,
    [FLI_OP_SOFTMAX] = &fli_run_softmax,
    [FLI_OP_DROPOUT] = &fli_run_dropout,
    [FLI_OP_EMBEDDING] = &fli_run_embedding,
    [FLI_OP_SPARSE_EMBEDDING] = &fli_run_sparse_embedding,
    [FLI_OP_POSITIONS] = &fli_run_positions,
    [FLI_OP_LAYER_NORM] = &fli_run_layer_norm,
    [FLI_OP_GROUP_NORM] = &fli_run_group_norm,
    [FLI_OP_ATTENTION] = &fli_run_attention,
    [FLI_OP_ADD] = &fli_run_add,
    [FLI_OP_FACTORISATION_MACHINE] = &fli_run_factorisation_machine,
    [FLI_OP_PAIRWISE_DOTS] = &fli_run_pairwise_dots,
    [FLI_OP_SOFTMAX_CROSS_ENTROPY] = &fli_run_softmax_cross_entropy,
    [FLI_OP_CROSS_ENTROPY] = &fli_run_cross_entropy,
    [FLI_OP_MEAN_SQUARED_ERROR] = &fli_run_mean_squared_error,
    [FLI_OP_BINARY_CROSS_ENTROPY] = &fli_run_binary_cross_entropy,
};

const fli_node_run *fli_node_run_of(const fli_node *node)
{
  return node->run ? node->run : node_runs[node->op->kind];
}
