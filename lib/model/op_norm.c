/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "layer_norm": over the last dimension of a vector or sequence (Ba et
 * al., 2016); attribute: 16 = epsilon. Kind "group_norm": over groups of an
 * image's channels (Wu and He, ECCV 2018); attributes: 16 = groups, 17 =
 * epsilon. Mean and 1 / deviation of each row or group are kept. */
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/sink.h"

enum { GAMMA = 0, BETA = 1 };

static fl_status check_epsilon(const fli_node *node)
{
  float epsilon = node->attributes.norm.epsilon;
  if (epsilon > 0.0f && epsilon < 1.0f) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "%s %s: epsilon is %g, want above 0, below 1",
                   node->op->name, node->name, (double)epsilon);
}

static fl_status layer_norm_shape(fli_node *node)
{
  if (node->input.n_dims != 1 && node->input.n_dims != 2) {
    return fli_refuse_dims(node, "1 or 2");
  }
  node->output = node->input;
  return check_epsilon(node);
}

static fl_status group_norm_shape(fli_node *node)
{
  uint32_t groups = node->attributes.norm.groups;
  if (node->input.n_dims != 3) {
    return fli_refuse_dims(node, "an image's 3");
  }
  if (groups == 0 || node->input.dims[0] % groups != 0) {
    return fli_error(FL_E_ARGUMENT,
                     "group norm %s: got %u groups, want a divisor of the "
                     "channels",
                     node->name, groups);
  }
  node->output = node->input;
  return check_epsilon(node);
}

static uint64_t channels_of(const fli_node *node)
{
  return node->input.dims[node->input.n_dims == 3 ? 0 : node->input.n_dims - 1];
}

static uint32_t norm_parameters(const fli_node *node,
                                fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  fli_parameter gamma = {
      .suffix = ".weight",
      .shape = {.n_dims = 1, .dims = {channels_of(node)}},
      .is_trainable = 1,
      .initial = 1.0f,
  };
  parameters[GAMMA] = gamma;
  parameters[BETA] = gamma;
  parameters[BETA].suffix = ".bias";
  parameters[BETA].initial = 0.0f;
  return 2;
}

static void layer_norm_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE, node->attributes.norm.epsilon);
}

static int layer_norm_unpack(fli_node *node, uint32_t key,
                             fli_msg_reader *reader)
{
  if (key != FLI_FIRST_ATTRIBUTE) return 0;
  node->attributes.norm.epsilon = fli_reader_f32(reader);
  return 1;
}

static void group_norm_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.norm.groups);
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.norm.epsilon);
}

static int group_norm_unpack(fli_node *node, uint32_t key,
                             fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    node->attributes.norm.groups = fli_reader_u32(reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.norm.epsilon = fli_reader_f32(reader);
    return 1;
  default: return 0;
  }
}

/* Means per sample: of tokens, or of groups. */
static uint64_t means_of(const fli_node *node)
{
  if (node->input.n_dims == 3) return node->attributes.norm.groups;
  return node->input.count / channels_of(node);
}

/* Means and deviations; backward: sums for gamma and beta. */
static void norm_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  needs->kept = 2 * means_of(node) * n;
  needs->backward = 2 * channels_of(node);
}

static flk_layer_norm layer_norm_of(const fli_node *node, const fli_pass *pass)
{
  size_t rows = pass->n * (size_t)means_of(node);
  return (flk_layer_norm){
      .x = pass->x[0],
      .y = pass->y,
      .dy = pass->dy,
      .gamma = fli_value(pass, node, GAMMA),
      .beta = fli_value(pass, node, BETA),
      .mean = pass->kept,
      .rstd = pass->kept + rows,
      .rows = rows,
      .n = (size_t)channels_of(node),
      .epsilon = node->attributes.norm.epsilon,
  };
}

static flk_group_norm group_norm_of(const fli_node *node, const fli_pass *pass)
{
  return (flk_group_norm){
      .x = pass->x[0],
      .y = pass->y,
      .dy = pass->dy,
      .gamma = fli_value(pass, node, GAMMA),
      .beta = fli_value(pass, node, BETA),
      .mean = pass->kept,
      .rstd = pass->kept + pass->n * (size_t)means_of(node),
      .images = pass->n,
      .pixels = (size_t)(node->input.dims[1] * node->input.dims[2]),
      .pixel = (size_t)node->input.pixel,
      .channels = (size_t)channels_of(node),
      .groups = node->attributes.norm.groups,
      .epsilon = node->attributes.norm.epsilon,
  };
}

static void norm_forward(const fli_node *node, fli_pass *pass)
{
  if (node->input.n_dims == 3) {
    flk_group_norm norm = group_norm_of(node, pass);
    flk_nn()->norm.group(&norm);
  } else {
    flk_layer_norm norm = layer_norm_of(node, pass);
    flk_nn()->norm.layer(&norm);
  }
}

static void put_sums(const fli_node *node, fli_pass *pass, uint32_t parameter,
                     const float *sums)
{
  if (!fli_is_trained(node, parameter)) return;
  fli_target target = fli_sink_target(pass, node, parameter);
  memcpy(target.at, sums, (size_t)channels_of(node) * sizeof *sums);
  fli_sink_done(pass, node, parameter);
}

static void norm_backward(const fli_node *node, fli_pass *pass)
{
  size_t channels = (size_t)channels_of(node);
  flk_norm_gradients gradients = {.dx = pass->dx[0], .does_add = pass->adds[0]};
  if (node->trained) {
    gradients.dgamma = pass->scratch;
    gradients.dbeta = pass->scratch + channels;
    memset(pass->scratch, 0, 2 * channels * sizeof *pass->scratch);
  }
  if (node->input.n_dims == 3) {
    flk_group_norm norm = group_norm_of(node, pass);
    flk_nn()->norm.group_back(&norm, &gradients);
  } else {
    flk_layer_norm norm = layer_norm_of(node, pass);
    flk_nn()->norm.layer_back(&norm, &gradients);
  }
  put_sums(node, pass, GAMMA, gradients.dgamma);
  put_sums(node, pass, BETA, gradients.dbeta);
}

const fli_node_op fli_op_layer_norm = {
    .kind = FLI_OP_LAYER_NORM,
    .name = "layer_norm",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_ADDS,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = layer_norm_shape,
    .parameters = norm_parameters,
    .pack = layer_norm_pack,
    .unpack = layer_norm_unpack,
};

const fli_node_run fli_run_layer_norm = {
    .needs = norm_needs,
    .forward = norm_forward,
    .backward = norm_backward,
};

const fli_node_op fli_op_group_norm = {
    .kind = FLI_OP_GROUP_NORM,
    .name = "group_norm",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_ADDS,
    .n_inputs = 1,
    .n_attributes = 2,
    .shape = group_norm_shape,
    .parameters = norm_parameters,
    .pack = group_norm_pack,
    .unpack = group_norm_unpack,
};

const fli_node_run fli_run_group_norm = {
    .needs = norm_needs,
    .forward = norm_forward,
    .backward = norm_backward,
};
