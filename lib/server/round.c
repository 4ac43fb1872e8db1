/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of a round: WAITING -> NORMS -> UPDATES -> the next version, or
 * an abort and another attempt. Nothing here waits: fli_round_progress looks
 * at the counters and the clock and makes the one transition that is due. A
 * failure of ours in the middle of a round (memory, mostly) aborts it like a
 * missed deadline; it is tried again after the pause. */
#include "server/server.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/rule.h"
#include "server/selector.h"
#include "server/slices.h"

/* ---- members ---- */

fli_member *fli_member_of(const fli_participant *participant)
{
  if (!participant || participant->member == FLI_NO_MEMBER) return NULL;
  return &participant->job->members[participant->member];
}

int fli_member_is_open(const fli_job *job, const fli_member *member)
{
  if (member->lost != FL_REJECT_NONE) return 0;
  switch (job->phase) {
  case FLI_PHASE_NORMS: return !member->has_norm;
  case FLI_PHASE_UPDATES: return !member->is_counted;
  case FLI_PHASE_EVALUATING: return !member->has_score;
  default: return 0;
  }
}

static void set_lost(fli_job *job, fli_member *member, uint32_t reason)
{
  job->n_open -= (uint32_t)fli_member_is_open(job, member);
  member->lost = reason;
  job->n_open += (uint32_t)fli_member_is_open(job, member);
}

void fli_member_lose(fli_job *job, fli_member *member, uint32_t reason,
                     int is_out)
{
  if (member->is_out || member->is_counted) return;
  member->is_out = is_out != 0;
  if (member->is_out) fli_parked_drop(job->server, member);
  set_lost(job, member, reason);
}

void fli_member_revive(fli_job *job, fli_member *member)
{
  if (!member->is_out) set_lost(job, member, FL_REJECT_NONE);
}

void fli_round_count_open(fli_job *job)
{
  job->n_open = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    job->n_open += (uint32_t)fli_member_is_open(job, &job->members[i]);
  }
}

/* An upload that comes too late is answered at once: its sender need not
 * finish it to learn that. */
static void release_member(fli_member *member)
{
  fli_participant *who = member->participant;
  fli_peer *peer = who->peer;
  who->member = FLI_NO_MEMBER;
  who->home->registry.is_sweep_due |= who->is_leaving;
  if (!member->is_carried && !peer) fli_registry_tire(who);
  if (member->is_carried || !peer || !peer->incoming.is_active) return;
  const fli_manifest manifest = peer->incoming.manifest;
  fli_peer_drop_upload(peer);
  /* A courtesy: without it the client asks again by HELLO. */
  (void)fli_peer_ack(peer, manifest.round, manifest.attempt, FL_REJECT_STALE,
                     "round %llu: is over", (unsigned long long)manifest.round);
}

static void free_scale(fli_job *job)
{
  const size_t n = (size_t)job->n_norms;
  fli_free(job->context, job->reported, (size_t)job->n_members * n * 2);
  fli_free(job->context, job->norms, n * sizeof *job->norms);
  fli_free(job->context, job->norms_wire, n * 2);
  fli_free(job->context, job->clamped, n * sizeof *job->clamped);
  job->reported = NULL;
  job->norms = NULL;
  job->norms_wire = NULL;
  job->clamped = NULL;
  fl_partial_free(job->partial);
  job->partial = NULL;
}

void fli_round_clear(fli_job *job)
{
  free_scale(job);
  fli_buffered_clear(job);
  for (uint32_t i = 0; i < job->n_members; i++) {
    release_member(&job->members[i]);
    fli_rule_forget(&job->members[i]);
    fli_parked_drop(job->server, &job->members[i]);
  }
  fli_free(job->context, job->members, job->n_members * sizeof *job->members);
  job->members = NULL;
  job->n_members = job->n_open = 0;
  job->n_reports = job->n_counted = job->n_wanted = 0;
  job->is_public = 0;
  job->deadline_ns = UINT64_MAX;
}

static void tell_members(fli_job *job, uint32_t due, int only_reported)
{
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    fli_peer *peer = member->participant->peer;
    if (peer && (!only_reported || member->has_norm)) {
      fli_peer_add_due(peer, due);
    }
  }
}

static fl_server_event round_event(const fli_job *job, uint32_t kind)
{
  fl_server_event event = fli_event_of(job, kind);
  event.round = job->round;
  event.model_version = job->store.canonical.version;
  event.selected = job->n_members;
  event.accepted = job->n_counted;
  event.first_active = job->first_active;
  return event;
}

