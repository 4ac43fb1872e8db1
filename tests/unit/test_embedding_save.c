/* SPDX-License-Identifier: Apache-2.0 */
/* Saving, loading and deltas. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { BATCH = 1024, BAGS = 128, DIM = 16, KIB = 1024 };

typedef struct batch {
  uint64_t ids[BATCH];
  float out[BAGS * DIM];
  float gradient[BAGS * DIM];
} batch;

static batch b;

static uint32_t precision_of_second = FL_EMBEDDING_F32;

static fl_embedding *with_tombstones(uint64_t budget, uint64_t n)
{
  fl_embedding *e = NULL;
  uint32_t t;
  fl_embedding_options options;
  fl_embedding_table_options table;
  (void)fl_embedding_options_init(&options, sizeof options);
  options.byte_budget = budget;
  options.secret = embedding_secret;
  options.seed = 5;
  options.tombstones = n;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_OK);
  (void)fl_embedding_table_options_init(&table, sizeof table);
  table.dim = DIM;
  table.prune_from = 0;
  table.keep_for = 1;
  cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_OK);
  table.chunks = 2;
  table.precision = precision_of_second;
  table.admit_after = 2;
  cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_OK);
  return e;
}

static fl_embedding *two_tables(uint64_t budget)
{
  return with_tombstones(budget, budget ? 2000 : 0);
}

/* The same for the same step, whatever the handle. */
static void train(fl_embedding *e, int step)
{
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, (uint64_t)step, 0);
  for (uint32_t t = 0; t < e->n_tables; t++) {
    for (size_t i = 0; i < BATCH; i++)
      b.ids[i] = (uint64_t)pow(20000.0, fli_rng_f64(&rng)) * 77;
    for (size_t i = 0; i < BAGS * DIM; i++)
      b.gradient[i] = fli_rng_f32(&rng) - 0.5f;
    fl_embedding_bags bags = bags_of(b.ids, BATCH, NULL, BAGS);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, b.out), FL_OK);
    cr_assert_eq(fl_embedding_backward(e, t, &bags, b.gradient, 0.05f), FL_OK);
  }
  if (step % 8 == 0) cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
}

static fl_buffer *save(fl_embedding *e)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_embedding_save(e, &writer), FL_OK, "%s", fl_last_error());
  return buffer;
}

static fl_status try_load(fl_embedding **out, const void *data, size_t n,
                          uint64_t budget)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  *out = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, data, n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  fl_status st = fl_embedding_load(out, NULL, &reader, budget);
  fl_buffer_free(buffer);
  return st;
}

static fl_embedding *load(fl_buffer *buffer)
{
  const uint8_t *data;
  size_t n;
  fl_embedding *e;
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_assert_eq(try_load(&e, data, n, 0), FL_OK, "%s", fl_last_error());
  return e;
}

static void assert_same_bytes(fl_buffer *one, fl_buffer *other)
{
  const uint8_t *data[2];
  size_t n[2];
  (void)fl_buffer_get(one, &data[0], &n[0]);
  (void)fl_buffer_get(other, &data[1], &n[1]);
  cr_assert_eq(n[0], n[1]);
  cr_assert_eq(memcmp(data[0], data[1], n[0]), 0);
}

static void loaded_goes_on(uint64_t budget)
{
  fl_embedding *e = two_tables(budget);
  for (int step = 1; step <= 45; step++)
    train(e, step);
  fl_buffer *saved = save(e);
  fl_embedding *other = load(saved);
  cr_assert_eq(other->bytes_used, e->bytes_used);
  cr_assert_eq(fl_embedding_version(other), fl_embedding_version(e));
  cr_assert_neq(fl_embedding_version(e), 0);
  const char *problem = embedding_problem(other);
  cr_assert_null(problem, "%s", problem);
  for (int step = 46; step <= 80; step++) {
    train(e, step);
    float out[BAGS * DIM];
    memcpy(out, b.out, sizeof out);
    train(other, step);
    cr_assert_eq(memcmp(out, b.out, sizeof out), 0, "step %d", step);
  }
  fl_buffer *one = save(e), *two = save(other);
  assert_same_bytes(one, two);
  fl_buffer_free(one), fl_buffer_free(two), fl_buffer_free(saved);
  fl_embedding_free(e), fl_embedding_free(other);
}

Test(embedding_save, loaded_trains_on_as_without_a_break)
{
  loaded_goes_on(0);
  loaded_goes_on(256 * KIB);
  precision_of_second = FL_EMBEDDING_BF16;
  loaded_goes_on(256 * KIB);
  precision_of_second = FL_EMBEDDING_I8;
  loaded_goes_on(256 * KIB);
}

