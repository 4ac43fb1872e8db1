/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "sparse_embedding": ids of 64 bits [fields] to rows [fields, width],
 * which are a provider's: there is no tensor, and nobody has to know how many
 * ids there are. Attribute: 16 = width. The ids come from the data set itself,
 * not through the input's floats, and are kept as they are for the way back,
 * which ends here with the gradient of the rows (rows.c takes it from there).
 */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "model/rows.h"

/* Floats that an id takes. */
enum { ID_FLOATS = sizeof(uint64_t) / sizeof(float) };

static fl_status sparse_shape(fli_node *node)
{
  uint64_t width = node->attributes.sparse.width;
  if (width == 0) {
    return fli_error(FL_E_ARGUMENT,
                     "sparse_embedding %s: width is 0, want >= 1", node->name);
  }
  if (node->input.n_dims != 1) {
    return fli_refuse_dims(node, "1, ids");
  }
  node->output = (fli_shape){.n_dims = 2, .dims = {node->input.count, width}};
  return fli_shape_check(&node->output, node->name);
}

static void sparse_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.sparse.width);
}

static int sparse_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  if (key != FLI_FIRST_ATTRIBUTE) return 0;
  node->attributes.sparse.width = fli_reader_u64(reader);
  return 1;
}

static fl_status sparse_check(const fli_node *node, const fl_dataset *data,
                              uint64_t count)
{
  uint64_t fields = node->input.count;
  const int32_t *ids = data->x;
  if (data->x_dtype == FL_DTYPE_U64) return FL_OK;
  if (data->x_dtype != FL_DTYPE_I32) {
    return fli_error(FL_E_ARGUMENT,
                     "data set: x_dtype is %u, sparse_embedding %s wants ids, "
                     "%d or %d",
                     data->x_dtype, node->name, FL_DTYPE_U64, FL_DTYPE_I32);
  }
  for (uint64_t i = 0; i < count; i++) {
    uint64_t sample = fli_dataset_sample(data, i);
    for (uint64_t f = 0; f < fields; f++) {
      if (ids[sample * fields + f] >= 0) continue;
      return fli_error(FL_E_RANGE,
                       "data set: id %" PRIu64 " of sample %" PRIu64
                       " is %d, want >= 0",
                       f, sample, ids[sample * fields + f]);
    }
  }
  return FL_OK;
}

static void sparse_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  /* Beyond UINT64_MAX nothing can be planned either. */
  uint64_t most = UINT64_MAX / ID_FLOATS / node->input.count;
  needs->kept = n > most ? UINT64_MAX : n * node->input.count * ID_FLOATS;
}

/* Ids of the batch, side by side. */
static void take_ids(const fli_node *node, const fli_pass *pass, uint64_t *ids)
{
  const fl_dataset *data = pass->batch->data;
  size_t fields = (size_t)node->input.count;
  for (size_t k = 0; k < pass->n; k++) {
    size_t at = (size_t)fli_batch_sample(pass->batch, k) * fields;
    if (data->x_dtype == FL_DTYPE_U64) {
      memcpy(ids, (const uint64_t *)data->x + at, fields * sizeof *ids);
    } else {
      const int32_t *small = (const int32_t *)data->x + at;
      for (size_t f = 0; f < fields; f++) {
        ids[f] = (uint64_t)small[f]; /* checked: >= 0 */
      }
    }
    ids += fields;
  }
}

fli_ids fli_sparse_ids(const fli_node *node, const float *kept, size_t n)
{
  return (fli_ids){.ids = (const uint64_t *)(const void *)kept,
                   .n = n,
                   .fields = (size_t)node->input.count,
                   .width = (size_t)node->attributes.sparse.width};
}

static void sparse_forward(const fli_node *node, fli_pass *pass)
{
  const fli_provider *provider = pass->provider;
  int trains = pass->is_training && node->trained != 0;
  take_ids(node, pass, (uint64_t *)(void *)pass->kept);
  fli_ids ids = fli_sparse_ids(node, pass->kept, pass->n);
  pass->status = trains ? provider->forward(pass->provider_user, &ids, pass->y)
                        : provider->lookup(pass->provider_user, &ids, pass->y);
}

const fli_node_op fli_op_sparse_embedding = {
    .kind = FLI_OP_SPARSE_EMBEDDING,
    .name = "sparse_embedding",
    .flags = FLI_NODE_HAS_ROWS,
    .n_inputs = 1,
    .n_attributes = 1,
    .shape = sparse_shape,
    .pack = sparse_pack,
    .unpack = sparse_unpack,
};

const fli_node_run fli_run_sparse_embedding = {
    .needs = sparse_needs,
    .check = sparse_check,
    .forward = sparse_forward,
};
