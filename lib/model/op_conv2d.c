/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "conv2d": convolution of an image with bias, and a ReLU behind it in
 * the same sweep, both ways (the way back reads y for its mask); or else the
 * pooling behind it, of few images at a time. Attributes:
 * 16 = filters, 17 = kernel height, 18 = kernel width, 19 = stride, 20 =
 * padding, 21 = groups.
 *
 * A batch is cut into ranges of RANGE images. Each gives sums of its own for
 * the gradient of the weights, added up in order: the same bits whether one
 * thread computes them or many. */
#include <inttypes.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "kernels/nn/nn.h"
#include "linalg/conv.h"
#include "model/pooling.h"
#include "model/sink.h"

enum {
  WEIGHT = 0,
  BIAS = 1,
  MAX_KERNEL = 1024,
  RANGE = 16,
  POOLED = 8 * 1024 /* floats to be pooled at a time, about: 32 KB */
};

static uint64_t out_size(uint64_t size, uint64_t kernel, uint64_t padding,
                         uint64_t stride)
{
  return (size + 2 * padding - kernel) / stride + 1;
}

static fl_status check_attributes(const fli_node *node)
{
  const char *what = NULL;
  uint32_t filters = node->attributes.conv.filters;
  uint32_t height = node->attributes.conv.height;
  uint32_t width = node->attributes.conv.width;
  uint32_t padding = node->attributes.conv.padding;
  uint32_t groups = node->attributes.conv.groups;
  if (filters == 0) what = "filters: want >= 1";
  if (height == 0 || width == 0) what = "kernel: want >= 1";
  if (node->attributes.conv.stride == 0) what = "stride: want >= 1";
  if (padding >= height || padding >= width) {
    what = "padding: want less than the kernel";
  }
  if (groups == 0 || filters % groups != 0 ||
      node->input.dims[0] % groups != 0) {
    what = "groups: want a divisor of filters and of the input's channels";
  }
  if (!what && (height > node->input.dims[1] + 2 * (uint64_t)padding ||
                width > node->input.dims[2] + 2 * (uint64_t)padding)) {
    what = "kernel: is larger than the image with its padding";
  }
  if (!what && (height > MAX_KERNEL || width > MAX_KERNEL)) {
    what = "kernel: want <= 1024";
  }
  if (!what) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "conv2d %s: %s", node->name, what);
}

static fl_status conv_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  if (in->n_dims != 3) {
    return fli_refuse_dims(node, "an image's 3");
  }
  fl_status st = check_attributes(node);
  if (st != FL_OK) return st;
  uint32_t padding = node->attributes.conv.padding;
  uint32_t stride = node->attributes.conv.stride;
  uint64_t filters = node->attributes.conv.filters;
  node->output = (fli_shape){
      .n_dims = 3,
      .dims = {filters,
               out_size(in->dims[1], node->attributes.conv.height, padding,
                        stride),
               out_size(in->dims[2], node->attributes.conv.width, padding,
                        stride)},
      .pixel = (filters + FLI_CONV_LANES - 1) / FLI_CONV_LANES * FLI_CONV_LANES,
  };
  return fli_shape_check(&node->output, node->name);
}

static uint32_t conv_parameters(const fli_node *node,
                                fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  uint64_t channels = node->input.dims[0] / node->attributes.conv.groups;
  uint64_t fan_in = channels * node->attributes.conv.height *
                    (uint64_t)node->attributes.conv.width;
  parameters[WEIGHT] = (fli_parameter){
      .suffix = ".weight",
      .shape = {.n_dims = 4,
                .dims = {node->attributes.conv.filters, channels,
                         node->attributes.conv.height,
                         node->attributes.conv.width}},
      .is_trainable = 1,
      .fan_in = fan_in,
  };
  parameters[BIAS] = (fli_parameter){
      .suffix = ".bias",
      .shape = {.n_dims = 1, .dims = {node->attributes.conv.filters}},
      .is_trainable = 1,
      .fan_in = fan_in,
  };
  return 2;
}

static void conv_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.conv.filters);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.conv.height);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 2, node->attributes.conv.width);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 3, node->attributes.conv.stride);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 4, node->attributes.conv.padding);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 5, node->attributes.conv.groups);
}

static int conv_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  uint32_t *fields[] = {
      &node->attributes.conv.filters, &node->attributes.conv.height,
      &node->attributes.conv.width,   &node->attributes.conv.stride,
      &node->attributes.conv.padding, &node->attributes.conv.groups};
  if (key < FLI_FIRST_ATTRIBUTE ||
      key >= FLI_FIRST_ATTRIBUTE + FLI_COUNT_OF(fields)) {
    return 0;
  }
  *fields[key - FLI_FIRST_ATTRIBUTE] = fli_reader_u32(reader);
  return 1;
}

/* Of the convolution itself. */
static const fli_shape *output_of(const fli_node *node)
{
  return node->pool ? &node->pool->input : &node->output;
}

