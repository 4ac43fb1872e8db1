/* SPDX-License-Identifier: Apache-2.0 */
/* From declared nodes and tensors to a model: the chain of layers, segments,
 * memory for the values, schema hash and canonical description. */
#include "model/model.h"

#include <string.h>

#include "base/error.h"
#include "base/size.h"
#include "crypto/crypto.h"

static const char schema_domain[] = "libfl model schema 1";

/* Let a dense layer do the ReLU behind it. */
static void fuse(fl_model *model)
{
  for (uint32_t i = 1; i < model->n_chain; i++) {
    fli_node *node = &model->nodes[model->chain[i]];
    fli_node *before = &model->nodes[model->chain[i - 1]];
    if (node->op == &fli_op_relu && before->op == &fli_op_dense) {
      before->does_relu = 1;
      node->is_fused = 1;
    }
  }
}

static fl_status make_chain(fl_model *model)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    n += model->nodes[i].op->shape != NULL;
  }
  if (n == 0) return FL_OK;
  model->chain = fli_alloc(model->context, n, sizeof *model->chain);
  if (!model->chain) return fli_nomem(n * sizeof *model->chain);
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    if (model->nodes[i].op->shape) model->chain[model->n_chain++] = i;
  }
  const fli_node *last = &model->nodes[model->chain[n - 1]];
  if (!(last->op->flags & FLI_NODE_IS_LOSS)) {
    return fli_error(FL_E_STATE, "model: the last layer is %s, want a loss",
                     last->op->name);
  }
  fuse(model);
  return FL_OK;
}

static fl_status make_segments(fl_model *model)
{
  fl_status st = FL_OK;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    uint32_t n = model->n_segments;
    if (!tensor->is_trainable) continue;
    if (n > 0 && model->segments[n - 1].module == tensor->module) {
      model->segments[n - 1].n += tensor->shape.count;
      continue;
    }
    FLI_TRY(fli_grow(model->context, (void **)&model->segments,
                     &model->segment_capacity, (size_t)n + 1,
                     sizeof *model->segments));
    model->segments[model->n_segments++] =
        (fli_segment){.module = tensor->module,
                      .offset = tensor->offset,
                      .n = tensor->shape.count};
  }
out:
  return st;
}

static fl_status make_schema(fl_model *model)
{
  fl_status st = FL_OK;
  fli_hasher hasher;
  FLI_TRY(fli_crypto_init());
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, schema_domain, sizeof schema_domain);
  fli_hasher_u64(&hasher, model->n_tensors);
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    size_t n = strlen(tensor->name);
    fli_hasher_u64(&hasher, n);
    fli_hasher_update(&hasher, tensor->name, n);
    fli_hasher_u64(&hasher, FL_DTYPE_F32);
    fli_hasher_u64(&hasher, tensor->module);
    fli_hasher_u64(&hasher, tensor->is_trainable);
    fli_hasher_u64(&hasher, tensor->shape.n_dims);
    for (uint32_t j = 0; j < tensor->shape.n_dims; j++) {
      fli_hasher_u64(&hasher, tensor->shape.dims[j]);
    }
  }
  fli_hasher_final(&hasher, model->schema);
out:
  return st;
}

fl_status fli_model_finish(fl_model *model)
{
  fl_status st = FL_OK;
  size_t n = 0;
  size_t bytes = 0;
  if (model->n_tensors == 0) {
    return fli_error(FL_E_STATE, "model: there is no tensor");
  }
  FLI_TRY(make_chain(model));
  FLI_TRY(make_segments(model));
  FLI_TRY(make_schema(model));
  FLI_TRY(fli_description_write(model, &model->description));
  if (model->description.size > FLI_MAX_DESCRIPTION) {
    return fli_error(FL_E_TOO_LARGE,
                     "model: its description takes %zu bytes, want <= %d",
                     model->description.size, FLI_MAX_DESCRIPTION);
  }
  if (!fli_to_size(model->n_weights + model->n_fixed, &n) ||
      !fli_mul_size(n, sizeof *model->values, &bytes)) {
    return fli_nomem(SIZE_MAX);
  }
  model->values = fli_alloc(model->context, n, sizeof *model->values);
  if (!model->values) st = fli_nomem(bytes);
out:
  return st;
}

void fl_model_free(fl_model *model)
{
  if (!model) return;
  fl_context *context = model->context;
  fli_workspace_free(model);
  fli_free(context, model->tensors,
           model->tensor_capacity * sizeof *model->tensors);
  fli_free(context, model->nodes, model->node_capacity * sizeof *model->nodes);
  fli_free(context, model->chain, model->n_chain * sizeof *model->chain);
  fli_free(context, model->segments,
           model->segment_capacity * sizeof *model->segments);
  fli_free(context, model->values,
           (size_t)(model->n_weights + model->n_fixed) * sizeof *model->values);
  fli_bytes_free(&model->description);
  fli_free(context, model, sizeof *model);
  fli_context_unref(context);
}
