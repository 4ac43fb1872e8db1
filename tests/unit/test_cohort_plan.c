/* SPDX-License-Identifier: Apache-2.0 */
/* Participants for each cohort, and who they are. */
#include "cohort_fixture.h"

static uint32_t sum_of(const uint32_t *counts)
{
  uint32_t sum = 0;
  for (uint32_t m = 0; m < PEOPLE_CAP; m++)
    sum += counts[m];
  return sum;
}

/* 150 of 200 clients are of group 0. */
static void open_uneven(people *p)
{
  fl_cohort_options o = people_options();
  o.seed = 7;
  people_open(p, NULL, &o, 200, 1);
  for (uint32_t i = 0; i < 200; i += 4)
    p->group[i] = 1;
  people_rounds(p, 1, 70);
  cr_assert_eq(fl_cohort_set_count(p->set), 2);
}

Test(cohort_plan, shares_add_up_by_size_equally_or_by_loss)
{
  people p;
  uint32_t counts[PEOPLE_CAP];
  open_uneven(&p);
  fl_cohort_info a = info_of(&p, 0), b = info_of(&p, 1);
  cr_assert_eq(a.members + b.members, 200);
  PEOPLE_MUST(fl_cohort_set_plan(p.set, 40, FL_COHORT_BY_SIZE, counts, 8));
  cr_assert_eq(sum_of(counts), 40);
  cr_assert_float_eq(counts[0], 40.0 * (double)a.members / 200.0, 1.0);
  PEOPLE_MUST(fl_cohort_set_plan(p.set, 41, FL_COHORT_EQUAL, counts, 8));
  cr_assert_eq(counts[0], 21);
  cr_assert_eq(counts[1], 20);
  PEOPLE_MUST(fl_cohort_set_plan(p.set, 1000, FL_COHORT_BY_LOSS, counts, 8));
  cr_assert_eq(sum_of(counts), 1000);
  double x = (double)a.members * a.loss, y = (double)b.members * b.loss;
  cr_assert_float_eq(counts[0], 1000.0 * x / (x + y), 1.0);
  PEOPLE_MUST(fl_cohort_set_plan(p.set, 0, FL_COHORT_BY_SIZE, counts, 8));
  cr_assert_eq(sum_of(counts), 0);
  IS(fl_cohort_set_plan(p.set, 1, FL_COHORT_BY_SIZE, counts, 7), FL_E_DIM);
  IS(fl_cohort_set_plan(p.set, 1, 0, counts, 8), FL_E_ARGUMENT);
  IS(fl_cohort_set_plan(p.set, 1, 4, counts, 8), FL_E_ARGUMENT);
  IS(fl_cohort_set_plan(p.set, 1, 1, NULL, 8), FL_E_ARGUMENT);
  IS(fl_cohort_set_plan(NULL, 1, 1, counts, 8), FL_E_ARGUMENT);
  people_close(&p);
}

Test(cohort_plan, nobody_is_planned_without_members)
{
  fl_cohort_set *set = NULL;
  uint32_t counts[8] = {9};
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, NULL));
  PEOPLE_MUST(fl_cohort_set_plan(set, 50, FL_COHORT_EQUAL, counts, 8));
  cr_assert_eq(sum_of(counts), 0);
  fl_cohort_set_free(set);
}

static fl_cohort_pick pick_of(uint32_t cohort, uint32_t round, uint32_t want)
{
  fl_cohort_pick pick;
  PEOPLE_MUST(fl_cohort_pick_init(&pick, sizeof pick));
  pick.cohort = cohort;
  pick.round = round;
  pick.want = want;
  return pick;
}

Test(cohort_plan, picks_are_members_online_once_and_the_same_again)
{
  people p;
  uint8_t online[25];
  uint32_t slots[200], again[200], n, m;
  open_two(&p);
  memset(online, 0, sizeof online);
  for (uint32_t i = 0; i < 190; i++) {
    if (i % 3 != 0) online[i / 8] |= (uint8_t)(1u << i % 8);
  }
  fl_cohort_pick pick = pick_of(1, 9, 20);
  pick.online = online;
  pick.n_bytes = sizeof online;
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, slots, &n));
  cr_assert_eq(n, 20);
  for (uint32_t i = 0; i < n; i++) {
    cr_assert(i == 0 || slots[i] > slots[i - 1]);
    cr_assert(slots[i] % 3 != 0 && slots[i] < 190);
    cr_assert_eq(people_member(&p, slots[i]).cohort, 1);
  }
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, again, &m));
  cr_assert_eq(m, n);
  cr_assert_arr_eq(slots, again, n * sizeof *slots);
  pick.round = 10;
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, again, &m));
  cr_assert_neq(memcmp(slots, again, n * sizeof *slots), 0);
  pick.n_bytes = 1;
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, slots, &n));
  for (uint32_t i = 0; i < n; i++)
    cr_assert_lt(slots[i], 8);
  people_close(&p);
}

