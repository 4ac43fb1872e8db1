/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: scores, draws that come to nothing, and what a
 * round begins with. */
#include <criterion/criterion.h>

#include "cohort_apart.h"
#include "server/state.h"

static fl_status restore_saved(const cw_world *w, fl_server **server)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  CW_MUST(fl_buffer_new(&buffer, NULL));
  CW_MUST(fl_buffer_as_writer(buffer, &writer));
  CW_MUST(fl_server_save(w->server, &writer));
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  const fl_status st = fl_server_restore(server, NULL, NULL, &reader);
  fl_buffer_free(buffer);
  return st;
}

/* ---- scores -------------------------------------------------------------- */

static int is_scoring_alone(const cw_world *w, uint32_t cohort)
{
  const fli_cohort_scores *scores = &front_of(w)->cohorts->scores;
  return scores->left == UINT64_C(1) << cohort && scores->n > 0;
}

/* Until only this one, heard every seventh second, has still to score. */
static void run_until_alone(cw_world *w, uint32_t slow)
{
  for (uint64_t second = 1; second < 4000; second++) {
    w->now += CW_SECOND;
    CW_MUST(fl_server_tick(w->server, w->now));
    for (uint32_t k = 0; k < 8 * w->n_clients && !w->is_finished; k++) {
      const uint32_t i = k % w->n_clients;
      if (cw_cohort(w, i) == slow && second % 7 != 0) continue;
      (void)cw_talk(w, i);
      cw_listen(w);
      if (is_scoring_alone(w, slow)) return;
    }
  }
  cr_assert_fail("it never was");
}

/* Two of three clients are of one group. */
static uint32_t find_uneven(cw_world *w, uint32_t evaluate_every)
{
  init(w, FL_CODEC_THC, 60);
  w->job.participants = 12;
  w->job.evaluate_every = evaluate_every;
  cw_start(w);
  for (uint32_t i = 0; i < w->n_clients; i++)
    w->clients[i].group = i % 3 == 2;
  while (w->changes[FL_COHORT_KEPT] == 0 && !w->is_finished)
    cw_run(w, w->finished + 1);
  cr_assert_neq(cw_cohort(w, 2), cw_cohort(w, 0));
  return cw_cohort(w, 2);
}

Test(server_cohort_rounds, scores_of_those_who_have_left_are_saved)
{
  static cw_world w;
  fl_server *server = NULL;
  const uint32_t slow = find_uneven(&w, 20);
  run_until_alone(&w, slow);
  CW_MUST(fl_server_pause_job(w.server, 0));
  for (uint32_t k = 0; k < 20 * w.n_clients; k++) {
    if (k % 3 != 2) (void)cw_talk(&w, k % w.n_clients);
  }
  for (uint32_t i = 0; i < 45; i++) {
    if (i % 3 != 2) CW_MUST(fl_server_forget(w.server, 0, w.clients[i].id));
  }
  CW_MUST(fl_server_tick(w.server, w.now));
  const uint32_t n = front_of(&w)->cohorts->scores.n;
  cr_assert_gt(n, front_of(&w)->registry.count);
  CW_MUST(restore_saved(&w, &server));
  cr_assert_eq(server->jobs[0]->cohorts->scores.n, n);
  fl_server_free(server);
  cw_free(&w);
}

/* Only clients of other cohorts are heard. */
static void talk_without(cw_world *w, uint32_t slow)
{
  for (uint32_t i = 0; i < w->n_clients; i++) {
    if (cw_cohort(w, i) != slow) (void)cw_talk(w, i);
  }
}

/* The next ones of the cohort. */
static fl_server_event wait_for_scores(cw_world *w, uint32_t cohort)
{
  fl_server_event e;
  CW_MUST(fl_server_event_init(&e, sizeof e));
  for (uint32_t k = 0; k < 400 * w->n_clients; k++) {
    (void)cw_talk(w, k % w->n_clients);
    while (fl_server_poll(w->server, &e) == FL_OK) {
      if (e.kind == FL_SERVER_EVALUATED && e.cohort == cohort) return e;
    }
  }
  cr_assert_fail("there were none");
  return e;
}

