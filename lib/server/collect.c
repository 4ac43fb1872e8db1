/* SPDX-License-Identifier: Apache-2.0 */
/* What participants send in a round: norms, the announcement of an update and
 * the update itself. Each is checked against the round that runs and the part
 * that its sender has in it; what does not fit is answered with the reason and
 * changes nothing for the others. */
#include "server/server.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/rule.h"
#include "server/slices.h"

static fl_status answer(fli_peer *peer, uint64_t round, uint32_t attempt,
                        uint32_t reason)
{
  return fli_peer_ack(peer, round, attempt, reason, "%s",
                      reason == FL_REJECT_NONE ? "" : fl_reject_text(reason));
}

int fli_collect_is_turn(const fli_job *job, const fli_member *mine,
                        uint64_t round, uint32_t attempt)
{
  if (fli_buffered_runs(job))
    return mine && mine->task.round == round && mine->task.attempt == attempt;
  return job->round == round && job->attempt == attempt;
}

/* Find the sender's part in the round that runs; *member stays NULL when the
 * message was answered here: it is of another round, from somebody not asked,
 * or about an update that was counted before. */
static fl_status check_turn(fli_peer *peer, uint64_t round, uint32_t attempt,
                            fli_member **member)
{
  const fli_participant *who = peer->participant;
  const fli_job *job = who->job;
  const int is_running =
      job->phase == FLI_PHASE_NORMS || job->phase == FLI_PHASE_UPDATES;
  fli_member *mine = fli_member_of(who);
  if (who->counted_round == round && who->counted_attempt == attempt) {
    return answer(peer, round, attempt, FL_REJECT_NONE);
  }
  if (!is_running || !fli_collect_is_turn(job, mine, round, attempt)) {
    const uint32_t reason = fli_identity_is_replay(who, round, attempt)
                                ? FL_REJECT_REPLAY
                                : FL_REJECT_STALE;
    const fl_status st =
        fli_peer_ack(peer, round, attempt, reason,
                     "round: got %llu, attempt %u, want %llu, attempt %u",
                     (unsigned long long)round, attempt,
                     (unsigned long long)job->round, job->attempt);
    if (!is_running) fli_buffered_drop(who);
    return st == FL_OK ? fli_backoff_tell(peer) : st;
  }
  if (!mine) return answer(peer, round, attempt, FL_REJECT_NOT_SELECTED);
  if (mine->is_out) return answer(peer, round, attempt, mine->lost);
  *member = mine;
  return FL_OK;
}

/* ---- norms ---- */

static fl_status check_norms(const fli_job *job, const fli_norm *norm)
{
  const size_t n = (size_t)job->n_norms;
  float *values = fli_alloc(job->context, n, sizeof *values);
  if (!values) return fli_nomem(n * sizeof *values);
  const fl_status st =
      fli_norms_from_bf16(values, n, norm->norms, norm->norms_size);
  fli_free(job->context, values, n * sizeof *values);
  return st;
}

static void take_norm(fli_job *job, fli_member *member, const fli_norm *norm)
{
  const size_t row = (size_t)job->n_norms * 2;
  if (job->phase == FLI_PHASE_NORMS) {
    const size_t slot = (size_t)(member - job->members);
    memcpy(job->reported + slot * row, norm->norms, row);
    fli_parts_clear_norms(job, member, job->reported + slot * row);
    job->n_open -= (uint32_t)fli_member_is_open(job, member);
    job->n_reports++;
  }
  member->has_norm = 1;
  member->seconds = fli_round_seconds(job);
  member->samples = norm->samples;
}

fl_status fli_collect_norm(fli_peer *peer, const fli_norm *norm)
{
  fli_job *job = peer->participant->job;
  fli_member *member = NULL;
  fl_status st = check_turn(peer, norm->round, norm->attempt, &member);
  if (st != FL_OK || !member) return st;
  if (job->is_public) {
    return fli_peer_ack(peer, norm->round, norm->attempt, FL_REJECT_STATE,
                        "norm: got one, want an update: the scale is public");
  }
  if (!member->has_norm) {
    st = norm->samples > job->options.max_samples
             ? fli_error(FL_E_RANGE, "norm.samples: got %llu, want <= %llu",
                         (unsigned long long)norm->samples,
                         (unsigned long long)job->options.max_samples)
             : check_norms(job, norm);
    if (st == FL_E_NOMEM) return st;
    if (st != FL_OK) {
      fli_member_lose(job, member, FL_REJECT_RANGE, 1);
      return fli_peer_ack(peer, norm->round, norm->attempt, FL_REJECT_RANGE,
                          "%s", fl_last_error());
    }
    take_norm(job, member, norm);
  }
  if (job->phase == FLI_PHASE_UPDATES) fli_peer_add_due(peer, FLI_DUE_SCALE);
  return FL_OK;
}

