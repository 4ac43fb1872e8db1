/* SPDX-License-Identifier: Apache-2.0 */
/* Modules in which there is nothing to train: the front steps over them. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6 };

static const uint8_t leading[MODULES] = {1, 1, 0, 0, 0, 0};
static const uint8_t between[MODULES] = {0, 1, 0, 1, 0, 0};

static const uint32_t measured[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY,
                                    FL_FREEZE_RELATIVE_PLASTICITY,
                                    FL_FREEZE_CKA};
enum { MEASURED = sizeof measured / sizeof *measured };

static fl_freeze *quick(uint32_t criterion)
{
  fl_freeze_options o = freeze_options(criterion);
  o.total_steps = 400;
  o.window = 3;
  o.patience = 2;
  o.gap = 1;
  if (criterion == FL_FREEZE_CKA) o.max_frozen = 5;
  if (criterion <= FL_FREEZE_RELATIVE_PLASTICITY) o.unfreezes = 1;
  return freeze_make(MODULES, &o);
}

static double lower(uint64_t step, uint32_t module, void *user)
{
  (void)user;
  return .01 * (module == 4 ? 10 : 1) * pow(.97, (double)step);
}

static void expect_no_event(fl_freeze *f)
{
  fl_freeze_event event;
  cr_expect_eq(freeze_poll(f, &event), 0);
}

static void expect_front(fl_freeze *f, uint32_t front)
{
  const fl_freeze_plan plan = freeze_plan(f);
  cr_expect_eq(plan.first_active, front);
  cr_expect_eq(plan.version, 0);
  cr_expect_eq(plan.reason, FL_FREEZE_REASON_NONE);
  for (uint32_t i = 0; i < MODULES; i++)
    cr_expect_eq(plan.frozen[i], i < front);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_expect_eq(r.has_changed, 0);
  cr_expect_eq(r.first_active, front);
  cr_expect_eq(r.module, front);
  cr_expect_eq(freeze_plan(f).version, 0);
  expect_no_event(f);
}

Test(freeze_empty, those_before_all_others_are_frozen_from_the_start)
{
  for (int i = 0; i < MEASURED; i++) {
    fl_freeze *f = quick(measured[i]);
    fli_freeze_set_empty(f, leading);
    expect_front(f, 2);
    /* Of another model, in which all is to be trained. */
    fli_freeze_set_empty(f, NULL);
    expect_front(f, 0);
    fl_freeze_free(f);
  }
}

