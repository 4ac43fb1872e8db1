/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with cohorts: a real server and real clients of two groups. */
#include <criterion/criterion.h>

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_snapshot.h"
#include "cohort_world.h"

/* Nobody is asked anything as long as there is one model. */
Test(server_cohorts, one_cohort_asks_nothing)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 24, 2);
  w.job.rounds = 5;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  for (uint32_t i = 0; i < w.n_clients; i++)
    cr_assert_eq(w.clients[i].probed, 0u);
  cw_free(&w);
}

/* ---- refusals ------------------------------------------------------------ */

static fl_status add(cw_world *w)
{
  return fl_server_add_job(w->server, w->model, &w->job, NULL);
}

Test(server_cohorts, settings_that_exclude_each_other_are_refused)
{
  static cw_world w;
  fl_freeze_options freeze;
  fl_strategy_options controls;
  cw_init(&w, FL_CODEC_F32, 8, 1);
  CW_MUST(fl_server_new(&w.server, NULL, NULL));
  CW_MUST(fl_freeze_options_init(&freeze, sizeof freeze));
  w.job.cohort_sketches = FL_SKETCH_LANES;
  cr_assert_eq(add(&w), FL_E_CONFLICT);
  w.job.cohort_sketches = FL_SKETCH_FLOATS + 1;
  cr_assert_eq(add(&w), FL_E_OPTIONS);
  w.job.cohort_sketches = FL_SKETCH_AUTO;
  w.job.freeze = &freeze;
  cr_assert_eq(add(&w), FL_E_CONFLICT);
  w.job.freeze = NULL;
  w.codec.codec = FL_CODEC_THC;
  w.job.error_feedback = 1;
  cr_assert_eq(add(&w), FL_E_CONFLICT);
  w.job.error_feedback = 0;
  CW_MUST(fl_strategy_options_named(&controls, sizeof controls, "scaffold"));
  w.job.strategy = &controls;
  cr_assert_eq(add(&w), FL_E_CONFLICT);
  cr_expect_not_null(
      strstr(fl_last_error(), "cohorts: got some with SCAFFOLD"));
  w.job.strategy = NULL;
  w.cohorts.cap = FL_COHORT_MAX + 1;
  cr_assert_eq(add(&w), FL_E_OPTIONS);
  w.cohorts.cap = 4;
  cr_assert_eq(add(&w), FL_OK);
  cw_free(&w);
}

Test(server_cohorts, getters_say_what_is_not_there)
{
  static cw_world w;
  const fl_cohort_set *set = NULL;
  float weights[CW_WEIGHTS];
  uint32_t slot;
  cw_init(&w, FL_CODEC_F32, 4, 1);
  w.job.cohorts = NULL;
  cw_start(&w);
  cr_assert_eq(fl_server_get_cohorts(w.server, 0, &set), FL_E_STATE);
  cr_assert_eq(fl_server_get_cohorts(w.server, 1, &set), FL_E_NOT_FOUND);
  w.job.cohorts = &w.cohorts;
  w.job.name = "other";
  CW_MUST(fl_server_add_job(w.server, w.model, &w.job, NULL));
  CW_MUST(fl_server_get_cohorts(w.server, 1, &set));
  cr_assert_eq(fl_server_copy_cohort(w.server, 1, 1, weights, CW_WEIGHTS, NULL),
               FL_E_NOT_FOUND);
  cr_assert_eq(
      fl_server_copy_cohort(w.server, 1, 0, weights, CW_WEIGHTS - 1, NULL),
      FL_E_DIM);
  cr_assert_eq(fl_server_find_member(w.server, 1, "nobody", &slot),
               FL_E_NOT_FOUND);
  cw_free(&w);
}

/* ---- what a liar can do -------------------------------------------------- */

static void say_loss(cw_world *w, uint32_t at, const fli_metrics *metrics)
{
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  CW_MUST(fli_write_metrics(&bytes, metrics));
  CW_MUST(fl_server_recv(w->server, at, bytes.data, bytes.size));
  fli_bytes_free(&bytes);
}

