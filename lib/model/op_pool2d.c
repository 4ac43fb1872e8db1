/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "pool2d": maximum or average of square windows of an image. Attributes:
 * 16 = FL_POOL_*, 17 = size, 18 = stride, 19 = padding. A maximum keeps one
 * byte per output, where in the window it was; a ReLU in front of it is done
 * here, on what is left. Behind a convolution all of that is done there
 * (pooling.h), and this is a view. */
#include <fl/layers.h>

#include "base/error.h"
#include "linalg/conv.h"
#include "linalg/pool.h"
#include "model/pooling.h"

static fl_status check_attributes(const fli_node *node)
{
  const char *what = NULL;
  uint32_t size = node->attributes.pool.size;
  uint64_t padding = node->attributes.pool.padding;
  if (node->attributes.pool.kind > FL_POOL_AVERAGE) what = "kind: want 0 or 1";
  if (size == 0 || size > FLI_POOL_WINDOW_MAX) what = "size: want 1..15";
  if (node->attributes.pool.stride == 0) what = "stride: want >= 1";
  if (padding > size / 2) what = "padding: want at most half the size";
  if (size > node->input.dims[1] + 2 * padding ||
      size > node->input.dims[2] + 2 * padding) {
    what = "size: is larger than the image with its padding";
  }
  if (!what) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "pool2d %s: %s", node->name, what);
}

static fl_status pool_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  if (in->n_dims != 3) {
    return fli_refuse_dims(node, "an image's 3");
  }
  fl_status st = check_attributes(node);
  if (st != FL_OK) return st;
  uint64_t size = node->attributes.pool.size;
  uint64_t stride = node->attributes.pool.stride;
  uint64_t padding = node->attributes.pool.padding;
  node->output = *in;
  node->output.pixel =
      (in->dims[0] + FLI_CONV_LANES - 1) / FLI_CONV_LANES * FLI_CONV_LANES;
  for (uint32_t i = 1; i <= 2; i++) {
    node->output.dims[i] = (in->dims[i] + 2 * padding - size) / stride + 1;
  }
  return fli_shape_check(&node->output, node->name);
}

static void pool_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.pool.kind);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.pool.size);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 2, node->attributes.pool.stride);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 3, node->attributes.pool.padding);
}

static int pool_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  uint32_t *fields[] = {
      &node->attributes.pool.kind, &node->attributes.pool.size,
      &node->attributes.pool.stride, &node->attributes.pool.padding};
  if (key < FLI_FIRST_ATTRIBUTE ||
      key >= FLI_FIRST_ATTRIBUTE + FLI_COUNT_OF(fields)) {
    return 0;
  }
  *fields[key - FLI_FIRST_ATTRIBUTE] = fli_reader_u32(reader);
  return 1;
}

static int is_max(const fli_node *node)
{
  return node->attributes.pool.kind == FL_POOL_MAX;
}

static fli_pool pool_of(const fli_node *node)
{
  return (fli_pool){
      .height = (size_t)node->input.dims[1],
      .width = (size_t)node->input.dims[2],
      .channels = (size_t)node->input.dims[0],
      .pixel = (size_t)node->input.pixel,
      .out_height = (size_t)node->output.dims[1],
      .out_width = (size_t)node->output.dims[2],
      .out_pixel = (size_t)node->output.pixel,
      .window = node->attributes.pool.size,
      .stride = node->attributes.pool.stride,
      .padding = node->attributes.pool.padding,
  };
}

size_t fli_pool2d_bytes(const fli_node *node)
{
  return is_max(node) ? (size_t)fli_shape_floats(&node->output) : 0;
}

void fli_pool2d_forward(const fli_node *node, size_t n, const float *x,
                        float *y, uint8_t *chosen)
{
  fli_pool pool = pool_of(node);
  if (is_max(node)) {
    fli_max_pool(&pool, n, x, node->does_relu != 0, y, chosen);
  } else {
    fli_average_pool(&pool, n, x, y);
  }
}

void fli_pool2d_backward(const fli_node *node, size_t n, const float *dy,
                         const uint8_t *chosen, float *dx)
{
  fli_pool pool = pool_of(node);
  if (is_max(node)) {
    fli_max_pool_back(&pool, n, dy, chosen, dx);
  } else {
    fli_average_pool_back(&pool, n, dy, dx);
  }
}

static void pool_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  if (node->flags & FLI_NODE_VIEW) return;
  needs->kept = ((uint64_t)fli_pool2d_bytes(node) * n + 3) / 4;
}

static void pool_forward(const fli_node *node, fli_pass *pass)
{
  fli_pool2d_forward(node, pass->n, pass->x[0], pass->y, (uint8_t *)pass->kept);
}

static void pool_backward(const fli_node *node, fli_pass *pass)
{
  if (!pass->dx[0]) return;
  fli_pool2d_backward(node, pass->n, pass->dy, (const uint8_t *)pass->kept,
                      pass->dx[0]);
}

const fli_node_op fli_op_pool2d = {
    .kind = FLI_OP_POOL2D,
    .name = "pool2d",
    .n_inputs = 1,
    .n_attributes = 4,
    .shape = pool_shape,
    .pack = pool_pack,
    .unpack = pool_unpack,
};

const fli_node_run fli_run_pool2d = {
    .needs = pool_needs,
    .forward = pool_forward,
    .backward = pool_backward,
};
