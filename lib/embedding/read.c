/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups beside training. A reader waits for nobody and takes no lock: it
 * counts itself in, so that no segment or block that it may have found is given
 * back, and reads a row only to drop the result when the segment's sequence
 * says that the entry was changed meanwhile. A row may so be a mix of before
 * and after a step of training, but never that of another id. Reading values
 * while they are written is meant; it is the one place where it happens
 * (add_row). */
#include "embedding/hash.h"

#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"

enum { LINE = 64 };

/* Where a row is, as of a sequence. */
typedef struct glimpse {
  const fli_segment *segment;
  uint32_t sequence;
  uint32_t where;
} glimpse;

/* Sums of a bag: next = now + a row, and becomes now when the row was good. */
typedef struct read_run {
  const fl_embedding *embedding;
  const fli_table *table;
  const fl_embedding_bags *bags;
  float *now;
  float *next;
  uint64_t bag; /* whose sum it is */
  uint64_t end; /* where its ids do */
  float *out;
} read_run;

static fli_segment *current_segment(const fli_table *table, uint64_t hash,
                                    uint32_t *sequence)
{
  for (;;) {
    fli_segment *segment = fli_segment_of(table, hash);
    *sequence = atomic_load_explicit(&segment->sequence, memory_order_acquire);
    if (!(*sequence & 1)) return segment;
  }
}

/* A place that is free may have any id: it has no mask. */
static uint32_t where_in(const fli_entry *bucket, uint64_t id)
{
  uint32_t where = 0;
  for (int i = 0; i < FLI_BUCKET; i++) {
    uint32_t all = 0u - (uint32_t)(fli_entry_id(&bucket[i]) == id);
    where |= fli_entry_where(&bucket[i]) & all;
  }
  return where;
}

static uint32_t where_of(fli_segment *segment, uint64_t id, uint64_t hash)
{
  uint32_t bucket = fli_first_bucket(hash, segment->n_buckets);
  uint32_t where = where_in(segment->entries + bucket * FLI_BUCKET, id);
  if (where) return where;
  bucket = fli_second_bucket(hash, segment->n_buckets);
  return where_in(segment->entries + bucket * FLI_BUCKET, id);
}

static int is_still_so(const glimpse *seen)
{
  atomic_thread_fence(memory_order_acquire);
  return atomic_load_explicit(&seen->segment->sequence, memory_order_relaxed) ==
         seen->sequence;
}

static glimpse look(const read_run *run, uint64_t id, uint64_t hash)
{
  glimpse seen;
  do {
    fli_segment *segment = current_segment(run->table, hash, &seen.sequence);
    seen.segment = segment;
    seen.where = where_of(segment, id, hash);
  } while (!is_still_so(&seen));
  return seen;
}

/* sum = now + factor row */
FLI_READS_RACING
static void add_row(float *sum, const float *now, const float *row,
                    float factor, size_t n)
{
  for (size_t i = 0; i < n; i++)
    sum[i] = now[i] + factor * row[i];
}

/* By words, for there is no function for this that the sanitizer does not
 * watch. n is a multiple of 4. */
FLI_READS_RACING
static void copy_row(uint8_t *copy, const uint8_t *row, size_t n)
{
  const volatile uint32_t *words = (const volatile uint32_t *)(const void *)row;
  for (size_t i = 0; i < n / 4; i++) {
    uint32_t word = words[i];
    memcpy(copy + 4 * i, &word, sizeof word);
  }
}

static const uint8_t *row_of(const read_run *run, uint32_t where)
{
  const fli_pool *pool = run->table->pools[fli_where_count(where)];
  return fli_pool_row(pool, where & FLI_INDEX_MASK);
}

static void add_chunks(read_run *run, uint32_t where, float factor)
{
  const fli_table *table = run->table;
  const uint8_t *bytes = row_of(run, where);
  const float *row = (const float *)(const void *)bytes;
  uint8_t copy[FLI_DIM_MAX * 2 + FLI_CHUNKS_MAX * 4];
  float decoded[FLI_DIM_MAX];
  if (table->precision != FL_EMBEDDING_F32) {
    const uint32_t count = fli_where_count(where);
    copy_row(copy, bytes, (size_t)count * table->chunk_bytes);
    fli_chunks_decode(table, copy, decoded, count);
    row = decoded;
  }
  const size_t n = table->chunk_floats;
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (where >> (FLI_MASK_SHIFT + k) & 1) {
      add_row(run->next + k * n, run->now + k * n, row, factor, n);
      row += n;
    } else {
      memcpy(run->next + k * n, run->now + k * n, n * sizeof *row);
    }
  }
}

