/* SPDX-License-Identifier: Apache-2.0 */
/* Models made of another one: its layers are declared anew, some of them
 * changed or followed by others, most with their tensors fixed; then weights
 * are copied by name. LoRA (Hu et al., 2021) and bottleneck adapters (Houlsby
 * et al., ICML 2019). */
#include <fl/layers.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "linalg/linalg.h"
#include "model/builder.h"

static const fl_lora_options lora_defaults = {
    .struct_size = sizeof(fl_lora_options), .rank = 8, .alpha = 16.0f};
static const fl_adapter_options adapter_defaults = {
    .struct_size = sizeof(fl_adapter_options),
    .width = 16,
    .activation = FL_ACTIVATION_GELU};

/* A model that is being made. */
typedef struct copying {
  const fl_model *base;
  fl_model_builder *builder;
  uint32_t *outputs; /* of the base's nodes: nodes that have them now */
  const char *layers;
  const char *trained;
  int wants_residual; /* `layers` is NULL: only what goes into a sum */
  uint32_t last_dense;
  uint32_t n_chosen;
} copying;

fl_status fl_lora_options_init(fl_lora_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &lora_defaults, sizeof lora_defaults);
}

fl_status fl_adapter_options_init(fl_adapter_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &adapter_defaults,
                          sizeof adapter_defaults);
}

static int goes_into_a_sum(const fl_model *model, uint32_t index)
{
  const fli_node *node = &model->nodes[index];
  return node->n_uses == 1 && model->nodes[node->last_use].op == &fli_op_add;
}

static fl_status begin(copying *c, const fl_model *base)
{
  c->base = base;
  c->last_dense = FLI_NOBODY;
  for (uint32_t i = 0; i < base->n_nodes; i++) {
    if (base->nodes[i].op == &fli_op_dense) c->last_dense = i;
  }
  c->outputs = fli_alloc(base->context, base->n_nodes, sizeof *c->outputs);
  if (!c->outputs) return fli_nomem(base->n_nodes * sizeof *c->outputs);
  return fl_model_builder_new(&c->builder, base->context);
}

static void end(copying *c)
{
  fl_model_builder_free(c->builder);
  fli_free(c->base->context, c->outputs, c->base->n_nodes * sizeof *c->outputs);
}

/* Whether adapters below `layers` = NULL go where sums are. */
static void look_for_residuals(copying *c)
{
  for (uint32_t i = 0; i < c->base->n_nodes && !c->layers; i++) {
    if (c->base->nodes[i].op != &fli_op_dense) continue;
    c->wants_residual |= goes_into_a_sum(c->base, i);
  }
}

static int is_chosen(const copying *c, uint32_t index)
{
  const fli_node *node = &c->base->nodes[index];
  if (node->op != &fli_op_dense) return 0;
  if (c->layers) return strstr(node->name, c->layers) != NULL;
  if (c->wants_residual) return goes_into_a_sum(c->base, index);
  return index != c->last_dense;
}

static int stays_trained(const copying *c, uint32_t index)
{
  if (!c->trained) return index == c->last_dense;
  if (c->trained[0] == '\0') return 0;
  return strstr(c->base->nodes[index].name, c->trained) != NULL;
}

static fl_status check_choice(copying *c)
{
  uint32_t n_trained = 0;
  for (uint32_t i = 0; i < c->base->n_nodes; i++) {
    c->n_chosen += (uint32_t)is_chosen(c, i);
    n_trained += (uint32_t)stays_trained(c, i);
    if (!is_chosen(c, i) || !stays_trained(c, i)) continue;
    return fli_error(FL_E_CONFLICT,
                     "adapters: layer %s is to get one and to stay trained",
                     c->base->nodes[i].name);
  }
  if (c->n_chosen == 0) {
    return fli_error(FL_E_NOT_FOUND,
                     "adapters: no dense layer's name contains \"%s\"",
                     c->layers ? c->layers : "");
  }
  if (n_trained == 0 && c->trained && c->trained[0] != '\0') {
    return fli_error(FL_E_NOT_FOUND,
                     "adapters: no layer's name contains \"%s\"", c->trained);
  }
  return FL_OK;
}

/* What the base fixes stays fixed, whoever names it. */
static int is_to_be_fixed(const copying *c, uint32_t index)
{
  return c->base->nodes[index].is_frozen || !stays_trained(c, index);
}

