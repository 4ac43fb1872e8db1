/* SPDX-License-Identifier: Apache-2.0 */
/* Slices: what devices ask for, what they get, what comes of their updates. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "slices_fixture.h"

static const uint64_t some[] = {0, 3, 4, 1000, UINT64_MAX};
enum { SOME = sizeof some / sizeof *some };

static void put_rows(fl_embedding *e, uint32_t table, const uint64_t *ids,
                     size_t n)
{
  float values[SLICE_DIM];
  for (size_t i = 0; i < n; i++) {
    for (int k = 0; k < SLICE_DIM; k++)
      values[k] = (float)(i + 1) + 0.125f * (float)k;
    cr_assert_eq(fli_embedding_put(e, e->tables[table], ids[i],
                                   table == 0 ? 1 + (uint32_t)i % 15 : 1,
                                   values),
                 FLI_ROOM);
  }
}

static void check_same_row(const fl_embedding *a, const fl_embedding *b,
                           uint32_t table, uint64_t id)
{
  float x[SLICE_DIM] = {0}, y[SLICE_DIM] = {0};
  uint32_t mask_x = 0, mask_y = 0;
  cr_assert_eq(fl_embedding_copy_row(a, table, id, x, &mask_x),
               fl_embedding_copy_row(b, table, id, y, &mask_y));
  cr_assert_eq(mask_x, mask_y);
  cr_assert_eq(memcmp(x, y, sizeof x), 0);
}

Test(slices, a_device_gets_the_live_chunks_of_its_ids)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  put_rows(s.embedding, 0, some, 4);
  put_rows(s.embedding, 1, some + 2, 3);
  put_rows(d.embedding, 0, some + 4, 1); /* which the server has not */
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, some, SOME), FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 1, some, 3), FL_OK);
  cr_assert_eq(slice_fetch(&s, &d), 2);
  for (size_t i = 0; i < SOME; i++)
    check_same_row(s.embedding, d.embedding, 0, some[i]);
  for (size_t i = 0; i < 3; i++)
    check_same_row(s.embedding, d.embedding, 1, some[i]);
  cr_assert_eq(fl_embedding_row_count(d.embedding, 1), 1);
  fl_slice_client_status status = slice_status(&d);
  cr_assert_eq(status.is_ready, 1);
  cr_assert_eq(status.ids, 8);
  cr_assert_eq(status.rows, 5);
  cr_assert_eq(status.no_room, 0);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, ids_may_come_in_any_order_and_twice)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  const uint64_t ids[] = {1000, 3, 3, UINT64_MAX, 1000, 0};
  put_rows(s.embedding, 0, some, SOME);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, 6), FL_OK);
  cr_assert_eq(slice_fetch(&s, &d), 1);
  cr_assert_eq(slice_status(&d).ids, 4);
  cr_assert_eq(fl_embedding_row_count(d.embedding, 0), 4);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, NULL, 0), FL_OK);
  cr_assert_eq(slice_fetch(&s, &d), 0);
  cr_assert_eq(slice_status(&d).is_ready, 1);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, many_ids_take_several_requests)
{
  enum { N = 9000 };
  static uint64_t ids[N];
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i * 0x9e3779b97f4a7c15u;
  put_rows(s.embedding, 0, ids, 100);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, N), FL_OK);
  cr_assert_eq(slice_fetch(&s, &d), 3);
  cr_assert_eq(fl_embedding_row_count(d.embedding, 0), 100);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, bf16_takes_half_the_bytes)
{
  fl_slice_server_options options = slice_server_options();
  float got[SLICE_DIM];
  options.precision = FL_EMBEDDING_BF16;
  slice_server s = slice_server_of(0, &options);
  slice_device d = slice_device_of(0, NULL);
  put_rows(s.embedding, 0, some, SOME);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, some, SOME), FL_OK);
  cr_assert_eq(slice_fetch(&s, &d), 1);
  cr_assert_eq(fl_embedding_copy_row(d.embedding, 0, 0, got, NULL), FL_OK);
  cr_assert_float_eq(got[1], 1.125f, 0);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, decoys_fill_up_to_a_power_of_two_and_stay_the_same)
{
  fl_slice_client_options options;
  const uint8_t *one, *two;
  size_t n_one, n_two;
  cr_assert_eq(fl_slice_client_options_init(&options, sizeof options), FL_OK);
  options.has_decoys = 1;
  options.decoy_range = 2000;
  options.secret = embedding_secret;
  slice_server s = slice_server_of(0, NULL);
  slice_device a = slice_device_of(0, &options);
  slice_device b = slice_device_of(0, &options);
  fl_buffer *first = slice_buffer(), *second = slice_buffer();
  put_rows(s.embedding, 0, some, 4);
  cr_assert_eq(fl_slice_client_set_ids(a.slices, 0, some, SOME), FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(b.slices, 0, some, SOME), FL_OK);
  slice_begin(&s, &a);
  slice_begin(&s, &b);
  cr_assert_eq(slice_status(&a).decoys, 3);
  cr_assert_eq(fl_slice_client_request(a.slices, first), FL_OK);
  cr_assert_eq(fl_slice_client_request(b.slices, second), FL_OK);
  (void)fl_buffer_get(first, &one, &n_one);
  (void)fl_buffer_get(second, &two, &n_two);
  cr_assert_eq(n_one, n_two);
  cr_assert_eq(memcmp(one, two, n_one), 0);
  cr_assert_eq(one[12], 8); /* ids asked for */
  cr_assert_eq(slice_fetch(&s, &a), 1);
  cr_assert_eq(fl_embedding_row_count(a.embedding, 0), 4);
  fl_buffer_free(first);
  fl_buffer_free(second);
  slice_device_free(&a);
  slice_device_free(&b);
  slice_server_free(&s);
}

