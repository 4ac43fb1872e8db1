/* SPDX-License-Identifier: Apache-2.0 */
/* Each criterion's arithmetic. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6 };

Test(freeze_criteria, slope_is_that_of_the_least_squares_line)
{
  const double line[] = {1, 3, 5, 7, 9}, wild[] = {3, 1, 4, 1, 5, 9};
  double sum_xy = 0, sum_y = 0, sum_x = 0, sum_xx = 0;
  cr_expect_float_eq(fli_freeze_slope(line, 5), 2, 1e-15);
  for (int i = 0; i < 6; i++) {
    sum_xy += i * wild[i];
    sum_y += wild[i];
    sum_x += i;
    sum_xx += i * i;
  }
  cr_expect_float_eq(
      fli_freeze_slope(wild, 6),
      (6 * sum_xy - sum_x * sum_y) / (6 * sum_xx - sum_x * sum_x), 1e-14);
}

/* ---- a scripted run, as the numpy prototype has it ------------------------
 */

static double noise(uint64_t step)
{
  return (double)(step * 7919 % 101) / 101.0;
}

static double script_d(uint64_t step, uint32_t module, void *user)
{
  (void)user;
  return (1 + .3 * noise(step)) / (1 + (double)step / 100) + .05 * module;
}

/* P of the script is up to 3, which no pair has: it enters behind the Gram
 * matrices. */
static double script_p(uint64_t step, uint32_t module, uint64_t since)
{
  return (2 + noise(step)) / (1 + (double)(step - since) / 8) +
         .25 * noise(step + module) * .02;
}

typedef struct golden {
  uint64_t changes[4]; /* first_active 1, 2, 3, 4 */
  int n_values;
  double values; /* sums */
  int n_thresholds;
  double thresholds;
  double last;
} golden;

static golden play(uint32_t criterion)
{
  fl_freeze_options o = freeze_options(criterion);
  o.preset = FL_FREEZE_FAST;
  o.gap = 128;
  o.unfreezes = 0;
  fl_freeze *f = freeze_make(MODULES, &o);
  golden got = {{0}, 0, 0, 0, 0, 0};
  fl_freeze_event event;
  for (uint64_t step = 0; step < 700; step++) {
    const fl_freeze_request r = freeze_begin(f, .1f);
    if (r.wants && (step + 1) % 4 == 0) {
      const double d = script_d(step, r.module, NULL);
      if (criterion == FL_FREEZE_GRADNORM)
        must(fl_freeze_push_gradient_change(f, r.module, d * d));
      if (criterion == FL_FREEZE_PLASTICITY)
        f->shown.front = script_p(step, r.module, freeze_plan(f).step);
    }
    must(fl_freeze_end_step(f, .5 + 2.0 / (1 + (double)step / 16)));
    while (freeze_poll(f, &event)) {
      if (event.kind == FL_FREEZE_CHANGED)
        got.changes[event.first_active - 1] = event.step;
      if (event.kind != FL_FREEZE_EVALUATED || isnan(event.value)) continue;
      got.n_values++;
      got.values += event.value;
      got.last = event.value;
      if (isnan(event.threshold)) continue;
      got.n_thresholds++;
      got.thresholds += event.threshold;
    }
  }
  fl_freeze_free(f);
  return got;
}

static void expect_golden(uint32_t criterion, const golden *want)
{
  const golden got = play(criterion);
  for (int i = 0; i < 4; i++)
    cr_expect_eq(got.changes[i], want->changes[i], "%d: step %d", i,
                 (int)got.changes[i]);
  cr_expect_eq(got.n_values, want->n_values, "%d", got.n_values);
  cr_expect_float_eq(got.values, want->values, 1e-10 * want->values);
  cr_expect_eq(got.n_thresholds, want->n_thresholds, "%d", got.n_thresholds);
  /* Our tolerance is a float32. */
  cr_expect_float_eq(got.thresholds, want->thresholds, 1e-7 * want->thresholds);
  cr_expect_float_eq(got.last, want->last, 1e-10);
}

/* The numbers: class Control of the numpy prototype, fed with the same script
 * at every fourth step, with its bootstrapping rule, a gap of 128 steps, kinds
 * grad:.9,8 and plast:6,.2,.6. */
Test(freeze_criteria, gradnorm_goes_as_the_prototype)
{
  const golden want = {{104, 232, 360, 488}, 112,
                       51.347618490093794,   80,
                       36.8412818895568,     0.34836426699809403};
  expect_golden(FL_FREEZE_GRADNORM, &want);
}

Test(freeze_criteria, plasticity_goes_as_the_prototype)
{
  const golden want = {{272, 400, 528, 656}, 138,
                       4.6655426998597385,   122,
                       3.964850930381741,    0.005399241162955347};
  expect_golden(FL_FREEZE_PLASTICITY, &want);
}

