/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: a real server and real clients of two groups. */
#include <criterion/criterion.h>

#include "cohort_apart.h"

/* ---- pace ---------------------------------------------------------------- */

static uint64_t version_of(const cw_world *w, uint32_t cohort)
{
  static float weights[CW_WEIGHTS];
  uint64_t version = 0;
  CW_MUST(fl_server_copy_cohort(w->server, 0, cohort, weights, CW_WEIGHTS,
                                &version));
  return version;
}

/* A second of the clock, time for eight exchanges, in which the clients of
 * cohort `slow` are heard every `every` seconds; 0: never. */
static void pass_second(cw_world *w, uint32_t slow, uint32_t every)
{
  const uint64_t second = w->now / CW_SECOND;
  w->now = (second + 1) * CW_SECOND;
  const int is_heard = every > 0 && (second + 1) % every == 0;
  CW_MUST(fl_server_tick(w->server, w->now));
  for (uint32_t k = 0; k < 8 * w->n_clients && !w->is_finished; k++) {
    const uint32_t i = k % w->n_clients;
    if (cw_cohort(w, i) == slow && !is_heard) continue;
    (void)cw_talk(w, i);
    cw_listen(w);
  }
}

Test(server_cohort_apart, cohort_whose_clients_never_answer_holds_nobody_up)
{
  static cw_world w;
  find_two(&w, 60);
  const uint32_t slow = cw_cohort(&w, 1), fast = cw_cohort(&w, 0);
  const uint64_t before = version_of(&w, fast), there = version_of(&w, slow);
  for (uint32_t t = 0; t < 40; t++)
    pass_second(&w, slow, 0);
  cr_assert_geq(version_of(&w, fast), before + 8);
  cr_assert_leq(version_of(&w, slow), there + 1);
  while (!w.is_finished && w.now < 2000 * CW_SECOND)
    pass_second(&w, slow, 0);
  cr_assert(w.is_finished);
  cr_assert_eq(w.finished, 60u);
  cw_free(&w);
}

/* What the same silence costs those that go on together. */
Test(server_cohort_apart, together_the_same_silence_holds_all_up)
{
  static cw_world w;
  init(&w, FL_CODEC_THC, 60);
  w.job.cohort_pace = FL_COHORT_TOGETHER;
  w.job.participants = 12;
  cw_start(&w);
  while (w.changes[FL_COHORT_KEPT] == 0)
    cw_run(&w, w.finished + 1);
  const uint32_t slow = cw_cohort(&w, 1), fast = cw_cohort(&w, 0);
  const uint64_t before = version_of(&w, fast);
  for (uint32_t t = 0; t < 40; t++)
    pass_second(&w, slow, 0);
  cr_assert_leq(version_of(&w, fast), before + 1);
  cw_free(&w);
}

Test(server_cohort_apart, slow_cohort_makes_fewer_rounds_in_the_same_time)
{
  static cw_world w;
  find_two(&w, 60);
  const uint32_t slow = cw_cohort(&w, 1), fast = cw_cohort(&w, 0);
  const uint64_t a = version_of(&w, fast), b = version_of(&w, slow);
  for (uint32_t t = 0; t < 60; t++)
    pass_second(&w, slow, 3);
  const uint64_t n = version_of(&w, fast) - a, m = version_of(&w, slow) - b;
  cr_assert_gt(m, 0u);
  cr_assert_geq(n, 2 * m);
  cw_free(&w);
}

/* A round of the job is as many updates as it asks for, whoever sends them. */
Test(server_cohort_apart, job_is_over_with_its_share_of_updates)
{
  static cw_world w;
  uint32_t trained = 0;
  find_two(&w, 60);
  const uint32_t slow = cw_cohort(&w, 1);
  while (!w.is_finished && w.now < 2000 * CW_SECOND)
    pass_second(&w, slow, 4);
  cr_assert(w.is_finished);
  cr_assert_eq(w.finished, 60u);
  for (uint32_t i = 0; i < w.n_clients; i++)
    trained += w.clients[i].trained;
  cr_assert_geq(trained, 60u * 12u);
  cr_assert_leq(trained, 62u * 12u);
  cw_free(&w);
}

/* Clients that its running draw asks to train. */
static uint32_t drawn_by(const cw_world *w, uint32_t cohort)
{
  const fli_lane *lane = &front_of(w)->cohorts->lanes[cohort];
  uint32_t n = 0;
  cr_assert(lane->is_drawn);
  for (uint32_t i = 0; i < lane->n_visits; i++)
    n += lane->visits[i].trains;
  return n;
}

