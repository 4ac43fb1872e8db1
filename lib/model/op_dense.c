/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "dense": y = x W^T + b with W [units, inputs], for each token of a
 * sequence alike, and max(0, y) in the
 * same sweep as the bias when a ReLU follows. Attribute: 16 = units.
 *
 * Backward: dx = dy W first, because the sink may be the weights themselves;
 * then dW = dy^T x and db = column sums of dy go straight into the sink. */
#include "model/sink.h"

#include "base/error.h"
#include "linalg/linalg.h"

enum { WEIGHT = 0, BIAS = 1 };

static uint64_t inputs_of(const fli_node *node)
{
  return node->input.dims[node->input.n_dims - 1];
}

/* Rows of a batch: samples, or tokens of all samples. */
static size_t rows_of(const fli_node *node, const fli_pass *pass)
{
  return pass->n * (size_t)(node->input.count / inputs_of(node));
}

static fl_status dense_shape(fli_node *node)
{
  uint64_t units = node->attributes.dense.units;
  if (units == 0) {
    return fli_error(FL_E_ARGUMENT, "dense %s: got 0 units, want >= 1",
                     node->name);
  }
  if (node->input.n_dims != 1 && node->input.n_dims != 2) {
    return fli_error(
        FL_E_DIM,
        "dense %s: input has %u dimensions, want 1 or a sequence's "
        "2 (flatten it)",
        node->name, node->input.n_dims);
  }
  node->output = node->input;
  node->output.dims[node->input.n_dims - 1] = units;
  return fli_shape_check(&node->output, node->name);
}

static uint32_t dense_parameters(const fli_node *node,
                                 fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  uint64_t units = node->attributes.dense.units;
  uint64_t inputs = inputs_of(node);
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
  size_t inputs = (size_t)inputs_of(node);
  size_t units = (size_t)node->attributes.dense.units;
  size_t rows = rows_of(node, pass);
  fli_sgemm(&(fli_gemm){
      .trans_b = 1,
      .m = rows,
      .n = units,
      .k = inputs,
      .alpha = 1.0f,
      .a = pass->x[0],
      .lda = inputs,
      .b = fli_value(pass, node, WEIGHT),
      .ldb = inputs,
      .c = pass->y,
      .ldc = units,
  });
  if (node->does_relu) {
    add_bias_relu(pass->y, fli_value(pass, node, BIAS), rows, units);
  } else {
    add_bias(pass->y, fli_value(pass, node, BIAS), rows, units);
  }
}

/* bias = keep * bias + scale * column sums of dy */
static void bias_backward(fli_target target, const float *restrict dy,
                          size_t rows, size_t units)
{
  float *restrict bias = target.at;
  for (size_t j = 0; j < units; j++) {
    bias[j] = target.keep == 0.0f ? 0.0f : bias[j] * target.keep;
  }
  for (size_t i = 0; i < rows; i++, dy += units) {
    for (size_t j = 0; j < units; j++) {
      bias[j] += target.scale * dy[j];
    }
  }
}

static void weight_backward(const fli_node *node, fli_pass *pass)
{
  size_t inputs = (size_t)inputs_of(node);
  size_t units = (size_t)node->attributes.dense.units;
  fli_target target = fli_sink_target(pass, node, WEIGHT);
  fli_sgemm(&(fli_gemm){
      .trans_a = 1,
      .m = units,
      .n = inputs,
      .k = rows_of(node, pass),
      .alpha = target.scale,
      .a = pass->dy,
      .lda = units,
      .b = pass->x[0],
      .ldb = inputs,
      .beta = target.keep,
      .c = target.at,
      .ldc = inputs,
  });
  fli_sink_done(pass, node, WEIGHT);
}

static void dense_backward(const fli_node *node, fli_pass *pass)
{
  size_t inputs = (size_t)inputs_of(node);
  size_t units = (size_t)node->attributes.dense.units;
  if (pass->dx[0]) {
    fli_sgemm(&(fli_gemm){
        .m = rows_of(node, pass),
        .n = inputs,
        .k = units,
        .alpha = 1.0f,
        .a = pass->dy,
        .lda = units,
        .b = fli_value(pass, node, WEIGHT),
        .ldb = inputs,
        .beta = pass->adds[0] ? 1.0f : 0.0f,
        .c = pass->dx[0],
        .ldc = inputs,
    });
  }
  if (fli_is_trained(node, WEIGHT)) weight_backward(node, pass);
  if (fli_is_trained(node, BIAS)) {
    bias_backward(fli_sink_target(pass, node, BIAS), pass->dy,
                  rows_of(node, pass), units);
    fli_sink_done(pass, node, BIAS);
  }
}

const fli_node_op fli_op_dense = {
    .name = "dense",
    .flags = FLI_NODE_KEEPS_TO_TRAIN | FLI_NODE_ADDS | FLI_NODE_DIRECT,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = dense_shape,
    .parameters = dense_parameters,
    .pack = dense_pack,
    .unpack = dense_unpack,
    .forward = dense_forward,
    .backward = dense_backward,
};
