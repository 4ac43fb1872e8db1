/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's rounds. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6, CLIENTS = 10 };

static fl_freeze *aggregator(uint32_t criterion)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.criterion = criterion;
  return freeze_make(MODULES, &o);
}

static fl_freeze_report report_of(uint32_t module, double value, double weight)
{
  fl_freeze_report report;
  must(fl_freeze_report_init(&report, sizeof report));
  report.module = module;
  report.value = value;
  report.weight = weight;
  return report;
}

/* A round without a known loss: `honest` clients tell one value, the others
 * the other one. */
static void play(fl_freeze *f, double value, double other, uint32_t honest)
{
  fl_freeze_report reports[CLIENTS];
  const uint32_t module = freeze_plan(f).first_active;
  for (uint32_t i = 0; i < CLIENTS; i++)
    reports[i] = report_of(module, i < honest ? value : other, 1);
  must(fl_freeze_end_round(f, NAN, reports, CLIENTS));
}

Test(freeze_round, module_freezes_after_three_rounds_below)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  fl_freeze_event event;
  for (int i = 0; i < 4; i++)
    play(f, 1, 0, CLIENTS);
  for (int i = 0; i < 3; i++) {
    cr_expect_eq(freeze_plan(f).first_active, 0);
    play(f, .89, 0, CLIENTS);
  }
  const fl_freeze_plan plan = freeze_plan(f);
  cr_expect_eq(plan.first_active, 1);
  cr_expect_eq(plan.version, 1);
  cr_expect_eq(plan.step, 7);
  cr_expect_eq(plan.reason, FL_FREEZE_REASON_CRITERION);
  cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.kind, FL_FREEZE_BOOTED);
  for (uint64_t i = 0; i < 7; i++) {
    cr_assert(freeze_poll(f, &event));
    cr_expect_eq(event.kind, FL_FREEZE_EVALUATED);
    cr_expect_eq(event.step, i);
    cr_expect_eq(event.below, i < 4 ? 0 : i - 3);
    cr_expect_eq(isnan(event.threshold) != 0, i < 4);
  }
  cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.kind, FL_FREEZE_CHANGED);
  cr_expect_eq(freeze_poll(f, &event), 0);
  fl_freeze_free(f);
}

Test(freeze_round, one_round_above_begins_anew)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  for (int i = 0; i < 4; i++)
    play(f, 1, 0, CLIENTS);
  const double values[] = {.8, .8, .91, .8, .8};
  for (int i = 0; i < 5; i++)
    play(f, values[i], 0, CLIENTS);
  cr_expect_eq(freeze_plan(f).first_active, 0);
  play(f, .8, 0, CLIENTS);
  cr_expect_eq(freeze_plan(f).first_active, 1);
  fl_freeze_free(f);
}

Test(freeze_round, seventy_percent_of_the_weight_decide)
{
  for (uint32_t low = 6; low <= 7; low++) {
    fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
    for (int i = 0; i < 4; i++)
      play(f, 1, 0, CLIENTS);
    for (int i = 0; i < 20; i++) {
      fl_freeze_report reports[3] = {report_of(0, .1, low), report_of(0, 1, 1),
                                     report_of(0, 1, 10 - low - 1)};
      must(fl_freeze_end_round(f, NAN, reports, 3));
    }
    cr_expect_eq(freeze_plan(f).first_active, low == 7);
    fl_freeze_free(f);
  }
}

/* Three in ten tell what they like: neither can they keep a module from being
 * frozen, nor freeze one that the others want to train. */
Test(freeze_round, liars_are_bounded_by_the_share)
{
  static const double lies[] = {0, 1e-300, 1e300, 1};
  for (int i = 0; i < 4; i++) {
    fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
    for (int k = 0; k < 4; k++)
      play(f, 1, lies[i], 7);
    for (int k = 0; k < 10; k++)
      play(f, 1, lies[i], 7);
    cr_expect_eq(freeze_plan(f).first_active, 0);
    for (int k = 0; k < 3; k++)
      play(f, .5, lies[i], 7);
    cr_expect_eq(freeze_plan(f).first_active, 1);
    fl_freeze_free(f);
  }
}

