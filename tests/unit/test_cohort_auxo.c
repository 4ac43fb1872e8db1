/* SPDX-License-Identifier: Apache-2.0 */
/* Auxo's rule: groups are found, and each mistake of the published example is
 * shown to be mended. Features lie around a direction for each group. */
#include "cohort_fixture.h"

#include "cohort/cohort.h"
#include "oom/oom.h"

enum { DIM = 40, N = 400 };

typedef struct auxo {
  fl_cohort_set *set;
  uint64_t state;
  uint8_t group[N];
  double length[N]; /* of updates */
  uint32_t splits;
  uint32_t round;
} auxo;

static void open_auxo_of(auxo *a, uint32_t cap, uint32_t is_published,
                         const uint32_t *splits, uint32_t n_splits)
{
  fl_cohort_options o = people_options();
  o.rule = FL_COHORT_AUXO;
  o.dim = DIM;
  o.cap = cap;
  o.is_published = is_published;
  o.splits = splits;
  o.n_splits = n_splits;
  *a = (auxo){.state = 3};
  PEOPLE_MUST(fl_cohort_set_new(&a->set, NULL, &o));
  for (uint32_t i = 0; i < N; i++) {
    uint32_t slot;
    a->group[i] = i % 2;
    a->length[i] = 1.0;
    PEOPLE_MUST(fl_cohort_set_join(a->set, i, 0, NULL, 0, &slot, NULL));
  }
}

static void open_auxo(auxo *a, uint32_t is_published, const uint32_t *splits,
                      uint32_t n_splits)
{
  open_auxo_of(a, 4, is_published, splits, n_splits);
}

static uint32_t cohort_of(const auxo *a, uint32_t client)
{
  return a->set->members[client].leaf;
}

static void train(auxo *a, uint32_t client)
{
  fl_cohort_report report;
  float feature[DIM];
  uint64_t direction = 50 + a->group[client];
  for (uint32_t j = 0; j < DIM; j++) {
    feature[j] = (float)(a->length[client] * (people_uniform(&direction) +
                                              .5 * people_uniform(&a->state)));
  }
  PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
  report.cohort = cohort_of(a, client);
  report.round = a->round;
  report.feature = feature;
  report.loss = 1.0;
  PEOPLE_MUST(fl_cohort_set_report(a->set, client, &report));
}

static void end(auxo *a, uint32_t cohort)
{
  fl_cohort_event event;
  PEOPLE_MUST(fl_cohort_set_end_round(a->set, cohort, a->round));
  PEOPLE_MUST(fl_cohort_set_decide(a->set));
  PEOPLE_MUST(fl_cohort_event_init(&event, sizeof event));
  while (fl_cohort_set_poll(a->set, &event) == FL_OK)
    a->splits += event.kind == FL_COHORT_SPLIT;
}

/* Each cohort in its turn, `want` members. */
static void rounds(auxo *a, uint32_t n, uint32_t want)
{
  for (uint32_t i = 0; i < n; i++) {
    uint32_t n_cohorts = fl_cohort_set_count(a->set);
    for (uint32_t m = 0; m < n_cohorts; m++) {
      uint32_t slots[N], found;
      fl_cohort_pick pick;
      a->round++;
      PEOPLE_MUST(fl_cohort_pick_init(&pick, sizeof pick));
      pick.cohort = m;
      pick.round = a->round;
      pick.want = want;
      PEOPLE_MUST(fl_cohort_set_pick(a->set, &pick, slots, &found));
      for (uint32_t k = 0; k < found; k++)
        train(a, slots[k]);
      end(a, m);
    }
  }
}

/* Share of clients who are in the cohort where most of their group are. */
static double purity(const auxo *a)
{
  uint32_t counts[4][2] = {{0}}, right = 0;
  for (uint32_t i = 0; i < N; i++)
    counts[cohort_of(a, i)][a->group[i]]++;
  for (uint32_t m = 0; m < 4; m++)
    right += counts[m][0] > counts[m][1] ? counts[m][0] : counts[m][1];
  return (double)right / N;
}

Test(cohort_auxo, two_groups_are_found)
{
  auxo a;
  open_auxo(&a, 0, NULL, 0);
  rounds(&a, 100, 20);
  cr_assert_geq(a.splits, 1);
  cr_assert_geq(purity(&a), .9, "%g", purity(&a));
  fl_cohort_set_free(a.set);
}

/* After a split participants are a part of the clients: what is learned goes to
 * their slots, not to their places among the participants. */