static fli_conv conv_of(const fli_node *node)
{
  const fli_shape *out = output_of(node);
  fli_conv conv;
  fli_conv_init(&conv, &(fli_conv_shape){
                           .height = (size_t)node->input.dims[1],
                           .width = (size_t)node->input.dims[2],
                           .channels = (size_t)node->input.dims[0],
                           .pixel = (size_t)node->input.pixel,
                           .out_height = (size_t)out->dims[1],
                           .out_width = (size_t)out->dims[2],
                           .out_channels = (size_t)out->dims[0],
                           .out_pixel = (size_t)out->pixel,
                           .kernel_height = node->attributes.conv.height,
                           .kernel_width = node->attributes.conv.width,
                           .stride = node->attributes.conv.stride,
                           .padding = node->attributes.conv.padding,
                           .groups = node->attributes.conv.groups,
                       });
  return conv;
}

static size_t lines(size_t n)
{
  return (n + FLK_PANEL_MAX - 1) / FLK_PANEL_MAX * FLK_PANEL_MAX;
}

/* Ranges of a batch, and how many of them are computed at the same time. */
static size_t ranges_of(size_t n)
{
  return (n + RANGE - 1) / RANGE;
}

static size_t lanes_of(const fli_node *node, size_t n)
{
  return node->is_parallel ? ranges_of(n) : 1;
}

/* Images whose outputs are pooled at a time. */
static size_t pooled_images(const fli_node *node)
{
  size_t n = POOLED / (size_t)fli_shape_floats(output_of(node));
  if (n == 0) return 1;
  return n < RANGE ? n : RANGE;
}

/* What is to be pooled, or its gradient. */
static size_t pooled_floats(const fli_node *node)
{
  if (!node->pool) return 0;
  return lines(pooled_images(node) * (size_t)fli_shape_floats(output_of(node)));
}

/* Forward: packed weights, then scratch per lane. Backward: packed weights,
 * the sums and the bias' gradient, then sums and scratch per lane. Scratch ends
 * in what is to be pooled. */
static void conv_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  fli_conv conv = conv_of(node);
  uint64_t lanes = lanes_of(node, n);
  uint64_t scratch = lines(conv.n_scratch) + (uint64_t)pooled_floats(node);
  if (node->pool) {
    needs->kept = ((uint64_t)fli_pool2d_bytes(node->pool) * n + 3) / 4;
  }
  needs->forward = lines(conv.n_packed) + lanes * scratch;
  needs->backward = lines(conv.n_packed_back) + lines(conv.n_sums) +
                    lines(conv.shape.out_channels) +
                    lanes * (lines(conv.n_sums) + scratch);
}

/* One direction of one layer, for all its ranges. */
typedef struct conv_job {
  const fli_node *node;
  fli_pass *pass;
  fli_conv conv;
  const float *packed;
  float *lanes; /* their sums (backward) and scratch */
  size_t lane;  /* floats from one to the next */
  int is_trained;
} conv_job;

static float *lane_of(const conv_job *job, size_t index)
{
  return job->lanes + (job->node->is_parallel ? index * job->lane : 0);
}

static fli_conv_range range_of(const conv_job *job, size_t index)
{
  const fli_pass *pass = job->pass;
  size_t first = index * RANGE;
  size_t x = first * (size_t)fli_shape_floats(&job->node->input);
  size_t y = first * (size_t)fli_shape_floats(&job->node->output);
  size_t left = pass->n - first;
  return (fli_conv_range){
      .n = left < RANGE ? left : RANGE,
      .x = pass->x[0] + x,
      .y = pass->y + y,
      .dy = pass->dy ? pass->dy + y : NULL,
      .mask = job->node->does_relu ? pass->y + y : NULL,
      .dx = pass->dx[0] ? pass->dx[0] + x : NULL,
  };
}

/* Of a range's images those from i on, as many as are pooled at a time; y and
 * dy are the pool's. */
static fli_conv_range some_images(const conv_job *job,
                                  const fli_conv_range *range, size_t i)
{
  size_t x = i * (size_t)fli_shape_floats(&job->node->input);
  size_t y = i * (size_t)fli_shape_floats(&job->node->output);
  size_t most = pooled_images(job->node);
  fli_conv_range some = *range;
  some.n = range->n - i < most ? range->n - i : most;
  some.x += x;
  some.y += y;
  if (some.dy) some.dy += y;
  if (some.dx) some.dx += x;
  return some;
}

/* What the pool keeps of image i. */
static uint8_t *chosen_of(const conv_job *job, size_t i)
{
  uint8_t *kept = (uint8_t *)job->pass->kept;
  if (!kept) return NULL; /* averages keep nothing */
  return kept + i * fli_pool2d_bytes(job->node->pool);
}

static void forward_images(const conv_job *job, const fli_conv_range *range)
{
  job->conv.algorithm->forward(&job->conv, job->packed,
                               fli_value(job->pass, job->node, BIAS),
                               job->node->does_relu != 0, range);
}

