/* SPDX-License-Identifier: Apache-2.0 */
/* "Fine-grained embedding dimension optimization during training for
 * recommender systems" (FIITED: Luo et al., 2024, arXiv 2401.04408): handle,
 * tables and what hosts may choose. */
#include "embedding/embedding.h"

#include <float.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "crypto/crypto.h"
#include "embedding/saved.h"
#include "embedding/utility.h"

enum {
  BLOCK_STEP = 256,
  BLOCK_MIN = 1024,
  BLOCK_MAX = 1 << 20,
  BLOCKS_IN_BUDGET = 512,
  SEGMENT_BUCKETS_MIN = 64,  /* its header is 64 bytes */
  SKETCH_IN_BUDGET = 50,     /* default */
  CANDIDATES_IN_BUDGET = 128 /* and of it their bytes */
};

static const fl_embedding_options options_defaults = {
    .struct_size = sizeof(fl_embedding_options),
    .optimiser = FL_EMBEDDING_ROW_ADAGRAD,
    .epsilon = 1e-8f,
    .decay = 0.98f,
    .hysteresis = 1.3f,
    .sample_every = 16,
};

static const fl_embedding_table_options table_defaults = {
    .struct_size = sizeof(fl_embedding_table_options),
    .precision = FL_EMBEDDING_F32,
    .sketch_counters = FL_AUTO,
    .prune_from = 65536,
    .share = 1.0f,
    .init_scale = 0.01f,
    .admit_after = 1,
};

fl_status fl_embedding_options_init(fl_embedding_options *options, size_t size)
{
  return fli_options_init(options, size, &options_defaults,
                          sizeof options_defaults);
}

fl_status fl_embedding_table_options_init(fl_embedding_table_options *options,
                                          size_t size)
{
  return fli_options_init(options, size, &table_defaults,
                          sizeof table_defaults);
}

/* ---- handle -------------------------------------------------------------- */

static int is_within(float x, float least, float most)
{
  return x >= least && x <= most; /* not NaN */
}

static fl_status check_options(const fl_embedding_options *options)
{
  if (options->optimiser != FL_EMBEDDING_SGD &&
      options->optimiser != FL_EMBEDDING_ROW_ADAGRAD) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: optimiser, got %u, want %d or "
                     "%d",
                     (unsigned)options->optimiser, FL_EMBEDDING_SGD,
                     FL_EMBEDDING_ROW_ADAGRAD);
  }
  if (!is_within(options->epsilon, 0, FLT_MAX) ||
      !is_within(options->initial_square, 0, FLT_MAX) ||
      (options->epsilon == 0 && options->initial_square == 0)) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: epsilon %g, initial_square %g, "
                     "want >= 0 and not both 0",
                     (double)options->epsilon, (double)options->initial_square);
  }
  if (!is_within(options->decay, 0.01f, 1) ||
      !is_within(options->hysteresis, 1, 1e6f)) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: decay %g, hysteresis %g, want "
                     ".01..1, 1..1e6",
                     (double)options->decay, (double)options->hysteresis);
  }
  if (options->sample_every == 0 || options->is_global > 1) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: sample_every %u, is_global %u, "
                     "want >= 1, 0 or 1",
                     (unsigned)options->sample_every,
                     (unsigned)options->is_global);
  }
  return FL_OK;
}

static size_t block_bytes_of(uint64_t budget)
{
  if (budget / BLOCKS_IN_BUDGET >= BLOCK_MAX) return BLOCK_MAX;
  size_t bytes = (size_t)(budget / BLOCKS_IN_BUDGET) / BLOCK_STEP * BLOCK_STEP;
  return bytes < BLOCK_MIN ? BLOCK_MIN : bytes;
}

/* Rows that change their number of chunks need, in the worst case, one block
 * of every size before compaction finds one to give back, and segments are
 * written anew beside what they were. */
