/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients and rates at the ends of float32. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { N = 256, DIM = 16, KIB = 1024 };

static void train(fl_embedding *e, uint64_t first, float gradient, float rate)
{
  uint64_t ids[N];
  static float values[N * DIM];
  for (size_t i = 0; i < N; i++)
    ids[i] = first + i;
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  cr_assert_eq(fl_embedding_forward(e, 0, &bags, values), FL_OK);
  for (size_t i = 0; i < N * DIM; i++)
    values[i] = gradient * (1.0f + (float)(i / DIM % 7));
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, values, rate), FL_OK);
}

static size_t count_candidates(const fl_embedding *e)
{
  const fli_table *table = e->tables[0];
  size_t n = 0;
  for (size_t i = 0; i < (size_t)table->n_candidate_buckets * FLI_BUCKET; i++)
    n += table->candidates[i].is_there;
  return n;
}

/* Ids 1 and 2 have no row; each is twice in the batch, and the sum of its
 * gradients is one whose square is no number. */
Test(embedding_extremes, sums_of_infinite_square_are_worth_nothing)
{
  fl_embedding *e = embedding_of(NULL, 1, 64 * KIB);
  uint64_t ids[4] = {1, 2, 2, 1};
  float gradient[4 * DIM];
  (void)table_of(e, DIM, 4);
  for (uint64_t first = 100; first < 100 + 40 * N; first += N)
    train(e, first, 1.0f, 0.01f); /* no room is left */
  for (uint32_t i = 0; i < 4; i++)
    cr_assert_eq(fl_embedding_copy_row(e, 0, ids[i], NULL, NULL),
                 FL_E_NOT_FOUND);
  cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
  cr_assert_eq(count_candidates(e), 0);
  fl_embedding_bags bags = bags_of(ids, 4, NULL, 4);
  for (size_t i = 0; i < FLI_COUNT_OF(gradient); i++)
    gradient[i] = i / DIM % 2 ? 3e38f : 1e25f;
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, gradient, 1.0f), FL_OK);
  cr_assert_eq(count_candidates(e), 0);
  /* One that can be told is a candidate. */
  for (size_t i = 0; i < FLI_COUNT_OF(gradient); i++)
    gradient[i] = 1e6f;
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, gradient, 1.0f), FL_OK);
  cr_assert_eq(count_candidates(e), 2);
  fl_embedding_free(e);
}

/* Nothing changes: neither the row of id 100 nor what id 1, without a row, is
 * worth. */
static void assert_sums_are_refused(fl_embedding *e, const uint64_t *ids,
                                    uint32_t mode, float weight)
{
  const float weights[4] = {1, weight, weight, 1};
  const uint64_t offsets[2] = {0, 2}, known = 100;
  float gradient[2 * DIM], before[DIM], after[DIM];
  fl_embedding_bags bags = bags_of(ids, 4, offsets, 2);
  bags.mode = mode;
  bags.weights = weight != 1.0f ? weights : NULL;
  memset(gradient, 0, sizeof gradient);
  gradient[3] = gradient[DIM + 3] = -2e38f;
  const uint64_t step = e->step;
  const size_t candidates = count_candidates(e);
  cr_assert_eq(fl_embedding_copy_row(e, 0, known, before, NULL), FL_OK);
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, gradient, 1.0f),
               FL_E_NOT_FINITE);
  cr_assert_eq(fl_embedding_copy_row(e, 0, known, after, NULL), FL_OK);
  cr_assert_eq(memcmp(before, after, sizeof before), 0);
  cr_assert_eq(count_candidates(e), candidates);
  cr_assert_eq(e->step, step);
  const char *problem = embedding_problem(e);
  cr_assert_null(problem, "%s", problem);
}

