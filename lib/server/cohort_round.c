/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of a front. Each is over when nobody is waited for; what fails for
 * want of memory is tried again after the pause, from where it stood. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "compress/partial.h"

static fl_server_event round_event(const fli_job *front, uint32_t kind)
{
  fl_server_event event = fli_event_of(front, kind);
  event.round = front->round;
  event.model_version = fli_cohorts_first(front)->store.canonical.version;
  return event;
}

void fli_cohorts_clear_visits(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  for (uint32_t i = 0; i < cohorts->n_visits; i++) {
    fli_participant *who = cohorts->visits[i].participant;
    if (!who) continue;
    who->visit = FLI_NO_MEMBER;
    front->registry.is_sweep_due |= who->is_leaving;
  }
  fli_free(front->context, cohorts->sketches, cohorts->n_visits * cohorts->row);
  fli_free(front->context, cohorts->visits,
           cohorts->n_visits * sizeof *cohorts->visits);
  cohorts->visits = NULL;
  cohorts->sketches = NULL;
  cohorts->n_visits = cohorts->n_open = 0;
  memset(&cohorts->end, 0, sizeof cohorts->end);
}

/* ---- before -------------------------------------------------------------- */

static void give_up(fli_job *front, uint32_t reason, const char *text)
{
  const uint64_t pause = front->options.retry_pause_ns;
  fl_server_event event = round_event(front, FL_SERVER_ROUND_ABORTED);
  event.reason = reason;
  fli_events_add(&front->server->events, &event, "",
                 "round %llu, attempt %u: %s", (unsigned long long)front->round,
                 front->attempt, text);
  fli_cohorts_clear_visits(front);
  fli_round_wait(front);
  front->attempt++;
  front->hold_ns = fli_job_after(front, pause > 0 ? pause : 1);
}

static void begin_probing(fli_job *front)
{
  front->is_begun = 1;
  front->phase = FLI_PHASE_PROBING;
  front->deadline_ns = fli_job_after(front, front->options.norm_deadline_ns);
  if (fli_visits_draw(front) != FL_OK)
    give_up(front, FL_REJECT_LIMIT, fl_last_error());
}

/* ---- leaves -------------------------------------------------------------- */

/* Whoever is gone for good would be waited for. */
static int is_member(const fli_job *leaf, const fli_visit *visit)
{
  const fli_participant *who = visit->participant;
  return visit->trains && !visit->is_lost && !visit->is_open &&
         visit->cohort == leaf->cohort && (who->peer || who->is_in_grace);
}

fl_status fli_cohorts_fill_members(fli_job *leaf)
{
  const fli_cohorts *cohorts = leaf->front->cohorts;
  uint32_t n = 0;
  for (uint32_t i = 0; i < cohorts->n_visits; i++)
    n += (uint32_t)is_member(leaf, &cohorts->visits[i]);
  leaf->members = fli_alloc(leaf->context, n, sizeof *leaf->members);
  if (!leaf->members) return fli_nomem(n * sizeof *leaf->members);
  leaf->n_members = n;
  for (uint32_t i = 0, at = 0; i < cohorts->n_visits; i++) {
    fli_participant *who = cohorts->visits[i].participant;
    if (!is_member(leaf, &cohorts->visits[i])) continue;
    fli_cohorts_place(who, leaf);
    leaf->members[at].participant = who;
    leaf->members[at].first_active = fli_parts_start(leaf, who->depth);
    who->member = at++;
  }
  return n > 0 ? fli_select_cap(leaf) : FL_OK;
}

uint32_t fli_cohorts_wanted(const fli_job *leaf)
{
  return (uint32_t)ceilf((float)leaf->n_members / leaf->options.over_selection);
}

static uint32_t count_members(const fli_job *leaf)
{
  const fli_cohorts *cohorts = leaf->front->cohorts;
  uint32_t n = 0;
  for (uint32_t i = 0; i < cohorts->n_visits; i++)
    n += (uint32_t)is_member(leaf, &cohorts->visits[i]);
  return n;
}

/* Those who have not answered in time take no part. */
static void begin_leaves(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  for (uint32_t i = 0; i < cohorts->n_visits; i++)
    fli_visits_lose(cohorts->visits[i].participant);
  front->phase = FLI_PHASE_LEAVES;
  front->deadline_ns = UINT64_MAX;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = cohorts->leaves[i];
    if (!leaf || count_members(leaf) == 0) continue;
    leaf->round = front->round;
    leaf->attempt = front->attempt;
    leaf->is_stopping = 0;
    fli_round_begin(leaf);
  }
}

static int is_running(const fli_job *leaf)
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
    while (is_running(leaf) && fli_round_progress(leaf))
      *has_changed = 1;
    is_any |= is_running(leaf);
  }
  return is_any;
}

