/* SPDX-License-Identifier: Apache-2.0 */
/* Models on the wire: {1: version, 2: [node, ...]} with the nodes in order of
 * declaration, each {1: kind, 2: name, 3: module (kinds with tensors), 16..:
 * the kind's attributes, 128: inputs (indices of nodes; unless it is the layer
 * before, alone), 129: its tensors are fixed (if they are), 130: they were so
 * before LoRA or adapters came (if they were)}. Written in one way only; read
 * from anybody: nothing is allocated but what the bytes at hand pay for, and
 * the number of elements is compared with a cap before memory for values is
 * asked for. */
#include "model/builder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

enum {
  DESCRIPTION_VERSION = 1,
  KEY_VERSION = 1,
  KEY_NODES = 2,
  KEY_KIND = 1,
  KEY_NAME = 2,
  KEY_MODULE = 3,
  KEY_INPUTS = 128,
  KEY_IS_FROZEN = 129,
  KEY_WAS_FROZEN = 130
};

/* Whether the node's only input is the layer declared before it. */
static int follows(const fl_model *model, const fli_node *node)
{
  if (!node->op->shape || node->op->n_inputs == 0) return 1;
  return node->op->n_inputs == 1 &&
         model->nodes[node->inputs[0]].position + 1 == node->position;
}

/* Whether it matters that it is fixed. */
static int has_weights(const fli_node *node)
{
  return node->n_parameters > 0 || (node->flags & FLI_NODE_HAS_ROWS) != 0;
}

static void write_node(const fl_model *model, const fli_node *node,
                       fli_msg_writer *writer)
{
  uint32_t has_module = node->op->parameters != NULL;
  uint32_t has_inputs = !follows(model, node);
  uint32_t is_frozen = node->is_frozen && has_weights(node);
  uint32_t was_frozen = node->was_frozen && has_weights(node);
  fli_writer_map(writer, 2 + has_module + node->op->n_attributes + has_inputs +
                             is_frozen + was_frozen);
  fli_field_str(writer, KEY_KIND, node->op->name);
  fli_field_str(writer, KEY_NAME, node->name);
  if (has_module) fli_field_u64(writer, KEY_MODULE, node->module);
  if (node->op->pack) node->op->pack(node, writer);
  if (has_inputs) {
    fli_writer_u64(writer, KEY_INPUTS);
    fli_writer_array(writer, node->op->n_inputs);
    for (uint32_t k = 0; k < node->op->n_inputs; k++) {
      fli_writer_u64(writer, node->inputs[k]);
    }
  }
  if (is_frozen) {
    fli_writer_u64(writer, KEY_IS_FROZEN);
    fli_writer_bool(writer, 1);
  }
  if (was_frozen) {
    fli_writer_u64(writer, KEY_WAS_FROZEN);
    fli_writer_bool(writer, 1);
  }
}

fl_status fli_description_write(const fl_model *model, fli_bytes *out)
{
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, 2);
  fli_field_u64(&writer, KEY_VERSION, DESCRIPTION_VERSION);
  fli_writer_u64(&writer, KEY_NODES);
  fli_writer_array(&writer, model->n_nodes);
  for (uint32_t i = 0; i < model->n_nodes; i++) {
    write_node(model, &model->nodes[i], &writer);
  }
  return fli_writer_status(&writer);
}

fl_status fl_model_copy_description(const fl_model *model, uint8_t *buffer,
                                    size_t capacity, size_t *needed)
{
  fli_clear_error();
  if (!model || !needed || (!buffer && capacity > 0)) {
    return fli_error(FL_E_ARGUMENT, "copy_description: a pointer is NULL");
  }
  size_t n = model->description.size;
  *needed = n;
  if (!buffer) return FL_OK;
  if (capacity < n) {
    return fli_error(FL_E_SIZE, "copy_description: got %zu bytes, want %zu",
                     capacity, n);
  }
  memcpy(buffer, model->description.data, n);
  return FL_OK;
}

/* Kind of a node; sticks an error to the reader when this build has none of
 * that name. */
static const fli_node_op *read_kind(fli_msg_reader *reader)
{
  char name[FL_NAME_BYTES];
  fli_reader_str_copy(reader, name, sizeof name, "kind of a node");
  if (fli_reader_status(reader) != FL_OK) return NULL;
  const fli_node_op *op = fli_node_op_find(name);
  if (!op) {
    char text[FL_NAME_BYTES + 32];
    (void)snprintf(text, sizeof text, "layer kind \"%s\"", name);
    fli_reader_fail(reader, FL_E_UNSUPPORTED, text);
  }
  return op;
}

/* Inputs are layers declared before. */
static void read_inputs(const fl_model_builder *builder, fli_node *node,
                        fli_msg_reader *reader)
{
  uint32_t n = fli_reader_array(reader);
  if (!node->op || !node->op->shape || n != node->op->n_inputs || n == 0) {
    fli_reader_fail(reader, FL_E_FORMAT, "number of a node's inputs");
    return;
  }
  for (uint32_t k = 0; k < n; k++) {
    uint32_t index = fli_reader_u32(reader);
    if (index >= builder->model->n_nodes ||
        !builder->model->nodes[index].op->shape) {
      fli_reader_fail(reader, FL_E_FORMAT,
                      "input of a node: no layer declared before it");
      return;
    }
    node->inputs[k] = index;
  }
  fli_reader_leave(reader);
}

/* What is there besides the attributes. */
typedef struct found {
  uint32_t n_attributes;
  int has_module;
  int has_inputs;
} found;

