/* SPDX-License-Identifier: Apache-2.0 */
/* The loss -log softmax(x)[label]: kind "softmax_cross_entropy", and kind
 * "cross_entropy" with attributes 16 = label to ignore, 17 = label smoothing.
 * Over the last dimension: a sequence has a label for every token. The sum over
 * the batch goes to pass->loss; the gradient of the mean over what has a label
 * is written in the same sweep when it is wanted. */
#include <inttypes.h>
#include <math.h>

#include "base/error.h"
#include "kernels/kernels.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

static uint64_t classes_of(const fli_node *node)
{
  return node->input.dims[node->input.n_dims - 1];
}

/* Labels per sample. */
static uint64_t labels_of(const fli_node *node)
{
  return node->input.count / classes_of(node);
}

static fl_status loss_shape(fli_node *node)
{
  float smoothing = node->attributes.cross_entropy.smoothing;
  if (node->input.n_dims == 0 || node->input.n_dims > 2 ||
      classes_of(node) > INT32_MAX) {
    return fli_refuse_dims(node, "1 or 2 with at most 2^31 - 1 classes");
  }
  if (!(smoothing >= 0.0f && smoothing <= 1.0f)) {
    return fli_error(FL_E_ARGUMENT, "%s %s: label smoothing is %g, want 0..1",
                     node->op->name, node->name, (double)smoothing);
  }
  node->output = node->input;
  return FL_OK;
}

static void loss_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_writer_u64(writer, FLI_FIRST_ATTRIBUTE);
  fli_writer_i64(writer, node->attributes.cross_entropy.ignore);
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE + 1,
                node->attributes.cross_entropy.smoothing);
}

static int loss_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  int64_t ignore = 0;
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    ignore = fli_reader_i64(reader);
    if (ignore < INT32_MIN || ignore > INT32_MAX) {
      fli_reader_fail(reader, FL_E_RANGE, "label to ignore");
    }
    node->attributes.cross_entropy.ignore = (int32_t)ignore;
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.cross_entropy.smoothing = fli_reader_f32(reader);
    return 1;
  default: return 0;
  }
}

/* What no label is, for the kind that ignores none. */
static int32_t ignored(const fli_node *node)
{
  if (node->op == &fli_op_softmax_cross_entropy) return -1;
  return node->attributes.cross_entropy.ignore;
}

static fl_status loss_check(const fli_node *node, const fl_dataset *data,
                            uint64_t count)
{
  uint64_t classes = classes_of(node);
  uint64_t labels = labels_of(node);
  int has_ignored = node->op != &fli_op_softmax_cross_entropy;
  if (!data->y) return fli_error(FL_E_ARGUMENT, "data set: y is NULL");
  for (uint64_t i = 0; i < count * labels; i++) {
    uint64_t sample = fli_dataset_sample(data, i / labels);
    int32_t label = data->y[sample * labels + i % labels];
    if (has_ignored && label == ignored(node)) continue;
    if (label < 0 || (uint64_t)label >= classes) {
      return fli_error(FL_E_RANGE,
                       "data set: label of sample %" PRIu64
                       " is %d, want 0..%" PRIu64,
                       sample, label, classes - 1);
    }
  }
  return FL_OK;
}

/* Labels of the batch, side by side. */
static void loss_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  needs->forward = n * labels_of(node);
}

/* What is ignored has a gradient of 0, and 0 x NaN would reach the weights
 * without a trace in the loss. */
static int spoils_weights(const flk_cross_entropy *loss)
{
  if (!loss->gradient) return 0;
  for (size_t r = 0; r < loss->rows; r++) {
    const float *row = loss->logits + r * loss->n;
    if (loss->targets[r] != loss->ignore) continue;
    if (flk_kernels()->find_not_finite(row, loss->n) < loss->n) return 1;
  }
  return 0;
}

static void loss_forward(const fli_node *node, fli_pass *pass)
{
  size_t labels = (size_t)labels_of(node);
  size_t rows = pass->n * labels;
  int32_t *targets = (int32_t *)pass->scratch;
  for (size_t k = 0; k < pass->n; k++) {
    size_t sample = (size_t)fli_batch_sample(pass->batch, k);
    for (size_t j = 0; j < labels; j++) {
      targets[k * labels + j] = pass->batch->data->y[sample * labels + j];
    }
  }
  size_t count = flk_count_targets(targets, rows, ignored(node));
  flk_cross_entropy loss = {
      .logits = pass->x[0],
      .targets = targets,
      .gradient = pass->dx[0],
      .rows = rows,
      .n = (size_t)classes_of(node),
      .smoothing = node->attributes.cross_entropy.smoothing,
      .ignore = ignored(node),
      .factor = count > 0 ? 1.0f / (float)count : 0.0f,
  };
  if (spoils_weights(&loss)) {
    pass->loss = (double)NAN;
    pass->loss_weight = 1.0;
    return;
  }
  pass->loss = flk_nn()->softmax.cross_entropy(&loss);
  pass->loss_weight = (double)count;
}

const fli_node_op fli_op_softmax_cross_entropy = {
    .kind = FLI_OP_SOFTMAX_CROSS_ENTROPY,
    .name = "softmax_cross_entropy",
    .flags = FLI_NODE_IS_LOSS | FLI_NODE_VIEW,
    .n_inputs = 1,
    .shape = loss_shape,
};

const fli_node_run fli_run_softmax_cross_entropy = {
    .needs = loss_needs,
    .check = loss_check,
    .forward = loss_forward,
};

const fli_node_op fli_op_cross_entropy = {
    .kind = FLI_OP_CROSS_ENTROPY,
    .name = "cross_entropy",
    .flags = FLI_NODE_IS_LOSS | FLI_NODE_VIEW,
    .n_inputs = 1,
    .n_attributes = 2,
    .shape = loss_shape,
    .pack = loss_pack,
    .unpack = loss_unpack,
};

const fli_node_run fli_run_cross_entropy = {
    .needs = loss_needs,
    .check = loss_check,
    .forward = loss_forward,
};
