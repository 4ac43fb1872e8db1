/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of fl_model_builder, for its two users: the public functions and the
 * description parser. */
#ifndef FLI_BUILDER_H
#define FLI_BUILDER_H

#include "model/model.h"

struct fl_model_builder {
  fl_context *context;
  fl_model *model; /* NULL after build */
  fl_status status;
  char text[256];
  int has_module; /* set by the host: `module` is for all that follows */
  uint32_t module;
  uint32_t next_module;
  int is_frozen; /* tensors of what follows are fixed */
  uint32_t n_layers;
  uint32_t last; /* layer, an index; if there is one */
  uint32_t from; /* whose output the next layer takes */
};

#define FLI_NOBODY UINT32_MAX

/* Keep the first failure; a caller that ignored it hears of it again. */
fl_status fli_builder_keep(fl_model_builder *builder, fl_status status);
/* FL_E_ARGUMENT: NULL; or the failure kept. */
fl_status fli_builder_check(const fl_model_builder *builder);
/* Begin a public call that adds a node behind `from`; `name` must fit to be
 * kept. */
fl_status fli_builder_begin(fl_model_builder *builder, fli_node *node,
                            const fli_node_op *op, const char *name);
/* The whole of a call for a layer without attributes. */
fl_status fli_builder_plain(fl_model_builder *builder, const fli_node_op *op,
                            const char *name);
/* Index of the layer of that name, or FLI_NOBODY. */
uint32_t fli_builder_find(const fl_model_builder *builder, const char *name);

/* FL_E_STATE: a layer before the input, or behind the loss. */
fl_status fli_builder_check_place(const fl_model_builder *builder,
                                  const fli_node *node);

/* Add a node whose op, name, inputs and attributes are set (the rest is filled
 * in).
 * A failure sticks to the builder. */
fl_status fli_builder_add(fl_model_builder *builder, const fli_node *node);
void fli_builder_set_module(fl_model_builder *builder, uint32_t module);
/* Elements of all tensors declared so far. */
uint64_t fli_builder_element_count(const fl_model_builder *builder);

#endif