/* The base's node as it was declared, its inputs those of the new model. */
static fli_node declared(const copying *c, uint32_t index)
{
  const fli_node *old = &c->base->nodes[index];
  fli_node node = {.op = old->op,
                   .attributes = old->attributes,
                   .was_frozen = old->is_frozen};
  memcpy(node.name, old->name, sizeof node.name);
  for (uint32_t k = 0; old->op->shape && k < old->op->n_inputs; k++) {
    node.inputs[k] = c->outputs[old->inputs[k]];
  }
  return node;
}

static fl_status put(copying *c, uint32_t index, const fli_node *node,
                     int is_frozen)
{
  fli_builder_set_module(c->builder, c->base->nodes[index].module);
  c->builder->is_frozen = is_frozen;
  fl_status st = fli_builder_add(c->builder, node);
  c->outputs[index] = c->builder->from;
  return st;
}

static fl_status copy_weights(const fl_model *from, fl_model *to)
{
  for (uint32_t i = 0; i < from->n_tensors; i++) {
    const fli_tensor *tensor = &from->tensors[i];
    uint32_t index = 0;
    if (fl_model_find_tensor(to, tensor->name, &index) != FL_OK) continue;
    memcpy(fli_tensor_values(to, &to->tensors[index]),
           fli_tensor_values(from, tensor),
           (size_t)tensor->shape.count * sizeof(float));
  }
  fli_clear_error();
  return FL_OK;
}

/* Build, draw what is new, copy what was there. */
static fl_status finish(copying *c, uint64_t seed, fl_model **out)
{
  fl_status st = FL_OK;
  fl_model *model = NULL;
  FLI_TRY(fl_model_builder_build(c->builder, &model));
  FLI_TRY(fl_model_init_weights(model, seed));
  FLI_TRY(copy_weights(c->base, model));
  *out = model;
  model = NULL;
out:
  fl_model_free(model);
  return st;
}

fl_status fl_model_with_lora(fl_model **out, const fl_model *base,
                             const fl_lora_options *options, uint64_t seed)
{
  fl_status st = FL_OK;
  fl_lora_options full = lora_defaults;
  copying c = {0};
  fli_clear_error();
  if (!out || !base) return fli_error(FL_E_ARGUMENT, "lora: model is NULL");
  FLI_TRY(fli_options_load(&full, sizeof full, options, "fl_lora_options"));
  c.layers = full.layers;
  c.trained = full.trained;
  st = begin(&c, base);
  if (st == FL_OK) st = check_choice(&c);
  for (uint32_t i = 0; i < base->n_nodes && st == FL_OK; i++) {
    fli_node node = declared(&c, i);
    int is_updated = is_chosen(&c, i);
    if (is_updated) {
      node.op = &fli_op_dense_lora;
      node.attributes.dense.rank = full.rank;
      node.attributes.dense.alpha = full.alpha;
    }
    st = put(&c, i, &node, !is_updated && is_to_be_fixed(&c, i));
  }
  if (st == FL_OK) st = finish(&c, seed, out);
  end(&c);
out:
  return st;
}

/* "<layer>.<part>" */
static fl_status name_part(fli_node *node, const char *layer, const char *part)
{
  int n = snprintf(node->name, sizeof node->name, "%s.%s", layer, part);
  if (n > 0 && (size_t)n < sizeof node->name) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "name: \"%s.%s\" is too long", layer, part);
}

/* y + up(act(down(y))) behind node `index`; then that has its output. */
static fl_status put_adapter(copying *c, uint32_t index,
                             const fl_adapter_options *options)
{
  fl_status st = FL_OK;
  const fli_node *base = &c->base->nodes[index];
  uint32_t y = c->outputs[index];
  fli_node down = {.op = &fli_op_dense, .inputs = {y}};
  fli_node act = {.op = options->activation == FL_ACTIVATION_RELU
                            ? &fli_op_relu
                            : &fli_op_activation};
  fli_node up = {.op = &fli_op_dense};
  fli_node sum = {.op = &fli_op_add};
  down.attributes.dense.units = options->width;
  act.attributes.activation.kind = options->activation;
  up.attributes.dense.units = base->attributes.dense.units;
  FLI_TRY(name_part(&down, base->name, "down"));
  FLI_TRY(name_part(&act, base->name, "bend"));
  FLI_TRY(name_part(&up, base->name, "up"));
  FLI_TRY(name_part(&sum, base->name, "sum"));
  FLI_TRY(put(c, index, &down, 0));
  act.inputs[0] = c->builder->from;
  FLI_TRY(put(c, index, &act, 0));
  up.inputs[0] = c->builder->from;
  FLI_TRY(put(c, index, &up, 0));
  sum.inputs[0] = c->builder->from;
  sum.inputs[1] = y;
  FLI_TRY(put(c, index, &sum, 0));
out:
  return st;
}