Test(embedding_extremes, infinite_sums_are_refused)
{
  const uint64_t unknown[4] = {100, 1, 1, 101}, rows[4] = {1, 100, 100, 101};
  const uint64_t twice[4] = {1, 1, 1, 1};
  fl_embedding *e = embedding_of(NULL, 1, 64 * KIB);
  (void)table_of(e, DIM, 4);
  for (uint64_t first = 100; first < 100 + 40 * N; first += N)
    train(e, first, 1.0f, 0.01f); /* no room is left */
  cr_assert_eq(fl_embedding_copy_row(e, 0, 1, NULL, NULL), FL_E_NOT_FOUND);
  assert_sums_are_refused(e, unknown, FL_EMBEDDING_SUM, 1);
  assert_sums_are_refused(e, rows, FL_EMBEDDING_SUM, 1);
  assert_sums_are_refused(e, rows, FL_EMBEDDING_MEAN, 4);
  assert_sums_are_refused(e, unknown, FL_EMBEDDING_SUM, -1.5f);
  assert_sums_are_refused(e, twice, FL_EMBEDDING_MEAN, 1);
  fl_embedding_free(e);
}

static void rows_are_finite(int is_adagrad, uint32_t precision)
{
  uint32_t t;
  float row[DIM];
  fl_embedding *e = embedding_of(NULL, is_adagrad, 0);
  fl_embedding_table_options options;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  options.precision = precision;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  for (int step = 0; step < 200; step++)
    train(e, 1, -5e17f, 1e9f);
  for (uint64_t id = 1; id <= N; id++) {
    cr_assert_eq(fl_embedding_copy_row(e, 0, id, row, NULL), FL_OK);
    for (size_t i = 0; i < DIM; i++) {
      cr_assert(isfinite(row[i]));
      cr_assert_gt(row[i], 1.0f);
    }
  }
  fl_embedding_free(e);
}

Test(embedding_extremes, the_greatest_rate_keeps_rows_finite)
{
  for (uint32_t precision = 1; precision <= 3; precision++) {
    rows_are_finite(0, precision);
    rows_are_finite(1, precision);
  }
}

Test(embedding_extremes, a_greater_rate_is_refused)
{
  const uint64_t id = 1;
  float before[DIM], after[DIM];
  fl_embedding *e = embedding_of(NULL, 0, 0);
  (void)table_of(e, DIM, 4);
  fl_embedding_bags bags = bags_of(&id, 1, NULL, 1);
  cr_assert_eq(fl_embedding_forward(e, 0, &bags, before), FL_OK);
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, before, 1.01e9f),
               FL_E_NOT_FINITE);
  cr_assert_eq(fl_embedding_backward(e, 0, &bags, before, INFINITY),
               FL_E_NOT_FINITE);
  cr_assert_eq(fl_embedding_lookup(e, 0, &bags, after), FL_OK);
  cr_assert_eq(memcmp(before, after, sizeof before), 0);
  fl_embedding_free(e);
}

/* The first gradients are 2^128 times as small as the last ones. */
Test(embedding_extremes, utilities_follow_gradients_over_all_of_float32)
{
  fl_embedding *e = embedding_of(NULL, 1, 256 * KIB);
  (void)table_of(e, DIM, 4);
  float gradient = 1e-21f;
  uint8_t low = UINT8_MAX, high = 0;
  train(e, 1, gradient, 0);
  for (int step = 0; step < 64; step++) {
    if (gradient < 4e16f) gradient *= 16;
    train(e, 1, gradient, 0);
    cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
  }
  for (uint64_t id = 1; id <= N; id++) {
    const fli_entry *entry =
        fli_hash_find(e->tables[0], id, fli_mix(e->mix, id));
    cr_assert_not_null(entry);
    low = entry->utility[0] < low ? entry->utility[0] : low;
    high = entry->utility[0] > high ? entry->utility[0] : high;
  }
  /* 7 times as much is 22 eighths of an octave. */
  cr_assert_lt(high, 128);
  cr_assert_geq(high, low + 16);
  const char *problem = embedding_problem(e);
  cr_assert_null(problem, "%s", problem);
  fl_embedding_free(e);
}
