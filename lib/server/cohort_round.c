/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of a front whose cohorts go on together. Each is over when nobody
 * is waited for; what fails for want of memory is tried again after the pause,
 * from where it stood. */
#include "server/cohorts.h"

#include <math.h>

#include "base/error.h"

static fl_server_event round_event(const fli_job *front, uint32_t kind)
{
  fl_server_event event = fli_event_of(front, kind);
  event.round = front->round;
  event.model_version = fli_cohorts_first(front)->store.canonical.version;
  return event;
}

/* ---- before -------------------------------------------------------------- */

void fli_cohorts_give_up(fli_job *job, uint32_t reason, const char *text)
{
  const uint64_t pause = job->options.retry_pause_ns;
  fl_server_event event = round_event(job, FL_SERVER_ROUND_ABORTED);
  event.reason = reason;
  fli_events_add(&job->server->events, &event, "", "round %llu, attempt %u: %s",
                 (unsigned long long)job->round, job->attempt, text);
  fli_visits_clear(job->front ? job->front : job, fli_lane_of(job));
  fli_round_wait(job);
  job->attempt++;
  job->hold_ns = fli_job_after(job, pause > 0 ? pause : 1);
}

static void begin_probing(fli_job *front)
{
  front->is_begun = 1;
  front->phase = FLI_PHASE_PROBING;
  front->deadline_ns = fli_job_after(front, front->options.norm_deadline_ns);
  fli_lane_of(front)->turn = (uint32_t)front->round;
  if (fli_visits_draw(front) != FL_OK)
    fli_cohorts_give_up(front, FL_REJECT_LIMIT, fl_last_error());
}

/* ---- leaves -------------------------------------------------------------- */

/* Those who have not answered in time take no part. */
static void begin_leaves(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  const fli_lane *lane = fli_lane_of(front);
  for (uint32_t i = 0; i < lane->n_visits; i++)
    fli_visits_lose(lane->visits[i].participant);
  front->phase = FLI_PHASE_LEAVES;
  front->deadline_ns = UINT64_MAX;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = cohorts->leaves[i];
    if (!leaf || fli_cohorts_count_members(leaf) == 0) continue;
    leaf->round = front->round;
    leaf->attempt = front->attempt;
    leaf->is_stopping = 0;
    fli_round_begin(leaf);
  }
}

int fli_leaf_is_running(const fli_job *leaf)
{
  return leaf->phase == FLI_PHASE_NORMS || leaf->phase == FLI_PHASE_UPDATES;
}

/* 1: a leaf is under way. */
static int progress_leaves(fli_job *front, int *has_changed)
{
  int is_any = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = front->cohorts->leaves[i];
    if (!leaf) continue;
    while (fli_leaf_is_running(leaf) && fli_round_progress(leaf))
      *has_changed = 1;
    is_any |= fli_leaf_is_running(leaf);
  }
  return is_any;
}

/* ---- the end ------------------------------------------------------------- */

static fl_status end_rounds(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  fli_conclusion *end = &fli_lane_of(front)->end;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const uint64_t bit = UINT64_C(1) << i;
    if (!cohorts->leaves[i] || (end->ended & bit)) continue;
    const fl_status st =
        fl_cohort_set_end_round(cohorts->set, i, (uint32_t)front->round);
    if (st != FL_OK) return st;
    end->ended |= bit;
  }
  return FL_OK;
}

static fl_status follow_events(fli_job *front)
{
  fli_conclusion *end = &fli_lane_of(front)->end;
  for (;;) {
    fl_status st = FL_OK;
    if (!end->has_event) { /* the one that was not followed is kept */
      st = fl_cohort_event_init(&end->event, sizeof end->event);
      if (st == FL_OK)
        st = fl_cohort_set_poll(front->cohorts->set, &end->event);
      if (st == FL_E_EMPTY) return FL_OK;
      if (st != FL_OK) return st;
      end->has_event = 1;
    }
    st = fli_cohorts_follow(front, &end->event);
    if (st != FL_OK) return st;
    end->has_event = 0;
  }
}

static fl_status conclude(fli_job *front)
{
  fli_conclusion *end = &fli_lane_of(front)->end;
  fl_status st = FL_OK;
  FLI_TRY(fli_visits_report(front, fli_lane_of(front)));
  if (!end->is_decided) { /* later there are leaves that had no round */
    FLI_TRY(end_rounds(front));
    FLI_TRY(fl_cohort_set_decide(front->cohorts->set));
  }
  end->is_decided = 1;
  FLI_TRY(follow_events(front));
  fli_cohorts_place_all(front);
out:
  return st;
}

