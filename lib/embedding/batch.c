/* SPDX-License-Identifier: Apache-2.0 */
/* What a batch's ids have in common: their entries, found in windows so that
 * the lines of many buckets are on their way at once, and which ids are the
 * same. */
#include "embedding/hash.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"

void fli_window_begin(fli_window *window, const fl_embedding *embedding,
                      const fli_table *table, const uint64_t *ids)
{
  /* A directory that is replaced meanwhile leads to segments that were there;
   * those that were replaced, too, say so for ever. */
  const fli_directory *directory =
      atomic_load_explicit(&table->directory, memory_order_acquire);
  const uint32_t shift = 63 - directory->depth;
  const size_t n = window->n;
  for (size_t i = 0; i < n; i++) {
    uint64_t hash = fli_mix(embedding->mix, ids[i]);
    fli_segment *segment = atomic_load_explicit(
        &directory->segments[hash >> 1 >> shift], memory_order_acquire);
    uint32_t bucket = fli_first_bucket(hash, segment->n_buckets);
    window->hashes[i] = hash;
    window->segments[i] = segment;
    window->sequences[i] =
        atomic_load_explicit(&segment->sequence, memory_order_acquire);
    window->buckets[i] = segment->entries + (size_t)bucket * FLI_BUCKET;
    FLI_PREFETCH(window->buckets[i]);
  }
}

static fli_entry *second_bucket(const fli_window *window, uint32_t at)
{
  fli_segment *segment = window->segments[at];
  uint32_t bucket = fli_second_bucket(window->hashes[at], segment->n_buckets);
  return segment->entries + (size_t)bucket * FLI_BUCKET;
}

/* Without branches on what a bucket has. Ids of free places are compared, too:
 * one that happens to be the id's makes it a missing one. */
void fli_window_find(fli_window *window, const uint64_t *ids,
                     fli_entry **entries, uint32_t *wheres)
{
  const size_t n = window->n;
  size_t n_missing = 0;
  for (size_t i = 0; i < n; i++) {
    fli_entry *bucket = window->buckets[i];
    uint32_t named = fli_bucket_named(bucket, ids[i]);
    fli_entry *entry = bucket + fli_match_place(named);
    uint32_t where = fli_entry_where(entry) & (0u - (uint32_t)(named != 0));
    entries[i] = entry;
    wheres[i] = where;
    window->missing[n_missing] = (uint32_t)i << 1 | (named != 0);
    n_missing += where == 0;
  }
  for (size_t i = 0; i < n_missing; i++) {
    uint32_t at = window->missing[i] >> 1, is_named = window->missing[i] & 1;
    window->missing[i] = at;
    if (is_named && fli_bucket_find(window->buckets[at], ids[at])) continue;
    window->buckets[at] = second_bucket(window, at);
    FLI_PREFETCH(window->buckets[at]);
  }
  window->n_missing = n_missing;
}

void fli_window_find_rest(fli_window *window, const uint64_t *ids,
                          fli_entry **entries, uint32_t *wheres)
{
  for (size_t i = 0; i < window->n_missing; i++) {
    uint32_t at = window->missing[i];
    entries[at] = fli_bucket_find(window->buckets[at], ids[at]);
    wheres[at] = entries[at] ? fli_entry_where(entries[at]) : 0;
  }
}

/* How many are without a row; and whether all others have all their chunks. */
static size_t count_none(fli_window *window, const fli_table *table,
                         const uint32_t *wheres)
{
  const uint32_t whole = ((1u << table->chunks) - 1) << FLI_MASK_SHIFT;
  const size_t n = window->n;
  uint32_t others = 0;
  size_t n_none = 0;
  for (size_t i = 0; i < n; i++) {
    n_none += wheres[i] == 0;
    others |= (wheres[i] ^ whole) >> FLI_MASK_SHIFT;
  }
  window->are_whole = others == 0;
  return n_none;
}

/* Rows of one pool. */
static void ask_whole(fli_window *window, const fli_pool *pool,
                      const uint32_t *wheres, uint32_t mask)
{
  const fli_block *blocks =
      atomic_load_explicit(&pool->blocks, memory_order_acquire);
  const uint32_t shift = pool->shift, bytes = pool->extent_bytes;
  const size_t n = window->n;
  for (size_t i = 0; i < n; i++) {
    const uint32_t index = wheres[i] & FLI_INDEX_MASK;
    const uint8_t *row =
        atomic_load_explicit(&blocks[index >> shift], memory_order_acquire) +
        fli_pool_offset(pool, index);
    window->rows[i] = (const float *)(const void *)row;
    window->masks[i] = mask;
    fli_prefetch(row, bytes);
  }
}

size_t fli_rows_ask(fli_window *window, const fli_table *table,
                    const uint32_t *wheres)
{
  const size_t n_none = count_none(window, table, wheres);
  /* The block of an extent was there before an entry said so. */
  atomic_thread_fence(memory_order_acquire);
  if (window->are_whole) {
    ask_whole(window, table->pools[table->chunks], wheres,
              (1u << table->chunks) - 1);
    return n_none;
  }
  for (size_t i = 0; i < window->n; i++) {
    const uint32_t where = wheres[i];
    window->masks[i] = where >> FLI_MASK_SHIFT;
    window->rows[i] = NULL;
    if (where == 0) continue;
    const fli_pool *pool = table->pools[fli_count_of(window->masks[i])];
    const uint8_t *row = fli_pool_row(pool, where & FLI_INDEX_MASK);
    window->rows[i] = (const float *)(const void *)row;
    fli_prefetch(row, pool->extent_bytes);
  }
  return n_none;
}

