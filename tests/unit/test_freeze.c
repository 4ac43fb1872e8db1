/* SPDX-License-Identifier: Apache-2.0 */
/* Steps: when something is asked for, when it counts, and how what is decided
 * becomes the plan. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6 };

static double falling(uint64_t step, uint32_t module, void *user)
{
  (void)module;
  return user && step >= *(const uint64_t *)user ? .1 : 1;
}

static freeze_trainer open_trainer(const fl_freeze_options *o)
{
  return (freeze_trainer){freeze_make(MODULES, o), .1f, 1, falling, NULL};
}

Test(freeze, nothing_is_asked_for_before_the_loss_has_fallen)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  freeze_trainer t = open_trainer(&o);
  /* A plateau at the beginning, as flat as can be. */
  t.loss = 2.3;
  for (int i = 0; i < 400; i++)
    cr_assert_eq(freeze_step(&t).wants, 0);
  /* Falling, but not flat. */
  for (int i = 0; i < 80; i++) {
    t.loss *= .95;
    cr_assert_eq(freeze_step(&t).wants, 0);
  }
  /* Flat and low: the window that is compared has to be whole. */
  int n = 0;
  while (!freeze_step(&t).wants)
    cr_assert(++n < 24);
  cr_expect(n >= 16);
  fl_freeze_free(t.freeze);
}

Test(freeze, loss_at_its_first_level_does_not_end_bootstrapping)
{
  /* Of .6 times the first three: not at .6, but below. */
  for (int is_below = 0; is_below <= 1; is_below++) {
    fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
    freeze_trainer t = open_trainer(&o);
    uint32_t wants = 0;
    t.loss = 1;
    for (int i = 0; i < 3; i++)
      (void)freeze_step(&t);
    t.loss = (double).6f * (is_below ? .999 : 1);
    for (int i = 0; i < 100; i++)
      wants |= freeze_step(&t).wants;
    cr_expect_eq(wants != 0, is_below);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze, job_from_a_trained_model_waits_for_its_share)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.is_pretrained = 1;
  o.total_steps = 200;
  freeze_trainer t = open_trainer(&o);
  fl_freeze_request request;
  do
    request = freeze_step(&t);
  while (!request.wants);
  /* 40 steps of 200, and the first of a pair. */
  cr_expect_eq(request.step, 42);
  fl_freeze_free(t.freeze);
}

Test(freeze, gradients_are_wanted_on_two_steps_in_a_row)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  for (int i = 0; i < 40; i++) {
    const fl_freeze_request r = freeze_step(&t);
    const int is_wanted = (r.step + 2) % 4 == 0 || (r.step + 1) % 4 == 0;
    cr_expect_eq(r.wants, is_wanted ? FL_FREEZE_WANTS_GRADIENT : 0);
    cr_expect_eq(r.module, 0);
    cr_expect_eq(r.last, 4);
  }
  fl_freeze_free(t.freeze);
}

Test(freeze, pairs_come_with_a_snapshot_first_and_every_refresh)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_RELATIVE_PLASTICITY);
  o.refresh = 3;
  o.rows = 9;
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  int n = 0;
  for (int i = 0; i < 60; i++) {
    const fl_freeze_request r = freeze_step(&t);
    const uint32_t pair = FL_FREEZE_WANTS_PAIR | FL_FREEZE_WANTS_LAST_PAIR;
    cr_expect_eq(r.rows, 9);
    if ((r.step + 1) % 4 != 0) {
      cr_expect_eq(r.wants, 0);
    } else {
      cr_expect_eq(r.wants,
                   pair | (n++ % 3 == 0 ? FL_FREEZE_WANTS_SNAPSHOT : 0U));
    }
  }
  cr_expect(n > 10);
  fl_freeze_free(t.freeze);
}

