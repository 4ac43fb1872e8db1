/* SPDX-License-Identifier: Apache-2.0 */
/* Loading what save.c wrote. Bytes are hostile: memory is taken as they come,
 * and nothing is believed that the store's own rules do not say: every extent
 * is free or has one owner, every id lies where its hash allows, numbers are
 * finite. Until an entry claims it, an extent's accumulator carries a sign. */
#include "embedding/hash.h"
#include "embedding/stream.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "embedding/saved.h"
#include "embedding/utility.h"
#include "kernels/kernels.h"

enum {
  ARRAY_FIRST = 65536,
  TOMBSTONES_MAX = 1 << 20,
  LIST_MAX = 4096,
  /* Without a host's budget: so many bytes, and for each that came. 64 tables
   * may have a block of 1 MiB for a few rows. */
  GRANTED_FIRST = 96 << 20,
  GRANTED_EACH = 64
};

typedef struct loading {
  fl_embedding *e;
  fli_in in;
  uint64_t given;  /* the host's budget; 0: none */
  uint64_t budget; /* what it will be */
  int is_other;    /* than the saved one: blocks have other sizes */
  int was_boundless;
} loading;

/* Until all is read, the budget is not more than the bytes at hand justify. */
static void grant(loading *run)
{
  fl_embedding *e = run->e;
  uint64_t granted = GRANTED_FIRST;
  if (run->given) return;
  if (run->in.n_read < UINT64_MAX / 2 / GRANTED_EACH)
    granted += GRANTED_EACH * run->in.n_read;
  e->budget = granted < run->budget ? granted : run->budget;
}

static fl_status no_room(int no_memory, size_t bytes)
{
  if (no_memory) return fli_nomem(bytes);
  return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
}

/* An array of n bytes that grows as they come; *out is within the budget. */
static void read_array(fl_embedding *e, fli_in *in, uint64_t n, uint8_t **out)
{
  uint64_t done = 0;
  while (done < n && in->status == FL_OK) {
    uint64_t next = done ? 2 * done : ARRAY_FIRST;
    int no_memory;
    if (next > n) next = n;
    uint8_t *grown = NULL;
    if (next <= SIZE_MAX)
      grown = fli_embedding_take(e, (size_t)next, 1, &no_memory);
    if (!grown) {
      in->status = no_room(next > SIZE_MAX || no_memory, (size_t)next);
      break;
    }
    if (done) memcpy(grown, *out, (size_t)done);
    fli_embedding_give(e, *out, (size_t)done);
    *out = grown;
    fli_in_bytes(in, grown + done, (size_t)(next - done));
    done = next;
  }
  if (in->status == FL_OK) return;
  fli_embedding_give(e, *out, (size_t)done);
  *out = NULL;
}

/* ---- options and tables -------------------------------------------------- */

static fl_status read_options(loading *run, fl_context *context,
                              uint32_t *n_tables)
{
  fl_embedding_options options;
  uint8_t secret[16];
  fli_in *in = &run->in;
  (void)fl_embedding_options_init(&options, sizeof options);
  options.optimiser = fli_in_u32(in);
  options.byte_budget = fli_in_u64(in);
  options.seed = fli_in_u64(in);
  fli_in_bytes(in, secret, sizeof secret);
  options.secret = secret;
  options.epsilon = fli_in_f32(in);
  options.initial_square = fli_in_f32(in);
  options.decay = fli_in_f32(in);
  options.hysteresis = fli_in_f32(in);
  options.sample_every = fli_in_u32(in);
  options.is_global = fli_in_u32(in);
  uint64_t n_tombstones = fli_in_u64(in);
  uint64_t step = fli_in_u64(in), n_adjusts = fli_in_u64(in);
  *n_tables = fli_in_u32(in);
  if (*n_tables > FL_EMBEDDING_MAX_TABLES)
    fli_in_fail(in, FL_E_TOO_LARGE, "tables");
  /* A lie about ids that nobody has sent yet. */
  if (!run->given && n_tombstones > TOMBSTONES_MAX)
    fli_in_fail(in, FL_E_TOO_LARGE, "tombstones, without a byte_budget");
  if (n_tombstones > SIZE_MAX / sizeof(fli_tombstone))
    fli_in_fail(in, FL_E_TOO_LARGE, "tombstones");
  if (in->status != FL_OK) return in->status;
  const uint64_t saved = options.byte_budget ? options.byte_budget : UINT64_MAX;
  run->was_boundless = saved == UINT64_MAX;
  run->is_other = run->given && run->given != saved;
  if (run->is_other) options.byte_budget = run->given;
  fl_status st = fl_embedding_new(&run->e, context, &options);
  if (st == FL_E_OPTIONS) st = FL_E_RANGE; /* the text says which */
  if (st != FL_OK) return st;
  fl_embedding *e = run->e;
  e->step = step;
  e->n_adjusts = n_adjusts;
  run->budget = e->budget;
  grant(run);
  e->options.tombstones = n_tombstones;
  return fli_tombstones_new(e, n_tombstones);
}

