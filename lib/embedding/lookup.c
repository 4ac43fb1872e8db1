/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of bags. Ids are found a window at a time and their rows are asked for
 * at once, so that the processor waits for many lines of memory together: a
 * row that is read alone costs three times as much. */
#include "embedding/hash.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "kernels/rows.h"

enum { TASK_IDS = 4096, LINE = 64 };

/* Bags that are summed by one task. */
typedef struct bag_run {
  const fl_embedding *embedding;
  const fli_table *table;
  const fl_embedding_bags *bags;
  uint64_t bags_each; /* of a task */
  float *out;
  fli_entry **entries; /* [n_ids], of the batch */
  uint32_t *wheres;
  uint32_t *hashes;
  _Atomic uint64_t n_missing;
} bag_run;

/* The place in a bag at which a run over ids is. */
typedef struct bag_at {
  const bag_run *run;
  uint64_t bag;
  uint64_t end; /* of the bag */
  float *out;
} bag_at;

static void begin_bag(bag_at *at)
{
  const size_t dim = at->run->table->dim;
  at->end = fli_bag_begin(at->run->bags, at->bag + 1);
  at->out = at->run->out + at->bag * dim;
  memset(at->out, 0, dim * sizeof *at->out);
}

/* Means are over ids, whatever their weights are. */
static void end_bag(const bag_at *at)
{
  const fl_embedding_bags *bags = at->run->bags;
  uint64_t n = at->end - fli_bag_begin(bags, at->bag);
  if (bags->mode != FL_EMBEDDING_MEAN || n == 0) return;
  const float factor = 1.0f / (float)n;
  for (size_t i = 0; i < at->run->table->dim; i++)
    at->out[i] *= factor;
}

static void prefetch_row(const uint8_t *row, size_t bytes)
{
  for (size_t at = 0; at < bytes; at += LINE)
    FLI_PREFETCH(row + at);
}

static void add_some_chunks(const fli_table *table, float *out,
                            const float *row, uint32_t mask, float factor)
{
  const flk_rows *kernels = flk_rows_kernels();
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(mask >> k & 1)) continue;
    kernels->add(out + (size_t)k * table->chunk_floats, &row, &factor, 1,
                 table->chunk_floats);
    row += table->chunk_floats;
  }
}

static void add_decoded(const fli_table *table, float *out,
                        const uint8_t *bytes, uint32_t mask, float factor)
{
  float row[FLI_DIM_MAX];
  if (mask == 0) return;
  fli_chunks_decode(table, bytes, row, fli_count_of(mask));
  add_some_chunks(table, out, row, mask, factor);
}

/* Ids first..first + n - 1 of a bag, whose rows are known. */
static void add_rows(const bag_at *at, uint64_t first, size_t n,
                     const uint32_t *masks, const uint8_t *const *bytes)
{
  /* They are floats, in tables that have them. */
  const float *rows[FLI_WINDOW];
  const fli_table *table = at->run->table;
  const uint32_t whole = (1u << table->chunks) - 1;
  const float *weights = at->run->bags->weights;
  if (weights) weights += first;
  if (table->precision != FL_EMBEDDING_F32) {
    for (size_t i = 0; i < n; i++)
      add_decoded(table, at->out, bytes[i], masks[i],
                  weights ? weights[i] : 1.0f);
    return;
  }
  for (size_t i = 0; i < n; i++)
    rows[i] = (const float *)(const void *)bytes[i];
  for (size_t i = 0; i < n;) {
    size_t count = 0;
    while (i + count < n && masks[i + count] == whole)
      count++;
    if (count > 0) {
      flk_rows_kernels()->add(at->out, rows + i, weights ? weights + i : NULL,
                              count, table->dim);
      i += count;
      continue;
    }
    add_some_chunks(table, at->out, rows[i], masks[i],
                    weights ? weights[i] : 1.0f);
    i++;
  }
}

/* Rows of a window, which memory has been asked for. */
typedef struct row_window {
  uint64_t first; /* id */
  size_t n;
  uint32_t masks[FLI_WINDOW];
  const uint8_t *rows[FLI_WINDOW];
} row_window;

static size_t ask_rows(const fli_table *table, row_window *window,
                       fli_entry *const *entries, uint32_t *wheres)
{
  size_t n_missing = 0;
  for (size_t i = 0; i < window->n; i++) {
    uint32_t where = entries[i] ? fli_entry_where(entries[i]) : 0;
    wheres[i] = where;
    window->masks[i] = where >> FLI_MASK_SHIFT;
    window->rows[i] = NULL;
    n_missing += where == 0;
    if (where == 0) continue;
    const fli_pool *pool = table->pools[fli_count_of(window->masks[i])];
    const uint8_t *row = fli_pool_row(pool, where & FLI_INDEX_MASK);
    prefetch_row(row, pool->extent_bytes);
    window->rows[i] = row;
  }
  return n_missing;
}

static void add_window(bag_at *at, const row_window *window)
{
  const uint64_t first = window->first;
  for (size_t i = 0; i < window->n;) {
    while (first + i == at->end) {
      end_bag(at);
      at->bag++;
      begin_bag(at);
    }
    size_t count = window->n - i;
    if (at->end - (first + i) < count) count = (size_t)(at->end - (first + i));
    add_rows(at, first + i, count, window->masks + i, window->rows + i);
    i += count;
  }
}

static size_t window_size(uint64_t at, uint64_t last)
{
  return last - at < FLI_WINDOW ? (size_t)(last - at) : FLI_WINDOW;
}

/* Three windows at once: while the rows of one are added, those of the next
 * are on their way, and the buckets of the one after that. */