/* ---- relative plasticity --------------------------------------------------
 */

typedef struct ratio {
  double front;
  double last;
} ratio;

static double of_ratio(uint64_t step, uint32_t module, void *user)
{
  const ratio *r = user;
  /* One value in 8 is wild: a median does not see it. */
  const double wild = step % 32 == 3 ? .2 : 0;
  return module == 4 ? r->last : r->front + wild;
}

Test(freeze_criteria, relative_plasticity_is_a_ratio_of_medians)
{
  for (int is_below = 0; is_below <= 1; is_below++) {
    ratio r = {is_below ? .0195 : .0205, .1};
    fl_freeze_options o = freeze_options(FL_FREEZE_RELATIVE_PLASTICITY);
    freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, of_ratio, &r};
    fl_freeze_event event;
    freeze_boot(&t);
    const uint64_t from = t.freeze->state.step;
    const uint64_t step = freeze_until(&t, 1, from + 400);
    /* 16 evaluations fill the window, the last of them is the first of 8. */
    cr_expect_eq(step, from + (is_below ? 4 * (16 + 7) : 400));
    int n = 0;
    while (freeze_poll(t.freeze, &event)) {
      if (event.kind != FL_FREEZE_EVALUATED || isnan(event.value)) continue;
      n++;
      cr_expect_float_eq(event.value, r.front / r.last, 1e-5);
      cr_expect_float_eq(event.threshold, .2, 1e-7);
    }
    cr_expect(n > 0);
    fl_freeze_free(t.freeze);
  }
}

static double nothing(uint64_t step, uint32_t module, void *user)
{
  (void)step;
  (void)module;
  (void)user;
  return 0;
}

/* Dead, or frozen by the host: it must not hold up those behind it. */
Test(freeze_criteria, module_that_never_moves_is_frozen)
{
  static const uint32_t of[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY};
  for (int i = 0; i < 2; i++) {
    const fl_freeze_options o = freeze_options(of[i]);
    freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, nothing, NULL};
    freeze_boot(&t);
    cr_expect_lt(freeze_until(&t, 1, 1000), 1000, "criterion %u", of[i]);
    fl_freeze_free(t.freeze);
  }
}

Test(freeze_criteria, relative_plasticity_without_a_last_one_waits)
{
  ratio r = {0, 0};
  fl_freeze_options o = freeze_options(FL_FREEZE_RELATIVE_PLASTICITY);
  freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, NULL, &r};
  freeze_boot(&t);
  t.show = of_ratio;
  cr_expect_eq(freeze_until(&t, 1, 600), 600);
  fl_freeze_free(t.freeze);
}

/* Module 4 of 6, whatever may freeze; and not when it is itself the front. */
Test(freeze_criteria, relative_plasticity_compares_with_the_end_of_the_body)
{
  for (uint32_t max = 1; max < MODULES; max++) {
    ratio r = {.001, .1};
    fl_freeze_options o = freeze_options(FL_FREEZE_RELATIVE_PLASTICITY);
    o.max_frozen = max;
    o.tolerance = 2;
    o.gap = 1;
    freeze_trainer t = {freeze_make(MODULES, &o), .1f, 1, of_ratio, &r};
    freeze_boot(&t);
    for (int i = 0; i < 700; i++) {
      const fl_freeze_request request = freeze_step(&t);
      cr_assert_eq(request.last, 4);
      cr_assert(request.module < 4 || request.wants == 0);
    }
    cr_expect_eq(freeze_plan(t.freeze).first_active, max < 4 ? max : 4);
    fl_freeze_free(t.freeze);
  }
}

/* ---- SAFE -----------------------------------------------------------------
 */

/* Features whose importance, 1 - CKA, rises with `distance`. */
static void push_features(fl_freeze *f, uint32_t module, double distance)
{
  float before[16], after[16];
  for (int i = 0; i < 8; i++) {
    before[2 * i] = (float)(i % 2), before[2 * i + 1] = (float)(i / 2 % 2);
    after[2 * i] = before[2 * i];
    after[2 * i + 1] =
        (float)((double)before[2 * i + 1] + distance * (i / 4 - .5));
  }
  must(fl_freeze_push_features(f, module, before, 2, after, 2, 8));
}

typedef struct adapters {
  fl_freeze *freeze;
  double distance[8]; /* < 0: no adapter */
} adapters;

