/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "dropout": in training each element is zeroed with probability `rate`
 * and the others are scaled up; otherwise nothing runs but a copy, if that.
 * What is zeroed depends on the fit's seed, the step, the node and the element
 * alone. Attribute: 16 = rate. Kept: one bit per element. */
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/node.h"

static fl_status dropout_shape(fli_node *node)
{
  float rate = node->attributes.dropout.rate;
  if (!(rate >= 0.0f && rate < 1.0f)) {
    return fli_error(FL_E_ARGUMENT, "dropout %s: rate is %g, want 0..1, not 1",
                     node->name, (double)rate);
  }
  node->output = node->input;
  return FL_OK;
}

static void dropout_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE, node->attributes.dropout.rate);
}

static int dropout_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  if (key != FLI_FIRST_ATTRIBUTE) return 0;
  node->attributes.dropout.rate = fli_reader_f32(reader);
  return 1;
}

/* Bytes of a sample's mask, and the floats that they take. */
static size_t mask_bytes(const fli_node *node)
{
  return ((size_t)fli_shape_floats(&node->output) + 7) / 8;
}

static void dropout_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  needs->kept = ((uint64_t)mask_bytes(node) * n + 3) / 4;
}

/* Sample by sample, because elements of one call are numbered in 32 bits. A
 * sample has a stream of its own under each seed, so that neighbouring seeds,
 * which devices are likely to have, do not share masks. */
static void dropout_forward(const fli_node *node, fli_pass *pass)
{
  size_t size = (size_t)fli_shape_floats(&node->output);
  uint8_t *mask = (uint8_t *)pass->kept;
  if (!pass->is_training) {
    if (pass->y != pass->x[0]) {
      memcpy(pass->y, pass->x[0], pass->n * size * sizeof *pass->y);
    }
    return;
  }
  for (size_t k = 0; k < pass->n; k++) {
    flk_dropout dropout;
    flk_dropout_init(&dropout, pass->seed,
                     pass->step * FLI_MAX_NODES + node->position, (uint32_t)k,
                     node->attributes.dropout.rate);
    flk_nn()->dropout.forward(pass->y + k * size, pass->x[0] + k * size,
                              mask + k * mask_bytes(node), size, 0, &dropout);
  }
}

static void dropout_backward(const fli_node *node, fli_pass *pass)
{
  size_t size = (size_t)fli_shape_floats(&node->output);
  const uint8_t *mask = (const uint8_t *)pass->kept;
  float factor = 1.0f / (1.0f - node->attributes.dropout.rate);
  if (!pass->dx[0]) return;
  for (size_t k = 0; k < pass->n; k++) {
    flk_nn()->dropout.backward(pass->dx[0] + k * size, pass->dy + k * size,
                               mask + k * mask_bytes(node), size, factor);
  }
}

const fli_node_op fli_op_dropout = {
    .kind = FLI_OP_DROPOUT,
    .name = "dropout",
    .flags = FLI_NODE_IN_PLACE,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = dropout_shape,
    .pack = dropout_pack,
    .unpack = dropout_unpack,
};

const fli_node_run fli_run_dropout = {
    .needs = dropout_needs,
    .forward = dropout_forward,
    .backward = dropout_backward,
};