Test(cohort_auxo, what_is_learned_goes_to_the_clients_who_trained)
{
  static const uint32_t first[] = {1};
  auxo a;
  open_auxo(&a, 0, first, 1);
  rounds(&a, 1, 20);
  cr_assert_eq(a.splits, 1);
  uint32_t cohort = 1, trained = 0;
  a.round++;
  for (uint32_t i = N / 2; i < N && trained < 10; i++) {
    if (cohort_of(&a, i) != cohort) continue;
    train(&a, i);
    trained++;
  }
  fli_affinity before[N];
  for (uint32_t i = 0; i < N; i++)
    before[i] = a.set->affinities[i * 4 + cohort];
  end(&a, cohort);
  for (uint32_t i = 0; i < N / 2; i++) {
    const fli_affinity *now = &a.set->affinities[i * 4 + cohort];
    cr_assert_eq(before[i].times, now->times);
    cr_assert_eq(before[i].s, now->s);
  }
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, exploration_decays_once_per_round)
{
  auxo a;
  open_auxo(&a, 0, NULL, 0);
  double before = a.set->exploration;
  rounds(&a, 1, 20);
  cr_assert_float_eq(a.set->exploration, .99 * before, 1e-15);
  rounds(&a, 1, 20);
  cr_assert_float_eq(a.set->exploration, .99 * .99 * before, 1e-15);
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, affinity_forgets_so_that_who_moves_is_let_go)
{
  auxo a;
  open_auxo(&a, 0, NULL, 0);
  rounds(&a, 150, 20);
  double found = purity(&a);
  cr_assert_geq(found, .9);
  for (uint32_t i = 0; i < N; i++)
    cr_assert_lt(a.set->affinities[i * 4].r, 101.0); /* 5 / (1 - KEEP) + 1 */
  for (uint32_t i = 0; i < N; i += 5)
    a.group[i] = 1 - a.group[i];
  double moved = purity(&a);
  rounds(&a, 300, 20);
  cr_assert_gt(purity(&a), moved + .05, "%g, was %g", purity(&a), moved);
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, half_that_is_known_can_be_revised)
{
  auxo a;
  open_auxo_of(&a, 1, 0, NULL, 0); /* halves, and no split */
  rounds(&a, 30, 20);
  /* Client 0 joins the others: its votes turn within a few rounds. */
  for (uint32_t i = 0; i < 10; i++) {
    a.round++;
    for (uint32_t k = 0; k < 20; k++)
      train(&a, k);
    end(&a, 0);
  }
  const float before = a.set->affinities[0].s;
  cr_assert_neq(before, 0.0f);
  a.group[0] = 1;
  for (uint32_t i = 0; i < 10; i++) {
    a.round++;
    for (uint32_t k = 0; k < 20; k++)
      train(&a, k);
    end(&a, 0);
  }
  cr_assert_lt(before * a.set->affinities[0].s, 0.0f);
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, clients_with_large_updates_are_not_far_away)
{
  for (uint32_t is_published = 0; is_published < 2; is_published++) {
    static const uint32_t first[] = {1};
    auxo a;
    double large = 0.0, others = 0.0;
    open_auxo(&a, is_published, first, 1);
    for (uint32_t i = 0; i < N; i++)
      a.group[i] = 0;
    for (uint32_t i = 0; i < N; i += 10)
      a.length[i] = 6.0;
    rounds(&a, 30, 40);
    for (uint32_t i = 0; i < N; i++) {
      const fli_affinity *r = &a.set->affinities[i * 4 + cohort_of(&a, i)];
      if (isinf(r->r)) continue;
      if (i % 10 == 0) large += r->r / (N / 10);
      if (i % 10 != 0) others += r->r / (N - N / 10);
    }
    if (is_published) cr_assert_lt(large, .5 * others);
    if (!is_published)
      cr_assert_gt(large, .5 * others, "%g, %g", large, others);
    fl_cohort_set_free(a.set);
  }
}

/* 5 % a round: no round has enough participants, but all clients count. */
Test(cohort_auxo, gate_of_sizes_opens_at_low_participation)
{
  auxo a;
  open_auxo(&a, 0, NULL, 0);
  rounds(&a, 100, N / 20);
  cr_assert_geq(a.splits, 1);
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, clients_that_are_alike_are_not_split_by_plan)
{
  auxo a;
  open_auxo(&a, 0, NULL, 0);
  cr_assert_eq(a.set->options.n_splits, 0);
  fl_cohort_set_free(a.set);
  static const uint32_t planned[] = {3, 6};
  open_auxo(&a, 1, planned, 2);
  rounds(&a, 2, 20);
  cr_assert_eq(a.splits, 0);
  rounds(&a, 1, 20);
  cr_assert_eq(a.splits, 1);
  rounds(&a, 3, 20);
  cr_assert_geq(a.splits, 2);
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, features_that_cannot_be_are_refused)
{
  auxo a;
  fl_cohort_report report;
  float feature[DIM] = {0};
  open_auxo(&a, 0, NULL, 0);
  PEOPLE_MUST(fl_cohort_report_init(&report, sizeof report));
  report.round = 1;
  report.loss = 1.0;
  IS(fl_cohort_set_report(a.set, 0, &report), FL_E_DIM);
  report.feature = feature;
  IS(fl_cohort_set_report(a.set, 0, &report), FL_E_RANGE);
  feature[3] = NAN;
  IS(fl_cohort_set_report(a.set, 0, &report), FL_E_NOT_FINITE);
  feature[3] = INFINITY;
  IS(fl_cohort_set_report(a.set, 0, &report), FL_E_NOT_FINITE);
  feature[3] = 1.0f;
  report.cohort = 1;
  IS(fl_cohort_set_report(a.set, 0, &report), FL_E_STALE);
  report.cohort = 0;
  PEOPLE_MUST(fl_cohort_set_report(a.set, 0, &report));
  fl_cohort_set_free(a.set);
}

