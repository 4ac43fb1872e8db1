/* SPDX-License-Identifier: Apache-2.0 */
/* What a review of the cohorts found, one test each. */
#include "cohort_fixture.h"

#include "cohort/cohort.h"

/* ---- numbers that are too large ------------------------------------------ */

Test(cohort_review, largest_features_as_published_leave_numbers)
{
  fl_cohort_options o = people_options();
  fl_cohort_set *set = NULL;
  fl_cohort_report report;
  float feature[PEOPLE_DIM];
  o.rule = FL_COHORT_AUXO;
  o.is_published = 1;
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, &o));
  for (uint32_t i = 0; i < 20; i++) {
    uint32_t slot;
    PEOPLE_MUST(fl_cohort_set_join(set, i, 0, NULL, 0, &slot, NULL));
  }
  for (uint32_t t = 1; t <= 12; t++) {
    for (uint32_t i = 0; i < 20; i++) {
      fl_cohort_member member;
      PEOPLE_MUST(fl_cohort_member_init(&member, sizeof member));
      PEOPLE_MUST(fl_cohort_set_get_member(set, i, &member));
      PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
      for (uint32_t j = 0; j < PEOPLE_DIM; j++)
        feature[j] = (j + i) % 2 ? 1e15f : -1e15f;
      report.cohort = member.cohort;
      report.round = t;
      report.feature = feature;
      PEOPLE_MUST(fl_cohort_set_report(set, i, &report));
    }
    for (uint32_t m = 0; m < PEOPLE_CAP; m++) {
      if (set->leaves[m].is_alive)
        PEOPLE_MUST(fl_cohort_set_end_round(set, m, t));
    }
    PEOPLE_MUST(fl_cohort_set_decide(set));
    fl_cohort_event event;
    PEOPLE_MUST(fl_cohort_event_init(&event, sizeof event));
    while (fl_cohort_set_poll(set, &event) == FL_OK)
      cr_assert_eq(event.round, t);
  }
  for (size_t i = 0; i < 20 * PEOPLE_CAP; i++)
    cr_assert(!isnan(set->affinities[i].r) && isfinite(set->affinities[i].s));
  feature[3] = 2e15f;
  report.round = 13;
  IS(fl_cohort_set_report(set, 0, &report), FL_E_RANGE);
  fl_cohort_set_free(set);
}

Test(cohort_review, state_of_auxo_has_no_rows)
{
  fl_cohort_options o = people_options();
  fl_cohort_set *set = NULL;
  size_t n = 0;
  o.rule = FL_COHORT_AUXO;
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, &o));
  PEOPLE_MUST(fli_leaf_room(set, &set->leaves[0]));
  set->leaves[0].n_buffer = 1;
  uint8_t *data = bytes_of(set, &n);
  IS(load_bytes(set, data, n), FL_E_DIM);
  free(data);
  fl_cohort_set_free(set);
}

Test(cohort_review, huge_loss_of_one_client_hides_no_spikes)
{
  static people p;
  open_two(&p);
  const double before = route_of(&p, 2, 61, NAN).limit;
  cr_assert(isfinite(before));
  for (uint32_t t = 61; t < 70; t++) {
    fl_cohort_report report;
    uint8_t sketch[PEOPLE_DIM / 2];
    for (uint32_t i = 0; i < 40; i += 2) {
      PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
      people_sketch(&p, i, sketch);
      report.cohort = route_of(&p, i, t, NAN).cohort;
      report.round = t;
      report.sketch = sketch;
      report.sketch_size = sizeof sketch;
      report.loss = i == 0 ? before * .999 : people_loss(&p, report.cohort, i);
      PEOPLE_MUST(fl_cohort_set_report(p.set, i, &report));
    }
    for (uint32_t m = 0; m < 2; m++)
      PEOPLE_MUST(fl_cohort_set_end_round(p.set, m, t));
    PEOPLE_MUST(fl_cohort_set_decide(p.set));
  }
  const double after = route_of(&p, 2, 70, NAN).limit;
  cr_assert_lt(after, before * 1.2, "limit: %g, then %g", before, after);
  people_close(&p);
}

