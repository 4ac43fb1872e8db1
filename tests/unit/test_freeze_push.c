/* SPDX-License-Identifier: Apache-2.0 */
/* What trainers show, and what they may not. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6, N = 1003 };

/* Stands before the first step that asks for a gradient. */
static freeze_trainer open_trainer(uint32_t criterion)
{
  fl_freeze_options o = freeze_options(criterion);
  freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, NULL, NULL};
  freeze_boot(&t);
  while ((t.freeze->state.step + 2) % 4 != 0)
    (void)freeze_step(&t);
  return t;
}

static void fill(float *gradient, uint32_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < N; i++)
    gradient[i] = fli_rng_f32(&rng) - .5f;
}

/* D of the last evaluation; NaN when there is none. */
static double last_raw(fl_freeze *freeze)
{
  fl_freeze_event event;
  double raw = NAN;
  while (freeze_poll(freeze, &event)) {
    if (event.kind == FL_FREEZE_EVALUATED) raw = event.raw;
  }
  return raw;
}

Test(freeze_push, gradients_and_their_change_are_the_same)
{
  float a[N], b[N];
  double squares = 0;
  fill(a, 1);
  fill(b, 2);
  for (int i = 0; i < N; i++)
    squares += pow((double)b[i] - (double)a[i], 2);
  freeze_trainer one = open_trainer(FL_FREEZE_GRADNORM);
  freeze_trainer two = open_trainer(FL_FREEZE_GRADNORM);
  (void)freeze_begin(one.freeze, .1f);
  must(fl_freeze_push_gradient(one.freeze, 0, a, N));
  must(fl_freeze_end_step(one.freeze, 1));
  (void)freeze_begin(one.freeze, .1f);
  must(fl_freeze_push_gradient(one.freeze, 0, b, N));
  must(fl_freeze_end_step(one.freeze, 1));
  (void)freeze_step(&two);
  (void)freeze_begin(two.freeze, .1f);
  must(fl_freeze_push_gradient_change(two.freeze, 0, squares));
  must(fl_freeze_end_step(two.freeze, 1));
  const double d = last_raw(one.freeze), same = last_raw(two.freeze);
  cr_expect_float_eq(d, sqrt(squares), 1e-12);
  cr_expect_float_eq(d, same, 1e-12);
  fl_freeze_free(one.freeze);
  fl_freeze_free(two.freeze);
}

Test(freeze_push, first_gradient_is_held_for_one_step)
{
  float a[N];
  fill(a, 1);
  freeze_trainer t = open_trainer(FL_FREEZE_GRADNORM);
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_push_gradient(t.freeze, 0, a, N));
  must(fl_freeze_end_step(t.freeze, 1));
  cr_expect(t.freeze->state.gradient.values != NULL);
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_end_step(t.freeze, 1));
  cr_expect(t.freeze->state.gradient.values == NULL);
  cr_expect_eq(t.freeze->state.n_evaluations, 0);
  fl_freeze_free(t.freeze);
}

Test(freeze_push, step_that_failed_is_shown_again)
{
  float a[N], b[N];
  fill(a, 1);
  fill(b, 2);
  freeze_trainer t = open_trainer(FL_FREEZE_GRADNORM);
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_push_gradient(t.freeze, 0, b, N));
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_push_gradient(t.freeze, 0, a, N));
  must(fl_freeze_end_step(t.freeze, 1));
  for (int i = 0; i < 2; i++) {
    (void)freeze_begin(t.freeze, .1f);
    must(fl_freeze_push_gradient(t.freeze, 0, b, N));
  }
  must(fl_freeze_end_step(t.freeze, 1));
  cr_expect(last_raw(t.freeze) > 1);
  /* Pushed and failed, then not pushed: no evaluation. */
  (void)freeze_step(&t);
  (void)freeze_step(&t);
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_push_gradient(t.freeze, 0, b, N));
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_end_step(t.freeze, 1));
  (void)freeze_begin(t.freeze, .1f);
  must(fl_freeze_push_gradient(t.freeze, 0, b, N));
  must(fl_freeze_end_step(t.freeze, 1));
  cr_expect(isnan(last_raw(t.freeze)));
  fl_freeze_free(t.freeze);
}

