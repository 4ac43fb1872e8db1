/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "input": gathers the samples of a batch into one contiguous buffer and
 * maps every value to value * scale + shift on the way, so that pixels can stay
 * bytes until the moment they are used. Attributes: 16 = shape of a sample,
 * 17 = scale, 18 = shift. */
#include "model/node.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

static fl_status input_shape(fli_node *node)
{
  node->output = node->attributes.input.shape;
  if (!isfinite(node->attributes.input.scale) ||
      !isfinite(node->attributes.input.shift)) {
    return fli_error(FL_E_NOT_FINITE, "input: scale and shift must be finite");
  }
  return fli_shape_check(&node->output, "input");
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

static void scale_u8(float *restrict dst, const uint8_t *restrict src, size_t n,
                     float scale, float shift)
{
  for (size_t i = 0; i < n; i++) {
    dst[i] = (float)src[i] * scale + shift;
  }
}

static void scale_f32(float *restrict dst, const float *restrict src, size_t n,
                      float scale, float shift)
{
  for (size_t i = 0; i < n; i++) {
    dst[i] = src[i] * scale + shift;
  }
}

static void input_forward(const fli_node *node, fli_pass *pass)
{
  const fl_dataset *data = pass->batch->data;
  float scale = node->attributes.input.scale;
  float shift = node->attributes.input.shift;
  size_t size = (size_t)node->output.count;
  int is_plain = scale == 1.0f && shift == 0.0f;
  for (size_t k = 0; k < pass->batch->n; k++) {
    size_t at = (size_t)fli_batch_sample(pass->batch, k) * size;
    float *dst = pass->y + k * size;
    if (data->x_dtype == FL_DTYPE_U8) {
      scale_u8(dst, (const uint8_t *)data->x + at, size, scale, shift);
    } else if (is_plain) {
      memcpy(dst, (const float *)data->x + at, size * sizeof *dst);
    } else {
      scale_f32(dst, (const float *)data->x + at, size, scale, shift);
    }
  }
}

const fli_node_op fli_op_input = {
    .name = "input",
    .flags = FLI_NODE_IS_INPUT,
    .n_attributes = 3,
    .shape = input_shape,
    .pack = input_pack,
    .unpack = input_unpack,
    .forward = input_forward,
};
