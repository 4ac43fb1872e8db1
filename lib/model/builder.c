/* SPDX-License-Identifier: Apache-2.0 */
/* The builder: collects nodes and the tensors they own into a model that is
 * not finished yet. The description parser goes through the same door
 * (fli_builder_add), so there is one place that checks names, order, shapes and
 * limits. The first error sticks, with its text. */
#include "model/builder.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

/* Keep the first failure; a caller that ignored it hears of it again. */
fl_status fli_builder_keep(fl_model_builder *builder, fl_status status)
{
  if (status != FL_OK && builder->status == FL_OK) {
    builder->status = status;
    (void)snprintf(builder->text, sizeof builder->text, "%s", fl_last_error());
  }
  return status;
}

fl_status fli_builder_check(const fl_model_builder *builder)
{
  if (!builder) return fli_error(FL_E_ARGUMENT, "builder: is NULL");
  if (builder->status != FL_OK) {
    return fli_error(builder->status, "%s", builder->text);
  }
  return FL_OK;
}

/* 1..FL_NAME_BYTES - 1 bytes of printable ASCII. */
static fl_status check_name(const char *name)
{
  size_t n = 0;
  if (!name || !name[0]) return fli_error(FL_E_ARGUMENT, "name: is empty");
  for (; name[n]; n++) {
    if (n + 1 >= FL_NAME_BYTES || name[n] < 0x20 || name[n] > 0x7e) {
      return fli_error(FL_E_ARGUMENT,
                       "name: byte %zu is not printable ASCII or beyond the "
                       "limit, want 1..%d bytes",
                       n, FL_NAME_BYTES - 1);
    }
  }
  return FL_OK;
}

static fl_status check_new_name(const fl_model *model, const char *name)
{
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    if (strcmp(model->tensors[i].name, name) == 0) {
      return fli_error(FL_E_ARGUMENT, "name: there is a tensor \"%s\" already",
                       name);
    }
  }
  return FL_OK;
}

static fl_status add_tensor(fl_model *model, fli_node *node,
                            fli_parameter *parameter)
{
  fl_status st = FL_OK;
  fli_tensor tensor = {.module = node->module,
                       .fan_in = parameter->fan_in,
                       .bound = parameter->bound,
                       .initial = parameter->initial};
  int n = snprintf(tensor.name, sizeof tensor.name, "%s%s", node->name,
                   parameter->suffix);
  if (n < 0 || (size_t)n >= sizeof tensor.name) {
    return fli_error(FL_E_ARGUMENT, "name: \"%s%s\" is longer than %d bytes",
                     node->name, parameter->suffix, FL_NAME_BYTES - 1);
  }
  FLI_TRY(check_new_name(model, tensor.name));
  FLI_TRY(fli_shape_check(&parameter->shape, tensor.name));
  tensor.shape = parameter->shape;
  tensor.is_trainable = parameter->is_trainable && !node->is_frozen;
  uint64_t *total = tensor.is_trainable ? &model->n_weights : &model->n_fixed;
  if (model->n_tensors == FLI_MAX_TENSORS ||
      tensor.shape.count >
          FLI_MAX_ELEMENTS - model->n_weights - model->n_fixed) {
    return fli_error(FL_E_TOO_LARGE,
                     "tensor %s: want <= %d tensors and <= 2^31 elements in "
                     "all",
                     tensor.name, FLI_MAX_TENSORS);
  }
  FLI_TRY(fli_grow(model->context, (void **)&model->tensors,
                   &model->tensor_capacity, (size_t)model->n_tensors + 1,
                   sizeof *model->tensors));
  tensor.offset = *total;
  *total += tensor.shape.count;
  node->n_parameters++;
  model->tensors[model->n_tensors++] = tensor;
out:
  return st;
}

/* Index of the layer of that name, or FLI_NOBODY. */
uint32_t fli_builder_find(const fl_model_builder *builder, const char *name)
{
  const fl_model *model = builder->model;
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    const fli_node *node = &model->nodes[i];
    if (node->op->shape && strcmp(node->name, name) == 0) return i;
  }
  return FLI_NOBODY;
}