Test(freeze_empty, front_steps_over_those_between)
{
  for (int i = 0; i < 2; i++) {
    freeze_trainer t = {quick(measured[i]), .1f, 1, lower, NULL};
    fli_freeze_set_empty(t.freeze, between);
    freeze_boot(&t);
    uint32_t seen = 0;
    for (int k = 0; k < 600; k++) {
      const fl_freeze_request r = freeze_step(&t);
      cr_assert(!between[r.module]);
      seen |= 1u << r.first_active;
    }
    cr_expect_eq(seen, 1u << 0 | 1u << 2 | 1u << 4);
    cr_expect_eq(freeze_plan(t.freeze).version, 2);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze_empty, all_up_to_max_frozen_leaves_nothing_to_ask_for)
{
  const uint8_t most[MODULES] = {1, 1, 1, 1, 1, 0};
  for (int i = 0; i < 3; i++) {
    freeze_trainer t = {quick(measured[i]), .1f, 1, lower, NULL};
    fli_freeze_set_empty(t.freeze, most);
    freeze_boot(&t);
    for (int k = 0; k < 100; k++) {
      const fl_freeze_request r = freeze_step(&t);
      cr_assert_eq(r.wants, 0);
      cr_assert_eq(r.first_active, 4);
    }
    fl_freeze_free(t.freeze);
  }
}

Test(freeze_empty, nothing_unfreezes_those_before_all_others)
{
  freeze_trainer t = {quick(FL_FREEZE_GRADNORM), .1f, 1, lower, NULL};
  fli_freeze_set_empty(t.freeze, leading);
  freeze_boot(&t);
  cr_assert(freeze_until(&t, 3, 1000) < 1000);
  for (int i = 0; i < 2; i++) {
    t.rate *= .1f;
    (void)freeze_step(&t);
    const fl_freeze_plan plan = freeze_plan(t.freeze);
    cr_expect_eq(plan.first_active, 2);
    /* The second time there is nothing to unfreeze. */
    cr_expect_eq(plan.version, 2);
    cr_expect_eq(plan.reason, FL_FREEZE_REASON_RATE_FELL);
  }
  fl_freeze_free(t.freeze);
}

Test(freeze_empty, relative_plasticity_divides_by_one_that_is_trained)
{
  const uint8_t end[MODULES] = {0, 0, 0, 1, 1, 1};
  fl_freeze *f = quick(FL_FREEZE_RELATIVE_PLASTICITY);
  cr_expect_eq(freeze_begin(f, .1f).last, 4);
  fli_freeze_set_empty(f, end);
  cr_expect_eq(freeze_begin(f, .1f).last, 2);
  fl_freeze_free(f);
}

/* Features that an adapter leaves as they are, or not. */
static void show_features(fl_freeze *f, uint32_t module, int is_needed)
{
  const float before[] = {0, 0, 1, 0, 0, 1, 1, 1};
  const float other[] = {1, 0, 0, 1, 1, 0, 3, 5};
  must(fl_freeze_push_features(f, module, before, 2, is_needed ? other : before,
                               2, 4));
}

/* Adapters of modules 0 and 2 do nothing; there is none in 1. */
Test(freeze_empty, front_of_safe_goes_on_behind_them)
{
  const uint8_t one[MODULES] = {0, 1, 0, 0, 0, 0};
  for (int is_told = 0; is_told < 2; is_told++) {
    fl_freeze *f = quick(FL_FREEZE_CKA);
    if (is_told) fli_freeze_set_empty(f, one);
    for (int i = 0; i < 400; i++) {
      const fl_freeze_request r = freeze_begin(f, .1f);
      for (uint32_t m = 0; r.wants && m < 5; m++) {
        if (m != 1) show_features(f, m, m > 2);
      }
      must(fl_freeze_end_step(f, 1));
    }
    const fl_freeze_plan plan = freeze_plan(f);
    const uint8_t want[] = {1, (uint8_t)is_told, 1, 0, 0, 0};
    cr_expect_eq(plan.first_active, is_told ? 3 : 1);
    cr_expect_arr_eq(plan.frozen, want, MODULES);
    fl_freeze_free(f);
  }
}

Test(freeze_empty, schedules_and_plans_of_a_server_stay_what_they_say)
{
  const fl_freeze_fixed fixed[] = {{1, 1, 0}};
  const uint8_t one[MODULES] = {1, 0, 0, 0, 0, 0};
  uint8_t plan[256];
  size_t n = 0;
  fl_freeze_options o = freeze_options(FL_FREEZE_FIXED);
  o.fixed = fixed;
  o.n_fixed = 1;
  fl_freeze *f = freeze_make(MODULES, &o), *s = quick(FL_FREEZE_SERVER);
  fli_freeze_set_empty(f, leading);
  fli_freeze_set_empty(s, one);
  expect_front(f, 0);
  expect_front(s, 0);
  must(fl_freeze_end_step(f, 1));
  cr_expect_eq(freeze_begin(f, .1f).first_active, 1);
  must(fl_freeze_copy_plan(f, plan, sizeof plan, &n));
  fli_freeze_set_empty(s, leading);
  must(fl_freeze_apply_plan(s, plan, n));
  const fl_freeze_request r = freeze_begin(s, .1f);
  cr_expect_eq(r.first_active, 1);
  cr_expect_eq(r.module, 1);
  fl_freeze_free(f);
  fl_freeze_free(s);
}

/* ---- states ---------------------------------------------------------------
 */

static fl_buffer *save(const fl_freeze *f)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  must(fl_buffer_new(&buffer, NULL));
  must(fl_buffer_as_writer(buffer, &writer));
  must(fl_freeze_save(f, &writer));
  return buffer;
}

static void load(fl_freeze *f, fl_buffer *buffer)
{
  fl_reader reader;
  must(fl_buffer_as_reader(buffer, &reader));
  must(fl_freeze_load(f, &reader));
}