/* Each cohort's share of 20: of 40 and 20 clients, by size and equally. */
static void check_share(uint32_t share, uint32_t large, uint32_t little)
{
  static cw_world w;
  init(&w, FL_CODEC_THC, 60);
  w.job.rounds = 60;
  w.job.participants = 20;
  w.job.cohort_share = share;
  cw_start(&w);
  for (uint32_t i = 0; i < 60; i++)
    w.clients[i].group = i % 3 == 2;
  while (w.changes[FL_COHORT_KEPT] == 0 && !w.is_finished)
    cw_run(&w, w.finished + 1);
  cw_run(&w, w.finished + 8);
  cr_assert(!w.is_finished);
  cr_assert_eq(drawn_by(&w, cw_cohort(&w, 0)), large);
  cr_assert_eq(drawn_by(&w, cw_cohort(&w, 2)), little);
  cw_free(&w);
}

Test(server_cohort_apart, participants_are_shared_by_size_or_equally)
{
  check_share(FL_COHORT_BY_SIZE, 13, 7);
  check_share(FL_COHORT_EQUAL, 10, 10);
}

/* ---- guests -------------------------------------------------------------- */

/* Clients whose data become the other group's are drawn by their old cohort,
 * tell that the other's model suits them better, and train there. */
Test(server_cohort_apart, who_has_moved_trains_in_the_next_round_of_another)
{
  static cw_world w;
  uint32_t guests = 0, there = 0;
  find_two(&w, 120);
  cw_run(&w, w.finished + 12);
  const uint32_t from = cw_cohort(&w, 0), to = cw_cohort(&w, 1);
  cr_assert_neq(from, to);
  for (uint32_t i = 0; i < 20; i += 2)
    w.clients[i].group = 1;
  for (uint32_t t = 0; t < 1000 && !w.is_finished; t++) {
    for (uint32_t i = 0; i < w.n_clients; i++) {
      (void)cw_talk(&w, i);
      const fli_lane *lane = &front_of(&w)->cohorts->lanes[to];
      for (uint32_t k = 0; k < lane->n_guests; k++) {
        cr_assert_eq(lane->guests[k].cohort, to);
        cr_assert_eq(lane->guests[k].participant->member, FLI_NO_MEMBER);
        guests++;
      }
    }
    cw_listen(&w);
  }
  cr_assert(w.is_finished);
  cr_assert_gt(guests, 0u);
  for (uint32_t i = 0; i < 20; i += 2)
    there += cw_cohort(&w, i) == to;
  cr_assert_eq(there, 10u);
  cw_free(&w);
}

/* Clients that come when there are two cohorts are drawn by whichever draws
 * next, and find theirs. */
Test(server_cohort_apart, newcomers_find_their_cohort)
{
  static cw_world w;
  find_two(&w, 100);
  w.n_clients = 80;
  for (uint32_t i = 60; i < 80; i++)
    cw_add(&w, i);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  uint32_t sorted = 0, trained = 0;
  for (uint32_t i = 60; i < 80; i++) {
    if (w.clients[i].probed == 0) continue;
    trained++;
    sorted += cw_cohort(&w, i) == cw_cohort(&w, i % 2);
  }
  cr_assert_geq(trained, 15u);
  cr_assert_geq(sorted + 1, trained);
  cw_free(&w);
}

/* ---- scores -------------------------------------------------------------- */

/* The others have scored, and train on, while one cohort is in a round; it is
 * told of all when that one has scored, too. */
Test(server_cohort_apart, slow_cohort_scores_later_and_holds_nobody_up)
{
  static cw_world w;
  fl_client_accuracy accuracy;
  uint32_t waiting = 0;
  CW_MUST(fl_client_accuracy_init(&accuracy, sizeof accuracy));
  init(&w, FL_CODEC_THC, 60);
  w.job.rounds = 60;
  w.job.participants = 12;
  w.job.evaluate_every = 20;
  cw_start(&w);
  while (w.changes[FL_COHORT_KEPT] == 0 && !w.is_finished)
    cw_run(&w, w.finished + 1);
  const uint32_t slow = cw_cohort(&w, 1), fast = cw_cohort(&w, 0);
  while (!w.is_finished && w.now < 2000 * CW_SECOND) {
    pass_second(&w, slow, 5);
    const fli_cohorts *cohorts = front_of(&w)->cohorts;
    if (w.is_finished) break;
    const fli_job *leaf = cohorts->leaves[fast];
    waiting += (cohorts->scores.left >> slow & 1) &&
               (cohorts->scores.left >> fast & 1) == 0 &&
               fli_leaf_is_running(leaf);
  }
  cr_assert(w.is_finished);
  cr_assert_gt(waiting, 0u);
  cr_assert_eq(w.scores, 3u);
  CW_MUST(fl_server_get_accuracy(w.server, 0, &accuracy));
  cr_assert_eq(accuracy.clients, 60u);
  cr_assert_eq(accuracy.round, 60u);
  cr_assert_gt(accuracy.mean, .9);
  cw_free(&w);
}

