/* SPDX-License-Identifier: Apache-2.0 */
/* One client's round: where it is routed, what it may report, and that a bad
 * report changes nothing. */
#include "cohort_fixture.h"

enum { ROUND = 61 };

static const uint32_t both[] = {0, 1};

/* A good report of client 0, who is in its cohort. */
typedef struct good {
  fl_cohort_report report;
  double losses[2];
  uint8_t sketch[PEOPLE_DIM / 2];
} good;

static void make_good(people *p, good *g)
{
  people_sketch(p, 0, g->sketch);
  PEOPLE_MUST(fl_cohort_report_init(&g->report, sizeof g->report));
  g->report.cohort = people_member(p, 0).cohort;
  g->report.round = ROUND;
  g->report.sketch = g->sketch;
  g->report.sketch_size = sizeof g->sketch;
  g->report.loss = .3;
  g->losses[0] = g->losses[1] = .5;
  g->losses[g->report.cohort] = .3;
  g->report.probes = both;
  g->report.losses = g->losses;
  g->report.n_probes = 2;
}

/* Refused, and the set is to the byte as before. */
static void is_refused(people *p, const fl_cohort_report *report, fl_status st)
{
  size_t n;
  uint8_t *before = bytes_of(p->set, &n);
  IS(fl_cohort_set_report(p->set, 0, report), st);
  cr_assert(strlen(fl_last_error()) > 0);
  cr_assert(is_as(p->set, before, n));
  free(before);
}

Test(cohort_report, losses_that_are_none_change_nothing)
{
  const double bad[] = {NAN, INFINITY, -INFINITY};
  people p;
  good g;
  open_two(&p);
  for (size_t i = 0; i < 3; i++) {
    make_good(&p, &g);
    g.report.loss = bad[i];
    is_refused(&p, &g.report, FL_E_NOT_FINITE);
    make_good(&p, &g);
    g.losses[1] = bad[i];
    is_refused(&p, &g.report, FL_E_NOT_FINITE);
  }
  make_good(&p, &g);
  g.losses[0] = -1.0;
  is_refused(&p, &g.report, FL_E_RANGE);
  make_good(&p, &g);
  g.report.loss = -1e-9;
  is_refused(&p, &g.report, FL_E_RANGE);
  people_close(&p);
}

/* Their squares, or what they are to a loss of 0, would be no numbers. */
Test(cohort_report, losses_too_large_change_nothing)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.loss = 1.0001e30;
  is_refused(&p, &g.report, FL_E_RANGE);
  make_good(&p, &g);
  g.losses[0] = 1e300;
  is_refused(&p, &g.report, FL_E_RANGE);
  people_close(&p);
}

Test(cohort_report, largest_losses_leave_a_state_that_loads)
{
  people p;
  fl_cohort_report report;
  uint8_t sketch[PEOPLE_DIM / 2];
  size_t n;
  open_groups(&p, 7, 200, 2);
  for (uint32_t i = 0; i < 20; i++) {
    people_sketch(&p, i, sketch);
    PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
    report.round = 1;
    report.sketch = sketch;
    report.sketch_size = sizeof sketch;
    report.loss = i % 2 ? 1e30 : 0.0;
    PEOPLE_MUST(fl_cohort_set_report(p.set, i, &report));
  }
  PEOPLE_MUST(fl_cohort_set_end_round(p.set, 0, 1));
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  cr_assert(isfinite(info_of(&p, 0).deviation));
  uint8_t *bytes = bytes_of(p.set, &n);
  PEOPLE_MUST(load_bytes(p.set, bytes, n));
  free(bytes);
  people_close(&p);
}

Test(cohort_report, sketches_of_another_size_change_nothing)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.sketch_size--;
  is_refused(&p, &g.report, FL_E_DIM);
  make_good(&p, &g);
  g.report.sketch = NULL;
  is_refused(&p, &g.report, FL_E_DIM);
  people_close(&p);
}

Test(cohort_report, probes_that_cannot_be_change_nothing)
{
  static const uint32_t twice[] = {0, 0}, dead[] = {0, 5}, beyond[] = {0, 99};
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.probes = twice;
  is_refused(&p, &g.report, FL_E_RANGE);
  g.report.probes = dead;
  is_refused(&p, &g.report, FL_E_STALE);
  g.report.probes = beyond;
  is_refused(&p, &g.report, FL_E_RANGE);
  make_good(&p, &g);
  g.report.n_probes = 9;
  is_refused(&p, &g.report, FL_E_RANGE);
  make_good(&p, &g);
  g.report.n_probes = 1;
  g.report.probes = both + 1 - g.report.cohort;
  is_refused(&p, &g.report, FL_E_RANGE);
  g.report.probes = NULL;
  is_refused(&p, &g.report, FL_E_ARGUMENT);
  people_close(&p);
}

Test(cohort_report, cohort_it_was_not_routed_to_changes_nothing)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.cohort = 1 - g.report.cohort;
  is_refused(&p, &g.report, FL_E_CONFLICT);
  g.report.n_probes = 0;
  is_refused(&p, &g.report, FL_E_CONFLICT);
  g.report.cohort = 5;
  is_refused(&p, &g.report, FL_E_STALE);
  g.report.cohort = FL_COHORT_NONE;
  is_refused(&p, &g.report, FL_E_STALE);
  people_close(&p);
}