static size_t add_ids(bag_run *run, bag_at *at, uint64_t first, uint64_t last)
{
  const uint64_t *ids = run->bags->ids;
  size_t n_missing = 0;
  fli_window windows[2];
  row_window rows[2];
  int now = 0;
  windows[0].n = window_size(first, last);
  rows[1].n = 0;
  fli_window_begin(&windows[0], run->embedding, run->table, ids + first,
                   run->hashes + first);
  for (uint64_t i = first; i < last; now = !now) {
    fli_window *window = &windows[now], *ahead = &windows[!now];
    const uint64_t next = i + window->n;
    rows[now].first = i;
    rows[now].n = window->n;
    fli_window_find(window, ids + i, run->entries + i);
    ahead->n = window_size(next, last);
    fli_window_begin(ahead, run->embedding, run->table, ids + next,
                     run->hashes + next);
    fli_window_find_rest(window, ids + i, run->entries + i);
    n_missing +=
        ask_rows(run->table, &rows[now], run->entries + i, run->wheres + i);
    if (rows[!now].n > 0) add_window(at, &rows[!now]);
    i = next;
  }
  add_window(at, &rows[!now]);
  return n_missing;
}

static void sum_bags(void *arg, uint64_t index)
{
  bag_run *run = arg;
  const fl_embedding_bags *bags = run->bags;
  uint64_t bag = index * run->bags_each;
  uint64_t end = bag + run->bags_each;
  if (end > bags->n_bags) end = bags->n_bags;
  uint64_t first = fli_bag_begin(bags, bag), last = fli_bag_begin(bags, end);
  size_t n_missing = 0;
  bag_at at = {.run = run, .bag = bag};
  begin_bag(&at);
  if (first < last) n_missing = add_ids(run, &at, first, last);
  for (;;) {
    end_bag(&at);
    if (++at.bag >= end) break;
    begin_bag(&at);
  }
  atomic_fetch_add(&run->n_missing, n_missing);
}

static void sum_all(bag_run *run)
{
  const fl_embedding_bags *bags = run->bags;
  uint64_t n_tasks = bags->n_ids / TASK_IDS + 1;
  if (n_tasks > bags->n_bags) n_tasks = bags->n_bags;
  if (n_tasks == 0) return;
  run->bags_each = (bags->n_bags + n_tasks - 1) / n_tasks;
  n_tasks = (bags->n_bags + run->bags_each - 1) / run->bags_each;
  fli_parallel_all(run->embedding->context, n_tasks, sum_bags, run);
}

/* ---- new ids ------------------------------------------------------------- */

static fli_room add_row(fl_embedding *embedding, fli_table *table, uint64_t id)
{
  uint32_t index;
  fli_entry *entry;
  fli_pool *pool = table->pools[table->chunks];
  fli_room room = fli_pool_take(embedding, pool, 0, &index);
  if (room != FLI_ROOM) return room;
  uint32_t mask = (1u << table->chunks) - 1;
  fli_row_init(embedding, table, id, fli_pool_row(pool, index));
  *fli_pool_square(pool, index) = embedding->options.initial_square;
  room =
      fli_hash_insert(embedding, table, id,
                      mask << FLI_MASK_SHIFT | FLI_IS_CHANGED | index, &entry);
  if (room != FLI_ROOM) fli_pool_give(pool, index);
  if (room == FLI_ROOM) table->n_chunks += table->chunks;
  return room;
}

/* Rows for ids that have none, until there is no room. */
static fl_status add_new_rows(fl_embedding *embedding, fli_table *table,
                              const fl_embedding_bags *bags)
{
  fli_batch *batch = &table->batch;
  for (uint64_t i = 0; i < bags->n_ids; i++) {
    uint64_t id = bags->ids[i];
    if (batch->entries[i]) continue;
    uint64_t hash = fli_mix(embedding->mix, id);
    if (fli_hash_find(table, id, hash)) continue;
    if (!fli_sketch_admits(table, hash)) continue;
    if (fli_table_bytes(table) >= table->quota) return FL_OK;
    fli_room room = add_row(embedding, table, id);
    if (room == FLI_NO_ROOM) return FL_OK;
    if (room == FLI_NO_MEMORY)
      return fli_nomem(table->pools[table->chunks]->block_bytes);
  }
  return FL_OK;
}

/* ---- public -------------------------------------------------------------- */

fl_status fl_embedding_forward(fl_embedding *embedding, uint32_t table,
                               const fl_embedding_bags *given, float *out)
{
  fl_embedding_bags bags;
  fli_fpguard guard;
  fli_clear_error();
  fl_status st = fli_bags_load(&bags, given);
  if (st == FL_OK) st = fli_bags_check(embedding, table, &bags, out);
  if (st != FL_OK) return st;
  fli_table *t = embedding->tables[table];
  st = fli_batch_reserve(embedding, t, (size_t)bags.n_ids);
  if (st != FL_OK) return st;
  fli_batch *batch = &t->batch;
  bag_run run = {.embedding = embedding,
                 .table = t,
                 .bags = &bags,
                 .out = out,
                 .entries = batch->entries,
                 .wheres = batch->wheres,
                 .hashes = batch->hashes};
  fli_fpguard_enter(&guard);
  uint64_t n_rows = t->n_rows, layout = embedding->layout;
  sum_all(&run);
  t->asked += bags.n_ids;
  t->hits += bags.n_ids - atomic_load(&run.n_missing);
  if (atomic_load(&run.n_missing) > 0) st = add_new_rows(embedding, t, &bags);
  if (t->n_rows > n_rows) {
    layout = embedding->layout;
    sum_all(&run);
  }
  if (bags.n_ids > 0)
    memcpy(batch->ids, bags.ids, (size_t)bags.n_ids * sizeof *batch->ids);
  batch->n_ids = (size_t)bags.n_ids;
  batch->layout = layout;
  fli_fpguard_leave(&guard);
  return st;
}