Test(freeze, snapshot_that_nobody_made_is_wanted_again)
{
  const uint32_t pair = FL_FREEZE_WANTS_PAIR;
  fl_freeze_options o = freeze_options(FL_FREEZE_PLASTICITY);
  o.refresh = 3;
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  int n = 0;
  for (int i = 0; i < 48; i++) {
    const fl_freeze_request r = freeze_begin(t.freeze, .1f);
    /* Pairs are shown from the third one on, but for the sixth and seventh. */
    const int is_due = n < 3 || (n > 4 && n < 8) || n == 10;
    if (r.wants)
      cr_assert_eq(r.wants, pair | (is_due ? FL_FREEZE_WANTS_SNAPSHOT : 0U),
                   "%d", n);
    if (r.wants && n != 0 && n != 1 && n != 5 && n != 6)
      freeze_push_angle(t.freeze, r.module, .1);
    n += r.wants != 0;
    must(fl_freeze_end_step(t.freeze, 1));
  }
  cr_expect(n > 10);
  fl_freeze_free(t.freeze);
}

static double lower_pairs(uint64_t step, uint32_t module, void *user)
{
  (void)module;
  (void)user;
  return .2 * pow(.97, (double)step);
}

Test(freeze, new_snapshot_follows_a_change_of_the_plan)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_PLASTICITY);
  o.preset = FL_FREEZE_FAST;
  o.refresh = 1000;
  o.gap = 1;
  freeze_trainer t = open_trainer(&o);
  t.show = lower_pairs;
  freeze_boot(&t);
  int snapshots = 0, changes = 0;
  for (int i = 0; i < 400; i++) {
    const fl_freeze_request r = freeze_step(&t);
    snapshots += (r.wants & FL_FREEZE_WANTS_SNAPSHOT) != 0;
    changes += (int)r.has_changed;
  }
  cr_expect(changes >= 1);
  cr_expect_eq(snapshots, 1 + changes);
  fl_freeze_free(t.freeze);
}

/* 8 evaluations measure the maximum, `patience` more are below it. */
Test(freeze, patience_is_so_many_evaluations_and_no_fewer)
{
  for (uint32_t patience = 1; patience <= 9; patience += 4) {
    fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
    o.patience = patience;
    freeze_trainer t = open_trainer(&o);
    freeze_boot(&t);
    const uint64_t from = t.freeze->state.step;
    uint64_t at = from + 32;
    t.user = &at;
    /* The mean of 4 is below .9 from the first low value on: .775. */
    const uint64_t step = freeze_until(&t, 1, 1000);
    cr_expect_eq(step, from + 32 + 4 * patience, "%u: %d, from %d", patience,
                 (int)step, (int)from);
    fl_freeze_free(t.freeze);
  }
}

static double spiked(uint64_t step, uint32_t module, void *user)
{
  const uint64_t *at = user;
  (void)module;
  return step < at[0] ? 1 : step == at[1] ? 100 : .1;
}

Test(freeze, one_evaluation_above_begins_the_count_anew)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  const uint64_t from = t.freeze->state.step;
  /* At the 7th evaluation that counts; the mean of 4 remembers it for 3. */
  uint64_t at[] = {from + 32, from + 32 + 27};
  t.show = spiked;
  t.user = at;
  cr_expect_eq(freeze_until(&t, 1, 1000), from + 32 + 28 + 12 + 32);
  fl_freeze_free(t.freeze);
}

Test(freeze, gap_lies_between_two_freezes)
{
  for (uint64_t gap = 64; gap <= 512; gap *= 8) {
    fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
    o.gap = gap;
    freeze_trainer t = open_trainer(&o);
    freeze_boot(&t);
    uint64_t at = t.freeze->state.step + 32;
    t.user = &at;
    const uint64_t first = freeze_until(&t, 1, 10000);
    at = first + 32;
    const uint64_t second = freeze_until(&t, 2, 10000);
    /* 16 evaluations of 4 steps are needed in any case. */
    cr_expect_eq(second - first, gap);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze, hold_comes_before_the_first_freeze)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.hold = 402;
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  uint64_t at = t.freeze->state.step + 32;
  t.user = &at;
  /* At the first evaluation that ends at it or after. */
  cr_expect_eq(freeze_until(&t, 1, 10000), 404);
  fl_freeze_free(t.freeze);
}

static double always_lower(uint64_t step, uint32_t module, void *user)
{
  (void)module;
  (void)user;
  return pow(.97, (double)step);
}