static void forward_range(void *arg, uint64_t index)
{
  const conv_job *job = arg;
  fli_conv_range range = range_of(job, (size_t)index);
  range.scratch = lane_of(job, (size_t)index);
  if (!job->node->pool) {
    forward_images(job, &range);
    return;
  }
  float *maps = range.scratch + lines(job->conv.n_scratch);
  size_t first = (size_t)index * RANGE;
  for (size_t i = 0; i < range.n; i += pooled_images(job->node)) {
    fli_conv_range some = some_images(job, &range, i);
    float *pooled = some.y;
    some.y = maps;
    forward_images(job, &some);
    fli_pool2d_forward(job->node->pool, some.n, maps, pooled,
                       chosen_of(job, first + i));
  }
}

static void conv_forward(const fli_node *node, fli_pass *pass)
{
  conv_job job = {.node = node, .pass = pass, .conv = conv_of(node)};
  job.packed = pass->scratch;
  job.lanes = pass->scratch + lines(job.conv.n_packed);
  job.lane = lines(job.conv.n_scratch) + pooled_floats(node);
  job.conv.algorithm->pack(&job.conv, fli_value(pass, node, WEIGHT),
                           pass->scratch);
  fli_parallel_all(pass->context, ranges_of(pass->n), forward_range, &job);
}

static void backward_images(const conv_job *job, const fli_conv_range *range)
{
  job->conv.algorithm->backward(&job->conv, range->dx ? job->packed : NULL,
                                range);
}

static void backward_range(void *arg, uint64_t index)
{
  const conv_job *job = arg;
  fli_conv_range range = range_of(job, (size_t)index);
  float *lane = lane_of(job, (size_t)index);
  range.scratch = lane + lines(job->conv.n_sums);
  if (job->is_trained) {
    range.sums = lane;
    memset(lane, 0, job->conv.n_sums * sizeof *lane);
  }
  if (!job->node->pool) {
    backward_images(job, &range);
    return;
  }
  float *maps = range.scratch + lines(job->conv.n_scratch);
  size_t first = (size_t)index * RANGE;
  for (size_t i = 0; i < range.n; i += pooled_images(job->node)) {
    fli_conv_range some = some_images(job, &range, i);
    fli_pool2d_backward(job->node->pool, some.n, some.dy,
                        chosen_of(job, first + i), maps);
    some.dy = maps;
    backward_images(job, &some);
  }
}

/* All ranges, and their sums into `sums`, in order. */
static void backward_all(conv_job *job, float *sums)
{
  fli_pass *pass = job->pass;
  size_t n = job->conv.n_sums;
  size_t n_ranges = ranges_of(pass->n);
  if (job->is_trained) memset(sums, 0, n * sizeof *sums);
  if (job->node->is_parallel) {
    fli_parallel_all(pass->context, n_ranges, backward_range, job);
  }
  for (size_t i = 0; i < n_ranges; i++) {
    if (!job->node->is_parallel) backward_range(job, i);
    if (!job->is_trained) continue;
    flk_nn()->vector.add(sums, sums, lane_of(job, i), n);
  }
}

/* Weight and bias are of one module and trained together. */
static void put_gradients(const conv_job *job, const float *sums, float *dbias)
{
  const fli_node *node = job->node;
  fli_pass *pass = job->pass;
  fli_target target = fli_sink_target(pass, node, WEIGHT);
  job->conv.algorithm->unpack(&job->conv, sums, target.at, dbias);
  fli_sink_done(pass, node, WEIGHT);
  target = fli_sink_target(pass, node, BIAS);
  memcpy(target.at, dbias, (size_t)node->counts[BIAS] * sizeof *dbias);
  fli_sink_done(pass, node, BIAS);
}

static void conv_backward(const fli_node *node, fli_pass *pass)
{
  conv_job job = {.node = node, .pass = pass, .conv = conv_of(node)};
  float *sums = pass->scratch + lines(job.conv.n_packed_back);
  float *dbias = sums + lines(job.conv.n_sums);
  job.packed = pass->scratch;
  job.lanes = dbias + lines(job.conv.shape.out_channels);
  job.lane =
      lines(job.conv.n_sums) + lines(job.conv.n_scratch) + pooled_floats(node);
  job.is_trained = node->trained != 0;
  if (pass->dx[0]) {
    job.conv.algorithm->pack_back(&job.conv, fli_value(pass, node, WEIGHT),
                                  pass->scratch);
  }
  backward_all(&job, sums);
  if (job.is_trained) put_gradients(&job, sums, dbias);
}

const fli_node_op fli_op_conv2d = {
    .kind = FLI_OP_CONV2D,
    .name = "conv2d",
    .flags = FLI_NODE_KEEPS_TO_TRAIN,
    .n_inputs = 1,
    .n_attributes = 6,
    .shape = conv_shape,
    .parameters = conv_parameters,
    .pack = conv_pack,
    .unpack = conv_unpack,
};

const fli_node_run fli_run_conv2d = {
    .needs = conv_needs,
    .forward = conv_forward,
    .backward = conv_backward,
};