static void read_candidates(fl_embedding *e, fli_table *table, fli_in *in)
{
  uint8_t *bytes = NULL;
  const size_t n = (size_t)table->n_candidate_buckets * FLI_BUCKET;
  read_array(e, in, fli_candidate_bytes(table), &bytes);
  table->candidates = (fli_candidate *)(void *)bytes;
  for (size_t i = 0; i < n && bytes; i++) {
    /* Fields are where the struct has them, but for their byte order. */
    const uint8_t *at = bytes + i * sizeof(fli_candidate);
    fli_candidate candidate = {.id = fli_load_u64(at),
                               .is_there = fli_load_u32(at + 12) == 1};
    memcpy(candidate.levels, at + 8, sizeof candidate.levels);
    table->candidates[i] = candidate;
  }
  if (n > 0) read_array(e, in, fli_dropped_bytes(table), &table->dropped_bits);
  for (size_t i = 0; i < FLI_COUNT_OF(table->dropped) && n > 0; i++)
    table->dropped[i] = fli_in_u32(in);
}

static void read_sketch(fl_embedding *e, fli_table *table, fli_in *in,
                        uint64_t counters)
{
  if (counters > 0) read_array(e, in, counters, &table->sketch);
  if (table->sketch) table->sketch_width = (size_t)counters / 2;
  if (table->sketch && table->admit_after > 1)
    read_array(e, in, counters, &table->touches);
}

static fl_status read_table(loading *run)
{
  fl_embedding *e = run->e;
  fli_in *in = &run->in;
  fl_embedding_table_options options;
  fli_table *table;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = fli_in_u32(in);
  options.chunks = fli_in_u32(in);
  options.precision = fli_in_u32(in);
  options.admit_after = fli_in_u32(in);
  options.keep_for = fli_in_u32(in);
  options.share = fli_in_f32(in);
  options.init_scale = fli_in_f32(in);
  options.prune_from = fli_in_u64(in);
  uint64_t counters = fli_in_u64(in);
  uint32_t n_candidate_buckets = fli_in_u32(in);
  int32_t base = (int32_t)fli_in_u32(in);
  float scale = fli_in_f32(in);
  uint32_t admit_level = fli_in_u32(in);
  uint64_t quota = fli_in_u64(in);
  if (base < 0 || base > FLI_BASE_MAX ||
      !(scale > 0x1p-120f && scale < 0x1p100f) || admit_level > 255 ||
      counters % 2 != 0 || counters > FLI_COUNTERS_MAX ||
      n_candidate_buckets > FLI_CANDIDATE_BUCKETS_MAX)
    fli_in_fail(in, FL_E_RANGE, "a table");
  if (in->status != FL_OK) return in->status;
  grant(run);
  fl_status st = fli_table_add(e, &options, &table);
  if (st != FL_OK)
    return st == FL_E_OPTIONS || st == FL_E_DIM ? FL_E_RANGE : st;
  table->base = base;
  table->scale = scale;
  table->admit_level = (uint8_t)admit_level;
  table->quota = quota;
  read_sketch(e, table, in, counters);
  if (in->status == FL_OK) {
    table->n_candidate_buckets = n_candidate_buckets;
    read_candidates(e, table, in);
    if (!table->candidates || !table->dropped_bits) {
      /* What is freed is what is there. */
      fli_embedding_give(e, table->candidates, fli_candidate_bytes(table));
      table->candidates = NULL;
      table->n_candidate_buckets = 0;
    }
  }
  /* There was nothing to rank for; now there is. */
  if (in->status == FL_OK && run->was_boundless && run->is_other &&
      !table->sketch && !table->candidates)
    return fli_table_add_sketch(e, table, FL_AUTO);
  return in->status;
}

