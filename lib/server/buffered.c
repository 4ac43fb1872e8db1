/* SPDX-License-Identifier: Apache-2.0 */
/* FedBuff (Nguyen et al., AISTATS 2022): a round ends with `buffer` updates,
 * and whoever is still at work goes on with its task. Its update counts in the
 * round in which it comes, by its age s in versions with lane weight
 * round(16 / sqrt(1 + s)); the step is 1/K sum (weight / 16) D_k.
 *
 * Round machine, deadlines and members are those of other jobs. What differs: a
 * member has a task, whose round and attempt may be older; members that were
 * not counted are carried into the next round; and norms are announced for an
 * epoch of at least ten rounds, each with a sum of its own while updates of it
 * come. The first round exchanges norms, as every job does that announces them.
 */
#include "server/buffered.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "compress/partial.h"
#include "strategy/strategy.h"

enum { FULL_WEIGHT = 16 };

/* ---- options ---- */

static fl_status conflict(const char *what)
{
  return fli_error(FL_E_CONFLICT, "buffer: %s", what);
}

static fl_status check_codec(const fl_job_options *o)
{
  if (o->codec->codec != FL_CODEC_THC || o->codec->thc_mode == FL_THC_DITHER)
    return conflict("want codec THC in mode UNIFORM or TABLE");
  if (o->scale_mode != FL_SCALE_PUBLIC)
    return conflict("want scale_mode PUBLIC");
  if (o->weight_cap != 0)
    return conflict("updates count the same: want weight_cap 0");
  return FL_OK;
}

fl_status fli_buffered_check(const fl_job_options *o)
{
  if (o->buffer == 0) return FL_OK;
  if (o->buffer > FL_MAX_SLOTS / FULL_WEIGHT)
    return fli_error(FL_E_OPTIONS, "buffer: got %u, want <= %d", o->buffer,
                     FL_MAX_SLOTS / FULL_WEIGHT);
  if (o->buffer_staleness > FLI_STALENESS_MAX)
    return fli_error(FL_E_OPTIONS, "buffer_staleness: got %u, want <= %d",
                     o->buffer_staleness, FLI_STALENESS_MAX);
  if (o->participants > 0 && o->participants < o->buffer)
    return conflict("participants, which train at once: want as many or more");
  if (o->min_participants > o->buffer)
    return conflict("min_participants: want no more");
  if (o->cohorts) return conflict("together with cohorts");
  if (o->freeze) return conflict("together with freezing");
  if (o->error_feedback) return conflict("together with error_feedback");
  if (o->evaluate_every > 0) return conflict("together with evaluate_every");
  if (o->selection && o->selection->struct_size > 4 &&
      o->selection->rule != FL_SELECT_RANDOM)
    return conflict("together with a selection");
  if (o->strategy &&
      (fl_strategy_needs(o->strategy) & FL_STRATEGY_NEEDS_UPDATES))
    return conflict("together with a strategy that needs updates separately");
  return check_codec(o);
}

fl_status fli_buffered_init(fli_job *job)
{
  if (job->options.buffer == 0) return FL_OK;
  job->buffered = fli_alloc(job->context, 1, sizeof *job->buffered);
  if (!job->buffered) return fli_nomem(sizeof *job->buffered);
  job->options.weighting = FL_WEIGHT_UNIFORM;
  job->buffered->clamped = fli_alloc(job->context, (size_t)job->n_norms,
                                     sizeof *job->buffered->clamped);
  if (!job->buffered->clamped)
    return fli_nomem((size_t)job->n_norms * sizeof(uint64_t));
  return FL_OK;
}

/* ---- epochs ---- */

static void free_epoch(const fli_job *job, fli_epoch *epoch)
{
  const size_t n = (size_t)job->n_norms;
  fl_partial_free(epoch->partial);
  fli_free(job->context, epoch->norms, n * sizeof *epoch->norms);
  fli_free(job->context, epoch->norms_wire, n * 2);
  memset(epoch, 0, sizeof *epoch);
}

