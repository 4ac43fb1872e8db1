/* SPDX-License-Identifier: Apache-2.0 */
/* A job from its options to its end: what it is made of, its timers, and what
 * a peer that says HELLO is told. The phases themselves are in round.c and
 * evaluate.c. */
#include "server/server.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "compress/compressor.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/resting.h"
#include "server/rule.h"
#include "server/selector.h"
#include "server/slices.h"

#define FLI_NS_PER_MS UINT64_C(1000000)

int fli_job_is_plain_mean(const fl_job_options *options)
{
  return options->server_learning_rate == 1.0f &&
         options->server_momentum == 0.0f &&
         fli_rule_is_plain(options->strategy);
}

/* ---- making ---- */

static void derive_seeds(fli_job *job)
{
  static const uint8_t none[FL_SEED_BYTES];
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, "libfl job seed", 14);
  fli_hasher_u64(&hasher, job->options.seed);
  fli_hasher_final(&hasher, job->seed);
  if (memcmp(job->codec.rotation_seed, none, sizeof none) == 0) {
    fli_derive(job->codec.rotation_seed, job->seed, "rotation", 0, 0);
  }
}

/* Norms travel in one control message, both ways. */
static fl_status check_norm_count(const fli_job *job)
{
  const uint32_t size = job->server->options.max_control_size;
  /* The numbers in it may grow. */
  const size_t plan = job->freezing.plan.size;
  const size_t other = FLI_MESSAGE_SLACK + plan + (plan > 0 ? 64 : 0);
  const uint64_t most = size > other ? (size - other) / 2 : 0;
  if (job->n_norms <= most) return FL_OK;
  return fli_error(FL_E_LIMIT,
                   "model: got %llu norms, want <= %llu in messages of "
                   "max_control_size %u",
                   (unsigned long long)job->n_norms, (unsigned long long)most,
                   size);
}

static fl_status take_description(fli_job *job, const fl_model *model)
{
  fl_status st = FL_OK;
  size_t size = 0;
  FLI_TRY(fl_model_copy_schema(model, job->schema));
  FLI_TRY(fl_model_copy_description(model, NULL, 0, &size));
  FLI_TRY(fli_bytes_reserve(&job->description, size));
  FLI_TRY(fl_model_copy_description(model, job->description.data, size, &size));
  job->description.size = size;
  job->n_segments = fl_model_segment_count(model);
  job->segments =
      fli_alloc(job->context, job->n_segments, sizeof *job->segments);
  if (!job->segments) {
    return fli_nomem(job->n_segments * sizeof *job->segments);
  }
  job->modules = fli_alloc(job->context, job->n_segments, sizeof *job->modules);
  if (!job->modules) return fli_nomem(job->n_segments * sizeof *job->modules);
  FLI_TRY(fl_model_copy_segments(model, job->segments, job->n_segments));
  FLI_TRY(fl_model_copy_segment_modules(model, job->modules, job->n_segments));
  for (uint32_t s = 0; s < job->n_segments; s++) {
    if (job->modules[s] >= job->n_modules) job->n_modules = job->modules[s] + 1;
  }
  FLI_TRY(fl_compressor_new(&job->compressor, job->context, &job->codec,
                            job->segments, job->n_segments));
  fli_compressor_lend_table(job->compressor, &job->codec);
  job->n_norms = fl_compressor_norm_count(job->compressor);
  job->clip = fl_compressor_clip(job->compressor);
out:
  return st;
}

fl_status fli_job_set_weights(fli_job *job, uint64_t version,
                              const float *weights)
{
  const size_t n = (size_t)job->store.canonical.n;
  uint8_t *bytes = fli_alloc(job->context, n, sizeof(float));
  if (!bytes) return fli_nomem(n * sizeof(float));
  for (size_t i = 0; i < n; i++)
    fli_store_f32(bytes + 4 * i, weights[i]);
  const fl_status st =
      fli_store_set(&job->store, version, bytes, n * sizeof(float));
  fli_free(job->context, bytes, n * sizeof(float));
  return st;
}

static fl_status take_weights(fli_job *job, const fl_model *model)
{
  const uint64_t n = fl_model_weight_count(model);
  const int is_lossy = job->codec.codec != FL_CODEC_F32;
  const int is_sum = job->codec.codec == FL_CODEC_THC &&
                     job->options.buffer == 0 &&
                     fli_job_is_plain_mean(&job->options);
  float *weights = NULL;
  fl_status st = FL_OK;
  FLI_TRY(
      fli_store_init(&job->store, job->context, n, job->options.steps_kept));
  weights = fli_alloc(job->context, (size_t)n, sizeof *weights);
  if (!weights) return fli_nomem((size_t)n * sizeof *weights);
  FLI_TRY(fl_model_copy_weights(model, weights, n));
  FLI_TRY(fli_job_set_weights(job, 0, weights));
  if (job->options.server_momentum > 0.0f) {
    job->momentum = fli_alloc(job->context, (size_t)n, sizeof(float));
    if (!job->momentum) FLI_TRY(fli_nomem((size_t)n * sizeof(float)));
  }
  if (is_lossy && !is_sum) {
    job->residual = fli_alloc(job->context, (size_t)n, sizeof(float));
    if (!job->residual) FLI_TRY(fli_nomem((size_t)n * sizeof(float)));
  }
out:
  fli_free(job->context, weights, (size_t)n * sizeof *weights);
  return st;
}

