/* SPDX-License-Identifier: Apache-2.0 */
/* Joining, leaving, finding: against a plain table. */
#include "cohort_fixture.h"

enum { IDS = 300, STEPS = 20000 };

static fl_cohort_set *new_set(uint32_t clients)
{
  fl_cohort_set *set = NULL;
  fl_cohort_options o = people_options();
  o.clients = clients;
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, &o));
  return set;
}

static uint32_t join(fl_cohort_set *set, uint64_t id)
{
  uint32_t slot = FL_COHORT_NONE;
  int32_t counts = 1;
  PEOPLE_MUST(fl_cohort_set_join(set, id, 1, NULL, 0, &slot, &counts));
  cr_assert_eq(counts, 0);
  return slot;
}

/* Ids that fall together in any table. */
static uint64_t id_of(uint32_t i)
{
  return i % 3 == 0 ? i : i % 3 == 1 ? (uint64_t)i << 40 : UINT64_MAX - i;
}

Test(cohort_clients, any_order_of_coming_and_going_is_as_a_table_says)
{
  fl_cohort_set *set = new_set(0);
  uint32_t slots[IDS], n = 0;
  uint64_t state = 5;
  memset(slots, 0xff, sizeof slots);
  for (uint32_t step = 0; step < STEPS; step++) {
    uint32_t i = (uint32_t)(people_next(&state) % IDS), found;
    if (people_next(&state) % 2 == 0) {
      uint32_t slot = join(set, id_of(i));
      if (slots[i] == FL_COHORT_NONE) n++;
      cr_assert(slots[i] == FL_COHORT_NONE || slots[i] == slot);
      slots[i] = slot;
    } else if (slots[i] != FL_COHORT_NONE) {
      PEOPLE_MUST(fl_cohort_set_leave(set, slots[i]));
      slots[i] = FL_COHORT_NONE;
      n--;
    }
    fl_status st = fl_cohort_set_find(set, id_of(i), &found);
    cr_assert_eq(st, slots[i] == FL_COHORT_NONE ? FL_E_NOT_FOUND : FL_OK);
    if (st == FL_OK) cr_assert_eq(found, slots[i]);
    cr_assert_eq(fl_cohort_set_client_count(set), n);
  }
  for (uint32_t i = 0; i < IDS; i++) {
    for (uint32_t k = 0; k < i; k++)
      cr_assert(slots[i] == FL_COHORT_NONE || slots[i] != slots[k]);
  }
  fl_cohort_set_free(set);
}

Test(cohort_clients, slots_are_small_and_used_again)
{
  fl_cohort_set *set = new_set(10);
  for (uint32_t i = 0; i < 100; i++)
    cr_assert_eq(join(set, 1000 + i), i);
  PEOPLE_MUST(fl_cohort_set_leave(set, 42));
  IS(fl_cohort_set_leave(set, 42), FL_E_NOT_FOUND);
  cr_assert_eq(join(set, 5), 42);
  cr_assert_eq(join(set, 6), 100);
  fl_cohort_set_free(set);
}

Test(cohort_clients, room_for_a_million_takes_24_bytes_each)
{
  fl_context *context = NULL;
  fl_cohort_set *set = NULL;
  fl_cohort_options o;
  uint64_t bytes = 0;
  PEOPLE_MUST(fl_context_new(&context, NULL));
  PEOPLE_MUST(fl_cohort_options_init(&o, sizeof o));
  o.clients = 1000000;
  PEOPLE_MUST(fl_cohort_set_new(&set, context, &o));
  PEOPLE_MUST(fl_context_get_memory(context, &bytes, NULL));
  cr_assert_leq(bytes, 24000000);
  fl_cohort_set_free(set);
  fl_context_free(context);
}

Test(cohort_clients, who_has_a_report_that_waits_stays)
{
  people p;
  open_groups(&p, 1, 10, 1);
  people_train(&p, 3, 1);
  IS(fl_cohort_set_leave(p.set, 3), FL_E_STATE);
  people_end_round(&p, 1);
  PEOPLE_MUST(fl_cohort_set_leave(p.set, 3));
  people_close(&p);
}

Test(cohort_clients, pointers_and_slots_are_checked)
{
  fl_cohort_set *set = new_set(0);
  fl_cohort_member member;
  uint32_t slot;
  PEOPLE_MUST(fl_cohort_member_init(&member, sizeof member));
  IS(fl_cohort_set_join(NULL, 1, 1, NULL, 0, &slot, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_join(set, 1, 1, NULL, 0, NULL, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_join(set, 1, 1, NULL, 48, &slot, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_find(set, 1, &slot), FL_E_NOT_FOUND);
  IS(fl_cohort_set_find(set, 1, NULL), FL_E_ARGUMENT);
  IS(fl_cohort_set_leave(set, 0), FL_E_NOT_FOUND);
  IS(fl_cohort_set_leave(NULL, 0), FL_E_ARGUMENT);
  IS(fl_cohort_set_get_member(set, 0, &member), FL_E_NOT_FOUND);
  IS(fl_cohort_set_get_member(set, 0, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cohort_set_client_count(NULL), 0);
  cr_assert_eq(fl_cohort_set_count(NULL), 0);
  cr_assert_eq(fl_cohort_set_cap(NULL), 0);
  fl_cohort_set_free(set);
}
