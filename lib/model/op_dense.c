/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "dense": y = x W^T + b with W [units, inputs], and max(0, y) in the
 * same sweep as the bias when a ReLU follows. Attribute: 16 = units.
 *
 * Backward: dx = dy W first, because the sink may be the weights themselves;
 * then dW = dy^T x and db = column sums of dy go straight into the sink. */
#include "model/node.h"

#include "base/error.h"
#include "linalg/linalg.h"

enum { WEIGHT = 0, BIAS = 1 };

static fl_status dense_shape(fli_node *node)
{
  uint64_t units = node->attributes.dense.units;
  if (units == 0) {
    return fli_error(FL_E_ARGUMENT, "dense %s: got 0 units, want >= 1",
                     node->name);
  }
  if (node->input.n_dims != 1) {
    return fli_error(FL_E_DIM,
                     "dense %s: input has %u dimensions, want 1 (flatten it)",
                     node->name, node->input.n_dims);
  }
  node->output = (fli_shape){.n_dims = 1, .dims = {units}};
  return fli_shape_check(&node->output, node->name);
}

static uint32_t dense_parameters(const fli_node *node,
                                 fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  uint64_t units = node->attributes.dense.units;
  uint64_t inputs = node->input.count;
  parameters[WEIGHT] = (fli_parameter){
      .suffix = ".weight",
      .shape = {.n_dims = 2, .dims = {units, inputs}},
      .is_trainable = 1,
      .fan_in = inputs,
  };
  parameters[BIAS] = (fli_parameter){
      .suffix = ".bias",
      .shape = {.n_dims = 1, .dims = {units}},
      .is_trainable = 1,
      .fan_in = inputs,
  };
  return 2;
}

static void dense_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.dense.units);
}

static int dense_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  if (key != FLI_FIRST_ATTRIBUTE) return 0;
  node->attributes.dense.units = fli_reader_u64(reader);
  return 1;
}

static void add_bias(float *restrict y, const float *restrict bias, size_t rows,
                     size_t columns)
{
  for (size_t i = 0; i < rows; i++, y += columns) {
    for (size_t j = 0; j < columns; j++) {
      y[j] += bias[j];
    }
  }
}

static void add_bias_relu(float *restrict y, const float *restrict bias,
                          size_t rows, size_t columns)
{
  for (size_t i = 0; i < rows; i++, y += columns) {
    for (size_t j = 0; j < columns; j++) {
      float sum = y[j] + bias[j];
      y[j] = sum < 0.0f ? 0.0f : sum;
    }
  }
}

static void dense_forward(const fli_node *node, fli_pass *pass)
{
  size_t inputs = (size_t)node->input.count;
  size_t units = (size_t)node->output.count;
  const float *bias = pass->weights + node->parameters[BIAS];
  fli_sgemm(&(fli_gemm){
      .trans_b = 1,
      .m = pass->batch->n,
      .n = units,
      .k = inputs,
      .alpha = 1.0f,
      .a = pass->x,
      .lda = inputs,
      .b = pass->weights + node->parameters[WEIGHT],
      .ldb = inputs,
      .c = pass->y,
      .ldc = units,
  });
  if (node->does_relu) {
    add_bias_relu(pass->y, bias, pass->batch->n, units);
  } else {
    add_bias(pass->y, bias, pass->batch->n, units);
  }
}

/* bias = keep * bias + scale * column sums of dy */
static void bias_backward(float *restrict bias, const float *restrict dy,
                          size_t rows, size_t units, float scale, float keep)
{
  for (size_t j = 0; j < units; j++) {
    bias[j] *= keep;
  }
  for (size_t i = 0; i < rows; i++, dy += units) {
    for (size_t j = 0; j < units; j++) {
      bias[j] += scale * dy[j];
    }
  }
}

static void dense_backward(const fli_node *node, const fli_pass *pass)
{
  size_t inputs = (size_t)node->input.count;
  size_t units = (size_t)node->output.count;
  if (pass->dx) {
    fli_sgemm(&(fli_gemm){
        .m = pass->batch->n,
        .n = inputs,
        .k = units,
        .alpha = 1.0f,
        .a = pass->dy,
        .lda = units,
        .b = pass->weights + node->parameters[WEIGHT],
        .ldb = inputs,
        .c = pass->dx,
        .ldc = inputs,
    });
  }
  fli_sgemm(&(fli_gemm){
      .trans_a = 1,
      .m = units,
      .n = inputs,
      .k = pass->batch->n,
      .alpha = pass->sink.scale,
      .a = pass->dy,
      .lda = units,
      .b = pass->x,
      .ldb = inputs,
      .beta = pass->sink.keep,
      .c = pass->sink.target + node->parameters[WEIGHT],
      .ldc = inputs,
  });
  bias_backward(pass->sink.target + node->parameters[BIAS], pass->dy,
                pass->batch->n, units, pass->sink.scale, pass->sink.keep);
}

const fli_node_op fli_op_dense = {
    .name = "dense",
    .flags = FLI_NODE_KEEPS_INPUT,
    .n_attributes = 1,
    .shape = dense_shape,
    .parameters = dense_parameters,
    .pack = dense_pack,
    .unpack = dense_unpack,
    .forward = dense_forward,
    .backward = dense_backward,
};
