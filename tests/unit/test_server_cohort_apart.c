/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: a real server and real clients of two groups. */
#include <criterion/criterion.h>

#include "server/cohorts.h"

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"

static const fli_job *front_of(const cw_world *w)
{
  return w->server->jobs[0];
}

static void init(cw_world *w, uint32_t codec, uint32_t n)
{
  cw_init(w, codec, n, 2);
  w->job.cohort_pace = FL_COHORT_APART;
}

static void run_two_groups(cw_world *w, uint32_t codec, uint32_t sketches)
{
  init(w, codec, 120);
  w->job.cohort_sketches = sketches;
  w->job.evaluate_every = 10;
  cw_start(w);
  cw_run(w, UINT32_MAX);
  cr_assert(w->is_finished);
}

static void check_two_groups(const cw_world *w)
{
  cr_assert_eq(w->changes[FL_COHORT_KEPT], 1u);
  cr_assert_eq(fl_cohort_set_count(cw_set(w)), 2u);
  cr_assert(cw_is_sorted(w));
  cr_assert_eq(w->finished, 60u);
  cr_assert_eq(w->rejected, 0u);
}

Test(server_cohort_apart, two_groups_are_found_by_lanes)
{
  static cw_world w;
  run_two_groups(&w, FL_CODEC_THC, FL_SKETCH_LANES);
  check_two_groups(&w);
  cw_free(&w);
}

Test(server_cohort_apart, two_groups_are_found_by_floats)
{
  static cw_world w;
  run_two_groups(&w, FL_CODEC_F32, FL_SKETCH_AUTO);
  check_two_groups(&w);
  cw_free(&w);
}

/* Each of a group's clients ends with the model of its cohort, which is good
 * for it. */
Test(server_cohort_apart, clients_end_with_the_model_of_their_own_cohort)
{
  static cw_world w;
  static float own[CW_WEIGHTS], want[CW_WEIGHTS];
  run_two_groups(&w, FL_CODEC_THC, FL_SKETCH_AUTO);
  for (uint32_t i = 0; i < w.n_clients; i++) {
    uint64_t version = 0, held = 0;
    cr_assert(w.clients[i].is_done);
    CW_MUST(
        fl_client_copy_weights(w.clients[i].handle, own, CW_WEIGHTS, &held));
    CW_MUST(fl_server_copy_cohort(w.server, 0, cw_cohort(&w, i), want,
                                  CW_WEIGHTS, &version));
    cr_assert_eq(held, version);
    cr_assert_arr_eq(own, want, sizeof own);
    cr_assert_lt(cw_loss(&w.clients[i], own), .05);
  }
  cw_free(&w);
}

Test(server_cohort_apart, clients_that_are_alike_stay_one)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 120, 1);
  w.job.cohort_pace = FL_COHORT_APART;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 0u);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 1u);
  cr_assert_eq(w.clients[0].probed, 0u);
  cw_free(&w);
}

Test(server_cohort_apart, two_dozen_clients_are_enough)
{
  static cw_world w;
  init(&w, FL_CODEC_THC, 24);
  w.job.participants = 12;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_eq(w.changes[FL_COHORT_KEPT], 1u);
  cr_assert(cw_is_sorted(&w));
  cw_free(&w);
}

Test(server_cohort_apart, least_loss_sorts_two_groups)
{
  static cw_world w;
  init(&w, FL_CODEC_BF16, 24);
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 2;
  w.job.rounds = 12;
  w.job.participants = 0;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert(cw_is_sorted(&w));
  cw_free(&w);
}

Test(server_cohort_apart, auxo_splits_by_features_of_decoded_updates)
{
  static cw_world w;
  init(&w, FL_CODEC_F32, 40);
  w.cohorts.rule = FL_COHORT_AUXO;
  w.cohorts.dim = 0;
  w.cohorts.cap = 2;
  w.cohorts.min_members = 1;
  w.job.participants = 20;
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_assert_geq(w.changes[FL_COHORT_SPLIT], 1u);
  cr_assert(cw_is_sorted(&w));
  cw_free(&w);
}

/* ---- pace ---------------------------------------------------------------- */

/* Run until two cohorts were found to stay. */
static void find_two(cw_world *w, uint32_t rounds)
{
  init(w, FL_CODEC_THC, 60);
  w->job.rounds = rounds;
  w->job.participants = 12;
  cw_start(w);
  while (w->changes[FL_COHORT_KEPT] == 0 && !w->is_finished)
    cw_run(w, w->finished + 1);
  cr_assert_eq(w->changes[FL_COHORT_KEPT], 1u);
  cr_assert(!w->is_finished);
}

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

/* ---- changes that wait --------------------------------------------------- */

typedef struct watch {
  uint32_t kind;
  int is_held;
  uint32_t waited; /* exchanges in which such an event was held */
  uint32_t begun;  /* draws of a cohort that it names */
  uint32_t busy;   /* times that one of them was in a round */
} watch;

