/* SPDX-License-Identifier: Apache-2.0 */
/* Losses of numbers: kind "mean_squared_error", and kind
 * "binary_cross_entropy" of logits with targets in 0..1. Means over all
 * elements of the batch. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

static fl_status loss_shape(fli_node *node)
{
  if (node->input.pixel != 0) {
    return fli_error(FL_E_DIM, "%s %s: input is an image (flatten it)",
                     node->op->name, node->name);
  }
  node->output = node->input;
  return FL_OK;
}

static fl_status loss_check(const fli_node *node, const fl_dataset *data,
                            uint64_t count)
{
  uint64_t n = node->input.count;
  int is_binary = node->op == &fli_op_binary_cross_entropy;
  if (!data->targets) {
    return fli_error(FL_E_ARGUMENT, "data set: targets is NULL");
  }
  for (uint64_t i = 0; i < count; i++) {
    uint64_t sample = fli_dataset_sample(data, i);
    for (uint64_t j = 0; j < n; j++) {
      float target = data->targets[sample * n + j];
      if (!isfinite(target)) {
        return fli_error(FL_E_NOT_FINITE,
                         "data set: target %" PRIu64 " of sample %" PRIu64
                         " is not finite",
                         j, sample);
      }
      if (!is_binary || (target >= 0.0f && target <= 1.0f)) continue;
      return fli_error(FL_E_RANGE,
                       "data set: target %" PRIu64 " of sample %" PRIu64
                       " is %g, want 0..1",
                       j, sample, (double)target);
    }
  }
  return FL_OK;
}

/* Targets of the batch, side by side. */
static void loss_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  needs->forward = n * node->input.count;
}

static void loss_forward(const fli_node *node, fli_pass *pass)
{
  size_t n = (size_t)node->input.count;
  int is_binary = node->op == &fli_op_binary_cross_entropy;
  for (size_t k = 0; k < pass->n; k++) {
    size_t sample = (size_t)fli_batch_sample(pass->batch, k);
    memcpy(pass->scratch + k * n, pass->batch->data->targets + sample * n,
           n * sizeof *pass->scratch);
  }
  flk_loss loss = {
      .x = pass->x[0],
      .target = pass->scratch,
      .gradient = pass->dx[0],
      .n = pass->n * n,
      .factor = 1.0f / (float)(pass->n * n),
  };
  pass->loss = is_binary ? flk_nn()->softmax.binary_cross_entropy(&loss)
                         : flk_nn()->softmax.squared_error(&loss);
  pass->loss_weight = (double)loss.n;
}

const fli_node_op fli_op_mean_squared_error = {
    .kind = FLI_OP_MEAN_SQUARED_ERROR,
    .name = "mean_squared_error",
    .flags = FLI_NODE_IS_LOSS | FLI_NODE_VIEW,
    .n_inputs = 1,
    .shape = loss_shape,
};

const fli_node_run fli_run_mean_squared_error = {
    .needs = loss_needs,
    .check = loss_check,
    .forward = loss_forward,
};

const fli_node_op fli_op_binary_cross_entropy = {
    .kind = FLI_OP_BINARY_CROSS_ENTROPY,
    .name = "binary_cross_entropy",
    .flags = FLI_NODE_IS_LOSS | FLI_NODE_VIEW,
    .n_inputs = 1,
    .shape = loss_shape,
};

const fli_node_run fli_run_binary_cross_entropy = {
    .needs = loss_needs,
    .check = loss_check,
    .forward = loss_forward,
};
