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
};

/* Add a node whose op, name and attributes are set (the rest is filled in).
 * A failure sticks to the builder. */
fl_status fli_builder_add(fl_model_builder *builder, const fli_node *node);
void fli_builder_set_module(fl_model_builder *builder, uint32_t module);
/* Elements of all tensors declared so far. */
uint64_t fli_builder_element_count(const fl_model_builder *builder);

#endif
