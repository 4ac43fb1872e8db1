/* SPDX-License-Identifier: Apache-2.0 */
/* What slices want of a store beyond its public functions. */
#ifndef FLI_EMBEDDING_SLICE_ROWS_H
#define FLI_EMBEDDING_SLICE_ROWS_H

#include "embedding/embedding.h"

/* Hears of every id that backward has trained, with what that was worth by
 * chunk (accesses x |gradient|), rows or not. In the calling thread. */
typedef struct fli_watch {
  void *user;
  void (*touched)(void *user, uint32_t table, uint64_t id,
                  const float *increments);
} fli_watch;

/* train.c: as fl_embedding_backward, with utilities[n_bags, chunks] of bags of
 * one id each, all different, instead of the gradients' own; NULL: these. */
fl_status fli_embedding_backward(fl_embedding *embedding, uint32_t table,
                                 const fl_embedding_bags *bags,
                                 const float *gradient, float rate,
                                 const float *utilities);

/* delta.c: put a row with these chunks, of values[dim], in the place of one
 * that is there; its utilities are 0. Without room nothing has changed. */
fli_room fli_embedding_put(fl_embedding *embedding, fli_table *table,
                           uint64_t id, uint32_t mask, const float *values);
/* And take one out, if it is there. */
void fli_embedding_drop(fl_embedding *embedding, fli_table *table, uint64_t id);

/* slice_rows.c: say what the last batch was worth. */
void fli_embedding_tell(const fl_embedding *embedding, const fli_table *table);
/* What a new row of this id begins with. */
void fli_embedding_first(const fl_embedding *embedding, const fli_table *table,
                         uint64_t id, float *values);
/* Utility above which a row came in the last adjust; 0: anything did. */
float fli_embedding_threshold(const fli_table *table);

#endif
