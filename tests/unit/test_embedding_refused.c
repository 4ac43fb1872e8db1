/* SPDX-License-Identifier: Apache-2.0 */
/* What refused calls, extreme gradients and full budgets leave behind: a store
 * that is in order, and whose saved bytes load again. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "embedding_fixture.h"
#include "embedding/hash.h"
#include "embedding/saved.h"
#include "embedding_invariants.h"

enum { N = 512, DIM = 16, KIB = 1024, MIB = 1024 * KIB, STORED = 4 * DIM };

/* A buffer is read once. */
static fl_buffer *copy_of(fl_buffer *buffer, fl_reader *reader)
{
  const uint8_t *data;
  size_t n;
  fl_buffer *copy = NULL;
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_assert_eq(fl_buffer_new(&copy, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(copy, data, n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(copy, reader), FL_OK);
  return copy;
}

static fl_status load(fl_embedding **out, fl_buffer *saved, uint64_t budget)
{
  fl_reader reader;
  *out = NULL;
  fl_buffer *copy = copy_of(saved, &reader);
  fl_status st = fl_embedding_load(out, NULL, &reader, budget);
  fl_buffer_free(copy);
  return st;
}

static void comes_back(fl_embedding *e)
{
  fl_embedding *other;
  fl_buffer *saved = saved_as(e, 0);
  cr_assert_eq(load(&other, saved, 0), FL_OK, "%s", fl_last_error());
  const char *problem = embedding_problem(other);
  cr_assert_null(problem, "%s", problem);
  cr_assert_eq(fl_embedding_row_count(other, 0), fl_embedding_row_count(e, 0));
  fl_buffer_free(saved);
  fl_embedding_free(other);
}

static void train(fl_embedding *e, uint64_t first, float gradient)
{
  static uint64_t ids[N];
  static float values[N * DIM];
  for (size_t i = 0; i < N; i++)
    ids[i] = first + i;
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  cr_assert_eq(fl_embedding_forward(e, 0, &bags, values), FL_OK);
  for (size_t i = 0; i < N * DIM; i++)
    values[i] = gradient * (1.0f + (float)(i % 7));
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, values, 1e-30f), FL_OK);
}

Test(embedding_refused, tables_leave_nothing_behind)
{
  uint32_t t;
  fl_embedding_table_options options;
  fl_embedding *e = embedding_of(NULL, 1, 256 * KIB);
  const uint64_t used = e->bytes_used;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.chunks = 1;
  options.sketch_counters = UINT64_MAX / 2;
  for (uint32_t dim = 4; dim <= 1024; dim += 4) {
    for (uint32_t precision = 1; precision <= 3; precision++) {
      options.dim = dim;
      options.precision = precision;
      cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_E_OPTIONS);
      cr_assert_eq(e->n_pools, 0);
      cr_assert_eq(e->bytes_used, used);
    }
  }
  cr_assert_eq(table_of(e, DIM, 4), 0);
  train(e, 1, 1.0f);
  comes_back(e);
  fl_embedding_free(e);
}

/* So much and no more. */
static void *take_little(void *user, size_t bytes, size_t alignment)
{
  (void)user, (void)alignment;
  return bytes < 64 * MIB ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
}

static void give(void *user, void *ptr, size_t bytes, size_t alignment)
{
  (void)user, (void)bytes, (void)alignment;
  free(ptr);
}

/* Default sketches stop growing where counters have no more numbers. */
Test(embedding_refused, the_largest_budgets_are_a_matter_of_memory)
{
  uint32_t t;
  fl_context *context = NULL;
  fl_context_options hooks;
  fl_embedding_table_options options;
  (void)fl_context_options_init(&hooks, sizeof hooks);
  hooks.alloc = take_little;
  hooks.dealloc = give;
  cr_assert_eq(fl_context_new(&context, &hooks), FL_OK);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  for (uint64_t budget = (uint64_t)1 << 38; budget != 0; budget *= 2) {
    fl_embedding *e = embedding_of(context, 1, budget);
    cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_E_NOMEM, "%s",
                 fl_last_error());
    fl_embedding_free(e);
  }
  fl_context_free(context);
}

/* From gradients of 1e-21 to some of 1e18: utilities follow, and saved ones
 * are within what is loaded. */
Test(embedding_refused, no_gradient_makes_a_table_that_does_not_load)
{
  fl_embedding *e = embedding_of(NULL, 1, 256 * KIB);
  (void)table_of(e, DIM, 4);
  train(e, 1, 1e-21f);
  for (int step = 0; step < 24; step++) {
    train(e, 1, 4e17f);
    cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
  }
  comes_back(e);
  fl_embedding_free(e);
}