/* ---- updates ---- */

static fl_status refuse_update(fli_peer *peer, const fli_manifest *manifest,
                               uint32_t reason, const char *text)
{
  return fli_peer_ack(peer, manifest->round, manifest->attempt, reason, "%s",
                      text);
}

/* FL_OK when the upload is one that this round can take; else the text says
 * what is wrong with it. */
static fl_status check_upload(const fli_job *job, const fli_manifest *manifest)
{
  const uint64_t largest = fl_compressor_max_update_size(job->compressor) +
                           fli_slices_max(job) + fli_controls_size(job);
  const size_t clamped = job->is_public ? (size_t)job->n_norms * 2 : 0;
  if (manifest->kind != FLI_TRANSFER_UPDATE)
    return fli_error(FL_E_FORMAT, "manifest.kind: got %u, want %d",
                     manifest->kind, FLI_TRANSFER_UPDATE);
  if (manifest->total > largest)
    return fli_error(FL_E_FORMAT, "update: got %llu bytes, want <= %llu",
                     (unsigned long long)manifest->total,
                     (unsigned long long)largest);
  if (!fli_controls_are_used(job) &&
      manifest->slices_size > fli_slices_max(job))
    return fli_error(FL_E_FORMAT, "update: got %u bytes of rows, want <= %llu",
                     manifest->slices_size,
                     (unsigned long long)fli_slices_max(job));
  if (job->is_public && manifest->clamped_size != clamped)
    return fli_error(FL_E_FORMAT, "manifest.clamped: got %zu bytes, want %zu",
                     manifest->clamped_size, clamped);
  return FL_OK;
}

fl_status fli_collect_manifest(fli_peer *peer, const fli_manifest *manifest)
{
  const fli_job *job = peer->participant->job;
  fli_member *member = NULL;
  int is_good = 0;
  fli_parked_keep(peer);
  fli_peer_drop_upload(peer);
  fl_status st = check_turn(peer, manifest->round, manifest->attempt, &member);
  if (st != FL_OK || !member) return st;
  if (job->phase != FLI_PHASE_UPDATES) {
    return refuse_update(peer, manifest, FL_REJECT_STATE,
                         "update: got one before the scale was agreed");
  }
  st = check_upload(job, manifest);
  if (st != FL_OK) {
    return refuse_update(peer, manifest, FL_REJECT_FORMAT, fl_last_error());
  }
  st = fli_identity_check_update(peer, manifest, &is_good);
  if (st != FL_OK || !is_good) return st;
  (void)fli_parked_take(peer, member, manifest);
  st = fli_peer_reserve(peer, manifest->total);
  if (st == FL_E_LIMIT) {
    fli_peer_drop_upload(peer);
    return fli_peer_wait(peer, FLI_STAGING_WAIT_MS, fl_last_error());
  }
  if (st != FL_OK) return st;
  st = fli_incoming_begin(&peer->incoming, manifest, manifest->total);
  if (st == FL_OK) return fli_peer_status(peer);
  fli_peer_drop_upload(peer);
  return st;
}

static uint64_t capped(const fli_job *job, uint64_t samples)
{
  return samples < job->weight_cap ? samples : job->weight_cap;
}

/* The header must be the sender's own: its slot, and the samples that its
 * norms were weighted with. */
static fl_status check_header(const fli_job *job, const fli_member *member,
                              const fli_bytes *data, uint64_t *samples)
{
  const uint32_t want = fli_buffered_runs(job)
                            ? member->task.slot
                            : (uint32_t)(member - job->members);
  uint32_t slot = 0;
  const fl_status st = fl_partial_peek(fli_round_partial(job, member),
                                       data->data, data->size, &slot, samples);
  if (st != FL_OK) return st;
  if (slot != want)
    return fli_error(FL_E_RANGE, "update.slot: got %u, want %u", slot, want);
  if (*samples > job->options.max_samples)
    return fli_error(FL_E_RANGE, "update.samples: got %llu, want <= %llu",
                     (unsigned long long)*samples,
                     (unsigned long long)job->options.max_samples);
  if (member->has_norm && capped(job, *samples) != capped(job, member->samples))
    return fli_error(FL_E_RANGE, "update.samples: got %llu, want %llu",
                     (unsigned long long)*samples,
                     (unsigned long long)member->samples);
  return FL_OK;
}

