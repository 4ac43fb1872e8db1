/* SPDX-License-Identifier: Apache-2.0 */
/* Saved in the middle, a set goes on to the same decisions; hostile states
 * change nothing. */
#include "cohort_fixture.h"

#include "base/bytes.h"
#include "cohort/state.h"
#include "wire/container.h"

enum { N = 300 };

static void open_four(people *p, uint32_t rounds)
{
  open_groups(p, 9, N, 4);
  people_rounds(p, 1, rounds);
}

/* The same people with the set that was saved. */
static void go_on(people *copy, const people *p)
{
  size_t n;
  fl_cohort_options o = people_options();
  uint8_t *bytes = bytes_of(p->set, &n);
  *copy = *p;
  copy->set = NULL;
  o.seed = 9;
  PEOPLE_MUST(fl_cohort_set_new(&copy->set, NULL, &o));
  PEOPLE_MUST(load_bytes(copy->set, bytes, n));
  cr_assert(is_as(copy->set, bytes, n));
  free(bytes);
}

Test(cohort_state, goes_on_to_the_same_decisions_bit_for_bit)
{
  for (uint32_t at = 0; at <= 60; at += 5) {
    people a, b;
    size_t n;
    open_four(&a, at);
    go_on(&b, &a);
    people_rounds(&a, at + 1, 80);
    people_rounds(&b, at + 1, 80);
    uint8_t *bytes = bytes_of(a.set, &n);
    cr_assert(is_as(b.set, bytes, n), "from %u", at);
    cr_assert_gt(a.events[FL_COHORT_KEPT], 0);
    free(bytes);
    people_close(&a);
    people_close(&b);
  }
}

Test(cohort_state, clients_that_left_stay_away)
{
  people a, b;
  uint32_t slot;
  open_four(&a, 10);
  for (uint32_t i = 0; i < N; i += 3)
    PEOPLE_MUST(fl_cohort_set_leave(a.set, i));
  go_on(&b, &a);
  cr_assert_eq(fl_cohort_set_client_count(b.set), N - N / 3);
  IS(fl_cohort_set_find(b.set, 0, &slot), FL_E_NOT_FOUND);
  PEOPLE_MUST(fl_cohort_set_find(b.set, 1, &slot));
  cr_assert_eq(slot, 1);
  PEOPLE_MUST(fl_cohort_set_join(b.set, 12345, 1, NULL, 0, &slot, NULL));
  cr_assert_eq(slot, N - 3);
  people_close(&a);
  people_close(&b);
}

Test(cohort_state, of_other_options_is_refused)
{
  people p;
  size_t n, n_before;
  fl_cohort_set *other = NULL;
  fl_cohort_options o = people_options();
  open_four(&p, 20);
  uint8_t *bytes = bytes_of(p.set, &n);
  o.seed = 9;
  o.gap = .5f;
  PEOPLE_MUST(fl_cohort_set_new(&other, NULL, &o));
  uint8_t *before = bytes_of(other, &n_before);
  IS(load_bytes(other, bytes, n), FL_E_CONFLICT);
  cr_assert(is_as(other, before, n_before));
  fl_cohort_set_free(other);
  free(bytes);
  free(before);
  people_close(&p);
}

Test(cohort_state, cut_anywhere_is_refused)
{
  people p;
  size_t n;
  open_groups(&p, 9, 20, 2);
  people_rounds(&p, 1, 1);
  uint8_t *bytes = bytes_of(p.set, &n);
  for (size_t cut = 0; cut < n; cut += 1 + cut / 64) {
    fl_status st = load_bytes(p.set, bytes, cut);
    cr_assert_eq(st, FL_E_TRUNCATED, "%zu: %s", cut, fl_status_name(st));
  }
  cr_assert(is_as(p.set, bytes, n));
  for (size_t at = 0; at < n; at += 1 + n / 97) {
    bytes[at] ^= 1;
    cr_assert_lt(load_bytes(p.set, bytes, n), FL_OK);
    bytes[at] ^= 1;
  }
  cr_assert(is_as(p.set, bytes, n));
  free(bytes);
  people_close(&p);
}