Test(embedding_save, takes_no_memory_beside_the_tables)
{
  uint64_t before, peak;
  fl_context *context = NULL;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fl_embedding *e = embedding_of(context, 1, 256 * KIB);
  (void)table_of(e, DIM, 4);
  for (int step = 1; step <= 5; step++)
    train(e, step);
  fl_writer writer;
  fl_buffer *buffer = NULL; /* of another context */
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  (void)fl_context_get_memory(context, NULL, &before);
  cr_assert_eq(fl_embedding_save(e, &writer), FL_OK);
  (void)fl_context_get_memory(context, NULL, &peak);
  cr_assert_eq(before, peak);
  fl_buffer_free(buffer);
  fl_embedding_free(e);
  fl_context_free(context);
}

/* ---- damage -------------------------------------------------------------- */

static fl_buffer *small_save(void)
{
  fl_embedding *e = embedding_of(NULL, 1, 32 * KIB);
  (void)table_of(e, DIM, 4);
  for (int step = 7; step <= 8; step++)
    train(e, step);
  fl_buffer *buffer = save(e);
  fl_embedding_free(e);
  return buffer;
}

Test(embedding_save, damaged_and_truncated_ones_are_refused)
{
  const uint8_t *data;
  size_t n;
  fl_embedding *e;
  fl_buffer *buffer = small_save();
  (void)fl_buffer_get(buffer, &data, &n);
  uint8_t *bytes = malloc(n + 1);
  cr_assert_not_null(bytes);
  for (size_t i = 0; i < n; i += 1 + i / 64) {
    cr_assert_neq(try_load(&e, data, i, 0), FL_OK, "of %zu bytes", i);
    cr_assert_null(e);
    memcpy(bytes, data, n);
    bytes[i] ^= 0x41;
    /* A bit of the budget may ask for more than there is. */
    cr_assert_neq(try_load(&e, bytes, n, 32 * KIB), FL_OK, "byte %zu", i);
    cr_assert_null(e);
  }
  memcpy(bytes, data, n);
  bytes[n] = 0;
  cr_assert_eq(try_load(&e, bytes, n + 1, 0), FL_E_FORMAT);
  cr_assert_eq(try_load(&e, data, n, 16 * KIB), FL_E_LIMIT);
  cr_assert_eq(try_load(&e, data, n, 32 * KIB), FL_OK);
  fl_embedding_free(e);
  bytes[0] = 'X';
  cr_assert_eq(try_load(&e, bytes, n, 0), FL_E_FORMAT);
  bytes[0] = 'F', bytes[8] = 2;
  cr_assert_eq(try_load(&e, bytes, n, 0), FL_E_VERSION);
  free(bytes);
  fl_buffer_free(buffer);
}

typedef struct full_disk {
  size_t left;
} full_disk;

static fl_status write_some(void *user, const void *data, size_t n)
{
  full_disk *disk = user;
  (void)data;
  if (n > disk->left) return FL_E_IO;
  disk->left -= n;
  return FL_OK;
}

Test(embedding_save, a_full_disk_leaves_the_version_as_it_was)
{
  fl_embedding *e = two_tables(256 * KIB);
  full_disk disk = {.left = 10000};
  fl_writer writer = {write_some, &disk};
  train(e, 1);
  cr_assert_eq(fl_embedding_save(e, &writer), FL_E_IO);
  cr_assert_eq(fl_embedding_version(e), 0);
  fl_buffer *whole = save(e), *buffer = NULL;
  fl_embedding *other = load(whole);
  uint64_t version = fl_embedding_version(e);
  train(e, 2);
  disk.left = 5000;
  cr_assert_eq(fl_embedding_save_delta(e, version, &writer), FL_E_IO);
  cr_assert_eq(fl_embedding_version(e), version);
  /* Nothing is forgotten: the next delta has it all. */
  fl_reader reader;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_embedding_save_delta(e, version, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_embedding_apply_delta(other, &reader), FL_OK);
  cr_assert_eq(fl_embedding_version(other), fl_embedding_version(e));
  fl_buffer_free(buffer), fl_buffer_free(whole);
  fl_embedding_free(e), fl_embedding_free(other);
}

/* ---- deltas -------------------------------------------------------------- */

static fl_buffer *delta_of(fl_embedding *e)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_embedding_save_delta(e, fl_embedding_version(e), &writer),
               FL_OK, "%s", fl_last_error());
  return buffer;
}

static fl_status apply(fl_embedding *e, const uint8_t *data, size_t n)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, data, n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  fl_status st = fl_embedding_apply_delta(e, &reader);
  fl_buffer_free(buffer);
  return st;
}