/* ---- an operator --------------------------------------------------------- */

static uint32_t count_busy(const cw_world *w)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    n += (uint32_t)fli_apart_is_busy(front_of(w), i);
  return n;
}

Test(server_cohort_apart, paused_no_cohort_begins_and_resumed_all_do)
{
  static cw_world w;
  find_two(&w, 60);
  CW_MUST(fl_server_pause_job(w.server, 0));
  cw_run(&w, UINT32_MAX);
  cr_assert(!w.is_finished);
  cr_assert_eq(count_busy(&w), 0u);
  CW_MUST(fl_server_resume_job(w.server, 0));
  cr_assert_eq(count_busy(&w), 2u);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_eq(w.finished, 60u);
  cw_free(&w);
}

Test(server_cohort_apart, stopped_it_is_over_when_those_that_run_have_ended)
{
  static cw_world w;
  find_two(&w, 60);
  cr_assert_eq(count_busy(&w), 2u);
  CW_MUST(fl_server_stop_job(w.server, 0));
  cw_listen(&w);
  cr_assert(!w.is_finished);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_lt(w.finished, 60u);
  for (uint32_t i = 0; i < w.n_clients; i++)
    cr_assert(w.clients[i].is_done);
  cw_free(&w);
}

Test(server_cohort_apart, aborted_all_begin_again_after_the_pause)
{
  static cw_world w;
  find_two(&w, 60);
  cr_assert_eq(count_busy(&w), 2u);
  CW_MUST(fl_server_abort_round(w.server, 0));
  cr_assert_eq(count_busy(&w), 0u);
  cr_assert_eq(fl_server_abort_round(w.server, 0), FL_E_STATE);
  uint64_t next = 0;
  CW_MUST(fl_server_next_timeout(w.server, &next));
  cr_assert_eq(next, w.now + w.job.retry_pause_ns);
  w.now = next;
  CW_MUST(fl_server_tick(w.server, w.now));
  cr_assert_eq(count_busy(&w), 2u);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cw_free(&w);
}

/* Members of a cohort that leave for good, some in the middle of its round. */
Test(server_cohort_apart, those_who_leave_are_forgotten_and_the_others_go_on)
{
  static cw_world w;
  uint32_t slot;
  find_two(&w, 60);
  for (uint32_t i = 0; i < 20; i++)
    CW_MUST(fl_server_forget(w.server, 0, w.clients[i].id));
  cw_run(&w, UINT32_MAX);
  for (uint32_t t = 0; t < 700 && !w.is_finished; t++) {
    w.now += CW_SECOND;
    cw_run(&w, UINT32_MAX);
  }
  cr_assert(w.is_finished);
  for (uint32_t i = 0; i < 20; i++)
    cr_assert_eq(fl_server_find_member(w.server, 0, w.clients[i].id, &slot),
                 FL_E_NOT_FOUND);
  cr_assert_eq(fl_cohort_set_client_count(cw_set(&w)), 40u);
  cw_free(&w);
}

Test(server_cohort_apart, settings_out_of_range_are_refused)
{
  static cw_world w;
  init(&w, FL_CODEC_F32, 8);
  CW_MUST(fl_server_new(&w.server, NULL, NULL));
  w.job.cohort_pace = FL_COHORT_APART + 1;
  cr_assert_eq(fl_server_add_job(w.server, w.model, &w.job, NULL),
               FL_E_OPTIONS);
  w.job.cohort_pace = FL_COHORT_APART;
  w.job.cohort_share = 0;
  cr_assert_eq(fl_server_add_job(w.server, w.model, &w.job, NULL),
               FL_E_OPTIONS);
  w.job.cohort_share = FL_COHORT_BY_LOSS + 1;
  cr_assert_eq(fl_server_add_job(w.server, w.model, &w.job, NULL),
               FL_E_OPTIONS);
  w.job.cohort_share = FL_COHORT_EQUAL;
  w.job.cohort_sketches = FL_SKETCH_LANES;
  cr_assert_eq(fl_server_add_job(w.server, w.model, &w.job, NULL),
               FL_E_CONFLICT);
  w.job.cohort_sketches = FL_SKETCH_AUTO;
  CW_MUST(fl_server_add_job(w.server, w.model, &w.job, NULL));
  cw_free(&w);
}
