/* SPDX-License-Identifier: Apache-2.0 */
/* The updates of a round that a rule reads separately. They lie encoded, as
 * they came; of f32 and bf16 a piece is decoded when it is read, straight from
 * the payload, so that a step has a tile of each in memory. THC's blocks are
 * rotated and lie side by side in groups: there every update is decoded whole,
 * at once. What a client has not sent reads as zeros. */
#include "server/rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "compress/partial.h"
#include "kernels/kernels.h"

enum { CAP_MEDIANS = 8 };

static int compare_u64(const void *a, const void *b)
{
  const uint64_t left = *(const uint64_t *)a;
  const uint64_t right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

/* Claims count up to the job's cap, or 8 times their median. `steps` is
 * scratch. */
static uint64_t find_cap(const fli_job *job, fli_spool *s)
{
  if (job->options.weight_cap > 0) return job->options.weight_cap;
  memcpy(s->steps, s->samples, s->round.count * sizeof *s->steps);
  qsort(s->steps, s->round.count, sizeof *s->steps, compare_u64);
  return CAP_MEDIANS * s->steps[(s->round.count - 1) / 2];
}

/* Steps are those of the plan, over the samples that were claimed. */
static void find_work(const fli_job *job, fli_spool *s)
{
  const uint64_t cap = find_cap(job, s), batch = job->options.batch_size;
  for (uint32_t k = 0; k < s->round.count; k++) {
    const uint64_t batches = (s->samples[k] - 1) / batch + 1;
    s->steps[k] = batches * job->options.epochs;
    if (s->samples[k] > cap) s->samples[k] = cap;
  }
}

/* One that is no loss says nothing: it counts as the mean of the others. */
static void mend_losses(fli_spool *s)
{
  double sum = 0.0;
  uint32_t n = 0;
  for (uint32_t k = 0; k < s->round.count; k++) {
    const int is_one = s->losses[k] >= 0.0 && s->losses[k] <= 1e6;
    if (!is_one) s->losses[k] = -1.0;
    sum += is_one ? s->losses[k] : 0.0;
    n += (uint32_t)is_one;
  }
  for (uint32_t k = 0; k < s->round.count; k++) {
    if (s->losses[k] < 0.0) s->losses[k] = n > 0 ? sum / n : 1.0;
  }
}

/* ---- pieces -------------------------------------------------------------- */

static void decode(const fli_agreed *agreed, float *to, const uint8_t *from,
                   size_t n)
{
  const flk_table *kernels = agreed->compressor->kernels;
  if (agreed->compressor->bits == 32) {
    kernels->f32_load(to, from, n);
  } else {
    kernels->bf16_load(to, from, n);
  }
}

/* Values of one segment, of which `at` and `n` are coordinates of the model. */
static void read_segment(const fli_agreed *agreed, const uint8_t *payload,
                         uint64_t at, size_t n, float *to)
{
  const size_t bytes = agreed->compressor->bits / 8;
  if (!payload) {
    memset(to, 0, n * sizeof *to);
  } else {
    decode(agreed, to, payload + (size_t)at * bytes, n);
  }
}

static fl_status read_piece(void *user, uint32_t index, uint64_t at, uint64_t n,
                            float *buffer, const float **values)
{
  const fli_spool *s = user;
  const fli_agreed *agreed = &s->job->partial->agreed;
  const fli_layout *layout = &agreed->compressor->layout;
  const fli_update *update = &s->updates[index];
  const uint8_t *payload = update->payload;
  const uint64_t end = at + n;
  (void)values; /* is `buffer` */
  for (uint32_t i = 0; i < layout->n_segments; i++) {
    const fli_segment *segment = &layout->segments[i];
    const uint64_t last = segment->offset + segment->n;
    const uint64_t count = fli_agreed_count(agreed, i);
    const uint8_t *own = update->mask[i] && count > 0 ? payload : NULL;
    const uint64_t from = at > segment->offset ? at : segment->offset;
    const uint64_t to = end < last ? end : last;
    if (from < to)
      read_segment(agreed, own, from - segment->offset, (size_t)(to - from),
                   buffer + (from - at));
    if (update->mask[i]) payload += fli_payload_size(agreed, count);
    if (last >= end) break;
  }
  return FL_OK;
}

static fl_status read_control(void *user, uint32_t index, uint64_t at,
                              uint64_t n, float *buffer, const float **values)
{
  const fli_spool *s = user;
  (void)values; /* is `buffer` */
  for (uint64_t i = 0; i < n; i++)
    buffer[i] = fli_load_f32(s->controls[index] + 4 * (at + i));
  return FL_OK;
}

/* ---- all of it ----------------------------------------------------------- */

static fl_status spool_alloc(fli_spool *s)
{
  const size_t count = s->round.count;
  fl_context *context = s->job->context;
  const int is_float = s->job->codec.codec != FL_CODEC_THC;
  s->samples = fli_alloc(context, count, sizeof *s->samples);
  s->steps = fli_alloc(context, count, sizeof *s->steps);
  s->losses = fli_alloc(context, count, sizeof *s->losses);
  if (!s->samples || !s->steps || !s->losses)
    return fli_nomem(count * sizeof *s->losses);
  if (fli_controls_are_used(s->job)) {
    s->controls = fli_alloc(context, count, sizeof *s->controls);
    if (!s->controls) return fli_nomem(count * sizeof *s->controls);
  }
  if (is_float) {
    s->updates = fli_alloc(context, count, sizeof *s->updates);
    return s->updates ? FL_OK : fli_nomem(count * sizeof *s->updates);
  }
  if (s->n > SIZE_MAX / sizeof(float) / count) return fli_nomem(SIZE_MAX);
  s->values = fli_alloc(context, s->n * count, sizeof *s->values);
  s->rows = fli_alloc(context, count, sizeof *s->rows);
  return s->values && s->rows ? FL_OK : fli_nomem(s->n * count * sizeof(float));
}

static fl_status take_update(fli_spool *s, uint32_t k, const fli_bytes *bytes)
{
  const fli_job *job = s->job;
  const size_t size = bytes->size - fli_controls_size(job);
  if (s->controls) s->controls[k] = bytes->data + size;
  if (s->updates)
    return fli_update_read(&job->partial->agreed, bytes->data, size,
                           &s->updates[k]);
  const fl_scale scale = fli_round_scale(job);
  float *row = s->values + k * s->n;
  s->rows[k] = row;
  return fl_compressor_decode(job->compressor, &scale, bytes->data, size, row,
                              s->n);
}

static fl_status take_members(fli_spool *s)
{
  const fli_job *job = s->job;
  uint32_t k = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (!member->is_counted) continue;
    const fl_status st = take_update(s, k, &member->update);
    if (st != FL_OK) return st;
    s->samples[k] = member->samples > 0 ? member->samples : 1;
    s->losses[k] = member->loss;
    k++;
  }
  return FL_OK;
}

