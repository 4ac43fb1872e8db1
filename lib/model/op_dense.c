/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "dense": y = x W^T + b with W [units, inputs], for each token of a
 * sequence alike; max(0, y) in the same sweep when a ReLU follows. Attribute:
 * 16 = units.
 *
 * Kind "dense_lora": the same with fixed W and b, and a low-rank update that is
 * trained: y = x W^T + b + s (x A^T) B^T with A [rank, inputs], B [units, rank]
 * and s = alpha / rank (Hu et al., "LoRA", 2021, section 4.1). Attributes:
 * 16 = units, 17 = rank, 18 = alpha. x A^T is kept for the way back.
 *
 * Backward: dx first, because the target of a gradient may be the weights
 * themselves. */
#include "base/error.h"
#include "kernels/nn/nn.h"
#include "linalg/linalg.h"
#include "model/sink.h"

enum { WEIGHT = 0, BIAS = 1, LORA_A = 2, LORA_B = 3 };

static size_t inputs_of(const fli_node *node)
{
  return (size_t)node->input.dims[node->input.n_dims - 1];
}

static size_t units_of(const fli_node *node)
{
  return (size_t)node->attributes.dense.units;
}

/* Rows of a batch of n samples: samples, or tokens of all samples. */
static size_t rows_of(const fli_node *node, size_t n)
{
  return n * ((size_t)node->input.count / inputs_of(node));
}

static size_t rank_of(const fli_node *node)
{
  return (size_t)node->attributes.dense.rank;
}

static float lora_scale(const fli_node *node)
{
  return node->attributes.dense.alpha / (float)node->attributes.dense.rank;
}

static fl_status dense_shape(fli_node *node)
{
  uint64_t units = node->attributes.dense.units;
  if (units == 0) {
    return fli_error(FL_E_ARGUMENT, "dense %s: got 0 units, want >= 1",
                     node->name);
  }
  if (node->input.n_dims != 1 && node->input.n_dims != 2) {
    return fli_refuse_dims(node, "1 or a sequence's 2 (flatten it)");
  }
  node->output = node->input;
  node->output.dims[node->input.n_dims - 1] = units;
  return fli_shape_check(&node->output, node->name);
}

static fl_status lora_shape(fli_node *node)
{
  uint64_t rank = node->attributes.dense.rank;
  float alpha = node->attributes.dense.alpha;
  if (rank == 0 || rank > FLI_MAX_DIM || !(alpha > 0.0f && alpha < 1e6f)) {
    return fli_error(FL_E_ARGUMENT,
                     "dense %s: LoRA's rank or alpha out of range, want >= 1 "
                     "and > 0",
                     node->name);
  }
  return dense_shape(node);
}

static uint32_t dense_parameters(const fli_node *node,
                                 fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  uint64_t units = units_of(node);
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

static uint32_t lora_parameters(const fli_node *node,
                                fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  uint64_t rank = rank_of(node);
  (void)dense_parameters(node, parameters);
  parameters[WEIGHT].is_trainable = 0;
  parameters[BIAS].is_trainable = 0;
  parameters[LORA_A] = (fli_parameter){
      .suffix = ".lora_a",
      .shape = {.n_dims = 2, .dims = {rank, inputs_of(node)}},
      .is_trainable = 1,
      .fan_in = inputs_of(node),
  };
  parameters[LORA_B] = (fli_parameter){
      .suffix = ".lora_b",
      .shape = {.n_dims = 2, .dims = {units_of(node), rank}},
      .is_trainable = 1,
  };
  return 4;
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

static void lora_pack(const fli_node *node, fli_msg_writer *writer)
{
  dense_pack(node, writer);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.dense.rank);
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE + 2, node->attributes.dense.alpha);
}

static int lora_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.dense.rank = fli_reader_u64(reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 2:
    node->attributes.dense.alpha = fli_reader_f32(reader);
    return 1;
  default: return dense_unpack(node, key, reader);
  }
}

static void multiply(const fli_pass *pass, const fli_gemm *gemm)
{
  fli_sgemm_parallel(pass->context, gemm);
}

/* y = x W^T + b; `does_relu`: and max(0, y) */
static void base_forward(const fli_node *node, fli_pass *pass, int does_relu)
{
  size_t inputs = inputs_of(node);
  size_t units = units_of(node);
  multiply(pass, &(fli_gemm){
                     .trans_b = 1,
                     .m = rows_of(node, pass->n),
                     .n = units,
                     .k = inputs,
                     .alpha = 1.0f,
                     .a = pass->x[0],
                     .lda = inputs,
                     .b = fli_value(pass, node, WEIGHT),
                     .ldb = inputs,
                     .c = pass->y,
                     .ldc = units,
                     .bias = fli_value(pass, node, BIAS),
                     .does_relu = does_relu,
                 });
}

static void dense_forward(const fli_node *node, fli_pass *pass)
{
  base_forward(node, pass, node->does_relu != 0);
}

static void lora_forward(const fli_node *node, fli_pass *pass)
{
  size_t inputs = inputs_of(node);
  size_t units = units_of(node);
  size_t rank = rank_of(node);
  size_t rows = rows_of(node, pass->n);
  base_forward(node, pass, 0);
  multiply(pass, &(fli_gemm){
                     .trans_b = 1,
                     .m = rows,
                     .n = rank,
                     .k = inputs,
                     .alpha = 1.0f,
                     .a = pass->x[0],
                     .lda = inputs,
                     .b = fli_value(pass, node, LORA_A),
                     .ldb = inputs,
                     .c = pass->kept,
                     .ldc = rank,
                 });
  multiply(pass, &(fli_gemm){
                     .trans_b = 1,
                     .m = rows,
                     .n = units,
                     .k = rank,
                     .alpha = lora_scale(node),
                     .a = pass->kept,
                     .lda = rank,
                     .b = fli_value(pass, node, LORA_B),
                     .ldb = rank,
                     .beta = 1.0f,
                     .c = pass->y,
                     .ldc = units,
                     .does_relu = node->does_relu != 0,
                 });
}

