/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile and mistaken input of slices: each code, and that nothing changes. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "slices_fixture.h"

/* Bytes that are put together by hand. */
typedef struct lie {
  uint8_t bytes[512];
  size_t n;
} lie;

static void put(lie *l, uint64_t value, size_t n)
{
  for (size_t i = 0; i < n; i++)
    l->bytes[l->n++] = (uint8_t)(i < 8 ? value >> 8 * i : 0);
}

static lie head(uint32_t kind, uint32_t table, uint64_t layout)
{
  lie l = {.n = 0};
  put(&l, 1, 1);
  put(&l, kind, 1);
  put(&l, table, 2);
  put(&l, layout, 8);
  return l;
}

/* An update of one table with `n` ids to come. */
static lie update(uint32_t table, uint32_t n)
{
  lie l = head('U', 1, 0);
  put(&l, table, 2);
  put(&l, n, 4);
  for (int k = 0; k < (table == 0 ? 4 : 1); k++)
    put(&l, 0, 4);
  return l;
}

static fl_status add(slice_server *s, const lie *l)
{
  return fl_slice_server_add(s->slices, l->bytes, l->n);
}

static fl_status ask(slice_server *s, const lie *l)
{
  fl_buffer *answer = slice_buffer();
  const uint8_t *data;
  size_t n = 99;
  const fl_status st =
      fl_slice_server_answer(s->slices, l->bytes, l->n, answer);
  cr_assert(st == FL_OK || strncmp(fl_last_error(), "slice: ", 7) == 0, "%s",
            fl_last_error());
  (void)fl_buffer_get(answer, &data, &n);
  cr_assert(st == FL_OK || n == 0);
  fl_buffer_free(answer);
  return st;
}

static void check_nothing_added(slice_server *s)
{
  cr_assert_eq(s->slices->clients, 0);
  cr_assert_eq(s->slices->n_ids, 0);
  for (int t = 0; t < SLICE_TABLES; t++) {
    cr_assert_eq(s->slices->sums[t].n, 0);
    cr_assert_eq(s->slices->sums[t].n_added, 0);
  }
}

Test(slices_refused, updates_that_are_none)
{
  slice_server s = slice_server_of(0, NULL);
  lie l = head('U', 0, 0);
  l.bytes[0] = 2;
  cr_assert_eq(add(&s, &l), FL_E_VERSION);
  l = head('R', 0, 0);
  cr_assert_eq(add(&s, &l), FL_E_FORMAT);
  l = head('U', 0, 1);
  cr_assert_eq(add(&s, &l), FL_E_STALE);
  l = head('U', 0, 0);
  l.n = 11;
  cr_assert_eq(add(&s, &l), FL_E_TRUNCATED);
  cr_assert_eq(fl_slice_server_add(s.slices, NULL, 0), FL_E_TRUNCATED);
  cr_assert_eq(fl_slice_server_add(s.slices, NULL, 1), FL_E_ARGUMENT);
  l = head('U', 0, 0);
  put(&l, 0, 1);
  cr_assert_eq(add(&s, &l), FL_E_FORMAT);
  l = update(2, 1);
  cr_assert_eq(add(&s, &l), FL_E_NOT_FOUND);
  check_nothing_added(&s);
  slice_server_free(&s);
}

Test(slices_refused, a_table_twice_or_of_no_id)
{
  slice_server s = slice_server_of(0, NULL);
  lie l = update(1, 1);
  put(&l, 5, 1);
  put(&l, 0, 1);
  l.bytes[2] = 2;
  const lie one = l;
  memcpy(l.bytes + l.n, one.bytes + 12, one.n - 12);
  l.n += one.n - 12;
  cr_assert_eq(add(&s, &l), FL_E_NOT_FOUND);
  l = update(1, 0);
  put(&l, 0, 8);
  cr_assert_eq(add(&s, &l), FL_E_TRUNCATED);
  check_nothing_added(&s);
  slice_server_free(&s);
}

Test(slices_refused, a_client_that_claims_a_million_ids)
{
  fl_slice_server_options options = slice_server_options();
  options.max_ids = 3;
  slice_server s = slice_server_of(0, &options);
  lie l = update(1, 1000000);
  put(&l, 0, 100);
  cr_assert_eq(add(&s, &l), FL_E_TRUNCATED);
  cr_assert_eq(s.slices->sums[1].capacity, 0); /* no memory was taken */
  l = update(1, 4);
  put(&l, 0, 8);
  cr_assert_eq(add(&s, &l), FL_E_TOO_LARGE);
  l = update(1, 3);
  put(&l, 0, 6);
  cr_assert_eq(add(&s, &l), FL_OK);
  cr_assert_eq(s.slices->n_ids, 3);
  l = head('R', 0, 0);
  put(&l, 1000000, 4);
  cr_assert_eq(ask(&s, &l), FL_E_TOO_LARGE);
  l = head('R', 0, 0);
  put(&l, 4, 4);
  put(&l, 0, 4);
  cr_assert_eq(ask(&s, &l), FL_E_TOO_LARGE);
  slice_server_free(&s);
}

