/* SPDX-License-Identifier: Apache-2.0 */
/* Backward: the gradients of the same id are summed over the batch, in its
 * order, then every row takes one step. Rows are independent of each other, so
 * any number of threads gives the same bits. */
#include "embedding/hash.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "embedding/slice_rows.h"
#include "embedding/utility.h"
#include "kernels/kernels.h"
#include "kernels/rows.h"

#define INFINITE 0x7f800000u /* bits of infinity */

enum {
  TASK_ROWS = 1024,
  LINE = 64,
  GATHER = 64,
  BLOCK_ROWS = 16,
  BLOCK_FLOATS = 4096
};

typedef struct train_run {
  fl_embedding *embedding;
  fli_table *table;
  const flk_rows *kernels;
  const float *gradient;
  int has_factors;
  float rate;
  int has_utility; /* somebody will ask for it */
  /* [bags, chunks]: utilities that are not of these gradients; NULL: they
   * are. */
  const float *given;
  uint64_t name; /* of this step's random numbers */
} train_run;

/* The sum of the gradients of unique id u: in `sum`, or where it is already. */
static const float *sum_gradients(const train_run *run, size_t u, float *sum)
{
  const fli_batch *batch = &run->table->batch;
  const size_t dim = run->table->dim;
  /* first[u + 1] is where u ends. */
  uint32_t at = u == 0 ? 0 : batch->first[u];
  uint32_t end = batch->first[u + 1];
  if (!run->has_factors && end - at == 1)
    return run->gradient + batch->order[at] * dim;
  memset(sum, 0, dim * sizeof *sum);
  while (at < end) {
    const float *rows[GATHER];
    uint32_t n = end - at < GATHER ? end - at : GATHER;
    for (uint32_t i = 0; i < n; i++)
      rows[i] = run->gradient + batch->order[at + i] * dim;
    run->kernels->add(sum, rows, run->has_factors ? batch->factors + at : NULL,
                      n, dim);
    at += n;
  }
  return sum;
}

/* How far to go along the gradient. */
static float step_of(const train_run *run, float *square, float mean)
{
  const fl_embedding_options *options = &run->embedding->options;
  if (options->optimiser == FL_EMBEDDING_SGD) return run->rate;
  float sum = *square + mean;
  *square = sum < FLT_MAX ? sum : FLT_MAX;
  return run->rate / (sqrtf(*square) + options->epsilon);
}

/* What the batch says about an id's chunks: accesses x |gradient|. */
static void add_utility(const train_run *run, size_t u, fli_entry *entry,
                        const float *squares)
{
  const fli_table *table = run->table;
  const fli_batch *batch = &table->batch;
  float *increments = batch->increments + u * table->chunks;
  const uint32_t begin = u == 0 ? 0 : batch->first[u];
  const float count = (float)(batch->first[u + 1] - begin) * table->scale;
  const float *given = run->given;
  if (given) given += (size_t)batch->order[begin] * table->chunks;
  for (uint32_t k = 0; k < table->chunks; k++) {
    float increment = given ? count * given[k] : count * sqrtf(squares[k]);
    increments[k] = increment < FLI_UTILITY_MAX ? increment : FLI_UTILITY_MAX;
  }
  if (!entry || table->base == 0) return;
  uint64_t chance =
      fli_scatter(run->name ^ batch->ids[batch->firsts[u]] * FLI_ODD);
  for (uint32_t k = 0; k < table->chunks; k++) {
    float sum = fli_utility_of(entry->utility[k], table->base) + increments[k];
    entry->utility[k] = fli_utility_level(
        sum, table->base, (uint32_t)(chance >> 16 * k & 0xffff) << 4);
  }
}

/* Rows that are trained together, one kind of work after the other: each row's
 * sums, roots and divisions would wait for each other, those of many rows do
 * not. */
typedef struct row_block {
  size_t first; /* unique id */
  size_t n;
  const float *gradients[BLOCK_ROWS];
  float steps[BLOCK_ROWS];
  float squares[BLOCK_ROWS][FLI_CHUNKS_MAX];
  float sums[BLOCK_FLOATS];
} row_block;

static uint32_t where_at(const train_run *run, size_t u)
{
  const fli_batch *batch = &run->table->batch;
  return batch->wheres[batch->firsts[u]];
}

