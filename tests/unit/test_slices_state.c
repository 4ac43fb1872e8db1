/* SPDX-License-Identifier: Apache-2.0 */
/* A server that is saved in the middle of a round, and goes on. */
#include <criterion/criterion.h>

#include "slices_fixture.h"

enum { N = 200, BUDGET = 30 * 1024 };

static void work(slice_server *s, slice_device *d, uint64_t round, uint64_t who)
{
  uint64_t ids[N];
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i * (who + 1) + round;
  for (uint32_t t = 0; t < SLICE_TABLES; t++)
    cr_assert_eq(fl_slice_client_set_ids(d->slices, t, ids, N), FL_OK);
  slice_fetch(s, d);
  for (uint32_t t = 0; t < SLICE_TABLES; t++)
    slice_train(d, t, ids, N, who ? 0.5f : -1.0f);
  slice_send(s, d, who + 10 * round);
}

static uint64_t version_of(fl_embedding *e)
{
  fl_buffer *buffer = slice_buffer();
  fl_writer writer;
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_embedding_save(e, &writer), FL_OK);
  fl_buffer_free(buffer);
  return fl_embedding_version(e);
}

/* The store and the sums, as they were. */
static slice_server copy_of(slice_server *s)
{
  slice_server copy = {0};
  fl_buffer *store = slice_buffer(), *state = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  (void)fl_buffer_as_writer(store, &writer);
  cr_assert_eq(fl_embedding_save(s->embedding, &writer), FL_OK);
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_slice_server_save(s->slices, &writer), FL_OK);
  (void)fl_buffer_as_reader(store, &reader);
  cr_assert_eq(fl_embedding_load(&copy.embedding, NULL, &reader, 0), FL_OK);
  const fl_slice_server_options options = slice_server_options();
  cr_assert_eq(
      fl_slice_server_new(&copy.slices, NULL, copy.embedding, &options), FL_OK);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_slice_server_load(copy.slices, &reader), FL_OK, "%s",
               fl_last_error());
  fl_buffer_free(store);
  fl_buffer_free(state);
  return copy;
}

Test(slices_state, a_restored_server_ends_the_round_the_same)
{
  const fl_slice_server_options options = slice_server_options();
  slice_server s = slice_server_of(BUDGET, &options);
  slice_device d = slice_device_of(0, NULL);
  for (uint64_t round = 0; round < 3; round++) {
    work(&s, &d, round, 0);
    work(&s, &d, round, 1);
    slice_step(&s);
  }
  work(&s, &d, 3, 0);
  slice_server copy = copy_of(&s);
  work(&s, &d, 3, 1);
  work(&copy, &d, 3, 1);
  slice_step(&s);
  slice_step(&copy);
  cr_assert_eq(version_of(s.embedding), version_of(copy.embedding));
  cr_assert_eq(fl_slice_server_layout(copy.slices), 4);
  uint8_t one[FLI_SLICE_PLAN_MAX], two[FLI_SLICE_PLAN_MAX];
  size_t n_one, n_two;
  (void)fl_slice_server_copy_plan(s.slices, one, sizeof one, &n_one);
  (void)fl_slice_server_copy_plan(copy.slices, two, sizeof two, &n_two);
  cr_assert_eq(n_one, n_two);
  cr_assert_eq(memcmp(one, two, n_one), 0);
  slice_device_free(&d);
  slice_server_free(&copy);
  slice_server_free(&s);
}

Test(slices_state, a_store_of_another_time_is_refused)
{
  const fl_slice_server_options options = slice_server_options();
  slice_server s = slice_server_of(BUDGET, &options);
  slice_device d = slice_device_of(0, NULL);
  fl_buffer *state = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  work(&s, &d, 0, 0);
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_slice_server_save(s.slices, &writer), FL_OK);
  slice_step(&s);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_slice_server_load(s.slices, &reader), FL_E_STALE);
  cr_assert_eq(fl_slice_server_layout(s.slices), 1);
  /* Of other tables. */
  fl_embedding *other = embedding_of(NULL, 0, 0);
  fl_slice_server *slices = NULL;
  (void)table_of(other, 16, 4);
  cr_assert_eq(fl_slice_server_new(&slices, NULL, other, NULL), FL_OK);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_slice_server_load(slices, &reader), FL_E_SCHEMA);
  fl_slice_server_free(slices);
  fl_embedding_free(other);
  fl_buffer_free(state);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_state, torn_and_foreign_states_are_refused)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  fl_buffer *state = slice_buffer(), *bad = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  const uint8_t *data;
  size_t n;
  work(&s, &d, 0, 0);
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_slice_server_save(s.slices, &writer), FL_OK);
  (void)fl_buffer_get(state, &data, &n);
  for (size_t cut = 1; cut < n; cut += 97) {
    fl_buffer_clear(bad);
    cr_assert_eq(fl_buffer_append(bad, data, n - cut), FL_OK);
    (void)fl_buffer_as_reader(bad, &reader);
    cr_assert_neq(fl_slice_server_load(s.slices, &reader), FL_OK);
  }
  cr_assert_eq(s.slices->clients, 1);
  cr_assert_eq(fl_slice_server_load(s.slices, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_slice_server_save(s.slices, NULL), FL_E_ARGUMENT);
  fl_slice_server_drop(s.slices);
  cr_assert_eq(s.slices->clients, 0);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_slice_server_load(s.slices, &reader), FL_OK);
  cr_assert_eq(s.slices->clients, 1);
  fl_buffer_free(state);
  fl_buffer_free(bad);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_state, a_round_that_is_dropped_leaves_nothing)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  work(&s, &d, 0, 0);
  fl_slice_server_drop(s.slices);
  fl_slice_report report = slice_step(&s);
  cr_assert_eq(report.ids, 0);
  cr_assert_eq(report.clients, 0);
  cr_assert_eq(fl_embedding_row_count(s.embedding, 0), 0);
  slice_device_free(&d);
  slice_server_free(&s);
}