void fli_buffered_free(fli_job *job)
{
  fli_buffered *self = job->buffered;
  if (!self) return;
  for (uint32_t i = 0; i < self->n_epochs; i++)
    free_epoch(job, &self->epochs[i]);
  fli_free(job->context, self->clamped,
           (size_t)job->n_norms * sizeof *self->clamped);
  fli_free(job->context, self->carried, self->capacity * sizeof *self->carried);
  fli_free(job->context, self, sizeof *self);
  job->buffered = NULL;
}

static fl_scale scale_of(const fli_job *job, const fli_epoch *epoch)
{
  fl_scale scale;
  (void)fl_scale_init(&scale, sizeof scale); /* fails on its size only */
  scale.slots = FL_MAX_SLOTS;
  scale.round = epoch->round;
  memcpy(scale.noise_seed, epoch->noise_seed, sizeof scale.noise_seed);
  scale.norms = epoch->norms;
  scale.n_norms = job->n_norms;
  scale.clip = epoch->clip;
  scale.is_public = 1;
  return scale;
}

fl_status fli_buffered_open(fli_job *job)
{
  fli_buffered *self = job->buffered;
  for (uint32_t i = 0; i < self->n_epochs; i++) {
    fli_epoch *epoch = &self->epochs[i];
    if (epoch->partial) continue;
    const fl_scale scale = scale_of(job, epoch);
    const fl_status st =
        fl_partial_new(&epoch->partial, job->compressor, &scale);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

fl_status fli_buffered_add_epoch(fli_job *job, uint64_t round,
                                 const float *norms, float clip)
{
  fli_buffered *self = job->buffered;
  const size_t n = (size_t)job->n_norms;
  fli_epoch epoch = {.round = round, .clip = clip};
  epoch.norms = fli_alloc(job->context, n, sizeof *epoch.norms);
  epoch.norms_wire = fli_alloc(job->context, n, 2);
  if (!epoch.norms || !epoch.norms_wire || self->n_epochs == FLI_EPOCHS_MAX) {
    free_epoch(job, &epoch);
    return fli_nomem(n * sizeof(float));
  }
  memcpy(epoch.norms, norms, n * sizeof *norms);
  fli_norms_to_bf16(epoch.norms_wire, norms, job->n_norms);
  fli_derive(epoch.noise_seed, job->seed, "buffer noise", round, 0);
  self->epochs[self->n_epochs++] = epoch;
  return FL_OK;
}

static fli_epoch *find_epoch(const fli_job *job, uint64_t round)
{
  for (uint32_t i = 0; i < job->buffered->n_epochs; i++) {
    if (job->buffered->epochs[i].round == round)
      return &job->buffered->epochs[i];
  }
  return NULL;
}

static fli_epoch *last_epoch(const fli_job *job)
{
  fli_buffered *self = job->buffered;
  return self->n_epochs > 0 ? &self->epochs[self->n_epochs - 1] : NULL;
}

static int is_in_use(const fli_buffered *self, uint64_t round)
{
  for (uint32_t i = 0; i < self->n_carried; i++) {
    if (self->carried[i].task.epoch == round) return 1;
  }
  return 0;
}

/* Epochs of which no update can come any more. */
static void drop_epochs(fli_job *job)
{
  fli_buffered *self = job->buffered;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < self->n_epochs; i++) {
    if (i + 1 < self->n_epochs && !is_in_use(self, self->epochs[i].round)) {
      free_epoch(job, &self->epochs[i]);
    } else {
      self->epochs[kept++] = self->epochs[i];
    }
  }
  self->n_epochs = kept;
}

/* A scale that is old enough gives way to what its updates had to clamp. */
static fl_status renew_epoch(fli_job *job)
{
  fli_buffered *self = job->buffered;
  const fli_epoch *last = last_epoch(job);
  if (last && job->round < last->round + FLI_EPOCH_ROUNDS) return FL_OK;
  if (last && self->n_seen > 0) {
    job->clip = last->clip;
    fli_norms_adapt(job);
  }
  fli_clip_choose(job);
  const fl_status st =
      fli_buffered_add_epoch(job, job->round, job->public_norms, job->clip);
  if (st != FL_OK) return st;
  memset(self->clamped, 0, (size_t)job->n_norms * sizeof *self->clamped);
  self->n_seen = 0;
  return FL_OK;
}

/* ---- members ---- */

int fli_buffered_runs(const fli_job *job)
{
  return job->buffered && job->is_public;
}

static uint64_t age_of(const fli_job *job, const fli_task *task)
{
  return job->store.canonical.version - task->version;
}

static void give_task(fli_job *job, fli_member *member)
{
  fli_buffered *self = job->buffered;
  member->task = (fli_task){.round = job->round,
                            .attempt = job->attempt,
                            .slot = self->next_slot,
                            .version = job->store.canonical.version,
                            .epoch = last_epoch(job)->round};
  self->next_slot = (self->next_slot + 1) % FL_MAX_SLOTS;
}

/* Those who are there, or may come back soon, with tasks that are not too old.
 */
static void keep_carried(fli_job *job)
{
  fli_buffered *self = job->buffered;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < self->n_carried; i++) {
    const fli_carried *one = &self->carried[i];
    const fli_participant *who = one->participant;
    if (!(who->peer || who->is_in_grace) ||
        age_of(job, &one->task) > job->options.buffer_staleness)
      continue;
    self->carried[kept++] = *one;
  }
  self->n_carried = kept;
}