/* ---- rows ---------------------------------------------------------------- */

static void read_row(fli_in *in, fli_pool *pool, uint32_t index)
{
  uint8_t bytes[FLI_DIM_MAX * sizeof(float)];
  uint8_t *row = fli_pool_row(pool, index);
  float square = fli_in_f32(in);
  if (square < 0) fli_in_fail(in, FL_E_RANGE, "an accumulator");
  *fli_pool_square(pool, index) = -fabsf(square); /* not claimed yet */
  fli_in_bytes(in, bytes, pool->extent_bytes);
  if (pool->has_floats) {
    flk_kernels()->f32_load((float *)(void *)row, bytes,
                            pool->extent_bytes / sizeof(float));
  } else {
    memcpy(row, bytes, pool->extent_bytes);
  }
}

static fl_status add_blocks(loading *run, fli_pool *pool, uint32_t n_blocks)
{
  while (run->in.status == FL_OK && pool->n_blocks < n_blocks) {
    grant(run);
    fli_room room = fli_pool_add_block(run->e, pool, 1);
    if (room != FLI_ROOM) return no_room(room == FLI_NO_MEMORY, 0);
  }
  return run->in.status;
}

/* Under another budget the pool has blocks of another size, and as many as it
 * needs. */
static fl_status read_pool(loading *run, fli_pool *pool)
{
  fli_in *in = &run->in;
  uint32_t n_made = fli_in_u32(in), n_blocks = fli_in_u32(in);
  uint32_t capacity = fli_in_u32(in);
  const uint32_t each = 1u << pool->shift;
  const uint32_t n_needed = n_made / each + (n_made % each > 0);
  pool->n_free = fli_in_u32(in);
  pool->free_first = fli_in_u32(in);
  /* At most one block is there that nothing is in. A pool that was larger has
   * the list of then. */
  const uint32_t most = 1u << (FLI_INDEX_BITS - pool->shift);
  if (run->is_other) n_blocks = n_needed, capacity = 0;
  if (n_made > 1u << FLI_INDEX_BITS || pool->n_free > n_made ||
      n_blocks < n_needed || n_blocks > n_made / each + 2 ||
      (capacity > LIST_MAX && capacity > most))
    fli_in_fail(in, FL_E_RANGE, "a pool");
  /* As long a list as there was, for it is in the budget. */
  if (in->status == FL_OK && capacity > 0) {
    grant(run);
    fli_room room = fli_pool_fit_list(run->e, pool, capacity, 1);
    if (room != FLI_ROOM) return no_room(room == FLI_NO_MEMORY, capacity);
  }
  while (in->status == FL_OK && pool->n_made < n_made) {
    fl_status st = add_blocks(run, pool, pool->n_made / each + 1);
    if (st != FL_OK) return st;
    read_row(in, pool, pool->n_made++);
  }
  return add_blocks(run, pool, n_blocks);
}

/* 0 when it is not there, or has an owner. */
static int claim(fli_pool *pool, uint32_t index)
{
  if (index >= pool->n_made) return 0;
  float *square = fli_pool_square(pool, index);
  if (!signbit(*square)) return 0;
  *square = -*square;
  return 1;
}