void fli_batch_find(const fl_embedding *embedding, fli_table *table,
                    const fl_embedding_bags *bags)
{
  fli_batch *batch = &table->batch;
  size_t n = (size_t)bags->n_ids;
  if (n > 0) memcpy(batch->ids, bags->ids, n * sizeof *batch->ids);
  for (size_t at = 0; at < n; at += FLI_WINDOW) {
    fli_window window = {.n = n - at < FLI_WINDOW ? n - at : FLI_WINDOW};
    fli_entry **entries = batch->entries + at;
    uint32_t *wheres = batch->wheres + at;
    fli_window_begin(&window, embedding, table, bags->ids + at);
    fli_window_find(&window, bags->ids + at, entries, wheres);
    fli_window_find_rest(&window, bags->ids + at, entries, wheres);
    for (size_t i = 0; i < window.n; i++)
      batch->hashes[at + i] = (uint32_t)window.hashes[i];
  }
  batch->n_ids = n;
  batch->layout = embedding->layout;
}

/* ---- the same ids -------------------------------------------------------- */

/* Number the different ids in the order in which they come, and count them in
 * first[number + 1]. */
static void number_ids(fli_batch *batch)
{
  const uint32_t mask = (uint32_t)batch->map_capacity - 1;
  uint32_t n_unique = 0;
  memset(batch->map, 0, batch->map_capacity * sizeof *batch->map);
  for (size_t i = 0; i < batch->n_ids; i++) {
    uint32_t at = batch->hashes[i] & mask;
    uint32_t number;
    while ((number = batch->map[at]) != 0 &&
           batch->ids[batch->firsts[number - 1]] != batch->ids[i])
      at = (at + 1) & mask;
    if (number == 0) {
      number = ++n_unique;
      batch->map[at] = number;
      batch->firsts[number - 1] = (uint32_t)i;
      batch->first[number] = 0;
    }
    batch->first[number]++;
    batch->unique[i] = number - 1;
  }
  batch->first[0] = 0;
  batch->n_unique = n_unique;
}

static float factor_of(const fl_embedding_bags *bags, uint64_t i, float mean)
{
  return bags->weights ? mean * bags->weights[i] : mean;
}

void fli_batch_group(fli_batch *batch, const fl_embedding_bags *bags)
{
  const int has_factors = bags->weights || bags->mode == FL_EMBEDDING_MEAN;
  number_ids(batch);
  /* From counts to where the next one goes; then it is where each ends. */
  uint32_t sum = 0;
  for (size_t u = 0; u < batch->n_unique; u++) {
    uint32_t count = batch->first[u + 1];
    batch->first[u + 1] = sum;
    sum += count;
  }
  for (uint64_t bag = 0; bag < bags->n_bags; bag++) {
    uint64_t begin = fli_bag_begin(bags, bag);
    uint64_t end = fli_bag_begin(bags, bag + 1);
    float mean =
        bags->mode == FL_EMBEDDING_MEAN ? 1.0f / (float)(end - begin) : 1.0f;
    for (uint64_t i = begin; i < end; i++) {
      uint32_t at = batch->first[batch->unique[i] + 1]++;
      batch->order[at] = (uint32_t)bag;
      if (has_factors) batch->factors[at] = factor_of(bags, i, mean);
    }
  }
}

/* ---- memory -------------------------------------------------------------- */

/* The arrays, in one block. */
static size_t lay_out(fli_batch *batch, uint8_t *block, uint32_t chunks)
{
  size_t at = 0;
  const size_t n = batch->capacity;
  struct part {
    void **array;
    size_t bytes;
  } parts[] = {
      {(void **)&batch->ids, n * sizeof *batch->ids},
      {(void **)&batch->entries, n * sizeof *batch->entries},
      {(void **)&batch->wheres, n * sizeof *batch->wheres},
      {(void **)&batch->hashes, n * sizeof *batch->hashes},
      {(void **)&batch->unique, n * sizeof *batch->unique},
      {(void **)&batch->order, n * sizeof *batch->order},
      {(void **)&batch->factors, n * sizeof *batch->factors},
      {(void **)&batch->first, (n + 1) * sizeof *batch->first},
      {(void **)&batch->firsts, n * sizeof *batch->firsts},
      {(void **)&batch->increments, n * chunks * sizeof *batch->increments},
      {(void **)&batch->map, batch->map_capacity * sizeof *batch->map},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(parts); i++) {
    if (block) *parts[i].array = block + at;
    at += (parts[i].bytes + 63) / 64 * 64;
  }
  return at;
}

fl_status fli_batch_reserve(fl_embedding *embedding, fli_table *table, size_t n)
{
  fli_batch *batch = &table->batch;
  if (n <= batch->capacity && batch->block) return FL_OK;
  fli_batch larger = {.capacity = n};
  /* 64 + 4 x chunks bytes an id at most. */
  if (n > SIZE_MAX / 128) return fli_nomem(SIZE_MAX);
  for (larger.map_capacity = 16; larger.map_capacity < 2 * n;)
    larger.map_capacity *= 2;
  larger.bytes = lay_out(&larger, NULL, table->chunks);
  larger.block = fli_alloc(embedding->context, larger.bytes, 1);
  if (!larger.block) return fli_nomem(larger.bytes);
  (void)lay_out(&larger, larger.block, table->chunks);
  fli_batch_free(embedding, table);
  *batch = larger;
  return FL_OK;
}

void fli_batch_free(fl_embedding *embedding, fli_table *table)
{
  fli_free(embedding->context, table->batch.block, table->batch.bytes);
  table->batch = (fli_batch){0};
}