float fli_round_seconds(const fli_job *job)
{
  const fl_job_options *options = &job->options;
  const uint64_t now = job->server->now_ns;
  uint64_t whole = options->update_deadline_ns;
  if (job->deadline_ns == UINT64_MAX) return NAN;
  if (job->phase == FLI_PHASE_NORMS) whole = options->norm_deadline_ns;
  if (job->is_public) whole = fli_later(whole, options->norm_deadline_ns);
  const uint64_t left = job->deadline_ns > now ? job->deadline_ns - now : 0;
  return left < whole ? (float)((double)(whole - left) * 1e-9) : 0.0f;
}

/* ---- ends ---- */

static void report_lost(fli_job *job, uint32_t reason)
{
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    fl_server_event event = round_event(job, FL_SERVER_CLIENT_LOST);
    if (member->is_counted || member->is_carried) continue;
    event.reason = member->lost != FL_REJECT_NONE ? member->lost : reason;
    fli_events_add(&job->server->events, &event, member->participant->id,
                   "round %llu: %s", (unsigned long long)job->round,
                   fl_reject_text(event.reason));
  }
}

void fli_round_wait(fli_job *job)
{
  fli_round_clear(job);
  job->phase = FLI_PHASE_WAITING;
  job->waiting_ns = job->server->now_ns;
}

/* What an aborted round has counted is not in the model, and what was counted
 * before it is; clients that keep what encodings lose must learn both from
 * their next plan. */
static void forget_counted(fli_job *job)
{
  if (!job->options.error_feedback) return;
  for (uint32_t i = 0; i < job->n_members; i++) {
    fli_participant *who = job->members[i].participant;
    if (!job->members[i].is_counted) continue;
    who->counted_round = who->before_round;
    who->counted_attempt = who->before_attempt;
  }
}

static void abort_round(fli_job *job, uint32_t reason, const char *text)
{
  const uint64_t pause = job->options.retry_pause_ns;
  fl_server_event event = round_event(job, FL_SERVER_ROUND_ABORTED);
  event.reason = reason;
  report_lost(job, reason);
  fli_selector_end_round(job);
  forget_counted(job);
  fli_events_add(&job->server->events, &event, "", "round %llu, attempt %u: %s",
                 (unsigned long long)job->round, job->attempt, text);
  fli_round_wait(job);
  fli_buffered_forget(job);
  job->attempt++;
  job->hold_ns = fli_job_after(job, pause > 0 ? pause : 1);
}

int fli_round_abort(fli_job *job, uint32_t reason, const char *text)
{
  if (job->phase != FLI_PHASE_NORMS && job->phase != FLI_PHASE_UPDATES)
    return 0;
  abort_round(job, reason, text);
  return 1;
}

/* What went wrong on our side is in the error text. */
static void abort_for(fli_job *job, fl_status st)
{
  abort_round(job, st == FL_E_NOT_FINITE ? FL_REJECT_RANGE : FL_REJECT_LIMIT,
              fl_last_error());
}

static void abort_short(fli_job *job, uint32_t reason, uint32_t got)
{
  char text[FLI_TEXT_BYTES];
  snprintf(text, sizeof text, "got %u %s, want >= %u", got,
           job->phase == FLI_PHASE_NORMS ? "norms" : "updates",
           job->options.min_participants);
  abort_round(job, reason, text);
}

/* Of a counted update. */
static double weight_of(const fli_job *job, const fli_member *member)
{
  const uint64_t cap = job->weight_cap;
  const uint64_t samples = member->samples < cap ? member->samples : cap;
  return cap > 0 ? (double)samples : 1.0;
}

/* Mean training loss by weight, in order of id. */
static double mean_loss(const fli_job *job)
{
  double sum = 0.0, weights = 0.0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    const double weight = weight_of(job, member);
    if (!member->is_counted || isnan(member->loss)) continue;
    sum += weight * member->loss;
    weights += weight;
  }
  /* Absurd losses may add up to no number. */
  return weights > 0.0 && isfinite(sum) ? sum / weights : (double)NAN;
}

void fli_round_next(fli_job *job)
{
  fli_round_wait(job);
  if (job->front) return;
  if (job->round >= job->options.rounds || job->is_stopping) {
    fli_job_finish(job);
  } else {
    job->round++;
  }
}

/* The norms of the first round that is finished start the announced ones,
 * unless nobody had anything to report: then the next one exchanges, too. Those
 * of a round that is given up are whoever's it was that spoiled it. *out NULL:
 * there are none. */
static fl_status first_announced(const fli_job *job, float **out)
{
  const size_t n = (size_t)job->n_norms;
  *out = NULL;
  if (job->options.scale_mode != FL_SCALE_PUBLIC || job->is_public)
    return FL_OK;
  float *announced = fli_alloc(job->context, n, sizeof *announced);
  if (!announced) return fli_nomem(n * sizeof *announced);
  if (fli_norms_publish(announced, job->norms, job->n_norms)) {
    *out = announced;
  } else {
    fli_free(job->context, announced, n * sizeof *announced);
  }
  return FL_OK;
}

