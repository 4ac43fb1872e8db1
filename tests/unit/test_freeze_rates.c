/* SPDX-License-Identifier: Apache-2.0 */
/* Learning rates that thaw. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

static double lower(uint64_t step, uint32_t module, void *user)
{
  (void)module;
  (void)user;
  return pow(.97, (double)(step % 1000));
}

/* One module frozen at a rate of .1. */
static freeze_trainer frozen(uint32_t unfreezes, uint32_t halves)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.unfreezes = unfreezes;
  o.halves_window = halves;
  o.gap = 1;
  o.window = 6;
  freeze_trainer t = {freeze_make(6, &o), .1f, 1, lower, NULL};
  freeze_boot(&t);
  cr_assert(freeze_until(&t, 1, 1000) < 1000);
  return t;
}

Test(freeze_rates, a_fall_to_a_tenth_unfreezes_everything)
{
  freeze_trainer t = frozen(1, 0);
  t.rate = .0101f;
  cr_expect_eq(freeze_step(&t).first_active, 1);
  t.rate = .01f;
  const fl_freeze_request r = freeze_step(&t);
  cr_expect_eq(r.first_active, 0);
  cr_expect_eq(r.has_changed, 1);
  cr_expect_eq(freeze_plan(t.freeze).reason, FL_FREEZE_REASON_RATE_FELL);
  cr_expect_eq(freeze_plan(t.freeze).version, 2);
  cr_expect_eq(freeze_plan(t.freeze).frozen[0], 0);
  fl_freeze_free(t.freeze);
}

Test(freeze_rates, a_fall_changes_nothing_without_the_option)
{
  freeze_trainer t = frozen(FL_AUTO, 0);
  t.rate = .001f;
  cr_expect_eq(freeze_step(&t).first_active, 1);
  fl_freeze_free(t.freeze);
}

Test(freeze_rates, a_warm_restart_unfreezes_always)
{
  for (uint32_t unfreezes = 0; unfreezes <= 1; unfreezes++) {
    freeze_trainer t = frozen(unfreezes, 0);
    t.rate = .04f;
    cr_expect_eq(freeze_step(&t).first_active, 1);
    t.rate = .0799f;
    cr_expect_eq(freeze_step(&t).first_active, 1);
    t.rate = .08f;
    cr_expect_eq(freeze_step(&t).first_active, 0);
    cr_expect_eq(freeze_plan(t.freeze).reason, FL_FREEZE_REASON_RESTART);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze_rates, rates_before_the_freeze_do_not_count)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  freeze_trainer t = {freeze_make(6, &o), .001f, 1, lower, NULL};
  freeze_boot(&t);
  for (int i = 0; i < 20; i++) {
    t.rate = t.rate < .1f ? 2 * t.rate : .1f;
    (void)freeze_step(&t);
  }
  cr_assert(freeze_until(&t, 1, 1000) < 1000);
  for (int i = 0; i < 20; i++)
    cr_expect_eq(freeze_step(&t).first_active, 1);
  fl_freeze_free(t.freeze);
}

/* Low gradients, met after 2 * 6 + 8 evaluations = 80 steps, more than the
 * epoch's 64; with patience 1 and window 3 after 28. */
Test(freeze_rates, an_epoch_passes_before_modules_freeze_again)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.unfreezes = 1;
  o.gap = 1;
  o.window = 3;
  o.patience = 1;
  freeze_trainer t = {freeze_make(6, &o), .1f, 1, lower, NULL};
  freeze_boot(&t);
  cr_assert(freeze_until(&t, 1, 1000) < 1000);
  t.rate = .01f;
  const uint64_t thawed = freeze_step(&t).step;
  const uint64_t again = freeze_until(&t, 1, 1000);
  const uint64_t earliest = thawed + o.steps_per_epoch;
  cr_expect(again >= earliest && again < earliest + o.interval,
            "thawed at %d, frozen again at %d", (int)thawed, (int)again);
  /* The new rate is what the next fall is compared with. */
  t.rate = .002f;
  cr_expect_eq(freeze_step(&t).first_active, 1);
  t.rate = .001f;
  cr_expect_eq(freeze_step(&t).first_active, 0);
  fl_freeze_free(t.freeze);
}

Test(freeze_rates, a_restart_makes_nobody_wait)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.gap = 1;
  o.window = 3;
  o.patience = 1;
  freeze_trainer t = {freeze_make(6, &o), .1f, 1, lower, NULL};
  freeze_boot(&t);
  cr_assert(freeze_until(&t, 1, 1000) < 1000);
  t.rate = .2f;
  const uint64_t thawed = freeze_step(&t).step;
  cr_expect(freeze_until(&t, 1, 1000) < thawed + o.steps_per_epoch);
  fl_freeze_free(t.freeze);
}

Test(freeze_rates, window_and_patience_halve_on_request)
{
  for (uint32_t halves = 0; halves <= 1; halves++) {
    freeze_trainer t = frozen(1, halves);
    for (int i = 0; i < 4; i++) {
      t.rate *= .1f;
      (void)freeze_step(&t);
      const uint32_t window[] = {3, 3, 3, 3}, patience[] = {4, 2, 1, 1};
      cr_expect_eq(t.freeze->state.window, halves ? window[i] : 6);
      cr_expect_eq(t.freeze->state.patience, halves ? patience[i] : 8);
      cr_assert(freeze_until(&t, 1, 5000) < 5000);
    }
    fl_freeze_free(t.freeze);
  }
}

Test(freeze_rates, a_decision_that_a_fall_overtakes_never_shows)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  o.unfreezes = 1;
  freeze_trainer t = {freeze_make(6, &o), .1f, 1, lower, NULL};
  freeze_boot(&t);
  while (t.freeze->state.decided == 0)
    (void)freeze_step(&t);
  t.rate = .01f;
  cr_expect_eq(freeze_step(&t).has_changed, 0);
  cr_expect_eq(freeze_plan(t.freeze).version, 0);
  fl_freeze_free(t.freeze);
}