Test(freeze_round, reports_that_cannot_be_are_left_out)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  for (int i = 0; i < 12; i++) {
    const double value = i < 4 ? 1 : .5;
    fl_freeze_report reports[] = {
        report_of(0, NAN, 1e6), report_of(0, INFINITY, 1e6),
        report_of(0, -1, 1e6),  report_of(1, 9, 1e6),
        report_of(0, 9, 0),     report_of(0, 9, NAN),
        report_of(0, 9, -1),    report_of(0, 9, INFINITY),
        report_of(0, value, 1)};
    if (i == 7) break;
    must(fl_freeze_end_round(f, NAN, reports, 9));
  }
  cr_expect_eq(freeze_plan(f).first_active, 1);
  fl_freeze_free(f);
}

Test(freeze_round, rounds_without_reports_change_nothing)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  for (int i = 0; i < 4; i++)
    play(f, 1, 0, CLIENTS);
  for (int i = 0; i < 3; i++) {
    must(fl_freeze_end_round(f, NAN, NULL, 0));
    cr_expect_eq(freeze_plan(f).first_active, 0);
    play(f, .5, 0, CLIENTS);
  }
  cr_expect_eq(freeze_plan(f).first_active, 1);
  cr_expect_eq(freeze_plan(f).step, 10);
  fl_freeze_free(f);
}

/* Dead, or frozen by the host: it must not hold up those behind it. */
Test(freeze_round, module_that_never_moves_is_frozen)
{
  static const uint32_t of[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY};
  for (int i = 0; i < 2; i++) {
    fl_freeze *f = aggregator(of[i]);
    for (int k = 0; k < 7 + i; k++) {
      cr_expect_eq(freeze_plan(f).first_active, 0);
      play(f, 0, 0, CLIENTS);
    }
    cr_expect_eq(freeze_plan(f).first_active, 1);
    fl_freeze_free(f);
  }
}

Test(freeze_round, rounds_lie_between_two_freezes)
{
  for (uint64_t gap = 2; gap <= 12; gap += 10) {
    fl_freeze_options o;
    must(fl_freeze_options_init(&o, sizeof o));
    o.gap = gap;
    fl_freeze *f = freeze_make(MODULES, &o);
    uint64_t at[3] = {0};
    for (uint64_t i = 0; at[2] == 0; i++) {
      play(f, pow(.5, (double)i), 0, CLIENTS);
      const fl_freeze_plan plan = freeze_plan(f);
      at[plan.first_active] = plan.step;
      cr_assert(i < 100);
    }
    /* 4 rounds for the maximum, 3 below. */
    cr_expect_eq(at[2] - at[1], gap > 7 ? gap : 7);
    fl_freeze_free(f);
  }
}

/* |slope| of the least-squares line through the last `window` of n values, by
 * its definition. */
static double slope_of(const double *values, int n, int window)
{
  const int w = n < window ? n : window;
  const double middle = (w - 1) / 2.0;
  double above = 0, below = 0, mean = 0;
  for (int k = 0; k < w; k++)
    mean += values[n - w + k] / w;
  for (int k = 0; k < w; k++) {
    above += (k - middle) * (values[n - w + k] - mean);
    below += (k - middle) * (k - middle);
  }
  return fabs(above / below);
}

/* Rounds until the module freezes, by the rule written plainly: a tenth of the
 * greatest of the first 4 slopes, 3 rounds running; 0: never. */
static int rounds_by_hand(const double *values, int n)
{
  double greatest = 0;
  int below = 0;
  for (int i = 2; i <= n; i++) {
    const double slope = slope_of(values, i, 12);
    if (i <= 5) {
      greatest = slope > greatest ? slope : greatest;
      continue;
    }
    below = slope < (double).1f * greatest ? below + 1 : 0;
    if (below == 3) return i;
  }
  return 0;
}

