/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: what they wait for, and that it comes. */
#include <criterion/criterion.h>

#include "cohort_apart.h"

static uint32_t count_busy(const cw_world *w)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    n += (uint32_t)fli_apart_is_busy(front_of(w), i);
  return n;
}

static void lose(cw_world *w, uint32_t at)
{
  CW_MUST(fl_server_disconnected(w->server, at));
  CW_MUST(fl_client_disconnected(w->clients[at].handle));
}

static uint64_t next_timeout(const cw_world *w)
{
  uint64_t next = 0;
  CW_MUST(fl_server_next_timeout(w->server, &next));
  return next;
}

/* ---- those who were lost ------------------------------------------------- */

/* Of three clients, of which two are enough, one was lost a moment ago. */
static void wait_for_one(cw_world *w)
{
  init(w, FL_CODEC_F32, 3);
  w->job.participants = 3;
  w->job.min_participants = 2;
  w->job.rounds = 50;
  cw_start(w);
  cw_run(w, 1);
  CW_MUST(fl_server_pause_job(w->server, 0));
  cw_run(w, UINT32_MAX);
  lose(w, 2);
  w->now += CW_SECOND;
  CW_MUST(fl_server_tick(w->server, w->now));
  CW_MUST(fl_server_resume_job(w->server, 0));
  cr_assert_eq(front_of(w)->registry.trainers, 2u);
  cr_assert_eq(count_busy(w), 0u);
}

Test(server_cohort_waiting, forgotten_client_is_waited_for_no_longer)
{
  static cw_world w;
  wait_for_one(&w);
  CW_MUST(fl_server_forget(w.server, 0, "c002"));
  cr_assert_eq(count_busy(&w), 1u);
  cw_free(&w);
}

Test(server_cohort_waiting, banned_client_is_waited_for_no_longer)
{
  static cw_world w;
  wait_for_one(&w);
  CW_MUST(fl_server_ban(w.server, "c002", 1000 * CW_SECOND));
  cr_assert_eq(count_busy(&w), 1u);
  cw_free(&w);
}

Test(server_cohort_waiting, lost_client_is_waited_for_until_its_grace_ends)
{
  static cw_world w;
  wait_for_one(&w);
  while (count_busy(&w) == 0) {
    const uint64_t next = next_timeout(&w);
    cr_assert_gt(next, w.now);
    cr_assert_leq(next, 12 * CW_SECOND);
    w.now = next;
    CW_MUST(fl_server_tick(w.server, w.now));
  }
  cr_assert_eq(w.now, 10 * CW_SECOND);
  cw_free(&w);
}

/* In each of 40 seconds another client is away. */
static uint32_t rounds_in_40_seconds(int restarts)
{
  static cw_world w;
  find_two(&w, 3000);
  if (restarts) cw_restart(&w);
  const uint32_t before = w.finished;
  for (uint32_t second = 0; second < 40; second++) {
    w.now += CW_SECOND;
    lose(&w, second);
    CW_MUST(fl_server_tick(w.server, w.now));
    for (uint32_t k = 0; k < 6 * w.n_clients; k++) {
      if (k % w.n_clients == second) continue;
      (void)cw_talk(&w, k % w.n_clients);
      cw_listen(&w);
    }
  }
  const uint32_t n = w.finished - before;
  cw_free(&w);
  return n;
}

Test(server_cohort_waiting, after_a_restart_only_the_first_grace_is_waited_for)
{
  const uint32_t calm = rounds_in_40_seconds(0);
  const uint32_t back = rounds_in_40_seconds(1);
  cr_assert_geq(calm, 20u);
  cr_assert_geq(back, calm / 2, "%u rounds, and %u after a restart", calm,
                back);
}

Test(server_cohort_waiting, who_waits_looks_when_something_has_changed)
{
  static cw_world w;
  init(&w, FL_CODEC_F32, 3);
  w.job.participants = 3;
  w.job.min_participants = 3;
  w.job.rounds = 50;
  cw_start(&w);
  cw_run(&w, 1);
  CW_MUST(fl_server_pause_job(w.server, 0));
  cw_run(&w, UINT32_MAX);
  lose(&w, 2);
  cr_assert_eq(count_busy(&w), 0u);
  CW_MUST(fl_server_resume_job(w.server, 0));
  w.now += 100 * CW_SECOND;
  CW_MUST(fl_server_tick(w.server, w.now));
  const uint64_t looks = front_of(&w)->cohorts->census.number;
  for (uint32_t i = 0; i < 100; i++)
    CW_MUST(fl_server_tick(w.server, ++w.now));
  cr_assert_eq(front_of(&w)->cohorts->census.number, looks);
  cr_assert_eq(count_busy(&w), 0u);
  cw_run(&w, 2);
  cr_assert_eq(w.finished, 2u);
  cw_free(&w);
}

/* At one time, and with as many there as before. */
Test(server_cohort_waiting, one_that_goes_and_one_that_comes_are_a_change)
{
  static cw_world w;
  wait_for_one(&w);
  const uint64_t changes = front_of(&w)->registry.changes;
  lose(&w, 1);
  cr_assert_eq(front_of(&w)->registry.changes, changes + 1);
  (void)cw_talk(&w, 2);
  cr_assert_eq(front_of(&w)->registry.trainers, 2u);
  cr_assert_gt(front_of(&w)->registry.changes, changes + 1);
  cr_assert_eq(count_busy(&w), 0u);
  CW_MUST(fl_server_forget(w.server, 0, "c001"));
  cr_assert_eq(count_busy(&w), 1u);
  cw_free(&w);
}

