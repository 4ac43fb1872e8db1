/* SPDX-License-Identifier: Apache-2.0 */
/* From a round's sum to the next version of the model.
 *
 * Plain mean with THC: the integer sum itself is the step that everybody
 * applies. Otherwise m = beta m + mean (FedAvgM: Hsu, Qi, Brown 2019; beta 0
 * is FedAvg with a server learning rate) and
 *   f32:  w += rate * m, and the model travels as a full copy, unless some
 *         segment is idle;
 *   else: rate * m + residual is encoded as the only update of a round of its
 *         own; everybody applies what it decodes to, and the difference is the
 *         next residual.
 * A strategy makes the step in its own way (rule.c); it travels the same ways.
 * Segments that nobody trained (idle ones) are in no step: their weights stay
 * to the last bit. Their momentum and residual wait, but those of frozen ones
 * are dropped: who comes back from the ice starts at rest, as an optimiser's
 * state does.
 * All or nothing: until the new version is there, the job is as it was. A step
 * that leaves float32 is refused where it would be applied (the store). */
#include "server/server.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "server/buffered.h"
#include "server/rule.h"

/* Vectors of one step, each n long. */
typedef struct fli_step_work {
  float *momentum; /* the next one */
  float *step;     /* what shall be added to the model */
  float *decoded;  /* what will be */
  uint8_t *mask;   /* of the segments that are not idle */
  int has_idle;
  double square;       /* |mean|^2, where somebody wants it */
  fli_pending pending; /* of a strategy */
} fli_step_work;

static void work_free(const fli_job *job, fli_step_work *work)
{
  const size_t bytes = (size_t)job->store.canonical.n * sizeof(float);
  fli_free(job->context, work->momentum, bytes);
  fli_free(job->context, work->step, bytes);
  fli_free(job->context, work->decoded, bytes);
  fli_free(job->context, work->mask, job->n_segments);
  if (job->strategy) fli_strategy_drop(job->strategy, &work->pending);
}

/* On failure work_free takes what there is. */
static fl_status work_alloc(const fli_job *job, fli_step_work *work)
{
  const size_t n = (size_t)job->store.canonical.n;
  work->momentum = fli_alloc(job->context, n, sizeof(float));
  work->step = fli_alloc(job->context, n, sizeof(float));
  work->decoded = fli_alloc(job->context, n, sizeof(float));
  work->mask = fli_alloc(job->context, job->n_segments, 1);
  if (!work->momentum || !work->step || !work->decoded || !work->mask)
    return fli_nomem(n * sizeof(float));
  for (uint32_t s = 0; s < job->n_segments; s++) {
    work->mask[s] = !fli_parts_is_idle(job, s);
    work->has_idle |= !work->mask[s];
  }
  return FL_OK;
}

fl_status fli_sum_bytes(const fl_partial *partial, fli_bytes *out)
{
  fl_status st = FL_OK;
  size_t size = 0;
  FLI_TRY(fl_partial_copy_sum(partial, NULL, 0, &size));
  FLI_TRY(fli_bytes_reserve(out, size));
  FLI_TRY(fl_partial_copy_sum(partial, out->data, size, &size));
  out->size = size;
out:
  return st;
}

/* Write the record, apply it, keep it. */
static fl_status publish(fli_job *job, const fl_scale *scale,
                         const fli_bytes *payload)
{
  fl_status st = FL_OK;
  fli_blob *record = fli_blob_new(job->context);
  if (!record) return fli_nomem(sizeof *record);
  FLI_TRY(fli_step_write(&record->bytes, job->store.canonical.version, 1.0f,
                         scale, payload->data, payload->size));
  FLI_TRY(fli_store_step(&job->store, job->compressor, record));
  return FL_OK;
out:
  fli_blob_unref(record);
  return st;
}