/* Of candidates, those who have no task; both lists are by id. */
static uint32_t drop_busy(const fli_job *job, fli_participant **candidates,
                          uint32_t n)
{
  const fli_buffered *self = job->buffered;
  uint32_t kept = 0, c = 0;
  for (uint32_t i = 0; i < n; i++) {
    while (c < self->n_carried &&
           strcmp(self->carried[c].participant->id, candidates[i]->id) < 0)
      c++;
    if (c < self->n_carried && self->carried[c].participant == candidates[i])
      continue;
    candidates[kept++] = candidates[i];
  }
  return kept;
}

/* The next by id of both lists. */
static void merge_members(fli_job *job, fli_participant *const *fresh,
                          uint32_t n_fresh)
{
  const fli_buffered *self = job->buffered;
  uint32_t f = 0, c = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    fli_member *member = &job->members[i];
    const int is_fresh =
        c == self->n_carried ||
        (f < n_fresh &&
         strcmp(fresh[f]->id, self->carried[c].participant->id) < 0);
    if (is_fresh) {
      member->participant = fresh[f++];
      member->first_active = fli_parts_start(job, member->participant->depth);
      give_task(job, member);
    } else {
      member->participant = self->carried[c].participant;
      member->first_active = self->carried[c].first_active;
      member->task = self->carried[c++].task;
    }
    member->participant->member = i;
  }
}

static fl_status fill_members(fli_job *job)
{
  fl_status st = FL_OK;
  fli_participant **fresh = NULL;
  uint32_t n_all = 0;
  fli_buffered *self = job->buffered;
  const uint32_t limit = fli_select_size(job);
  FLI_TRY(fli_registry_sorted(job, FLI_CAP_TRAIN, &fresh, &n_all));
  const uint32_t n = drop_busy(job, fresh, n_all);
  const uint32_t room = limit > self->n_carried ? limit - self->n_carried : 0;
  const uint32_t k = room < n ? room : n;
  const uint32_t n_members = k + self->n_carried;
  FLI_TRY(fli_select_draw(job, fresh, n, k));
  job->members = fli_alloc(job->context, n_members, sizeof *job->members);
  if (!job->members) FLI_TRY(fli_nomem(n_members * sizeof *job->members));
  job->n_members = n_members;
  merge_members(job, fresh, k);
out:
  fli_free(job->context, fresh, n_all * sizeof *fresh);
  return st;
}

