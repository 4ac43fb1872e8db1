/* SPDX-License-Identifier: Apache-2.0 */
/* What three in ten clients can do to an aggregator's decisions by telling what
 * they like, one and the same or each something else, with either criterion. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6, CLIENTS = 10, LIARS = 3 };

static const double lies[] = {0, 1e-300, 1e300, 1, .5};
enum { N_LIES = sizeof lies / sizeof lies[0] };

/* A round that the honest ones report `value` of; the liars tell lie number
 * `which`, or, at N_LIES, one after the other. */
static void play(fl_freeze *f, double value, int which, uint32_t liars)
{
  fl_freeze_report reports[CLIENTS];
  for (uint32_t i = 0; i < CLIENTS; i++) {
    const uint64_t turn = f->state.step + i;
    must(fl_freeze_report_init(&reports[i], sizeof reports[i]));
    reports[i].module = freeze_plan(f).first_active;
    reports[i].value = value;
    if (i >= liars) continue;
    reports[i].value = lies[which < N_LIES ? (uint64_t)which : turn % N_LIES];
  }
  must(fl_freeze_end_round(f, 2.3, reports, CLIENTS));
}

static fl_freeze *make(const fl_freeze_options *given)
{
  fl_freeze_options o = *given;
  o.is_pretrained = 1;
  o.total_steps = 400;
  o.pretrained_share = 1e-3f;
  return freeze_make(MODULES, &o);
}

static fl_freeze *make_pretrained(float tolerance)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.tolerance = tolerance;
  return make(&o);
}

static fl_freeze *make_slope(void)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.criterion = FL_FREEZE_PLASTICITY;
  return make(&o);
}

/* Rounds until the module freezes; 0: not in 60. */
static int rounds_until(fl_freeze *f, double (*value)(int), int which,
                        uint32_t liars)
{
  int rounds = 0;
  while (rounds < 60 && freeze_plan(f).first_active == 0)
    play(f, value(rounds++), which, liars);
  const int is_frozen = freeze_plan(f).first_active != 0;
  fl_freeze_free(f);
  return is_frozen ? rounds : 0;
}

/* ---- gradnorm from a trained model -------------------------------------- */

static double that_rises(int round)
{
  return round < 4 ? 1 : 1.26;
}

static double that_stays(int round)
{
  return round % 2 ? 1 : 1.2;
}

Test(freeze_liars, do_not_freeze_what_still_rises_in_a_trained_model)
{
  for (int which = 0; which <= N_LIES; which++)
    cr_expect_eq(rounds_until(make_pretrained(0), that_rises, which, LIARS), 0,
                 "lie %d", which);
}

Test(freeze_liars, do_not_hold_up_what_stays_in_a_trained_model)
{
  const int honest = rounds_until(make_pretrained(0), that_stays, 0, 0);
  cr_expect_eq(honest, 7);
  for (int which = 0; which <= N_LIES; which++)
    cr_expect_eq(rounds_until(make_pretrained(0), that_stays, which, LIARS),
                 honest, "lie %d", which);
}

/* One liar more than the share bears has a say: 60 % are not 70. */
Test(freeze_liars, of_four_in_ten_hold_a_module_up)
{
  const int which = 2; /* 1e300 */
  cr_expect_eq(rounds_until(make_pretrained(0), that_stays, which, LIARS + 1),
               0);
}

Test(freeze_liars, do_not_freeze_what_has_not_fallen_under_another_tolerance)
{
  for (int which = 0; which <= N_LIES; which++)
    cr_expect_eq(rounds_until(make_pretrained(.9f), that_stays, which, LIARS),
                 0, "lie %d", which);
}

/* ---- slopes of plasticity ----------------------------------------------- */

static double in_a_line(int round)
{
  return 2 - .03 * round;
}

static double that_flattens(int round)
{
  return 1 + pow(.5, round);
}

Test(freeze_liars, do_not_freeze_what_still_falls)
{
  for (int which = 0; which <= N_LIES; which++)
    cr_expect_eq(rounds_until(make_slope(), in_a_line, which, LIARS), 0,
                 "lie %d", which);
}

/* The median lies among the honest values, which are all the same here. */
Test(freeze_liars, do_not_hold_up_what_has_flattened)
{
  const int honest = rounds_until(make_slope(), that_flattens, 0, 0);
  cr_expect(honest > 8, "%d", honest);
  for (int which = 0; which <= N_LIES; which++)
    cr_expect_eq(rounds_until(make_slope(), that_flattens, which, LIARS),
                 honest, "lie %d", which);
}

/* The honest ones differ: liars move the median within their values only, and
 * what decides is still whether those fall. */
Test(freeze_liars, move_a_median_within_the_honest_values)
{
  for (int which = 0; which <= N_LIES; which++) {
    fl_freeze *f = make_slope();
    fl_freeze_event event;
    for (int round = 0; round < 30; round++) {
      fl_freeze_report reports[CLIENTS];
      double least = 1e9, most = 0, seen = (double)NAN;
      for (uint32_t i = 0; i < CLIENTS; i++) {
        must(fl_freeze_report_init(&reports[i], sizeof reports[i]));
        reports[i].value = in_a_line(round) + .01 * i;
        if (i < LIARS) {
          reports[i].value =
              lies[which < N_LIES ? which
                                  : (int)(i + (uint32_t)round) % N_LIES];
          continue;
        }
        least = fmin(least, reports[i].value);
        most = fmax(most, reports[i].value);
      }
      must(fl_freeze_end_round(f, 2.3, reports, CLIENTS));
      while (freeze_poll(f, &event)) {
        if (event.kind == FL_FREEZE_EVALUATED) seen = event.raw;
      }
      cr_expect(seen >= least && seen <= most, "lie %d: %g", which, seen);
    }
    cr_expect_eq(freeze_plan(f).first_active, 0);
    fl_freeze_free(f);
  }
}
