/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls that add a layer: each fills in a node's attributes; kinds
 * check them. */
#include <fl/layers.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "model/builder.h"

static const fl_conv2d_options conv_defaults = {
    .struct_size = sizeof(fl_conv2d_options),
    .height = 3,
    .width = 3,
    .stride = 1,
    .groups = 1,
};
static const fl_pool2d_options pool_defaults = {
    .struct_size = sizeof(fl_pool2d_options),
    .size = 2,
};
static const fl_cross_entropy_options loss_defaults = {
    .struct_size = sizeof(fl_cross_entropy_options),
    .ignore_index = -100,
};

fl_status fl_conv2d_options_init(fl_conv2d_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &conv_defaults, sizeof conv_defaults);
}

fl_status fl_pool2d_options_init(fl_pool2d_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &pool_defaults, sizeof pool_defaults);
}

fl_status fl_cross_entropy_options_init(fl_cross_entropy_options *options,
                                        size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &loss_defaults, sizeof loss_defaults);
}

fl_status fl_model_builder_from(fl_model_builder *builder, const char *name)
{
  fli_clear_error();
  fl_status st = FL_OK;
  FLI_TRY(fli_builder_check(builder));
  uint32_t index = name ? fli_builder_find(builder, name) : FLI_NOBODY;
  if (index == FLI_NOBODY) {
    st = fli_error(FL_E_NOT_FOUND, "builder: there is no layer \"%s\"",
                   name ? name : "");
    return fli_builder_keep(builder, st);
  }
  builder->from = index;
out:
  return st;
}

fl_status fl_model_builder_trainable(fl_model_builder *builder,
                                     int32_t trainable)
{
  fli_clear_error();
  fl_status st = fli_builder_check(builder);
  if (st == FL_OK) builder->is_frozen = trainable == 0;
  return st;
}

fl_status fl_model_builder_add(fl_model_builder *builder, const char *name,
                               const char *other)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_add, name));
  st = fli_builder_check_place(builder, &node);
  if (st != FL_OK) return fli_builder_keep(builder, st);
  uint32_t index = other ? fli_builder_find(builder, other) : FLI_NOBODY;
  if (index == FLI_NOBODY) {
    st = fli_error(FL_E_NOT_FOUND, "add %s: there is no layer \"%s\"", name,
                   other ? other : "");
    return fli_builder_keep(builder, st);
  }
  node.inputs[1] = index;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_conv2d(fl_model_builder *builder, const char *name,
                                  const fl_conv2d_options *options)
{
  fl_status st = FL_OK;
  fli_node node;
  fl_conv2d_options full = conv_defaults;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_conv2d, name));
  st = fli_options_load(&full, sizeof full, options, "fl_conv2d_options");
  if (st != FL_OK) return fli_builder_keep(builder, st);
  node.attributes.conv.filters = full.filters;
  node.attributes.conv.height = full.height;
  node.attributes.conv.width = full.width;
  node.attributes.conv.stride = full.stride;
  node.attributes.conv.padding = full.padding;
  node.attributes.conv.groups = full.groups;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_pool2d(fl_model_builder *builder, const char *name,
                                  const fl_pool2d_options *options)
{
  fl_status st = FL_OK;
  fli_node node;
  fl_pool2d_options full = pool_defaults;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_pool2d, name));
  st = fli_options_load(&full, sizeof full, options, "fl_pool2d_options");
  if (st != FL_OK) return fli_builder_keep(builder, st);
  node.attributes.pool.kind = full.kind;
  node.attributes.pool.size = full.size;
  node.attributes.pool.stride = full.stride ? full.stride : full.size;
  node.attributes.pool.padding = full.padding;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_mean(fl_model_builder *builder, const char *name)
{
  return fli_builder_plain(builder, &fli_op_mean, name);
}

fl_status fl_model_builder_activation(fl_model_builder *builder,
                                      const char *name, uint32_t activation)
{
  fl_status st = FL_OK;
  fli_node node;
  if (activation == FL_ACTIVATION_RELU) {
    return fl_model_builder_relu(builder, name);
  }
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_activation, name));
  node.attributes.activation.kind = activation;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_softmax(fl_model_builder *builder, const char *name)
{
  return fli_builder_plain(builder, &fli_op_softmax, name);
}