/* A cohort that still scores for one evaluation when the next begins is asked
 * again, and is in the next with its newer scores only. */
Test(server_cohort_rounds, late_scores_are_of_their_own_evaluation)
{
  static cw_world w;
  const uint32_t slow = find_uneven(&w, 5);
  const fli_cohorts *cohorts = front_of(&w)->cohorts;
  const fli_job *leaf = cohorts->leaves[slow];
  for (uint32_t k = 0; leaf->phase != FLI_PHASE_EVALUATING; k++) {
    cr_assert_lt(k, 400 * w.n_clients);
    (void)cw_talk(&w, k % w.n_clients);
    cw_listen(&w);
  }
  const uint64_t older = cohorts->scores.round;
  for (uint32_t k = 0; cohorts->scores.round == older; k++) {
    cr_assert_lt(k, 400u);
    talk_without(&w, slow);
    cw_listen(&w);
  }
  const uint64_t newer = cohorts->scores.round;
  cr_assert_eq(leaf->phase, FLI_PHASE_EVALUATING);
  cr_assert_gt(newer, older);
  const fl_server_event late = wait_for_scores(&w, slow);
  cr_assert_eq(late.round, older);
  const fl_server_event next = wait_for_scores(&w, slow);
  cr_assert_eq(next.round, newer);
  cr_assert_geq(next.model_version, late.model_version);
  cr_assert_eq(next.selected, 20u);
  cw_free(&w);
}

/* ---- draws that come to nothing ------------------------------------------ */

static void go_on_after_pauses(cw_world *w)
{
  for (uint32_t t = 0; t < 3000 && !w->is_finished; t++) {
    uint64_t next = 0;
    cw_run(w, UINT32_MAX);
    if (w->is_finished) break;
    CW_MUST(fl_server_next_timeout(w->server, &next));
    cr_assert_lt(next, UINT64_MAX);
    w->now = next;
  }
  cr_assert(w->is_finished);
}

/* Each cohort draws once and waits for the pause; the set, which was told
 * nothing, counts no round. */
Test(server_cohort_rounds, draw_that_all_decline_is_made_again_after_the_pause)
{
  static cw_world w;
  uint64_t next = 0;
  find_two(&w, 60);
  for (uint32_t i = 0; i < w.n_clients; i++)
    w.clients[i].is_shy = 1;
  cw_run(&w, UINT32_MAX); /* the rounds that have begun */
  const fli_cohorts *cohorts = front_of(&w)->cohorts;
  const uint64_t number = cohorts->number;
  const uint32_t turns[2] = {cohorts->lanes[0].turn, cohorts->lanes[1].turn};
  for (uint32_t k = 0; k < 20; k++) {
    for (uint32_t i = 0; i < w.n_clients; i++)
      (void)cw_talk(&w, i);
  }
  cr_assert_eq(cohorts->number, number);
  CW_MUST(fl_server_next_timeout(w.server, &next));
  cr_assert_eq(next, w.now + w.job.retry_pause_ns);
  w.now = next;
  cw_run(&w, UINT32_MAX);
  cr_assert_eq(cohorts->number, number + 2);
  cr_assert_eq(cohorts->lanes[0].turn, turns[0]);
  cr_assert_eq(cohorts->lanes[1].turn, turns[1]);
  for (uint32_t i = 0; i < w.n_clients; i++)
    w.clients[i].is_shy = 0;
  go_on_after_pauses(&w);
  cr_assert_eq(w.finished, 60u);
  cw_free(&w);
}

/* A job that was kept when a deadline of 0 was accepted. As with other jobs,
 * nothing comes of it; but every call returns. */