/* A client that answers for the models of all cohorts, before it is asked or
 * when it is. */
static void lie(cw_world *w, uint32_t at, uint32_t round, double loss)
{
  static float weights[CW_WEIGHTS];
  for (uint32_t m = 0; m < 2; m++) {
    fli_metrics metrics = {
        .round = round, .is_probe = 1, .cohort = m, .loss = loss};
    if (fl_server_copy_cohort(w->server, 0, m, weights, CW_WEIGHTS,
                              &metrics.model_version) != FL_OK)
      continue;
    say_loss(w, at, &metrics);
  }
}

static void losses_are_refused(double loss)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 120, 2);
  cw_start(&w);
  for (uint32_t t = 1; t < 60; t++) {
    cw_run(&w, t);
    lie(&w, 7, t + 1, loss);
  }
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_gt(w.rejected, 0u);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 1u);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u);
  cw_free(&w);
}

Test(server_cohorts, probe_of_nan_costs_its_sender_the_round)
{
  losses_are_refused(NAN);
}

Test(server_cohorts, probe_of_minus_infinity_costs_its_sender_the_round)
{
  losses_are_refused(-INFINITY);
}

Test(server_cohorts, client_that_declines_its_probes_is_left_out)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 120, 2);
  w.clients[7].is_shy = 1;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_gt(w.clients[7].probed, 0u);
  cr_assert_eq(w.rejected, 0u);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u);
  cw_free(&w);
}

/* Of every round and cohort, from every client, all the time. */
Test(server_cohorts, losses_that_nobody_asked_for_change_nothing)
{
  static cw_world quiet, loud;
  static float a[CW_WEIGHTS], b[CW_WEIGHTS];
  cw_init(&quiet, FL_CODEC_THC, 120, 2);
  cw_run_sketched(&quiet, FL_SKETCH_LANES);
  cr_assert(quiet.is_finished);
  cw_init(&loud, FL_CODEC_THC, 120, 2);
  loud.job.evaluate_every = 10;
  cw_start(&loud);
  for (uint32_t t = 1; !loud.is_finished; t++) {
    cw_run(&loud, t);
    for (uint32_t i = 0; i < loud.n_clients && !loud.is_finished; i++) {
      /* Of the round before; of a cohort that is not asked; as a score. */
      say_loss(&loud, i, &(fli_metrics){.round = t, .is_probe = 1});
      say_loss(&loud, i,
               &(fli_metrics){.round = t + 1, .is_probe = 1, .cohort = 3});
      say_loss(
          &loud, i,
          &(fli_metrics){
              .round = t + 1, .attempt = 9, .is_probe = 1, .loss = -INFINITY});
    }
    if (t > 60) cw_run(&loud, UINT32_MAX);
  }
  for (uint32_t m = 0; m < 2; m++) {
    CW_MUST(fl_server_copy_cohort(quiet.server, 0, m, a, CW_WEIGHTS, NULL));
    CW_MUST(fl_server_copy_cohort(loud.server, 0, m, b, CW_WEIGHTS, NULL));
    cr_assert_arr_eq(a, b, sizeof a);
  }
  cw_free(&quiet);
  cw_free(&loud);
}

/* ---- snapshots ----------------------------------------------------------- */

static void small(cw_world *w)
{
  cw_init(w, FL_CODEC_THC, 60, 2);
  w->job.rounds = 45;
  w->job.participants = 12;
  w->job.evaluate_every = 6;
}

/* `every` exchanges the server is killed; 0: never. */
static void run_with_kills(cw_world *w, uint32_t every)
{
  small(w);
  cw_run_with_kills(w, every);
  cr_assert(w->is_finished);
}