static void add_id(read_run *run, glimpse seen, uint64_t id, uint64_t hash,
                   float factor)
{
  for (;;) {
    if (seen.where == 0) return;
    add_chunks(run, seen.where, factor);
    if (is_still_so(&seen)) break;
    seen = look(run, id, hash);
  }
  float *now = run->now;
  run->now = run->next;
  run->next = now;
}

/* ---- bags ---------------------------------------------------------------- */

static void begin_bag(read_run *run)
{
  run->end = fli_bag_begin(run->bags, run->bag + 1);
  memset(run->now, 0, run->table->dim * sizeof *run->now);
}

static void end_bag(read_run *run)
{
  const size_t dim = run->table->dim;
  float *out = run->out + run->bag * dim;
  const uint64_t n = run->end - fli_bag_begin(run->bags, run->bag);
  const float factor =
      run->bags->mode == FL_EMBEDDING_MEAN && n > 0 ? 1.0f / (float)n : 1.0f;
  for (size_t i = 0; i < dim; i++)
    out[i] = factor * run->now[i];
}

static void ask_buckets(const read_run *run, const uint64_t *ids, size_t n,
                        uint64_t *hashes)
{
  for (size_t i = 0; i < n; i++) {
    hashes[i] = fli_mix(run->embedding->mix, ids[i]);
    fli_segment *segment = fli_segment_of(run->table, hashes[i]);
    uint32_t first = fli_first_bucket(hashes[i], segment->n_buckets);
    FLI_PREFETCH(segment->entries + (size_t)first * FLI_BUCKET);
  }
}

/* Ids first..first + n - 1, of any number of bags. */
static void add_window(read_run *run, uint64_t first, size_t n)
{
  const fl_embedding_bags *bags = run->bags;
  glimpse seen[FLI_WINDOW];
  uint64_t hashes[FLI_WINDOW];
  ask_buckets(run, bags->ids + first, n, hashes);
  for (size_t i = 0; i < n; i++) {
    seen[i] = look(run, bags->ids[first + i], hashes[i]);
    if (seen[i].where == 0) continue;
    const fli_pool *pool = run->table->pools[fli_where_count(seen[i].where)];
    const uint8_t *row = row_of(run, seen[i].where);
    for (size_t at = 0; at < pool->extent_bytes; at += LINE)
      FLI_PREFETCH(row + at);
  }
  for (size_t i = 0; i < n; i++) {
    while (first + i == run->end) {
      end_bag(run);
      run->bag++;
      begin_bag(run);
    }
    add_id(run, seen[i], bags->ids[first + i], hashes[i],
           bags->weights ? bags->weights[first + i] : 1.0f);
  }
}

static void read_bags(read_run *run)
{
  const fl_embedding_bags *bags = run->bags;
  if (bags->n_bags == 0) return;
  begin_bag(run);
  for (uint64_t i = 0; i < bags->n_ids; i += FLI_WINDOW) {
    uint64_t left = bags->n_ids - i;
    uint32_t epoch = fli_readers_enter(run->embedding->readers);
    add_window(run, i, left < FLI_WINDOW ? (size_t)left : FLI_WINDOW);
    fli_readers_leave(run->embedding->readers, epoch);
  }
  for (;;) {
    end_bag(run);
    if (++run->bag == bags->n_bags) break;
    begin_bag(run);
  }
}

fl_status fl_embedding_lookup(const fl_embedding *embedding, uint32_t table,
                              const fl_embedding_bags *given, float *out)
{
  fl_embedding_bags bags;
  fli_fpguard guard;
  float sums[2][FLI_DIM_MAX];
  fli_clear_error();
  fl_status st = fli_bags_load(&bags, given);
  if (st == FL_OK) st = fli_bags_check(embedding, table, &bags, out);
  if (st != FL_OK) return st;
  read_run run = {.embedding = embedding,
                  .table = embedding->tables[table],
                  .bags = &bags,
                  .now = sums[0],
                  .next = sums[1],
                  .out = out};
  fli_fpguard_enter(&guard);
  read_bags(&run);
  fli_fpguard_leave(&guard);
  return FL_OK;
}
