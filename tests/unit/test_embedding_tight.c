/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets that are too small: for a handle, for a table and one row of it. */
#include <criterion/criterion.h>

#include <string.h>

#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { IDS = 64, DIM_MAX = 1024, BATCHES = 6 };

/* How far one gets with a budget. */
typedef enum reach { NO_HANDLE, NO_TABLE, ROWS, N_REACHES } reach;

static fl_status new_with(fl_embedding **e, uint64_t budget)
{
  fl_embedding_options options;
  (void)fl_embedding_options_init(&options, sizeof options);
  options.byte_budget = budget;
  options.secret = embedding_secret;
  return fl_embedding_new(e, NULL, &options);
}

static fl_status add(fl_embedding *e, uint32_t dim, uint32_t *t)
{
  fl_embedding_table_options options;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = dim;
  return fl_embedding_add_table(e, &options, t);
}

static fl_embedding_statistics statistics_of(const fl_embedding *e)
{
  fl_embedding_statistics s;
  (void)fl_embedding_statistics_init(&s, sizeof s);
  cr_assert_eq(fl_embedding_get_statistics(e, FL_AUTO, &s), FL_OK);
  return s;
}

static void says_too_small(fl_status st)
{
  cr_assert_eq(st, FL_E_LIMIT, "%s", fl_status_name(st));
  cr_assert_not_null(strstr(fl_last_error(), "budget"), "%s", fl_last_error());
}

/* Steps and adjusts, with the same ids all the time. */
static void train(fl_embedding *e, uint32_t t, uint32_t dim)
{
  static float out[IDS * DIM_MAX], gradient[IDS * DIM_MAX];
  uint64_t ids[IDS];
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = i * 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < (size_t)IDS * dim; i++)
    gradient[i] = i % 2 ? 1 : -1;
  fl_embedding_bags bags = bags_of(ids, IDS, NULL, IDS);
  for (int step = 0; step < BATCHES; step++) {
    out[0] = 5;
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK, "%s",
                 fl_last_error());
    cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, .1f), FL_OK, "%s",
                 fl_last_error());
    cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK, "%s", fl_last_error());
    const char *problem = embedding_problem(e);
    cr_assert_null(problem, "%s", problem);
    cr_assert_leq(statistics_of(e).bytes_used, e->budget);
  }
  cr_assert_gt(statistics_of(e).rows, 0);
}

static reach try_budget(uint64_t budget, uint32_t dim)
{
  fl_embedding *e = NULL;
  uint32_t t = 99;
  fl_status st = new_with(&e, budget);
  if (st != FL_OK) {
    says_too_small(st);
    cr_assert_null(e);
    return NO_HANDLE;
  }
  const uint64_t before = statistics_of(e).bytes_used;
  st = add(e, dim, &t);
  if (st != FL_OK) {
    says_too_small(st);
    cr_assert_eq(t, 99);
    cr_assert_eq(statistics_of(e).n_tables, 0);
    fl_embedding_free(e);
    return NO_TABLE;
  }
  cr_assert_lt(before, statistics_of(e).bytes_used);
  train(e, t, dim);
  fl_embedding_free(e);
  return ROWS;
}

/* More bytes never lead less far, and no step of the way is left out. */
static void climbs(uint32_t dim, uint64_t step, uint64_t most)
{
  reach last = NO_HANDLE;
  int n[N_REACHES] = {0};
  for (uint64_t budget = 1; budget < most; budget += step) {
    reach at = try_budget(budget, dim);
    cr_assert_geq(at, last, "%d after %d with %d bytes", (int)at, (int)last,
                  (int)budget);
    last = at;
    n[at]++;
  }
  for (int at = 0; at < N_REACHES; at++)
    cr_assert_gt(n[at], 0, "%d", at);
}

Test(embedding_tight, budgets_below_a_handle_and_a_row_say_so)
{
  climbs(16, 61, 32768);
}

Test(embedding_tight, long_rows_want_more)
{
  climbs(DIM_MAX, 1021, 200000);
}

/* The second table finds the handle as it was, and the first one trains on. */
Test(embedding_tight, a_table_too_many_leaves_the_others_as_they_were)
{
  fl_embedding *e = NULL;
  uint32_t t, other = 99;
  const uint64_t budget = 24000;
  cr_assert_eq(new_with(&e, budget), FL_OK);
  cr_assert_eq(add(e, 16, &t), FL_OK);
  train(e, t, 16);
  const fl_embedding_statistics before = statistics_of(e);
  cr_assert_gt(before.rows, 0);
  fl_status st = FL_OK;
  uint32_t n = 1;
  while ((st = add(e, 16, &other)) == FL_OK)
    n++;
  says_too_small(st);
  cr_assert_lt(n, FL_EMBEDDING_MAX_TABLES);
  cr_assert_eq(statistics_of(e).n_tables, n);
  cr_assert_eq(statistics_of(e).rows, before.rows);
  train(e, t, 16);
  fl_embedding_free(e);
}

/* By shares the second one would have 20 bytes. */
Test(embedding_tight, a_share_that_has_no_room_for_a_row_is_refused)
{
  fl_embedding *e = NULL;
  uint32_t t, other = 99;
  fl_embedding_table_options options;
  cr_assert_eq(new_with(&e, 200000), FL_OK);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = 16;
  options.prune_from = 0;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  const fl_embedding_statistics before = statistics_of(e);
  options.share = 1e-4f;
  says_too_small(fl_embedding_add_table(e, &options, &other));
  cr_assert_eq(other, 99);
  cr_assert_eq(statistics_of(e).bytes_used, before.bytes_used);
  /* Nor may it take the first one's. */
  options.share = 1e4f;
  says_too_small(fl_embedding_add_table(e, &options, &other));
  cr_assert_eq(statistics_of(e).n_tables, 1);
  /* Small tables have what they have use for. */
  options.share = 1e-4f;
  options.prune_from = 100;
  cr_assert_eq(fl_embedding_add_table(e, &options, &other), FL_OK);
  train(e, other, 16);
  fl_embedding_free(e);
}