/* Scaled, so that P and its slope have nothing to do with each other's size. */
Test(freeze_round, plasticity_goes_by_the_slope_of_medians)
{
  enum { ROUNDS = 60 };
  for (int shape = 0; shape < 3; shape++) {
    for (double scale = 1e-3; scale < 1e4; scale *= 1e3) {
      fl_freeze *f = aggregator(FL_FREEZE_PLASTICITY);
      double values[ROUNDS];
      int n = 0;
      for (int i = 0; i < ROUNDS; i++) {
        const double fall[] = {pow(.67, i), 1.0 / (1 + i), 9 + pow(.8, i)};
        values[i] = scale * (fall[shape] + .001 * (i * 37 % 11));
      }
      while (n < ROUNDS && freeze_plan(f).first_active == 0)
        play(f, values[n++], 0, CLIENTS);
      const int expected = rounds_by_hand(values, ROUNDS);
      cr_expect(expected > 8, "%d", expected);
      cr_expect_eq(n, expected, "%d: %g: %d, want %d", shape, scale, n,
                   expected);
      fl_freeze_free(f);
    }
  }
}

Test(freeze_round, plasticity_that_falls_in_a_straight_line_goes_on)
{
  for (int i = 0; i < 2; i++) {
    fl_freeze *f = aggregator(FL_FREEZE_PLASTICITY);
    const double fall = i ? .06 : .001;
    for (int k = 0; k < 16; k++)
      play(f, 1 - fall * k, 0, CLIENTS);
    cr_expect_eq(freeze_plan(f).first_active, 0);
    fl_freeze_free(f);
  }
}

Test(freeze_round, loss_that_is_known_holds_up_as_in_training)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  fl_freeze_report report = report_of(0, 1, 1);
  fl_freeze_event event;
  for (int i = 0; i < 20; i++)
    must(fl_freeze_end_round(f, 2.3, &report, 1));
  /* One that is not known is passed over. */
  must(fl_freeze_end_round(f, NAN, &report, 1));
  cr_expect_eq(freeze_poll(f, &event), 0);
  for (int i = 0; i < 8; i++)
    must(fl_freeze_end_round(f, .5, &report, 1));
  cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.kind, FL_FREEZE_BOOTED);
  cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.kind, FL_FREEZE_EVALUATED);
  fl_freeze_free(f);
}

/* The head is drawn: it moves a lot until round 6. 1 in the last four rounds of
 * bootstrapping, then `value`; 1.25 is exact in float32. */
static uint64_t rounds_from_a_trained_model(double value)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.is_pretrained = 1;
  o.pretrained_share = .25f;
  o.total_steps = 40;
  fl_freeze *f = freeze_make(MODULES, &o);
  uint64_t rounds = 0;
  while (freeze_plan(f).first_active == 0 && rounds < 30) {
    const double D = rounds < 6 ? 30 : rounds < 10 ? 1 : value;
    const fl_freeze_report report = report_of(0, D, 1);
    must(fl_freeze_end_round(f, 2.3, &report, 1));
    rounds++;
  }
  fl_freeze_free(f);
  return rounds;
}

Test(freeze_round,
     a_trained_model_waits_its_share_and_freezes_what_does_not_rise)
{
  cr_expect_eq(rounds_from_a_trained_model(.5), 13);
  cr_expect_eq(rounds_from_a_trained_model(1.2499), 13);
  cr_expect_eq(rounds_from_a_trained_model(1.25), 30);
}

/* The default is a quarter of the job, and 2 at least. */
static uint64_t rounds_between(uint64_t total, uint64_t gap)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.is_pretrained = 1;
  o.total_steps = total;
  o.gap = gap;
  fl_freeze *f = freeze_make(MODULES, &o);
  uint64_t round = 0, first = 0;
  while (freeze_plan(f).first_active < 2 && round < 100) {
    const fl_freeze_report report =
        report_of(freeze_plan(f).first_active, 1, 1);
    must(fl_freeze_end_round(f, 2.3, &report, 1));
    round++;
    if (freeze_plan(f).first_active == 0) first = round;
  }
  fl_freeze_free(f);
  return round - first - 1;
}

