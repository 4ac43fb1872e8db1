/* SPDX-License-Identifier: Apache-2.0 */
/* What saving, loading and deltas share. */
#ifndef FLI_EMBEDDING_SAVED_H
#define FLI_EMBEDDING_SAVED_H

#include "embedding/stream.h"

/* Accumulator and values of a row. */
void fli_write_values(fli_out *out, const fli_table *table, uint32_t where);
/* All is saved as it is: nothing has changed since. */
void fli_begin_version(fl_embedding *embedding, uint64_t version);

/* ---- ids that were evicted since the last version (tombstones.c) --------- */

/* FL_E_NOMEM, FL_E_LIMIT. */
fl_status fli_tombstones_new(fl_embedding *embedding, uint64_t n);
void fli_tombstones_free(fl_embedding *embedding);
void fli_tombstones_clear(fl_embedding *embedding);

#endif
