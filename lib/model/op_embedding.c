/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "embedding": ids [tokens] to rows of a table, [tokens, width].
 * Attributes: 16 = rows, 17 = width. The ids come through the input as floats,
 * which are exact below 2^24; tables beyond that are lib/embedding's matter.
 *
 * Kind "positions": a trained vector added to each position of a sequence, in
 * place. */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"
#include "model/sink.h"

enum { TABLE = 0, MAX_ROWS = 1 << 24, IDS_AT_ONCE = 256 };

static fl_status embedding_shape(fli_node *node)
{
  uint64_t rows = node->attributes.embedding.rows;
  uint64_t width = node->attributes.embedding.width;
  if (rows == 0 || rows > MAX_ROWS || width == 0) {
    return fli_error(FL_E_ARGUMENT,
                     "embedding %s: got %" PRIu64 " rows of %" PRIu64
                     ", want 1..2^24 rows of >= 1",
                     node->name, rows, width);
  }
  if (node->input.n_dims != 1) {
    return fli_refuse_dims(node, "1, ids");
  }
  node->output = (fli_shape){.n_dims = 2, .dims = {node->input.count, width}};
  return fli_shape_check(&node->output, node->name);
}

static uint32_t
embedding_parameters(const fli_node *node,
                     fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  parameters[TABLE] = (fli_parameter){
      .suffix = ".weight",
      .shape = {.n_dims = 2,
                .dims = {node->attributes.embedding.rows,
                         node->attributes.embedding.width}},
      .is_trainable = 1,
      .bound = 1.7320508f, /* variance 1 */
  };
  return 1;
}

static void embedding_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.embedding.rows);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 1,
                node->attributes.embedding.width);
}

static int embedding_unpack(fli_node *node, uint32_t key,
                            fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    node->attributes.embedding.rows = fli_reader_u64(reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.embedding.width = fli_reader_u64(reader);
    return 1;
  default: return 0;
  }
}

static fl_status embedding_check(const fli_node *node, const fl_dataset *data,
                                 uint64_t count)
{
  uint64_t tokens = node->input.count;
  uint64_t rows = node->attributes.embedding.rows;
  const int32_t *ids = data->x;
  if (data->x_dtype != FL_DTYPE_I32) {
    return fli_error(FL_E_ARGUMENT,
                     "data set: x_dtype is %u, embedding %s wants ids, %d",
                     data->x_dtype, node->name, FL_DTYPE_I32);
  }
  for (uint64_t i = 0; i < count; i++) {
    uint64_t sample = fli_dataset_sample(data, i);
    for (uint64_t t = 0; t < tokens; t++) {
      int32_t id = ids[sample * tokens + t];
      if (id >= 0 && (uint64_t)id < rows) continue;
      return fli_error(FL_E_RANGE,
                       "data set: id %" PRIu64 " of sample %" PRIu64
                       " is %d, want 0..%" PRIu64,
                       t, sample, id, rows - 1);
    }
  }
  return FL_OK;
}

/* Up to IDS_AT_ONCE of the batch's ids, from the first one on. */
static size_t take_ids(const fli_node *node, const fli_pass *pass, size_t first,
                       int32_t *ids)
{
  size_t n = pass->n * (size_t)node->input.count - first;
  if (n > IDS_AT_ONCE) n = IDS_AT_ONCE;
  for (size_t i = 0; i < n; i++) {
    ids[i] = (int32_t)pass->x[0][first + i];
  }
  return n;
}

static void embedding_forward(const fli_node *node, fli_pass *pass)
{
  size_t width = (size_t)node->attributes.embedding.width;
  size_t count = pass->n * (size_t)node->input.count;
  int32_t ids[IDS_AT_ONCE];
  for (size_t at = 0; at < count;) {
    size_t n = take_ids(node, pass, at, ids);
    flk_nn()->vector.gather(pass->y + at * width, fli_value(pass, node, TABLE),
                            ids, n, width);
    at += n;
  }
}

static void embedding_backward(const fli_node *node, fli_pass *pass)
{
  size_t width = (size_t)node->attributes.embedding.width;
  size_t count = pass->n * (size_t)node->input.count;
  int32_t ids[IDS_AT_ONCE];
  if (!fli_is_trained(node, TABLE)) return;
  fli_target target = fli_sink_target(pass, node, TABLE);
  memset(target.at, 0, (size_t)node->counts[TABLE] * sizeof *target.at);
  for (size_t at = 0; at < count;) {
    size_t n = take_ids(node, pass, at, ids);
    flk_nn()->vector.scatter_add(target.at, pass->dy + at * width, ids, n,
                                 width);
    at += n;
  }
  fli_sink_done(pass, node, TABLE);
}

const fli_node_op fli_op_embedding = {
    .kind = FLI_OP_EMBEDDING,
    .name = "embedding",
    .flags = FLI_NODE_KEEPS_TO_TRAIN,
    .n_inputs = 1,
    .n_attributes = 2,
    .shape = embedding_shape,
    .parameters = embedding_parameters,
    .pack = embedding_pack,
    .unpack = embedding_unpack,
};

const fli_node_run fli_run_embedding = {
    .check = embedding_check,
    .forward = embedding_forward,
    .backward = embedding_backward,
};

static fl_status positions_shape(fli_node *node)
{
  if (node->input.n_dims != 2) {
    return fli_refuse_dims(node, "a sequence's 2");
  }
  node->output = node->input;
  return FL_OK;
}

static uint32_t
positions_parameters(const fli_node *node,
                     fli_parameter parameters[FLI_MAX_PARAMETERS])
{
  parameters[TABLE] = (fli_parameter){
      .suffix = ".weight",
      .shape = {.n_dims = 2,
                .dims = {node->input.dims[0], node->input.dims[1]}},
      .is_trainable = 1,
      .bound = 0.034641016f, /* standard deviation .02 */
  };
  return 1;
}

static void positions_forward(const fli_node *node, fli_pass *pass)
{
  size_t size = (size_t)node->output.count;
  for (size_t k = 0; k < pass->n; k++) {
    flk_nn()->vector.add(pass->y + k * size, pass->x[0] + k * size,
                         fli_value(pass, node, TABLE), size);
  }
}

static void positions_backward(const fli_node *node, fli_pass *pass)
{
  size_t size = (size_t)node->output.count;
  if (pass->dx[0] && pass->dx[0] != pass->dy) {
    memcpy(pass->dx[0], pass->dy, pass->n * size * sizeof *pass->dy);
  }
  if (!fli_is_trained(node, TABLE)) return;
  fli_target target = fli_sink_target(pass, node, TABLE);
  flk_nn()->vector.column_sums(target.at, pass->dy, pass->n, size, 0);
  fli_sink_done(pass, node, TABLE);
}

const fli_node_op fli_op_positions = {
    .kind = FLI_OP_POSITIONS,
    .name = "positions",
    .flags = FLI_NODE_IN_PLACE,
    .n_inputs = 1,
    .shape = positions_shape,
    .parameters = positions_parameters,
};

const fli_node_run fli_run_positions = {
    .forward = positions_forward,
    .backward = positions_backward,
};