/* dx = or += dy M, M [k, inputs] */
static void add_dx(const fli_node *node, fli_pass *pass, const float *dy,
                   const float *matrix, size_t k, int adds)
{
  size_t inputs = inputs_of(node);
  multiply(pass, &(fli_gemm){
                     .m = rows_of(node, pass->n),
                     .n = inputs,
                     .k = k,
                     .alpha = 1.0f,
                     .a = dy,
                     .lda = k,
                     .b = matrix,
                     .ldb = inputs,
                     .beta = adds ? 1.0f : 0.0f,
                     .c = pass->dx[0],
                     .ldc = inputs,
                 });
}

/* Gradient of a tensor [m, n]: factor a^T b, a [rows, m], b [rows, n]. */
static void put_gradient(const fli_node *node, fli_pass *pass,
                         uint32_t parameter, const fli_gemm *product)
{
  fli_target target = fli_sink_target(pass, node, parameter);
  fli_gemm gemm = *product;
  gemm.trans_a = 1;
  gemm.k = rows_of(node, pass->n);
  gemm.lda = gemm.m;
  gemm.ldb = gemm.n;
  gemm.ldc = gemm.n;
  gemm.alpha = product->alpha * target.scale;
  gemm.beta = target.keep;
  gemm.c = target.at;
  multiply(pass, &gemm);
  fli_sink_done(pass, node, parameter);
}

static void base_backward(const fli_node *node, fli_pass *pass)
{
  size_t units = units_of(node);
  if (fli_is_trained(node, WEIGHT)) {
    put_gradient(node, pass, WEIGHT,
                 &(fli_gemm){.m = units,
                             .n = inputs_of(node),
                             .alpha = 1.0f,
                             .a = pass->dy,
                             .b = pass->x[0]});
  }
  if (fli_is_trained(node, BIAS)) {
    fli_target target = fli_sink_target(pass, node, BIAS);
    flk_nn()->vector.column_sums(target.at, pass->dy, rows_of(node, pass->n),
                                 units, 0);
    fli_sink_done(pass, node, BIAS);
  }
}

static void dense_backward(const fli_node *node, fli_pass *pass)
{
  if (pass->dx[0]) {
    add_dx(node, pass, pass->dy, fli_value(pass, node, WEIGHT), units_of(node),
           pass->adds[0]);
  }
  base_backward(node, pass);
}

/* With t = x A^T: dt = s dy B, dB = s dy^T t, dA = dt^T x,
 * dx = dy W + dt A. */
static void lora_backward(const fli_node *node, fli_pass *pass)
{
  size_t units = units_of(node);
  size_t rank = rank_of(node);
  float scale = lora_scale(node);
  multiply(pass, &(fli_gemm){
                     .m = rows_of(node, pass->n),
                     .n = rank,
                     .k = units,
                     .alpha = scale,
                     .a = pass->dy,
                     .lda = units,
                     .b = fli_value(pass, node, LORA_B),
                     .ldb = rank,
                     .c = pass->scratch,
                     .ldc = rank,
                 });
  if (pass->dx[0]) {
    add_dx(node, pass, pass->dy, fli_value(pass, node, WEIGHT), units,
           pass->adds[0]);
    add_dx(node, pass, pass->scratch, fli_value(pass, node, LORA_A), rank, 1);
  }
  if (fli_is_trained(node, LORA_A)) {
    put_gradient(node, pass, LORA_A,
                 &(fli_gemm){.m = rank,
                             .n = inputs_of(node),
                             .alpha = 1.0f,
                             .a = pass->scratch,
                             .b = pass->x[0]});
  }
  if (fli_is_trained(node, LORA_B)) {
    put_gradient(node, pass, LORA_B,
                 &(fli_gemm){.m = units,
                             .n = rank,
                             .alpha = scale,
                             .a = pass->dy,
                             .b = pass->kept});
  }
}

static void lora_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  uint64_t rows = n * (node->input.count / inputs_of(node));
  needs->kept = rows * rank_of(node);
  needs->backward = needs->kept;
}

const fli_node_op fli_op_dense = {
    .kind = FLI_OP_DENSE,
    .name = "dense",
    .flags = FLI_NODE_KEEPS_TO_TRAIN | FLI_NODE_ADDS | FLI_NODE_DIRECT,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = dense_shape,
    .parameters = dense_parameters,
    .pack = dense_pack,
    .unpack = dense_unpack,
};

const fli_node_run fli_run_dense = {
    .forward = dense_forward,
    .backward = dense_backward,
};

const fli_node_op fli_op_dense_lora = {
    .kind = FLI_OP_DENSE_LORA,
    .name = "dense_lora",
    .flags = FLI_NODE_KEEPS_TO_TRAIN | FLI_NODE_ADDS,
    .n_inputs = 1,
    .n_attributes = 3,
    .shape = lora_shape,
    .parameters = lora_parameters,
    .pack = lora_pack,
    .unpack = lora_unpack,
};

const fli_node_run fli_run_dense_lora = {
    .needs = lora_needs,
    .forward = lora_forward,
    .backward = lora_backward,
};
