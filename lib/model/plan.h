/* SPDX-License-Identifier: Apache-2.0 */
/* The static memory plan: where in one block every activation and gradient of
 * a batch lies, computed before the first step. Buffers share memory when
 * their lifetimes do not meet. Training and inference have plans of their own
 * (inference keeps nothing for a way back) and share the block, which grows
 * when a larger batch comes and at no other time: a step allocates nothing. */
#ifndef FLI_PLAN_H
#define FLI_PLAN_H

#include <fl/model.h>
#include "base/context.h"

/* Place of a buffer that a node does not have. */
#define FLI_NOWHERE SIZE_MAX

typedef struct fli_plan {
  size_t batch;     /* samples there is room for; 0 = no plan yet */
  size_t n_floats;  /* of the block */
  size_t *output;   /* per layer of the chain: first float of its output */
  size_t *gradient; /* ... of its output's gradient, or FLI_NOWHERE */
} fli_plan;

typedef struct fli_workspace {
  fli_plan plans[2]; /* [is_training] */
  float *block;
  size_t n_floats;
  float *gradient; /* like the flat weights; only when an observer wants it */
} fli_workspace;

/* Have room for `batch` samples. FL_E_NOMEM leaves what there was usable. */
fl_status fli_workspace_reserve(fl_model *model, size_t batch, int is_training);
void fli_workspace_free(fl_model *model);
/* Lowest place in the chain whose node has weights to train; n_chain when
 * there is none. Nothing before it needs a gradient. */
uint32_t fli_first_trained(const fl_model *model);

#endif