static fl_status step_by_sum(fli_job *job)
{
  const fl_scale scale = fli_round_scale(job);
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_bytes_init(&payload, job->context);
  FLI_TRY(fli_sum_bytes(job->partial, &payload));
  FLI_TRY(publish(job, &scale, &payload));
  if (fli_clip_is_learning(job)) {
    /* The store leaves the version before in its scratch. */
    const fli_canonical *model = &job->store.canonical;
    fli_clip_learn(job,
                   fli_clip_square(model->weights, model->scratch, model->n));
  }
out:
  fli_bytes_free(&payload);
  return st;
}

/* Encode work->step as the only slot of a round of its own, publish it, and
 * leave what it decodes to in work->decoded. */
static fl_status publish_encoded(fli_job *job, fli_step_work *work)
{
  const uint64_t n = job->store.canonical.n;
  const size_t norm_bytes = (size_t)job->n_norms * sizeof(float);
  fl_status st = FL_OK;
  fl_scale scale;
  fl_encode_options options;
  fli_bytes payload;
  size_t size = (size_t)fl_compressor_max_update_size(job->compressor);
  float *norms = fli_alloc(job->context, (size_t)job->n_norms, sizeof *norms);
  if (!norms) return fli_nomem(norm_bytes);
  fli_bytes_init(&payload, job->context);
  FLI_TRY(fl_scale_init(&scale, sizeof scale));
  FLI_TRY(fl_encode_options_init(&options, sizeof options));
  if (work->has_idle) {
    options.segments = work->mask;
    options.n_segments = job->n_segments;
  }
  scale.slots = 1;
  scale.round = job->round;
  fli_derive(scale.noise_seed, job->seed, "server step", job->round, 0);
  FLI_TRY(fl_compressor_measure(job->compressor, &scale, 1, work->step, n,
                                norms, job->n_norms));
  scale.norms = norms;
  scale.n_norms = job->n_norms;
  scale.clip = fli_clip_of_step(job);
  FLI_TRY(fli_bytes_reserve(&payload, size));
  FLI_TRY(fl_compressor_encode(job->compressor, &scale, &options, work->step, n,
                               payload.data, size, &payload.size, NULL));
  FLI_TRY(fl_compressor_decode(job->compressor, &scale, payload.data,
                               payload.size, work->decoded, n));
  FLI_TRY(publish(job, &scale, &payload));
out:
  fli_bytes_free(&payload);
  fli_free(job->context, norms, norm_bytes);
  return st;
}

/* One segment of vectors: coordinates [at, end). */
typedef struct fli_run {
  uint64_t at, end;
  uint32_t segment;
} fli_run;

static int next_run(const fli_job *job, fli_run *run)
{
  run->segment = run->end > 0 ? run->segment + 1 : 0;
  if (run->segment >= job->n_segments) return 0;
  run->at = run->end;
  run->end += job->segments[run->segment];
  return 1;
}

static int is_frozen(const fli_job *job, uint32_t segment)
{
  return job->modules[segment] < job->first_active;
}

static void add_residual(const fli_job *job, fli_step_work *work)
{
  fli_run run = {0};
  if (!job->residual) return;
  while (next_run(job, &run)) {
    for (uint64_t i = run.at; work->mask[run.segment] && i < run.end; i++)
      work->step[i] += job->residual[i];
  }
}

/* What was lost in encoding is sent with the next step. */
static void keep_residual(fli_job *job, const fli_step_work *work)
{
  fli_run run = {0};
  if (!job->residual) return;
  while (next_run(job, &run)) {
    float *residual = job->residual;
    if (work->mask[run.segment]) {
      for (uint64_t i = run.at; i < run.end; i++)
        residual[i] = work->step[i] - work->decoded[i];
    } else if (is_frozen(job, run.segment)) {
      memset(residual + run.at, 0, (size_t)(run.end - run.at) * sizeof(float));
    }
  }
}

