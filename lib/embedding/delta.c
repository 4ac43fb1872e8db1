/* SPDX-License-Identifier: Apache-2.0 */
/* What has changed since the last version: rows, and ids that have none any
 * more. A delta names the version that it starts from, which is part of the
 * hash of what was saved then, so none fits anything else. Applying reads it
 * twice: everything is checked before anything changes. */
#include "embedding/hash.h"
#include "embedding/stream.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/error.h"
#include "embedding/saved.h"
#include "embedding/slice_rows.h"
#include "embedding/utility.h"
#include "kernels/kernels.h"

/* ---- out ----------------------------------------------------------------- */

static uint64_t count_changed(const fli_table *table)
{
  uint64_t at = 0, n = 0;
  const fli_segment *segment;
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++)
      n += (fli_entry_where(&segment->entries[i]) & FLI_IS_CHANGED) != 0;
  }
  return n;
}

static void write_rows(fli_out *out, const fli_table *table)
{
  uint64_t at = 0;
  const fli_segment *segment;
  fli_out_u64(out, count_changed(table));
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (uint32_t i = 0; i < segment->n_buckets * FLI_BUCKET; i++) {
      const fli_entry *entry = &segment->entries[i];
      uint32_t where = fli_entry_where(entry);
      if (!(where & FLI_IS_CHANGED)) continue;
      fli_out_u64(out, fli_entry_id(entry));
      fli_out_u32(out, where & ~(FLI_INDEX_MASK | FLI_IS_CHANGED));
      fli_out_bytes(out, entry->utility, sizeof entry->utility);
      fli_write_values(out, table, where);
    }
  }
}

static void write_delta(fli_out *out, const fl_embedding *e)
{
  fli_out_u64(out, e->version);
  fli_out_u32(out, e->n_tables);
  for (uint32_t t = 0; t < e->n_tables; t++) {
    const fli_table *table = e->tables[t];
    fli_out_u32(out, table->dim);
    fli_out_u32(out, table->chunks);
    fli_out_u32(out, table->precision);
    fli_out_u32(out, (uint32_t)table->base);
    fli_out_f32(out, table->scale);
  }
  fli_out_u64(out, e->n_tombstones);
  for (uint64_t i = 0; i < e->n_tombstones; i++) {
    fli_out_u32(out, e->tombstones[i].table);
    fli_out_u64(out, e->tombstones[i].id);
  }
  for (uint32_t t = 0; t < e->n_tables; t++)
    write_rows(out, e->tables[t]);
}

