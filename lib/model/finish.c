/* SPDX-License-Identifier: Apache-2.0 */
/* From declared nodes and tensors to a model: the chain of layers, segments,
 * memory for the values, schema hash and canonical description. */
#include <fl/layers.h>

#include "model/model.h"

#include <string.h>

#include "base/error.h"
#include "base/size.h"
#include "crypto/crypto.h"

static const char schema_domain[] = "libfl model schema 1";

/* A maximum of what is cut off at 0 is cut off at 0: the ReLU moves behind the
 * pool, where there is less of it, and what lies between need not be kept. */
static int fuse_with_pool(fl_model *model, fli_node *relu)
{
  fli_node *pool = &model->nodes[relu->last_use];
  if (relu->n_uses != 1 || pool->op != &fli_op_pool2d ||
      pool->attributes.pool.kind != FL_POOL_MAX ||
      pool->attributes.pool.padding != 0) {
    return 0;
  }
  pool->does_relu = FLI_RELU_BOTH;
  relu->flags = FLI_NODE_VIEW;
  return 1;
}

/* Let the layer before it do the ReLU, or the pool behind it. */
static void fuse(fl_model *model)
{
  for (uint32_t i = 1; i < model->n_chain; i++) {
    fli_node *node = &model->nodes[model->chain[i]];
    if (node->op != &fli_op_relu) continue;
    fli_node *before = &model->nodes[node->inputs[0]];
    if (before->n_uses != 1 || fuse_with_pool(model, node)) continue;
    if (before->op == &fli_op_conv2d) {
      before->does_relu = FLI_RELU_BOTH;
      before->flags |= FLI_NODE_KEEPS_OUTPUT;
      node->flags = FLI_NODE_VIEW;
    }
    if (before->op == &fli_op_dense || before->op == &fli_op_dense_lora) {
      before->does_relu = FLI_RELU_FORWARD;
      node->is_fused = 1;
    }
  }
}

/* Let a convolution pool what it has computed, before that leaves the caches.
 * Pool and the ReLU between them, if it has moved behind the pool, are views
 * then. */
static void fuse_pools(fl_model *model)
{
  for (uint32_t i = 1; i < model->n_chain; i++) {
    fli_node *pool = &model->nodes[model->chain[i]];
    if (pool->op != &fli_op_pool2d) continue;
    fli_node *relu = NULL;
    fli_node *conv = &model->nodes[pool->inputs[0]];
    if (conv->op == &fli_op_relu && pool->does_relu) {
      relu = conv;
      conv = &model->nodes[relu->inputs[0]];
    }
    if (conv->op != &fli_op_conv2d || conv->n_uses != 1) continue;
    conv->pool = pool;
    conv->output = pool->output;
    if (relu) relu->input = relu->output = pool->output;
    pool->flags = FLI_NODE_VIEW;
  }
}

/* Ids are not computed: an embedding reads the model's input, and then nothing
 * else does; with a sparse one, no other embedding either. */
static fl_status connect_ids(fl_model *model)
{
  uint32_t n_embeddings = 0;
  uint32_t n_sparse = 0;
  fli_node *input = &model->nodes[model->chain[0]];
  for (uint32_t i = 0; i < model->n_chain; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    int is_sparse = (node->flags & FLI_NODE_HAS_ROWS) != 0;
    if (node->op != &fli_op_embedding && !is_sparse) continue;
    n_embeddings++;
    n_sparse += (uint32_t)is_sparse;
    if (&model->nodes[node->inputs[0]] == input) continue;
    return fli_error(FL_E_STATE, "%s %s: wants the model's input",
                     node->op->name, node->name);
  }
  if (n_embeddings == 0) return FL_OK;
  if ((n_sparse > 0 && n_embeddings > 1) || n_embeddings != input->n_uses)
    return fli_error(FL_E_STATE,
                     "model: its input are ids for %s embedding, and another "
                     "layer takes them too",
                     n_sparse > 0 ? "a sparse" : "an");
  input->attributes.input.takes_ids =
      n_sparse > 0 ? FLI_IDS_ANY : FLI_IDS_OF_TABLE;
  return FL_OK;
}

/* Who uses whose output. What nobody uses was declared for nothing, most
 * likely by mistake. */
static fl_status connect_users(fl_model *model)
{
  for (uint32_t i = 0; i < model->n_chain; i++) {
    fli_node *node = &model->nodes[model->chain[i]];
    node->is_parallel = fli_context_is_parallel(model->context);
    for (uint32_t k = 0; k < node->op->n_inputs; k++) {
      fli_node *input = &model->nodes[node->inputs[k]];
      input->n_uses++;
      input->last_use = model->chain[i];
    }
  }
  for (uint32_t i = 0; i + 1 < model->n_chain; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    if (node->n_uses > 0) continue;
    return fli_error(FL_E_STATE, "%s %s: no layer uses its output",
                     node->op->name, node->name);
  }
  return FL_OK;
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
  if (!(last->flags & FLI_NODE_IS_LOSS)) {
    return fli_error(FL_E_STATE, "model: the last layer is %s, want a loss",
                     last->op->name);
  }
  fl_status st = connect_users(model);
  if (st == FL_OK) st = connect_ids(model);
  if (st != FL_OK) return st;
  fuse(model);
  fuse_pools(model);
  return FL_OK;
}

/* From offsets in the trainable part and in the part behind it to places among
 * all values. */
static void set_places(fl_model *model)
{
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    fli_node *node = &model->nodes[i];
    for (uint32_t p = 0; p < node->n_parameters; p++) {
      const fli_tensor *tensor = &model->tensors[node->first_tensor + p];
      node->places[p] =
          tensor->offset + (tensor->is_trainable ? 0 : model->n_weights);
      node->counts[p] = tensor->shape.count;
    }
  }
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
  set_places(model);
  (void)fli_model_mark(model, 0);
  FLI_TRY(make_schema(model));
  FLI_TRY(fli_description_write(model, &model->description));
  if (model->description.size > FLI_MAX_DESCRIPTION) {
    return fli_error(FL_E_TOO_LARGE,
                     "model: its description takes %zu bytes, want <= %d",
                     model->description.size, FLI_MAX_DESCRIPTION);
  }
  if (model->is_shape) return FL_OK;
  if (!fli_to_size(model->n_weights + model->n_fixed, &n) ||
      !fli_mul_size(n, sizeof *model->values, &bytes)) {
    return fli_nomem(SIZE_MAX);
  }
  model->values = fli_alloc(model->context, n, sizeof *model->values);
  if (!model->values) return fli_nomem(bytes);
  FLI_TRY(fli_optimiser_init(&model->optimiser, model->context,
                             &fli_optimiser_defaults, 0, model->n_weights));
out:
  return st;
}

void fl_model_free(fl_model *model)
{
  if (!model) return;
  fl_context *context = model->context;
  if (model->observer.gone) model->observer.gone(model->observer.user);
  if (model->provider) model->provider->gone(model->provider_user);
  fli_workspace_free(model);
  fli_optimiser_free(&model->optimiser, context);
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