fl_status fli_spool_open(fli_spool *s, const fli_job *job)
{
  fl_status st = FL_OK;
  *s = (fli_spool){.job = job, .n = (size_t)job->store.canonical.n};
  FLI_TRY(fl_strategy_round_init(&s->round, sizeof s->round));
  s->round.count = job->n_counted;
  FLI_TRY(spool_alloc(s));
  FLI_TRY(take_members(s));
  find_work(job, s);
  mend_losses(s);
  s->round.samples = s->samples;
  s->round.steps = s->steps;
  s->round.losses = s->losses;
  s->round.rows = s->rows;
  s->round.read = s->rows ? NULL : read_piece;
  s->round.read_control = s->controls ? read_control : NULL;
  s->round.user = s;
out:
  return st;
}

void fli_spool_close(fli_spool *s)
{
  fl_context *context = s->job->context;
  const size_t count = s->round.count;
  fli_free(context, s->values, s->n * count * sizeof *s->values);
  fli_free(context, s->rows, count * sizeof *s->rows);
  fli_free(context, s->controls, count * sizeof *s->controls);
  fli_free(context, s->updates, count * sizeof *s->updates);
  fli_free(context, s->samples, count * sizeof *s->samples);
  fli_free(context, s->steps, count * sizeof *s->steps);
  fli_free(context, s->losses, count * sizeof *s->losses);
}
