/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs of the SKETCH rule over generated clients: which groups are found,
 * and which are not. */
#include "cohort_fixture.h"

Test(cohort, two_groups_are_found_within_40_rounds_at_5_percent)
{
  for (uint64_t seed = 1; seed <= 5; seed++) {
    people p;
    open_groups(&p, seed, 1000, 2);
    people_rounds(&p, 1, 60);
    cr_assert(p.first_kept > 0 && p.first_kept <= 40, "seed %d: kept %u",
              (int)seed, p.first_kept);
    cr_assert_eq(fl_cohort_set_count(p.set), 2);
    cr_assert_float_eq(people_ari(&p), 1.0, 1e-12, "seed %d: %g", (int)seed,
                       people_ari(&p));
    people_close(&p);
  }
}

Test(cohort, four_groups_are_four_cohorts)
{
  people p;
  open_groups(&p, 3, 1000, 4);
  people_rounds(&p, 1, 120);
  cr_assert_eq(fl_cohort_set_count(p.set), 4);
  cr_assert_gt(people_ari(&p), .99);
  people_close(&p);
}

Test(cohort, clients_that_are_alike_stay_in_one)
{
  for (uint64_t seed = 21; seed <= 30; seed++) {
    people p;
    open_groups(&p, seed, 1000, 1);
    p.apart = 0.0;
    people_rounds(&p, 1, 200);
    cr_assert_eq(fl_cohort_set_count(p.set), 1);
    cr_assert_eq(p.events[FL_COHORT_KEPT], 0, "seed %d", (int)seed);
    people_close(&p);
  }
}

/* Geometry says two, losses do not: what skewed labels do. */
Test(cohort, split_that_no_loss_confirms_is_undone)
{
  people p;
  open_groups(&p, 4, 1000, 2);
  for (uint32_t round = 1; round <= 60; round++) {
    for (uint32_t m = 0; m < PEOPLE_CAP; m++)
      p.share[m][0] = p.share[m][1] = .5;
    people_round(&p, round);
  }
  cr_assert_gt(p.events[FL_COHORT_TRIAL], 0);
  cr_assert_eq(p.events[FL_COHORT_KEPT], 0);
  cr_assert_geq(p.events[FL_COHORT_UNDONE], 1);
  people_close(&p);
}

Test(cohort, failed_trials_wait_twice_as_long_each_time)
{
  people p;
  uint32_t at[8] = {0}, n = 0;
  open_groups(&p, 4, 1000, 2);
  for (uint32_t round = 1; round <= 160; round++) {
    for (uint32_t m = 0; m < PEOPLE_CAP; m++)
      p.share[m][0] = p.share[m][1] = .5;
    people_round(&p, round);
    if (p.events[FL_COHORT_UNDONE] > n && n < 8) at[n++] = round;
  }
  cr_assert_geq(n, 3);
  cr_assert_geq(at[1] - at[0], 20);
  cr_assert_geq(at[2] - at[1], 40);
  people_close(&p);
}

Test(cohort, who_moves_is_found_when_asked)
{
  people p;
  open_groups(&p, 5, 1000, 4);
  people_rounds(&p, 1, 100);
  cr_assert_eq(fl_cohort_set_count(p.set), 4);
  for (uint32_t i = 0; i < 1000; i += 3)
    p.group[i] = (uint8_t)((p.group[i] + 1) % 4);
  cr_assert_lt(people_ari(&p), .6);
  for (uint32_t round = 101; round <= 165; round++) {
    for (uint32_t k = 0; k < 20; k++)
      people_evaluate(&p, (round * 20 + k) % 1000, round);
    people_round(&p, round);
  }
  cr_assert_geq(people_ari(&p), .95, "%g", people_ari(&p));
  people_close(&p);
}

