/* SPDX-License-Identifier: Apache-2.0 */
/* The static memory plan: where in one block every activation, gradient and
 * piece of scratch of a batch lies, computed before the first step. Buffers
 * share memory when their lifetimes do not meet. Training and inference have
 * plans of their own (inference keeps nothing for a way back) and share the
 * block, which grows when a larger batch comes and at no other time: a step
 * allocates nothing. */
#ifndef FLI_PLAN_H
#define FLI_PLAN_H

#include <fl/train.h>
#include "base/context.h"

/* Place of a buffer that a node does not have. */
#define FLI_NOWHERE SIZE_MAX

/* First floats of a node's buffers. */
typedef struct fli_places {
  size_t output;
  size_t gradient; /* of its output */
  size_t kept;
  size_t scratch[2]; /* [is_backward] */
  size_t tensor;     /* gradient of one of its tensors, see sink.h */
  /* Where the gradient of an input goes that others have written to already,
   * when the node cannot add. */
  size_t extra[2];
} fli_places;

typedef struct fli_plan {
  size_t batch;       /* samples there is room for; 0 = no plan yet */
  size_t n_floats;    /* of the block */
  fli_places *places; /* one per node */
} fli_plan;

typedef struct fli_workspace {
  fli_plan plans[2]; /* [is_training] */
  float *block;
  size_t n_floats;
  float *gradient;     /* gathered; NULL when no one wants it whole */
  uint64_t n_gradient; /* floats of it */
  uint32_t n_batches;  /* gathered in it since the last update */
  int wants_gradient;  /* while room for one is made */
} fli_workspace;

/* Place all buffers of a batch. FL_E_NOMEM: also when they are more than can
 * be addressed. */
fl_status fli_plan_make(const fl_model *model, size_t batch, int is_training,
                        fli_plan *out);
void fli_plan_free(const fl_model *model, fli_plan *plan);

/* Have room for `batch` samples, and within the limit, whatever there was
 * before. FL_E_LIMIT leaves that as it was; FL_E_NOMEM maybe nothing of it:
 * then smaller batches are planned anew. */
fl_status fli_workspace_reserve(fl_model *model, size_t batch, int is_training);
/* Lower *batch of an inference to what the limit allows, if any. FL_E_NOMEM. */
fl_status fli_workspace_fit(const fl_model *model, size_t *batch);
/* Plans are no longer right, and nothing else. */
void fli_workspace_drop_plans(fl_model *model);
/* Plans are no longer right: something they depend on has changed. With a limit
 * the block goes, too: what has changed may take more than before. */
void fli_workspace_forget(fl_model *model);
/* The same, and their memory is given back now. */
void fli_workspace_free(fl_model *model);

#endif