Test(embedding_refused, more_tombstones_than_memory_has_are_too_large)
{
  fl_embedding *e = embedding_of(NULL, 1, 256 * KIB), *other;
  const uint8_t *data;
  uint8_t *bytes;
  size_t n;
  fl_buffer *saved = saved_as(e, 0), *changed = NULL;
  (void)fl_buffer_get(saved, &data, &n);
  bytes = malloc(n);
  cr_assert_not_null(bytes);
  memcpy(bytes, data, n);
  enum { TOMBSTONES = 12 + 4 + 8 + 8 + 16 + 4 * 4 + 2 * 4 };
  fli_store_u64(bytes + TOMBSTONES, UINT64_MAX / 2);
  cr_assert_eq(fl_buffer_new(&changed, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(changed, bytes, n), FL_OK);
  cr_assert_eq(load(&other, changed, 256 * KIB), FL_E_TOO_LARGE, "%s",
               fl_last_error());
  free(bytes);
  fl_buffer_free(saved), fl_buffer_free(changed);
  fl_embedding_free(e);
}

/* Ids of a delta that all come to one segment: it grows until the budget ends,
 * while extents of evicted ids are still free. */
static fl_buffer *crowd(fl_embedding *e, uint64_t version)
{
  enum { OLD = 2048, NEW = 1536 };
  fli_out out;
  fl_writer writer;
  uint64_t made, id = 1 << 20;
  uint8_t row[STORED] = {0}, utility[4] = {9, 9, 9, 9};
  fl_buffer *buffer = NULL;
  const fli_table *table = e->tables[0];
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  fli_out_begin(&out, &writer, FLI_SAVED_DELTA);
  fli_out_u64(&out, version);
  fli_out_u32(&out, 1);
  fli_out_u32(&out, table->dim), fli_out_u32(&out, table->chunks);
  fli_out_u32(&out, table->precision);
  fli_out_u32(&out, (uint32_t)table->base), fli_out_f32(&out, table->scale);
  fli_out_u64(&out, OLD);
  for (uint64_t i = 0; i < OLD; i++)
    fli_out_u32(&out, 0), fli_out_u64(&out, 1 + i);
  fli_out_u64(&out, NEW);
  for (uint64_t i = 0; i < NEW; i++) {
    while (fli_mix(e->mix, ++id) >> 52 != 0)
      ;
    fli_out_u64(&out, id);
    fli_out_u32(&out, 15u << FLI_MASK_SHIFT);
    fli_out_bytes(&out, utility, sizeof utility);
    fli_out_f32(&out, 1.0f);
    fli_out_bytes(&out, row, sizeof row);
  }
  cr_assert_eq(fli_out_end(&out, &made), FL_OK);
  return buffer;
}

Test(embedding_refused, deltas_at_the_end_of_the_budget_keep_what_rows_have)
{
  fl_embedding *e = embedding_of(NULL, 1, 2048 * KIB), *other;
  size_t n_limit = 0, n_done = 0;
  (void)table_of(e, DIM, 4);
  for (uint64_t first = 1; first < 3000; first += N)
    train(e, first, 1.0f);
  fl_buffer *saved = saved_as(e, 0);
  fl_buffer *delta = crowd(e, fl_embedding_version(e));
  cr_assert_eq(load(&other, saved, 0), FL_OK);
  uint64_t least = other->bytes_used;
  fl_embedding_free(other);
  for (uint64_t budget = least; budget < least + 64 * KIB; budget += 512) {
    fl_reader reader;
    if (load(&other, saved, budget) != FL_OK) continue;
    fl_buffer *copy = copy_of(delta, &reader);
    fl_status st = fl_embedding_apply_delta(other, &reader);
    cr_assert(st == FL_OK || st == FL_E_LIMIT, "%s", fl_last_error());
    n_limit += st == FL_E_LIMIT;
    n_done += st == FL_OK;
    cr_assert_leq(other->bytes_used, budget);
    const char *problem = embedding_problem(other);
    cr_assert_null(problem, "%s", problem);
    fl_buffer_free(copy);
    fl_embedding_free(other);
  }
  cr_assert_gt(n_limit + n_done, 0);
  fl_buffer_free(saved), fl_buffer_free(delta);
  fl_embedding_free(e);
}