fl_status fl_model_builder_dropout(fl_model_builder *builder, const char *name,
                                   float rate)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_dropout, name));
  node.attributes.dropout.rate = rate;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_embedding(fl_model_builder *builder,
                                     const char *name, uint64_t rows,
                                     uint64_t width)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_embedding, name));
  node.attributes.embedding.rows = rows;
  node.attributes.embedding.width = width;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_sparse_embedding(fl_model_builder *builder,
                                            const char *name, uint64_t width)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_sparse_embedding, name));
  node.attributes.sparse.width = width;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_positions(fl_model_builder *builder,
                                     const char *name)
{
  return fli_builder_plain(builder, &fli_op_positions, name);
}

fl_status fl_model_builder_factorisation_machine(fl_model_builder *builder,
                                                 const char *name)
{
  return fli_builder_plain(builder, &fli_op_factorisation_machine, name);
}

fl_status fl_model_builder_pairwise_dots(fl_model_builder *builder,
                                         const char *name)
{
  return fli_builder_plain(builder, &fli_op_pairwise_dots, name);
}

static fl_status add_norm(fl_model_builder *builder, const fli_node_op *op,
                          const char *name, uint32_t groups, float epsilon)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, op, name));
  node.attributes.norm.groups = groups;
  node.attributes.norm.epsilon = epsilon;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_layer_norm(fl_model_builder *builder,
                                      const char *name, float epsilon)
{
  return add_norm(builder, &fli_op_layer_norm, name, 0, epsilon);
}

fl_status fl_model_builder_group_norm(fl_model_builder *builder,
                                      const char *name, uint32_t groups,
                                      float epsilon)
{
  return add_norm(builder, &fli_op_group_norm, name, groups, epsilon);
}

/* "<name><suffix>" for a part of a layer made of several; a name that is too
 * long is refused like any other. */
static const char *part_name(char out[2 * FL_NAME_BYTES], const char *name,
                             const char *suffix)
{
  (void)snprintf(out, 2 * FL_NAME_BYTES, "%s%s", name, suffix);
  return out;
}

static fl_status add_heads(fl_model_builder *builder, const char *name,
                           uint32_t heads, int32_t is_causal)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_attention, name));
  node.attributes.attention.heads = heads;
  node.attributes.attention.is_causal = is_causal != 0;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_attention(fl_model_builder *builder,
                                     const char *name, uint32_t heads,
                                     int32_t is_causal)
{
  fl_status st = FL_OK;
  fli_node node;
  char part[2 * FL_NAME_BYTES];
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_attention, name));
  st = fli_builder_check_place(builder, &node);
  if (st != FL_OK) return fli_builder_keep(builder, st);
  if (builder->model->nodes[builder->from].output.n_dims != 2) {
    st = fli_error(FL_E_DIM, "attention %s: wants a sequence's 2 dimensions",
                   name);
    return fli_builder_keep(builder, st);
  }
  uint64_t width = builder->model->nodes[builder->from].output.dims[1];
  int has_module = builder->has_module;
  FLI_TRY(fl_model_builder_dense(builder, part_name(part, name, ".in_proj"),
                                 3 * width));
  builder->has_module = 1; /* one module for all parts */
  st = add_heads(builder, part_name(part, name, ".heads"), heads, is_causal);
  if (st == FL_OK) {
    st = fl_model_builder_dense(builder, part_name(part, name, ".out_proj"),
                                width);
  }
  builder->has_module = has_module;
out:
  return st;
}

fl_status
fl_model_builder_cross_entropy(fl_model_builder *builder, const char *name,
                               const fl_cross_entropy_options *options)
{
  fl_status st = FL_OK;
  fli_node node;
  fl_cross_entropy_options full = loss_defaults;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_cross_entropy, name));
  st =
      fli_options_load(&full, sizeof full, options, "fl_cross_entropy_options");
  if (st != FL_OK) return fli_builder_keep(builder, st);
  node.attributes.cross_entropy.ignore = full.ignore_index;
  node.attributes.cross_entropy.smoothing = full.label_smoothing;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_mean_squared_error(fl_model_builder *builder,
                                              const char *name)
{
  return fli_builder_plain(builder, &fli_op_mean_squared_error, name);
}

fl_status fl_model_builder_binary_cross_entropy(fl_model_builder *builder,
                                                const char *name)
{
  return fli_builder_plain(builder, &fli_op_binary_cross_entropy, name);
}