Test(freeze_push, gradients_that_do_not_fit_are_refused)
{
  float a[N], bad[N];
  fill(a, 1);
  fill(bad, 1);
  bad[N - 1] = INFINITY;
  freeze_trainer t = open_trainer(FL_FREEZE_GRADNORM);
  fl_freeze *f = t.freeze;
  cr_expect_eq(fl_freeze_push_gradient(f, 0, a, N), FL_E_STATE);
  (void)freeze_begin(f, .1f);
  cr_expect_eq(fl_freeze_push_gradient(f, 0, NULL, N), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_gradient(f, 1, a, N), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_gradient(f, 0, a, 0), FL_E_DIM);
  cr_expect_eq(fl_freeze_push_gradient(f, 0, bad, N), FL_E_NOT_FINITE);
  cr_expect_eq(fl_freeze_push_gradient_change(f, 0, 1), FL_E_STATE);
  cr_expect_eq(fl_freeze_push_pair(f, 0, a, a, 2, 2), FL_E_STATE);
  cr_expect_eq(fl_freeze_push_features(f, 0, a, 2, a, 2, 2), FL_E_STATE);
  cr_expect(f->state.gradient.values == NULL);
  must(fl_freeze_push_gradient(f, 0, a, N));
  must(fl_freeze_end_step(f, 1));
  (void)freeze_begin(f, .1f);
  cr_expect_eq(fl_freeze_push_gradient(f, 0, a, N - 1), FL_E_DIM);
  cr_expect_eq(fl_freeze_push_gradient(f, 0, bad, N), FL_E_NOT_FINITE);
  cr_expect_eq(fl_freeze_push_gradient_change(f, 1, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_gradient_change(f, 0, -1), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_gradient_change(f, 0, NAN), FL_E_NOT_FINITE);
  must(fl_freeze_end_step(f, 1));
  cr_expect_eq(f->state.n_evaluations, 0);
  fl_freeze_free(f);
}

Test(freeze_push, pairs_that_do_not_fit_are_refused)
{
  const float good[] = {1, 2, 3, 4}, bad[] = {1, 2, 3, NAN};
  freeze_trainer t = open_trainer(FL_FREEZE_RELATIVE_PLASTICITY);
  fl_freeze *f = t.freeze;
  (void)freeze_step(&t);
  cr_expect_eq(fl_freeze_push_pair(f, 0, good, good, 2, 2), FL_E_STATE);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_assert(r.wants & FL_FREEZE_WANTS_LAST_PAIR);
  cr_expect_eq(fl_freeze_push_pair(f, 0, good, NULL, 2, 2), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_pair(f, 1, good, good, 2, 2), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_pair(f, 5, good, good, 2, 2), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_push_pair(f, 0, good, good, 1, 2), FL_E_DIM);
  cr_expect_eq(fl_freeze_push_pair(f, 0, good, good, 2, 0), FL_E_DIM);
  cr_expect_eq(fl_freeze_push_pair(f, 0, good, bad, 2, 2), FL_E_NOT_FINITE);
  cr_expect_eq(fl_freeze_push_pair(f, 4, bad, good, 2, 2), FL_E_NOT_FINITE);
  must(fl_freeze_push_pair(f, 0, good, good, 2, 2));
  must(fl_freeze_end_step(f, 1));
  /* That of the last module was never shown. */
  cr_expect_eq(f->state.n_evaluations, f->state.n_values);
  cr_expect(isnan(last_raw(f)) || f->state.n_values < 16);
  fl_freeze_free(f);
}

static void push_turned(fl_freeze *freeze, float by)
{
  const float before[] = {0, 0, 1, 0, 0, 1, 1, 1};
  float after[8];
  for (int i = 0; i < 8; i++)
    after[i] = before[i] + by * (float)(i * i % 5);
  must(fl_freeze_push_features(freeze, 2, before, 2, after, 2, 4));
}

/* Importance of module 2, to which adapters did so much; in a step that was
 * begun before and showed something else. */
static double importance_of(float one, float two, float abandoned)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_CKA);
  o.total_steps = 100;
  fl_freeze *f = freeze_make(MODULES, &o);
  freeze_trainer t = {f, .1f, 1, NULL, NULL};
  for (int i = 0; i < 3; i++)
    (void)freeze_step(&t);
  cr_assert_eq(freeze_begin(f, .1f).wants, FL_FREEZE_WANTS_FEATURES);
  push_turned(f, abandoned);
  (void)freeze_begin(f, .1f);
  push_turned(f, one);
  push_turned(f, two);
  must(fl_freeze_end_step(f, 1));
  const double raw = last_raw(f);
  fl_freeze_free(f);
  return raw;
}

Test(freeze_push, of_several_adapters_the_largest_importance_counts)
{
  const double most = importance_of(1, 1, 0), little = importance_of(0, 0, 1);
  cr_expect(most > .01);
  cr_expect_eq(importance_of(1, 0, 0), most);
  cr_expect_eq(importance_of(0, 1, 0), most);
  cr_expect(little < 1e-12);
}

Test(freeze_push, another_front_module_drops_the_first_gradient)
{
  float a[N];
  fl_freeze *server = NULL;
  uint8_t plan[256];
  size_t n = 0;
  const fl_freeze_fixed fixed[] = {{0, 1, 0}};
  fl_freeze_options o = freeze_options(FL_FREEZE_FIXED);
  fill(a, 1);
  o.fixed = fixed;
  o.n_fixed = 1;
  server = freeze_make(MODULES, &o);
  (void)freeze_begin(server, .1f);
  must(fl_freeze_copy_plan(server, plan, sizeof plan, &n));
  o = freeze_options(FL_FREEZE_SERVER);
  o.reports = FL_FREEZE_GRADNORM;
  fl_freeze *f = freeze_make(MODULES, &o);
  freeze_trainer t = {f, .1f, 1, NULL, NULL};
  (void)freeze_step(&t);
  (void)freeze_step(&t);
  cr_assert_eq(freeze_begin(f, .1f).wants, FL_FREEZE_WANTS_GRADIENT);
  must(fl_freeze_push_gradient(f, 0, a, N));
  must(fl_freeze_end_step(f, 1));
  must(fl_freeze_apply_plan(f, plan, n));
  cr_expect(f->state.gradient.values == NULL);
  const fl_freeze_request r = freeze_begin(f, .1f);
  cr_expect_eq(r.module, 1);
  cr_expect_eq(r.wants, 0);
  fl_freeze_free(f);
  fl_freeze_free(server);
}