fl_status fli_builder_check_place(const fl_model_builder *builder,
                                  const fli_node *node)
{
  const fl_model *model = builder->model;
  int is_input = (node->op->flags & FLI_NODE_IS_INPUT) != 0;
  if (is_input && builder->n_layers > 0) {
    return fli_error(FL_E_STATE, "input: must be the first layer");
  }
  if (!is_input && builder->n_layers == 0) {
    return fli_error(FL_E_STATE, "%s %s: there is no input yet", node->op->name,
                     node->name);
  }
  if (builder->n_layers > 0 &&
      model->nodes[builder->last].flags & FLI_NODE_IS_LOSS) {
    return fli_error(FL_E_STATE, "%s %s: the loss must be the last layer",
                     node->op->name, node->name);
  }
  return FL_OK;
}

/* Inputs are nodes that exist: a graph so made has no cycles. */
static fl_status connect(const fl_model_builder *builder, fli_node *node)
{
  const fl_model *model = builder->model;
  fl_status st = fli_builder_check_place(builder, node);
  if (st != FL_OK) return st;
  if (fli_builder_find(builder, node->name) != FLI_NOBODY) {
    return fli_error(FL_E_ARGUMENT, "name: there is a layer \"%s\" already",
                     node->name);
  }
  node->position = builder->n_layers;
  if (node->op->n_inputs > 0) {
    node->input = model->nodes[node->inputs[0]].output;
  }
  if (node->op->n_inputs > 1) {
    node->other = model->nodes[node->inputs[1]].output;
  }
  return node->op->shape(node);
}

/* Module of a node with tensors; *is_new when it starts one of its own. */
static uint32_t choose_module(const fl_model_builder *builder,
                              const fli_node *node, int *is_new)
{
  *is_new = !builder->has_module && node->op->shape != NULL;
  return *is_new ? builder->next_module : builder->module;
}

fl_status fli_builder_add(fl_model_builder *builder, const fli_node *new_node)
{
  fl_status st = FL_OK;
  fl_model *model = builder->model;
  fli_node node = *new_node;
  fli_parameter parameters[FLI_MAX_PARAMETERS] = {{0}};
  int is_new = 0;
  FLI_TRY(check_name(node.name));
  if (model->n_nodes == FLI_MAX_NODES) {
    st = fli_error(FL_E_TOO_LARGE, "model: want <= %d nodes", FLI_MAX_NODES);
    goto out;
  }
  node.flags = node.op->flags;
  node.is_frozen = builder->is_frozen;
  if (node.op->shape) FLI_TRY(connect(builder, &node));
  node.declared = node.output;
  uint32_t n = node.op->parameters ? node.op->parameters(&node, parameters) : 0;
  if (n > 0) node.module = choose_module(builder, &node, &is_new);
  FLI_TRY(fli_grow(model->context, (void **)&model->nodes,
                   &model->node_capacity, (size_t)model->n_nodes + 1,
                   sizeof *model->nodes));
  node.first_tensor = model->n_tensors;
  for (uint32_t i = 0; i < n; i++) {
    FLI_TRY(add_tensor(model, &node, &parameters[i]));
  }
  if (node.op->shape) {
    builder->last = model->n_nodes;
    builder->from = model->n_nodes;
    builder->n_layers++;
  }
  model->nodes[model->n_nodes++] = node;
  if (is_new) builder->module = builder->next_module++;
out:
  return fli_builder_keep(builder, st);
}

uint64_t fli_builder_element_count(const fl_model_builder *builder)
{
  return builder->model->n_weights + builder->model->n_fixed;
}

void fli_builder_set_module(fl_model_builder *builder, uint32_t module)
{
  builder->module = module;
  builder->has_module = 1;
}

/* Begin a public call that adds a node; `name` must fit to be kept. */
fl_status fli_builder_begin(fl_model_builder *builder, fli_node *node,
                            const fli_node_op *op, const char *name)
{
  fli_clear_error();
  fl_status st = FL_OK;
  FLI_TRY(fli_builder_check(builder));
  st = check_name(name);
  if (st != FL_OK) return fli_builder_keep(builder, st);
  *node = (fli_node){.op = op, .inputs = {builder->from}};
  memcpy(node->name, name, strlen(name) + 1);
out:
  return st;
}