Test(cohort_auxo, saved_state_goes_on_to_the_same_choices)
{
  auxo a, b;
  size_t n;
  open_auxo(&a, 0, NULL, 0);
  rounds(&a, 60, 20);
  open_auxo(&b, 0, NULL, 0);
  uint8_t *bytes = bytes_of(a.set, &n);
  PEOPLE_MUST(load_bytes(b.set, bytes, n));
  free(bytes);
  b.state = a.state;
  b.round = a.round;
  rounds(&a, 40, 20);
  rounds(&b, 40, 20);
  bytes = bytes_of(a.set, &n);
  cr_assert(is_as(b.set, bytes, n));
  free(bytes);
  fl_cohort_set_free(a.set);
  fl_cohort_set_free(b.set);
}

/* ---- short of memory ---- */

/* Every cohort's round is over; nothing is decided yet. */
static void train_all(auxo *a)
{
  a->round++;
  for (uint32_t i = 0; i < N; i++)
    train(a, i);
  for (uint32_t m = 0; m < fl_cohort_set_count(a->set); m++)
    PEOPLE_MUST(fl_cohort_set_end_round(a->set, m, a->round));
}

static void open_with_heap(auxo *a, oom_heap *heap, fl_context **context)
{
  static const uint32_t planned[] = {3, 6};
  fl_cohort_options o = people_options();
  o.rule = FL_COHORT_AUXO;
  o.dim = DIM;
  o.cap = 4;
  o.splits = planned;
  o.n_splits = 2;
  *a = (auxo){.state = 3};
  PEOPLE_MUST(oom_context(context, heap));
  PEOPLE_MUST(fl_cohort_set_new(&a->set, *context, &o));
  for (uint32_t i = 0; i < N; i++) {
    uint32_t slot;
    a->group[i] = i % 2;
    a->length[i] = 1.0;
    PEOPLE_MUST(fl_cohort_set_join(a->set, i, 0, NULL, 0, &slot, NULL));
  }
}

/* Eight rounds of all cohorts together: one of them splits in the third, both
 * in the sixth. In each the decision's allocation number `fail_at` fails.
 * Returns the set's bytes, *n of them. */
static uint8_t *bytes_after_rounds(uint64_t fail_at, uint32_t *failures,
                                   size_t *n)
{
  auxo a;
  oom_heap heap = {.is_sticky = 0};
  fl_context *context = NULL;
  fl_cohort_event event;
  open_with_heap(&a, &heap, &context);
  *failures = 0;
  PEOPLE_MUST(fl_cohort_event_init(&event, sizeof event));
  for (uint32_t t = 0; t < 8; t++) {
    train_all(&a);
    heap.fail_at = fail_at > 0 ? heap.asked + fail_at : 0;
    fl_status st = fl_cohort_set_decide(a.set);
    heap.fail_at = 0;
    if (st == FL_E_NOMEM) {
      ++*failures;
      IS(fl_cohort_set_poll(a.set, &event), FL_E_EMPTY);
      st = fl_cohort_set_decide(a.set);
    }
    PEOPLE_MUST(st);
    while (fl_cohort_set_poll(a.set, &event) == FL_OK)
      a.splits += event.kind == FL_COHORT_SPLIT;
  }
  cr_assert_eq(a.splits, 3u);
  uint8_t *bytes = bytes_of(a.set, n);
  fl_cohort_set_free(a.set);
  fl_context_free(context);
  cr_assert_eq(heap.live_blocks, 0u);
  return bytes;
}

Test(cohort_auxo, decision_that_had_no_memory_is_made_when_there_is)
{
  uint32_t failures = 0;
  uint64_t fail_at = 1;
  size_t n = 0, n_now = 0;
  uint8_t *want = bytes_after_rounds(0, &failures, &n);
  cr_assert_eq(failures, 0u);
  do {
    uint8_t *now = bytes_after_rounds(fail_at, &failures, &n_now);
    cr_expect(n_now == n && memcmp(now, want, n) == 0, "%u", (unsigned)fail_at);
    if (fail_at == 1) cr_expect_eq(failures, 8u);
    free(now);
    fail_at++;
  } while (failures > 0);
  free(want);
}