static int same_state(const fl_freeze *a, const fl_freeze *b)
{
  fl_buffer *one = save(a), *two = save(b);
  const uint8_t *x, *y;
  size_t n, m;
  must(fl_buffer_get(one, &x, &n));
  must(fl_buffer_get(two, &y, &m));
  const int is_same = n == m && memcmp(x, y, n) == 0;
  fl_buffer_free(one);
  fl_buffer_free(two);
  return is_same;
}

static float rate_of(int step)
{
  return step % 200 < 150 ? .1f : .009f;
}

Test(freeze_empty, none_of_them_change_nothing)
{
  const uint8_t none[MODULES] = {0};
  for (int c = 0; c < 3; c++) {
    freeze_trainer a = {quick(measured[c]), .1f, 1, lower, NULL};
    freeze_trainer b = {quick(measured[c]), .1f, 1, lower, NULL};
    for (int i = 0; i < 400; i++) {
      a.rate = b.rate = rate_of(i);
      a.loss = b.loss = i < 8 ? 10 : 1;
      fli_freeze_set_empty(b.freeze, i % 2 ? none : NULL);
      (void)freeze_step(&a);
      (void)freeze_step(&b);
      cr_assert(same_state(a.freeze, b.freeze), "%d: step %d", c, i);
    }
    cr_expect(freeze_plan(a.freeze).version >= 2);
    fl_freeze_free(a.freeze);
    fl_freeze_free(b.freeze);
  }
}

/* Told before it is loaded, or after, as when a model is attached again. */
Test(freeze_empty, saved_anywhere_a_run_goes_on_to_the_same_plans)
{
  const uint8_t empty[MODULES] = {1, 0, 1, 0, 0, 0};
  for (int c = 0; c < 3; c++) {
    freeze_trainer whole = {quick(measured[c]), .1f, 1, lower, NULL};
    freeze_trainer cut = {quick(measured[c]), .1f, 1, lower, NULL};
    fli_freeze_set_empty(whole.freeze, empty);
    fli_freeze_set_empty(cut.freeze, empty);
    for (int i = 0; i < 400; i++) {
      fl_buffer *state = save(cut.freeze);
      fl_freeze_free(cut.freeze);
      cut.freeze = quick(measured[c]);
      if (i % 2) fli_freeze_set_empty(cut.freeze, empty);
      load(cut.freeze, state);
      fl_buffer_free(state);
      fli_freeze_set_empty(cut.freeze, empty);
      whole.rate = cut.rate = rate_of(i);
      whole.loss = cut.loss = i < 8 ? 10 : 1;
      (void)freeze_step(&whole);
      (void)freeze_step(&cut);
      const fl_freeze_plan a = freeze_plan(whole.freeze);
      const fl_freeze_plan b = freeze_plan(cut.freeze);
      cr_assert_eq(a.first_active, b.first_active, "%d: step %d", c, i);
      cr_assert_eq(a.version, b.version, "%d: step %d", c, i);
      cr_assert_eq(memcmp(a.frozen, b.frozen, MODULES), 0);
    }
    cr_expect(freeze_plan(whole.freeze).version >= 2);
    fl_freeze_free(whole.freeze);
    fl_freeze_free(cut.freeze);
  }
}

/* Saved by a controller that did not know. */
Test(freeze_empty, those_that_a_state_stands_at_are_stepped_over)
{
  freeze_trainer t = {quick(FL_FREEZE_GRADNORM), .1f, 1, lower, NULL};
  fl_freeze *f = quick(FL_FREEZE_GRADNORM);
  fli_freeze_set_empty(f, leading);
  fl_buffer *state = save(t.freeze);
  load(f, state);
  expect_front(f, 2);
  fl_buffer_free(state);
  freeze_boot(&t);
  cr_assert(freeze_until(&t, 1, 1000) < 1000);
  (void)freeze_step(&t);
  state = save(t.freeze);
  load(f, state);
  /* Another plan, and so told of as one. */
  cr_expect_eq(freeze_plan(f).first_active, 1);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_expect_eq(r.has_changed, 1);
  cr_expect_eq(r.first_active, 2);
  cr_expect_eq(r.module, 2);
  cr_expect_eq(freeze_plan(f).version, 2);
  fl_buffer_free(state);
  fl_freeze_free(f);
  fl_freeze_free(t.freeze);
}
