/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: each is a machine of its own,
 *
 *   WAITING -> PROBING -> NORMS -> UPDATES -> WAITING, the draw still there:
 *              losses                         it reports, the set decides
 *           -> EVALUATING -> WAITING
 *
 * and begins again when clients are there. The front counts the rounds of the
 * whole job and ends it. What fails for want of memory is tried again after the
 * pause, from where it stood. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

#define NUMBERS_END (UINT64_C(1) << 31)

uint64_t fli_apart_number(fli_job *front)
{
  return ++front->cohorts->number;
}

int fli_apart_is_busy(const fli_job *front, uint32_t cohort)
{
  const fli_job *leaf = fli_cohorts_leaf(front, cohort);
  return leaf && (leaf->phase != FLI_PHASE_WAITING ||
                  front->cohorts->lanes[cohort].is_drawn);
}

static uint64_t pause_end(const fli_job *front)
{
  const uint64_t pause = front->options.retry_pause_ns;
  return fli_job_after(front, pause > 0 ? pause : 1);
}

/* ---- the beginning ------------------------------------------------------- */

static int is_over(const fli_job *front)
{
  return front->is_stopping || front->cohorts->is_ending;
}

/* Halves of a trial are compared: one that has trained for longer would win
 * for that. It waits for the round of the other, which has deadlines. */
static int is_ahead(fli_job *leaf)
{
  const fli_job *front = leaf->front;
  const uint64_t census = front->cohorts->census.number;
  const fl_cohort_set *set = front->cohorts->set;
  fl_cohort_info own = {.struct_size = sizeof own};
  fl_cohort_info other = {.struct_size = sizeof other};
  if (fli_lane_of(leaf)->ahead == census) return 1;
  if (fl_cohort_set_get_info(set, leaf->cohort, &own) != FL_OK ||
      own.sibling == FL_COHORT_NONE || !fli_apart_is_busy(front, own.sibling)) {
    return 0;
  }
  if (fl_cohort_set_get_info(set, own.sibling, &other) != FL_OK ||
      own.round <= other.round)
    return 0;
  fli_lane_of(leaf)->ahead = census; /* until something has changed */
  return 1;
}

static int is_due(fli_job *leaf)
{
  const fli_job *front = leaf->front;
  const fl_job_options *options = &front->options;
  uint32_t needed = options->min_participants;
  if (!front->is_begun && options->min_clients > needed)
    needed = options->min_clients;
  if (front->is_paused || is_over(front) ||
      front->server->now_ns < leaf->hold_ns ||
      front->registry.trainers < needed) {
    return 0;
  }
  return fli_census_is_ready(leaf) && !is_ahead(leaf);
}

/* The round that the set counts for it. */
static fl_status find_turn(const fli_job *leaf, uint32_t *turn)
{
  fl_cohort_info info;
  fl_status st = fl_cohort_info_init(&info, sizeof info);
  if (st == FL_OK)
    st = fl_cohort_set_get_info(leaf->front->cohorts->set, leaf->cohort, &info);
  *turn = info.round + 1;
  return st;
}

static void begin_draw(fli_job *leaf)
{
  fli_job *front = leaf->front;
  fli_lane *lane = fli_lane_of(leaf);
  front->is_begun = 1;
  leaf->round = fli_apart_number(front);
  leaf->phase = FLI_PHASE_PROBING;
  leaf->deadline_ns = fli_job_after(leaf, leaf->options.norm_deadline_ns);
  fli_guests_sweep(front, lane);
  lane->is_drawn = 1;
  fl_status st = find_turn(leaf, &lane->turn);
  if (st == FL_OK) st = fli_visits_draw(leaf);
  if (st != FL_OK) fli_cohorts_give_up(leaf, FL_REJECT_LIMIT, fl_last_error());
}

static int has_answers(const fli_lane *lane)
{
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    if (!lane->visits[i].is_lost && lane->visits[i].n_told > 0) return 1;
  }
  return 0;
}

/* A draw without a round: the set is told if there is anything to tell. Unless
 * somebody has moved, the next one would come to the same: not at once. */
static void end_draw(fli_job *leaf, uint32_t n_moved)
{
  if (n_moved == 0 && !has_answers(fli_lane_of(leaf))) {
    fli_cohorts_give_up(leaf, FL_REJECT_DEADLINE, "nobody takes part");
    return;
  }
  fli_round_wait(leaf);
  leaf->attempt++;
  if (n_moved == 0) leaf->hold_ns = pause_end(leaf->front);
}