Test(server_cohorts, killed_at_any_time_it_ends_with_the_same_cohorts)
{
  static const uint32_t kills[] = {701, 1009, 1999};
  static cw_world calm, w;
  static float a[CW_WEIGHTS], b[CW_WEIGHTS];
  run_with_kills(&calm, 0);
  cr_assert_eq(calm.changes[FL_COHORT_KEPT], 1u);
  for (size_t k = 0; k < sizeof kills / sizeof *kills; k++) {
    run_with_kills(&w, kills[k]);
    for (uint32_t i = 0; i < w.n_clients; i++)
      cr_assert_eq(cw_cohort(&w, i), cw_cohort(&calm, i));
    for (uint32_t m = 0; m < 2; m++) {
      CW_MUST(fl_server_copy_cohort(calm.server, 0, m, a, CW_WEIGHTS, NULL));
      CW_MUST(fl_server_copy_cohort(w.server, 0, m, b, CW_WEIGHTS, NULL));
      cr_assert_arr_eq(a, b, sizeof a, "killed every %u: cohort %u", kills[k],
                       m);
    }
    cw_free(&w);
  }
  cw_free(&calm);
}

/* Leaves with fewer members than a round needs, and than it would be asked for,
 * wait for the next one. */
Test(server_cohorts, small_leaves_are_saved_and_go_on)
{
  static cw_world w;
  uint32_t n = 0, idle = 0;
  small(&w);
  w.job.min_participants = 4;
  w.job.over_selection = 1.5f;
  cw_start(&w);
  CW_MUST(fl_server_tick(w.server, w.now));
  while (!w.is_finished && idle < 3) {
    idle++;
    for (uint32_t i = 0; i < w.n_clients; i++) {
      if (cw_talk(&w, i)) idle = 0;
      cw_listen(&w);
      if (++n % 503 == 0 && !w.is_finished) cw_restart(&w);
    }
  }
  cr_assert(w.is_finished);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u);
  cw_free(&w);
}

/* In the middle of a round with two cohorts, between probes and updates. */
static void payload_of(fli_bytes *payload)
{
  static cw_world w;
  small(&w);
  cw_start(&w);
  cw_run(&w, 30);
  for (uint32_t i = 0; i < w.n_clients / 2; i++)
    (void)cw_talk(&w, i);
  snapshot_payload(&w, payload);
  cw_free(&w);
}

Test(server_cohorts, torn_snapshot_is_refused_at_every_length)
{
  fli_bytes payload;
  fli_bytes_init(&payload, NULL);
  payload_of(&payload);
  snapshot_tear(&payload);
  fli_bytes_free(&payload);
}

Test(server_cohorts, snapshot_with_another_byte_is_survived)
{
  fli_bytes payload;
  fli_bytes_init(&payload, NULL);
  payload_of(&payload);
  snapshot_flip(&payload);
  fli_bytes_free(&payload);
}

/* ---- scores -------------------------------------------------------------- */

Test(server_cohorts, accuracy_of_clients_rises_with_a_model_for_each_group)
{
  static cw_world one, two;
  fl_client_accuracy a, b;
  CW_MUST(fl_client_accuracy_init(&a, sizeof a));
  CW_MUST(fl_client_accuracy_init(&b, sizeof b));
  cw_init(&two, FL_CODEC_THC, 120, 2);
  cw_run_sketched(&two, FL_SKETCH_AUTO);
  cr_assert(two.is_finished);
  CW_MUST(fl_server_get_accuracy(two.server, 0, &b));
  cw_init(&one, FL_CODEC_THC, 120, 2);
  one.job.cohorts = NULL;
  one.job.evaluate_every = 10;
  cw_start(&one);
  cw_run(&one, UINT32_MAX);
  CW_MUST(fl_server_get_accuracy(one.server, 0, &a));
  cr_assert_eq(two.scores, 6u);
  cr_assert_eq(a.clients, 120u);
  cr_assert_eq(b.clients, 120u);
  cr_assert_eq(b.round, 60u);
  cr_assert_gt(b.worst, a.worst + .1);
  cr_assert_gt(b.quantiles[0], .9);
  cw_free(&one);
  cw_free(&two);
}
