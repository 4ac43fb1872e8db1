/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with cohorts: a real server and real clients of two groups. */
#include <criterion/criterion.h>

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"

static void run_two_groups(cw_world *w, uint32_t codec, uint32_t sketches)
{
  cw_init(w, codec, 120, 2);
  w->job.cohort_sketches = sketches;
  w->job.evaluate_every = 10;
  cw_start(w);
  cw_run(w, UINT32_MAX);
  cr_assert(w->is_finished);
}

static void check_two_groups(const cw_world *w)
{
  cr_assert_eq(w->changes[FL_COHORT_TRIAL], 1u);
  cr_assert_eq(w->changes[FL_COHORT_KEPT], 1u);
  cr_assert_eq(fl_cohort_set_count(cw_set(w)), 2u);
  cr_assert(cw_is_sorted(w));
  cr_assert_eq(w->finished, 60u);
  cr_assert_eq(w->rejected, 0u);
}

Test(server_cohorts, two_groups_are_found_by_lanes)
{
  static cw_world w;
  run_two_groups(&w, FL_CODEC_THC, FL_SKETCH_LANES);
  check_two_groups(&w);
  cw_free(&w);
}

Test(server_cohorts, two_groups_are_found_by_floats)
{
  static cw_world w;
  run_two_groups(&w, FL_CODEC_F32, FL_SKETCH_AUTO);
  check_two_groups(&w);
  cw_free(&w);
}