/* New adapters change nothing at first. */
static void clear_adapters(const fl_model *base, fl_model *model)
{
  for (uint32_t i = 0; i < base->n_nodes; i++) {
    static const char *const parts[2] = {"up.weight", "up.bias"};
    for (size_t p = 0; p < 2; p++) {
      char name[2 * FL_NAME_BYTES];
      uint32_t index = 0;
      (void)snprintf(name, sizeof name, "%s.%s", base->nodes[i].name, parts[p]);
      if (fl_model_find_tensor(base, name, &index) == FL_OK) continue;
      if (fl_model_find_tensor(model, name, &index) != FL_OK) continue;
      const fli_tensor *tensor = &model->tensors[index];
      memset(fli_tensor_values(model, tensor), 0,
             (size_t)tensor->shape.count * sizeof(float));
    }
  }
  fli_clear_error();
}

fl_status fl_model_with_adapters(fl_model **out, const fl_model *base,
                                 const fl_adapter_options *options,
                                 uint64_t seed)
{
  fl_status st = FL_OK;
  fl_adapter_options full = adapter_defaults;
  copying c = {0};
  fli_clear_error();
  if (!out || !base) return fli_error(FL_E_ARGUMENT, "adapters: model is NULL");
  FLI_TRY(fli_options_load(&full, sizeof full, options, "fl_adapter_options"));
  c.layers = full.layers;
  c.trained = full.trained;
  st = begin(&c, base);
  look_for_residuals(&c);
  if (st == FL_OK) st = check_choice(&c);
  for (uint32_t i = 0; i < base->n_nodes && st == FL_OK; i++) {
    fli_node node = declared(&c, i);
    st = put(&c, i, &node, is_to_be_fixed(&c, i));
    if (st == FL_OK && is_chosen(&c, i)) st = put_adapter(&c, i, &full);
  }
  if (st == FL_OK) st = finish(&c, seed, out);
  if (st == FL_OK) clear_adapters(base, *out);
  end(&c);
out:
  return st;
}

/* W += s B A */
static void fold(const fl_model *model, const fli_node *node, fl_model *merged)
{
  enum { WEIGHT = 0, LORA_A = 2, LORA_B = 3 };
  const fli_tensor *old = &model->tensors[node->first_tensor];
  uint32_t index = 0;
  if (fl_model_find_tensor(merged, old[WEIGHT].name, &index) != FL_OK) return;
  size_t inputs = (size_t)old[WEIGHT].shape.dims[1];
  size_t units = (size_t)old[WEIGHT].shape.dims[0];
  size_t rank = (size_t)node->attributes.dense.rank;
  fli_sgemm(&(fli_gemm){
      .m = units,
      .n = inputs,
      .k = rank,
      .alpha = node->attributes.dense.alpha / (float)rank,
      .a = fli_tensor_values(model, &old[LORA_B]),
      .lda = rank,
      .b = fli_tensor_values(model, &old[LORA_A]),
      .ldb = inputs,
      .beta = 1.0f,
      .c = fli_tensor_values(merged, &merged->tensors[index]),
      .ldc = inputs,
  });
}

static int has_lora(const fl_model *model)
{
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    if (model->nodes[i].op == &fli_op_dense_lora) return 1;
  }
  return 0;
}

fl_status fl_model_merge_lora(fl_model **out, const fl_model *model)
{
  fl_status st = FL_OK;
  fl_model *merged = NULL;
  copying c = {0};
  fli_clear_error();
  if (!out || !model) return fli_error(FL_E_ARGUMENT, "merge: model is NULL");
  st = begin(&c, model);
  int is_folded = has_lora(model); /* else the model stays what it is */
  for (uint32_t i = 0; i < model->n_nodes && st == FL_OK; i++) {
    const fli_node *old = &model->nodes[i];
    fli_node node = declared(&c, i);
    if (node.op == &fli_op_dense_lora) node.op = &fli_op_dense;
    node.was_frozen = !is_folded && old->was_frozen;
    st = put(&c, i, &node, is_folded ? old->was_frozen : old->is_frozen);
  }
  if (st == FL_OK) st = finish(&c, 0, &merged);
  for (uint32_t i = 0; i < model->n_nodes && st == FL_OK; i++) {
    if (model->nodes[i].op != &fli_op_dense_lora) continue;
    fold(model, &model->nodes[i], merged);
  }
  end(&c);
  if (st == FL_OK) *out = merged;
  return st;
}