static void finish_round(fli_job *front)
{
  fl_server_event event = round_event(front, FL_SERVER_ROUND_FINISHED);
  fli_lane *lane = fli_lane_of(front);
  double sum = 0.0;
  uint32_t n = 0;
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    const fli_visit *visit = &lane->visits[i];
    event.selected += visit->trains;
    event.accepted += visit->is_counted;
    if (!visit->is_counted || !isfinite(visit->loss)) continue;
    sum += visit->loss;
    n++;
  }
  if (n > 0 && isfinite(sum)) event.loss = sum / n;
  fli_events_add(&front->server->events, &event, "",
                 "round %llu: %u of %u updates, %u cohorts",
                 (unsigned long long)front->round, event.accepted,
                 event.selected, fl_cohort_set_count(front->cohorts->set));
  fli_visits_clear(front, lane);
  front->attempt = 0;
  front->hold_ns = 0;
}

static void begin_scores(fli_job *front)
{
  front->phase = FLI_PHASE_SCORES;
  front->deadline_ns =
      fli_job_after(front, front->options.evaluate_deadline_ns);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = front->cohorts->leaves[i];
    if (!leaf) continue;
    leaf->round = front->round;
    fli_evaluate_begin(leaf);
  }
}

/* All wait for the last one, so that clients can be compared. */
static int progress_scores(fli_job *front)
{
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const fli_job *leaf = front->cohorts->leaves[i];
    if (leaf && leaf->n_open > 0 && front->server->now_ns < front->deadline_ns)
      return 0;
  }
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (front->cohorts->leaves[i])
      fli_evaluate_report(front->cohorts->leaves[i]);
  }
  fli_evaluate_report(front);
  fli_accuracy_take(front);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (front->cohorts->leaves[i]) fli_round_wait(front->cohorts->leaves[i]);
  }
  fli_round_next(front);
  return 1;
}

static int progress_end(fli_job *front)
{
  if (front->server->now_ns < front->hold_ns) return 0;
  if (conclude(front) != FL_OK) {
    const uint64_t pause = front->options.retry_pause_ns;
    fli_clear_error();
    front->hold_ns = fli_job_after(front, pause > 0 ? pause : 1);
    front->deadline_ns = front->hold_ns;
    return 0;
  }
  finish_round(front);
  if (fli_evaluate_is_due(front)) {
    begin_scores(front);
  } else {
    fli_round_next(front);
  }
  return 1;
}

/* ---- progress ------------------------------------------------------------ */

static int progress_probing(fli_job *front)
{
  if (fli_lane_of(front)->n_open > 0 &&
      front->server->now_ns < front->deadline_ns) {
    return 0;
  }
  begin_leaves(front);
  return 1;
}

int fli_cohorts_progress(fli_job *front)
{
  int has_changed = 0;
  if (fli_cohorts_is_apart(front)) return fli_apart_progress(front);
  switch (front->phase) {
  case FLI_PHASE_WAITING:
    if (front->is_stopping) {
      fli_job_finish(front);
      return 1;
    }
    if (!fli_round_is_due(front)) return 0;
    begin_probing(front);
    return 1;
  case FLI_PHASE_PROBING: return progress_probing(front);
  case FLI_PHASE_LEAVES:
    if (progress_leaves(front, &has_changed)) return has_changed;
    return progress_end(front);
  case FLI_PHASE_SCORES: return progress_scores(front);
  default: return 0;
  }
}

int fli_cohorts_abort(fli_job *front, uint32_t reason, const char *text)
{
  int is_any = front->phase == FLI_PHASE_PROBING;
  if (fli_cohorts_is_apart(front)) return fli_apart_abort(front, reason, text);
  if (is_any) fli_cohorts_give_up(front, reason, text);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = front->cohorts->leaves[i];
    if (leaf) is_any |= fli_round_abort(leaf, reason, text);
  }
  return is_any;
}

uint64_t fli_cohorts_next_timeout(const fli_job *front)
{
  uint64_t next = UINT64_MAX;
  if (fli_cohorts_is_apart(front)) return fli_apart_next_timeout(front);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const fli_job *leaf = front->cohorts->leaves[i];
    if (leaf && leaf->phase != FLI_PHASE_WAITING && leaf->deadline_ns < next)
      next = leaf->deadline_ns;
  }
  return next;
}