fl_status fli_job_new(fli_job **out, fl_server *server, uint32_t index,
                      const fl_job_options *options, const fl_model *model)
{
  fl_status st = FL_OK;
  fli_job *job = fli_alloc(server->context, 1, sizeof *job);
  if (!job) return fli_nomem(sizeof *job);
  job->server = server;
  job->context = server->context;
  job->index = index;
  job->options = *options;
  job->codec = *options->codec;
  snprintf(job->name, sizeof job->name, "%s", options->name);
  job->options.name = job->name;
  job->options.codec = &job->codec;
  job->options.cohorts = NULL;
  fli_bytes_init(&job->description, job->context);
  fli_bytes_init(&job->slices_plan, job->context);
  fli_bytes_init(&job->slices_saved, job->context);
  fli_bytes_init(&job->freezing.plan, job->context);
  job->phase = FLI_PHASE_WAITING;
  job->round = 1;
  job->waiting_ns = server->now_ns;
  job->deadline_ns = UINT64_MAX;
  derive_seeds(job);
  if (job->options.buffer > 0) job->options.weighting = FL_WEIGHT_UNIFORM;
  FLI_TRY(fli_rule_take(job, options->strategy));
  FLI_TRY(fli_selector_init(job, options->selection));
  FLI_TRY(take_description(job, model));
  FLI_TRY(take_weights(job, model));
  FLI_TRY(fli_rule_make(job));
  FLI_TRY(fli_buffered_init(job));
  FLI_TRY(fli_freezing_init(job, options->freeze));
  FLI_TRY(check_norm_count(job));
  FLI_TRY(fli_cohorts_init(job, options->cohorts));
  *out = job;
  job = NULL;
out:
  fli_job_free(job);
  return st;
}

void fli_job_free(fli_job *job)
{
  if (!job) return;
  const size_t bytes = (size_t)job->store.canonical.n * sizeof(float);
  fli_cohorts_free(job);
  fli_round_clear(job);
  job->server->n_participants -= job->registry.count;
  fli_registry_free(&job->registry, job->context);
  fli_free(job->context, job->momentum, bytes);
  fli_free(job->context, job->residual, bytes);
  fli_free(job->context, job->public_norms,
           (size_t)job->n_norms * sizeof *job->public_norms);
  fli_store_free(&job->store);
  fl_strategy_free(job->strategy);
  fli_selector_free(job);
  fli_buffered_free(job);
  fli_controls_change(job);
  fli_freezing_free(job);
  fli_slices_free(job);
  fl_compressor_free(job->compressor);
  fli_free(job->context, job->segments,
           job->n_segments * sizeof *job->segments);
  fli_free(job->context, job->modules, job->n_segments * sizeof *job->modules);
  fli_bytes_free(&job->description);
  fli_free(job->context, job, sizeof *job);
}

/* ---- time ---- */

uint64_t fli_later(uint64_t a_ns, uint64_t b_ns)
{
  return a_ns < UINT64_MAX - b_ns ? a_ns + b_ns : UINT64_MAX;
}

uint64_t fli_job_after(const fli_job *job, uint64_t delay_ns)
{
  return fli_later(job->server->now_ns, delay_ns);
}

uint64_t fli_job_left_ms(const fli_job *job)
{
  const uint64_t now = job->server->now_ns;
  return job->deadline_ns > now ? (job->deadline_ns - now) / FLI_NS_PER_MS : 0;
}

static uint64_t grace_end(const fli_job *job, uint64_t since_ns)
{
  return fli_later(since_ns, job->options.return_grace_ns);
}

static void expire_grace(fli_job *job)
{
  fli_participant *who = job->registry.grace_first;
  while (who && grace_end(job, who->lost_ns) <= job->server->now_ns) {
    fli_member *member = fli_member_of(who);
    fli_registry_end_grace(who);
    if (member) fli_member_lose(who->job, member, FL_REJECT_VANISHED, 0);
    fli_visits_lose(who);
    who = job->registry.grace_first;
  }
}

static int progress(fli_job *job)
{
  if (job->cohorts) return fli_cohorts_progress(job);
  return job->phase == FLI_PHASE_EVALUATING ? fli_evaluate_progress(job)
                                            : fli_round_progress(job);
}

void fli_job_advance(fli_job *job)
{
  int has_changed;
  if (job->front) job = job->front;
  do {
    expire_grace(job);
    fli_registry_rest(job);
    has_changed = progress(job);
    if (has_changed) fli_journal_step(job->server);
    if (has_changed) job->registry.is_sweep_due = 1;
  } while (has_changed);
  fli_forget_sweep(job);
}