Test(slices, decoys_want_a_range_that_has_them)
{
  fl_slice_client_options options;
  uint8_t plan[FLI_SLICE_PLAN_MAX];
  size_t n;
  cr_assert_eq(fl_slice_client_options_init(&options, sizeof options), FL_OK);
  options.has_decoys = 1;
  options.decoy_range = 15;
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, &options);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, some, SOME), FL_OK);
  cr_assert_eq(fl_slice_server_copy_plan(s.slices, plan, sizeof plan, &n),
               FL_OK);
  cr_assert_eq(fl_slice_client_begin(d.slices, plan, n), FL_E_LIMIT);
  cr_assert_eq(fl_slice_client_request(d.slices, NULL), FL_E_ARGUMENT);
  slice_device_free(&d);
  slice_server_free(&s);
}

/* ---- updates ------------------------------------------------------------- */

Test(slices, rows_become_the_mean_of_those_that_touched_them)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device a = slice_device_of(0, NULL), b = slice_device_of(0, NULL);
  float before[3][SLICE_DIM], after[SLICE_DIM];
  const uint64_t ids[] = {7, 8, 9};
  const float values[SLICE_DIM] = {1, 2, 3, 4};
  for (int i = 0; i < 3; i++)
    (void)fli_embedding_put(s.embedding, s.embedding->tables[0], ids[i], 15,
                            values);
  for (int i = 0; i < 3; i++)
    cr_assert_eq(fl_embedding_copy_row(s.embedding, 0, ids[i], before[i], NULL),
                 FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(a.slices, 0, ids, 3), FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(b.slices, 0, ids, 3), FL_OK);
  slice_fetch(&s, &a);
  slice_fetch(&s, &b);
  slice_train(&a, 0, ids, 2, 1.0f);      /* both go down by .02, */
  slice_train(&b, 0, ids + 1, 1, -1.0f); /* and this one up */
  slice_send(&s, &a, 1);
  slice_send(&s, &b, 2);
  fl_slice_report report = slice_step(&s);
  cr_assert_eq(report.clients, 2);
  cr_assert_eq(report.ids, 2);
  cr_assert_eq(report.dropped, 0);
  cr_assert_eq(fl_slice_server_layout(s.slices), 1);
  /* Of one client: -.02 / .01 is a point of the grid, but for rounding. */
  (void)fl_embedding_copy_row(s.embedding, 0, 7, after, NULL);
  for (int k = 0; k < SLICE_DIM; k++)
    cr_assert_float_eq(after[k], before[0][k] - 0.02f, 0.0101f);
  /* Of two: they cancel. */
  (void)fl_embedding_copy_row(s.embedding, 0, 8, after, NULL);
  for (int k = 0; k < SLICE_DIM; k++)
    cr_assert_float_eq(after[k], before[1][k], 0.0101f);
  /* Of none: to the last bit. */
  (void)fl_embedding_copy_row(s.embedding, 0, 9, after, NULL);
  cr_assert_eq(memcmp(after, before[2], sizeof after), 0);
  slice_device_free(&a);
  slice_device_free(&b);
  slice_server_free(&s);
}