Test(slices_refused, more_ids_of_all_clients_than_max_sum_ids)
{
  fl_slice_server_options options = slice_server_options();
  options.max_sum_ids = 4;
  slice_server s = slice_server_of(0, &options);
  lie l = update(1, 3);
  put(&l, 0, 6); /* 0, 1, 2 */
  cr_assert_eq(add(&s, &l), FL_OK);
  cr_assert_eq(add(&s, &l), FL_OK); /* the same ones */
  l.bytes[22] = 2;                  /* 2, 3, 4 */
  cr_assert_eq(add(&s, &l), FL_E_LIMIT);
  cr_assert_eq(s.slices->n_ids, 3);
  cr_assert_eq(s.slices->clients, 2);
  l.bytes[22] = 1; /* 1, 2, 3 */
  cr_assert_eq(add(&s, &l), FL_OK);
  cr_assert_eq(s.slices->n_ids, 4);
  slice_server_free(&s);
}

Test(slices_refused, ids_above_2_64)
{
  slice_server s = slice_server_of(0, NULL);
  lie l = update(1, 2);
  for (int i = 0; i < 9; i++)
    put(&l, 0xff, 1);
  put(&l, 1, 1); /* 2^64 - 1 */
  put(&l, 0, 1);
  const size_t n = l.n;
  put(&l, 0, 2); /* and the one behind it */
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.n = n;
  l.bytes[18 - 4] = 1; /* that alone is fine */
  cr_assert_eq(add(&s, &l), FL_OK);
  cr_assert_eq(fli_sparse_has(&s.slices->sums[1], UINT64_MAX), 1);
  l.bytes[n - 2] = 2;
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.bytes[n - 2] = 0x81; /* an 11th byte */
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  slice_server_free(&s);
}

Test(slices_refused, masks_and_values_that_cannot_be)
{
  slice_server s = slice_server_of(0, NULL);
  lie l = update(1, 1); /* a table of one chunk of 8 */
  put(&l, 5, 1);
  put(&l, 2, 1);
  put(&l, 0x88888888, 4);
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.bytes[l.n - 5] = 0x20;
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.bytes[l.n - 5] = 1;
  cr_assert_eq(add(&s, &l), FL_OK);
  l.bytes[l.n - 1] = 0x08;
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.bytes[l.n - 1] = 0x88;
  l.bytes[18] = 9; /* of 8 values, clamped */
  cr_assert_eq(add(&s, &l), FL_E_RANGE);
  l.bytes[18] = 8;
  cr_assert_eq(add(&s, &l), FL_OK);
  cr_assert_eq(s.slices->sums[1].clamped[0], 8);
  cr_assert_eq(s.slices->clients, 2);
  slice_server_free(&s);
}

Test(slices_refused, a_utility_of_1e30_is_one_byte)
{
  slice_server s = slice_server_of(20 * 1024, NULL);
  slice_device d = slice_device_of(0, NULL);
  const uint64_t id = 3;
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, &id, 1), FL_OK);
  slice_fetch(&s, &d);
  slice_train(&d, 0, &id, 1, 1e15f);
  slice_send(&s, &d, 0);
  for (uint32_t k = 0; k < 4; k++)
    cr_assert_eq(s.slices->sums[0].utilities[k], FLI_GRID_UTILITY_MAX);
  const float unit = s.slices->plan.tables[0].unit;
  slice_step(&s);
  /* And moves the unit by no more than so much. */
  cr_assert_float_eq(s.slices->plan.tables[0].unit, 16 * unit, 1e-3f * unit);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_refused, requests_that_are_none)
{
  slice_server s = slice_server_of(0, NULL);
  lie l = head('R', 2, 0);
  put(&l, 1, 4);
  put(&l, 1, 1);
  cr_assert_eq(ask(&s, &l), FL_E_NOT_FOUND);
  l.bytes[2] = 0;
  cr_assert_eq(ask(&s, &l), FL_OK);
  l.bytes[4] = 1;
  cr_assert_eq(ask(&s, &l), FL_E_STALE);
  l.bytes[4] = 0;
  l.bytes[12] = 2;
  cr_assert_eq(ask(&s, &l), FL_E_TRUNCATED);
  l.bytes[12] = 0;
  cr_assert_eq(ask(&s, &l), FL_E_TOO_LARGE);
  l.bytes[12] = 1;
  put(&l, 0, 1);
  cr_assert_eq(ask(&s, &l), FL_E_FORMAT);
  lie cut = head('R', 0, 0);
  put(&cut, 1, 4);
  put(&cut, 0xffffff, 3); /* an id that goes on */
  cr_assert_eq(ask(&s, &cut), FL_E_TRUNCATED);
  slice_server_free(&s);
}