static void keep_feature(fli_cohorts *cohorts, uint32_t at, const float *update,
                         uint64_t n)
{
  float *row = (float *)(void *)(cohorts->sketches + at * cohorts->row);
  const uint32_t dim = cohorts->options.dim;
  for (uint32_t i = 0; i < dim; i++)
    row[i] = -update[n - dim + i];
}

/* From the decoded update. */
static fl_status sketch_floats(fli_job *leaf, uint32_t at,
                               const fli_bytes *update)
{
  fli_cohorts *cohorts = leaf->front->cohorts;
  const uint64_t n = leaf->store.canonical.n;
  const fl_scale scale = fli_round_scale(leaf);
  size_t size = 0;
  float *values = fli_alloc(leaf->context, (size_t)n, sizeof *values);
  if (!values) return fli_nomem((size_t)n * sizeof *values);
  fl_status st = fl_compressor_decode(leaf->compressor, &scale, update->data,
                                      update->size, values, n);
  if (st == FL_OK && cohorts->options.rule == FL_COHORT_AUXO)
    keep_feature(cohorts, at, values, n);
  if (st == FL_OK && cohorts->sketcher)
    st = fl_sketcher_write(cohorts->sketcher, values, n,
                           cohorts->sketches + at * cohorts->row, cohorts->row,
                           &size);
  fli_free(leaf->context, values, (size_t)n * sizeof *values);
  return st;
}

fl_status fli_cohorts_sketch(fli_member *member, const fli_bytes *update)
{
  const fli_participant *who = member->participant;
  fli_job *leaf = who->job;
  fli_cohorts *cohorts = leaf->front->cohorts;
  const uint32_t at = who->visit;
  if (cohorts->row == 0 || at == FLI_NO_MEMBER) return FL_OK;
  const int is_lanes =
      cohorts->options.rule == FL_COHORT_SKETCH && !cohorts->sketcher;
  const fl_status st =
      is_lanes ? fli_lane_sketch(&leaf->partial->agreed, update,
                                 cohorts->options.dim,
                                 cohorts->sketches + at * cohorts->row)
               : sketch_floats(leaf, at, update);
  cohorts->visits[at].has_sketch = st == FL_OK;
  /* An update without a direction counts, but teaches nothing. */
  return st == FL_E_NOMEM ? st : FL_OK;
}

void fli_cohorts_count(fli_job *leaf)
{
  fli_cohorts *cohorts = leaf->front->cohorts;
  for (uint32_t i = 0; i < leaf->n_members; i++) {
    const fli_member *member = &leaf->members[i];
    const uint32_t at = member->participant->visit;
    if (!member->is_counted || at == FLI_NO_MEMBER) continue;
    cohorts->visits[at].is_counted = 1;
    cohorts->visits[at].loss = member->loss;
  }
}

/* ---- the end ------------------------------------------------------------- */

static fl_status end_rounds(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const uint64_t bit = UINT64_C(1) << i;
    if (!cohorts->leaves[i] || (cohorts->end.ended & bit)) continue;
    const fl_status st =
        fl_cohort_set_end_round(cohorts->set, i, (uint32_t)front->round);
    if (st != FL_OK) return st;
    cohorts->end.ended |= bit;
  }
  return FL_OK;
}

static fl_status follow_events(fli_job *front)
{
  fli_conclusion *end = &front->cohorts->end;
  fl_status st = fl_cohort_event_init(&end->event, sizeof end->event);
  for (;;) {
    if (!end->has_event) {
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
  fli_conclusion *end = &front->cohorts->end;
  fl_status st = FL_OK;
  FLI_TRY(fli_visits_report(front));
  FLI_TRY(end_rounds(front));
  if (!end->is_decided) FLI_TRY(fl_cohort_set_decide(front->cohorts->set));
  end->is_decided = 1;
  FLI_TRY(follow_events(front));
  fli_cohorts_place_all(front);
out:
  return st;
}

static void finish_round(fli_job *front)
{
  fl_server_event event = round_event(front, FL_SERVER_ROUND_FINISHED);
  double sum = 0.0;
  uint32_t n = 0;
  for (uint32_t i = 0; i < front->cohorts->n_visits; i++) {
    const fli_visit *visit = &front->cohorts->visits[i];
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
  fli_cohorts_clear_visits(front);
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
  if (front->cohorts->n_open > 0 &&
      front->server->now_ns < front->deadline_ns) {
    return 0;
  }
  begin_leaves(front);
  return 1;
}

int fli_cohorts_progress(fli_job *front)
{
  int has_changed = 0;
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
  if (is_any) give_up(front, reason, text);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = front->cohorts->leaves[i];
    if (leaf) is_any |= fli_round_abort(leaf, reason, text);
  }
  return is_any;
}

uint64_t fli_cohorts_next_timeout(const fli_job *front)
{
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const fli_job *leaf = front->cohorts->leaves[i];
    if (leaf && leaf->phase != FLI_PHASE_WAITING && leaf->deadline_ns < next)
      next = leaf->deadline_ns;
  }
  return next;
}