static void prefetch(const train_run *run, size_t u)
{
  const fli_table *table = run->table;
  uint32_t where = where_at(run, u);
  if (where == 0) return;
  const fli_pool *pool = table->pools[fli_where_count(where)];
  const uint8_t *row = fli_pool_row(pool, where & FLI_INDEX_MASK);
  for (size_t at = 0; at < pool->extent_bytes; at += LINE)
    FLI_PREFETCH(row + at);
  FLI_PREFETCH(fli_pool_square(pool, where & FLI_INDEX_MASK));
  if (run->has_utility)
    FLI_PREFETCH(table->batch.entries[table->batch.firsts[u]]);
}

/* Gradients, their squares by chunk, and where what they do is said. */
static void measure_rows(const train_run *run, row_block *block)
{
  const fli_table *table = run->table;
  for (size_t i = 0; i < block->n; i++) {
    block->gradients[i] =
        sum_gradients(run, block->first + i, block->sums + i * table->dim);
    run->kernels->squares(block->squares[i], block->gradients[i], table->chunks,
                          table->chunk_floats);
  }
}

/* Mean square over live chunks; not finite: the row has none, or a gradient so
 * large that it says nothing. */
static float mean_square(const fli_table *table, const float *squares,
                         uint32_t mask)
{
  float sum = 0;
  for (uint32_t k = 0; k < table->chunks; k++)
    sum += mask >> k & 1 ? squares[k] : 0.0f;
  return sum / (float)(fli_count_of(mask) * table->chunk_floats);
}

/* steps: < 0 for rows that stay as they are. */
static void plan_steps(const train_run *run, row_block *block)
{
  const fli_table *table = run->table;
  for (size_t i = 0; i < block->n; i++) {
    uint32_t where = where_at(run, block->first + i);
    uint32_t mask = where >> FLI_MASK_SHIFT;
    float mean = mean_square(table, block->squares[i], mask);
    block->steps[i] = -1.0f;
    if (!(mean <= FLT_MAX)) continue;
    float *square = fli_pool_square(table->pools[fli_count_of(mask)],
                                    where & FLI_INDEX_MASK);
    block->steps[i] = step_of(run, square, mean);
  }
}

/* A gradient so large that it says nothing is worth nothing, whatever chunks
 * its id has. */
static void add_utilities(const train_run *run, row_block *block)
{
  const fli_batch *batch = &run->table->batch;
  for (size_t i = 0; i < block->n; i++) {
    size_t u = block->first + i;
    fli_entry *entry = batch->entries[batch->firsts[u]];
    float sum = 0;
    for (uint32_t k = 0; k < run->table->chunks; k++)
      sum += block->squares[i][k];
    if (!(sum <= FLT_MAX) || (where_at(run, u) != 0 && block->steps[i] < 0))
      memset(block->squares[i], 0, sizeof block->squares[i]);
    add_utility(run, u, entry, block->squares[i]);
  }
}

static void step_chunks(const train_run *run, float *row, uint32_t mask,
                        const float *gradient, float step)
{
  const size_t n = run->table->chunk_floats;
  for (uint32_t k = 0; k < run->table->chunks; k++) {
    if (!(mask >> k & 1)) continue;
    run->kernels->step(row, gradient + k * n, step, n);
    row += n;
  }
}

static void step_row(const train_run *run, size_t u, const float *gradient,
                     float step)
{
  const fli_table *table = run->table;
  uint32_t where = where_at(run, u), mask = where >> FLI_MASK_SHIFT;
  const uint32_t count = fli_count_of(mask);
  uint8_t *bytes = fli_pool_row(table->pools[count], where & FLI_INDEX_MASK);
  float decoded[FLI_DIM_MAX];
  float *row = (float *)(void *)bytes;
  if (table->precision != FL_EMBEDDING_F32) {
    row = decoded;
    fli_chunks_decode(table, bytes, row, count);
  }
  if (!(where & FLI_IS_CHANGED)) {
    fli_entry *entry = table->batch.entries[table->batch.firsts[u]];
    atomic_store_explicit(&entry->where, where | FLI_IS_CHANGED,
                          memory_order_relaxed);
  }
  if (count == table->chunks) {
    run->kernels->step(row, gradient, step, table->dim);
  } else {
    step_chunks(run, row, mask, gradient, step);
  }
  if (table->precision == FL_EMBEDDING_F32) return;
  uint64_t id = table->batch.ids[table->batch.firsts[u]];
  fli_chunks_encode(table, bytes, row, count,
                    fli_scatter(run->name + id * FLI_ODD));
}