/* ---- what a device refuses ----------------------------------------------- */

Test(slices_refused, plans_that_are_none)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  uint8_t plan[FLI_SLICE_PLAN_MAX], bad[FLI_SLICE_PLAN_MAX];
  size_t n;
  cr_assert_eq(fl_slice_server_copy_plan(s.slices, NULL, 0, &n), FL_OK);
  cr_assert_eq(fl_slice_server_copy_plan(s.slices, plan, n - 1, &n), FL_E_SIZE);
  cr_assert_eq(fl_slice_server_copy_plan(s.slices, plan, n, &n), FL_OK);
  for (size_t cut = 0; cut < n; cut++)
    cr_assert_neq(fl_slice_client_begin(d.slices, plan, cut), FL_OK);
  static const struct {
    size_t at;
    uint8_t value;
    fl_status want;
  } lies[] = {{0, 9, FL_E_VERSION},   {1, 'A', FL_E_FORMAT},
              {2, 0, FL_E_RANGE},     {2, 65, FL_E_RANGE},
              {2, 1, FL_E_FORMAT},    {28, 3, FL_E_RANGE},
              {32, 12, FL_E_RANGE},   {32, 32, FL_E_SCHEMA},
              {36, 3, FL_E_RANGE},    {43, 0xff, FL_E_NOT_FINITE},
              {47, 0xbf, FL_E_RANGE}, {51, 0xff, FL_E_NOT_FINITE}};
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    memcpy(bad, plan, n);
    bad[lies[i].at] = lies[i].value;
    if (lies[i].want == FL_E_NOT_FINITE) bad[lies[i].at - 1] = 0x80;
    cr_expect_eq(fl_slice_client_begin(d.slices, bad, n), lies[i].want,
                 "byte %zu: %s", lies[i].at, fl_last_error());
  }
  cr_assert_eq(fl_slice_client_begin(d.slices, plan, n), FL_OK);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_refused, answers_that_are_not_waited_for)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  const uint64_t ids[] = {1, 2, 3};
  const float values[SLICE_DIM] = {1};
  const uint8_t *data;
  size_t n;
  uint8_t bad[512];
  fl_buffer *request = slice_buffer(), *answer = slice_buffer();
  (void)fli_embedding_put(s.embedding, s.embedding->tables[0], 2, 15, values);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, ids, 3), FL_OK);
  slice_begin(&s, &d);
  cr_assert_eq(fl_slice_client_request(d.slices, request), FL_OK);
  (void)fl_buffer_get(request, &data, &n);
  cr_assert_eq(fl_slice_server_answer(s.slices, data, n, answer), FL_OK);
  (void)fl_buffer_get(answer, &data, &n);
  for (size_t cut = 0; cut < n; cut++)
    cr_assert_neq(fl_slice_client_take(d.slices, data, cut), FL_OK);
  static const struct {
    size_t at;
    uint8_t value;
    fl_status want;
  } lies[] = {{1, 'U', FL_E_FORMAT}, {2, 1, FL_E_STALE},
              {4, 1, FL_E_STALE},    {12, 2, FL_E_FORMAT},
              {16, 2, FL_E_STALE},   {20, 2, FL_E_STALE},
              {28, 1, FL_E_FORMAT},  {29, 7, FL_E_FORMAT},
              {29, 16, FL_E_RANGE},  {33, 0xff, FL_E_NOT_FINITE}};
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    memcpy(bad, data, n);
    bad[lies[i].at] = lies[i].value;
    if (lies[i].want == FL_E_NOT_FINITE) bad[lies[i].at - 1] = 0x80;
    cr_expect_eq(fl_slice_client_take(d.slices, bad, n), lies[i].want,
                 "byte %zu: %s", lies[i].at, fl_last_error());
  }
  cr_assert_eq(fl_embedding_row_count(d.embedding, 0), 0);
  cr_assert_eq(fl_slice_client_take(d.slices, data, n), FL_OK);
  cr_assert_eq(fl_slice_client_take(d.slices, data, n), FL_E_STALE);
  cr_assert_eq(fl_embedding_row_count(d.embedding, 0), 1);
  fl_buffer_free(request);
  fl_buffer_free(answer);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_refused, calls_out_of_turn)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  fl_buffer *buffer = slice_buffer();
  fl_slice_client *second = NULL;
  const uint64_t id = 1;
  const uint8_t byte = 0;
  cr_assert_eq(fl_slice_client_request(d.slices, buffer), FL_E_EMPTY);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_E_STATE);
  cr_assert_eq(fl_slice_client_take(d.slices, &byte, 1), FL_E_STALE);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 2, &id, 1), FL_E_NOT_FOUND);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_slice_client_new(&second, NULL, d.embedding, NULL),
               FL_E_STATE);
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, &id, 1), FL_OK);
  slice_begin(&s, &d);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_E_STATE);
  slice_fetch(&s, &d);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_OK);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_E_STATE);
  cr_assert_eq(fl_slice_client_threshold(d.slices, 9), 0.0f);
  cr_assert_eq(fl_slice_client_threshold(NULL, 0), 0.0f);
  cr_assert_eq(fl_slice_server_layout(NULL), 0);
  cr_assert_eq(fl_slice_server_step(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_slice_client_get_status(NULL, NULL), FL_E_ARGUMENT);
  fl_slice_server_drop(NULL);
  fl_slice_server_free(NULL);
  fl_slice_client_free(NULL);
  fl_buffer_free(buffer);
  slice_device_free(&d);
  slice_server_free(&s);
}

