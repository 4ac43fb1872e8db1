/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "flatten": each sample as one dimension. Samples are contiguous anyway,
 * so this is a view and nothing runs. */
#include "model/node.h"

static fl_status flatten_shape(fli_node *node)
{
  node->output = (fli_shape){
      .n_dims = 1, .dims = {node->input.count}, .count = node->input.count};
  return FL_OK;
}

const fli_node_op fli_op_flatten = {
    .name = "flatten",
    .flags = FLI_NODE_VIEW,
    .shape = flatten_shape,
};
