/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "add": the sum of two layers' outputs (residual connections). It works
 * in the memory of the first; the gradient of the first is that of the sum,
 * the second gets a copy, or has it added to what others gave. */
#include "model/node.h"

#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"

static fl_status add_shape(fli_node *node)
{
  if (!fli_shape_is(&node->input, &node->other)) {
    return fli_error(FL_E_DIM,
                     "add %s: its two inputs have different shapes, %u and %u "
                     "dimensions",
                     node->name, node->input.n_dims, node->other.n_dims);
  }
  node->output = node->input;
  return FL_OK;
}

/* Rows of n floats, `step` apart: all floats in one row, or, when the second
 * input has its channels in another number of floats, pixels. */
typedef struct rows {
  size_t rows;
  size_t n;
  size_t step;
  size_t other_step;
} rows;

static rows rows_of(const fli_node *node, size_t n)
{
  const fli_shape *shape = &node->input;
  if (shape->pixel == node->other.pixel) {
    return (rows){.rows = 1, .n = n * (size_t)fli_shape_floats(shape)};
  }
  return (rows){.rows = n * (size_t)(shape->dims[1] * shape->dims[2]),
                .n = (size_t)shape->dims[0],
                .step = (size_t)shape->pixel,
                .other_step = (size_t)node->other.pixel};
}

static void add_forward(const fli_node *node, fli_pass *pass)
{
  rows r = rows_of(node, pass->n);
  for (size_t k = 0; k < r.rows; k++) {
    flk_nn()->vector.add(pass->y + k * r.step, pass->x[0] + k * r.step,
                         pass->x[1] + k * r.other_step, r.n);
  }
}

/* to = from, or to += from */
static void give(float *to, const float *from, size_t n, int adds)
{
  if (adds) {
    flk_nn()->vector.add(to, to, from, n);
  } else {
    memcpy(to, from, n * sizeof *to);
  }
}

static void add_backward(const fli_node *node, fli_pass *pass)
{
  rows r = rows_of(node, pass->n);
  size_t n = pass->n * (size_t)fli_shape_floats(&node->output);
  if (pass->dx[0] && (pass->dx[0] != pass->dy || pass->adds[0])) {
    give(pass->dx[0], pass->dy, n, pass->adds[0]);
  }
  /* In x + x the first x has its gradient in dy's memory, the second one adds
   * to it. */
  if (!pass->dx[1] || (pass->dx[1] == pass->dy && !pass->adds[1])) return;
  for (size_t k = 0; k < r.rows; k++) {
    give(pass->dx[1] + k * r.other_step, pass->dy + k * r.step, r.n,
         pass->adds[1]);
  }
}

const fli_node_op fli_op_add = {
    .kind = FLI_OP_ADD,
    .name = "add",
    .flags = FLI_NODE_IN_PLACE | FLI_NODE_ADDS,
    .n_inputs = 2,
    .shape = add_shape,
};

const fli_node_run fli_run_add = {
    .forward = add_forward,
    .backward = add_backward,
};