static fl_status step_by_copy(fli_job *job, fli_step_work *work)
{
  const fli_canonical *model = &job->store.canonical;
  for (uint64_t i = 0; i < model->n; i++) {
    work->decoded[i] = model->weights[i] + work->step[i];
  }
  return fli_job_set_weights(job, model->version + 1, work->decoded);
}

static fl_status step_by_encoding(fli_job *job, fli_step_work *work)
{
  add_residual(job, work);
  const fl_status st = publish_encoded(job, work);
  if (st == FL_OK) keep_residual(job, work);
  return st;
}

static void prepare_run(const fli_job *job, fli_step_work *work,
                        const fli_run *run)
{
  const float beta = job->options.server_momentum;
  const float rate = job->options.server_learning_rate;
  for (uint64_t i = run->at; i < run->end; i++) {
    if (job->momentum) {
      const float decayed = beta * job->momentum[i];
      work->momentum[i] = decayed + work->momentum[i];
    }
    work->step[i] = rate * work->momentum[i];
  }
}

/* work->momentum = beta m + mean; work->step = rate * that. Both begin as
 * zeros, and so the step of an idle segment, and the momentum of a frozen one,
 * stays. */
static fl_status prepare(const fli_job *job, fli_step_work *work)
{
  const uint64_t n = job->store.canonical.n;
  fli_run run = {0};
  const fl_status st = fli_round_mean(job, work->momentum);
  if (st != FL_OK) return st;
  if (fli_clip_is_learning(job))
    work->square = fli_clip_square(work->momentum, NULL, n);
  while (next_run(job, &run)) {
    if (work->mask[run.segment]) {
      prepare_run(job, work, &run);
    } else if (job->momentum && !is_frozen(job, run.segment)) {
      memcpy(work->momentum + run.at, job->momentum + run.at,
             (size_t)(run.end - run.at) * sizeof(float));
    }
  }
  return FL_OK;
}

/* work->step = what the strategy makes of the round. Its gate sees what would
 * be the next model, but for what encoding loses. */
static fl_status prepare_by_rule(fli_job *job, fli_step_work *work)
{
  const fli_canonical *model = &job->store.canonical;
  fl_status st = FL_OK;
  fli_run run = {0};
  FLI_TRY(fli_rule_propose(job, work->momentum, &work->pending));
  work->square = work->pending.length * work->pending.length;
  while (next_run(job, &run)) {
    if (work->mask[run.segment]) continue;
    fli_rule_hold(job, &work->pending, run.at, run.end - run.at,
                  is_frozen(job, run.segment));
  }
  memcpy(work->step, work->pending.step, (size_t)model->n * sizeof(float));
  for (uint64_t i = 0; i < model->n; i++)
    work->decoded[i] = model->weights[i] + work->step[i];
  FLI_TRY(fli_strategy_judge(job->strategy, &work->pending, work->decoded));
out:
  return st;
}

static fl_status step_by_server(fli_job *job)
{
  fl_status st = FL_OK;
  fli_step_work work = {0};
  FLI_TRY(work_alloc(job, &work));
  FLI_TRY(job->strategy ? prepare_by_rule(job, &work) : prepare(job, &work));
  if (job->codec.codec == FL_CODEC_F32 && !work.has_idle) {
    FLI_TRY(step_by_copy(job, &work));
  } else {
    FLI_TRY(step_by_encoding(job, &work));
  }
  fli_clip_learn(job, work.square);
  if (job->strategy) fli_strategy_commit(job->strategy, &work.pending);
  if (job->momentum) {
    float *previous = job->momentum;
    job->momentum = work.momentum;
    work.momentum = previous;
  }
out:
  work_free(job, &work);
  return st;
}

fl_status fli_step_run(fli_job *job)
{
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  const fl_status st = job->codec.codec == FL_CODEC_THC && !job->buffered &&
                               fli_job_is_plain_mean(&job->options)
                           ? step_by_sum(job)
                           : step_by_server(job);
  fli_fpguard_leave(&guard);
  return st;
}
