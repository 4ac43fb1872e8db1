/* SPDX-License-Identifier: Apache-2.0 */
/* What is the same whether cohorts go on together or apart: a real server and
 * real clients of two groups, found by every rule. */
#include <criterion/criterion.h>

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"

static void in_each_pace(void (*check)(uint32_t pace))
{
  check(FL_COHORT_TOGETHER);
  check(FL_COHORT_APART);
}

static void init(cw_world *w, uint32_t pace, uint32_t codec, uint32_t n)
{
  cw_init(w, codec, n, 2);
  w->job.cohort_pace = pace;
}

static void finish(cw_world *w)
{
  cw_start(w);
  cw_run(w, UINT32_MAX);
  cr_assert(w->is_finished, "pace %u", w->job.cohort_pace);
}

static void check_two_groups(uint32_t pace, uint32_t codec, uint32_t sketches)
{
  static cw_world w;
  init(&w, pace, codec, 120);
  cw_run_sketched(&w, sketches);
  cr_assert(w.is_finished, "pace %u", pace);
  if (pace == FL_COHORT_TOGETHER) cr_assert_eq(w.changes[FL_COHORT_TRIAL], 1u);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 1u, "pace %u", pace);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u, "pace %u", pace);
  cr_assert(cw_is_sorted(&w), "pace %u", pace);
  cr_assert_eq(w.finished, 60u, "pace %u", pace);
  cr_assert_eq(w.rejected, 0u, "pace %u", pace);
  cw_free(&w);
}

static void by_lanes(uint32_t pace)
{
  check_two_groups(pace, FL_CODEC_THC, FL_SKETCH_LANES);
}

Test(server_cohort_paces, two_groups_are_found_by_lanes)
{
  in_each_pace(by_lanes);
}

static void by_floats(uint32_t pace)
{
  check_two_groups(pace, FL_CODEC_F32, FL_SKETCH_AUTO);
}

Test(server_cohort_paces, two_groups_are_found_by_floats)
{
  in_each_pace(by_floats);
}

/* Each client's model is that of its cohort in the end, and good for it. */
static void check_models(uint32_t pace)
{
  static cw_world w;
  static float own[CW_WEIGHTS], want[CW_WEIGHTS];
  init(&w, pace, FL_CODEC_THC, 120);
  cw_run_sketched(&w, FL_SKETCH_AUTO);
  cr_assert(w.is_finished, "pace %u", pace);
  for (uint32_t i = 0; i < w.n_clients; i++) {
    uint64_t version = 0, held = 0;
    cr_assert(w.clients[i].is_done);
    CW_MUST(
        fl_client_copy_weights(w.clients[i].handle, own, CW_WEIGHTS, &held));
    CW_MUST(fl_server_copy_cohort(w.server, 0, cw_cohort(&w, i), want,
                                  CW_WEIGHTS, &version));
    cr_assert_eq(held, version, "pace %u", pace);
    cr_assert_arr_eq(own, want, sizeof own, "pace %u", pace);
    cr_assert_lt(cw_loss(&w.clients[i], own), .05, "pace %u", pace);
  }
  cw_free(&w);
}

Test(server_cohort_paces, clients_end_with_the_model_of_their_own_cohort)
{
  in_each_pace(check_models);
}

static void check_alike(uint32_t pace)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 120, 1);
  w.job.cohort_pace = pace;
  finish(&w);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 0u, "pace %u", pace);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 1u, "pace %u", pace);
  if (pace == FL_COHORT_APART) cr_assert_eq(w.clients[0].probed, 0u);
  cw_free(&w);
}

Test(server_cohort_paces, clients_that_are_alike_stay_one)
{
  in_each_pace(check_alike);
}

/* All would have trained before the trial compares: half of them wait. */
static void check_few(uint32_t pace)
{
  static cw_world w;
  init(&w, pace, FL_CODEC_THC, 24);
  w.job.participants = 12;
  finish(&w);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 1u, "pace %u", pace);
  cr_assert(cw_is_sorted(&w), "pace %u", pace);
  cw_free(&w);
}

Test(server_cohort_paces, two_dozen_clients_are_enough)
{
  in_each_pace(check_few);
}

static void check_least_loss(uint32_t pace)
{
  static cw_world w;
  init(&w, pace, FL_CODEC_BF16, 24);
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 2;
  w.job.rounds = 12;
  w.job.participants = 0;
  finish(&w);
  cr_assert(cw_is_sorted(&w), "pace %u", pace);
  if (pace == FL_COHORT_TOGETHER) cr_assert_gt(w.clients[0].probed, 20u);
  cw_free(&w);
}

Test(server_cohort_paces, least_loss_sorts_two_groups)
{
  in_each_pace(check_least_loss);
}

static void check_auxo(uint32_t pace)
{
  static cw_world w;
  init(&w, pace, FL_CODEC_F32, 40);
  w.cohorts.rule = FL_COHORT_AUXO;
  w.cohorts.dim = 0;
  w.cohorts.cap = 2;
  w.cohorts.min_members = 1;
  w.job.participants = 20;
  finish(&w);
  cr_assert_geq(w.changes[FL_COHORT_SPLIT], 1u, "pace %u", pace);
  cr_assert(cw_is_sorted(&w), "pace %u", pace);
  cw_free(&w);
}

Test(server_cohort_paces, auxo_splits_by_features_of_decoded_updates)
{
  in_each_pace(check_auxo);
}