/* The first rounds have no limit yet: whatever one client says is learned. */
Test(cohort_review, first_losses_are_cut_too)
{
  static people p;
  fl_cohort_info info;
  open_groups(&p, 7, 40, 1);
  fl_cohort_report report;
  uint8_t sketch[PEOPLE_DIM / 2];
  for (uint32_t i = 0; i < 20; i++) {
    PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
    people_sketch(&p, i, sketch);
    report.round = 1;
    report.sketch = sketch;
    report.sketch_size = sizeof sketch;
    report.loss = i == 3 ? 1e30 : 1.0 + .01 * i;
    PEOPLE_MUST(fl_cohort_set_report(p.set, i, &report));
  }
  PEOPLE_MUST(fl_cohort_set_end_round(p.set, 0, 1));
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  info = info_of(&p, 0);
  cr_assert_lt(info.deviation, .3);
  people_close(&p);
}

/* ---- cohorts with rounds of their own ------------------------------------ */

Test(cohort_review, number_of_a_round_may_be_another_cohorts_too)
{
  static people p;
  fl_cohort_report report;
  uint8_t sketch[PEOPLE_DIM / 2];
  uint32_t both[2] = {0, 1};
  double losses[2] = {9.0, .1};
  open_two(&p);
  const uint32_t home = route_of(&p, 0, 61, NAN).cohort;
  PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
  people_sketch(&p, 0, sketch);
  report.cohort = home;
  report.round = 61;
  report.loss = .3;
  report.sketch = sketch;
  report.sketch_size = sizeof sketch;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &report));
  IS(fl_cohort_set_report(p.set, 0, &report), FL_E_DUPLICATE);
  PEOPLE_MUST(fl_cohort_set_end_round(p.set, home, 61));
  PEOPLE_MUST(fl_cohort_set_decide(p.set));
  both[0] = home;
  both[1] = 1 - home;
  cr_assert_eq(route_of(&p, 0, 61, losses[0]).chooses, 1u);
  report.cohort = 1 - home;
  report.loss = losses[1];
  report.n_probes = 2;
  report.probes = both;
  report.losses = losses;
  PEOPLE_MUST(fl_cohort_set_report(p.set, 0, &report));
  IS(fl_cohort_set_report(p.set, 0, &report), FL_E_DUPLICATE);
  people_close(&p);
}

/* ---- merges beside trials ------------------------------------------------ */

static uint32_t decide_with_equal_pair(people *p, uint32_t round)
{
  fl_cohort_event event;
  uint32_t merged = 0;
  fli_pair *pair = &p->set->pairs[0 * PEOPLE_CAP + 1];
  memset(pair, 0, sizeof *pair);
  pair->n = FLI_COHORT_PAIR;
  for (uint32_t m = 0; m < PEOPLE_CAP; m++) {
    if (p->set->leaves[m].is_alive)
      PEOPLE_MUST(fl_cohort_set_end_round(p->set, m, round));
  }
  PEOPLE_MUST(fl_cohort_set_decide(p->set));
  PEOPLE_MUST(fl_cohort_event_init(&event, sizeof event));
  while (fl_cohort_set_poll(p->set, &event) == FL_OK)
    merged += event.kind == FL_COHORT_MERGED;
  return merged;
}

Test(cohort_review, half_of_a_trial_is_not_merged_before_its_verdict)
{
  static people p;
  open_two(&p);
  fli_leaf_begin(p.set, 2, 60);
  p.set->trials[0] = (fli_trial){.parent = 1, .child = 2, .begun = 60};
  p.set->n_trials = 1;
  cr_assert_eq(decide_with_equal_pair(&p, 61), 0u);
  cr_assert_eq(p.set->n_trials, 1u);
  p.set->n_trials = 0;
  cr_assert_eq(decide_with_equal_pair(&p, 62), 1u);
  people_close(&p);
}

