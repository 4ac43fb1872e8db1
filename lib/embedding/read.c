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

enum { RUN_IDS = 512 }; /* between counting in and out */

/* Where a row is, as of a sequence. */
typedef struct glimpse {
  const fli_segment *segment;
  uint32_t sequence;
  uint32_t where;
} glimpse;

/* Sums of a bag: next = now + rows, and becomes now when they were good. */
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

/* An odd sequence is of a segment that was being changed. */
static int is_still_so(const glimpse *seen)
{
  atomic_thread_fence(memory_order_acquire);
  return !(seen->sequence & 1) &&
         atomic_load_explicit(&seen->segment->sequence, memory_order_relaxed) ==
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

/* next = now + one row */
static void add_row(read_run *run, uint32_t where, float factor)
{
  const fli_table *table = run->table;
  const uint32_t mask = where >> FLI_MASK_SHIFT, count = fli_count_of(mask);
  const uint8_t *row =
      fli_pool_row(table->pools[count], where & FLI_INDEX_MASK);
  _Alignas(4) uint8_t copy[FLI_DIM_MAX * 2 + FLI_CHUNKS_MAX * 4];
  if (table->precision != FL_EMBEDDING_F32) {
    copy_row(copy, row, (size_t)count * table->chunk_bytes);
    row = copy;
  }
  memcpy(run->next, run->now, table->dim * sizeof *run->now);
  fli_row_add(table, run->next, (const float *)(const void *)row, mask, factor);
}

static void take_next(read_run *run)
{
  float *now = run->now;
  run->now = run->next;
  run->next = now;
}

static void add_id(read_run *run, glimpse seen, uint64_t id, uint64_t hash,
                   float factor)
{
  for (;; seen = look(run, id, hash)) {
    if (seen.where != 0) add_row(run, seen.where, factor);
    if (is_still_so(&seen)) break;
  }
  if (seen.where != 0) take_next(run);
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

/* Whether n ids from i on are where they were found. */
static int are_still_so(const fli_window *window, size_t i, size_t n)
{
  uint32_t wrong = 0;
  atomic_thread_fence(memory_order_acquire);
  for (size_t k = i; k < i + n; k++) {
    uint32_t now = atomic_load_explicit(&window->segments[k]->sequence,
                                        memory_order_relaxed);
    wrong |= (now ^ window->sequences[k]) | (window->sequences[k] & 1);
  }
  return wrong == 0;
}

/* One by one, each as often as it takes. */
static void add_carefully(read_run *run, const fli_window *window,
                          const uint32_t *wheres, size_t i, size_t n)
{
  const fl_embedding_bags *bags = run->bags;
  for (size_t k = i; k < i + n; k++) {
    const uint64_t at = window->first + k;
    const glimpse seen = {window->segments[k], window->sequences[k], wheres[k]};
    add_id(run, seen, bags->ids[at], window->hashes[k],
           bags->weights ? bags->weights[at] : 1.0f);
  }
}

/* Some ids of one bag. */
static void add_some(read_run *run, const fli_window *window,
                     const uint32_t *wheres, size_t i, size_t n)
{
  const fli_table *table = run->table;
  const float *weights = run->bags->weights;
  if (table->precision == FL_EMBEDDING_F32) {
    memcpy(run->next, run->now, table->dim * sizeof *run->now);
    fli_rows_add(table, run->next, window, i, n,
                 weights ? weights + window->first + i : NULL);
    if (are_still_so(window, i, n)) {
      take_next(run);
      return;
    }
  }
  add_carefully(run, window, wheres, i, n);
}

static void add_window(read_run *run, const fli_window *window,
                       const uint32_t *wheres)
{
  for (size_t i = 0; i < window->n;) {
    const uint64_t at = window->first + i;
    while (at == run->end) {
      end_bag(run);
      run->bag++;
      begin_bag(run);
    }
    size_t n = window->n - i;
    if (run->end - at < n) n = (size_t)(run->end - at);
    add_some(run, window, wheres, i, n);
    i += n;
  }
}

static void begin_window(const read_run *run, fli_window *window, uint64_t at,
                         uint64_t last)
{
  window->first = at;
  window->n = last - at < FLI_WINDOW ? (size_t)(last - at) : FLI_WINDOW;
  fli_window_begin(window, run->embedding, run->table, run->bags->ids + at);
}

/* Three windows at once, as in lookup.c. */
static void add_ids(read_run *run, uint64_t first, uint64_t last)
{
  const uint64_t *ids = run->bags->ids;
  fli_window windows[3];
  fli_entry *entries[FLI_WINDOW];
  uint32_t wheres[2][FLI_WINDOW];
  fli_window *before = &windows[0], *now = &windows[1], *ahead = &windows[2];
  int turn = 0;
  before->n = 0;
  begin_window(run, now, first, last);
  for (uint64_t i = first; i < last; i += before->n, turn = !turn) {
    fli_window_find(now, ids + i, entries, wheres[turn]);
    begin_window(run, ahead, i + now->n, last);
    fli_window_find_rest(now, ids + i, entries, wheres[turn]);
    (void)fli_rows_ask(now, run->table, wheres[turn]);
    if (before->n > 0) add_window(run, before, wheres[!turn]);
    fli_window *spare = before;
    before = now;
    now = ahead;
    ahead = spare;
  }
  add_window(run, before, wheres[!turn]);
}

static void read_bags(read_run *run)
{
  const fl_embedding_bags *bags = run->bags;
  if (bags->n_bags == 0) return;
  begin_bag(run);
  for (uint64_t i = 0; i < bags->n_ids; i += RUN_IDS) {
    uint64_t last = bags->n_ids - i < RUN_IDS ? bags->n_ids : i + RUN_IDS;
    uint32_t epoch = fli_readers_enter(run->embedding->readers);
    add_ids(run, i, last);
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
