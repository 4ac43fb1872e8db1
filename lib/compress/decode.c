/* SPDX-License-Identifier: Apache-2.0 */
/* From a sum to the weighted mean. Every update was scaled by min(1, n_k / c)
 * before it was encoded (c: the weight cap), so the mean over the m updates of
 * a segment is multiplied by m c / sum of min(n_k, c). Encoded bytes, of one
 * update or of a sum, are decoded as the sum that they make alone. */
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "compress/partial.h"
#include "compress/update.h"

typedef struct decode_job {
  fli_mean mean;
  atomic_int is_not_finite;
} decode_job;

/* Far below what could make a decoded value leave float32: a coordinate is at
 * most clip + 1/2 cell before the inverse rotation, which is at most 4096 times
 * that after it, and times norm * weight / 4096 at last. */
#define SAFE_LENGTH 0x1p100

/* Values of units [first, last) that left float32. */
static void check_units(decode_job *job, uint64_t first, uint64_t last)
{
  const fli_agreed *agreed = job->mean.agreed;
  const fl_compressor *compressor = agreed->compressor;
  for (uint64_t u = first; u < last; u++) {
    fli_unit unit = fli_layout_unit(&compressor->layout, job->mean.segment, u);
    double length = (double)fli_agreed_norm(agreed, &unit) * job->mean.weight;
    if (length <= SAFE_LENGTH) continue;
    for (uint32_t i = 0; i < unit.n; i += FLK_LINE) {
      uint32_t n = unit.n - i < FLK_LINE ? unit.n - i : FLK_LINE;
      const float *line =
          fli_mean_at(&job->mean, unit.offset) + i / FLK_LINE * unit.stride;
      if (compressor->kernels->find_not_finite(line, n) == n) continue;
      atomic_store_explicit(&job->is_not_finite, 1, memory_order_relaxed);
    }
  }
}

static void decode_units(void *arg, uint64_t first, uint64_t last)
{
  decode_job *job = arg;
  job->mean.agreed->compressor->codec->decode(&job->mean, first, last);
  check_units(job, first, last);
}

/* Noise of all slots in the sum: all slots together have (n V mod 65536) + sum
 * of floor(65536 s / n) over s < n; from there, or from 0, slots are taken or
 * added one by one, whichever are fewer. The result is the same integer both
 * ways, and as at most half of the slots are looked at (`offsets` holds as
 * many), nothing on the way leaves 32 bits. */
static void list_offsets(fli_mean *mean)
{
  const fli_agreed *agreed = mean->agreed;
  int is_majority = mean->tally->count > agreed->slots / 2;
  mean->sign = is_majority ? -1 : 1;
  mean->n_offsets = 0;
  mean->offset_sum = 0;
  for (uint32_t s = 0; s < agreed->slots; s++) {
    if (is_majority) mean->offset_sum += agreed->offsets[s];
    if (fli_has_slot(mean->tally, s) == is_majority) continue;
    mean->offsets[mean->n_offsets++] = agreed->offsets[s];
  }
}

/* The factor that makes the mean a weighted one. FL_E_RANGE when the result
 * might leave float32. */
static fl_status set_weight(decode_job *job)
{
  const fli_agreed *agreed = job->mean.agreed;
  const fli_tally *tally = job->mean.tally;
  const fli_layout *layout = &agreed->compressor->layout;
  uint64_t first, n;
  job->mean.weight = 1.0;
  if (agreed->weight_cap > 0) {
    job->mean.weight = (double)tally->lane_weight * (double)agreed->weight_cap /
                       (double)tally->samples;
  }
  fli_segment_norms(layout, job->mean.segment, &first, &n);
  for (uint64_t i = first; i < first + n; i++) {
    if ((double)agreed->norms[i] * job->mean.weight <= (double)FLI_NORM_MAX) {
      continue;
    }
    return fli_error(FL_E_RANGE, "decode: norm %llu times weight, got %g",
                     (unsigned long long)i,
                     (double)agreed->norms[i] * job->mean.weight);
  }
  return FL_OK;
}