static void train_block(const train_run *run, row_block *block)
{
  measure_rows(run, block);
  plan_steps(run, block);
  if (run->has_utility) add_utilities(run, block);
  for (size_t i = 0; i < block->n; i++) {
    if (block->steps[i] >= 0)
      step_row(run, block->first + i, block->gradients[i], block->steps[i]);
  }
}

static void train_rows(void *arg, uint64_t index)
{
  const train_run *run = arg;
  const fli_batch *batch = &run->table->batch;
  const size_t fit = BLOCK_FLOATS / run->table->dim;
  const size_t each = fit < BLOCK_ROWS ? fit : BLOCK_ROWS;
  row_block block;
  size_t begin = (size_t)index * TASK_ROWS;
  size_t end =
      batch->n_unique - begin < TASK_ROWS ? batch->n_unique : begin + TASK_ROWS;
  size_t asked = begin;
  for (block.first = begin; block.first < end; block.first += block.n) {
    block.n = end - block.first < each ? end - block.first : each;
    for (; asked < end && asked < block.first + 2 * each; asked++)
      prefetch(run, asked);
    train_block(run, &block);
  }
}

/* The first increments say which range of values matters: their median stands
 * at FLI_LEVEL_MIDDLE. Ids that are seen once are most of them; what the most
 * frequent are worth may be more than the range has, and need not be told
 * apart. */
static void begin_utilities(train_run *run)
{
  fli_table *table = run->table;
  const fli_batch *batch = &table->batch;
  uint32_t counts[FLI_BITS_LEVELS] = {0}, level = 0;
  const size_t n = batch->n_unique * table->chunks;
  size_t n_found = 0, n_below = 0;
  for (size_t i = 0; i < n; i++) {
    if (!(batch->increments[i] > 0)) continue;
    counts[fli_f32_bits(batch->increments[i]) >> FLI_LEVEL_BITS]++;
    n_found++;
  }
  if (n_found == 0) return;
  while (n_below + counts[level] <= n_found / 2)
    n_below += counts[level++];
  int32_t base = (int32_t)level - FLI_LEVEL_MIDDLE;
  table->base = base < 1 ? 1 : base > FLI_BASE_MAX ? FLI_BASE_MAX : base;
  for (size_t u = 0; u < batch->n_unique; u++) {
    fli_entry *entry = batch->entries[batch->firsts[u]];
    for (uint32_t k = 0; k < table->chunks && entry; k++)
      entry->utility[k] = fli_utility_nearest(
          batch->increments[u * table->chunks + k], table->base);
  }
}

static void add_to_sketch(train_run *run)
{
  fli_table *table = run->table;
  const fli_batch *batch = &table->batch;
  for (size_t u = 0; u < batch->n_unique; u++) {
    if (batch->entries[batch->firsts[u]]) continue;
    uint64_t id = batch->ids[batch->firsts[u]];
    fli_sketch_add(table, id, fli_mix(run->embedding->mix, id),
                   batch->increments + u * table->chunks,
                   fli_scatter(run->name ^ id * FLI_ODD));
  }
}

/* The bits of the largest of |x|; at least INFINITE: one is not finite. */
static uint32_t largest_bits(const float *x, size_t n)
{
  int32_t most = 0; /* signed ones are compared side by side */
  for (size_t i = 0; i < n; i++) {
    int32_t bits = (int32_t)(fli_f32_bits(x[i]) & 0x7fffffffu);
    most = bits > most ? bits : most;
  }
  return (uint32_t)most;
}

static fl_status check(const fl_embedding *embedding, uint32_t table,
                       const fl_embedding_bags *bags, const float *gradient,
                       float rate, float *largest)
{
  fl_status st = fli_bags_check(embedding, table, bags, gradient);
  if (st != FL_OK) return st;
  if (!(rate >= 0 && rate <= FLI_RATE_MAX))
    return fli_error(FL_E_NOT_FINITE, "embedding: rate, got %g, want 0..%g",
                     (double)rate, (double)FLI_RATE_MAX);
  size_t n = (size_t)bags->n_bags * embedding->tables[table]->dim;
  uint32_t bits = largest_bits(gradient, n);
  *largest = fli_f32_from_bits(bits);
  if (bits < INFINITE) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "embedding: gradient[%zu]",
                   flk_kernels()->find_not_finite(gradient, n));
}

