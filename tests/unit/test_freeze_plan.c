/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as bytes: from whoever decides to whoever follows, and from nobody
 * else. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6, CAPACITY = 512 };

typedef struct bytes {
  uint8_t data[CAPACITY];
  size_t n;
} bytes;

static bytes copy_plan(const fl_freeze *freeze)
{
  bytes plan;
  must(fl_freeze_copy_plan(freeze, plan.data, CAPACITY, &plan.n));
  return plan;
}

/* A plan of this version that freezes so many. */
static bytes plan_of(uint32_t n_modules, uint32_t first_active,
                     uint64_t version, const uint8_t *job)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  o.job = job;
  o.max_frozen = n_modules - 1;
  fl_freeze *freeze = freeze_make(n_modules, &o);
  freeze->state.first_active = first_active;
  freeze->state.version = version;
  for (uint32_t i = 0; i < first_active; i++)
    freeze->state.frozen[i] = 1;
  const bytes plan = copy_plan(freeze);
  fl_freeze_free(freeze);
  return plan;
}

static fl_freeze *follower(void)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  return freeze_make(MODULES, &o);
}

/* More than a prefix, as SAFE makes it. */
static bytes mask_plan(const uint8_t *frozen, uint32_t first_active,
                       uint64_t version)
{
  fl_freeze *f = follower();
  f->state.first_active = first_active;
  f->state.version = version;
  memcpy(f->state.frozen, frozen, MODULES);
  const bytes plan = copy_plan(f);
  fl_freeze_free(f);
  return plan;
}

static fl_status apply(fl_freeze *freeze, const bytes *plan)
{
  return fl_freeze_apply_plan(freeze, plan->data, plan->n);
}

/* Refused, and the plan held stays. */
static void expect_refused(fl_freeze *freeze, const bytes *plan, fl_status want)
{
  const bytes before = copy_plan(freeze);
  const fl_status st = apply(freeze, plan);
  const bytes after = copy_plan(freeze);
  cr_expect_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_expect_eq(before.n, after.n);
  cr_expect_eq(memcmp(before.data, after.data, before.n), 0);
}

Test(freeze_plan, goes_round)
{
  fl_freeze *f = follower();
  const bytes plan = plan_of(MODULES, 2, 7, NULL);
  fl_freeze_event event;
  must(apply(f, &plan));
  const fl_freeze_plan got = freeze_plan(f);
  cr_expect_eq(got.first_active, 2);
  cr_expect_eq(got.version, 7);
  cr_expect_eq(got.reason, FL_FREEZE_REASON_SERVER);
  cr_expect_eq(got.n_modules, MODULES);
  const uint8_t frozen[MODULES] = {1, 1, 0, 0, 0, 0};
  cr_expect_arr_eq(got.frozen, frozen, MODULES);
  cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.kind, FL_FREEZE_CHANGED);
  cr_expect_eq(event.version, 7);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_expect_eq(r.has_changed, 1);
  cr_expect_eq(r.first_active, 2);
  must(fl_freeze_end_step(f, 1));
  /* The same again changes nothing. */
  must(apply(f, &plan));
  cr_expect_eq(freeze_begin(f, .1f).has_changed, 0);
  cr_expect_eq(freeze_poll(f, &event), 0);
  fl_freeze_free(f);
}

Test(freeze_plan, size_is_told)
{
  fl_freeze *f = follower();
  uint8_t buffer[CAPACITY];
  size_t needed = 0, again = 0;
  must(fl_freeze_copy_plan(f, NULL, 0, &needed));
  cr_expect_eq(fl_freeze_copy_plan(f, buffer, needed - 1, &again), FL_E_SIZE);
  cr_expect_eq(again, needed);
  cr_expect_eq(fl_freeze_copy_plan(f, NULL, 4, &again), FL_E_ARGUMENT);
  must(fl_freeze_copy_plan(f, buffer, needed, &again));
  fl_freeze_free(f);
}

Test(freeze_plan, of_another_job_or_model_is_refused)
{
  const uint8_t job[FL_HASH_BYTES] = {1};
  fl_freeze *f = follower();
  const bytes other_job = plan_of(MODULES, 2, 7, job);
  const bytes other_model = plan_of(MODULES + 1, 2, 7, NULL);
  expect_refused(f, &other_job, FL_E_CONFLICT);
  expect_refused(f, &other_model, FL_E_DIM);
  fl_freeze_free(f);
}

Test(freeze_plan, that_freezes_the_head_is_refused)
{
  fl_freeze *f = follower();
  const bytes most = plan_of(MODULES, 4, 7, NULL);
  const bytes body = plan_of(MODULES, 5, 8, NULL);
  must(apply(f, &most));
  expect_refused(f, &body, FL_E_RANGE);
  bytes all = body;
  /* {1: 1, 2: job, 3: 6, 4: first_active ... */
  all.data[1 + 2 + 1 + 2 + FL_HASH_BYTES + 2 + 1] = MODULES;
  expect_refused(f, &all, FL_E_RANGE);
  fl_freeze_free(f);
}

