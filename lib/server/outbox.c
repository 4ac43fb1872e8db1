/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer is told. Nothing is written ahead: a peer carries a few
 * bits of what is due, and each is resolved against the job's state when the
 * host asks for bytes and the queue is empty. So a slow peer never gets the
 * plan of a round that is over, and costs no more memory than one message or
 * one chunk. */
#include "server/server.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "model/schedule.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/rule.h"

fl_status fli_outbox_welcome(fli_peer *peer, int with_description)
{
  const fli_participant *who = peer->participant;
  const fli_job *job = who->job;
  fli_welcome message = {
      .version = peer->version,
      .codec = job->codec.codec,
      .thc_mode = job->codec.thc_mode,
      .bits = job->codec.bits,
      .granularity = job->codec.granularity,
      .clip = fl_compressor_clip(job->compressor),
      .round = fli_job_round(job),
      .rounds = who->home->options.rounds,
      .table = job->codec.table,
      .table_size = job->codec.n_table,
      .has_status = 1,
  };
  memcpy(message.job, job->name, sizeof message.job);
  memcpy(message.token, who->token, sizeof message.token);
  memcpy(message.schema, job->schema, sizeof message.schema);
  memcpy(message.rotation_seed, job->codec.rotation_seed,
         sizeof message.rotation_seed);
  message.has_feedback = job->options.error_feedback != 0;
  message.feedback_decay = job->options.feedback_decay;
  if (with_description) {
    message.description = job->description.data;
    message.description_size = job->description.size;
  }
  const fl_status st = fli_write_welcome(&peer->queue, &message);
  fli_peer_touch(peer);
  return st;
}

/* ---- model ---- */

fl_status fli_outbox_download(fli_peer *peer, fli_blob *blob,
                              fli_manifest *manifest, uint32_t cohort)
{
  fli_peer_drop_download(peer);
  memcpy(manifest->hash, fli_blob_hash(blob), sizeof manifest->hash);
  const fl_status st = fli_outgoing_begin_hashed(
      &peer->outgoing, &peer->queue, manifest, blob->bytes.data,
      blob->bytes.size, peer->server->options.chunk_size);
  if (st != FL_OK) {
    fli_blob_unref(blob);
    return st;
  }
  peer->blob = blob;
  peer->blob_version = manifest->model_version;
  peer->blob_cohort = cohort;
  return FL_OK;
}

fl_status fli_outbox_model(fli_peer *peer)
{
  fli_participant *who = peer->participant;
  fli_store *store = &who->job->store;
  fli_manifest manifest = {0};
  fli_blob *blob = NULL;
  if (who->has_model && who->model_version == store->canonical.version) {
    return fli_controls_send(peer);
  }
  fl_status st = fli_store_transfer(store, who->has_model, who->model_version,
                                    &blob, &manifest);
  if (st != FL_OK) return st;
  manifest.round = fli_job_round(who->job);
  manifest.has_cohort = who->job->front != NULL;
  if (manifest.has_cohort) manifest.cohort = fli_cohort_of(who->job);
  return fli_outbox_download(peer, blob, &manifest, FL_COHORT_NONE);
}

static fl_status continue_model(fli_peer *peer)
{
  const fl_status st = fli_outgoing_next(&peer->outgoing, &peer->queue);
  if (st == FL_OK && !peer->outgoing.is_active &&
      peer->outgoing.limit == peer->outgoing.total) {
    fli_participant *who = peer->participant;
    if (peer->blob_cohort == FL_COHORT_NONE) {
      who->has_model = 1;
      who->model_version = peer->blob_version;
      /* The control comes behind it. */
      if (fli_controls_are_used(who->job)) peer->due |= FLI_DUE_MODEL;
    } else {
      who->probe_cohort = peer->blob_cohort;
      who->probe_version = peer->blob_version;
    }
    fli_peer_drop_download(peer);
  }
  return st;
}

/* ---- rounds ---- */

/* The same for every attempt of a round: who has trained need not again. */
static uint64_t client_seed(const fli_participant *who, uint64_t round)
{
  uint8_t digest[FLI_HASH_BYTES];
  fli_rng rng;
  fli_hash(digest, who->id, strlen(who->id));
  fli_rng_init(&rng, who->job->options.seed, FLI_RNG_CLIENT_SEED, round,
               (uint32_t)fli_hash_id(digest));
  return fli_rng_u64(&rng);
}

static int is_asked(const fli_participant *who)
{
  const fli_member *member = fli_member_of(who);
  const fli_phase phase = who->job->phase;
  return (phase == FLI_PHASE_NORMS || phase == FLI_PHASE_UPDATES) && member &&
         !member->is_out && !member->is_counted;
}

/* A round keeps the rate that it began with: that of the job may be over before
 * all members have their plans. */
static uint64_t round_of_rate(const fli_job *job)
{
  if (!job->front || !fli_cohorts_is_apart(job->front))
    return fli_job_round(job);
  return fli_lane_of(job)->of_round;
}

