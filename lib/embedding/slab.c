/* SPDX-License-Identifier: Apache-2.0 */
/* Extents in blocks, one pool for every size. A block is small beside the
 * budget, so that what its last one has too much is little; it is given back
 * by adjust (compact.c) when the others have room for what is in it. */
#include "embedding/embedding.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

static void plan_blocks(const fl_embedding *embedding, fli_pool *pool)
{
  pool->group_bytes =
      FLI_GROUP * pool->extent_bytes + FLI_GROUP * (uint32_t)sizeof(float);
  pool->shift = 4;
  while (((size_t)2 * pool->group_bytes << (pool->shift - 4)) <=
             embedding->block_bytes &&
         pool->shift < FLI_INDEX_BITS)
    pool->shift++;
  pool->block_bytes = (size_t)pool->group_bytes << (pool->shift - 4);
}

fl_status fli_pool_get(fl_embedding *embedding, uint32_t extent_bytes,
                       int has_floats, fli_pool **out)
{
  int no_memory;
  for (uint32_t i = 0; i < embedding->n_pools; i++) {
    if (embedding->pools[i]->extent_bytes != extent_bytes ||
        embedding->pools[i]->has_floats != has_floats)
      continue;
    *out = embedding->pools[i];
    return FL_OK;
  }
  fli_pool *pool = fli_embedding_take(embedding, sizeof *pool, 0, &no_memory);
  if (!pool && no_memory) return fli_nomem(sizeof *pool);
  if (!pool) return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
  pool->extent_bytes = extent_bytes;
  pool->has_floats = has_floats;
  pool->free_first = FLI_NONE;
  plan_blocks(embedding, pool);
  embedding->pools[embedding->n_pools++] = pool;
  *out = pool;
  return FL_OK;
}

void fli_pool_free(fl_embedding *embedding, fli_pool *pool)
{
  fli_block *blocks = atomic_load(&pool->blocks);
  for (uint32_t i = 0; i < pool->n_blocks; i++)
    fli_embedding_give(embedding, atomic_load(&blocks[i]), pool->block_bytes);
  fli_embedding_give(embedding, blocks, pool->blocks_capacity * sizeof *blocks);
  fli_embedding_give(embedding, pool, sizeof *pool);
}

/* Room in the list for that many blocks, by doubling. */
fli_room fli_pool_fit_list(fl_embedding *embedding, fli_pool *pool,
                           uint32_t n_blocks, int does_dip)
{
  int no_memory;
  uint32_t capacity = FLI_BLOCKS_FIRST;
  while (capacity < n_blocks)
    capacity *= 2;
  if (capacity <= pool->blocks_capacity) return FLI_ROOM;
  fli_block *old = atomic_load(&pool->blocks);
  fli_block *blocks = fli_embedding_take(embedding, capacity * sizeof *blocks,
                                         does_dip, &no_memory);
  if (!blocks) return no_memory ? FLI_NO_MEMORY : FLI_NO_ROOM;
  for (uint32_t i = 0; i < capacity; i++)
    atomic_init(&blocks[i], i < pool->n_blocks ? atomic_load(&old[i]) : NULL);
  atomic_store(&pool->blocks, blocks);
  if (old)
    fli_embedding_retire(embedding, old, pool->blocks_capacity * sizeof *old);
  pool->blocks_capacity = capacity;
  return FLI_ROOM;
}

fli_room fli_pool_add_block(fl_embedding *embedding, fli_pool *pool,
                            int does_dip)
{
  int no_memory;
  if (pool->n_blocks >= 1u << (FLI_INDEX_BITS - pool->shift))
    return FLI_NO_ROOM;
  fli_room room =
      fli_pool_fit_list(embedding, pool, pool->n_blocks + 1, does_dip);
  if (room != FLI_ROOM) return room;
  uint8_t *block =
      fli_embedding_take(embedding, pool->block_bytes, does_dip, &no_memory);
  if (!block) return no_memory ? FLI_NO_MEMORY : FLI_NO_ROOM;
  atomic_store(&atomic_load(&pool->blocks)[pool->n_blocks], block);
  pool->n_blocks++;
  return FLI_ROOM;
}

void fli_pool_drop_block(fl_embedding *embedding, fli_pool *pool)
{
  fli_block *blocks = atomic_load(&pool->blocks);
  pool->n_blocks--;
  fli_embedding_retire(embedding, atomic_load(&blocks[pool->n_blocks]),
                       pool->block_bytes);
  atomic_store(&blocks[pool->n_blocks], NULL);
}

fli_room fli_pool_take(fl_embedding *embedding, fli_pool *pool, int does_dip,
                       uint32_t *out)
{
  if (pool->n_free > 0) {
    *out = pool->free_first;
    uint8_t *row = fli_pool_row(pool, *out);
    pool->free_first = fli_load_u32(row);
    pool->n_free--;
    fli_store_u32(row, 0);
    return FLI_ROOM;
  }
  if (pool->n_made == pool->n_blocks << pool->shift) {
    fli_room room = fli_pool_add_block(embedding, pool, does_dip);
    if (room != FLI_ROOM) return room;
  }
  *out = pool->n_made++;
  return FLI_ROOM;
}

/* Nothing of the row stays, and the chain's number lies where it was: a lookup
 * that still reads it finds out by the segment's sequence. */
void fli_pool_give(fli_pool *pool, uint32_t index)
{
  memset(fli_pool_row(pool, index), 0, pool->extent_bytes);
  *fli_pool_square(pool, index) = 0;
  fli_store_u32(fli_pool_row(pool, index), pool->free_first);
  pool->free_first = index;
  pool->n_free++;
}
