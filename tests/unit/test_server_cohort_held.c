/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: changes that wait for a round, and snapshots. */
#include <criterion/criterion.h>

#include "cohort_apart.h"
#include "cohort_snapshot.h"

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

static uint32_t round_of(const cw_world *w, uint32_t cohort)
{
  fl_cohort_info info;
  CW_MUST(fl_cohort_info_init(&info, sizeof info));
  CW_MUST(fl_cohort_set_get_info(cw_set(w), cohort, &info));
  return info.round;
}

/* Halves of a trial are compared, so the fast one waits for the round of the
 * slow one; alike as they are here, they are one again. */
Test(server_cohort_held, halves_of_a_trial_keep_step)
{
  static cw_world w;
  uint32_t looks = 0;
  cw_init(&w, FL_CODEC_THC, 60, 1);
  w.job.cohort_pace = FL_COHORT_APART;
  w.job.participants = 12;
  w.job.rounds = 80;
  w.cohorts.agreement = 0.0f;
  w.cohorts.gap = 0.0f;
  w.cohorts.evidence = 10;
  w.cohorts.cap = 2;
  cw_start(&w);
  cw_run(&w, 1);
  for (uint32_t t = 0; t < 4000 && !w.is_finished; t++) {
    for (uint32_t i = 0; i < w.n_clients && !w.is_finished; i++) {
      if (cw_cohort(&w, i) == 1 && t % 5 != 0) continue;
      (void)cw_talk(&w, i);
      cw_listen(&w);
      if (w.changes[FL_COHORT_KEPT] > 0 || fl_cohort_set_count(cw_set(&w)) < 2)
        continue;
      const uint32_t a = round_of(&w, 0), b = round_of(&w, 1);
      cr_assert_leq(a > b ? a - b : b - a, 1u);
      looks++;
    }
  }
  cr_assert(w.is_finished);
  cr_assert_gt(looks, 0u);
  cr_assert_gt(w.changes[FL_COHORT_UNDONE], 0u);
  cw_free(&w);
}

/* Two cohorts that are said to be alike, whatever clients who have moved tell,
 * are one when neither is in a round. */
Test(server_cohort_held, merge_waits_for_the_round_of_the_slow_one)
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

Test(server_cohort_held, killed_at_any_time_each_version_is_the_same)
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
Test(server_cohort_held, killed_at_any_time_it_finds_the_same_cohorts)
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
  snapshot_save(w, &first);
  CW_MUST(fl_buffer_as_reader(first, &reader));
  CW_MUST(fl_server_restore(&other.server, NULL, NULL, &reader));
  snapshot_save(&other, &second);
  CW_MUST(fl_buffer_get(first, &a, &n_a));
  CW_MUST(fl_buffer_get(second, &b, &n_b));
  cr_assert_eq(n_a, n_b, "after exchange %u", n);
  cr_assert_arr_eq(a, b, n_a, "after exchange %u", n);
  fl_server_free(other.server);
  fl_buffer_free(first);
  fl_buffer_free(second);
}

Test(server_cohort_held, what_was_restored_is_saved_with_the_same_bytes)
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

/* A server with a store says nothing that is not there: it is killed without a
 * word, and goes on with what was. */
Test(server_cohort_held, recovered_from_its_store_it_finds_the_same_cohorts)
{
  static cw_world w;
  fl_server_options options;
  fl_store *store = NULL;
  uint32_t n = 0;
  small(&w);
  w.job.rounds = 35;
  CW_MUST(fl_store_memory_new(&store, NULL));
  CW_MUST(fl_server_options_init(&options, sizeof options));
  options.store = store;
  CW_MUST(fl_server_new(&w.server, NULL, &options));
  CW_MUST(fl_server_add_job(w.server, w.model, &w.job, NULL));
  for (uint32_t i = 0; i < w.n_clients; i++)
    cw_add(&w, i);
  for (uint32_t t = 0; t < 4000 && !w.is_finished; t++) {
    for (uint32_t i = 0; i < w.n_clients && !w.is_finished; i++) {
      (void)cw_talk(&w, i);
      cw_listen(&w);
      if (++n % 997 != 0) continue;
      fl_server_free(w.server);
      CW_MUST(fl_store_rollback(store));
      CW_MUST(fl_server_recover(&w.server, NULL, &options));
      for (uint32_t k = 0; k < w.n_clients; k++)
        CW_MUST(fl_client_disconnected(w.clients[k].handle));
      CW_MUST(fl_server_tick(w.server, w.now));
    }
  }
  cr_assert(w.is_finished);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u);
  cr_assert(cw_is_sorted(&w));
  cw_free(&w);
  fl_store_free(store);
}

/* ---- what is held, by hand ----------------------------------------------- */

static void hold(fli_job *front, uint32_t kind, uint32_t cohort, uint32_t child)
{
  fl_cohort_event *event = &front->cohorts->held[front->cohorts->n_held++];
  CW_MUST(fl_cohort_event_init(event, sizeof *event));
  event->kind = kind;
  event->cohort = cohort;
  event->child = child;
  event->weight = event->child_weight = 1;
}

/* Three cohorts; the second is at work, is to end, and its number is another's
 * then. */