Test(server_cohort_rounds, without_time_to_answer_each_draw_waits_for_the_pause)
{
  static cw_world w;
  uint64_t next = 0;
  init(&w, FL_CODEC_F32, 8);
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 2;
  cw_start(&w);
  fli_job *front = w.server->jobs[0];
  front->options.norm_deadline_ns = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    if (front->cohorts->leaves[i])
      front->cohorts->leaves[i]->options.norm_deadline_ns = 0;
  cw_run(&w, UINT32_MAX);
  for (uint32_t t = 0; t < 10; t++) {
    CW_MUST(fl_server_next_timeout(w.server, &next));
    cr_assert_eq(next, w.now + w.job.retry_pause_ns);
    w.now = next;
    cw_run(&w, UINT32_MAX);
  }
  cr_assert_eq(w.finished, 0u);
  cr_assert_lt(front_of(&w)->cohorts->number, 60u);
  cw_free(&w);
}

/* Without memory for them the clock decides when it is tried again. */
static size_t refused_size;
static uint32_t n_refused;

static void *refuse_size(void *user, size_t size, size_t alignment)
{
  (void)user;
  if (refused_size && size == refused_size) {
    n_refused++;
    return NULL;
  }
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void give_back(void *user, void *ptr, size_t size, size_t alignment)
{
  (void)user;
  (void)size;
  (void)alignment;
  free(ptr);
}

Test(server_cohort_rounds, guests_without_memory_for_them_wait_for_the_pause)
{
  static cw_world w;
  fl_context_options hooks;
  uint32_t most = 0;
  init(&w, FL_CODEC_F32, 24);
  CW_MUST(fl_context_options_init(&hooks, sizeof hooks));
  hooks.alloc = refuse_size;
  hooks.dealloc = give_back;
  CW_MUST(fl_context_new(&w.context, &hooks));
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 2;
  w.job.participants = 0;
  w.job.min_participants = 12;
  w.job.rounds = 10;
  cw_start(&w);
  CW_MUST(fl_server_tick(w.server, 0));
  refused_size = (12 * sizeof(fli_visit) + 15) / 16 * 16;
  for (uint32_t k = 0; k < 200 * w.n_clients; k++) {
    (void)cw_talk(&w, k % w.n_clients);
    cw_listen(&w);
    const fli_lane *lanes = front_of(&w)->cohorts->lanes;
    if (lanes[0].n_guests > most) most = lanes[0].n_guests;
    if (lanes[1].n_guests > most) most = lanes[1].n_guests;
  }
  cr_assert_gt(n_refused, 0u);
  cr_assert_lt(n_refused, 8u);
  cr_assert_eq(most, 12u);
  cr_assert(!w.is_finished);
  refused_size = 0;
  go_on_after_pauses(&w);
  cr_assert_eq(w.finished, 10u);
  cw_free(&w);
  fl_context_free(w.context);
}

/* ---- rates --------------------------------------------------------------- */

enum { ROUNDS_MOST = 8192 };

static float rates[ROUNDS_MOST]; /* by number of a cohort's round */
static uint32_t n_plans, n_rates, n_other;

static fl_status note_rate(const fl_train_task *task, fl_train_result *result,
                           void *user)
{
  float *first = &rates[task->round % ROUNDS_MOST];
  n_plans++;
  n_rates += *first == 0.0f;
  if (*first == 0.0f) *first = task->learning_rate;
  n_other += *first != task->learning_rate;
  return cw_train(task, result, user);
}

/* The clients of one group are slow, so that rounds of the job are finished
 * between the first and the last plan of a round; some servers are killed. */
static void note_rates(uint32_t every)
{
  static cw_world w;
  uint64_t random = 5;
  memset(rates, 0, sizeof rates);
  n_plans = n_rates = n_other = 0;
  init(&w, FL_CODEC_THC, 60);
  w.job.participants = 12;
  w.job.rate_schedule = FL_SCHEDULE_COSINE;
  w.train = note_rate;
  cw_start(&w);
  CW_MUST(fl_server_tick(w.server, 0));
  for (uint32_t t = 1; t < 400000 && !w.is_finished; t++) {
    const uint32_t i = (uint32_t)(cw_next(&random) % w.n_clients);
    if (i % 2 && t % 3) continue;
    (void)cw_talk(&w, i);
    cw_listen(&w);
    if (every && t % every == 0 && !w.is_finished) cw_restart(&w);
  }
  cr_assert(w.is_finished);
  cr_assert_gt(n_rates, 60u);
  cr_assert_gt(n_plans, 3 * n_rates);
  cr_assert_eq(n_other, 0u);
  cw_free(&w);
}

Test(server_cohort_rounds, all_members_of_a_round_have_one_rate)
{
  note_rates(0);
}

Test(server_cohort_rounds, restored_a_round_keeps_its_rate)
{
  note_rates(701);
}

/* ---- snapshots that lie -------------------------------------------------- */

Test(server_cohort_rounds, front_that_waits_or_has_too_much_work_is_refused)
{
  static cw_world w;
  fl_server *server = NULL;
  find_two(&w, 60);
  fli_job *front = w.server->jobs[0];
  const uint64_t work = front->cohorts->work;
  CW_MUST(restore_saved(&w, &server));
  fl_server_free(server);
  front->cohorts->work = w.job.participants;
  cr_assert_eq(restore_saved(&w, &server), FL_E_FORMAT);
  front->cohorts->work = work;
  front->deadline_ns = w.now + CW_SECOND;
  cr_assert_eq(restore_saved(&w, &server), FL_E_FORMAT);
  front->deadline_ns = UINT64_MAX;
  CW_MUST(restore_saved(&w, &server));
  fl_server_free(server);
  cw_free(&w);
}

Test(server_cohort_rounds, round_that_no_round_of_the_job_had_is_refused)
{
  static cw_world w;
  fl_server *server = NULL;
  find_two(&w, 60);
  fli_job *front = w.server->jobs[0];
  fli_lane *lane = &front->cohorts->lanes[0];
  for (uint32_t k = 0; !fli_leaf_is_running(front->cohorts->leaves[0]); k++) {
    cr_assert_lt(k, 100 * w.n_clients);
    (void)cw_talk(&w, k % w.n_clients);
  }
  lane->of_round = 0;
  cr_assert_eq(restore_saved(&w, &server), FL_E_FORMAT);
  lane->of_round = front->round + 1;
  cr_assert_eq(restore_saved(&w, &server), FL_E_FORMAT);
  lane->of_round = front->round;
  CW_MUST(restore_saved(&w, &server));
  fl_server_free(server);
  cw_free(&w);
}

/* Where a round is as many updates as clients are there, those of clients who
 * have left are one round at most. */
Test(server_cohort_rounds, updates_of_many_are_not_many_rounds_of_a_few)
{
  static cw_world w;
  init(&w, FL_CODEC_F32, 8);
  w.job.participants = 0;
  cw_start(&w);
  cw_run(&w, 1);
  fli_job *front = w.server->jobs[0];
  front->cohorts->work = UINT64_MAX / 2;
  cw_run(&w, w.finished + 1);
  cr_assert_eq(w.finished, 2u);
  cr_assert_lt(front->cohorts->work, 8u);
  cw_free(&w);
}

/* ---- the last number ----------------------------------------------------- */

static uint32_t reason_of_end(cw_world *w)
{
  fl_server_event e;
  CW_MUST(fl_server_event_init(&e, sizeof e));
  for (uint32_t k = 0; k < 400 * w->n_clients; k++) {
    (void)cw_talk(w, k % w->n_clients);
    while (fl_server_poll(w->server, &e) == FL_OK) {
      if (e.kind == FL_SERVER_JOB_FINISHED) return e.reason;
    }
  }
  cr_assert_fail("the job did not end");
  return 0;
}

/* Rounds that have begun are ended, also by a server that was restored. */
Test(server_cohort_rounds, job_without_numbers_for_its_rounds_says_why_it_ends)
{
  static cw_world w;
  find_two(&w, 60);
  w.server->jobs[0]->cohorts->number = UINT64_C(1) << 31;
  CW_MUST(fl_server_tick(w.server, w.now));
  cw_restart(&w);
  cr_assert_eq(reason_of_end(&w), (uint32_t)FL_REJECT_LIMIT);
  cw_free(&w);
}

Test(server_cohort_rounds, job_that_has_made_its_rounds_ends_without_a_reason)
{
  static cw_world w;
  find_two(&w, 60);
  cr_assert_eq(reason_of_end(&w), 0u);
  cw_free(&w);
}