Test(slices, an_id_without_a_row_begins_the_same_here_and_there)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  float here[SLICE_DIM], there[SLICE_DIM];
  const uint64_t id = 12345;
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, &id, 1), FL_OK);
  slice_fetch(&s, &d);
  slice_train(&d, 0, &id, 1, 1.0f);
  (void)fl_embedding_copy_row(d.embedding, 0, id, here, NULL);
  slice_send(&s, &d, 1);
  slice_step(&s);
  cr_assert_eq(fl_embedding_copy_row(s.embedding, 0, id, there, NULL), FL_OK);
  /* First values, and one step of .02; the grid has points of .01. */
  for (int k = 0; k < SLICE_DIM; k++)
    cr_assert_float_eq(here[k], there[k], 0.0101f);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, ids_of_few_clients_are_dropped)
{
  fl_slice_server_options options = slice_server_options();
  options.min_clients = 2;
  slice_server s = slice_server_of(0, &options);
  slice_device a = slice_device_of(0, NULL), b = slice_device_of(0, NULL);
  const uint64_t ids[] = {1, 2, 3};
  cr_assert_eq(fl_slice_client_set_ids(a.slices, 0, ids, 2), FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(b.slices, 0, ids + 1, 2), FL_OK);
  slice_fetch(&s, &a);
  slice_fetch(&s, &b);
  slice_train(&a, 0, ids, 2, 1.0f);
  slice_train(&b, 0, ids + 1, 2, 1.0f);
  slice_send(&s, &a, 1);
  slice_send(&s, &b, 2);
  fl_slice_report report = slice_step(&s);
  cr_assert_eq(report.ids, 3);
  cr_assert_eq(report.dropped, 2);
  cr_assert_eq(fl_embedding_row_count(s.embedding, 0), 1);
  cr_assert_eq(fl_embedding_copy_row(s.embedding, 0, 2, NULL, NULL), FL_OK);
  slice_device_free(&a);
  slice_device_free(&b);
  slice_server_free(&s);
}

Test(slices, the_order_of_updates_does_not_matter)
{
  slice_server one = slice_server_of(40 * 1024, NULL);
  slice_server two = slice_server_of(40 * 1024, NULL);
  slice_device d = slice_device_of(0, NULL);
  uint64_t ids[400];
  for (int round = 0; round < 4; round++) {
    fl_buffer *updates[6];
    for (uint64_t u = 0; u < 6; u++) {
      for (uint64_t i = 0; i < 400; i++)
        ids[i] = i * i % (97 + u * 50) + (uint64_t)round * 60;
      cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, 400), FL_OK);
      slice_fetch(&one, &d);
      slice_train(&d, 0, ids, 400, u % 2 ? 1.0f : -0.3f);
      updates[u] = slice_update(&d, u);
    }
    for (int u = 0; u < 6; u++) {
      cr_assert_eq(slice_add(&one, updates[u]), FL_OK);
      cr_assert_eq(slice_add(&two, updates[5 - u]), FL_OK);
    }
    slice_step(&one);
    slice_step(&two);
    for (int u = 0; u < 6; u++)
      fl_buffer_free(updates[u]);
  }
  fl_buffer *a = slice_buffer(), *b = slice_buffer();
  fl_writer to_a, to_b;
  cr_assert_eq(fl_buffer_as_writer(a, &to_a), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(b, &to_b), FL_OK);
  cr_assert_eq(fl_embedding_save(one.embedding, &to_a), FL_OK);
  cr_assert_eq(fl_embedding_save(two.embedding, &to_b), FL_OK);
  cr_assert_eq(fl_embedding_version(one.embedding),
               fl_embedding_version(two.embedding));
  fl_buffer_free(a);
  fl_buffer_free(b);
  slice_device_free(&d);
  slice_server_free(&one);
  slice_server_free(&two);
}