Test(freeze_plan, older_ones_are_stale)
{
  fl_freeze *f = follower();
  const bytes newer = plan_of(MODULES, 2, 7, NULL);
  const bytes older = plan_of(MODULES, 1, 6, NULL);
  must(apply(f, &newer));
  expect_refused(f, &older, FL_E_STALE);
  fl_freeze_free(f);
}

Test(freeze_plan, is_followed_by_followers_only)
{
  const bytes plan = plan_of(MODULES, 2, 7, NULL);
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze *decides = freeze_make(MODULES, &o), *f = follower();
  expect_refused(decides, &plan, FL_E_STATE);
  must(apply(f, &plan));
  cr_expect_eq(fl_freeze_apply_plan(f, NULL, 3), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_apply_plan(f, NULL, 0), FL_E_TRUNCATED);
  fl_freeze_free(f);
  fl_freeze_free(decides);
}

/* A step that failed is never ended: nothing waits for it. */
Test(freeze_plan, drops_a_step_that_was_begun)
{
  const bytes plan = plan_of(MODULES, 2, 7, NULL);
  const bytes older = plan_of(MODULES, 1, 6, NULL);
  fl_freeze *f = follower();
  (void)freeze_begin(f, .1f);
  must(apply(f, &plan));
  cr_expect_eq(fl_freeze_end_step(f, 1), FL_E_STATE);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_expect_eq(r.step, 0);
  cr_expect_eq(r.has_changed, 1);
  cr_expect_eq(r.first_active, 2);
  /* One that is refused, or is held already, does not. */
  expect_refused(f, &older, FL_E_STALE);
  must(apply(f, &plan));
  must(fl_freeze_end_step(f, 1));
  fl_freeze_free(f);
}

/* The gradient before it goes on, the one pushed in it does not. */
Test(freeze_plan, that_keeps_the_front_keeps_the_history)
{
  static const uint8_t masks[2][MODULES] = {{0, 1}, {0, 1, 1}};
  const float gradient[] = {1, 2, 3};
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  o.reports = FL_FREEZE_GRADNORM;
  fl_freeze *f = freeze_make(MODULES, &o);
  freeze_trainer t = {f, .1f, 1, NULL, NULL};
  for (int i = 0; i < 6; i++)
    (void)freeze_step(&t);
  for (uint32_t i = 0; i < 2; i++) {
    const bytes plan = mask_plan(masks[i], 0, 3 + i);
    cr_assert_eq(freeze_begin(f, .1f).wants, FL_FREEZE_WANTS_GRADIENT);
    must(fl_freeze_push_gradient(f, 0, gradient, 3));
    must(apply(f, &plan));
    cr_expect_eq(f->state.gradient.values != NULL, i == 1);
    cr_expect_eq(f->has_change, 0);
    cr_assert_eq(freeze_begin(f, .1f).wants, FL_FREEZE_WANTS_GRADIENT);
    must(fl_freeze_push_gradient(f, 0, gradient, 3));
    must(fl_freeze_end_step(f, 1));
  }
  cr_expect_eq(f->state.n_evaluations, 2);
  fl_freeze_free(f);
}

Test(freeze_plan, cut_anywhere_is_refused)
{
  fl_freeze *f = follower();
  const bytes plan = plan_of(MODULES, 2, 7, NULL);
  for (size_t n = 0; n < plan.n; n++) {
    bytes cut = plan;
    cut.n = n;
    expect_refused(f, &cut, FL_E_TRUNCATED);
  }
  bytes longer = plan;
  longer.n++;
  expect_refused(f, &longer, FL_E_FORMAT);
  fl_freeze_free(f);
}

Test(freeze_plan, of_another_format_is_refused)
{
  fl_freeze *f = follower();
  bytes plan = plan_of(MODULES, 2, 7, NULL);
  cr_assert_eq(plan.data[2], 1);
  plan.data[2] = 2;
  expect_refused(f, &plan, FL_E_VERSION);
  plan.data[2] = 1;
  /* Six fields of seven. */
  plan.data[0]--;
  plan.n -= 2;
  expect_refused(f, &plan, FL_E_FORMAT);
  fl_freeze_free(f);
}

/* Another plan may come out, but none that no controller would make. */
Test(freeze_plan, flipped_bits_never_freeze_what_may_not)
{
  const bytes plan = plan_of(MODULES, 2, 7, NULL);
  int refused = 0;
  for (size_t bit = 0; bit < 8 * plan.n; bit++) {
    fl_freeze *f = follower();
    bytes bad = plan;
    bad.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    const fl_status st = apply(f, &bad);
    const fl_freeze_plan got = freeze_plan(f);
    refused += st != FL_OK;
    if (st != FL_OK) cr_assert(got.version == 0 && got.first_active == 0);
    cr_assert(got.first_active <= 4);
    for (uint32_t i = 0; i < MODULES; i++)
      cr_assert_eq(got.frozen[i], i < got.first_active);
    fl_freeze_free(f);
  }
  cr_expect(refused > (int)(8 * plan.n) * 9 / 10, "%d of %d", refused,
            (int)(8 * plan.n));
}

