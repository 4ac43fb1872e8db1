/* SPDX-License-Identifier: Apache-2.0 */
/* The updates of a round that a rule reads separately. They lie encoded, as
 * they came, in memory or in the server's store (spooled.c); of f32 and bf16 a
 * piece is decoded when it is read, straight from the payload, so that a step
 * has a tile of each in memory. THC's blocks are rotated and lie side by side
 * in groups: there every update is decoded whole, at once. What a client has
 * not sent reads as zeros. */
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

typedef struct target {
  const fli_agreed *agreed;
  float *to;
} target;

static void decode_run(void *user, const uint8_t *data, size_t n)
{
  target *self = user;
  const size_t count = n / (self->agreed->compressor->bits / 8);
  decode(self->agreed, self->to, data, count);
  self->to += count;
}

/* n values from byte `skip` of an update's payload on. */
static fl_status read_values(const fli_spool *s, uint32_t index, uint64_t skip,
                             size_t n, float *to)
{
  const fli_agreed *agreed = &s->job->partial->agreed;
  const fli_member *member = s->members[index];
  if (member->update.size > 0) {
    decode(agreed, to, s->updates[index].payload + (size_t)skip, n);
    return FL_OK;
  }
  target self = {.agreed = agreed, .to = to};
  return fli_spooled_read(s->job, member, s->front + skip,
                          n * (agreed->compressor->bits / 8), decode_run,
                          &self);
}

static fl_status read_piece(void *user, uint32_t index, uint64_t at, uint64_t n,
                            float *buffer, const float **values)
{
  const fli_spool *s = user;
  const fli_agreed *agreed = &s->job->partial->agreed;
  const fli_layout *layout = &agreed->compressor->layout;
  const fli_update *update = &s->updates[index];
  const uint64_t end = at + n;
  uint64_t skip = 0; /* bytes before the segment */
  fl_status st = FL_OK;
  (void)values; /* is `buffer` */
  for (uint32_t i = 0; st == FL_OK && i < layout->n_segments; i++) {
    const fli_segment *segment = &layout->segments[i];
    const uint64_t last = segment->offset + segment->n;
    const uint64_t count = fli_agreed_count(agreed, i);
    const uint64_t from = at > segment->offset ? at : segment->offset;
    const uint64_t to = end < last ? end : last;
    if (from < to && update->mask[i] && count > 0) {
      st = read_values(s, index,
                       skip + fli_payload_size(agreed, from - segment->offset),
                       (size_t)(to - from), buffer + (from - at));
    } else if (from < to) {
      memset(buffer + (from - at), 0, (size_t)(to - from) * sizeof *buffer);
    }
    if (update->mask[i]) skip += fli_payload_size(agreed, count);
    if (last >= end) break;
  }
  return st;
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
    s->front = fli_update_front(s->job->n_segments);
    s->updates = fli_alloc(context, count, sizeof *s->updates);
    s->members = fli_alloc(context, count, sizeof *s->members);
    s->fronts = fli_alloc(context, count, s->front);
    if (s->updates && s->members && s->fronts) return FL_OK;
    return fli_nomem(count * (sizeof *s->updates + s->front));
  }
  if (s->n > SIZE_MAX / sizeof(float) / count) return fli_nomem(SIZE_MAX);
  s->values = fli_alloc(context, s->n * count, sizeof *s->values);
  s->rows = fli_alloc(context, count, sizeof *s->rows);
  return s->values && s->rows ? FL_OK : fli_nomem(s->n * count * sizeof(float));
}

static void append_front(void *user, const uint8_t *data, size_t n)
{
  uint8_t **to = user;
  memcpy(*to, data, n);
  *to += n;
}

/* Where it lies, or of one that the store has, its front. */
static fl_status take_float(fli_spool *s, uint32_t k, const fli_member *member)
{
  const fli_agreed *agreed = &s->job->partial->agreed;
  const fli_bytes *bytes = &member->update;
  uint8_t *front = s->fronts + k * s->front, *end = front;
  s->members[k] = member;
  if (bytes->size > 0)
    return fli_update_read(agreed, bytes->data,
                           bytes->size - fli_controls_size(s->job),
                           &s->updates[k]);
  if (member->spooled < s->front)
    return fli_error(FL_E_FORMAT, "store: an update: damaged");
  const fl_status st =
      fli_spooled_read(s->job, member, 0, s->front, append_front, &end);
  if (st != FL_OK) return st;
  return fli_update_read(agreed, front, (size_t)member->spooled,
                         &s->updates[k]);
}

static fl_status take_update(fli_spool *s, uint32_t k, const fli_member *member)
{
  const fli_job *job = s->job;
  const size_t behind = fli_controls_size(job);
  fl_status st = FL_OK;
  if (s->controls)
    s->controls[k] = member->update.data + member->update.size - behind;
  if (s->updates) return take_float(s, k, member);
  const fl_scale scale = fli_round_scale(job);
  const fli_bytes *bytes = &member->update;
  float *row = s->values + k * s->n;
  fli_bytes stored;
  fli_bytes_init(&stored, job->context);
  s->rows[k] = row;
  if (bytes->size == 0) {
    FLI_TRY(fli_spooled_load(job, member, &stored));
    bytes = &stored;
  }
  FLI_TRY(fl_compressor_decode(job->compressor, &scale, bytes->data,
                               bytes->size - behind, row, s->n));
out:
  fli_bytes_free(&stored);
  return st;
}

static fl_status take_members(fli_spool *s)
{
  const fli_job *job = s->job;
  uint32_t k = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (!member->is_counted) continue;
    const fl_status st = take_update(s, k, member);
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
  fli_free(context, s->members, count * sizeof *s->members);
  fli_free(context, s->fronts, count * s->front);
  fli_free(context, s->samples, count * sizeof *s->samples);
  fli_free(context, s->steps, count * sizeof *s->steps);
  fli_free(context, s->losses, count * sizeof *s->losses);
}
