/* SPDX-License-Identifier: Apache-2.0 */
/* A controller beside a model of ours: what it has to know between the
 * beginning and the end of a step. */
#ifndef FLI_ATTACH_H
#define FLI_ATTACH_H

#include "base/context.h"
#include "freeze/freeze.h"
#include "model/model.h"

/* Samples' values at a tap, in memory of their own. */
typedef struct fli_rows {
  fli_cut cut;
  float *values;
  size_t n_floats; /* room */
  int is_there;    /* of this step */
} fli_rows;

/* Rows of pairs come first. */
enum {
  FLI_PAIR_IN = 0, /* what goes into the front module */
  FLI_PAIR_OUT = 1,
  FLI_PAIR_LAST_IN = 2,
  FLI_PAIR_LAST_OUT = 3,
  FLI_PAIR_ROWS = 4
};

/* Pairs of a step, on their way to the controller. While a task is under way
 * rows, snapshot and what is found are the task's. */
typedef struct fli_late {
  fl_model *snapshot;  /* NULL until it is wanted */
  fl_context *context; /* its own, when it is to compute beside the steps */
  fli_beside beside;
  int is_there;  /* there are pairs, measured or being measured, */
  uint64_t step; /* that this step asked for */
  size_t n;      /* samples */
  fli_rows rows[FLI_PAIR_ROWS];
  fli_pairs found;
} fli_late;

/* An adapter: a dense layer with a low-rank update, whose input is shown, or
 * the sum behind a bottleneck, of which both sides are. */
typedef struct fli_adapter {
  uint32_t module;
  uint32_t node;
  int is_low_rank;
  uint32_t rows; /* the first of its rows */
  uint64_t width;
} fli_adapter;

typedef struct fli_attachment {
  fl_freeze *freeze;
  fl_model *model;
  fl_freeze_request request;
  uint32_t floor; /* nothing in front of it is trained, whatever the plan */
  uint8_t *mask;  /* n_modules: what is to be frozen */
  /* The front module's weights, and room for their gradient. */
  uint32_t front;
  uint64_t first;
  uint64_t n;
  float *gradient; /* NULL until it is wanted */
  uint64_t shown;  /* floats of it that have come */
  /* What is tapped, and which rows it is for. */
  uint32_t n_places; /* of the three arrays */
  fli_rows *rows;
  fli_cut *taps;
  uint32_t *of_tap;
  size_t n_batch; /* samples of this step's */
  fli_late late;
  fli_adapter *adapters;
  uint32_t n_adapters;
  /* The cache; NULL: none, or given up. */
  fl_cache *cache;
  uint64_t n_samples;
  int is_kept;    /* the cache is for the prefix as it is now, */
  uint64_t begun; /* while its own count is this one */
  int is_named;   /* that was looked into for the batch at hand */
  uint32_t told;  /* first active module that was told to be not worth while */
  fli_cut prefix;
  const void *data; /* what it is for: samples, and how many */
  uint64_t n_data;
  uint64_t n_writes; /* of the model: its weights are those of then */
  uint32_t n_frozen; /* modules of the prefix */
  uint64_t *ids;     /* of a batch */
  size_t n_ids;
} fli_attachment;

/* ---- taps.c: what is shown on the way forward --------------------------- */

/* Find the adapters, if the criterion is about them, and make room for taps.
 * FL_E_NOMEM; FL_E_NOT_FOUND: no adapters. */
fl_status fli_taps_init(fli_attachment *a);
void fli_taps_free(fli_attachment *a);
/* Have a tap for `rows`, or FLI_NO_ROWS; by rising position. Returns 0 when
 * there is no memory for what it shows. */
enum { FLI_NO_ROWS = UINT16_MAX };
int fli_taps_add(fli_attachment *a, fli_watch *watch, const fli_cut *cut,
                 uint32_t rows, size_t samples);
void fli_taps_take(fli_attachment *a, uint32_t index, const fli_batch *batch,
                   const float *values);
/* Forget what the last step has shown, and its memory. */
void fli_taps_clear(fli_attachment *a);

/* ---- late.c: the front module beside its snapshot ----------------------- */

/* Make the snapshot anew of the modules that the step at hand compares; 0 when
 * there is no memory. */
int fli_late_snapshot(fli_attachment *a);
/* Measure what the step at hand has shown; with a lag it has ended. */
void fli_late_begin(fli_attachment *a);
void fli_late_free(fli_attachment *a);

/* ---- adapter.c: features before and after adapters ---------------------- */

void fli_adapters_watch(fli_attachment *a, fli_watch *watch);
void fli_adapters_push(fli_attachment *a);

/* ---- kept.c: outputs of the frozen modules in the cache ----------------- */

/* Have the cache for the prefix as it is now and the data set at hand, if it is
 * not. */
void fli_kept_begin(fli_attachment *a, const fli_batch *batch);
int fli_kept_load(fli_attachment *a, const fli_batch *batch, float *values);
void fli_kept_store(fli_attachment *a, const fli_batch *batch,
                    const float *values);

#endif
