/* SPDX-License-Identifier: Apache-2.0 */
/* Where the rows of a sparse embedding are: with somebody above, who knows how
 * to keep more ids than a tensor has room for. The model asks for the rows of a
 * batch and hands back their gradient. */
#ifndef FLI_PROVIDER_H
#define FLI_PROVIDER_H

#include "model/node.h"

/* The ids of a batch; borrowed for a call. */
typedef struct fli_ids {
  const uint64_t *ids; /* [n][fields], any values */
  size_t n;
  size_t fields;
  size_t width; /* of a row */
} fli_ids;

typedef struct fli_provider {
  /* values[n][fields][width]. Nothing changes. */
  fl_status (*lookup)(void *user, const fli_ids *ids, float *values);
  /* The same in training: may make rows for ids that have none. */
  fl_status (*forward)(void *user, const fli_ids *ids, float *values);
  /* Update the rows with the gradient[n][fields][width] of what the last
   * forward gave for these ids, which is finite; `rate` is the step's. All or
   * nothing: a status other than FL_OK fails the step. */
  fl_status (*backward)(void *user, const fli_ids *ids, const float *gradient,
                        float rate);
  /* The model is being freed. */
  void (*gone)(void *user);
} fli_provider;

/* rows.c: the node whose rows are somebody else's, or NULL. */
const fli_node *fli_model_sparse(const fl_model *model);
/* Let `provider`, which is borrowed, have the rows of the model's sparse
 * embedding; NULL takes it away. What is gathered is dropped. */
void fli_model_set_provider(fl_model *model, const fli_provider *provider,
                            void *user);
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