Test(slices_refused, options_out_of_range)
{
  fl_embedding *e = slice_store(0, 0), *empty = embedding_of(NULL, 0, 0);
  fl_slice_server *server = NULL;
  fl_slice_client *client = NULL;
  fl_slice_client_options theirs;
  fl_slice_server_options o = slice_server_options();
#define REFUSED(member, value) \
  o = slice_server_options();  \
  o.member = value;            \
  cr_expect_eq(fl_slice_server_new(&server, NULL, e, &o), FL_E_OPTIONS, #member)
  REFUSED(min_clients, 0);
  REFUSED(min_clients, 65536);
  REFUSED(first_delta, 0.0f);
  REFUSED(first_delta, NAN);
  REFUSED(first_utility, -1.0f);
  REFUSED(rate, -0.5f);
  REFUSED(rate, INFINITY);
  REFUSED(precision, FL_EMBEDDING_I8);
  REFUSED(max_ids, 0);
  REFUSED(max_ids, (1 << 24) + 1);
  REFUSED(max_sum_ids, 0);
#undef REFUSED
  cr_assert_eq(fl_slice_server_new(&server, NULL, empty, NULL), FL_E_EMPTY);
  cr_assert_eq(fl_slice_server_new(NULL, NULL, e, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_slice_client_options_init(&theirs, sizeof theirs), FL_OK);
  theirs.max_ids = 0;
  cr_assert_eq(fl_slice_client_new(&client, NULL, e, &theirs), FL_E_OPTIONS);
  cr_assert_eq(fl_slice_client_new(&client, NULL, NULL, NULL), FL_E_ARGUMENT);
  theirs.max_ids = 2;
  cr_assert_eq(fl_slice_client_new(&client, NULL, e, &theirs), FL_OK);
  const uint64_t ids[] = {1, 2, 2, 3};
  cr_assert_eq(fl_slice_client_set_ids(client, 0, ids, 3), FL_OK);
  cr_assert_eq(fl_slice_client_set_ids(client, 0, ids, 4), FL_E_LIMIT);
  cr_assert_eq(fl_slice_client_set_ids(client, 1, ids, 1), FL_E_LIMIT);
  fl_slice_client_free(client);
  fl_embedding_free(e);
  fl_embedding_free(empty);
}

Test(slices_refused, a_device_whose_rows_are_no_numbers)
{
  slice_server s = slice_server_of(0, NULL);
  slice_device d = slice_device_of(0, NULL);
  const uint64_t id = 1;
  float values[SLICE_DIM] = {NAN};
  fl_buffer *buffer = slice_buffer();
  const uint8_t *data;
  size_t n;
  cr_assert_eq(fl_slice_client_set_ids(d.slices, 0, &id, 1), FL_OK);
  slice_fetch(&s, &d);
  slice_train(&d, 0, &id, 1, 1.0f);
  (void)fli_embedding_put(d.embedding, d.embedding->tables[0], id, 15, values);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_E_NOT_FINITE);
  (void)fl_buffer_get(buffer, &data, &n);
  cr_assert_eq(n, 0);
  values[0] = 0;
  (void)fli_embedding_put(d.embedding, d.embedding->tables[0], id, 15, values);
  cr_assert_eq(fl_slice_client_update(d.slices, 0, buffer), FL_OK);
  fl_buffer_free(buffer);
  slice_device_free(&d);
  slice_server_free(&s);
}
