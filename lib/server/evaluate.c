/* SPDX-License-Identifier: Apache-2.0 */
/* The evaluation that follows every so-manieth round: all clients that are
 * there score the new model on their own data. Scores are kept by member and
 * summed in order of id, so that the reported loss does not depend on who
 * answered first. */
#include "server/server.h"

#include <math.h>

#include "base/error.h"
#include "server/cohorts.h"

int fli_evaluate_is_due(const fli_job *job)
{
  return !job->front && job->options.evaluate_every > 0 &&
         job->round % job->options.evaluate_every == 0;
}

void fli_evaluate_begin(fli_job *job)
{
  /* Without the memory to ask, the evaluation ends with nobody asked. */
  (void)fli_select_members(job, FLI_CAP_EVALUATE, UINT32_MAX);
  job->phase = FLI_PHASE_EVALUATING;
  job->deadline_ns = fli_job_after(job, job->options.evaluate_deadline_ns);
  fli_round_count_open(job);
  for (uint32_t i = 0; i < job->n_members; i++) {
    fli_peer_add_due(job->members[i].participant->peer,
                     FLI_DUE_MODEL | FLI_DUE_EVALUATE);
  }
}

static void add_scores(const fli_job *job, fl_server_event *event, double *sum)
{
  event->selected += job->n_members;
  event->accepted += job->n_reports;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (!member->has_score) continue;
    *sum += member->loss * (double)member->count;
    event->correct += member->correct;
    event->count += member->count;
  }
}

void fli_evaluate_report(const fli_job *job)
{
  fl_server_event event = fli_event_of(job, FL_SERVER_EVALUATED);
  double sum = 0.0;
  event.round = job->round;
  event.model_version = fli_cohorts_first(job)->store.canonical.version;
  add_scores(job, &event, &sum);
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    if (job->cohorts->leaves[i])
      add_scores(job->cohorts->leaves[i], &event, &sum);
  }
  /* Absurd scores may add up to no number. */
  if (event.count > 0 && isfinite(sum)) event.loss = sum / (double)event.count;
  fli_events_add(&job->server->events, &event, "",
                 "round %llu: %u of %u scores", (unsigned long long)job->round,
                 event.accepted, event.selected);
}

int fli_evaluate_progress(fli_job *job)
{
  if (job->n_open > 0 && job->server->now_ns < job->deadline_ns) return 0;
  fli_evaluate_report(job);
  fli_accuracy_take(job);
  fli_round_next(job);
  return 1;
}

fl_status fli_evaluate_on_metrics(fli_peer *peer, const fli_metrics *metrics)
{
  fli_job *job = peer->participant->job;
  fli_member *member = fli_member_of(peer->participant);
  if (metrics->is_probe) return fli_visits_on_metrics(peer, metrics);
  if (job->phase != FLI_PHASE_EVALUATING || metrics->round != job->round ||
      metrics->model_version != job->store.canonical.version) {
    return fli_peer_ack(peer, metrics->round, 0, FL_REJECT_STALE, "%s",
                        fl_reject_text(FL_REJECT_STALE));
  }
  if (!member) {
    return fli_peer_ack(peer, metrics->round, 0, FL_REJECT_NOT_SELECTED, "%s",
                        fl_reject_text(FL_REJECT_NOT_SELECTED));
  }
  if (member->has_score || member->lost != FL_REJECT_NONE) return FL_OK;
  job->n_open -= (uint32_t)fli_member_is_open(job, member);
  job->n_reports++;
  member->has_score = 1;
  member->loss = metrics->loss;
  member->correct = metrics->correct;
  member->count = metrics->count;
  return FL_OK;
}
