/* SPDX-License-Identifier: Apache-2.0 */
/* A controller beside a model of ours: what it has to know between the
 * beginning and the end of a step. */
#ifndef FLI_ATTACH_H
#define FLI_ATTACH_H

#include <fl/freeze.h>
#include "model/model.h"

enum {
  FLI_PAIR_IN = 0, /* what goes into the front module */
  FLI_PAIR_OUT = 1,
  FLI_PAIR_LAST_IN = 2,
  FLI_PAIR_LAST_OUT = 3
};

/* Samples' values at a cut, in memory of their own. */
typedef struct fli_rows {
  fli_cut cut;
  float *values; /* room for max_rows samples */
  size_t n_floats;
  int is_there; /* of this step */
} fli_rows;

typedef struct fli_attachment {
  fl_freeze *freeze;
  fl_model *model;
  fl_freeze_request request;
  /* The front module's weights, and room for their gradient. */
  uint32_t front;
  uint64_t first;
  uint64_t n;
  float *gradient; /* NULL until it is wanted */
  uint64_t shown;  /* floats of it that have come */
  /* Pairs. */
  fl_model *snapshot; /* NULL until it is wanted */
  fli_rows rows[FLI_MAX_TAPS];
  uint32_t of_tap[FLI_MAX_TAPS]; /* which rows a tap is for */
  uint32_t n_rows;               /* samples taken in this step */
  /* The cache; NULL: none, or given up. */
  fl_cache *cache;
  uint64_t n_samples;
  int is_kept; /* the cache is for the prefix as it is now */
  fli_cut prefix;
  const void *data; /* what it is for: samples, and how many */
  uint64_t n_data;
  uint64_t *ids; /* of a batch */
  size_t n_ids;
} fli_attachment;

/* ---- kept.c: outputs of the frozen modules in the cache --------------------
 */

/* Have the cache for the prefix as it is now and the data set at hand, if it is
 * not. */
void fli_kept_begin(fli_attachment *a, const fli_batch *batch);
int fli_kept_load(fli_attachment *a, const fli_batch *batch, float *values);
void fli_kept_store(fli_attachment *a, const fli_batch *batch,
                    const float *values);

#endif