/* Rows, accumulators, utilities, ages. */
static void assert_same_rows(const fl_embedding *one, const fl_embedding *other)
{
  for (uint32_t t = 0; t < one->n_tables; t++) {
    uint64_t at = 0;
    const fli_table *table = one->tables[t], *its = other->tables[t];
    const fli_segment *segment;
    cr_assert_eq(table->n_rows, its->n_rows);
    cr_assert_eq(table->scale, its->scale);
    while ((segment = fli_segments_next(table, &at)) != NULL) {
      for (size_t i = 0; i < (size_t)segment->n_buckets * 4; i++) {
        const fli_entry *entry = &segment->entries[i];
        uint32_t where = fli_entry_where(entry);
        uint64_t id = fli_entry_id(entry);
        if (where == 0) continue;
        const fli_entry *its_entry =
            fli_hash_find(its, id, fli_mix(other->mix, id));
        cr_assert_not_null(its_entry);
        uint32_t its_where = fli_entry_where(its_entry);
        cr_assert_eq((where ^ its_where) & ~(FLI_INDEX_MASK | FLI_IS_CHANGED),
                     0);
        cr_assert_eq(memcmp(entry->utility, its_entry->utility, 4), 0);
        const fli_pool *pool = table->pools[fli_where_count(where)];
        const fli_pool *its_pool = its->pools[fli_where_count(where)];
        where &= FLI_INDEX_MASK, its_where &= FLI_INDEX_MASK;
        cr_assert_eq(memcmp(fli_pool_row(pool, where),
                            fli_pool_row(its_pool, its_where),
                            pool->extent_bytes),
                     0);
        cr_assert_eq(*fli_pool_square(pool, where),
                     *fli_pool_square(its_pool, its_where));
      }
    }
  }
}

Test(embedding_save, a_chain_of_deltas_leads_where_the_sender_is)
{
  fl_embedding *e = two_tables(256 * KIB);
  for (int step = 1; step <= 20; step++)
    train(e, step);
  fl_buffer *whole = save(e);
  fl_embedding *other = load(whole);
  uint64_t lost = 0;
  for (int step = 21; step <= 60; step++) {
    train(e, step);
    if (step % 5 != 0) continue;
    const uint8_t *data;
    size_t n;
    lost += e->n_tombstones;
    fl_buffer *delta = delta_of(e);
    (void)fl_buffer_get(delta, &data, &n);
    cr_assert_eq(apply(other, data, n), FL_OK, "%s", fl_last_error());
    cr_assert_eq(fl_embedding_version(e), fl_embedding_version(other));
    assert_same_rows(e, other);
    const char *problem = embedding_problem(other);
    cr_assert_null(problem, "%s", problem);
    /* Not twice. */
    cr_assert_eq(apply(other, data, n), FL_E_STALE);
    fl_buffer_free(delta);
  }
  cr_assert_gt(lost, 0);
  fl_buffer_free(whole);
  fl_embedding_free(e), fl_embedding_free(other);
}

Test(embedding_save, deltas_that_are_damaged_or_of_others_change_nothing)
{
  const uint8_t *data;
  size_t n;
  fl_embedding *e = two_tables(64 * KIB);
  train(e, 1);
  fl_buffer *whole = save(e);
  fl_embedding *other = load(whole);
  train(e, 2);
  fl_buffer *delta = delta_of(e);
  (void)fl_buffer_get(delta, &data, &n);
  fl_buffer *before = save(other);
  fl_embedding *second = load(whole);
  uint8_t *bytes = malloc(n);
  cr_assert_not_null(bytes);
  for (size_t i = 0; i < n; i += 1 + i / 32) {
    cr_assert_neq(apply(second, data, i), FL_OK);
    memcpy(bytes, data, n);
    bytes[i] ^= 0x22;
    cr_assert_neq(apply(second, bytes, n), FL_OK, "byte %zu", i);
  }
  fl_buffer *after = save(second);
  assert_same_bytes(before, after);
  fl_embedding *stranger = two_tables(64 * KIB);
  cr_assert_eq(apply(stranger, data, n), FL_E_STALE);
  train(stranger, 1);
  fl_buffer *its = save(stranger);
  /* The same rows: the same version. */
  cr_assert_eq(apply(stranger, data, n), FL_OK);
  free(bytes);
  fl_buffer_free(its), fl_buffer_free(after), fl_buffer_free(before);
  fl_buffer_free(delta), fl_buffer_free(whole);
  fl_embedding_free(e), fl_embedding_free(other), fl_embedding_free(second);
  fl_embedding_free(stranger);
}