static void set_reserve(fl_embedding *embedding)
{
  const size_t bucket = FLI_BUCKET * sizeof(fli_entry);
  size_t buckets = embedding->block_bytes / bucket;
  if (buckets > FLI_SEGMENT_BUCKETS_MAX) buckets = FLI_SEGMENT_BUCKETS_MAX;
  if (buckets < SEGMENT_BUCKETS_MIN) buckets = SEGMENT_BUCKETS_MIN;
  embedding->segment_buckets = (uint32_t)buckets;
  if (embedding->budget == UINT64_MAX) return;
  embedding->reserve = (FLI_CHUNKS_MAX + 1) * embedding->block_bytes +
                       sizeof(fli_segment) + buckets * bucket;
}

/* Handle and readers are of the budget, too. */
static fl_status take_handle(fl_embedding **out, fl_context *context,
                             uint64_t budget)
{
  int no_memory;
  const size_t bytes = sizeof(fl_embedding) + sizeof(fli_readers);
  if (budget < bytes) {
    return fli_error(FL_E_LIMIT,
                     "embedding: byte_budget, got %llu, want at "
                     "least %zu",
                     (unsigned long long)budget, bytes);
  }
  fl_embedding *embedding = fli_alloc(context, 1, sizeof *embedding);
  if (!embedding) return fli_nomem(sizeof *embedding);
  embedding->context = context;
  embedding->budget = budget;
  embedding->bytes_used = sizeof *embedding;
  embedding->readers =
      fli_embedding_take(embedding, sizeof *embedding->readers, 0, &no_memory);
  if (!embedding->readers) {
    fli_free(context, embedding, sizeof *embedding);
    return fli_nomem(sizeof *embedding->readers);
  }
  *out = embedding;
  return FL_OK;
}

fl_status fl_embedding_new(fl_embedding **out, fl_context *context,
                           const fl_embedding_options *given)
{
  fl_embedding_options options = options_defaults;
  uint8_t secret[16];
  fl_embedding *embedding = NULL;
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "embedding: out, got NULL");
  fl_status st =
      fli_options_load(&options, sizeof options, given, "embedding options");
  if (st == FL_OK) st = check_options(&options);
  if (st == FL_OK && !options.secret) {
    st = fli_crypto_init();
    if (st == FL_OK) st = fli_random_bytes(context, secret, sizeof secret);
  }
  if (st != FL_OK) return st;
  if (options.secret) memcpy(secret, options.secret, sizeof secret);
  st = take_handle(&embedding, context,
                   options.byte_budget ? options.byte_budget : UINT64_MAX);
  if (st != FL_OK) return st;
  (void)fli_context_ref(context);
  options.secret = NULL;
  embedding->options = options;
  memcpy(embedding->secret, secret, sizeof secret);
  embedding->mix[0] = fli_load_u64(secret);
  embedding->mix[1] = fli_load_u64(secret + 8);
  embedding->block_bytes = block_bytes_of(embedding->budget);
  set_reserve(embedding);
  embedding->layout = 1; /* 0 is that of an empty batch */
  st = fli_tombstones_new(embedding, options.tombstones);
  if (st != FL_OK) {
    fl_embedding_free(embedding);
    return st;
  }
  *out = embedding;
  return FL_OK;
}

/* Pools that no table has come to need. */
static void drop_pools(fl_embedding *embedding, uint32_t n_kept)
{
  while (embedding->n_pools > n_kept)
    fli_pool_free(embedding, embedding->pools[--embedding->n_pools]);
}

static void free_table(fl_embedding *embedding, fli_table *table)
{
  fli_batch_free(embedding, table);
  fli_sketch_free(embedding, table);
  fli_hash_free(embedding, table);
  fli_embedding_give(embedding, table, sizeof *table);
}

void fl_embedding_free(fl_embedding *embedding)
{
  if (!embedding) return;
  fl_context *context = embedding->context;
  fli_embedding_detach_all(embedding);
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    free_table(embedding, embedding->tables[i]);
  for (uint32_t i = 0; i < embedding->n_pools; i++)
    fli_pool_free(embedding, embedding->pools[i]);
  fli_tombstones_free(embedding);
  fli_embedding_give(embedding, embedding->readers, sizeof *embedding->readers);
  fli_wipe(embedding, sizeof *embedding);
  fli_free(context, embedding, sizeof *embedding);
  fli_context_unref(context);
}

