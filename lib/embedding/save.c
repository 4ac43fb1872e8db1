/* SPDX-License-Identifier: Apache-2.0 */
/* Saving everything, streamed: options and secret, then per table its shape,
 * sketch and candidates, then the pools with their rows, then segments with
 * their entries in their places. What is loaded goes on as if it had never
 * been away, to the order in which ties are broken and the number of blocks. */
#include "embedding/hash.h"
#include "embedding/stream.h"

#include "base/compiler.h"
#include "base/error.h"
#include "embedding/saved.h"
#include "kernels/kernels.h"

static void write_options(fli_out *out, const fl_embedding *e)
{
  const fl_embedding_options *options = &e->options;
  fli_out_u32(out, options->optimiser);
  fli_out_u64(out, options->byte_budget);
  fli_out_u64(out, options->seed);
  fli_out_bytes(out, e->secret, sizeof e->secret);
  fli_out_f32(out, options->epsilon);
  fli_out_f32(out, options->initial_square);
  fli_out_f32(out, options->decay);
  fli_out_f32(out, options->hysteresis);
  fli_out_u32(out, options->sample_every);
  fli_out_u32(out, options->is_global);
  fli_out_u64(out, options->tombstones);
  fli_out_u64(out, e->step);
  fli_out_u64(out, e->n_adjusts);
  fli_out_u32(out, e->n_tables);
}

static void write_table(fli_out *out, const fli_table *table)
{
  fli_out_u32(out, table->dim);
  fli_out_u32(out, table->chunks);
  fli_out_u32(out, table->precision);
  fli_out_u32(out, table->admit_after);
  fli_out_u32(out, table->keep_for);
  fli_out_f32(out, table->share);
  fli_out_f32(out, table->init_scale);
  fli_out_u64(out, table->prune_from);
  fli_out_u64(out, 2 * table->sketch_width);
  fli_out_u32(out, table->n_candidate_buckets);
  fli_out_u32(out, (uint32_t)table->base);
  fli_out_f32(out, table->scale);
  fli_out_u32(out, table->admit_level);
  fli_out_u64(out, table->quota);
  if (table->sketch) fli_out_bytes(out, table->sketch, 2 * table->sketch_width);
  if (table->touches)
    fli_out_bytes(out, table->touches, 2 * table->sketch_width);
  for (uint32_t i = 0; i < table->n_candidate_buckets * FLI_BUCKET; i++) {
    const fli_candidate *candidate = &table->candidates[i];
    fli_out_u64(out, candidate->id);
    fli_out_bytes(out, candidate->levels, sizeof candidate->levels);
    fli_out_u32(out, candidate->is_there);
  }
  if (!table->candidates) return;
  fli_out_bytes(out, table->dropped_bits, fli_dropped_bytes(table));
  for (size_t i = 0; i < FLI_COUNT_OF(table->dropped); i++)
    fli_out_u32(out, table->dropped[i]);
}

/* Rows as they are, those of free extents too, whose first bytes are the
 * chain. */
static void write_row(fli_out *out, const fli_pool *pool, uint32_t index)
{
  const uint8_t *row = fli_pool_row(pool, index);
  uint8_t bytes[FLI_DIM_MAX * sizeof(float)];
  fli_out_f32(out, *fli_pool_square(pool, index));
  if (!pool->has_floats) {
    fli_out_bytes(out, row, pool->extent_bytes);
    return;
  }
  flk_kernels()->f32_store(bytes, (const float *)(const void *)row,
                           pool->extent_bytes / sizeof(float));
  fli_out_bytes(out, bytes, pool->extent_bytes);
}

void fli_write_values(fli_out *out, const fli_table *table, uint32_t where)
{
  write_row(out, table->pools[fli_where_count(where)], where & FLI_INDEX_MASK);
}

static void write_pool(fli_out *out, const fli_pool *pool)
{
  fli_out_u32(out, pool->n_made);
  fli_out_u32(out, pool->n_blocks);
  fli_out_u32(out, pool->blocks_capacity);
  fli_out_u32(out, pool->n_free);
  fli_out_u32(out, pool->free_first);
  for (uint32_t i = 0; i < pool->n_made; i++)
    write_row(out, pool, i);
}

static void write_segment(fli_out *out, const fli_segment *segment)
{
  fli_out_u32(out, segment->depth);
  fli_out_u32(out, segment->n_buckets);
  fli_out_u32(out, segment->n_used);
  for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++) {
    const fli_entry *entry = &segment->entries[i];
    uint32_t where = fli_entry_where(entry);
    if (where == 0) continue;
    fli_out_u32(out, i);
    fli_out_u64(out, fli_entry_id(entry));
    fli_out_u32(out, where & ~FLI_IS_CHANGED);
    fli_out_bytes(out, entry->utility, sizeof entry->utility);
  }
}

static void write_all(fli_out *out, const fl_embedding *e)
{
  write_options(out, e);
  for (uint32_t t = 0; t < e->n_tables; t++)
    write_table(out, e->tables[t]);
  for (uint32_t p = 0; p < e->n_pools; p++)
    write_pool(out, e->pools[p]);
  for (uint32_t t = 0; t < e->n_tables; t++) {
    uint64_t at = 0;
    const fli_segment *segment;
    fli_out_u32(out, e->tables[t]->n_segments);
    while ((segment = fli_segments_next(e->tables[t], &at)) != NULL)
      write_segment(out, segment);
  }
}

/* Everything is as it was saved. */
void fli_begin_version(fl_embedding *e, uint64_t version)
{
  for (uint32_t t = 0; t < e->n_tables; t++) {
    uint64_t at = 0;
    fli_segment *segment;
    while ((segment = fli_segments_next(e->tables[t], &at)) != NULL) {
      for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++) {
        fli_entry *entry = &segment->entries[i];
        uint32_t where = fli_entry_where(entry);
        if (where & FLI_IS_CHANGED)
          atomic_store_explicit(&entry->where, where & ~FLI_IS_CHANGED,
                                memory_order_relaxed);
      }
    }
  }
  e->version = version;
  e->layout++; /* batches remember what entries said */
  fli_tombstones_clear(e);
}

fl_status fl_embedding_save(fl_embedding *embedding, const fl_writer *writer)
{
  fli_out out;
  uint64_t version;
  fli_clear_error();
  if (!embedding || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  fl_status st = fli_crypto_init();
  if (st != FL_OK) return st;
  fli_out_begin(&out, writer, FLI_SAVED_WHOLE);
  write_all(&out, embedding);
  st = fli_out_end(&out, &version);
  if (st == FL_OK) fli_begin_version(embedding, version);
  return st;
}

uint64_t fl_embedding_version(const fl_embedding *embedding)
{
  return embedding ? embedding->version : 0;
}