fl_status fli_buffered_begin(fli_job *job)
{
  fl_status st = FL_OK;
  keep_carried(job);
  FLI_TRY(renew_epoch(job));
  drop_epochs(job);
  FLI_TRY(fli_buffered_open(job));
  FLI_TRY(fill_members(job));
  job->buffered->n_carried = 0;
  job->weight_cap = 0;
  job->phase = FLI_PHASE_UPDATES;
  fli_round_count_open(job);
out:
  return st;
}

void fli_buffered_tell(fli_job *job)
{
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    fli_peer *peer = member->participant->peer;
    if (peer && member->task.round == job->round &&
        member->task.attempt == job->attempt)
      fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_PLAN);
  }
}

/* ---- ends ---- */

void fli_buffered_carry(fli_job *job)
{
  fli_buffered *self = job->buffered;
  void *items = NULL;
  size_t capacity = 0;
  if (!fli_buffered_runs(job)) return;
  items = self->carried;
  capacity = self->capacity;
  self->n_carried = 0;
  /* Without memory they begin anew. */
  if (fli_grow(job->context, &items, &capacity, job->n_members,
               sizeof *self->carried) != FL_OK)
    return;
  self->carried = items;
  self->capacity = (uint32_t)capacity;
  for (uint32_t i = 0; i < job->n_members; i++) {
    fli_member *member = &job->members[i];
    const fli_peer *peer = member->participant->peer;
    if (member->is_counted || member->lost != FL_REJECT_NONE) continue;
    if (peer && (peer->due & FLI_DUE_PLAN)) continue; /* it has not begun */
    member->is_carried =
        age_of(job, &member->task) <= job->options.buffer_staleness;
    if (!member->is_carried) continue;
    self->carried[self->n_carried++] =
        (fli_carried){.participant = member->participant,
                      .task = member->task,
                      .first_active = member->first_active};
  }
}

void fli_buffered_clear(fli_job *job)
{
  fli_buffered *self = job->buffered;
  for (uint32_t i = 0; self && i < self->n_epochs; i++) {
    fl_partial_free(self->epochs[i].partial);
    self->epochs[i].partial = NULL;
  }
}

void fli_buffered_forget(fli_job *job)
{
  if (job->buffered) job->buffered->n_carried = 0;
}

void fli_buffered_drop(const fli_participant *who)
{
  fli_buffered *self = who->home->buffered;
  uint32_t kept = 0;
  if (!self) return;
  for (uint32_t i = 0; i < self->n_carried; i++) {
    if (self->carried[i].participant != who)
      self->carried[kept++] = self->carried[i];
  }
  self->n_carried = kept;
}

/* ---- updates ---- */

fl_partial *fli_round_partial(const fli_job *job, const fli_member *member)
{
  if (!fli_buffered_runs(job)) return job->partial;
  return find_epoch(job, member->task.epoch)->partial;
}

static uint32_t weight_of(uint64_t age)
{
  return (uint32_t)floor((double)FULL_WEIGHT / sqrt(1.0 + (double)age) + 0.5);
}

fl_status fli_buffered_add(fli_job *job, const fli_member *member,
                           const fli_bytes *data)
{
  const uint32_t weight = weight_of(age_of(job, &member->task));
  const uint8_t *const bytes = data->data;
  fl_status result = FL_OK;
  const fl_status st = fl_partial_add_batch(
      fli_round_partial(job, member), &bytes, &data->size, &weight, 1, &result);
  if (st != FL_OK || result != FL_OK) return st == FL_OK ? result : st;
  if (member->task.epoch == last_epoch(job)->round) job->buffered->n_seen++;
  return FL_OK;
}

