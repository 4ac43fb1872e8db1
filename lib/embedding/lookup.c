/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of bags. Ids are found a window at a time and their rows are asked for
 * at once, so that the processor waits for many lines of memory together: a
 * row that is read alone costs three times as much. */
#include "embedding/hash.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

enum { TASK_IDS = 4096 };

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

static void add_window(bag_at *at, const fli_window *window)
{
  const uint64_t first = window->first;
  const float *weights = at->run->bags->weights;
  for (size_t i = 0; i < window->n;) {
    while (first + i == at->end) {
      end_bag(at);
      at->bag++;
      begin_bag(at);
    }
    size_t count = window->n - i;
    if (at->end - (first + i) < count) count = (size_t)(at->end - (first + i));
    fli_rows_add(at->run->table, at->out, window, i, count,
                 weights ? weights + first + i : NULL);
    i += count;
  }
}

static void begin_window(const bag_run *run, fli_window *window, uint64_t at,
                         uint64_t last)
{
  window->first = at;
  window->n = last - at < FLI_WINDOW ? (size_t)(last - at) : FLI_WINDOW;
  fli_window_begin(window, run->embedding, run->table, run->bags->ids + at);
  for (size_t i = 0; i < window->n; i++)
    run->hashes[at + i] = (uint32_t)window->hashes[i];
}

/* Three windows at once: while the rows of one are added, those of the next
 * are on their way, and the buckets of the one after that. */
static size_t add_ids(bag_run *run, bag_at *at, uint64_t first, uint64_t last)
{
  const uint64_t *ids = run->bags->ids;
  size_t n_missing = 0;
  fli_window windows[3];
  fli_window *before = &windows[0], *now = &windows[1], *ahead = &windows[2];
  before->n = 0;
  begin_window(run, now, first, last);
  for (uint64_t i = first; i < last; i += before->n) {
    fli_window_find(now, ids + i, run->entries + i, run->wheres + i);
    begin_window(run, ahead, i + now->n, last);
    fli_window_find_rest(now, ids + i, run->entries + i, run->wheres + i);
    n_missing += fli_rows_ask(now, run->table, run->wheres + i);
    if (before->n > 0) add_window(at, before);
    fli_window *spare = before;
    before = now;
    now = ahead;
    ahead = spare;
  }
  add_window(at, before);
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