static fl_status decode_segment(decode_job *job, const fl_partial *partial,
                                uint32_t index)
{
  const fl_compressor *compressor = partial->agreed.compressor;
  const fli_segment *segment = &compressor->layout.segments[index];
  const fli_tally *tally = &partial->tallies[index];
  if (tally->count == 0) {
    memset(fli_mean_at(&job->mean, segment->offset), 0,
           (size_t)segment->n * sizeof(float));
    return FL_OK;
  }
  job->mean.segment = index;
  job->mean.tally = tally;
  job->mean.lanes = partial->lanes[index].data;
  job->mean.width = partial->lanes[index].width;
  fl_status st = set_weight(job);
  if (st != FL_OK) return st;
  if (job->mean.offsets) list_offsets(&job->mean);
  fli_for_segment(&compressor->layout, index, decode_units, job);
  if (!atomic_load(&job->is_not_finite)) return FL_OK;
  return fli_error(FL_E_RANGE, "decode: segment %u leaves float32", index);
}

static fl_status decode(const fl_partial *partial, float *out)
{
  fl_status st = FL_OK;
  const fli_agreed *agreed = &partial->agreed;
  fl_context *context = agreed->compressor->context;
  size_t half = agreed->slots / 2 + 1;
  decode_job job = {.mean = {.agreed = agreed, .out = out}};
  atomic_init(&job.is_not_finite, 0);
  if (agreed->offsets) {
    job.mean.offsets = fli_alloc(context, half, sizeof(uint16_t));
    if (!job.mean.offsets) return fli_nomem(half * sizeof(uint16_t));
  }
  for (uint32_t s = 0; s < agreed->compressor->layout.n_segments; s++) {
    FLI_TRY(decode_segment(&job, partial, s));
  }
out:
  fli_free(context, job.mean.offsets, half * sizeof(uint16_t));
  return st;
}

fl_status fli_mean_begin(fli_mean *mean)
{
  decode_job job = {.mean = *mean};
  const fl_status st = set_weight(&job);
  if (st != FL_OK) return st;
  if (job.mean.offsets) list_offsets(&job.mean);
  *mean = job.mean;
  return FL_OK;
}

fl_status fli_mean_units(const fli_mean *mean, uint64_t first, uint64_t last)
{
  decode_job job = {.mean = *mean};
  atomic_init(&job.is_not_finite, 0);
  decode_units(&job, first, last);
  if (!atomic_load(&job.is_not_finite)) return FL_OK;
  return fli_error(FL_E_RANGE, "decode: segment %u leaves float32",
                   mean->segment);
}

static fl_status check_out(const fl_compressor *compressor, const float *out,
                           uint64_t n)
{
  if (!out) return fli_error(FL_E_ARGUMENT, "decode: out is NULL");
  if (n == compressor->layout.dim) return FL_OK;
  return fli_error(FL_E_DIM, "decode: got %llu values, want %llu",
                   (unsigned long long)n,
                   (unsigned long long)compressor->layout.dim);
}

fl_status fl_partial_decode(const fl_partial *partial, float *out, uint64_t n)
{
  fli_clear_error();
  if (!partial) return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  fl_status st = check_out(partial->agreed.compressor, out, n);
  if (st != FL_OK) return st;
  if (partial->all.count == 0) {
    return fli_error(FL_E_EMPTY, "partial: nothing was added");
  }
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = decode(partial, out);
  fli_fpguard_leave(&guard);
  return st;
}

fl_status fl_compressor_decode(const fl_compressor *compressor,
                               const fl_scale *scale, const uint8_t *data,
                               size_t n, float *out, uint64_t n_out)
{
  fli_clear_error();
  if (!compressor || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "decode: got NULL");
  }
  fl_status st = check_out(compressor, out, n_out);
  if (st != FL_OK) return st;
  fl_partial *partial = NULL;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  FLI_TRY(fl_partial_new(&partial, compressor, scale));
  if (n >= 4 && fli_load_u32(data) == FLI_SUM_MAGIC) {
    FLI_TRY(fl_partial_merge_bytes(partial, data, n));
  } else {
    FLI_TRY(fl_partial_add(partial, data, n));
  }
  FLI_TRY(decode(partial, out));
out:
  fl_partial_free(partial);
  fli_fpguard_leave(&guard);
  return st;
}