static fl_status claim_free(fli_pool *pool)
{
  uint32_t index = pool->free_first;
  for (uint32_t i = 0; i < pool->n_free; i++) {
    if (!claim(pool, index))
      return fli_error(FL_E_FORMAT, "embedding: saved one: free extents");
    uint8_t *row = fli_pool_row(pool, index);
    uint32_t next = fli_load_u32(row);
    memset(row, 0, pool->extent_bytes);
    *fli_pool_square(pool, index) = 0;
    fli_store_u32(row, next);
    index = next;
  }
  if (index != FLI_NONE)
    return fli_error(FL_E_FORMAT, "embedding: saved one: free extents");
  for (uint32_t i = 0; i < pool->n_made; i++) {
    if (signbit(*fli_pool_square(pool, i)))
      return fli_error(FL_E_FORMAT, "embedding: saved one: a row is nobody's");
  }
  return FL_OK;
}

/* ---- segments ------------------------------------------------------------ */

static int is_row_finite(const fli_table *table, const fli_pool *pool,
                         uint32_t index)
{
  return fli_row_is_finite(table, fli_pool_row(pool, index),
                           pool->extent_bytes);
}

/* A segment as it was saved, and where its entries go. */
typedef struct segment_reading {
  fli_segment *segment;
  uint64_t prefix; /* of its hashes */
  uint32_t n_buckets;
  int is_smaller; /* the one that is made */
} segment_reading;

static fli_entry *place_of(const fl_embedding *e, const segment_reading *from,
                           uint32_t at, uint64_t hash)
{
  if (from->is_smaller) return fli_segment_place(e, from->segment, hash);
  fli_entry *entry = &from->segment->entries[at];
  return fli_entry_where(entry) == 0 ? entry : NULL;
}

static void read_entry(loading *run, fli_table *table,
                       const segment_reading *from)
{
  fli_in *in = &run->in;
  fli_segment *segment = from->segment;
  uint32_t at = fli_in_u32(in);
  uint64_t id = fli_in_u64(in), hash = fli_mix(run->e->mix, id);
  uint32_t where = fli_in_u32(in), bucket = at / FLI_BUCKET;
  uint8_t utility[FLI_CHUNKS_MAX];
  fli_entry *entry = NULL;
  fli_in_bytes(in, utility, sizeof utility);
  const uint32_t depth = segment->depth, n = from->n_buckets;
  if (in->status != FL_OK) return;
  if (bucket < n && where >> FLI_MASK_SHIFT != 0 && !(where & FLI_IS_CHANGED) &&
      where >> FLI_MASK_SHIFT >> table->chunks == 0 &&
      (hash ^ from->prefix) >> 1 >> (63 - depth) == 0 &&
      (bucket == fli_first_bucket(hash, n) ||
       bucket == fli_second_bucket(hash, n)) &&
      !fli_segment_find(segment, id, hash))
    entry = place_of(run->e, from, at, hash);
  if (!entry) {
    fli_in_fail(in, FL_E_FORMAT, "an id is not where it could be");
    return;
  }
  fli_pool *pool = table->pools[fli_where_count(where)];
  if (!claim(pool, where & FLI_INDEX_MASK)) {
    fli_in_fail(in, FL_E_FORMAT, "a row of two ids");
    return;
  }
  if (!is_row_finite(table, pool, where & FLI_INDEX_MASK)) {
    fli_in_fail(in, FL_E_NOT_FINITE, "a row");
    return;
  }
  atomic_store(&entry->id, id);
  atomic_store(&entry->where, where);
  memcpy(entry->utility, utility, sizeof utility);
  segment->n_used++;
  table->n_rows++;
  table->n_chunks += fli_where_count(where);
}

static fl_status read_segment(loading *run, fli_table *table, uint64_t prefix,
                              fli_segment **out)
{
  fli_in *in = &run->in;
  uint32_t depth = fli_in_u32(in), n_buckets = fli_in_u32(in);
  uint32_t n_used = fli_in_u32(in);
  if (depth > FLI_DEPTH_MAX || n_buckets == 0 || n_buckets > 1u << 24 ||
      n_used > n_buckets * FLI_BUCKET ||
      n_buckets > 4 * FLI_SEGMENT_BUCKETS_MAX)
    fli_in_fail(in, FL_E_RANGE, "a segment");
  if (in->status != FL_OK) return in->status;
  segment_reading from = {.prefix = prefix, .n_buckets = n_buckets};
  /* So empty after an adjust that the host had no memory for: it is made
   * smaller now, half full. */
  from.is_smaller = n_buckets > 16 + n_used;
  if (from.is_smaller) n_buckets = n_used / 2 + 2;
  grant(run);
  fl_status st = fli_segment_new(run->e, n_buckets, depth, out);
  if (st != FL_OK) return st;
  from.segment = *out;
  for (uint32_t i = 0; i < n_used && in->status == FL_OK; i++)
    read_entry(run, table, &from);
  return in->status;
}

