/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "mean": of each channel of an image over its pixels, or of each element
 * of a sequence's tokens: [channels, height, width] or [tokens, width] to one
 * dimension. Both are means over rows. */
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

static fl_status mean_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  if (in->n_dims != 2 && in->n_dims != 3) {
    return fli_refuse_dims(node, "a sequence's 2 or an image's 3");
  }
  node->output = (fli_shape){.n_dims = 1};
  node->output.dims[0] = in->n_dims == 3 ? in->dims[0] : in->dims[1];
  return fli_shape_check(&node->output, node->name);
}

/* Rows of a sample, and floats from one to the next. */
static size_t rows_of(const fli_node *node)
{
  return (size_t)(node->input.count / node->output.count);
}

static size_t row_of(const fli_node *node)
{
  return (size_t)fli_shape_floats(&node->input) / rows_of(node);
}

/* Sums of a row with what lies behind its channels go by way of scratch. */
static void mean_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  needs->forward = row_of(node);
}

static void mean_forward(const fli_node *node, fli_pass *pass)
{
  size_t rows = rows_of(node);
  size_t row = row_of(node);
  size_t width = (size_t)node->output.count;
  for (size_t k = 0; k < pass->n; k++) {
    flk_nn()->vector.column_sums(pass->scratch, pass->x[0] + k * rows * row,
                                 rows, row, 0);
    flk_nn()->vector.scale(pass->y + k * width, 1.0f / (float)rows,
                           pass->scratch, width);
  }
}

static void mean_backward(const fli_node *node, fli_pass *pass)
{
  size_t rows = rows_of(node);
  size_t row = row_of(node);
  size_t width = (size_t)node->output.count;
  if (!pass->dx[0]) return;
  for (size_t k = 0; k < pass->n; k++) {
    float *dx = pass->dx[0] + k * rows * row;
    const float *dy = pass->dy + k * width;
    if (pass->adds[0]) {
      for (size_t r = 0; r < rows; r++) {
        flk_nn()->vector.axpy(dx + r * row, 1.0f / (float)rows, dy, width);
      }
      continue;
    }
    flk_nn()->vector.scale(dx, 1.0f / (float)rows, dy, width);
    for (size_t r = 1; r < rows; r++) {
      memcpy(dx + r * row, dx, width * sizeof *dx);
    }
  }
}

const fli_node_op fli_op_mean = {
    .kind = FLI_OP_MEAN,
    .name = "mean",
    .flags = FLI_NODE_ADDS,
    .n_inputs = 1,
    .shape = mean_shape,
};

const fli_node_run fli_run_mean = {
    .needs = mean_needs,
    .forward = mean_forward,
    .backward = mean_backward,
};
