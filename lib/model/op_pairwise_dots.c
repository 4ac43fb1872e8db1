/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "pairwise_dots": the dot product of each pair of the vectors of a
 * sample's fields (DLRM: Naumov et al., 2019), [fields, width] to [fields
 * (fields - 1) / 2], j < i, by i and then j. Backward is the product of the
 * pairs' gradients, as a symmetric matrix, and the vectors. */
#include "model/node.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/interactions.h"

fl_status fli_fields_check(const fli_node *node, uint64_t *fields)
{
  *fields = node->input.dims[0];
  if (node->input.n_dims == 2 && *fields >= 2) return FL_OK;
  return fli_error(FL_E_DIM,
                   "%s %s: input has %u dimensions, %" PRIu64
                   " the first, want the vectors of 2 fields or more, "
                   "[fields, width]",
                   node->op->name, node->name, node->input.n_dims, *fields);
}

static fl_status dots_shape(fli_node *node)
{
  uint64_t fields = 0;
  fl_status st = fli_fields_check(node, &fields);
  if (st != FL_OK) return st;
  node->output = (fli_shape){.n_dims = 1};
  /* dims are <= 2^32: no overflow */
  node->output.dims[0] =
      fields % 2 ? (fields - 1) / 2 * fields : fields / 2 * (fields - 1);
  return fli_shape_check(&node->output, node->name);
}

static void dots_forward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  float *y = pass->y;
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * fields * width;
    for (size_t i = 1; i < fields; y += i, i++) {
      flk_dots row = {.x = x + i * width,
                      .w = x,
                      .w_row = (ptrdiff_t)width,
                      .m = 1,
                      .n = i,
                      .depth = width,
                      .c = y,
                      .alpha = 1.0f};
      flk_nn()->dots(&row);
    }
  }
}

/* Whole panels are read: where the width is none, vectors are copied. */
static size_t padded(size_t width)
{
  size_t panel = flk_nn()->width[FLK_PANEL_ONE];
  return (width + panel - 1) / panel * panel;
}

/* The matrix, and a copy of the vectors. */
static void dots_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  uint64_t fields = node->input.dims[0];
  (void)n; /* sample by sample */
  needs->backward = fields * (fields + node->input.dims[1] + FLK_VECTOR_MAX);
}

/* The gradients of pairs as a matrix [fields][fields]. */
static void spread(const float *dy, size_t fields, float *matrix)
{
  matrix[0] = 0.0f;
  for (size_t i = 1; i < fields; i++) {
    for (size_t j = 0; j < i; j++) {
      matrix[i * fields + j] = *dy;
      matrix[j * fields + i] = *dy++;
    }
    matrix[i * fields + i] = 0.0f;
  }
}

/* dx = (beta: dx +) matrix x, a panel of columns. */
static void back_panel(const float *matrix, const float *x, size_t x_row,
                       const fli_node *node, flk_tile *tile)
{
  const flk_nn_table *nn = flk_nn();
  size_t fields = (size_t)node->input.dims[0];
  float *dx = tile->c[0];
  int kind =
      tile->columns > nn->width[FLK_PANEL_ONE] ? FLK_PANEL_TWO : FLK_PANEL_ONE;
  tile->b = x;
  tile->b_step = (ptrdiff_t)x_row;
  for (size_t row = 0; row < fields; row += nn->rows_max) {
    size_t n = fields - row < nn->rows_max ? fields - row : nn->rows_max;
    tile->a[0] = matrix + row * fields;
    tile->c[0] = dx + row * (size_t)tile->c_row;
    nn->tile(tile, n, kind);
  }
}

static void dots_backward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  size_t pairs = (size_t)node->output.count;
  size_t x_row = padded(width);
  size_t most = flk_nn()->width[FLK_PANEL_TWO];
  float *matrix = pass->scratch;
  float *copy = pass->scratch + fields * fields;
  if (!pass->dx[0]) return;
  if (x_row > width) memset(copy, 0, fields * x_row * sizeof *copy);
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * fields * width;
    spread(pass->dy + k * pairs, fields, matrix);
    for (size_t i = 0; i < fields && x_row > width; i++) {
      memcpy(copy + i * x_row, x + i * width, width * sizeof *copy);
    }
    for (size_t at = 0; at < width; at += most) {
      flk_tile tile = {.a_row = (ptrdiff_t)fields,
                       .a_step = 1,
                       .n_segments = 1,
                       .depth = fields,
                       .c = {pass->dx[0] + k * fields * width + at},
                       .c_row = (ptrdiff_t)width,
                       .columns = width - at < most ? width - at : most,
                       .alpha = 1.0f,
                       .beta = pass->adds[0] ? 1.0f : 0.0f};
      back_panel(matrix, (x_row > width ? copy : x) + at, x_row, node, &tile);
    }
  }
}

const fli_node_op fli_op_pairwise_dots = {
    .kind = FLI_OP_PAIRWISE_DOTS,
    .name = "pairwise_dots",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_ADDS,
    .n_inputs = 1,
    .shape = dots_shape,
};

const fli_node_run fli_run_pairwise_dots = {
    .needs = dots_needs,
    .forward = dots_forward,
    .backward = dots_backward,
};