Test(cohort, tenth_of_random_sketches_does_not_hurt_the_others)
{
  people p;
  open_groups(&p, 6, 1000, 2);
  for (uint32_t i = 0; i < 1000; i += 10)
    p.is_random[i] = 1;
  people_rounds(&p, 1, 75);
  cr_assert_eq(p.events[FL_COHORT_KEPT], 1);
  cr_assert_eq(fl_cohort_set_count(p.set), 2);
  cr_assert_gt(people_ari(&p), .98, "%g", people_ari(&p));
  people_close(&p);
}

Test(cohort, cohorts_that_are_equal_are_merged)
{
  people p;
  open_groups(&p, 7, 1000, 2);
  people_rounds(&p, 1, 60);
  cr_assert_eq(fl_cohort_set_count(p.set), 2);
  /* From now on all are of one group, and newcomers compare. */
  p.apart = 0.0;
  for (uint32_t i = 0; i < 200; i++) {
    uint32_t slot;
    PEOPLE_MUST(fl_cohort_set_leave(p.set, i));
    PEOPLE_MUST(fl_cohort_set_join(p.set, i, 60, NULL, 0, &slot, NULL));
    cr_assert_eq(slot, i);
  }
  people_rounds(&p, 61, 90);
  cr_assert_eq(p.events[FL_COHORT_MERGED], 1);
  cr_assert_eq(fl_cohort_set_count(p.set), 1);
  people_close(&p);
}

Test(cohort, smaller_half_has_the_floor_at_least)
{
  people p;
  fl_cohort_options o = people_options();
  o.seed = 8;
  o.floor = .1f;
  people_open(&p, NULL, &o, 1000, 1);
  for (uint32_t i = 0; i < 1000; i += 20)
    p.group[i] = 1;
  people_rounds(&p, 1, 80);
  cr_assert_eq(p.events[FL_COHORT_TRIAL], 0);
  people_close(&p);
  o.floor = .0f;
  o.min_members = 500;
  people_open(&p, NULL, &o, 900, 2);
  people_rounds(&p, 1, 60);
  cr_assert_eq(p.events[FL_COHORT_TRIAL], 0);
  people_close(&p);
}

Test(cohort, there_are_no_more_than_the_cap)
{
  people p;
  fl_cohort_options o = people_options();
  o.cap = 3;
  people_open(&p, NULL, &o, 1000, 4);
  for (uint32_t round = 1; round <= 120; round++) {
    people_round(&p, round);
    cr_assert_leq(fl_cohort_set_count(p.set), 3);
  }
  cr_assert_eq(fl_cohort_set_count(p.set), 3);
  people_close(&p);
}

Test(cohort, rounds_with_few_participants_teach_nothing)
{
  people p;
  fl_cohort_options o = people_options();
  o.min_participants = 4;
  people_open(&p, NULL, &o, 100, 2);
  p.per_round = 3;
  people_rounds(&p, 1, 200);
  cr_assert_eq(p.events[FL_COHORT_TRIAL], 0);
  for (uint32_t i = 0; i < 100; i++)
    cr_assert_eq(people_member(&p, i).seen, 0);
  people_close(&p);
}

Test(cohort, order_of_cohorts_ends_does_not_matter)
{
  people a, b;
  open_groups(&a, 9, 400, 4);
  open_groups(&b, 9, 400, 4);
  for (uint32_t round = 1; round <= 80; round++) {
    for (uint32_t i = 0; i < 50; i++) {
      uint32_t client = (round * 50 + i * 3) % 400;
      people_train(&a, client, round);
      people_train(&b, client, round);
    }
    people_end_round(&a, round);
    for (uint32_t m = PEOPLE_CAP; m-- > 0;)
      people_end_cohort(&b, m, round);
    PEOPLE_MUST(fl_cohort_set_decide(b.set));
    people_follow(&b);
  }
  cr_assert_gt(a.events[FL_COHORT_KEPT], 0);
  cr_assert_arr_eq(a.events, b.events, sizeof a.events);
  for (uint32_t i = 0; i < 400; i++)
    cr_assert_eq(people_member(&a, i).cohort, people_member(&b, i).cohort);
  people_close(&a);
  people_close(&b);
}