Test(freeze, freezing_stops_at_max_frozen)
{
  for (uint32_t max = 1; max < MODULES; max++) {
    fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
    o.max_frozen = max;
    o.gap = 1;
    freeze_trainer t = open_trainer(&o);
    t.show = always_lower;
    freeze_boot(&t);
    for (int i = 0; i < 800; i++) {
      const fl_freeze_request r = freeze_step(&t);
      cr_assert(r.first_active <= max);
      cr_assert(r.first_active < max || r.wants == 0);
    }
    cr_expect_eq(freeze_plan(t.freeze).first_active, max);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze, plan_changes_at_the_beginning_of_a_step)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  freeze_trainer t = open_trainer(&o);
  t.show = always_lower;
  freeze_boot(&t);
  uint64_t versions = 0;
  for (int i = 0; i < 500; i++) {
    const fl_freeze_plan before = freeze_plan(t.freeze);
    const fl_freeze_request r = freeze_begin(t.freeze, .1f);
    const fl_freeze_plan now = freeze_plan(t.freeze);
    cr_assert_eq(r.has_changed, now.version != before.version);
    cr_assert_eq(r.first_active, now.first_active);
    if (r.has_changed) {
      versions++;
      cr_expect_eq(now.version, before.version + 1);
      cr_expect_eq(now.step, r.step);
      cr_expect_eq(now.reason, FL_FREEZE_REASON_CRITERION);
      /* Begun anew, it is still another than in the step before. */
      cr_expect_eq(freeze_begin(t.freeze, .1f).has_changed, 1);
    }
    freeze_show_all(&t, &r, (r.step + 1) % 4 == 0);
    must(fl_freeze_end_step(t.freeze, 1));
    cr_assert_eq(freeze_plan(t.freeze).version, now.version);
  }
  cr_expect(versions >= 3);
  fl_freeze_free(t.freeze);
}

static double random_value(uint64_t step, uint32_t module, void *user)
{
  fli_rng *rng = user;
  (void)module;
  const double wild = fli_rng_below(rng, 20) == 0 ? 20 : 1;
  return wild * .2 * fli_rng_f64(rng) * pow(.99, (double)(step % 200));
}

/* Whatever is shown, whatever the rate does: modules freeze one by one from
 * the front, and thaw all at once. */
Test(freeze, order_is_a_prefix_whatever_is_shown)
{
  static const uint32_t prefix[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY,
                                    FL_FREEZE_RELATIVE_PLASTICITY};
  int changes = 0;
  for (uint32_t seed = 0; seed < 30; seed++) {
    fl_freeze_options o = freeze_options(prefix[seed % 3]);
    fli_rng rng;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    o.patience = 1 + seed % 4;
    o.window = 3 + seed % 3;
    o.tolerance = .95f;
    o.unfreezes = seed % 2;
    o.halves_window = seed % 5 == 0;
    o.gap = 1 + seed;
    freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, random_value, &rng};
    freeze_boot(&t);
    uint32_t before = 0;
    for (int i = 0; i < 600; i++) {
      if (fli_rng_below(&rng, 50) == 0) t.rate = .1f * fli_rng_f32(&rng);
      const uint32_t now = freeze_step(&t).first_active;
      const fl_freeze_plan plan = freeze_plan(t.freeze);
      cr_assert(now == before || now == before + 1 || now == 0, "seed %u",
                seed);
      for (uint32_t m = 0; m < MODULES; m++)
        cr_assert_eq(plan.frozen[m], m < now);
      changes += now != before;
      before = now;
    }
    fl_freeze_free(t.freeze);
  }
  cr_expect(changes > 100);
}

Test(freeze, evaluations_that_nobody_shows_are_left_out)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze_event event;
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  for (int i = 0; i < 40; i++) {
    (void)freeze_begin(t.freeze, .1f);
    must(fl_freeze_end_step(t.freeze, 1));
  }
  cr_expect_eq(freeze_poll(t.freeze, &event), 0);
  cr_expect_eq(t.freeze->state.n_evaluations, 0);
  fl_freeze_free(t.freeze);
}

