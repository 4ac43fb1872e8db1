/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "flatten": each sample as one dimension, in the order that its shape
 * has to the outside: an image, whose channels lie side by side here, becomes
 * [channels][height][width]. Where both orders are the same this is a view and
 * nothing runs. */
#include "model/node.h"

static fl_status flatten_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  node->output =
      (fli_shape){.n_dims = 1, .dims = {in->count}, .count = in->count};
  int is_one_pixel = in->n_dims == 3 && in->dims[1] * in->dims[2] == 1;
  /* One pixel's channels are in order, but samples lie `pixel` apart. */
  if (in->pixel <= 1 || (is_one_pixel && in->pixel == in->dims[0])) {
    node->flags |= FLI_NODE_VIEW;
  }
  return FL_OK;
}

/* planes[c][i] <-> pixels[i][c] */
static void flatten_forward(const fli_node *node, fli_pass *pass)
{
  const fli_shape *in = &node->input;
  size_t channels = (size_t)in->dims[0];
  size_t pixel = (size_t)in->pixel;
  size_t n = (size_t)(in->dims[1] * in->dims[2]);
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * n * pixel;
    float *y = pass->y + k * n * channels;
    for (size_t c = 0; c < channels; c++) {
      for (size_t i = 0; i < n; i++) {
        y[c * n + i] = x[i * pixel + c];
      }
    }
  }
}

static void view_backward(const fli_node *node, fli_pass *pass)
{
  size_t n = pass->n * (size_t)node->output.count;
  for (size_t i = 0; i < n; i++) {
    pass->dx[0][i] = pass->dy[i];
  }
}

static void flatten_backward(const fli_node *node, fli_pass *pass)
{
  const fli_shape *in = &node->input;
  size_t channels = (size_t)in->dims[0];
  size_t pixel = (size_t)in->pixel;
  size_t n = (size_t)(in->dims[1] * in->dims[2]);
  if (!pass->dx[0]) return;
  if (node->flags & FLI_NODE_VIEW) {
    view_backward(node, pass);
    return;
  }
  for (size_t k = 0; k < pass->n; k++) {
    const float *dy = pass->dy + k * n * channels;
    float *dx = pass->dx[0] + k * n * pixel;
    for (size_t c = 0; c < channels; c++) {
      for (size_t i = 0; i < n; i++) {
        dx[i * pixel + c] = dy[c * n + i];
      }
    }
  }
}

const fli_node_op fli_op_flatten = {
    .kind = FLI_OP_FLATTEN,
    .name = "flatten",
    .n_inputs = 1,
    .shape = flatten_shape,
};

const fli_node_run fli_run_flatten = {
    .forward = flatten_forward,
    .backward = flatten_backward,
};
