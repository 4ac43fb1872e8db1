/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "input": gathers the samples of a batch into one contiguous buffer and
 * maps every value to value * scale + shift on the way, so that pixels can stay
 * bytes until the moment they are used. Attributes: 16 = shape of a sample,
 * 17 = scale, 18 = shift. */
#include "model/node.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "kernels/kernels.h"
#include "kernels/nn/nn.h"

static fl_status input_shape(fli_node *node)
{
  node->output = node->attributes.input.shape;
  if (!isfinite(node->attributes.input.scale) ||
      !isfinite(node->attributes.input.shift)) {
    return fli_error(FL_E_NOT_FINITE, "input: scale and shift must be finite");
  }
  fl_status st = fli_shape_check(&node->output, "input");
  if (node->output.n_dims == 3) node->output.pixel = node->output.dims[0];
  return st;
}

static fl_status input_check(const fli_node *node, const fl_dataset *data,
                             uint64_t count)
{
  if (data->sample_size && data->sample_size != node->output.count) {
    return fli_error(FL_E_DIM,
                     "data set: a sample has %" PRIu64
                     " values, the model takes %" PRIu64,
                     data->sample_size, node->output.count);
  }
  switch (data->x_dtype) {
  case FL_DTYPE_F32:
  case FL_DTYPE_U8: return FL_OK;
  case FL_DTYPE_I32:
    if (node->attributes.input.takes_ids != FLI_IDS_NONE) return FL_OK;
    return fli_error(FL_E_ARGUMENT,
                     "data set: x_dtype is I32, and no embedding takes ids");
  case FL_DTYPE_U64:
    if (node->attributes.input.takes_ids == FLI_IDS_ANY) return FL_OK;
    return fli_error(FL_E_ARGUMENT, "data set: x_dtype is U64, and no "
                                    "sparse_embedding takes ids");
  default:
    return fli_error(FL_E_ARGUMENT, "data set: x_dtype is %u, want %d or %d",
                     data->x_dtype, FL_DTYPE_F32, FL_DTYPE_U8);
  }
}

static void input_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_writer_u64(writer, FLI_FIRST_ATTRIBUTE);
  fli_shape_pack(&node->attributes.input.shape, writer);
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.input.scale);
  fli_field_f32(writer, FLI_FIRST_ATTRIBUTE + 2, node->attributes.input.shift);
}

static int input_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    fli_shape_unpack(&node->attributes.input.shape, reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.input.scale = fli_reader_f32(reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 2:
    node->attributes.input.shift = fli_reader_f32(reader);
    return 1;
  default: return 0;
  }
}

/* Sample `from` of an array of n elements each, as float32. */
static void scale(const fl_dataset *data, size_t from, float *restrict dst,
                  const fli_node *node)
{
  size_t n = (size_t)node->output.count;
  float factor = node->attributes.input.scale;
  float shift = node->attributes.input.shift;
  if (data->x_dtype == FL_DTYPE_U8) {
    const uint8_t *src = (const uint8_t *)data->x + from * n;
    flk_nn()->vector.from_u8(dst, src, n, factor, shift);
    return;
  }
  if (data->x_dtype == FL_DTYPE_I32) {
    const int32_t *restrict src = (const int32_t *)data->x + from * n;
    for (size_t i = 0; i < n; i++) {
      dst[i] = (float)src[i]; /* ids are below 2^24 */
    }
    return;
  }
  const float *src = (const float *)data->x + from * n;
  if (factor == 1.0f && shift == 0.0f) {
    memcpy(dst, src, n * sizeof *dst);
    return;
  }
  flk_nn()->vector.from_f32(dst, src, n, factor, shift);
}

/* planes[c][i] to pixels[i][c] */
static void interleave(const fli_shape *shape, const float *restrict planes,
                       float *restrict pixels)
{
  size_t channels = (size_t)shape->dims[0];
  size_t n = (size_t)(shape->dims[1] * shape->dims[2]);
  for (size_t i = 0; i < n; i++) {
    for (size_t c = 0; c < channels; c++) {
      pixels[i * channels + c] = planes[c * n + i];
    }
  }
}

static void input_forward(const fli_node *node, fli_pass *pass)
{
  const fl_dataset *data = pass->batch->data;
  size_t size = (size_t)node->output.count;
  if (!pass->is_training || data->x_dtype != FL_DTYPE_F32) {
    pass->n_finite = pass->n;
  }
  if (node->attributes.input.takes_ids == FLI_IDS_ANY) return; /* not floats */
  for (size_t k = 0; k < pass->n; k++) {
    float *dst = pass->y + k * size;
    float *planes = node->output.pixel > 1 ? pass->scratch : dst;
    scale(data, (size_t)fli_batch_sample(pass->batch, k), planes, node);
    /* A pool may pass over it, or dropout: then the loss would not tell. */
    if (pass->is_training && data->x_dtype == FL_DTYPE_F32 &&
        pass->n_finite == k &&
        flk_kernels()->find_not_finite(planes, size) == size) {
      pass->n_finite = k + 1;
    }
    if (planes != dst) interleave(&node->output, planes, dst);
  }
}

/* A sample before its channels are put side by side. */
static void input_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  if (node->output.pixel > 1) needs->forward = node->output.count;
}

const fli_node_op fli_op_input = {
    .kind = FLI_OP_INPUT,
    .name = "input",
    .flags = FLI_NODE_IS_INPUT,
    .n_attributes = 3,
    .shape = input_shape,
    .pack = input_pack,
    .unpack = input_unpack,
};

const fli_node_run fli_run_input = {
    .needs = input_needs,
    .check = input_check,
    .forward = input_forward,
};