Test(cohort_plan, picks_of_more_than_there_are_take_all)
{
  people p;
  uint32_t slots[200], n = 0, other = 0;
  open_two(&p);
  fl_cohort_pick pick = pick_of(0, 1, 200);
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, slots, &n));
  cr_assert_eq(n, info_of(&p, 0).members);
  pick.cohort = 1;
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, slots, &other));
  cr_assert_eq(n + other, 200);
  pick.want = 0;
  PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, NULL, &n));
  cr_assert_eq(n, 0);
  pick.want = 1;
  IS(fl_cohort_set_pick(p.set, &pick, NULL, &n), FL_E_ARGUMENT);
  IS(fl_cohort_set_pick(p.set, NULL, slots, &n), FL_E_ARGUMENT);
  IS(fl_cohort_set_pick(NULL, &pick, slots, &n), FL_E_ARGUMENT);
  pick.cohort = 4;
  IS(fl_cohort_set_pick(p.set, &pick, slots, &n), FL_E_NOT_FOUND);
  people_close(&p);
}

Test(cohort_plan, each_member_is_as_likely_as_any_other)
{
  people p;
  uint32_t slots[200], n, counts[100] = {0};
  open_groups(&p, 3, 100, 1);
  for (uint32_t round = 1; round <= 5000; round++) {
    fl_cohort_pick pick = pick_of(0, round, 10);
    PEOPLE_MUST(fl_cohort_set_pick(p.set, &pick, slots, &n));
    for (uint32_t i = 0; i < n; i++)
      counts[slots[i]]++;
  }
  /* 500 each, deviation 21. */
  for (uint32_t i = 0; i < 100; i++)
    cr_assert(counts[i] > 400 && counts[i] < 600, "%u: %u", i, counts[i]);
  people_close(&p);
}

Test(cohort_plan, info_tells_of_cohorts_alive_and_dead)
{
  people p;
  open_two(&p);
  fl_cohort_info info = info_of(&p, 0);
  cr_assert_eq(info.is_alive, 1);
  cr_assert_eq(info.round, 60);
  cr_assert_eq(info.sibling, FL_COHORT_NONE);
  cr_assert(info.loss > 0.0 && info.deviation > 0.0);
  cr_assert_eq(info_of(&p, 7).is_alive, 0);
  cr_assert(isnan(info_of(&p, 7).loss));
  IS(fl_cohort_set_get_info(p.set, 8, &info), FL_E_NOT_FOUND);
  IS(fl_cohort_set_get_info(p.set, 0, NULL), FL_E_ARGUMENT);
  people_close(&p);
}

Test(cohort_plan, events_are_polled_before_the_next_decision)
{
  people p;
  fl_cohort_event event;
  uint32_t round = 1;
  open_groups(&p, 7, 1000, 2);
  while (info_of(&p, 1).is_alive == 0) {
    for (uint32_t i = 0; i < 50; i++)
      people_train(&p, (round * 50 + i) % 1000, round);
    PEOPLE_MUST(fl_cohort_set_end_round(p.set, 0, round++));
    PEOPLE_MUST(fl_cohort_set_decide(p.set));
  }
  IS(fl_cohort_set_decide(p.set), FL_E_STATE);
  PEOPLE_MUST(fl_cohort_event_init(&event, sizeof event));
  PEOPLE_MUST(fl_cohort_set_poll(p.set, &event));
  cr_assert_eq(event.kind, FL_COHORT_TRIAL);
  cr_assert_eq(event.cohort, 0);
  cr_assert_eq(event.child, 1);
  cr_assert_eq(info_of(&p, 0).sibling, 1);
  cr_assert_eq(info_of(&p, 1).sibling, 0);
  IS(fl_cohort_set_poll(p.set, &event), FL_E_EMPTY);
  IS(fl_cohort_set_poll(NULL, &event), FL_E_ARGUMENT);
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  people_close(&p);
}