/* Those who have not answered in time take no part. */
static void begin_round(fli_job *leaf)
{
  const fli_lane *lane = fli_lane_of(leaf);
  uint32_t n_moved = 0;
  for (uint32_t i = 0; i < lane->n_visits; i++)
    fli_visits_lose(lane->visits[i].participant);
  const fl_status st = fli_guests_settle(leaf, &n_moved);
  leaf->front->cohorts->ends++; /* others may have guests */
  if (st != FL_OK) {
    fli_cohorts_give_up(leaf, FL_REJECT_LIMIT, fl_last_error());
  } else if (fli_cohorts_count_members(leaf) == 0) {
    end_draw(leaf, n_moved);
  } else {
    leaf->round = fli_apart_number(leaf->front);
    fli_lane_of(leaf)->of_round = leaf->front->round;
    fli_round_begin(leaf);
  }
}

/* ---- the end ------------------------------------------------------------- */

/* From where it stood. */
static fl_status report(fli_job *leaf)
{
  fli_job *front = leaf->front;
  fli_lane *lane = fli_lane_of(leaf);
  fl_status st = fli_visits_report(front, lane);
  if (st != FL_OK) return st;
  if (!lane->end.ended) {
    st = fl_cohort_set_end_round(front->cohorts->set, leaf->cohort, lane->turn);
    if (st == FL_E_NOMEM) return st;
    lane->end.ended = 1;
  }
  return fl_cohort_set_decide(front->cohorts->set);
}

static void count(fli_job *leaf)
{
  const fli_lane *lane = fli_lane_of(leaf);
  fli_cohort_sums *sums = &leaf->front->cohorts->sums;
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    const fli_visit *visit = &lane->visits[i];
    sums->selected += visit->trains;
    sums->accepted += visit->is_counted;
    leaf->front->cohorts->work += visit->is_counted;
    if (!visit->is_counted || !isfinite(visit->loss)) continue;
    sums->loss += visit->loss;
    sums->n_losses++;
  }
}

static void finish_round(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  const fli_cohort_sums *sums = &cohorts->sums;
  fl_server_event event = fli_event_of(front, FL_SERVER_ROUND_FINISHED);
  event.round = front->round;
  event.model_version = fli_cohorts_first(front)->store.canonical.version;
  event.selected = (uint32_t)sums->selected;
  event.accepted = (uint32_t)sums->accepted;
  if (sums->n_losses > 0 && isfinite(sums->loss))
    event.loss = sums->loss / (double)sums->n_losses;
  fli_events_add(&front->server->events, &event, "",
                 "round %llu: %u of %u updates, %u cohorts",
                 (unsigned long long)front->round, event.accepted,
                 event.selected, fl_cohort_set_count(cohorts->set));
  cohorts->sums = (fli_cohort_sums){0};
  if (fli_evaluate_is_due(front)) fli_scores_begin(front);
  if (front->round >= front->options.rounds) {
    cohorts->is_ending = FLI_ROUNDS_MADE;
  } else {
    front->round++;
  }
}

/* A round of the job is as many updates as it asks for, or as clients are
 * there: updates of many who have left are not many rounds of a few. */
static void finish_rounds(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  uint64_t whole = front->options.participants;
  const int is_all = whole == 0;
  if (is_all) whole = front->registry.trainers;
  if (whole == 0) whole = 1;
  uint64_t n = cohorts->work / whole;
  cohorts->work %= whole;
  if (is_all && n > 1) n = 1;
  for (; n > 0 && !cohorts->is_ending; n--)
    finish_round(front);
}

/* 0: there was no memory. */
static int conclude(fli_job *leaf)
{
  fli_job *front = leaf->front;
  fli_lane *lane = fli_lane_of(leaf);
  const int is_of_set = !fli_held_has_ended(front, leaf->cohort);
  if (is_of_set && report(leaf) != FL_OK) {
    fli_clear_error();
    front->hold_ns = pause_end(front);
    return 0;
  }
  fli_clear_error();
  front->hold_ns = 0;
  count(leaf);
  fli_visits_clear(front, lane);
  front->cohorts->ends++;
  fli_held_poll(front);
  fli_cohorts_place_all(front);
  finish_rounds(front);
  return 1;
}

/* ---- progress ------------------------------------------------------------ */

static int is_late(const fli_job *leaf)
{
  return leaf->server->now_ns >= leaf->deadline_ns;
}