static void finish_round(fli_job *job)
{
  float *announced = NULL;
  fl_server_event event = round_event(job, FL_SERVER_ROUND_FINISHED);
  event.samples = fli_buffered_runs(job) ? fli_buffered_samples(job)
                                         : fl_partial_samples(job->partial);
  event.loss = mean_loss(job);
  fl_status st = first_announced(job, &announced);
  if (st == FL_OK) st = fli_slices_prepare(job);
  if (st == FL_OK) st = fli_step_run(job);
  if (st != FL_OK) {
    fli_free(job->context, announced, (size_t)job->n_norms * sizeof *announced);
    abort_for(job, st);
    return;
  }
  fli_slices_finish(job);
  fli_controls_change(job);
  if (job->is_public && !job->buffered) fli_norms_adapt(job);
  if (announced) {
    fli_free(job->context, job->public_norms,
             (size_t)job->n_norms * sizeof *announced);
    job->public_norms = announced;
  }
  if (job->front) fli_cohorts_count(job);
  fli_freezing_end_round(job, event.loss);
  fli_selector_end_round(job);
  event.model_version = job->store.canonical.version;
  fli_buffered_carry(job);
  report_lost(job, job->n_counted >= job->n_wanted ? FL_REJECT_STALE
                                                   : FL_REJECT_DEADLINE);
  fli_events_add(&job->server->events, &event, "",
                 "round %llu: %u of %u updates", (unsigned long long)job->round,
                 job->n_counted, job->n_members);
  fli_round_clear(job);
  job->attempt = 0;
  job->hold_ns = 0;
  if (fli_evaluate_is_due(job)) {
    fli_evaluate_begin(job);
  } else {
    fli_round_next(job);
  }
}

/* ---- scale ---- */

fl_scale fli_round_scale(const fli_job *job)
{
  fl_scale scale;
  (void)fl_scale_init(&scale, sizeof scale); /* fails on its size only */
  scale.slots = job->n_members;
  scale.round = job->round;
  scale.weight_cap = job->weight_cap;
  memcpy(scale.noise_seed, job->noise_seed, sizeof scale.noise_seed);
  scale.norms = job->norms;
  scale.n_norms = job->n_norms;
  scale.clip = job->clip;
  scale.is_public = (uint32_t)job->is_public;
  return scale;
}

fl_status fli_round_open_partial(fli_job *job)
{
  const fl_scale scale = fli_round_scale(job);
  fli_norms_to_bf16(job->norms_wire, job->norms, job->n_norms);
  const fl_status st = fl_partial_new(&job->partial, job->compressor, &scale);
  if (st != FL_OK) return st;
  job->phase = FLI_PHASE_UPDATES;
  fli_round_count_open(job);
  return FL_OK;
}

fl_status fli_round_alloc_scale(fli_job *job, int with_reported)
{
  const size_t n = (size_t)job->n_norms;
  const size_t reported = with_reported ? job->n_members * n : 0;
  job->norms = fli_alloc(job->context, n, sizeof *job->norms);
  job->norms_wire = fli_alloc(job->context, n, 2);
  if (!job->norms || !job->norms_wire) return fli_nomem(n * sizeof(float));
  if (reported > 0) {
    job->reported = fli_alloc(job->context, reported, 2);
    if (!job->reported) return fli_nomem(reported * 2);
  }
  if (job->is_public) {
    job->clamped = fli_alloc(job->context, n, sizeof *job->clamped);
    if (!job->clamped) return fli_nomem(n * sizeof *job->clamped);
  }
  return FL_OK;
}

static void agree_scale(fli_job *job)
{
  fl_status st = FL_OK;
  const size_t bytes = (size_t)job->n_members * (size_t)job->n_norms * 2;
  fl_server_event event = round_event(job, FL_SERVER_SCALE_AGREED);
  FLI_TRY(fli_norms_agree(job->context, job->reported, job->members,
                          job->n_members, job->n_norms, job->norms));
  fli_clip_choose(job);
  FLI_TRY(fli_round_open_partial(job));
  fli_free(job->context, job->reported, bytes);
  job->reported = NULL;
  job->deadline_ns = fli_job_after(job, job->options.update_deadline_ns);
  tell_members(job, FLI_DUE_SCALE, 1);
  fli_events_add(&job->server->events, &event, "", "round %llu: %u norms",
                 (unsigned long long)job->round, job->n_reports);
out:
  if (st != FL_OK) abort_for(job, st);
}

/* ---- begin ---- */