Test(freeze_plan, modules_behind_the_prefix_go_round)
{
  static const struct {
    uint8_t frozen[MODULES];
    uint32_t first_active;
    fl_status want;
  } rows[] = {
      {{1, 0, 1, 1, 0, 0}, 1, FL_OK},
      {{0, 0, 0, 1, 0, 0}, 0, FL_OK},
      {{0, 0, 0, 0, 1, 0}, 0, FL_E_RANGE},
      {{0, 0, 0, 0, 0, 1}, 0, FL_E_RANGE},
      {{1, 0, 1, 0, 0, 0}, 0, FL_E_FORMAT},
      {{1, 0, 1, 0, 0, 0}, 2, FL_E_FORMAT},
      {{0, 2, 0, 0, 0, 0}, 0, FL_E_FORMAT},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    fl_freeze *f = follower();
    const bytes plan = mask_plan(rows[i].frozen, rows[i].first_active, 3);
    const fl_status st = apply(f, &plan);
    cr_expect_eq(st, rows[i].want, "%zu: %s", i, fl_last_error());
    if (st == FL_OK)
      cr_expect_arr_eq(freeze_plan(f).frozen, rows[i].frozen, MODULES);
    fl_freeze_free(f);
  }
}

Test(freeze_plan, follower_reports_what_it_is_told_to)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  fl_freeze_report report;
  must(fl_freeze_report_init(&report, sizeof report));
  freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, NULL, NULL};
  for (int i = 0; i < 64; i++)
    cr_assert_eq(freeze_step(&t).wants, 0);
  cr_expect_eq(fl_freeze_take_report(t.freeze, &report), FL_E_EMPTY);
  fl_freeze_free(t.freeze);
  o.reports = FL_FREEZE_GRADNORM;
  t.freeze = freeze_make(MODULES, &o);
  const bytes plan = plan_of(MODULES, 1, 2, NULL);
  must(apply(t.freeze, &plan));
  for (int i = 0; i < 400; i++)
    (void)freeze_step(&t);
  must(fl_freeze_take_report(t.freeze, &report));
  cr_expect_eq(report.module, 1);
  cr_expect_float_eq(report.value, .1, 1e-15);
  cr_expect_eq(report.weight, 1);
  cr_expect_eq(fl_freeze_take_report(t.freeze, &report), FL_E_EMPTY);
  /* It measures, and decides nothing. */
  cr_expect_eq(freeze_plan(t.freeze).version, 2);
  fl_freeze_free(t.freeze);
}

/* Within a round the gradient stays, from round to round it jumps: weights of
 * another round are not compared with. */
Test(freeze_plan, report_compares_no_gradients_of_two_rounds)
{
  for (uint64_t steps = 1; steps <= 5; steps++) {
    fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
    fl_freeze_report report;
    uint32_t n_reports = 0;
    o.reports = FL_FREEZE_GRADNORM;
    o.steps_per_epoch = steps;
    o.interval = 2;
    must(fl_freeze_report_init(&report, sizeof report));
    fl_freeze *f = freeze_make(MODULES, &o);
    for (int round = 1; round <= 8; round++) {
      const float gradient[2] = {100.f * (float)round, -1};
      for (uint64_t i = 0; i < steps; i++) {
        if (freeze_begin(f, .1f).wants & FL_FREEZE_WANTS_GRADIENT)
          must(fl_freeze_push_gradient(f, 0, gradient, 2));
        must(fl_freeze_end_step(f, 1));
      }
      const fl_status st = fl_freeze_take_report(f, &report);
      if (st == FL_E_EMPTY) continue;
      must(st);
      n_reports++;
      cr_expect_eq(report.value, 0);
    }
    cr_expect_eq(n_reports > 0, steps > 1, "%u steps", (unsigned)steps);
    fl_freeze_free(f);
  }
}

/* And so with snapshots: each round begins with one of its own. */
Test(freeze_plan, snapshot_is_of_the_round)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  fl_freeze_report report;
  o.reports = FL_FREEZE_PLASTICITY;
  must(fl_freeze_report_init(&report, sizeof report));
  freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, NULL, NULL};
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 16; i++) {
      const uint32_t wants = freeze_step(&t).wants;
      cr_expect_eq((wants & FL_FREEZE_WANTS_SNAPSHOT) != 0, i == 3);
    }
    must(fl_freeze_take_report(t.freeze, &report));
  }
  fl_freeze_free(t.freeze);
}

static double rising(uint64_t step, uint32_t module, void *user)
{
  (void)module;
  (void)user;
  return .001 * (double)((step + 1) / 4);
}

Test(freeze_plan, report_of_plasticity_is_of_the_later_half)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  fl_freeze_report report;
  must(fl_freeze_report_init(&report, sizeof report));
  o.reports = FL_FREEZE_PLASTICITY;
  freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, rising, NULL};
  for (int i = 0; i < 20; i++)
    (void)freeze_step(&t);
  must(fl_freeze_take_report(t.freeze, &report));
  /* .001, .002, [.003, .004, .005] */
  cr_expect_float_eq(report.value, .004, 1e-7);
  fl_freeze_free(t.freeze);
}