static fl_status copy_dims(fl_model_builder *builder, fli_shape *shape,
                           const uint64_t *dims, uint32_t n_dims)
{
  if (n_dims > FL_MAX_DIMS || (n_dims > 0 && !dims)) {
    return fli_builder_keep(builder,
                            fli_error(FL_E_ARGUMENT,
                                      "dims: got %u of them, want 0..%d, not "
                                      "NULL",
                                      n_dims, FL_MAX_DIMS));
  }
  shape->n_dims = n_dims;
  for (uint32_t i = 0; i < n_dims; i++) {
    shape->dims[i] = dims[i];
  }
  return FL_OK;
}

fl_status fl_model_builder_new(fl_model_builder **out, fl_context *context)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "builder: out is NULL");
  fl_model_builder *builder = fli_alloc(context, 1, sizeof *builder);
  if (!builder) return fli_nomem(sizeof *builder);
  builder->context = fli_context_ref(context);
  builder->model = fli_alloc(context, 1, sizeof *builder->model);
  if (!builder->model) {
    fl_model_builder_free(builder);
    return fli_nomem(sizeof *builder->model);
  }
  builder->model->context = fli_context_ref(context);
  fli_bytes_init(&builder->model->description, context);
  *out = builder;
  return FL_OK;
}

void fl_model_builder_free(fl_model_builder *builder)
{
  if (!builder) return;
  fl_context *context = builder->context;
  fl_model_free(builder->model);
  fli_free(context, builder, sizeof *builder);
  fli_context_unref(context);
}

fl_status fl_model_builder_module(fl_model_builder *builder, uint32_t module)
{
  fli_clear_error();
  fl_status st = fli_builder_check(builder);
  if (st == FL_OK) fli_builder_set_module(builder, module);
  return st;
}

fl_status fl_model_builder_tensor(fl_model_builder *builder, const char *name,
                                  const uint64_t *dims, uint32_t n_dims,
                                  int32_t trainable)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_tensor, name));
  FLI_TRY(copy_dims(builder, &node.attributes.tensor.shape, dims, n_dims));
  node.attributes.tensor.is_trainable = trainable != 0;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_input(fl_model_builder *builder,
                                 const uint64_t *dims, uint32_t n_dims,
                                 float scale, float shift)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_input, "input"));
  FLI_TRY(copy_dims(builder, &node.attributes.input.shape, dims, n_dims));
  node.attributes.input.scale = scale;
  node.attributes.input.shift = shift;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_dense(fl_model_builder *builder, const char *name,
                                 uint64_t units)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, &fli_op_dense, name));
  node.attributes.dense.units = units;
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

/* Layers without attributes. */
fl_status fli_builder_plain(fl_model_builder *builder, const fli_node_op *op,
                            const char *name)
{
  fl_status st = FL_OK;
  fli_node node;
  FLI_TRY(fli_builder_begin(builder, &node, op, name));
  FLI_TRY(fli_builder_add(builder, &node));
out:
  return st;
}

fl_status fl_model_builder_flatten(fl_model_builder *builder, const char *name)
{
  return fli_builder_plain(builder, &fli_op_flatten, name);
}

fl_status fl_model_builder_relu(fl_model_builder *builder, const char *name)
{
  return fli_builder_plain(builder, &fli_op_relu, name);
}

fl_status fl_model_builder_softmax_cross_entropy(fl_model_builder *builder,
                                                 const char *name)
{
  return fli_builder_plain(builder, &fli_op_softmax_cross_entropy, name);
}

fl_status fl_model_builder_build(fl_model_builder *builder, fl_model **out)
{
  fli_clear_error();
  fl_status st = FL_OK;
  FLI_TRY(fli_builder_check(builder));
  if (!out) return fli_error(FL_E_ARGUMENT, "build: out is NULL");
  st = fli_builder_keep(builder, fli_model_finish(builder->model));
  if (st != FL_OK) return st;
  *out = builder->model;
  builder->model = NULL;
  (void)fli_builder_keep(builder,
                         fli_error(FL_E_STATE, "builder: was built already"));
  fli_clear_error();
out:
  return st;
}