/* What is over; 1: something was. */
static int end_phase(fli_job *leaf)
{
  const fli_lane *lane = fli_lane_of(leaf);
  switch (leaf->phase) {
  case FLI_PHASE_PROBING:
    if (lane->n_open > 0 && !is_late(leaf)) return 0;
    begin_round(leaf);
    return 1;
  case FLI_PHASE_NORMS:
  case FLI_PHASE_UPDATES: return fli_round_progress(leaf);
  case FLI_PHASE_EVALUATING:
    if (leaf->n_open > 0 && !is_late(leaf)) return 0;
    fli_scores_end(leaf);
    leaf->front->cohorts->ends++;
    fli_cohorts_place_all(leaf->front);
    return 1;
  default: return 0;
  }
}

/* One that has told the set a part goes first. */
static int has_begun_to_end(const fli_lane *lane)
{
  return lane->is_drawn && (lane->end.n_reported > 0 || lane->end.ended);
}

static int conclude_any(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  fli_job *next = NULL;
  if (front->server->now_ns < front->hold_ns) return 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = cohorts->leaves[i];
    if (!leaf || leaf->phase != FLI_PHASE_WAITING ||
        !cohorts->lanes[i].is_drawn) {
      continue;
    }
    if (!next || has_begun_to_end(&cohorts->lanes[i])) next = leaf;
  }
  return next && conclude(next);
}

static int begin_any(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  const uint64_t held = fli_held_mask(front);
  int has_changed = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = cohorts->leaves[i];
    if (!leaf || (held >> i & 1) || fli_apart_is_busy(front, i)) continue;
    if (cohorts->scores.left >> i & 1) {
      fli_scores_ask(leaf);
    } else if (is_due(leaf)) {
      begin_draw(leaf);
    } else {
      continue;
    }
    cohorts->census.is_known = 0; /* they are at work */
    has_changed = 1;
  }
  return has_changed;
}

static int finish(fli_job *front)
{
  const fli_cohorts *cohorts = front->cohorts;
  if (!is_over(front) || cohorts->n_held > 0 || cohorts->scores.left) return 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (fli_apart_is_busy(front, i)) return 0;
  }
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    fli_guests_release(front, &front->cohorts->lanes[i]);
  fli_cohorts_place_all(front);
  fli_job_finish(front);
  return 1;
}

int fli_apart_progress(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  int has_changed = 0;
  if (front->phase == FLI_PHASE_FINISHED) return 0;
  front->phase = FLI_PHASE_LEAVES;
  if (!front->registry.grace_first ||
      front->server->now_ns - front->waiting_ns >=
          front->options.return_grace_ns) {
    cohorts->is_back = 0;
  }
  if (cohorts->number >= NUMBERS_END && !cohorts->is_ending)
    cohorts->is_ending = FLI_NUMBERS_USED;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (cohorts->leaves[i]) has_changed |= end_phase(cohorts->leaves[i]);
    fli_guests_sweep(front, &cohorts->lanes[i]);
  }
  while (conclude_any(front))
    has_changed = 1;
  if (front->server->now_ns >= front->hold_ns &&
      fli_held_follow(front, &has_changed) != FL_OK) {
    fli_clear_error();
    front->hold_ns = pause_end(front);
  }
  if (finish(front)) return 1;
  return begin_any(front) | has_changed;
}

/* ---- from outside -------------------------------------------------------- */

int fli_apart_abort(fli_job *front, uint32_t reason, const char *text)
{
  int is_any = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = front->cohorts->leaves[i];
    if (!leaf) continue;
    if (leaf->phase == FLI_PHASE_PROBING) {
      fli_cohorts_give_up(leaf, reason, text);
      front->cohorts->ends++;
      is_any = 1;
    } else {
      is_any |= fli_round_abort(leaf, reason, text);
    }
  }
  return is_any;
}

/* What is past was seen, and waits for something else. */
static void add_time(uint64_t *next, uint64_t at, uint64_t now)
{
  if (at > now && at < *next) *next = at;
}

uint64_t fli_apart_next_timeout(const fli_job *front)
{
  const uint64_t now = front->server->now_ns;
  uint64_t next = UINT64_MAX;
  add_time(&next, front->hold_ns, now);
  if (front->cohorts->is_back) {
    add_time(&next,
             fli_later(front->waiting_ns, front->options.return_grace_ns), now);
  }
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const fli_job *leaf = front->cohorts->leaves[i];
    if (!leaf) continue;
    if (leaf->phase != FLI_PHASE_WAITING) {
      if (leaf->deadline_ns < next) next = leaf->deadline_ns;
      continue;
    }
    add_time(&next, leaf->hold_ns, now);
    if (front->registry.grace_first) {
      add_time(&next,
               fli_later(leaf->waiting_ns, front->options.return_grace_ns),
               now);
    }
  }
  return next;
}
