/* SPDX-License-Identifier: Apache-2.0 */
/* What loading takes and makes: no more memory than the bytes justify, other
 * budgets than the saved one, segments that had no memory to shrink. */
#include <criterion/criterion.h>

#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { N = 512, DIM = 16, KIB = 1024, MIB = 1024 * KIB };

static void train(fl_embedding *e, uint64_t first, float gradient)
{
  static uint64_t ids[N];
  static float values[N * DIM];
  for (size_t i = 0; i < N; i++)
    ids[i] = first + i;
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  cr_assert_eq(fl_embedding_forward(e, 0, &bags, values), FL_OK);
  for (size_t i = 0; i < N * DIM; i++)
    values[i] = gradient;
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, values, 0.01f), FL_OK);
}

static fl_status load(fl_embedding **out, fl_context *context, fl_buffer *saved,
                      uint64_t budget)
{
  fl_reader reader;
  *out = NULL;
  cr_assert_eq(fl_buffer_as_reader(saved, &reader), FL_OK);
  return fl_embedding_load(out, context, &reader, budget);
}

static void is_in_order(const fl_embedding *e)
{
  const char *problem = embedding_problem(e);
  cr_assert_null(problem, "%s", problem);
}

/* All rows but every 64th go, and segments stay as large as they were. */
static void empty(fl_embedding *e)
{
  uint64_t at = 0;
  uint32_t n = 0;
  fli_segment *segment;
  fli_table *table = e->tables[0];
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++) {
      uint32_t where = fli_entry_where(&segment->entries[i]);
      if (where == 0 || n++ % 64 == 0) continue;
      fli_hash_move(table, segment, &segment->entries[i], 0);
      fli_pool_give(table->pools[fli_where_count(where)],
                    where & FLI_INDEX_MASK);
      table->n_chunks -= fli_where_count(where);
    }
  }
  e->layout++;
}

Test(embedding_load, segments_that_could_not_shrink_come_back_smaller)
{
  fl_embedding *e = embedding_of(NULL, 1, 4 * MIB), *other;
  uint64_t ids[2][1000], n[2];
  (void)table_of(e, DIM, 4);
  for (uint64_t first = 1; first < 20 * N; first += N)
    train(e, first, 1.0f);
  empty(e);
  is_in_order(e);
  fl_buffer *saved = saved_as(e, 0);
  cr_assert_eq(load(&other, NULL, saved, 0), FL_OK, "%s", fl_last_error());
  is_in_order(other);
  cr_assert_lt(other->tables[0]->segment_bytes,
               e->tables[0]->segment_bytes / 4);
  cr_assert_eq(fl_embedding_copy_ids(e, 0, ids[0], 1000, &n[0]), FL_OK);
  cr_assert_eq(fl_embedding_copy_ids(other, 0, ids[1], 1000, &n[1]), FL_OK);
  cr_assert_gt(n[0], 100);
  cr_assert_eq(n[0], n[1]);
  for (uint64_t i = 0; i < n[0]; i++) {
    float row[2][DIM];
    cr_assert_eq(fl_embedding_copy_row(e, 0, ids[0][i], row[0], NULL), FL_OK);
    cr_assert_eq(fl_embedding_copy_row(other, 0, ids[0][i], row[1], NULL),
                 FL_OK);
    cr_assert_eq(memcmp(row[0], row[1], sizeof row[0]), 0);
  }
  train(other, 1, 1.0f);
  cr_assert_eq(fl_embedding_adjust(other, NULL), FL_OK);
  is_in_order(other);
  fl_buffer_free(saved);
  fl_embedding_free(e), fl_embedding_free(other);
}

/* 64 tables of four pools that say to have two empty blocks of 1 MiB each. */
static fl_buffer *boaster(void)
{
  uint32_t t;
  fl_embedding *e = embedding_of(NULL, 1, 0);
  fl_embedding_table_options options;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.chunks = 4;
  for (uint32_t i = 1; i <= FL_EMBEDDING_MAX_TABLES; i++) {
    options.dim = 16 * i;
    cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  }
  for (uint32_t i = 0; i < e->n_pools; i++)
    e->pools[i]->n_blocks = 2;
  fl_buffer *saved = saved_as(e, 0);
  for (uint32_t i = 0; i < e->n_pools; i++)
    e->pools[i]->n_blocks = 0;
  fl_embedding_free(e);
  return saved;
}

