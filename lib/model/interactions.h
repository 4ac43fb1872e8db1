/* SPDX-License-Identifier: Apache-2.0 */
/* What layers that compare the vectors of fields have in common. */
#ifndef FLI_INTERACTIONS_H
#define FLI_INTERACTIONS_H

#include "model/node.h"

/* Whether the input is [fields, width] with 2 fields or more. FL_E_DIM. */
fl_status fli_fields_check(const fli_node *node, uint64_t *fields);

#endif