/* What was compared with a cohort that ends does not speak of the one that
 * gets its number. */
Test(cohort_review, nothing_speaks_of_a_cohort_that_has_ended)
{
  static people p;
  open_two(&p);
  fli_leaf_begin(p.set, 2, 60);
  fli_leaf_begin(p.set, 3, 60);
  p.set->trials[0] = (fli_trial){
      .parent = 2, .child = 3, .begun = 60, .n = 2, .third = {1, 0}};
  p.set->n_trials = 1;
  cr_assert_eq(decide_with_equal_pair(&p, 61), 1u);
  cr_assert(!p.set->leaves[1].is_alive);
  cr_assert_eq(p.set->trials[0].third[0], FLI_COHORT_NO_LEAF);
  cr_assert_eq(p.set->trials[0].third[1], 0u);
  people_close(&p);
}

/* ---- events -------------------------------------------------------------- */

Test(cohort_review, events_of_trials_count_members)
{
  static people p;
  uint32_t t = 1;
  open_groups(&p, 7, 200, 2);
  for (; p.events[FL_COHORT_TRIAL] == 0 && t < 60; t++)
    people_rounds(&p, t, t);
  cr_assert_eq(p.last.kind, FL_COHORT_TRIAL);
  cr_assert_eq(p.last.weight + p.last.child_weight, 200u);
  cr_assert_gt(p.last.child_weight, 50u);
  for (; p.events[FL_COHORT_KEPT] == 0 && t < 90; t++)
    people_rounds(&p, t, t);
  cr_assert_eq(p.last.kind, FL_COHORT_KEPT);
  cr_assert_eq(p.last.weight, 100u);
  cr_assert_eq(p.last.child_weight, 100u);
  people_close(&p);
}

/* ---- few clients --------------------------------------------------------- */

static int is_needed(const people *p, uint32_t slot)
{
  fl_cohort_member member;
  PEOPLE_MUST(fl_cohort_member_init(&member, sizeof member));
  PEOPLE_MUST(fl_cohort_set_get_member(p->set, slot, &member));
  return member.is_needed != 0;
}

/* Half of them train in each round: who is needed is asked instead. */
static uint32_t run_few(people *p, uint32_t n)
{
  uint32_t waited = 0;
  for (uint32_t t = 1; t <= 80; t++) {
    for (uint32_t i = 0; i < n; i++) {
      if (is_needed(p, i)) {
        waited++;
        people_evaluate(p, i, t);
      } else if (people_below(p, 2)) {
        people_train(p, i, t);
      }
    }
    people_end_round(p, t);
  }
  return waited;
}

Test(cohort_review, few_clients_are_kept_from_training_until_they_compare)
{
  static people p;
  open_groups(&p, 3, 40, 2);
  cr_assert_gt(run_few(&p, 40), 0u);
  cr_assert_geq(p.events[FL_COHORT_KEPT], 1u);
  cr_assert_float_eq(people_ari(&p), 1.0, 1e-12);
  for (uint32_t i = 0; i < 40; i++)
    cr_assert(!is_needed(&p, i));
  people_close(&p);
}

Test(cohort_review, few_clients_that_are_alike_stay_one)
{
  static people p;
  open_groups(&p, 3, 40, 1);
  p.apart = 0.0;
  (void)run_few(&p, 40);
  cr_assert_eq(p.events[FL_COHORT_KEPT], 0u);
  people_close(&p);
}

Test(cohort_review, nobody_waits_where_clients_are_many)
{
  static people p;
  open_groups(&p, 7, 1000, 2);
  for (uint32_t t = 1; t <= 40; t++) {
    people_rounds(&p, t, t);
    for (uint32_t i = 0; i < 1000; i++)
      cr_assert(!is_needed(&p, i));
  }
  cr_assert_eq(p.events[FL_COHORT_KEPT], 1u);
  people_close(&p);
}