/* Gradients of the same id may add up to what no float32 is; that is looked at
 * one by one only when the largest gradient says that it can be. */
static fl_status check_sums(const train_run *run, double largest)
{
  const fli_table *table = run->table;
  const fli_batch *batch = &table->batch;
  float sums[FLI_DIM_MAX];
  uint32_t most = 0;
  for (size_t u = 0, begin = 0; u < batch->n_unique; u++) {
    uint32_t count = batch->first[u + 1] - (uint32_t)begin;
    most = count > most ? count : most;
    begin = batch->first[u + 1];
  }
  if (run->has_factors)
    largest *=
        (double)fli_f32_from_bits(largest_bits(batch->factors, batch->n_ids));
  if (largest * most < (double)FLT_MAX / 2) return FL_OK;
  for (size_t u = 0; u < batch->n_unique; u++) {
    const float *sum = sum_gradients(run, u, sums);
    if (flk_kernels()->find_not_finite(sum, table->dim) != table->dim)
      return fli_error(FL_E_NOT_FINITE,
                       "embedding: the sum of the gradients of ids[%u]",
                       (unsigned)batch->firsts[u]);
  }
  return FL_OK;
}

/* Entries of the batch: forward has left them, if it saw the same ids and
 * nothing has moved since. */
static fl_status find_entries(fl_embedding *embedding, fli_table *table,
                              const fl_embedding_bags *bags)
{
  fli_batch *batch = &table->batch;
  const size_t n = (size_t)bags->n_ids;
  if (batch->block && batch->n_ids == n && batch->layout == embedding->layout &&
      (n == 0 || memcmp(batch->ids, bags->ids, n * sizeof *bags->ids) == 0))
    return FL_OK;
  fl_status st = fli_batch_reserve(embedding, table, n);
  if (st == FL_OK) fli_batch_find(embedding, table, bags);
  return st;
}

fl_status fl_embedding_backward(fl_embedding *embedding, uint32_t table,
                                const fl_embedding_bags *bags,
                                const float *gradient, float rate)
{
  fli_clear_error();
  return fli_embedding_backward(embedding, table, bags, gradient, rate, NULL);
}

fl_status fli_embedding_backward(fl_embedding *embedding, uint32_t table,
                                 const fl_embedding_bags *given,
                                 const float *gradient, float rate,
                                 const float *utilities)
{
  fl_embedding_bags bags;
  fli_fpguard guard;
  float largest = 0;
  fl_status st = fli_bags_load(&bags, given);
  if (st == FL_OK)
    st = check(embedding, table, &bags, gradient, rate, &largest);
  if (st != FL_OK) return st;
  fli_table *t = embedding->tables[table];
  st = find_entries(embedding, t, &bags);
  if (st != FL_OK) return st;
  fli_fpguard_enter(&guard);
  fli_batch_group(&t->batch, &bags);
  train_run run = {
      .embedding = embedding,
      .table = t,
      .kernels = flk_rows_kernels(),
      .gradient = gradient,
      .has_factors = bags.weights || bags.mode == FL_EMBEDDING_MEAN,
      .rate = rate,
      .has_utility = embedding->budget != UINT64_MAX || embedding->watch,
      .given = utilities,
      .name = fli_scatter(embedding->options.seed ^ embedding->step * FLI_ODD)};
  st = check_sums(&run, (double)largest);
  if (st != FL_OK) goto out;
  fli_parallel_all(embedding->context,
                   (t->batch.n_unique + TASK_ROWS - 1) / TASK_ROWS, train_rows,
                   &run);
  if (embedding->watch) fli_embedding_tell(embedding, t);
  if (embedding->budget == UINT64_MAX) run.has_utility = 0;
  if (run.has_utility && t->base == 0) begin_utilities(&run);
  if (run.has_utility && t->base != 0) add_to_sketch(&run);
  embedding->step++;
out:
  fli_fpguard_leave(&guard);
  return st;
}
