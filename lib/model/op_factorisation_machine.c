/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "factorisation_machine": of the vectors of a sample's fields, [fields,
 * width], the sum over all pairs of <v_i, v_j>, in linear time as
 * .5 sum_d ((sum_f v)^2 - sum_f v^2) (Rendle, ICDM 2010, lemma 3.1); [1]. */
#include "model/node.h"

#include <string.h>

#include "model/interactions.h"

static fl_status machine_shape(fli_node *node)
{
  uint64_t fields = 0;
  node->output = (fli_shape){.n_dims = 1, .dims = {1}, .count = 1};
  return fli_fields_check(node, &fields);
}

/* sums[d] = sum_f x[f][d] */
static void add_up(const float *restrict x, size_t fields, size_t width,
                   float *restrict sums)
{
  memcpy(sums, x, width * sizeof *sums);
  for (size_t f = 1; f < fields; f++) {
    for (size_t d = 0; d < width; d++) {
      sums[d] += x[f * width + d];
    }
  }
}

/* squares[d] = sum_f x[f][d]^2 */
static void add_squares(const float *restrict x, size_t fields, size_t width,
                        float *restrict squares)
{
  memset(squares, 0, width * sizeof *squares);
  for (size_t f = 0; f < fields; f++) {
    for (size_t d = 0; d < width; d++) {
      squares[d] += x[f * width + d] * x[f * width + d];
    }
  }
}

static void machine_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  (void)n; /* sample by sample */
  needs->forward = 2 * node->input.dims[1];
  needs->backward = node->input.dims[1];
}

static void machine_forward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  float *sums = pass->scratch;
  float *squares = pass->scratch + width;
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * fields * width;
    double total = 0.0;
    add_up(x, fields, width, sums);
    add_squares(x, fields, width, squares);
    for (size_t d = 0; d < width; d++) {
      total += (double)sums[d] * (double)sums[d] - (double)squares[d];
    }
    pass->y[k] = (float)(0.5 * total);
  }
}

/* The gradient of v_f is that of the output times what all others sum up to. */
static void machine_backward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  const float *restrict sums = pass->scratch;
  if (!pass->dx[0]) return;
  if (!pass->adds[0]) {
    memset(pass->dx[0], 0, pass->n * fields * width * sizeof(float));
  }
  for (size_t k = 0; k < pass->n; k++) {
    const float *restrict x = pass->x[0] + k * fields * width;
    float *restrict dx = pass->dx[0] + k * fields * width;
    float dy = pass->dy[k];
    add_up(x, fields, width, pass->scratch);
    for (size_t f = 0; f < fields; f++) {
      for (size_t d = 0; d < width; d++) {
        dx[f * width + d] += dy * (sums[d] - x[f * width + d]);
      }
    }
  }
}

const fli_node_op fli_op_factorisation_machine = {
    .kind = FLI_OP_FACTORISATION_MACHINE,
    .name = "factorisation_machine",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_ADDS,
    .n_inputs = 1,
    .shape = machine_shape,
};

const fli_node_run fli_run_factorisation_machine = {
    .needs = machine_needs,
    .forward = machine_forward,
    .backward = machine_backward,
};
