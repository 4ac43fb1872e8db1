/* SPDX-License-Identifier: Apache-2.0 */
/* A place beside the training, for those who decide what is trained: layer
 * freezing sees losses, gradients and outputs through this, and hands in
 * outputs of frozen layers that it has kept. Nothing of it changes what a step
 * computes. */
#ifndef FLI_OBSERVER_H
#define FLI_OBSERVER_H

#include "model/node.h"

/* Where the graph can be cut in two: one layer's output is all that layers from
 * `position` on take from those before. */
typedef struct fli_cut {
  uint32_t position; /* of the first layer behind, in the chain */
  uint32_t node;     /* whose output crosses, an index */
  uint64_t n_values; /* of a sample, as they are stored */
} fli_cut;

/* What an observer wants of a step. */
typedef struct fli_watch {
  /* Show the gradients of flat weights first .. first + n - 1. */
  uint64_t first;
  uint64_t n;
  /* Show what crosses these, by rising position: a cut, or any layer's output
   * as it is when the layer at `position` is about to run. The observer's. */
  const fli_cut *taps;
  uint32_t n_taps;
  /* taps[0] is where the frozen part ends: `load` may have its values. */
  int loads;
} fli_watch;

/* Functions that are NULL are not called. */
typedef struct fli_observer {
  void *user;
  /* An update begins, with this batch (the first, where several make one) and
   * this rate. May set the first active module and fills in `watch`. A status
   * other than FL_OK ends the step before anything is computed. */
  fl_status (*begin)(void *user, const fli_batch *batch, float rate,
                     fli_watch *watch);
  /* Fill in values[n][n_values] of the batch's samples at taps[0]; returns
   * whether they are there. */
  int (*load)(void *user, const fli_batch *batch, float *values);
  /* values[n][n_values] at taps[index]; on the way forward. */
  void (*tap)(void *user, uint32_t index, const fli_batch *batch,
              const float *values);
  /* A tensor's gradient, of the flat weights from `at` on, before it is used.
   */
  void (*gradient)(void *user, uint64_t at, const float *gradient, uint64_t n);
  /* The update was made; mean loss over its batches. Weights have changed: a
   * status other than FL_OK is the step's, but does not undo it. */
  fl_status (*end)(void *user, double loss);
  /* The model is being freed. */
  void (*gone)(void *user);
} fli_observer;

#endif