static void read_field(fl_model_builder *builder, fli_fields *fields,
                       uint32_t key, fli_node *node, found *is)
{
  fli_msg_reader *reader = fields->reader;
  switch (key) {
  case KEY_KIND: node->op = read_kind(reader); break;
  case KEY_NAME:
    fli_reader_str_copy(reader, node->name, sizeof node->name,
                        "name of a node");
    break;
  case KEY_MODULE:
    fli_builder_set_module(builder, fli_reader_u32(reader));
    is->has_module = 1;
    break;
  case KEY_INPUTS:
    read_inputs(builder, node, reader);
    is->has_inputs = 1;
    break;
  case KEY_IS_FROZEN: builder->is_frozen = fli_reader_bool(reader); break;
  case KEY_WAS_FROZEN: node->was_frozen = fli_reader_bool(reader); break;
  default:
    if (node->op && node->op->unpack && node->op->unpack(node, key, reader)) {
      is->n_attributes++;
    } else {
      fli_fields_unknown(fields);
    }
    break;
  }
}

/* What the reader found wrong, with where it was. */
static fl_status field_error(const fli_node *node, uint32_t key,
                             fl_status status)
{
  char text[256];
  (void)snprintf(text, sizeof text, "%s", fl_last_error());
  return fli_error(status, "description: node %s, field %u: %s", node->name,
                   key, text);
}

static fl_status read_node(fl_model_builder *builder, fli_msg_reader *reader)
{
  fli_node node = {.inputs = {builder->from}};
  found is = {0};
  uint32_t key = 0;
  builder->is_frozen = 0;
  for (fli_fields f = fli_fields_begin(reader); fli_fields_next(&f, &key);) {
    read_field(builder, &f, key, &node, &is);
  }
  fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return field_error(&node, key, st);
  if (!node.op) return fli_error(FL_E_FORMAT, "description: node has no kind");
  if (node.op->parameters && !is.has_module) {
    return fli_error(FL_E_FORMAT, "description: node %s has no module",
                     node.name);
  }
  if (node.op->shape && node.op->n_inputs > 1 && !is.has_inputs) {
    return fli_error(FL_E_FORMAT, "description: node %s has no inputs",
                     node.name);
  }
  if (is.n_attributes != node.op->n_attributes) {
    return fli_error(FL_E_FORMAT,
                     "description: attributes of node %s, got %u, want %u",
                     node.name, is.n_attributes, node.op->n_attributes);
  }
  return fli_builder_add(builder, &node);
}

static fl_status read_nodes(fl_model_builder *builder, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  uint32_t n = fli_reader_array(reader);
  if (n > FLI_MAX_NODES) {
    return fli_error(FL_E_TOO_LARGE, "description: %u nodes, want <= %d", n,
                     FLI_MAX_NODES);
  }
  for (uint32_t i = 0; i < n; i++) {
    FLI_TRY(read_node(builder, reader));
  }
  fli_reader_leave(reader);
out:
  return st;
}

static fl_status read_description(fl_model_builder *builder,
                                  const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  fli_msg_reader reader;
  uint32_t key = 0;
  uint64_t version = 0;
  fli_reader_init(&reader, data, n);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    if (key == KEY_VERSION) {
      version = fli_reader_u64(&reader);
      if (version != DESCRIPTION_VERSION) {
        fli_reader_fail(&reader, FL_E_VERSION, "version of the description");
      }
    } else if (key == KEY_NODES && version != 0) {
      FLI_TRY(read_nodes(builder, &reader));
    } else {
      fli_fields_unknown(&f);
    }
  }
  FLI_TRY(fli_reader_finish(&reader));
  if (version == 0) {
    st = fli_error(FL_E_FORMAT, "description: it has no version");
  }
out:
  return st;
}

/* What would be the caller's mistake in a builder call is malformed data
 * here. The text stays. */
static fl_status as_peer_error(fl_status status)
{
  switch (status) {
  case FL_E_ARGUMENT:
  case FL_E_DIM:
  case FL_E_NOT_FINITE:
  case FL_E_STATE: return FL_E_FORMAT;
  default: return status;
  }
}

/* With its values, or but its shape. */
static fl_status from_description(fl_model **out, fl_context *context,
                                  const uint8_t *data, size_t n,
                                  uint64_t max_elements, int is_shape)
{
  fli_clear_error();
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  if (!out || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "from_description: a pointer is NULL");
  }
  if (n > FLI_MAX_DESCRIPTION) {
    return fli_error(FL_E_TOO_LARGE, "description: %zu bytes, want <= %d", n,
                     FLI_MAX_DESCRIPTION);
  }
  FLI_TRY(fl_model_builder_new(&builder, context));
  FLI_TRY(as_peer_error(read_description(builder, data, n)));
  uint64_t count = fli_builder_element_count(builder);
  if (count > max_elements) {
    st = fli_error(FL_E_TOO_LARGE,
                   "description: %" PRIu64 " parameters, want <= %" PRIu64,
                   count, max_elements);
    goto out;
  }
  builder->model->is_shape = is_shape;
  FLI_TRY(as_peer_error(fl_model_builder_build(builder, out)));
out:
  fl_model_builder_free(builder);
  return st;
}

fl_status fli_model_from_description_capped(fl_model **out, fl_context *context,
                                            const uint8_t *data, size_t n,
                                            uint64_t max_elements)
{
  return from_description(out, context, data, n, max_elements, 0);
}

fl_status fli_model_shape_from_description(fl_model **out, fl_context *context,
                                           const uint8_t *data, size_t n,
                                           uint64_t max_elements)
{
  return from_description(out, context, data, n, max_elements, 1);
}

fl_status fl_model_from_description(fl_model **out, fl_context *context,
                                    const uint8_t *data, size_t n)
{
  return fli_model_from_description_capped(out, context, data, n,
                                           FLI_MAX_ELEMENTS);
}