Test(freeze_round, from_a_trained_model_a_quarter_of_the_job_is_between_freezes)
{
  cr_expect_eq(rounds_between(40, 0), 10);
  cr_expect_eq(rounds_between(60, 0), 15);
  /* The four rounds of the greatest median, and three below it. */
  cr_expect_eq(rounds_between(8, 0), 7);
  cr_expect_eq(rounds_between(40, 1), 7);
  cr_expect_eq(rounds_between(40, 12), 12);
}

Test(freeze_round, order_of_the_reports_does_not_matter)
{
  double first = 0;
  for (int turn = 0; turn < 5; turn++) {
    fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
    fl_freeze_event event;
    fl_freeze_report reports[5];
    for (int i = 0; i < 5; i++)
      reports[(i + turn) % 5] = report_of(0, .1 * (i + 1), 1.0 / (i + 3));
    must(fl_freeze_end_round(f, NAN, reports, 5));
    while (freeze_poll(f, &event))
      continue;
    const double median = f->state.values[0];
    if (turn == 0) first = median;
    cr_expect_eq(median, first);
    /* 1/3 + 1/4 of 1.0929 is the first half. */
    cr_expect_float_eq(median, .2, 1e-15);
    fl_freeze_free(f);
  }
}

/* A host of a newer version has longer reports. */
typedef struct long_report {
  fl_freeze_report report;
  uint64_t more;
} long_report;

Test(freeze_round, reports_may_be_longer_when_nothing_is_in_it)
{
  long_report reports[2];
  memset(reports, 0, sizeof reports);
  for (int i = 0; i < 2; i++) {
    reports[i].report = report_of(0, 1 + i, 1);
    reports[i].report.struct_size = sizeof *reports;
  }
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  must(fl_freeze_end_round(f, NAN, &reports[0].report, 2));
  cr_expect_eq(f->state.peak, 1);
  reports[1].more = 1;
  cr_expect_eq(fl_freeze_end_round(f, NAN, &reports[0].report, 2),
               FL_E_OPTIONS);
  reports[1].more = 0;
  reports[1].report.struct_size = sizeof(fl_freeze_report);
  cr_expect_eq(fl_freeze_end_round(f, NAN, &reports[0].report, 2),
               FL_E_OPTIONS);
  cr_expect_eq(f->state.step, 1);
  fl_freeze_free(f);
}

Test(freeze_round, rounds_and_steps_do_not_mix)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  fl_freeze_request request;
  must(fl_freeze_request_init(&request, sizeof request));
  cr_expect_eq(fl_freeze_begin_step(f, .1f, &request), FL_E_STATE);
  cr_expect_eq(fl_freeze_end_round(f, 1, NULL, 1), FL_E_ARGUMENT);
  fl_freeze_free(f);
  const uint32_t others[] = {FL_FREEZE_GRADNORM, FL_FREEZE_RELATIVE_PLASTICITY,
                             FL_FREEZE_SERVER};
  for (int i = 0; i < 3; i++) {
    fl_freeze_options o = freeze_options(others[i]);
    f = freeze_make(MODULES, &o);
    cr_expect_eq(fl_freeze_end_round(f, 1, NULL, 0), FL_E_STATE);
    fl_freeze_free(f);
  }
}

Test(freeze_round, plan_of_an_aggregator_is_followed_by_clients)
{
  fl_freeze *f = aggregator(FL_FREEZE_GRADNORM);
  fl_freeze_options o = freeze_options(FL_FREEZE_SERVER);
  fl_freeze *client = freeze_make(MODULES, &o);
  uint8_t plan[256];
  size_t n = 0;
  for (uint64_t i = 0; i < 40; i++) {
    play(f, pow(.5, (double)i), 0, CLIENTS);
    must(fl_freeze_copy_plan(f, plan, sizeof plan, &n));
    must(fl_freeze_apply_plan(client, plan, n));
    cr_assert_eq(freeze_plan(client).first_active, freeze_plan(f).first_active);
    cr_assert_eq(freeze_plan(client).version, freeze_plan(f).version);
  }
  cr_expect_eq(freeze_plan(client).first_active, 4);
  fl_freeze_free(client);
  fl_freeze_free(f);
}
