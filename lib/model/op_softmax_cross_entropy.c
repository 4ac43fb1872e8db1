/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "softmax_cross_entropy": the loss -log softmax(x)[label]. The sum over
 * the batch goes to pass->loss; the gradient of the batch's mean,
 * (softmax(x) - onehot(label)) / n, is written in the same sweep when it is
 * wanted. Logits that are not finite make the loss NaN. Uses the library's own
 * exp and log, so the loss has the same bits on every machine that got the
 * same logits. */
#include "model/node.h"

#include <inttypes.h>
#include <math.h>

#include "base/dmath.h"
#include "base/error.h"

static fl_status loss_shape(fli_node *node)
{
  if (node->input.n_dims != 1 || node->input.count > INT32_MAX) {
    return fli_error(FL_E_DIM,
                     "softmax cross-entropy %s: input has %u dimensions, "
                     "want 1 with at most 2^31 - 1 classes",
                     node->name, node->input.n_dims);
  }
  node->output = node->input;
  return FL_OK;
}

/* -log softmax(x)[label], NaN when a logit is not finite. */
static double row_loss(const float *x, size_t classes, size_t label, float *dx,
                       double gradient_scale)
{
  float top = x[0];
  for (size_t j = 0; j < classes; j++) {
    if (!isfinite(x[j])) return NAN;
    if (x[j] > top) top = x[j];
  }
  double sum = 0.0;
  for (size_t j = 0; j < classes; j++) {
    double e = fli_exp((double)x[j] - (double)top);
    if (dx) dx[j] = (float)e;
    sum += e;
  }
  if (dx) {
    float scale = (float)(gradient_scale / sum);
    for (size_t j = 0; j < classes; j++) {
      dx[j] *= scale;
    }
    dx[label] -= (float)gradient_scale;
  }
  return fli_ln(sum) - ((double)x[label] - (double)top);
}

static fl_status loss_check(const fli_node *node, const fl_dataset *data,
                            uint64_t count)
{
  uint64_t classes = node->input.count;
  if (!data->y) return fli_error(FL_E_ARGUMENT, "data set: y is NULL");
  for (uint64_t i = 0; i < count; i++) {
    uint64_t sample = fli_dataset_sample(data, i);
    int32_t label = data->y[sample];
    if (label < 0 || (uint64_t)label >= classes) {
      return fli_error(FL_E_RANGE,
                       "data set: label of sample %" PRIu64
                       " is %d, want 0..%" PRIu64,
                       sample, label, classes - 1);
    }
  }
  return FL_OK;
}

static void loss_forward(const fli_node *node, fli_pass *pass)
{
  size_t classes = (size_t)node->input.count;
  double scale = 1.0 / (double)pass->batch->n;
  double sum = 0.0;
  for (size_t k = 0; k < pass->batch->n; k++) {
    int32_t label = pass->batch->data->y[fli_batch_sample(pass->batch, k)];
    float *dx = pass->dx[0] ? pass->dx[0] + k * classes : NULL;
    sum +=
        row_loss(pass->x[0] + k * classes, classes, (size_t)label, dx, scale);
  }
  pass->loss = sum;
  pass->loss_weight = (double)pass->n;
}

const fli_node_op fli_op_softmax_cross_entropy = {
    .name = "softmax_cross_entropy",
    .flags = FLI_NODE_IS_LOSS | FLI_NODE_VIEW,
    .n_inputs = 1,
    .shape = loss_shape,
    .check = loss_check,
    .forward = loss_forward,
};