/* A state with a good hash and one byte that says something else. */
static fl_status load_changed(people *p, size_t at, uint8_t to)
{
  size_t n;
  fli_bytes payload, whole;
  fl_buffer *buffer = NULL;
  fl_reader reader;
  fl_writer writer;
  uint32_t version;
  uint8_t *bytes = bytes_of(p->set, &n);
  fli_bytes_init(&payload, NULL);
  fli_bytes_init(&whole, NULL);
  PEOPLE_MUST(fl_buffer_new(&buffer, NULL));
  PEOPLE_MUST(fl_buffer_append(buffer, bytes, n));
  PEOPLE_MUST(fl_buffer_as_reader(buffer, &reader));
  PEOPLE_MUST(fli_container_read(&reader, FLI_STATE_COHORTS, 2, 1 << 24,
                                 &version, &payload));
  cr_assert_lt(at, payload.size);
  payload.data[at] = to;
  fl_buffer_clear(buffer);
  PEOPLE_MUST(fl_buffer_as_writer(buffer, &writer));
  PEOPLE_MUST(fli_container_write(&writer, FLI_STATE_COHORTS, 2, &payload));
  PEOPLE_MUST(fl_buffer_as_reader(buffer, &reader));
  fl_status st = fl_cohort_set_load(p->set, &reader);
  fl_buffer_free(buffer);
  fli_bytes_free(&payload);
  fli_bytes_free(&whole);
  free(bytes);
  return st;
}

/* Any one byte: taken or refused; what is taken works on. */
Test(cohort_state, bytes_that_lie_are_refused_or_harmless)
{
  people p;
  size_t n;
  uint32_t refused = 0;
  open_groups(&p, 9, 40, 2);
  p.per_round = 20;
  people_rounds(&p, 1, 3);
  uint8_t *bytes = bytes_of(p.set, &n);
  for (size_t at = 0; at < 1000; at++) {
    static const uint8_t lies[] = {0, 1, 0x7f, 0x80, 0xff};
    fl_status st = load_changed(&p, at, lies[at % 5]);
    if (st != FL_OK) {
      refused++;
      cr_assert(is_as(p.set, bytes, n), "byte %zu", at);
    }
    PEOPLE_MUST(load_bytes(p.set, bytes, n));
  }
  cr_assert_gt(refused, 100);
  free(bytes);
  people_close(&p);
}

Test(cohort_state, members_of_cohorts_that_are_none_are_refused)
{
  people p;
  open_groups(&p, 9, 40, 2);
  /* 8a 01 c4 20 HASH 02 RNG(9) 03 EXPLORATION(9) 04 EPOCH(1) 05 FREE(5) 06 c5
   * 0140 MEMBERS */
  const size_t members = 1 + 1 + 2 + 32 + 1;
  size_t n, at;
  uint8_t *bytes = bytes_of(p.set, &n);
  /* Found by what it begins with: container header of 20 bytes. */
  for (at = members; memcmp(bytes + 20 + at, "\x06\xc5\x01\x40", 4) != 0; at++)
    cr_assert_lt(at, n - 24);
  IS(load_changed(&p, at + 4, 3), FL_E_RANGE);    /* leaf */
  IS(load_changed(&p, at + 5, 0), FL_E_RANGE);    /* other = leaf */
  IS(load_changed(&p, at + 6, 0x7f), FL_E_RANGE); /* score */
  IS(load_changed(&p, at + 7, 0), FL_E_RANGE);    /* free, on no list */
  cr_assert(is_as(p.set, bytes, n));
  free(bytes);
  people_close(&p);
}

Test(cohort_state, reports_and_events_that_wait_are_not_saved)
{
  people p;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  open_groups(&p, 9, 40, 2);
  people_train(&p, 1, 1);
  PEOPLE_MUST(fl_buffer_new(&buffer, NULL));
  PEOPLE_MUST(fl_buffer_as_writer(buffer, &writer));
  IS(fl_cohort_set_save(p.set, &writer), FL_E_STATE);
  PEOPLE_MUST(fl_cohort_set_end_round(p.set, 0, 1));
  IS(fl_cohort_set_save(p.set, &writer), FL_E_STATE);
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  PEOPLE_MUST(fl_cohort_set_save(p.set, &writer));
  IS(fl_cohort_set_save(NULL, &writer), FL_E_ARGUMENT);
  IS(fl_cohort_set_save(p.set, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_load(p.set, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_load(NULL, NULL), FL_E_ARGUMENT);
  fl_buffer_free(buffer);
  people_close(&p);
}
