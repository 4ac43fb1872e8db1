/* SPDX-License-Identifier: Apache-2.0 */
/* What is true of a store between any two calls. */
#ifndef EMBEDDING_INVARIANTS_H
#define EMBEDDING_INVARIANTS_H

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "embedding/embedding.h"
#include "embedding/hash.h"

typedef struct embedding_seen {
  uint8_t *owned[FL_EMBEDDING_MAX_TABLES * FLI_CHUNKS_MAX]; /* by pool */
  const char *problem;
} embedding_seen;

static inline void embedding_see(embedding_seen *seen, const fl_embedding *e,
                                 const fli_pool *pool, uint32_t index)
{
  for (uint32_t p = 0; p < e->n_pools; p++) {
    if (e->pools[p] != pool) continue;
    if (index >= pool->n_made || !seen->owned[p] || seen->owned[p][index]) {
      seen->problem = "an extent has two owners, or is none";
      return;
    }
    seen->owned[p][index] = 1;
  }
}

static inline void embedding_see_table(embedding_seen *seen,
                                       const fl_embedding *e,
                                       const fli_table *table)
{
  uint64_t at = 0, rows = 0, chunks = 0, bytes = 0;
  fli_segment *segment;
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    uint32_t used = 0;
    bytes += sizeof *segment +
             (uint64_t)segment->n_buckets * FLI_BUCKET * sizeof(fli_entry);
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++) {
      fli_entry *entry = &segment->entries[i];
      uint32_t where = fli_entry_where(entry);
      uint64_t id = fli_entry_id(entry);
      if (where == 0) continue;
      used++, rows++, chunks += fli_where_count(where);
      if (where >> FLI_MASK_SHIFT >> table->chunks)
        seen->problem = "a chunk that the table has not";
      if (fli_hash_find(table, id, fli_mix(e->mix, id)) != entry)
        seen->problem = "an id is not found where it is";
      embedding_see(seen, e, table->pools[fli_where_count(where)],
                    where & FLI_INDEX_MASK);
    }
    if (used != segment->n_used) seen->problem = "entries of a segment";
  }
  if (rows != table->n_rows) seen->problem = "number of rows";
  if (chunks != table->n_chunks) seen->problem = "number of chunks";
  if (bytes != table->segment_bytes) seen->problem = "bytes of segments";
}

static inline void embedding_see_pool(embedding_seen *seen, uint32_t p,
                                      const fli_pool *pool)
{
  uint32_t next = pool->free_first, n_free = 0, n_owned = 0;
  for (uint32_t i = 0; i < pool->n_made; i++)
    n_owned += seen->owned[p][i];
  while (next != FLI_NONE && n_free <= pool->n_free) {
    if (next >= pool->n_made || seen->owned[p][next]) {
      seen->problem = "a free extent has an owner";
      return;
    }
    seen->owned[p][next] = 1;
    next = fli_load_u32(fli_pool_row(pool, next));
    n_free++;
  }
  if (n_free != pool->n_free) seen->problem = "number of free extents";
  if (n_owned + n_free != pool->n_made)
    seen->problem = "free and used extents are not all";
}

/* NULL, or what is wrong. */
static inline const char *embedding_problem(const fl_embedding *e)
{
  embedding_seen seen = {.problem = NULL};
  for (uint32_t p = 0; p < e->n_pools; p++)
    seen.owned[p] = calloc((size_t)e->pools[p]->n_made + 1, 1);
  for (uint32_t t = 0; t < e->n_tables; t++)
    embedding_see_table(&seen, e, e->tables[t]);
  for (uint32_t p = 0; p < e->n_pools; p++)
    embedding_see_pool(&seen, p, e->pools[p]);
  for (uint32_t p = 0; p < e->n_pools; p++)
    free(seen.owned[p]);
  if (e->bytes_used > e->budget) seen.problem = "above the budget";
  return seen.problem;
}

#endif
