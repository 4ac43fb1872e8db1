/* SPDX-License-Identifier: Apache-2.0 */
/* Ids that were evicted since the last version: who serves from a copy has to
 * drop them, too. Their number is bounded; beyond it there is no delta, but a
 * whole table to be had. */
#include "embedding/saved.h"

#include "base/error.h"
#include "base/size.h"

fl_status fli_tombstones_new(fl_embedding *embedding, uint64_t n)
{
  int no_memory = 0;
  size_t count, bytes;
  if (n == 0) return FL_OK;
  if (!fli_to_size(n, &count) ||
      !fli_mul_size(count, sizeof(fli_tombstone), &bytes))
    return fli_error(FL_E_OPTIONS, "embedding: tombstones, got too many");
  embedding->tombstones = fli_embedding_take(embedding, bytes, 0, &no_memory);
  if (embedding->tombstones) return FL_OK;
  embedding->options.tombstones = 0;
  if (no_memory) return fli_nomem(bytes);
  return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
}

void fli_tombstones_free(fl_embedding *embedding)
{
  fli_embedding_give(embedding, embedding->tombstones,
                     (size_t)embedding->options.tombstones *
                         sizeof(fli_tombstone));
}

void fli_tombstones_clear(fl_embedding *embedding)
{
  embedding->n_tombstones = 0;
}

void fli_tombstone_add(fl_embedding *embedding, uint32_t table, uint64_t id)
{
  if (embedding->n_tombstones < embedding->options.tombstones)
    embedding->tombstones[embedding->n_tombstones] = (fli_tombstone){id, table};
  embedding->n_tombstones++;
}