/* Segments cover all hashes in order; what is read is listed beside, until a
 * directory can be made that is not larger than they warrant. */
static fl_status read_segments(loading *run, fli_table *table)
{
  fl_embedding *e = run->e;
  fli_in *in = &run->in;
  void *list = NULL;
  size_t capacity = 0, n = 0;
  uint64_t prefix = 0, depth_most = 0;
  uint32_t n_segments = fli_in_u32(in);
  fl_status st = in->status;
  for (; st == FL_OK && n < n_segments; n++) {
    st = fli_grow(e->context, &list, &capacity, n + 1, sizeof(fli_segment *));
    if (st != FL_OK) break;
    fli_segment **segment = (fli_segment **)list + n;
    *segment = NULL;
    st = read_segment(run, table, prefix, segment);
    if (!*segment) break;
    uint64_t depth = (*segment)->depth;
    uint64_t step = depth ? (uint64_t)1 << (64 - depth) : 0;
    int is_last = n + 1 == n_segments;
    if (st == FL_OK &&
        ((prefix & (step - 1)) != 0 || (prefix + step == 0) != is_last))
      st = fli_error(FL_E_FORMAT, "embedding: saved one: order of segments");
    prefix += step;
    depth_most = depth > depth_most ? depth : depth_most;
  }
  if (st == FL_OK && (n == 0 || (uint64_t)1 << depth_most > 64 + 16 * n))
    st = fli_error(FL_E_FORMAT, "embedding: saved one: depth of segments");
  grant(run);
  if (st == FL_OK) st = fli_hash_set(e, table, list, (uint32_t)n);
  for (size_t i = 0; i < n && st != FL_OK; i++)
    fli_segment_free(e, ((fli_segment **)list)[i]);
  fli_free(e->context, list, capacity * sizeof(fli_segment *));
  return st;
}

/* ---- public -------------------------------------------------------------- */

static fl_status read_all(loading *run, uint32_t n_tables)
{
  fl_embedding *e = run->e;
  fl_status st = FL_OK;
  for (uint32_t t = 0; t < n_tables && st == FL_OK; t++)
    st = read_table(run);
  for (uint32_t p = 0; p < e->n_pools && st == FL_OK; p++)
    st = read_pool(run, e->pools[p]);
  for (uint32_t t = 0; t < n_tables && st == FL_OK; t++)
    st = read_segments(run, e->tables[t]);
  for (uint32_t p = 0; p < e->n_pools && st == FL_OK; p++)
    st = claim_free(e->pools[p]);
  if (st == FL_OK) st = fli_in_end(&run->in, &e->version);
  return st;
}

fl_status fl_embedding_load(fl_embedding **out, fl_context *context,
                            const fl_reader *reader, uint64_t byte_budget)
{
  loading run = {.given = byte_budget};
  uint32_t n_tables = 0;
  fli_clear_error();
  if (!out || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  fl_status st = fli_crypto_init();
  if (st != FL_OK) return st;
  fli_in_begin(&run.in, reader, FLI_SAVED_WHOLE);
  st = read_options(&run, context, &n_tables);
  if (st == FL_OK) st = read_all(&run, n_tables);
  if (st == FL_E_LIMIT && run.e && run.e->budget < run.budget)
    st =
        fli_error(FL_E_LIMIT, "embedding: saved one: asks for more memory than "
                              "its bytes justify, want a byte_budget");
  if (st != FL_OK) {
    fl_embedding_free(run.e);
    return st;
  }
  run.e->budget = run.budget;
  *out = run.e;
  return FL_OK;
}