/* ---- tables -------------------------------------------------------------- */

static fl_status check_shape(fl_embedding_table_options *options)
{
  if (options->chunks == 0)
    options->chunks = options->dim % 16 == 0  ? 4
                      : options->dim % 8 == 0 ? 2
                                              : 1;
  if (options->chunks > FLI_CHUNKS_MAX || options->chunks == 3) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: chunks, got %u, want 1, 2, 4 or "
                     "0",
                     (unsigned)options->chunks);
  }
  if (options->dim == 0 || options->dim > FLI_DIM_MAX ||
      options->dim % (4 * options->chunks) != 0) {
    return fli_error(FL_E_DIM,
                     "embedding: dim, got %u, want a multiple of %u "
                     "<= %d",
                     (unsigned)options->dim, (unsigned)(4 * options->chunks),
                     FLI_DIM_MAX);
  }
  return FL_OK;
}

static fl_status check_table(fl_embedding_table_options *options)
{
  fl_status st = check_shape(options);
  if (st != FL_OK) return st;
  if (options->precision < FL_EMBEDDING_F32 ||
      options->precision > FL_EMBEDDING_I8) {
    return fli_error(FL_E_OPTIONS, "embedding: precision, got %u, want %d..%d",
                     (unsigned)options->precision, FL_EMBEDDING_F32,
                     FL_EMBEDDING_I8);
  }
  if (!is_within(options->share, 1e-6f, 1e6f) ||
      !is_within(options->init_scale, 0, 1e6f)) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: share %g, init_scale %g, want "
                     "1e-6..1e6, 0..1e6",
                     (double)options->share, (double)options->init_scale);
  }
  if (options->keep_for > 3 || options->admit_after > 255) {
    return fli_error(FL_E_OPTIONS,
                     "embedding: keep_for %u, admit_after %u, want 0..3, "
                     "0..255",
                     (unsigned)options->keep_for,
                     (unsigned)options->admit_after);
  }
  return FL_OK;
}

static void set_shape(fli_table *table,
                      const fl_embedding_table_options *options)
{
  table->dim = options->dim;
  table->chunks = options->chunks;
  table->chunk_floats = options->dim / options->chunks;
  table->precision = options->precision;
  table->chunk_bytes = fli_chunk_bytes(table->precision, table->chunk_floats);
  table->admit_after = options->admit_after;
  table->keep_for = options->keep_for;
  table->share = options->share;
  table->init_scale = options->init_scale;
  table->prune_from = options->prune_from;
  table->scale = 1.0f;
  table->quota = UINT64_MAX;
  /* log2((chunk + row) / chunk) in levels */
  uint32_t ratio = fli_f32_bits((float)(table->chunk_bytes + FLI_ROW_BYTES) /
                                (float)table->chunk_bytes);
  table->charge =
      (uint8_t)((ratio + (1u << (FLI_LEVEL_BITS - 1))) >> FLI_LEVEL_BITS) -
      (uint8_t)(fli_f32_bits(1.0f) >> FLI_LEVEL_BITS);
}

/* By default in proportion to the budget that a table may take when all have
 * the same share. */
fl_status fli_table_add_sketch(fl_embedding *embedding, fli_table *table,
                               uint64_t counters)
{
  const uint64_t budget = embedding->budget / embedding->n_tables;
  uint64_t candidates = budget / CANDIDATES_IN_BUDGET / sizeof(fli_candidate);
  if (embedding->budget == UINT64_MAX) return FL_OK;
  if (counters == FL_AUTO) {
    counters = budget / SKETCH_IN_BUDGET;
    if (counters > FLI_COUNTERS_MAX) counters = FLI_COUNTERS_MAX;
    if (counters > SIZE_MAX) counters = SIZE_MAX;
  }
  if (counters > FLI_COUNTERS_MAX || counters > SIZE_MAX)
    return fli_error(FL_E_OPTIONS, "embedding: sketch_counters, want < 2^33");
  if (candidates > (uint64_t)FLI_BUCKET * FLI_CANDIDATE_BUCKETS_MAX)
    candidates = (uint64_t)FLI_BUCKET * FLI_CANDIDATE_BUCKETS_MAX;
  return fli_sketch_new(embedding, table, (size_t)counters, (size_t)candidates);
}