/* A look after every exchange: who begins while an event is held? */
static void look(const cw_world *w, watch *seen, int was_busy[2])
{
  const fli_cohorts *cohorts = front_of(w)->cohorts;
  const fl_cohort_event *event = &cohorts->held[0];
  const int is_held = cohorts->n_held > 0 && event->kind == seen->kind;
  const int was_held = seen->is_held;
  const uint32_t names[2] = {event->cohort, event->child};
  for (uint32_t i = 0; i < 2; i++) {
    const fli_job *leaf = is_held ? cohorts->leaves[names[i]] : NULL;
    const int is_busy = leaf && fli_apart_is_busy(front_of(w), names[i]);
    seen->begun += was_held && is_held && is_busy && !was_busy[i];
    seen->busy += (uint32_t)is_busy;
    was_busy[i] = is_busy;
  }
  seen->waited += (uint32_t)is_held;
  seen->is_held = is_held;
}

/* `slow` clients are heard in every fifth turn only. */
static void run_watched(cw_world *w, watch *seen, uint32_t slow)
{
  int was_busy[2] = {0};
  for (uint32_t t = 0; t < 4000 && !w->is_finished; t++) {
    for (uint32_t i = 0; i < w->n_clients && !w->is_finished; i++) {
      if (cw_cohort(w, i) == slow && t % 5 != 0) continue;
      (void)cw_talk(w, i);
      cw_listen(w);
      if (!w->is_finished) look(w, seen, was_busy);
    }
  }
  cr_assert(w->is_finished);
}

/* A trial whose halves are alike, one of them slow: it is undone when the round
 * of that one has ended, and neither begins another before. */
Test(server_cohort_apart, undone_trial_waits_for_the_round_of_its_slow_half)
{
  static cw_world w;
  watch seen = {.kind = FL_COHORT_UNDONE};
  cw_init(&w, FL_CODEC_THC, 60, 1);
  w.job.cohort_pace = FL_COHORT_APART;
  w.job.participants = 12;
  w.job.rounds = 80;
  w.cohorts.agreement = 0.0f;
  w.cohorts.gap = 0.0f;
  w.cohorts.evidence = 10;
  cw_start(&w);
  cw_run(&w, 1);
  run_watched(&w, &seen, 1);
  cr_assert_gt(w.changes[FL_COHORT_TRIAL], 0u);
  cr_assert_gt(w.changes[FL_COHORT_UNDONE], 0u);
  cr_assert_gt(seen.waited, 0u);
  cr_assert_gt(seen.busy, 0u);
  cr_assert_eq(seen.begun, 0u);
  cw_free(&w);
}

/* Two cohorts that are said to be alike, whatever clients who have moved tell,
 * are one when neither is in a round. */
Test(server_cohort_apart, merge_waits_for_the_round_of_the_slow_one)
{
  static cw_world w;
  watch seen = {.kind = FL_COHORT_MERGED};
  init(&w, FL_CODEC_THC, 60);
  w.job.rounds = 120;
  w.job.participants = 12;
  w.cohorts.merge = 100.0f;
  cw_start(&w);
  while (w.changes[FL_COHORT_KEPT] == 0 && !w.is_finished)
    cw_run(&w, w.finished + 1);
  for (uint32_t i = 0; i < w.n_clients; i++)
    w.clients[i].group ^= 1;
  run_watched(&w, &seen, 1);
  cr_assert_gt(w.changes[FL_COHORT_MERGED], 0u);
  cr_assert_gt(seen.waited, 0u);
  cr_assert_gt(seen.busy, 0u);
  cr_assert_eq(seen.begun, 0u);
  cw_free(&w);
}

/* ---- snapshots ----------------------------------------------------------- */

static void small(cw_world *w)
{
  init(w, FL_CODEC_THC, 60);
  w->job.rounds = 45;
  w->job.participants = 12;
  w->job.evaluate_every = 6;
}

static void save(const cw_world *w, fl_buffer **buffer)
{
  fl_writer writer;
  CW_MUST(fl_buffer_new(buffer, NULL));
  CW_MUST(fl_buffer_as_writer(*buffer, &writer));
  CW_MUST(fl_server_save(w->server, &writer));
}

enum { VERSIONS = 400 };

/* A hash of each version of each of two models. */
typedef struct versions {
  uint64_t hash[2][VERSIONS];
} versions;

static void note_versions(const cw_world *w, versions *all)
{
  for (uint32_t m = 0; m < 2; m++) {
    const fli_store *store = &front_of(w)->cohorts->leaves[m]->store;
    cr_assert_lt(store->canonical.version, (uint64_t)VERSIONS);
    memcpy(&all->hash[m][store->canonical.version], store->hash,
           sizeof all->hash[m][0]);
  }
}