static void earlier(uint64_t *deadline, uint64_t other)
{
  if (other < *deadline) *deadline = other;
}

uint64_t fli_job_next_timeout(const fli_job *job)
{
  const uint64_t now = job->server->now_ns;
  uint64_t next = UINT64_MAX;
  if (job->phase == FLI_PHASE_FINISHED) return next;
  if (job->registry.grace_first) {
    earlier(&next, grace_end(job, job->registry.grace_first->lost_ns));
  }
  if (job->phase != FLI_PHASE_WAITING) {
    if (job->cohorts) earlier(&next, fli_cohorts_next_timeout(job));
    earlier(&next, job->deadline_ns);
    return next;
  }
  if (job->hold_ns > now) earlier(&next, job->hold_ns);
  if (job->registry.grace_first && grace_end(job, job->waiting_ns) > now) {
    earlier(&next, grace_end(job, job->waiting_ns));
  }
  return next;
}

void fli_job_rebase(fli_job *job, uint64_t delta_ns)
{
  job->waiting_ns += delta_ns;
  if (job->hold_ns > 0) job->hold_ns = fli_later(job->hold_ns, delta_ns);
  job->deadline_ns = fli_later(job->deadline_ns, delta_ns);
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    if (job->cohorts->leaves[i])
      fli_job_rebase(job->cohorts->leaves[i], delta_ns);
  }
  fli_registry_rebase(job, delta_ns);
}

/* ---- telling peers ---- */

/* An ACK may have been lost: say again what was counted last. */
static fl_status repeat_ack(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  return fli_peer_ack(peer, who->counted_round, who->counted_attempt,
                      FL_REJECT_NONE, "%s", "");
}

uint64_t fli_job_round(const fli_job *job)
{
  return job->front ? job->front->round : job->round;
}

uint64_t fli_job_turn(const fli_job *job)
{
  return job->front && fli_cohorts_is_apart(job->front)
             ? job->store.canonical.version + 1
             : job->round;
}

/* Where cohorts go on apart, which round was a client's last is not known. */
static int is_last_finished(const fli_job *job, uint64_t round)
{
  if (job->front && fli_cohorts_is_apart(job->front)) return round > 0;
  const uint64_t now = fli_job_round(job);
  const uint64_t most = 1 + (job->buffered ? job->options.buffer_staleness : 0);
  return round > 0 && round <= now && now - round <= most;
}

fl_status fli_job_resync(fli_job *job, fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  const fli_member *member = fli_member_of(who);
  const int is_asked = member && !member->is_out && !member->is_counted;
  if (job->phase == FLI_PHASE_FINISHED) {
    fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_DONE);
    return FL_OK;
  }
  if (fli_visits_resync(peer)) return FL_OK;
  if (job->phase == FLI_PHASE_EVALUATING && is_asked && !member->has_score) {
    fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_EVALUATE);
    return FL_OK;
  }
  if (job->phase == FLI_PHASE_NORMS && is_asked) {
    fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_PLAN);
    return FL_OK;
  }
  if (fli_buffered_runs(job) && is_asked) {
    fli_buffered_resync(job, peer, fli_member_of(who));
    return FL_OK;
  }
  if (job->phase == FLI_PHASE_UPDATES && is_asked) {
    fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_PLAN | FLI_DUE_SCALE);
    return FL_OK;
  }
  const fl_status st =
      is_last_finished(job, who->counted_round) ? repeat_ack(peer) : FL_OK;
  return st == FL_OK ? fli_backoff_tell(peer) : st;
}

void fli_job_finish(fli_job *job)
{
  fl_server_event event = fli_event_of(job, FL_SERVER_JOB_FINISHED);
  event.round = job->is_begun ? job->round : 0;
  event.model_version = fli_cohorts_first(job)->store.canonical.version;
  if (job->cohorts && job->cohorts->is_ending == FLI_NUMBERS_USED)
    event.reason = FL_REJECT_LIMIT;
  if (job->is_stopping) event.reason = FL_REJECT_STOPPED;
  fli_round_clear(job);
  fli_buffered_forget(job);
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    fli_job *leaf = job->cohorts->leaves[i];
    if (!leaf) continue;
    leaf->phase = FLI_PHASE_FINISHED;
    leaf->round = job->round;
    leaf->is_begun = job->is_begun;
  }
  job->phase = FLI_PHASE_FINISHED;
  job->deadline_ns = UINT64_MAX;
  for (size_t i = 0; i < job->registry.capacity; i++) {
    const fli_participant *who = job->registry.slots[i];
    if (who && !fli_is_resting(who) && who->peer) {
      fli_peer_add_due(who->peer, FLI_DUE_MODEL | FLI_DUE_DONE);
    }
  }
  fli_events_add(&job->server->events, &event, "", "job %s: finished",
                 job->name);
}