/* Updates end the round; whoever has not sent one then goes on. */
static fl_status open_buffered(fli_job *job)
{
  const fl_job_options *options = &job->options;
  job->is_public = 1;
  job->n_wanted = options->buffer;
  const fl_status st = fli_buffered_begin(job);
  if (job->n_members < job->n_wanted) job->n_wanted = job->n_members;
  job->deadline_ns = fli_job_after(
      job, fli_later(options->norm_deadline_ns, options->update_deadline_ns));
  return st;
}

static fl_status open_round(fli_job *job)
{
  const fl_job_options *options = &job->options;
  fl_status st = FL_OK;
  if (job->buffered && job->public_norms) return open_buffered(job);
  FLI_TRY(fli_freezing_begin_round(job));
  FLI_TRY(job->front
              ? fli_cohorts_fill_members(job)
              : fli_select_members(job, FLI_CAP_TRAIN, fli_select_size(job)));
  FLI_TRY(fli_slices_begin(job));
  job->n_wanted = job->n_members;
  if (options->participants > 0 && options->participants < job->n_wanted) {
    job->n_wanted = options->participants;
  }
  if (options->buffer > 0 && options->buffer < job->n_wanted)
    job->n_wanted = options->buffer;
  if (job->front) job->n_wanted = fli_cohorts_wanted(job);
  job->is_public = job->public_norms != NULL;
  fli_derive(job->noise_seed, job->seed, "round noise", fli_job_turn(job),
             job->attempt);
  FLI_TRY(fli_round_alloc_scale(job, !job->is_public));
  if (job->is_public) {
    memcpy(job->norms, job->public_norms,
           (size_t)job->n_norms * sizeof *job->norms);
    fli_clip_choose(job);
    FLI_TRY(fli_round_open_partial(job));
    job->deadline_ns = fli_job_after(
        job, fli_later(options->norm_deadline_ns, options->update_deadline_ns));
  } else {
    job->phase = FLI_PHASE_NORMS;
    fli_round_count_open(job);
    job->deadline_ns = fli_job_after(job, options->norm_deadline_ns);
  }
out:
  return st;
}

void fli_round_begin(fli_job *job)
{
  const fl_status st = open_round(job);
  job->is_begun = 1;
  if (st != FL_OK) {
    abort_for(job, st);
    return;
  }
  const fl_server_event event = round_event(job, FL_SERVER_ROUND_STARTED);
  if (fli_buffered_runs(job))
    fli_buffered_tell(job);
  else
    tell_members(job, FLI_DUE_MODEL | FLI_DUE_PLAN, 0);
  fli_events_add(&job->server->events, &event, "",
                 "round %llu, attempt %u: %u selected",
                 (unsigned long long)job->round, job->attempt, job->n_members);
  fli_parts_report_cover(job);
}

/* A round that could ask more clients than are there gives those that were
 * lost just now the time to return, but not for ever. */
int fli_round_is_due(const fli_job *job)
{
  const fli_registry *registry = &job->registry;
  const uint64_t now = job->server->now_ns;
  uint32_t needed = job->options.min_participants;
  if (!job->is_begun && job->options.min_clients > needed) {
    needed = job->options.min_clients;
  }
  if (job->is_paused || now < job->hold_ns || registry->trainers < needed)
    return 0;
  if (job->buffered && job->public_norms) return 1; /* work goes on */
  return registry->trainers >= fli_select_size(job) || !registry->grace_first ||
         now - job->waiting_ns >= job->options.return_grace_ns;
}

/* ---- progress ---- */

static int progress_norms(fli_job *job)
{
  const int is_late = job->server->now_ns >= job->deadline_ns;
  if (job->n_open > 0 && !is_late) return 0;
  if (job->n_reports >= job->options.min_participants) {
    agree_scale(job);
  } else {
    abort_short(job, FL_REJECT_DEADLINE, job->n_reports);
  }
  return 1;
}

static int progress_updates(fli_job *job)
{
  const int is_late = job->server->now_ns >= job->deadline_ns;
  if (job->n_counted < job->n_wanted && job->n_open > 0 && !is_late) return 0;
  if (job->n_counted >= job->options.min_participants) {
    finish_round(job);
  } else {
    abort_short(job, FL_REJECT_DEADLINE, job->n_counted);
  }
  return 1;
}

int fli_round_progress(fli_job *job)
{
  switch (job->phase) {
  case FLI_PHASE_WAITING:
    if (job->is_stopping) {
      fli_job_finish(job);
      return 1;
    }
    if (job->front || !fli_round_is_due(job)) return 0;
    fli_round_begin(job);
    return 1;
  case FLI_PHASE_NORMS: return progress_norms(job);
  case FLI_PHASE_UPDATES: return progress_updates(job);
  default: return 0;
  }
}