static float rate_of(const fli_job *job)
{
  const fl_job_options *options = &(job->front ? job->front : job)->options;
  const fli_schedule schedule = {
      .kind = options->rate_schedule,
      .warmup = options->rate_warmup,
      .rate = options->learning_rate,
      .factor = options->rate_factor,
      .period = options->rate_period ? options->rate_period : options->rounds,
  };
  return fli_schedule_at(&schedule, round_of_rate(job) - 1);
}

static fl_status write_plan(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  fli_job *job = who->job;
  const fl_job_options *options = &job->options;
  if (!is_asked(who)) return FL_OK;
  fli_plan message = {
      .round = job->round,
      .attempt = job->attempt,
      .slot = who->member,
      .slots = job->n_members,
      .weight_cap = job->weight_cap,
      .epochs = options->epochs,
      .batch_size = options->batch_size,
      .learning_rate = rate_of(job),
      .seed = client_seed(who, fli_job_turn(job)),
      .model_version = job->store.canonical.version,
      .deadline_ms = fli_job_left_ms(job),
      .scale_mode = job->is_public ? FL_SCALE_PUBLIC : FL_SCALE_EXCHANGED,
      .first_active = job->members[who->member].first_active,
      .freeze_plan = job->freezing.controller ? job->freezing.plan.data : NULL,
      .freeze_plan_size = job->freezing.plan.size,
      .freeze_reports = fli_freezing_reports(job),
      .has_cohort = job->front != NULL,
      .demands = options->demands,
      .prox_mu = options->strategy ? options->strategy->prox_mu : 0.0f,
      .slices = job->slices ? job->slices_plan.data : NULL,
      .slices_size = job->slices ? job->slices_plan.size : 0,
  };
  if (job->front) message.cohort = fli_cohort_of(job);
  memcpy(message.model_hash, job->store.hash, sizeof message.model_hash);
  if (options->error_feedback) {
    message.has_counted = 1;
    message.counted_round = who->counted_round;
    message.counted_attempt = who->counted_attempt;
  }
  if (fli_buffered_runs(job)) {
    fli_buffered_plan(job, &job->members[who->member], &message);
    message.seed = client_seed(who, message.round);
  } else if (job->is_public) {
    message.noise_seed = job->noise_seed;
    message.norms = job->norms_wire;
    message.norms_size = (size_t)job->n_norms * 2;
    message.clip = job->clip;
  }
  const fl_status st = fli_controls_plan(job, &message);
  return st == FL_OK ? fli_write_plan(&peer->queue, &message) : st;
}

static fl_status write_scale(fli_peer *peer)
{
  const fli_job *job = peer->participant->job;
  if (!is_asked(peer->participant) || job->phase != FLI_PHASE_UPDATES ||
      job->is_public) {
    return FL_OK;
  }
  const fli_scale_msg message = {
      .round = job->round,
      .attempt = job->attempt,
      .noise_seed = job->noise_seed,
      .norms = job->norms_wire,
      .norms_size = (size_t)job->n_norms * 2,
      .clip = job->clip,
      .deadline_ms = fli_job_left_ms(job),
  };
  return fli_write_scale(&peer->queue, &message);
}

static fl_status write_evaluate(fli_peer *peer)
{
  const fli_job *job = peer->participant->job;
  const fli_member *member = fli_member_of(peer->participant);
  fli_evaluate message = {.round = job->round,
                          .model_version = job->store.canonical.version};
  if (job->phase != FLI_PHASE_EVALUATING || !member || member->has_score) {
    return FL_OK;
  }
  memcpy(message.model_hash, job->store.hash, sizeof message.model_hash);
  return fli_write_evaluate(&peer->queue, &message);
}

static fl_status write_done(fli_peer *peer)
{
  const fli_job *job = peer->participant->job;
  fli_done message = {.rounds = job->is_begun ? job->round : 0,
                      .model_version = job->store.canonical.version};
  memcpy(message.model_hash, job->store.hash, sizeof message.model_hash);
  return fli_write_done(&peer->queue, &message);
}

/* ---- pump ---- */

/* In the order in which a client needs them. */
static const struct {
  uint32_t due;
  fl_status (*write)(fli_peer *peer);
} acts[] = {
    {FLI_DUE_PROBE_MODEL, fli_visits_write_model},
    {FLI_DUE_PROBE, fli_visits_write_probe},
    {FLI_DUE_MODEL, fli_outbox_model},
    {FLI_DUE_PLAN, write_plan},
    {FLI_DUE_SCALE, write_scale},
    {FLI_DUE_EVALUATE, write_evaluate},
    {FLI_DUE_DONE, write_done},
};

static fl_status act(fli_peer *peer)
{
  for (size_t i = 0; i < FLI_COUNT_OF(acts); i++) {
    if (!(peer->due & acts[i].due)) continue;
    const fl_status st = acts[i].write(peer);
    if (st == FL_OK) peer->due &= ~acts[i].due;
    return st;
  }
  return FL_OK;
}

fl_status fli_outbox_pump(fli_peer *peer)
{
  fl_status st = FL_OK;
  while (st == FL_OK && peer->queue.size == 0 && !peer->is_closing &&
         (peer->outgoing.is_active || peer->due != 0)) {
    st = peer->outgoing.is_active ? continue_model(peer) : act(peer);
  }
  fli_peer_touch(peer);
  return st;
}