fl_status fl_embedding_save_delta(fl_embedding *embedding, uint64_t since,
                                  const fl_writer *writer)
{
  fli_out out;
  uint64_t version;
  fli_clear_error();
  if (!embedding || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  if (since == 0 || since != embedding->version)
    return fli_error(FL_E_STALE, "embedding: the last version is another one");
  if (embedding->options.tombstones == 0 ||
      embedding->n_tombstones > embedding->options.tombstones) {
    return fli_error(FL_E_STATE, "embedding: not all evicted ids are known: "
                                 "save it whole");
  }
  fli_out_begin(&out, writer, FLI_SAVED_DELTA);
  write_delta(&out, embedding);
  fl_status st = fli_out_end(&out, &version);
  if (st == FL_OK) fli_begin_version(embedding, version);
  return st;
}

/* ---- in ------------------------------------------------------------------ */

static void check_tables(const fl_embedding *e, fli_in *in)
{
  if (fli_in_u32(in) != e->n_tables)
    fli_in_fail(in, FL_E_SCHEMA, "number of tables");
}

static void read_table(fl_embedding *e, uint32_t t, fli_in *in, int does_apply)
{
  fli_table *table = e->tables[t];
  if (fli_in_u32(in) != table->dim || fli_in_u32(in) != table->chunks ||
      fli_in_u32(in) != table->precision)
    fli_in_fail(in, FL_E_SCHEMA, "a table's shape");
  int32_t base = (int32_t)fli_in_u32(in);
  float scale = fli_in_f32(in);
  if (base < 0 || base > FLI_BASE_MAX ||
      !(scale > 0x1p-120f && scale < 0x1p100f))
    fli_in_fail(in, FL_E_RANGE, "a table");
  if (!does_apply || in->status != FL_OK) return;
  table->base = base;
  table->scale = scale;
}

static void drop_id(fl_embedding *e, fli_table *table, uint64_t id)
{
  uint64_t hash = fli_mix(e->mix, id);
  fli_entry *entry = fli_hash_find(table, id, hash);
  if (!entry) return;
  uint32_t where = fli_entry_where(entry);
  fli_hash_move(table, fli_segment_of(table, hash), entry, 0);
  fli_pool_give(table->pools[fli_where_count(where)], where & FLI_INDEX_MASK);
  table->n_chunks -= fli_where_count(where);
}

static void read_tombstones(fl_embedding *e, fli_in *in, int does_apply)
{
  uint64_t n = fli_in_u64(in);
  for (uint64_t i = 0; i < n && in->status == FL_OK; i++) {
    uint32_t t = fli_in_u32(in);
    uint64_t id = fli_in_u64(in);
    if (t >= e->n_tables) fli_in_fail(in, FL_E_RANGE, "an evicted id's table");
    if (does_apply && in->status == FL_OK) drop_id(e, e->tables[t], id);
  }
}

/* A row as it comes. */
typedef struct new_row {
  uint64_t id;
  uint32_t where; /* without index */
  uint8_t utility[FLI_CHUNKS_MAX];
  float square;
  uint8_t bytes[FLI_DIM_MAX * sizeof(float)];
} new_row;

static void fill_extent(const fli_pool *pool, uint32_t index,
                        const new_row *row)
{
  uint8_t *dst = fli_pool_row(pool, index);
  *fli_pool_square(pool, index) = row->square;
  if (pool->has_floats) {
    flk_kernels()->f32_load((float *)(void *)dst, row->bytes,
                            pool->extent_bytes / sizeof(float));
  } else {
    memcpy(dst, row->bytes, pool->extent_bytes);
  }
}

/* What rows have left goes back to the budget. */
static void make_room(fl_embedding *e)
{
  fl_embedding_report moved = {0};
  fli_compact(e, &moved);
  for (uint32_t t = 0; t < e->n_tables; t++)
    (void)fli_hash_shrink(e, e->tables[t]);
}

/* In another extent than it has, so that lookups see the one or the other.
 * Without room nothing has changed. */
static fli_room try_row(fl_embedding *e, fli_table *table, const new_row *row)
{
  uint32_t index, count = fli_where_count(row->where);
  fli_pool *pool = table->pools[count];
  fli_room room = fli_pool_take(e, pool, 1, &index);
  if (room != FLI_ROOM) return room;
  fill_extent(pool, index, row);
  uint64_t hash = fli_mix(e->mix, row->id);
  fli_entry *entry = fli_hash_find(table, row->id, hash);
  if (entry) {
    uint32_t old = fli_entry_where(entry);
    fli_hash_move(table, fli_segment_of(table, hash), entry,
                  row->where | index);
    fli_pool_give(table->pools[fli_where_count(old)], old & FLI_INDEX_MASK);
    table->n_chunks -= fli_where_count(old);
  } else {
    room = fli_hash_insert(e, table, row->id, row->where | index, &entry);
    if (room != FLI_ROOM) {
      fli_pool_give(pool, index);
      return room;
    }
  }
  memcpy(entry->utility, row->utility, sizeof entry->utility);
  table->n_chunks += count;
  return FLI_ROOM;
}

/* Room is made between tries only: it takes blocks away whose extents no entry
 * has, so nobody may hold one. */
static fli_room put_row(fl_embedding *e, fli_table *table, const new_row *row)
{
  fli_room room = try_row(e, table, row);
  if (room != FLI_NO_ROOM) return room;
  make_room(e);
  return try_row(e, table, row);
}

static void read_row(fl_embedding *e, fli_table *table, fli_in *in,
                     int does_apply)
{
  new_row row;
  row.id = fli_in_u64(in);
  row.where = fli_in_u32(in);
  fli_in_bytes(in, row.utility, sizeof row.utility);
  row.square = fli_in_f32(in);
  if (row.where & (FLI_INDEX_MASK | FLI_IS_CHANGED) || row.square < 0 ||
      row.where >> FLI_MASK_SHIFT == 0 ||
      row.where >> FLI_MASK_SHIFT >> table->chunks != 0)
    fli_in_fail(in, FL_E_RANGE, "a row");
  if (in->status != FL_OK) return;
  size_t n = table->pools[fli_where_count(row.where)]->extent_bytes;
  fli_in_bytes(in, row.bytes, n);
  if (!fli_row_bytes_are_finite(table, row.bytes, n))
    fli_in_fail(in, FL_E_NOT_FINITE, "a row");
  if (!does_apply || in->status != FL_OK) return;
  fli_room room = put_row(e, table, &row);
  if (room == FLI_NO_MEMORY) in->status = fli_nomem(n);
  if (room == FLI_NO_ROOM)
    fli_in_fail(in, FL_E_LIMIT, "the budget is too small");
}

static fl_status read_delta(fl_embedding *e, fli_in *in, int does_apply,
                            uint64_t *version)
{
  fli_in_begin(in, in->reader, FLI_SAVED_DELTA);
  if (fli_in_u64(in) != e->version)
    fli_in_fail(in, FL_E_STALE, "a delta to another version");
  check_tables(e, in);
  for (uint32_t t = 0; t < e->n_tables && in->status == FL_OK; t++)
    read_table(e, t, in, does_apply);
  read_tombstones(e, in, does_apply);
  for (uint32_t t = 0; t < e->n_tables && in->status == FL_OK; t++) {
    uint64_t n = fli_in_u64(in);
    for (uint64_t i = 0; i < n && in->status == FL_OK; i++)
      read_row(e, e->tables[t], in, does_apply);
  }
  return fli_in_end(in, version);
}

/* The copy once more, from its beginning. */
typedef struct copy_source {
  const fli_bytes *copy;
  size_t at;
} copy_source;

static fl_status read_copy(void *user, void *out, size_t n, size_t *got)
{
  copy_source *from = user;
  const size_t left = from->copy->size - from->at;
  *got = n < left ? n : left;
  if (*got > 0) memcpy(out, from->copy->data + from->at, *got);
  from->at += *got;
  return FL_OK;
}

static fl_status apply(fl_embedding *e, const fli_bytes *copy)
{
  copy_source from = {.copy = copy};
  const fl_reader again = {read_copy, &from};
  uint64_t version = 0;
  fli_in in = {.reader = &again};
  e->layout++;
  /* The reserve is for this, too. */
  uint64_t reserve = e->reserve;
  e->reserve = 0;
  fl_status st = read_delta(e, &in, 1, &version);
  e->reserve = reserve;
  make_room(e);
  /* Half of it is in the table now: that is no version. */
  fli_begin_version(e, st == FL_OK ? version : 0);
  return st;
}

fl_status fl_embedding_apply_delta(fl_embedding *embedding,
                                   const fl_reader *reader)
{
  fli_bytes copy;
  uint64_t version;
  fli_clear_error();
  if (!embedding || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  fl_status st = fli_crypto_init();
  if (st != FL_OK) return st;
  if (embedding->version == 0)
    return fli_error(FL_E_STALE, "embedding: it is of no version");
  fli_bytes_init(&copy, embedding->context);
  /* Who has room for its rows has as many bytes. */
  fli_in in = {.reader = reader, .copy = &copy, .copy_max = embedding->budget};
  st = read_delta(embedding, &in, 0, &version);
  if (st == FL_OK) st = apply(embedding, &copy);
  fli_bytes_free(&copy);
  return st;
}

/* ---- single rows --------------------------------------------------------- */

fli_room fli_embedding_put(fl_embedding *embedding, fli_table *table,
                           uint64_t id, uint32_t mask, const float *values)
{
  new_row row = {.id = id,
                 .where = mask << FLI_MASK_SHIFT,
                 .square = embedding->options.initial_square};
  float live[FLI_DIM_MAX];
  size_t n = 0;
  for (uint32_t k = 0; k < table->chunks; k++) {
    const size_t first = (size_t)k * table->chunk_floats;
    if (!(mask >> k & 1)) continue;
    memcpy(live + n, values + first, table->chunk_floats * sizeof *live);
    n += table->chunk_floats;
  }
  if (table->precision == FL_EMBEDDING_F32) {
    for (size_t i = 0; i < n; i++)
      fli_store_f32(row.bytes + i * sizeof *live, live[i]);
  } else {
    fli_chunks_encode(table, row.bytes, live, fli_count_of(mask),
                      fli_scatter(embedding->step + id * FLI_ODD));
  }
  embedding->layout++;
  return put_row(embedding, table, &row);
}

void fli_embedding_drop(fl_embedding *embedding, fli_table *table, uint64_t id)
{
  embedding->layout++;
  drop_id(embedding, table, id);
}