Test(slices, only_the_server_adjusts_and_tells_its_threshold)
{
  slice_server s = slice_server_of(24 * 1024, NULL);
  slice_device d = slice_device_of(0, NULL);
  uint64_t ids[1000];
  for (uint64_t i = 0; i < 1000; i++)
    ids[i] = i;
  for (int round = 0; round < 6; round++) {
    cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, 1000), FL_OK);
    slice_fetch(&s, &d);
    slice_train(&d, 0, ids, 1000, 0.1f);
    slice_train(&d, 0, ids, 300, 1.0f);
    slice_send(&s, &d, (uint64_t)round);
    slice_step(&s);
  }
  slice_fetch(&s, &d);
  cr_assert_gt(fl_slice_client_threshold(d.slices, 0), 0.0f);
  cr_assert_eq(slice_status(&d).layout, 6);
  fl_embedding_statistics statistics;
  cr_assert_eq(fl_embedding_statistics_init(&statistics, sizeof statistics),
               FL_OK);
  cr_assert_eq(fl_embedding_get_statistics(s.embedding, FL_AUTO, &statistics),
               FL_OK);
  cr_assert_leq(statistics.bytes_used, 24 * 1024);
  cr_assert_eq(statistics.adjusts, 6);
  /* What was worth more is what is there. */
  uint64_t hot = 0, cold = 0;
  for (uint64_t i = 0; i < 1000; i++) {
    const int is_there =
        fl_embedding_copy_row(s.embedding, 0, i, NULL, NULL) == FL_OK;
    hot += i < 300 && is_there;
    cold += i >= 300 && is_there;
  }
  cr_assert_gt(hot * 700, cold * 300 * 2, "%d hot, %d cold", (int)hot,
               (int)cold);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, grids_follow_what_comes)
{
  fl_slice_server_options options = slice_server_options();
  options.first_delta = 1.0f; /* much too coarse */
  slice_server s = slice_server_of(0, &options);
  slice_device d = slice_device_of(0, NULL);
  uint64_t ids[200];
  for (uint64_t i = 0; i < 200; i++)
    ids[i] = i;
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, 200), FL_OK);
  for (int round = 0; round < 12; round++) {
    slice_fetch(&s, &d);
    slice_train(&d, 0, ids, 200, 1.0f); /* steps of .02 */
    slice_send(&s, &d, (uint64_t)round);
    slice_step(&s);
  }
  for (int k = 0; k < 4; k++)
    cr_assert_float_eq(s.slices->plan.tables[0].deltas[k], .02f * 3 / 7, .002f);
  /* The mean utility is that of every id here: |1, 1, 1, 1| = 2. */
  cr_assert_float_eq(s.slices->plan.tables[0].unit, 2.0f / 1024, 1e-3f);
  /* The other table had nothing. */
  cr_assert_float_eq(s.slices->plan.tables[1].deltas[0], 1.0f, 0);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, what_does_not_fit_the_device_reads_as_zeros)
{
  enum { N = 2000 };
  static uint64_t ids[N], others[N];
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(32 * 1024, NULL);
  for (uint64_t i = 0; i < N; i++) {
    ids[i] = i;
    others[i] = i + N;
  }
  put_rows(s.embedding, 0, ids, N);
  put_rows(s.embedding, 0, others, N);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, N), FL_OK);
  slice_fetch(&s, &d);
  fl_slice_client_status status = slice_status(&d);
  cr_assert_gt(status.no_room, 0);
  cr_assert_lt(status.no_room, N);
  const uint64_t fit = N - status.no_room;
  cr_assert_eq(fl_embedding_row_count(d.embedding, 0), fit);
  /* In the next round others make room. */
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, others, 50), FL_OK);
  slice_fetch(&s, &d);
  cr_assert_eq(slice_status(&d).no_room, 0);
  for (int i = 0; i < 50; i++)
    check_same_row(s.embedding, d.embedding, 0, others[i]);
  /* Ids without a row are worth something all the same. */
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, N), FL_OK);
  slice_fetch(&s, &d);
  slice_train(&d, 0, ids, N, 1.0f);
  cr_assert_eq(slice_status(&d).touched, N);
  slice_send(&s, &d, 0);
  cr_assert_eq(slice_step(&s).ids, N);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices, an_adjust_of_the_device_in_between_does_no_harm)
{
  enum { N = 300 };
  uint64_t ids[N];
  float before[N][SLICE_DIM], after[SLICE_DIM];
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(40 * 1024, NULL);
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i;
  put_rows(s.embedding, 0, ids, N);
  for (int i = 0; i < N; i++)
    (void)fl_embedding_copy_row(s.embedding, 0, ids[i], before[i], NULL);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, N), FL_OK);
  slice_fetch(&s, &d);
  slice_train(&d, 0, ids, N, 1.0f);
  cr_assert_eq(fl_embedding_adjust(d.embedding, NULL), FL_OK);
  slice_train(&d, 0, ids, N / 2, 1.0f);
  slice_send(&s, &d, 0);
  slice_step(&s);
  for (int i = 0; i < N; i++) {
    (void)fl_embedding_copy_row(s.embedding, 0, ids[i], after, NULL);
    for (int k = 0; k < SLICE_DIM; k++)
      cr_assert(fabsf(after[k] - before[i][k]) < 0.071f);
  }
  slice_device_free(&d);
  slice_server_free(&s);
}
