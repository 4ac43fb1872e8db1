/* SPDX-License-Identifier: Apache-2.0 */
/* A model as it was, in 8 bits per weight: what plasticity is measured
 * against. Weights of a tensor with two dimensions or more have a scale for
 * each of its first one (output channels), largest magnitude / 127; biases and
 * norms stay as they are. It computes in float32, so the rounded values are
 * kept as such. */
#ifndef FLI_SNAPSHOT_H
#define FLI_SNAPSHOT_H

#include "model/model.h"

/* Make *snapshot, if it is NULL, with this context and set one module of it to
 * the model's weights now. FL_E_NOMEM. Free it with fl_model_free. */
fl_status fli_snapshot_take(fl_model **snapshot, fl_context *context,
                            const fl_model *model, uint32_t module);

#endif
