/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as hosts may read them one by one, and what there is of everything. */
#include "embedding/hash.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"

static const fl_embedding_statistics statistics_defaults = {
    .struct_size = sizeof(fl_embedding_statistics),
};

fl_status fl_embedding_statistics_init(fl_embedding_statistics *statistics,
                                       size_t size)
{
  return fli_options_init(statistics, size, &statistics_defaults,
                          sizeof statistics_defaults);
}

/* ---- rows ---------------------------------------------------------------- */

static fl_status check_table(const fl_embedding *embedding, uint32_t table)
{
  fli_clear_error();
  if (!embedding) return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  if (table < embedding->n_tables) return FL_OK;
  return fli_error(FL_E_NOT_FOUND, "embedding: table, got %u, want < %u",
                   (unsigned)table, (unsigned)embedding->n_tables);
}

uint64_t fl_embedding_row_count(const fl_embedding *embedding, uint32_t table)
{
  if (!embedding || table >= embedding->n_tables) return 0;
  return embedding->tables[table]->n_rows;
}

fl_status fl_embedding_copy_ids(const fl_embedding *embedding, uint32_t table,
                                uint64_t *ids, uint64_t capacity,
                                uint64_t *needed)
{
  fl_status st = check_table(embedding, table);
  if (st != FL_OK) return st;
  if (!needed || (!ids && capacity > 0))
    return fli_error(FL_E_ARGUMENT, "embedding: ids, got NULL");
  const fli_table *t = embedding->tables[table];
  *needed = t->n_rows;
  if (!ids) return FL_OK;
  if (capacity < t->n_rows) {
    return fli_error(FL_E_SIZE,
                     "embedding: ids, got room for %" PRIu64 ", want %" PRIu64,
                     capacity, t->n_rows);
  }
  uint64_t at = 0, n = 0;
  const fli_segment *segment;
  while ((segment = fli_segments_next(t, &at)) != NULL) {
    for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++) {
      if (fli_entry_where(&segment->entries[i]) != 0)
        ids[n++] = fli_entry_id(&segment->entries[i]);
    }
  }
  return FL_OK;
}

fl_status fl_embedding_copy_row(const fl_embedding *embedding, uint32_t table,
                                uint64_t id, float *values, uint32_t *mask)
{
  fl_status st = check_table(embedding, table);
  if (st != FL_OK) return st;
  const fli_table *t = embedding->tables[table];
  const fli_entry *entry = fli_hash_find(t, id, fli_mix(embedding->mix, id));
  if (!entry) {
    return fli_error(FL_E_NOT_FOUND, "embedding: id %" PRIu64 " has no row",
                     id);
  }
  uint32_t where = fli_entry_where(entry);
  if (values) fli_row_read(t, where, values);
  if (mask) *mask = where >> FLI_MASK_SHIFT;
  return FL_OK;
}

/* ---- statistics ---------------------------------------------------------- */

static void add_table(const fl_embedding *embedding, const fli_table *table,
                      fl_embedding_statistics *sum)
{
  uint64_t at = 0;
  const fli_segment *segment;
  fli_directory *directory = atomic_load(&table->directory);
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++) {
      uint32_t where = fli_entry_where(&segment->entries[i]);
      if (where != 0) sum->rows_by_chunks[fli_where_count(where) - 1]++;
    }
  }
  (void)embedding;
  sum->bytes_values += table->n_chunks * table->chunk_bytes;
  sum->bytes_squares += table->n_rows * sizeof(float);
  sum->bytes_entries +=
      table->segment_bytes + sizeof *directory +
      ((uint64_t)1 << directory->depth) * sizeof directory->segments[0];
  sum->bytes_sketch += 2 * table->sketch_width;
  if (table->touches) sum->bytes_sketch += 2 * table->sketch_width;
  if (table->candidates)
    sum->bytes_sketch += fli_candidate_bytes(table) + fli_dropped_bytes(table);
  sum->bytes_scratch += table->batch.bytes;
  sum->rows += table->n_rows;
  sum->chunks += table->n_chunks;
  sum->ids_asked += table->asked;
  sum->ids_hit += table->hits;
}

static void add_whole(const fl_embedding *embedding,
                      fl_embedding_statistics *sum)
{
  const fl_embedding_report *totals = &embedding->totals;
  sum->n_tables = embedding->n_tables;
  sum->byte_budget = embedding->budget == UINT64_MAX ? 0 : embedding->budget;
  sum->bytes_used = embedding->bytes_used;
  sum->steps = embedding->step;
  sum->adjusts = embedding->n_adjusts;
  sum->evicted = totals->evicted;
  sum->grown = totals->grown;
  sum->rows_lost = totals->rows_lost;
  sum->rows_gained = totals->rows_gained;
  for (uint32_t i = 0; i < embedding->n_pools; i++) {
    const fli_pool *pool = embedding->pools[i];
    uint32_t used = pool->n_made - pool->n_free;
    sum->bytes_free += pool->n_blocks * (uint64_t)pool->block_bytes -
                       used * (uint64_t)(pool->extent_bytes + sizeof(float));
  }
}

fl_status fl_embedding_get_statistics(const fl_embedding *embedding,
                                      uint32_t table,
                                      fl_embedding_statistics *statistics)
{
  fl_embedding_statistics sum = statistics_defaults, all = sum;
  fli_clear_error();
  if (!embedding || !statistics)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  if (table != FL_AUTO) {
    fl_status st = check_table(embedding, table);
    if (st != FL_OK) return st;
    sum.dim = embedding->tables[table]->dim;
  }
  add_whole(embedding, &sum);
  for (uint32_t t = 0; t < embedding->n_tables; t++) {
    add_table(embedding, embedding->tables[t], &all);
    if (table == FL_AUTO || table == t)
      add_table(embedding, embedding->tables[t], &sum);
  }
  sum.bytes_fixed = sum.bytes_used - sum.bytes_free - all.bytes_values -
                    all.bytes_squares - all.bytes_entries - all.bytes_sketch;
  return fli_options_store(statistics, &sum, sizeof sum,
                           "embedding statistics");
}