Test(freeze, fixed_schedule_is_followed)
{
  const fl_freeze_fixed fixed[] = {{0, 1, 0}, {7, 3, 0}, {9, 0, 0}};
  fl_freeze_options o = freeze_options(FL_FREEZE_FIXED);
  o.fixed = fixed;
  o.n_fixed = 3;
  freeze_trainer t = open_trainer(&o);
  for (uint64_t i = 0; i < 12; i++) {
    const fl_freeze_request r = freeze_step(&t);
    cr_expect_eq(r.first_active, i < 7 ? 1 : i < 9 ? 3 : 0);
    cr_expect_eq(r.has_changed, i == 0 || i == 7 || i == 9);
    cr_expect_eq(r.wants, 0);
  }
  cr_expect_eq(freeze_plan(t.freeze).version, 3);
  cr_expect_eq(freeze_plan(t.freeze).reason, FL_FREEZE_REASON_FIXED);
  fl_freeze_free(t.freeze);
}

Test(freeze, plan_is_rounded_down_to_what_is_allowed)
{
  const uint32_t allowed[] = {0, 2, 3};
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.allowed = allowed;
  o.n_allowed = 3;
  o.gap = 1;
  o.max_frozen = 5;
  freeze_trainer t = open_trainer(&o);
  t.show = always_lower;
  freeze_boot(&t);
  uint32_t seen = 0, last = 0;
  for (int i = 0; i < 900; i++) {
    const fl_freeze_request r = freeze_step(&t);
    seen |= 1u << r.first_active;
    /* The criterion goes on with modules that are decided. */
    last = r.module;
  }
  cr_expect_eq(seen, 1u << 0 | 1u << 2 | 1u << 3);
  cr_expect_eq(last, 5);
  cr_expect_eq(freeze_plan(t.freeze).version, 2);
  fl_freeze_free(t.freeze);
}

Test(freeze, events_beyond_256_push_out_the_oldest)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze_event event;
  freeze_trainer t = open_trainer(&o);
  freeze_boot(&t);
  /* One evaluation in 4 steps, no freeze. */
  for (int i = 0; i < 4 * 300; i++)
    (void)freeze_step(&t);
  const uint64_t end = t.freeze->state.step;
  int n = 0;
  uint64_t last = 0;
  for (; freeze_poll(t.freeze, &event); n++) {
    cr_assert_eq(event.kind, FL_FREEZE_EVALUATED);
    cr_assert(n == 0 || event.step == last + 4);
    cr_assert(strlen(event.text) > 0);
    last = event.step;
  }
  cr_expect_eq(n, 256);
  /* The newest is of the last step. */
  cr_expect_eq(end - last, 1);
  fl_freeze_free(t.freeze);
}

Test(freeze, steps_are_begun_and_ended_in_turn)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze_request request;
  freeze_trainer t = open_trainer(&o);
  must(fl_freeze_request_init(&request, sizeof request));
  cr_expect_eq(fl_freeze_end_step(t.freeze, 1), FL_E_STATE);
  cr_expect_eq(fl_freeze_begin_step(t.freeze, NAN, &request), FL_E_NOT_FINITE);
  cr_expect_eq(fl_freeze_begin_step(t.freeze, -1, &request), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_begin_step(t.freeze, 1, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_end_step(t.freeze, 1), FL_E_STATE);
  request.struct_size = 2;
  cr_expect_eq(fl_freeze_begin_step(t.freeze, 1, &request), FL_E_OPTIONS);
  cr_expect_eq(fl_freeze_end_step(t.freeze, 1), FL_E_STATE);
  cr_expect_eq(freeze_begin(t.freeze, 0).step, 0);
  cr_expect_eq(freeze_begin(t.freeze, 0).step, 0);
  cr_expect_eq(fl_freeze_end_step(t.freeze, NAN), FL_E_NOT_FINITE);
  cr_expect_eq(fl_freeze_end_step(t.freeze, INFINITY), FL_E_NOT_FINITE);
  must(fl_freeze_end_step(t.freeze, 1));
  cr_expect_eq(freeze_begin(t.freeze, 0).step, 1);
  fl_freeze_free(t.freeze);
}