fl_status fli_table_add(fl_embedding *embedding,
                        const fl_embedding_table_options *given,
                        fli_table **out)
{
  int no_memory;
  const uint32_t n_pools = embedding->n_pools;
  fl_embedding_table_options options = *given;
  fl_status st = check_table(&options);
  if (st != FL_OK) return st;
  if (embedding->n_tables == FL_EMBEDDING_MAX_TABLES) {
    return fli_error(FL_E_LIMIT, "embedding: it has %d tables",
                     FL_EMBEDDING_MAX_TABLES);
  }
  fli_table *table =
      fli_embedding_take(embedding, sizeof *table, 0, &no_memory);
  if (!table && no_memory) return fli_nomem(sizeof *table);
  if (!table)
    return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
  table->index = embedding->n_tables;
  set_shape(table, &options);
  st = fli_hash_new(embedding, table);
  for (uint32_t k = 1; k <= table->chunks && st == FL_OK; k++) {
    st = fli_pool_get(embedding, k * table->chunk_bytes,
                      table->precision == FL_EMBEDDING_F32, &table->pools[k]);
  }
  if (st != FL_OK) {
    drop_pools(embedding, n_pools);
    free_table(embedding, table);
    return st;
  }
  embedding->tables[embedding->n_tables++] = table;
  *out = table;
  return FL_OK;
}

static uint64_t row_bytes(const fli_table *table)
{
  return (uint64_t)table->chunks * table->chunk_bytes + FLI_ROW_BYTES;
}

/* Whether there will ever be a row: the first one takes a block; after an
 * adjust a table that is not small has its share. */
static fl_status check_room(const fl_embedding *embedding,
                            const fli_table *added)
{
  const fli_pool *pool = added->pools[added->chunks];
  uint64_t least = added->segment_bytes + pool->block_bytes;
  double shares = 0;
  if (embedding->budget == UINT64_MAX) return FL_OK;
  if (pool->blocks_capacity == 0) least += FLI_BLOCKS_FIRST * sizeof(fli_block);
  const uint64_t capacity = fli_capacity(embedding);
  if (capacity < least) {
    return fli_error(FL_E_LIMIT,
                     "embedding: the budget is too small for a row: there are "
                     "%" PRIu64 " bytes, want %" PRIu64,
                     capacity, least);
  }
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    shares += (double)embedding->tables[i]->share;
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    const fli_table *table = embedding->tables[i];
    if (table->prune_from > 0 || embedding->options.is_global) continue;
    if ((double)capacity * (double)table->share / shares >=
        (double)row_bytes(table))
      continue;
    return fli_error(FL_E_LIMIT,
                     "embedding: table %u's share of the budget is too small "
                     "for a row of %" PRIu64 " bytes",
                     (unsigned)i, row_bytes(table));
  }
  return FL_OK;
}

fl_status fl_embedding_add_table(fl_embedding *embedding,
                                 const fl_embedding_table_options *given,
                                 uint32_t *out)
{
  fli_table *table;
  fl_embedding_table_options options = table_defaults;
  fli_clear_error();
  if (!embedding || !out)
    return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  const uint32_t n_pools = embedding->n_pools;
  fl_status st = fli_options_load(&options, sizeof options, given,
                                  "embedding table options");
  if (st == FL_OK) st = fli_table_add(embedding, &options, &table);
  if (st != FL_OK) return st;
  st = fli_table_add_sketch(embedding, table, options.sketch_counters);
  if (st == FL_OK) st = check_room(embedding, table);
  if (st != FL_OK) {
    embedding->n_tables--;
    drop_pools(embedding, n_pools);
    free_table(embedding, table);
    return st;
  }
  *out = table->index;
  return FL_OK;
}