static adapters open_adapters(const uint32_t *allowed, uint32_t n_allowed)
{
  adapters a = {NULL, {3, .5, 1, -1, 2, 1.6, 4, 5}};
  fl_freeze_options o = freeze_options(FL_FREEZE_CKA);
  o.total_steps = 400;
  o.max_frozen = 7;
  o.allowed = allowed;
  o.n_allowed = n_allowed;
  a.freeze = freeze_make(8, &o);
  return a;
}

static fl_freeze_request adapter_step(const adapters *a)
{
  const fl_freeze_request r = freeze_begin(a->freeze, .1f);
  for (uint32_t i = 0; i < 8 && (r.wants & FL_FREEZE_WANTS_FEATURES); i++) {
    if (a->distance[i] >= 0) push_features(a->freeze, i, a->distance[i]);
  }
  must(fl_freeze_end_step(a->freeze, 1));
  return r;
}

Test(freeze_criteria, safe_measures_in_the_warm_up_only)
{
  adapters a = open_adapters(NULL, 0);
  for (int i = 0; i < 400; i++) {
    const fl_freeze_request r = adapter_step(&a);
    const int is_wanted = i < 40 && (i + 1) % 4 == 0;
    cr_assert_eq(r.wants, is_wanted ? FL_FREEZE_WANTS_FEATURES : 0, "%d", i);
    cr_assert_eq(r.rows, 256);
  }
  fl_freeze_free(a.freeze);
}

Test(freeze_criteria, safe_freezes_the_lower_half_for_good)
{
  adapters a = open_adapters(NULL, 0);
  uint8_t before[8] = {0};
  uint64_t first = 0, last = 0;
  for (int i = 0; i < 400; i++) {
    const fl_freeze_request r = adapter_step(&a);
    const fl_freeze_plan plan = freeze_plan(a.freeze);
    for (int m = 0; m < 8; m++)
      cr_assert(plan.frozen[m] >= before[m]);
    memcpy(before, plan.frozen, 8);
    if (!r.has_changed) continue;
    if (first == 0) first = r.step;
    last = r.step;
  }
  /* Measured are 0, 1, 2, 4, 5, 6; the half of them that change least. */
  const uint8_t want[] = {0, 1, 1, 0, 0, 1, 0, 0};
  cr_expect_arr_eq(before, want, 8);
  cr_expect_eq(freeze_plan(a.freeze).first_active, 0);
  cr_expect(first > 40 && last > first && last <= 200, "%d..%d", (int)first,
            (int)last);
  fl_freeze_free(a.freeze);
}

Test(freeze_criteria, safe_threshold_rises_with_a_cubic)
{
  adapters a = open_adapters(NULL, 0);
  double importance[8];
  for (int i = 0; i < 40; i++)
    (void)adapter_step(&a);
  for (int m = 0; m < 8; m++) {
    const fli_importance *one = &a.freeze->state.importance[m];
    importance[m] = one->n > 0 ? one->sum / (double)one->n : INFINITY;
  }
  /* The fourth smallest of six. */
  const double most = importance[4];
  for (int i = 40; i < 220; i++) {
    (void)adapter_step(&a);
    const int at = i > 200 ? 200 : i / 4 * 4;
    const double tau = most * (1 - pow(1 - (at - 40) / 160.0, 3));
    for (int m = 0; m < 7; m++)
      cr_assert_eq(freeze_plan(a.freeze).frozen[m], importance[m] < tau,
                   "step %d, module %d", i, m);
  }
  fl_freeze_free(a.freeze);
}

Test(freeze_criteria, safe_front_is_the_prefix_and_is_rounded_down)
{
  const uint32_t allowed[] = {0, 1};
  adapters a = open_adapters(allowed, 2);
  a.distance[0] = .05;
  a.distance[5] = 3;
  for (int i = 0; i < 400; i++)
    (void)adapter_step(&a);
  const fl_freeze_plan plan = freeze_plan(a.freeze);
  const uint8_t want[] = {1, 0, 0, 0, 0, 0, 0, 0};
  cr_expect_eq(plan.first_active, 1);
  cr_expect_arr_eq(plan.frozen, want, 8);
  fl_freeze_free(a.freeze);
  a = open_adapters(NULL, 0);
  a.distance[0] = .05;
  a.distance[5] = 3;
  for (int i = 0; i < 400; i++)
    (void)adapter_step(&a);
  cr_expect_eq(freeze_plan(a.freeze).first_active, 3);
  fl_freeze_free(a.freeze);
}

Test(freeze_criteria, safe_without_features_freezes_nothing)
{
  adapters a = open_adapters(NULL, 0);
  for (int m = 0; m < 8; m++)
    a.distance[m] = -1;
  for (int i = 0; i < 400; i++)
    (void)adapter_step(&a);
  cr_expect_eq(freeze_plan(a.freeze).version, 0);
  fl_freeze_free(a.freeze);
}