/* ---- cohorts that are too small ------------------------------------------ */

/* As cw_listen; the number of rounds that were aborted. */
static uint32_t listen(cw_world *w)
{
  uint32_t aborted = 0;
  fl_server_event e;
  CW_MUST(fl_server_event_init(&e, sizeof e));
  while (fl_server_poll(w->server, &e) == FL_OK) {
    aborted += e.kind == FL_SERVER_ROUND_ABORTED;
    if (e.kind == FL_SERVER_COHORT_CHANGED) w->changes[e.cohort_change]++;
    if (e.kind == FL_SERVER_ROUND_FINISHED && e.cohort == FL_COHORT_NONE)
      w->finished++;
    if (e.kind == FL_SERVER_JOB_FINISHED) w->is_finished = 1;
  }
  return aborted;
}

/* To the end, whenever all are silent on to the next timer; 0: there was
 * neither. `every` exchanges the server is killed, 0: never. */
static int run_to_the_end(cw_world *w, uint32_t every, uint32_t *aborted)
{
  uint32_t n = 0;
  CW_MUST(fl_server_tick(w->server, w->now));
  for (uint32_t t = 0; t < 9000 && !w->is_finished; t++) {
    int is_busy = 0;
    for (uint32_t i = 0; i < w->n_clients && !w->is_finished; i++) {
      is_busy |= cw_talk(w, i);
      *aborted += listen(w);
      if (every && ++n % every == 0 && !w->is_finished) cw_restart(w);
    }
    if (is_busy || w->is_finished) continue;
    if (next_timeout(w) == UINT64_MAX) return 0;
    w->now = next_timeout(w);
    CW_MUST(fl_server_tick(w->server, w->now));
    *aborted += listen(w);
  }
  return w->is_finished;
}

/* `n` clients of which the last `few` are a group of their own; a round needs
 * three. */
static void make_small(cw_world *w, uint32_t rule, uint32_t n, uint32_t few)
{
  init(w, FL_CODEC_F32, n);
  w->cohorts.rule = rule;
  w->cohorts.cap = 2;
  w->job.participants = n;
  w->job.min_participants = 3;
  w->job.rounds = 20;
  cw_start(w);
  for (uint32_t i = 0; i < n; i++)
    w->clients[i].group = i >= n - few;
}

static void check_all_train(const cw_world *w)
{
  for (uint32_t i = 0; i < w->n_clients; i++)
    cr_assert_gt(w->clients[i].trained, 3u, "client %u", i);
}

Test(server_cohort_waiting, cohorts_that_are_all_too_small_train_together)
{
  static cw_world w;
  uint32_t aborted = 0;
  make_small(&w, FL_COHORT_LOSS, 4, 2);
  cr_assert(run_to_the_end(&w, 0, &aborted));
  cr_assert_eq(aborted, 0u);
  check_all_train(&w);
  cw_free(&w);
}

static uint64_t version_of(const cw_world *w, uint32_t cohort)
{
  return fli_cohorts_leaf(front_of(w), cohort)->store.canonical.version;
}

/* Of two settled cohorts two clients each are left. */
Test(server_cohort_waiting, cohorts_that_became_too_small_train_in_turn)
{
  static cw_world w;
  uint32_t aborted = 0, left[2] = {0};
  init(&w, FL_CODEC_THC, 60);
  w.job.rounds = 120;
  w.job.participants = 12;
  w.job.min_participants = 3;
  cw_start(&w);
  while (w.changes[FL_COHORT_KEPT] == 0 && !w.is_finished)
    cw_run(&w, w.finished + 1);
  cr_assert(cw_is_sorted(&w));
  CW_MUST(fl_server_pause_job(w.server, 0));
  cw_run(&w, UINT32_MAX);
  uint32_t n = 0;
  for (uint32_t i = 0; i < 60; i++) {
    if (left[w.clients[i].group] < 2) {
      left[w.clients[i].group]++;
      n = i + 1;
    } else {
      CW_MUST(fl_server_forget(w.server, 0, w.clients[i].id));
    }
  }
  cr_assert_eq(n, 4u);
  w.n_clients = n;
  const uint64_t before[2] = {version_of(&w, 0), version_of(&w, 1)};
  CW_MUST(fl_server_resume_job(w.server, 0));
  cr_assert(run_to_the_end(&w, 0, &aborted));
  cr_assert_eq(aborted, 0u);
  for (uint32_t i = 0; i < 2; i++)
    cr_assert_gt(version_of(&w, i), before[i] + 60, "cohort %u", i);
  w.n_clients = 60;
  cw_free(&w);
}

Test(server_cohort_waiting, one_that_is_too_small_trains_with_another)
{
  static cw_world w;
  uint32_t aborted = 0;
  make_small(&w, FL_COHORT_LOSS, 8, 2);
  cr_assert(run_to_the_end(&w, 0, &aborted));
  cr_assert_eq(aborted, 0u);
  check_all_train(&w);
  cw_free(&w);
}

Test(server_cohort_waiting, killed_at_any_time_small_cohorts_go_on)
{
  for (uint32_t every = 31; every < 90; every += 6) {
    static cw_world w;
    uint32_t aborted = 0;
    make_small(&w, FL_COHORT_LOSS, 4, 2);
    cr_assert(run_to_the_end(&w, every, &aborted), "every %u", every);
    check_all_train(&w);
    cw_free(&w);
  }
}
