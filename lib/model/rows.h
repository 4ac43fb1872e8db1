/* SPDX-License-Identifier: Apache-2.0 */
/* The model's side of rows that are a provider's. */
#ifndef FLI_ROWS_H
#define FLI_ROWS_H

#include "model/node.h"
#include "model/provider.h"

/* The node whose rows they are, or NULL. */
const fli_node *fli_model_sparse(const fl_model *model);
/* Whether a step changes rows. */
int fli_model_trains_rows(const fl_model *model);
/* FL_E_STATE: there is no provider of the rows that the model wants. */
fl_status fli_rows_check(const fl_model *model);
/* FL_E_CONFLICT: rows are trained, and an update is not made of one batch, but
 * of `accumulate` (0: as many as the host likes), or has begun before. */
fl_status fli_rows_check_batches(const fl_model *model, uint32_t accumulate);
/* Update the rows of the batch of n samples that has just gone back.
 * FL_E_NOT_FINITE: their gradient. */
fl_status fli_rows_update(fl_model *model, size_t n, float rate);

/* op_sparse_embedding.c: the ids of a batch of n samples that lie in `kept`. */
fli_ids fli_sparse_ids(const fli_node *node, const float *kept, size_t n);

#endif