Test(embedding_save, without_all_evicted_ids_there_is_no_delta)
{
  fl_embedding *e = with_tombstones(96 * KIB, 10);
  fl_writer writer;
  fl_buffer *whole = save(e), *buffer = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_embedding_save_delta(e, 1, &writer), FL_E_STALE);
  for (int step = 1; e->n_tombstones <= 10 && step < 1000; step++)
    train(e, step);
  cr_assert_eq(fl_embedding_save_delta(e, fl_embedding_version(e), &writer),
               FL_E_STATE);
  fl_buffer_free(whole), fl_buffer_free(buffer);
  fl_embedding_free(e);
}

/* ---- rows and statistics ------------------------------------------------- */

static int compare_ids(const void *a, const void *c)
{
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)c;
  return (x > y) - (x < y);
}

Test(embedding_save, rows_can_be_read_one_by_one)
{
  fl_embedding *e = two_tables(96 * KIB);
  for (int step = 1; step <= 40; step++)
    train(e, step);
  uint64_t n = 0, again;
  cr_assert_eq(fl_embedding_copy_ids(e, 0, NULL, 0, &n), FL_OK);
  cr_assert_eq(n, fl_embedding_row_count(e, 0));
  cr_assert_gt(n, 100);
  uint64_t *ids = malloc(n * sizeof *ids);
  cr_assert_not_null(ids);
  cr_assert_eq(fl_embedding_copy_ids(e, 0, ids, n - 1, &again), FL_E_SIZE);
  cr_assert_eq(again, n);
  cr_assert_eq(fl_embedding_copy_ids(e, 0, ids, n, &again), FL_OK);
  qsort(ids, n, sizeof *ids, compare_ids);
  for (uint64_t i = 0; i < n; i++) {
    float values[DIM], out[DIM];
    uint32_t mask;
    if (i > 0) cr_assert_lt(ids[i - 1], ids[i]);
    cr_assert_eq(fl_embedding_copy_row(e, 0, ids[i], values, &mask), FL_OK);
    fl_embedding_bags bags = bags_of(&ids[i], 1, NULL, 1);
    cr_assert_eq(fl_embedding_lookup(e, 0, &bags, out), FL_OK);
    for (uint32_t j = 0; j < DIM; j++) {
      cr_assert_eq(values[j], out[j]);
      if (!(mask >> j / 4 & 1)) cr_assert_eq(values[j], 0);
    }
  }
  cr_assert_eq(fl_embedding_copy_row(e, 0, 1, NULL, NULL), FL_E_NOT_FOUND);
  cr_assert_eq(fl_embedding_copy_row(e, 2, 1, NULL, NULL), FL_E_NOT_FOUND);
  cr_assert_eq(fl_embedding_copy_ids(e, 2, NULL, 0, &n), FL_E_NOT_FOUND);
  cr_assert_eq(fl_embedding_row_count(e, 2), 0);
  cr_assert_eq(fl_embedding_row_count(NULL, 0), 0);
  free(ids);
  fl_embedding_free(e);
}

Test(embedding_save, statistics_account_for_every_byte)
{
  fl_embedding *e = two_tables(128 * KIB);
  fl_embedding_statistics all, one[2];
  for (int step = 1; step <= 40; step++)
    train(e, step);
  (void)fl_embedding_statistics_init(&all, sizeof all);
  one[0] = one[1] = all;
  cr_assert_eq(fl_embedding_get_statistics(e, FL_AUTO, &all), FL_OK);
  for (uint32_t t = 0; t < 2; t++)
    cr_assert_eq(fl_embedding_get_statistics(e, t, &one[t]), FL_OK);
  cr_assert_eq(fl_embedding_get_statistics(e, 2, &all), FL_E_NOT_FOUND);
  cr_assert_eq(all.bytes_values + all.bytes_squares + all.bytes_entries +
                   all.bytes_sketch + all.bytes_free + all.bytes_fixed,
               all.bytes_used);
  cr_assert_leq(all.bytes_fixed, 64 * KIB); /* nothing below 0, either */
  cr_assert_leq(all.bytes_used, all.byte_budget);
  cr_assert_eq(all.rows, one[0].rows + one[1].rows);
  cr_assert_eq(all.chunks, one[0].chunks + one[1].chunks);
  uint64_t rows = 0, chunks = 0;
  for (uint64_t k = 0; k < 4; k++) {
    rows += all.rows_by_chunks[k];
    chunks += all.rows_by_chunks[k] * (k + 1);
  }
  cr_assert_eq(rows, all.rows);
  cr_assert_eq(chunks, all.chunks);
  cr_assert_eq(all.steps, 80);
  cr_assert_eq(all.adjusts, 5);
  cr_assert_eq(all.ids_asked, 80 * BATCH);
  cr_assert(all.ids_hit > all.ids_asked / 4 && all.ids_hit < all.ids_asked);
  cr_assert_gt(all.evicted, 0);
  fl_embedding_free(e);
}