/* Add what the updates of one epoch make of a segment. */
static void add_segment(const fli_job *job, const fli_epoch *epoch,
                        const float *decoded, float *mean, uint32_t segment)
{
  const double weight = (double)epoch->partial->tallies[segment].lane_weight;
  const double factor = weight / ((double)FULL_WEIGHT * (double)job->n_counted);
  for (uint64_t i = 0; i < job->segments[segment]; i++)
    mean[i] += (float)(factor * (double)decoded[i]);
}

fl_status fli_round_mean(const fli_job *job, float *mean)
{
  fl_status st = FL_OK;
  const uint64_t n = job->store.canonical.n;
  if (!fli_buffered_runs(job)) return fl_partial_decode(job->partial, mean, n);
  float *decoded = fli_alloc(job->context, (size_t)n, sizeof *decoded);
  if (!decoded) return fli_nomem((size_t)n * sizeof *decoded);
  memset(mean, 0, (size_t)n * sizeof *mean);
  for (uint32_t i = 0; i < job->buffered->n_epochs; i++) {
    const fli_epoch *epoch = &job->buffered->epochs[i];
    uint64_t at = 0;
    if (fl_partial_count(epoch->partial) == 0) continue;
    FLI_TRY(fl_partial_decode(epoch->partial, decoded, n));
    for (uint32_t s = 0; s < job->n_segments; s++) {
      add_segment(job, epoch, decoded + at, mean + at, s);
      at += job->segments[s];
    }
  }
out:
  fli_free(job->context, decoded, (size_t)n * sizeof *decoded);
  return st;
}

uint32_t fli_buffered_count(const fli_job *job, uint32_t segment)
{
  uint32_t count = 0;
  for (uint32_t i = 0; i < job->buffered->n_epochs; i++) {
    const fl_partial *partial = job->buffered->epochs[i].partial;
    if (partial) count += partial->tallies[segment].count;
  }
  return count;
}

uint64_t fli_buffered_samples(const fli_job *job)
{
  uint64_t samples = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    if (job->members[i].is_counted) samples += job->members[i].samples;
  }
  return samples;
}

/* ---- telling ---- */

/* Hash of a version that is kept; NULL = it is not. */
static const uint8_t *hash_of(const fli_store *store, uint64_t version)
{
  if (version == store->canonical.version) return store->hash;
  for (size_t i = 0; i < store->n_steps; i++) {
    if (store->steps[i].base_version == version)
      return store->steps[i].base_hash;
  }
  return NULL;
}

void fli_buffered_resync(fli_job *job, fli_peer *peer, fli_member *member)
{
  const fli_participant *who = peer->participant;
  const int is_current = member->task.version == job->store.canonical.version;
  const int is_held = who->has_model &&
                      who->model_version == member->task.version &&
                      hash_of(&job->store, member->task.version) != NULL;
  if (!is_current && is_held) {
    fli_peer_add_due(peer, FLI_DUE_PLAN);
    return;
  }
  /* What it trained from is gone. */
  if (!is_current) give_task(job, member);
  fli_peer_add_due(peer, FLI_DUE_MODEL | FLI_DUE_PLAN);
}

void fli_buffered_plan(const fli_job *job, const fli_member *member,
                       fli_plan *plan)
{
  const fli_task *task = &member->task;
  const fli_epoch *epoch = find_epoch(job, task->epoch);
  const uint8_t *hash = hash_of(&job->store, task->version);
  plan->round = task->round;
  plan->attempt = task->attempt;
  plan->slot = task->slot;
  plan->slots = FL_MAX_SLOTS;
  plan->model_version = task->version;
  plan->scale_round = (uint32_t)epoch->round; /* rounds have 32 bits */
  plan->noise_seed = epoch->noise_seed;
  plan->norms = epoch->norms_wire;
  plan->norms_size = (size_t)job->n_norms * 2;
  plan->clip = epoch->clip;
  if (hash) memcpy(plan->model_hash, hash, sizeof plan->model_hash);
}
