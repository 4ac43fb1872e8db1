/* SPDX-License-Identifier: Apache-2.0 */
/* How the vectors of a sample's fields, [fields, width], go together.
 *
 * Kind "factorisation_machine": the sum over all pairs of <v_i, v_j>, in linear
 * time as .5 sum_d ((sum_f v)^2 - sum_f v^2) (Rendle, ICDM 2010, lemma 3.1);
 * [1].
 *
 * Kind "pairwise_dots": each <v_i, v_j> by itself (DLRM: Naumov et al., 2019),
 * j < i, by i and then j; [fields (fields - 1) / 2]. */
#include "model/node.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

enum { LANES = 8 }; /* partial sums of a dot product */

static fl_status interactions_shape(fli_node *node)
{
  uint64_t fields = node->input.dims[0];
  if (node->input.n_dims != 2 || fields < 2) {
    return fli_error(FL_E_DIM,
                     "%s %s: input has %u dimensions, %" PRIu64
                     " the first, want the vectors of 2 fields or more, "
                     "[fields, width]",
                     node->op->name, node->name, node->input.n_dims, fields);
  }
  node->output = (fli_shape){.n_dims = 1, .dims = {1}};
  if (node->op == &fli_op_pairwise_dots) {
    /* dims are <= 2^32: no overflow */
    node->output.dims[0] =
        fields % 2 ? (fields - 1) / 2 * fields : fields / 2 * (fields - 1);
  }
  return fli_shape_check(&node->output, node->name);
}

/* ---- factorisation machine ---------------------------------------------- */

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
    .shape = interactions_shape,
};

const fli_node_run fli_run_factorisation_machine = {
    .needs = machine_needs,
    .forward = machine_forward,
    .backward = machine_backward,
};

/* ---- pairs -------------------------------------------------------------- */

static float dot(const float *restrict a, const float *restrict b, size_t n)
{
  float sums[LANES] = {0.0f};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (size_t l = 0; l < LANES; l++) {
      sums[l] += a[i + l] * b[i + l];
    }
  }
  for (size_t l = 0; i < n; i++, l++) {
    sums[l] += a[i] * b[i];
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
         ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static void dots_forward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  float *y = pass->y;
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * fields * width;
    for (size_t i = 1; i < fields; i++) {
      for (size_t j = 0; j < i; j++) {
        *y++ = dot(x + i * width, x + j * width, width);
      }
    }
  }
}

/* Pair (i, j): v_i gets dy v_j, and the other way round. */
static void give_pair(const float *restrict xi, const float *restrict xj,
                      float *restrict di, float *restrict dj, float dy,
                      size_t width)
{
  for (size_t d = 0; d < width; d++) {
    di[d] += dy * xj[d];
    dj[d] += dy * xi[d];
  }
}

static void dots_backward(const fli_node *node, fli_pass *pass)
{
  size_t fields = (size_t)node->input.dims[0];
  size_t width = (size_t)node->input.dims[1];
  const float *dy = pass->dy;
  if (!pass->dx[0]) return;
  if (!pass->adds[0]) {
    memset(pass->dx[0], 0, pass->n * fields * width * sizeof(float));
  }
  for (size_t k = 0; k < pass->n; k++) {
    const float *x = pass->x[0] + k * fields * width;
    float *dx = pass->dx[0] + k * fields * width;
    for (size_t i = 1; i < fields; i++) {
      for (size_t j = 0; j < i; j++) {
        give_pair(x + i * width, x + j * width, dx + i * width, dx + j * width,
                  *dy++, width);
      }
    }
  }
}

const fli_node_op fli_op_pairwise_dots = {
    .kind = FLI_OP_PAIRWISE_DOTS,
    .name = "pairwise_dots",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_ADDS,
    .n_inputs = 1,
    .shape = interactions_shape,
};

const fli_node_run fli_run_pairwise_dots = {
    .forward = dots_forward,
    .backward = dots_backward,
};
