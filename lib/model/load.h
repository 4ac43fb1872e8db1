/* SPDX-License-Identifier: Apache-2.0 */
/* What a module above needs to take a model's description from a stranger;
 * apart from model.h, which has the engine's insides. */
#ifndef FLI_MODEL_LOAD_H
#define FLI_MODEL_LOAD_H

#include <fl/model.h>

/* fl_model_from_description with a cap on the number of elements of all
 * tensors, checked before memory for them is allocated: FL_E_TOO_LARGE. */
fl_status fli_model_from_description_capped(fl_model **out, fl_context *context,
                                            const uint8_t *data, size_t n,
                                            uint64_t max_elements);
/* The same without values, for which no memory is taken: segments, description
 * and schema can be asked for, and it is freed as any other. */
fl_status fli_model_shape_from_description(fl_model **out, fl_context *context,
                                           const uint8_t *data, size_t n,
                                           uint64_t max_elements);

#endif