Test(cohort_report, rounds_that_are_over_or_none_change_nothing)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.round = ROUND - 1;
  is_refused(&p, &g.report, FL_E_STALE);
  g.report.round = 0;
  is_refused(&p, &g.report, FL_E_ARGUMENT);
  g.report.round = UINT32_MAX;
  is_refused(&p, &g.report, FL_E_ARGUMENT);
  people_close(&p);
}

Test(cohort_report, second_one_in_a_round_is_a_duplicate)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  fl_cohort_member before = people_member(&p, 0);
  IS(fl_cohort_set_report(p.set, 0, &g.report), FL_E_DUPLICATE);
  fl_cohort_member after = people_member(&p, 0);
  cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
  /* Another round than the open one. */
  g.report.round = ROUND + 1;
  IS(fl_cohort_set_report(p.set, 2, &g.report), FL_E_STALE);
  people_close(&p);
}

/* One client that is above the limit whatever the model, and says so as often
 * as a merge wants comparisons. */
Test(cohort_report, one_client_alone_merges_no_cohorts)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.has_trained = 0;
  g.losses[0] = g.losses[1] = 1000.0;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  for (uint32_t i = 0; i < 40; i++)
    IS(fl_cohort_set_report(p.set, 0, &g.report), FL_E_DUPLICATE);
  for (uint32_t m = 0; m < 2; m++)
    PEOPLE_MUST(fl_cohort_set_end_round(p.set, m, ROUND));
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  cr_assert_eq(fl_cohort_set_count(p.set), 2);
  /* It may in the next round. */
  g.report.round = ROUND + 1;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  people_close(&p);
}

Test(cohort_report, round_that_has_ended_takes_none_until_decided)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  IS(fl_cohort_set_end_round(p.set, g.report.cohort, ROUND - 1), FL_E_STALE);
  PEOPLE_MUST(fl_cohort_set_end_round(p.set, g.report.cohort, ROUND));
  IS(fl_cohort_set_end_round(p.set, g.report.cohort, ROUND), FL_E_STATE);
  IS(fl_cohort_set_end_round(p.set, 5, ROUND), FL_E_NOT_FOUND);
  g.report.round = ROUND + 1;
  IS(fl_cohort_set_report(p.set, 0, &g.report), FL_E_STATE);
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  IS(fl_cohort_set_end_round(p.set, g.report.cohort, ROUND + 2), FL_E_STALE);
  people_close(&p);
}

Test(cohort_report, known_client_trains_its_own_model_alone)
{
  people p;
  open_two(&p);
  fl_cohort_route route = route_of(&p, 0, ROUND, NAN);
  cr_assert_eq(route.cohort, people_member(&p, 0).cohort);
  cr_assert_eq(route.n_probes, 0);
  cr_assert_eq(route.chooses, 0);
  cr_assert(isfinite(route.limit));
  people_close(&p);
}

Test(cohort_report, loss_above_the_limit_compares_all_and_moves)
{
  people p;
  good g;
  open_two(&p);
  fl_cohort_route route = route_of(&p, 0, ROUND, NAN);
  cr_assert_eq(route_of(&p, 0, ROUND, route.limit).n_probes, 0);
  route = route_of(&p, 0, ROUND, 2.0 * route.limit);
  cr_assert_eq(route.n_probes, 2);
  cr_assert_eq(route.chooses, 1);
  make_good(&p, &g);
  uint32_t old = g.report.cohort;
  g.losses[old] = 2.0 * route.limit;
  g.report.cohort = 1 - old;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  cr_assert_eq(people_member(&p, 0).cohort, 1 - old);
  cr_assert_eq(people_member(&p, 0).is_unknown, 0);
  people_close(&p);
}

Test(cohort_report, loss_above_the_limit_without_comparing_is_asked_again)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.n_probes = 0;
  g.report.loss = 100.0;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  cr_assert_eq(people_member(&p, 0).is_unknown, 1);
  cr_assert_eq(route_of(&p, 0, ROUND + 1, NAN).n_probes, 2);
  people_close(&p);
}

Test(cohort_report, evaluation_is_enough_to_notice_a_move)
{
  people p;
  good g;
  open_two(&p);
  make_good(&p, &g);
  g.report.has_trained = 0;
  g.report.sketch = NULL;
  g.report.probes = &g.report.cohort;
  g.report.n_probes = 1;
  g.losses[0] = .3;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  cr_assert_eq(people_member(&p, 0).is_unknown, 0);
  g.losses[0] = 100.0;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &g.report));
  cr_assert_eq(people_member(&p, 0).is_unknown, 1);
  cr_assert_neq(people_member(&p, 0).last, ROUND);
  people_close(&p);
}