static fli_job *hold_two(cw_world *w)
{
  init(w, FL_CODEC_F32, 4);
  w->cohorts.rule = FL_COHORT_LOSS;
  w->cohorts.cap = 4;
  cw_start(w);
  fli_job *front = w->server->jobs[0];
  fli_cohorts_drop_leaf(front, 3);
  hold(front, FL_COHORT_UNDONE, 0, 1);
  hold(front, FL_COHORT_SPLIT, 2, 1);
  front->cohorts->lanes[1].is_drawn = 1;
  front->cohorts->lanes[1].turn = 1;
  return front;
}

Test(server_cohort_held, number_that_is_given_again_waits_for_its_old_cohort)
{
  static cw_world w;
  int has_changed = 0;
  fli_job *front = hold_two(&w);
  const fli_cohorts *cohorts = front->cohorts;
  const fli_job *old = cohorts->leaves[1];
  hold(front, FL_COHORT_KEPT, 2, 1);
  CW_MUST(fli_held_follow(front, &has_changed));
  cr_assert_eq(has_changed, 0);
  cr_assert_eq(cohorts->n_held, 3u);
  cr_assert_eq(fli_held_mask(front), UINT64_C(7));
  cr_assert(fli_held_has_ended(front, 1));
  cr_assert_eq(cohorts->leaves[1], old);
  front->cohorts->lanes[1].is_drawn = 0;
  CW_MUST(fli_held_follow(front, &has_changed));
  cr_assert_eq(has_changed, 1);
  cr_assert_eq(cohorts->n_held, 0u);
  cr_assert_eq(cohorts->leaves[0]->store.canonical.version, 1u);
  cr_assert_arr_eq(cohorts->leaves[1]->store.hash,
                   cohorts->leaves[2]->store.hash, FLI_HASH_BYTES);
  cw_free(&w);
}

/* News of cohorts that nothing is held about comes at once; what names one of
 * a change that waits does not overtake it. */
Test(server_cohort_held, news_of_others_overtakes_what_waits)
{
  static cw_world w;
  int has_changed = 0;
  init(&w, FL_CODEC_F32, 4);
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 5;
  cw_start(&w);
  fli_job *front = w.server->jobs[0];
  hold(front, FL_COHORT_MOVED, 0, 1);
  hold(front, FL_COHORT_AGAIN, 0, 2);
  hold(front, FL_COHORT_KEPT, 3, 4);
  front->cohorts->lanes[0].is_drawn = 1;
  CW_MUST(fli_held_follow(front, &has_changed));
  cr_assert_eq(has_changed, 1);
  cr_assert_eq(front->cohorts->n_held, 2u);
  cr_assert_eq(front->cohorts->held[1].kind, (uint32_t)FL_COHORT_AGAIN);
  front->cohorts->lanes[0].is_drawn = 0;
  CW_MUST(fli_held_follow(front, &has_changed));
  cr_assert_eq(front->cohorts->n_held, 0u);
  cr_assert_null(front->cohorts->leaves[1]);
  cw_free(&w);
}

/* A snapshot with them: the set has the cohorts that there will be. */
Test(server_cohort_held, what_is_held_is_saved)
{
  static cw_world w;
  init(&w, FL_CODEC_F32, 4);
  w.cohorts.rule = FL_COHORT_LOSS;
  w.cohorts.cap = 3;
  cw_start(&w);
  fli_job *front = w.server->jobs[0];
  hold(front, FL_COHORT_UNDONE, 0, 1);
  hold(front, FL_COHORT_SPLIT, 2, 1);
  front->cohorts->lanes[1].is_drawn = 1;
  front->cohorts->lanes[1].turn = 1;
  check_restored(&w, 0);
  /* Events that cannot be followed are no server's. */
  front->cohorts->held[1].child = 2;
  front->cohorts->held[1].cohort = 0;
  fl_buffer *buffer = NULL;
  fl_server *server = NULL;
  fl_reader reader;
  snapshot_save(&w, &buffer);
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  cr_assert_eq(fl_server_restore(&server, NULL, NULL, &reader), FL_E_FORMAT);
  fl_buffer_free(buffer);
  cw_free(&w);
}

/* ---- snapshots that lie -------------------------------------------------- */

/* With guests, in the middle of rounds. */
static void payload_of(fli_bytes *payload)
{
  static cw_world w;
  uint32_t n = 0;
  small(&w);
  cw_start(&w);
  cw_run(&w, 24);
  const fli_cohorts *cohorts = front_of(&w)->cohorts;
  while (cohorts->lanes[0].n_guests + cohorts->lanes[1].n_guests == 0)
    (void)cw_talk(&w, n++ % w.n_clients);
  snapshot_payload(&w, payload);
  cw_free(&w);
}

Test(server_cohort_held, torn_snapshot_is_refused_at_every_length)
{
  fli_bytes payload;
  fli_bytes_init(&payload, NULL);
  payload_of(&payload);
  snapshot_tear(&payload);
  fli_bytes_free(&payload);
}

/* Draws and guests are near the end. */
Test(server_cohort_held, snapshot_with_another_byte_is_survived)
{
  fli_bytes payload;
  fli_bytes_init(&payload, NULL);
  payload_of(&payload);
  snapshot_flip(&payload);
  fli_bytes_free(&payload);
}