Test(embedding_load, few_bytes_get_little_memory)
{
  const uint8_t *data;
  size_t size;
  uint64_t peak;
  fl_embedding *e;
  fl_context *context = NULL;
  fl_buffer *saved = boaster();
  (void)fl_buffer_get(saved, &data, &size);
  cr_assert_lt(size, 16 * KIB);
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  cr_assert_eq(load(&e, context, saved, 0), FL_E_LIMIT);
  cr_assert_not_null(strstr(fl_last_error(), "byte_budget"));
  cr_assert_null(e);
  (void)fl_context_get_memory(context, NULL, &peak);
  cr_assert_leq(peak, 100 * MIB);
  /* A host that means it says so. */
  cr_assert_eq(load(&e, context, saved, 8 * MIB), FL_OK, "%s", fl_last_error());
  is_in_order(e);
  fl_embedding_free(e);
  fl_context_free(context);
  fl_buffer_free(saved);
}

/* 64 tables with a row each, none of the size of another. */
Test(embedding_load, many_tables_of_few_rows_need_no_budget)
{
  uint32_t t;
  const uint64_t id = 1;
  static float out[1024];
  fl_embedding *e = embedding_of(NULL, 1, 0), *other;
  fl_embedding_bags bags = bags_of(&id, 1, NULL, 1);
  fl_embedding_table_options options;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.chunks = 1;
  for (uint32_t i = 1; i <= FL_EMBEDDING_MAX_TABLES; i++) {
    options.dim = 16 * i;
    cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
  }
  fl_buffer *saved = saved_as(e, 0);
  cr_assert_eq(load(&other, NULL, saved, 0), FL_OK, "%s", fl_last_error());
  is_in_order(other);
  cr_assert_eq(other->bytes_used, e->bytes_used);
  fl_buffer_free(saved);
  fl_embedding_free(e), fl_embedding_free(other);
}

Test(embedding_load, a_boundless_one_adjusts_under_a_budget)
{
  fl_embedding *e = embedding_of(NULL, 1, 0), *other;
  (void)table_of(e, DIM, 4);
  for (uint64_t first = 1; first < 8 * N; first += N)
    train(e, first, 0.01f);
  fl_buffer *saved = saved_as(e, 0);
  cr_assert_eq(load(&other, NULL, saved, 100 * KIB), FL_E_LIMIT);
  cr_assert_eq(load(&other, NULL, saved, 512 * KIB), FL_OK, "%s",
               fl_last_error());
  is_in_order(other);
  cr_assert_eq(other->block_bytes, KIB);
  cr_assert_not_null(other->tables[0]->sketch);
  /* Others become hot, for whom there is no room. */
  for (int step = 0; step < 60; step++) {
    for (uint64_t first = 100000; first < 100000 + 12 * N; first += N)
      train(other, first, 1.0f);
    if (step % 5 < 4) continue;
    cr_assert_eq(fl_embedding_adjust(other, NULL), FL_OK);
    is_in_order(other);
    cr_assert_leq(other->bytes_used, 512 * KIB);
  }
  uint32_t n_hot = 0;
  for (uint64_t id = 100000; id < 100000 + 12 * N; id++)
    n_hot += fl_embedding_copy_row(other, 0, id, NULL, NULL) == FL_OK;
  cr_assert_gt(n_hot, 2 * (uint32_t)fl_embedding_row_count(other, 0) / 3);
  fl_buffer_free(saved);
  fl_embedding_free(e), fl_embedding_free(other);
}

Test(embedding_load, a_delta_larger_than_the_budget_changes_nothing)
{
  fl_reader reader;
  fl_embedding *e = NULL, *other;
  fl_embedding_options options;
  (void)fl_embedding_options_init(&options, sizeof options);
  options.byte_budget = 4 * MIB;
  options.secret = embedding_secret;
  options.tombstones = 100;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_OK);
  (void)table_of(e, DIM, 1);
  train(e, 1, 1.0f);
  fl_buffer *saved = saved_as(e, 0);
  cr_assert_eq(load(&other, NULL, saved, 512 * KIB), FL_OK, "%s",
               fl_last_error());
  const uint64_t version = fl_embedding_version(other);
  const uint64_t rows = fl_embedding_row_count(other, 0);
  for (uint64_t first = 1; first < 20 * N; first += N)
    train(e, first, 1.0f);
  fl_buffer *delta = saved_as(e, version);
  cr_assert_eq(fl_buffer_as_reader(delta, &reader), FL_OK);
  cr_assert_eq(fl_embedding_apply_delta(other, &reader), FL_E_LIMIT);
  cr_assert_eq(fl_embedding_version(other), version);
  cr_assert_eq(fl_embedding_row_count(other, 0), rows);
  is_in_order(other);
  fl_buffer_free(saved), fl_buffer_free(delta);
  fl_embedding_free(e), fl_embedding_free(other);
}