Test(cohort_report, newcomer_compares_all_and_is_where_it_loses_least)
{
  people p;
  good g;
  uint32_t slot;
  open_two(&p);
  PEOPLE_MUST(fl_cohort_set_join(p.set, 5000, ROUND, NULL, 0, &slot, NULL));
  fl_cohort_route route = route_of(&p, slot, ROUND, NAN);
  cr_assert_eq(route.chooses, 1);
  cr_assert_eq(route.n_probes, 2);
  make_good(&p, &g);
  g.losses[0] = .6;
  g.losses[1] = .5;
  g.report.cohort = 0;
  IS(fl_cohort_set_report(p.set, slot, &g.report), FL_E_CONFLICT);
  g.report.cohort = 1;
  PEOPLE_MUST(fl_cohort_set_report(p.set, slot, &g.report));
  fl_cohort_member member = people_member(&p, slot);
  cr_assert_eq(member.cohort, 1);
  cr_assert_eq(member.is_unknown, 0);
  cr_assert_eq(member.last, ROUND);
  people_close(&p);
}

/* After a split: weak members know neither half, strong ones compare on trial.
 */
Test(cohort_report, trial_asks_members_who_have_not_trained_since)
{
  people p;
  uint32_t round = 1, asked = 0, between = 0;
  open_groups(&p, 7, 1000, 2);
  for (; p.events[FL_COHORT_TRIAL] == 0; round++)
    people_round(&p, round);
  for (uint32_t i = 0; i < 1000; i++) {
    fl_cohort_route route = route_of(&p, i, round, NAN);
    cr_assert(route.n_probes == 0 || route.chooses);
    between += people_member(&p, i).other != FL_COHORT_NONE;
  }
  cr_assert_gt(between, 0);
  for (uint32_t i = 0; i < 1000; i++) {
    fl_cohort_route route = route_of(&p, i, round + 7, NAN);
    asked += route.n_probes == 2 && !route.chooses;
  }
  cr_assert_eq(asked, 40);
  people_close(&p);
}

Test(cohort_report, losses_choose_under_the_loss_rule)
{
  fl_cohort_set *set = NULL;
  fl_cohort_options o = people_options();
  fl_cohort_report report;
  fl_cohort_route route;
  fl_cohort_member member;
  uint32_t slot;
  static const uint32_t all[] = {0, 1, 2};
  double losses[] = {.7, .2, .5};
  o.rule = FL_COHORT_LOSS;
  o.cap = 3;
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, &o));
  cr_assert_eq(fl_cohort_set_count(set), 3);
  PEOPLE_MUST(fl_cohort_set_join(set, 1, 0, NULL, 0, &slot, NULL));
  for (uint32_t round = 1; round <= 2; round++) {
    PEOPLE_MUST(fl_cohort_route_init(&route, sizeof route));
    PEOPLE_MUST(fl_cohort_set_route(set, slot, round, NAN, &route));
    cr_assert_eq(route.chooses, 1);
    cr_assert_eq(route.n_probes, 3);
    PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
    report.round = round;
    report.loss = .2;
    IS(fl_cohort_set_report(set, slot, &report), FL_E_CONFLICT);
    report.probes = all;
    report.losses = losses;
    report.n_probes = 3;
    IS(fl_cohort_set_report(set, slot, &report), FL_E_CONFLICT);
    report.cohort = round == 1 ? 1 : 2;
    losses[2] = round == 1 ? .5 : .1;
    PEOPLE_MUST(fl_cohort_set_report(set, slot, &report));
    PEOPLE_MUST(fl_cohort_member_init(&member, sizeof member));
    PEOPLE_MUST(fl_cohort_set_get_member(set, slot, &member));
    cr_assert_eq(member.cohort, report.cohort);
    for (uint32_t m = 0; m < 3; m++)
      PEOPLE_MUST(fl_cohort_set_end_round(set, m, round));
    PEOPLE_MUST(fl_cohort_set_decide(set));
    losses[2] = .1;
  }
  fl_cohort_set_free(set);
}

Test(cohort_report, slots_and_pointers_are_checked)
{
  people p;
  good g;
  fl_cohort_route route;
  open_two(&p);
  make_good(&p, &g);
  IS(fl_cohort_set_report(p.set, 200, &g.report), FL_E_NOT_FOUND);
  IS(fl_cohort_set_report(NULL, 0, &g.report), FL_E_ARGUMENT);
  IS(fl_cohort_set_report(p.set, 0, NULL), FL_E_ARGUMENT);
  PEOPLE_MUST(fl_cohort_route_init(&route, sizeof route));
  IS(fl_cohort_set_route(p.set, 0, 0, NAN, &route), FL_E_ARGUMENT);
  IS(fl_cohort_set_route(p.set, 200, 1, NAN, &route), FL_E_NOT_FOUND);
  IS(fl_cohort_set_route(NULL, 0, 1, NAN, &route), FL_E_ARGUMENT);
  IS(fl_cohort_set_end_round(NULL, 0, 1), FL_E_ARGUMENT);
  IS(fl_cohort_set_decide(NULL), FL_E_ARGUMENT);
  g.report.has_trained = 2;
  IS(fl_cohort_set_report(p.set, 0, &g.report), FL_E_ARGUMENT);
  people_close(&p);
}