/* An update with other segments than its sender's part. Its next one would be
 * no better: it comes from a client that knows nothing of parts, or lies. */
static fl_status refuse_part(fli_peer *peer, fli_member *member,
                             const fli_manifest *manifest)
{
  fli_member_lose(peer->participant->job, member, FL_REJECT_RANGE, 1);
  return refuse_update(peer, manifest, FL_REJECT_RANGE, fl_last_error());
}

void fli_collect_count(fli_job *job, fli_member *member, double loss,
                       uint64_t samples)
{
  fli_participant *who = member->participant;
  job->n_open -= (uint32_t)fli_member_is_open(job, member);
  job->n_counted++;
  member->is_counted = 1;
  member->lost = FL_REJECT_NONE;
  member->samples = samples;
  member->loss = isfinite(loss) ? loss : (double)NAN;
  member->seconds += fli_round_seconds(job);
  job->bytes_saved += fli_parts_bytes_saved(job, member);
  who->before_round = who->counted_round;
  who->before_attempt = who->counted_attempt;
  who->counted_round = job->round;
  who->counted_attempt = job->attempt;
  if (!fli_buffered_runs(job)) return;
  who->counted_round = member->task.round;
  who->counted_attempt = member->task.attempt;
}

static void announce(const fli_peer *peer, const fli_member *member)
{
  const fli_participant *who = peer->participant;
  const fli_job *job = who->job;
  fl_server_event event = fli_event_of(job, FL_SERVER_UPDATE_ACCEPTED);
  event.round = job->round;
  event.peer = peer->number;
  event.model_version = job->store.canonical.version;
  event.selected = job->n_members;
  event.accepted = job->n_counted;
  event.samples = member->samples;
  event.loss = member->loss;
  fli_events_add(&job->server->events, &event, who->id, "round %llu: counted",
                 (unsigned long long)job->round);
}

static uint32_t reason_of(fl_status status)
{
  switch (status) {
  case FL_E_DUPLICATE: return FL_REJECT_DUPLICATE;
  case FL_E_RANGE: return FL_REJECT_RANGE;
  case FL_E_LIMIT: return FL_REJECT_LIMIT;
  default: return FL_REJECT_FORMAT;
  }
}

fl_status fli_collect_update(fli_peer *peer)
{
  fli_job *job = peer->participant->job;
  const fli_incoming *incoming = &peer->incoming;
  const fli_manifest manifest = incoming->manifest;
  fli_bytes dense = incoming->data; /* a view: rows follow behind it */
  fli_member *member = NULL;
  uint64_t samples = 0;
  dense.size -= manifest.slices_size;
  fl_status st = check_turn(peer, manifest.round, manifest.attempt, &member);
  if (st != FL_OK || !member) return st;
  st = check_header(job, member, &dense, &samples);
  if (st == FL_OK) {
    st = fli_parts_check(job, member, &dense);
    if (st != FL_OK) return refuse_part(peer, member, &manifest);
    st = fli_controls_are_used(job)
             ? fli_controls_check(job, &incoming->data, manifest.slices_size)
             : fli_slices_check(job, &incoming->data, manifest.slices_size);
  }
  if (st == FL_OK && job->front) st = fli_cohorts_sketch(member, &dense);
  if (st == FL_OK) {
    st = fli_buffered_runs(job)
             ? fli_buffered_add(job, member, &dense)
             : fl_partial_add(job->partial, dense.data, dense.size);
  }
  if (st == FL_E_NOMEM) return st;
  if (st != FL_OK) {
    return refuse_update(peer, &manifest, reason_of(st), fl_last_error());
  }
  if (job->slices) fli_slices_fold(job, &incoming->data, manifest.slices_size);
  if (job->is_public) fli_norms_count(job, member, &incoming->clamped);
  fli_collect_count(job, member, manifest.loss, samples);
  announce(peer, member);
  fli_freezing_take_report(peer, member, &manifest);
  fli_journal_update(peer, member);
  if (job->slices) peer->incoming.data.size = dense.size;
  fli_rule_keep(job, member, &peer->incoming.data);
  st = answer(peer, manifest.round, manifest.attempt, FL_REJECT_NONE);
  return st == FL_OK ? fli_backoff_tell(peer) : st;
}