/* To the end from where two cohorts were found; killed every so many exchanges.
 */
static void go_on_with_kills(cw_world *w, versions *all, uint32_t every)
{
  uint32_t n = 0;
  small(w);
  cw_start(w);
  while (w->changes[FL_COHORT_KEPT] == 0)
    cw_run(w, w->finished + 1);
  for (uint32_t t = 0; t < 4000 && !w->is_finished; t++) {
    for (uint32_t i = 0; i < w->n_clients; i++) {
      (void)cw_talk(w, i);
      cw_listen(w);
      note_versions(w, all);
      if (every && ++n % every == 0 && !w->is_finished) cw_restart(w);
    }
  }
  cr_assert(w->is_finished);
}

/* Which cohort is ahead depends on the order of messages, so the last versions
 * may have other numbers; none has other weights. */
static void check_same(const versions *a, const versions *b, uint32_t kills)
{
  for (uint32_t m = 0; m < 2; m++) {
    uint32_t n = 0;
    for (uint32_t v = 0; v < VERSIONS; v++) {
      if (!a->hash[m][v] || !b->hash[m][v]) continue;
      cr_assert_eq(a->hash[m][v], b->hash[m][v],
                   "killed every %u: cohort %u, version %u", kills, m, v);
      n++;
    }
    cr_assert_gt(n, 8u);
  }
}

Test(server_cohort_apart, killed_at_any_time_each_version_is_the_same,
     .timeout = 120)
{
  static const uint32_t kills[] = {337, 701, 1009};
  static cw_world w;
  static versions calm, other;
  go_on_with_kills(&w, &calm, 0);
  cw_free(&w);
  for (size_t k = 0; k < sizeof kills / sizeof *kills; k++) {
    memset(&other, 0, sizeof other);
    go_on_with_kills(&w, &other, kills[k]);
    check_same(&calm, &other, kills[k]);
    cw_free(&w);
  }
}

/* From the beginning: draws, trials, guests, scores, what is held. */
Test(server_cohort_apart, killed_at_any_time_it_finds_the_same_cohorts,
     .timeout = 120)
{
  static const uint32_t kills[] = {211, 701, 1999};
  static cw_world w;
  for (size_t k = 0; k < sizeof kills / sizeof *kills; k++) {
    small(&w);
    cw_run_with_kills(&w, kills[k]);
    cr_assert(w.is_finished, "killed every %u", kills[k]);
    cr_assert_eq(w.finished, 45u);
    cr_assert_eq(w.changes[FL_COHORT_KEPT], 1u);
    cr_assert(cw_is_sorted(&w));
    cw_free(&w);
  }
}

static void check_restored(const cw_world *w, uint32_t n)
{
  fl_buffer *first = NULL;
  const uint8_t *a = NULL, *b = NULL;
  size_t n_a = 0, n_b = 0;
  cw_world other = *w;
  fl_buffer *second = NULL;
  fl_reader reader;
  save(w, &first);
  CW_MUST(fl_buffer_as_reader(first, &reader));
  CW_MUST(fl_server_restore(&other.server, NULL, NULL, &reader));
  save(&other, &second);
  CW_MUST(fl_buffer_get(first, &a, &n_a));
  CW_MUST(fl_buffer_get(second, &b, &n_b));
  cr_assert_eq(n_a, n_b, "after exchange %u", n);
  cr_assert_arr_eq(a, b, n_a, "after exchange %u", n);
  fl_server_free(other.server);
  fl_buffer_free(first);
  fl_buffer_free(second);
}

Test(server_cohort_apart, what_was_restored_is_saved_with_the_same_bytes,
     .timeout = 120)
{
  static cw_world w;
  uint32_t n = 0, held = 0, guests = 0, left = 0;
  small(&w);
  w.cohorts.agreement = 0.0f;
  w.cohorts.gap = 0.0f;
  cw_start(&w);
  for (uint32_t t = 0; t < 4000 && !w.is_finished; t++) {
    for (uint32_t i = 0; i < w.n_clients && !w.is_finished; i++) {
      if (i % 2 && t % 3) continue;
      (void)cw_talk(&w, i);
      cw_listen(&w);
      const fli_cohorts *cohorts = front_of(&w)->cohorts;
      uint32_t here = 0;
      for (uint32_t m = 0; m < FL_COHORT_MAX; m++)
        here += cohorts->lanes[m].n_guests;
      const int is_rare =
          cohorts->n_held > 0 || here > 0 || cohorts->scores.left > 0;
      if (++n % (is_rare ? 41 : 211) != 0) continue;
      held += cohorts->n_held;
      guests += here;
      left += cohorts->scores.left > 0;
      check_restored(&w, n);
    }
  }
  cr_assert(w.is_finished);
  cr_assert_gt(guests, 0u);
  cr_assert_gt(left, 0u);
  (void)held;
  cw_free(&w);
}
