/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are not needed: when a pool's free extents are as many as a block
 * has, the rows behind the blocks that it needs move into free extents before
 * them, found by a walk over the entries, and the blocks go back to the
 * budget. */
#include "embedding/hash.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"

/* Blocks that the rows need. */
static uint32_t needed_blocks(const fli_pool *pool)
{
  uint32_t used = pool->n_made - pool->n_free;
  return (used + (1u << pool->shift) - 1) >> pool->shift;
}

static uint32_t limit_of(const fli_pool *pool)
{
  return needed_blocks(pool) << pool->shift;
}

static int has_excess(const fli_pool *pool)
{
  return pool->n_blocks > needed_blocks(pool);
}

/* Only free extents below the limit stay in the chain; those that were never
 * given out come first. */
static void keep_free_below(fli_pool *pool, uint32_t limit)
{
  uint32_t next = pool->free_first, n_free = 0, first = FLI_NONE;
  uint32_t *last = &first;
  uint8_t *last_row = NULL;
  while (next != FLI_NONE) {
    uint32_t index = next;
    uint8_t *row = fli_pool_row(pool, index);
    next = fli_load_u32(row);
    if (index >= limit) continue;
    if (last_row) fli_store_u32(last_row, index);
    if (!last_row) *last = index;
    last_row = row;
    n_free++;
  }
  if (last_row) fli_store_u32(last_row, FLI_NONE);
  pool->free_first = first;
  pool->n_free = n_free;
}

static void move_row(fl_embedding *embedding, fli_table *table,
                     fli_segment *segment, fli_entry *entry)
{
  uint32_t where = fli_entry_where(entry), index;
  fli_pool *pool = table->pools[fli_where_count(where)];
  if (fli_pool_take(embedding, pool, 1, &index) != FLI_ROOM) return;
  uint32_t old = where & FLI_INDEX_MASK;
  memcpy(fli_pool_row(pool, index), fli_pool_row(pool, old),
         pool->extent_bytes);
  *fli_pool_square(pool, index) = *fli_pool_square(pool, old);
  fli_hash_move(table, segment, entry, (where & ~FLI_INDEX_MASK) | index);
}

static uint64_t move_rows(fl_embedding *embedding, fli_table *table)
{
  uint64_t at = 0, moved = 0;
  fli_segment *segment;
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++) {
      uint32_t where = fli_entry_where(&segment->entries[i]);
      if (where == 0) continue;
      const fli_pool *pool = table->pools[fli_where_count(where)];
      if ((where & FLI_INDEX_MASK) < pool->limit) continue;
      move_row(embedding, table, segment, &segment->entries[i]);
      moved += pool->extent_bytes;
    }
  }
  return moved;
}

static uint64_t drop_blocks(fl_embedding *embedding, fli_pool *pool)
{
  uint32_t n_kept = pool->limit >> pool->shift;
  uint64_t dropped = pool->n_blocks - n_kept;
  pool->n_made = pool->limit < pool->n_made ? pool->limit : pool->n_made;
  while (pool->n_blocks > n_kept)
    fli_pool_drop_block(embedding, pool);
  return dropped;
}

/* Blocks are given back whatever else fails: nothing is taken here but free
 * extents. */
void fli_compact(fl_embedding *embedding, fl_embedding_report *report)
{
  int is_any = 0;
  for (uint32_t i = 0; i < embedding->n_pools; i++) {
    fli_pool *pool = embedding->pools[i];
    pool->limit = FLI_NONE;
    if (!has_excess(pool)) continue;
    is_any = 1;
    pool->limit = limit_of(pool);
    keep_free_below(pool, pool->limit);
  }
  if (!is_any) return;
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    report->bytes_moved += move_rows(embedding, embedding->tables[i]);
  for (uint32_t i = 0; i < embedding->n_pools; i++) {
    fli_pool *pool = embedding->pools[i];
    if (pool->limit != FLI_NONE)
      report->blocks_returned += drop_blocks(embedding, pool);
  }
}
