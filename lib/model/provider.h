/* SPDX-License-Identifier: Apache-2.0 */
/* Where the rows of a sparse embedding are: with somebody above, who knows how
 * to keep more ids than a tensor has room for. The model asks for the rows of a
 * batch and hands back their gradient. This is all that he needs to see of the
 * model. */
#ifndef FLI_PROVIDER_H
#define FLI_PROVIDER_H

#include <fl/model.h>

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

/* Fields and width of the rows that the model wants. FL_E_NOT_FOUND: it has no
 * sparse embedding. */
fl_status fli_model_get_rows(const fl_model *model, size_t *fields,
                             size_t *width);
/* FL_E_STATE: they have a provider. */
fl_status fli_model_check_no_provider(const fl_model *model);
/* FL_E_ARGUMENT: NULL; FL_E_STATE: in the middle of a step, in a gradient
 * function, where nothing may be trained or set. */
fl_status fli_model_check_idle(const fl_model *model);
/* Let `provider`, which is borrowed, have them; NULL takes it away, also in the
 * middle of a step, which then leaves them out. What is gathered is dropped. */
void fli_model_set_provider(fl_model *model, const fli_provider *provider,
                            void *user);

#endif
