/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding one update: weight, finite check, scaling down to the agreed norm,
 * and the codec's bytes, unit by unit and in parallel. THC measures a unit
 * while it lies in the cache; codecs with one norm per segment need a pass
 * over the segment first. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/measure.h"
#include "compress/update.h"

static const fl_encode_options encode_defaults = {
    .struct_size = sizeof(fl_encode_options),
    .samples = 1,
};

static const fl_encode_report report_defaults = {
    .struct_size = sizeof(fl_encode_report),
};

/* How far above the agreed norm a block may be when norms were announced and
 * coordinates are clamped: beyond, every coordinate is clamped anyway, and
 * what follows would leave float32. */
#define PUBLIC_EXCESS 0x1p40

double fli_encoding_factor(const fli_encoding *encoding, double own,
                           float agreed)
{
  double limit = (double)agreed;
  if (encoding->agreed->is_public) limit *= PUBLIC_EXCESS;
  return (double)fli_norm_round_up(own) <= limit ? 1.0 : limit / own;
}

typedef struct encode_job {
  fli_encoding encoding;
  const float *x;
  float weight;
  uint32_t segment;
  uint8_t *payload; /* of the segment */
  atomic_int is_not_finite;
} encode_job;

static void count_rescaled(fli_encoding *encoding, double own, float norm)
{
  if (fli_encoding_factor(encoding, own, norm) == 1.0) return;
  atomic_fetch_add_explicit(&encoding->rescaled, 1, memory_order_relaxed);
}

/* 1 when a unit whose sum of squares is `about` (flk_table.gather) is finite
 * and surely not longer than the agreed norm; then its exact length, a pass of
 * its own, changes nothing. */
static int is_short(float about, float norm)
{
  if (!(about >= 0x1p-100f && about <= 0x1p100f)) return 0;
  return sqrt((double)about) * (1.0 + 0x1p-15) <= (double)norm;
}

/* A unit as it was gathered, and what to fetch while it is encoded. */
typedef struct gathered {
  float *block;
  float about;
  flk_ahead ahead;
} gathered;

static void encode_unit(encode_job *job, const fli_unit *unit,
                        const gathered *from)
{
  fli_encoding *encoding = &job->encoding;
  const fli_agreed *agreed = encoding->agreed;
  const fl_compressor *compressor = agreed->compressor;
  double own = encoding->own_norm;
  if (compressor->layout.is_rotated) {
    float norm = fli_agreed_norm(agreed, unit);
    own = 0.0;
    if (!is_short(from->about, norm)) {
      own = sqrt(compressor->kernels->sum_squares(from->block, unit->padded));
    }
    if (!isfinite(own)) {
      atomic_store_explicit(&job->is_not_finite, 1, memory_order_relaxed);
      return;
    }
    count_rescaled(encoding, own, norm);
  }
  if (!fli_agreed_is_sent(agreed, unit)) return;
  compressor->codec->encode(encoding, unit, from->block, own, &from->ahead,
                            job->payload + fli_payload_offset(agreed, unit));
}

/* While unit b of a group of FLI_GROUP_MAX is encoded, an equal share of the
 * lines of the next such group. */
static flk_ahead lines_ahead(const encode_job *job, const fli_unit *leader,
                             uint32_t b, uint64_t left)
{
  const fli_layout *layout = &job->encoding.agreed->compressor->layout;
  fli_unit next =
      fli_layout_unit(layout, job->segment, leader->index + FLI_GROUP_MAX);
  flk_ahead ahead = {.stride = next.stride,
                     .row = FLI_GROUP_MAX * FLK_LINE,
                     .rows = FLI_UNIT_MAX / FLK_LINE / FLI_GROUP_MAX};
  if (fli_unit_group(layout, &next, left) < FLI_GROUP_MAX) {
    return (flk_ahead){0};
  }
  ahead.src = job->x + next.offset + b * ahead.rows * ahead.stride;
  return ahead;
}

static void encode_units(void *arg, uint64_t first, uint64_t last)
{
  encode_job *job = arg;
  const fl_compressor *compressor = job->encoding.agreed->compressor;
  fli_gathering how = {
      .kernels = compressor->kernels, .x = job->x, .weight = job->weight};
  float blocks[FLI_GROUP_FLOATS], about[FLI_GROUP_MAX];
  for (uint64_t u = first; u < last;) {
    fli_unit leader = fli_layout_unit(&compressor->layout, job->segment, u);
    uint32_t group = fli_unit_group(&compressor->layout, &leader, last - u);
    fli_unit_gather(&leader, group, &how, blocks, about);
    for (uint32_t b = 0; b < group; b++) {
      fli_unit unit = fli_layout_unit(&compressor->layout, job->segment, u++);
      gathered from = {.block = blocks + b * FLK_BLOCK_STRIDE,
                       .about = about[b]};
      if (leader.index + FLI_GROUP_MAX < last) {
        uint64_t left = last - leader.index - FLI_GROUP_MAX;
        from.ahead = lines_ahead(job, &leader, b, left);
      }
      encode_unit(job, &unit, &from);
    }
  }
}

static fl_status encode_segment(encode_job *job, uint32_t segment,
                                double *squares)
{
  const fl_compressor *compressor = job->encoding.agreed->compressor;
  const fli_segment *s = &compressor->layout.segments[segment];
  if (squares) {
    fli_measuring m = {.compressor = compressor,
                       .x = job->x,
                       .weight = job->weight,
                       .squares = squares};
    fli_measure_segment(&m, segment);
    job->encoding.own_norm = fli_segment_length(&m, segment);
    if (!isfinite(job->encoding.own_norm)) {
      return fli_check_finite(compressor, job->x, segment);
    }
    count_rescaled(&job->encoding, job->encoding.own_norm,
                   job->encoding.agreed->norms[segment]);
  }
  job->segment = segment;
  fli_for_units(compressor->context, s->first_unit,
                s->first_unit + fli_segment_units(s), encode_units, job);
  if (!atomic_load(&job->is_not_finite)) return FL_OK;
  return fli_check_finite(compressor, job->x, segment);
}

static fl_status encode(encode_job *job, const fl_encode_options *options,
                        uint8_t *buffer)
{
  fl_status st = FL_OK;
  const fli_agreed *agreed = job->encoding.agreed;
  const fl_compressor *compressor = agreed->compressor;
  size_t n_units = (size_t)compressor->layout.n_units;
  double *squares = NULL;
  if (!compressor->layout.is_rotated) {
    squares = fli_alloc(compressor->context, n_units, sizeof(double));
    if (!squares) return fli_nomem(n_units * sizeof(double));
  }
  compressor->codec->begin(&job->encoding, options->slot);
  job->payload =
      buffer + fli_update_write(agreed, options->slot, options->samples,
                                options->segments, buffer);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    if (options->segments && !options->segments[s]) continue;
    FLI_TRY(encode_segment(job, s, squares));
    job->payload += fli_payload_size(agreed, fli_agreed_count(agreed, s));
  }
out:
  fli_free(compressor->context, squares, n_units * sizeof(double));
  return st;
}

static fl_status check_options(const fli_agreed *agreed,
                               const fl_encode_options *options,
                               const fl_encode_report *report)
{
  const fl_compressor *compressor = agreed->compressor;
  uint64_t n_norms = fl_compressor_norm_count(compressor);
  if (options->slot >= agreed->slots) {
    return fli_error(FL_E_ARGUMENT, "encode: slot, got %u, want < %u",
                     options->slot, agreed->slots);
  }
  if (options->samples == 0) {
    return fli_error(FL_E_ARGUMENT, "encode: samples, got 0, want >= 1");
  }
  if (options->segments &&
      options->n_segments != compressor->layout.n_segments) {
    return fli_error(FL_E_DIM, "encode: segments, got %u, want %u",
                     options->n_segments, compressor->layout.n_segments);
  }
  if (report->block_clamped && report->n_block_clamped != n_norms) {
    return fli_error(FL_E_DIM, "encode: n_block_clamped, got %llu, want %llu",
                     (unsigned long long)report->n_block_clamped,
                     (unsigned long long)n_norms);
  }
  return FL_OK;
}

/* `report`: in the caller's settings, out the counts. */
static fl_status encode_into(const fli_agreed *agreed,
                             const fl_encode_options *options, const float *x,
                             uint8_t *buffer, fl_encode_report *report)
{
  encode_job job = {
      .encoding = {.agreed = agreed, .unit_clamped = report->block_clamped},
      .x = x,
      .weight = fli_update_weight(options->samples, agreed->weight_cap)};
  atomic_init(&job.encoding.clamped, 0);
  atomic_init(&job.encoding.rescaled, 0);
  atomic_init(&job.is_not_finite, 0);
  if (report->block_clamped) {
    memset(report->block_clamped, 0,
           (size_t)report->n_block_clamped * sizeof(uint16_t));
  }
  fl_status st = encode(&job, options, buffer);
  report->clamped = atomic_load(&job.encoding.clamped);
  report->rescaled = atomic_load(&job.encoding.rescaled);
  return st;
}

/* Everything but the argument checks that need no agreed scale. */
static fl_status encode_checked(const fli_agreed *agreed,
                                const fl_encode_options *options,
                                const float *x, uint8_t *buffer,
                                size_t capacity, size_t *needed,
                                fl_encode_report *report)
{
  fl_status st = FL_OK;
  fl_encode_report local = report_defaults;
  if (report) {
    FLI_TRY(fli_options_load(&local, sizeof local, report, "encode report"));
  }
  FLI_TRY(check_options(agreed, options, &local));
  size_t size = fli_update_size(agreed, options->segments);
  if (needed) *needed = size;
  if (!buffer && capacity == 0) return FL_OK;
  if (!buffer || !x) return fli_error(FL_E_ARGUMENT, "encode: got NULL");
  if (capacity < size) {
    return fli_error(FL_E_SIZE, "encode: buffer, got %zu bytes, want %zu",
                     capacity, size);
  }
  FLI_TRY(encode_into(agreed, options, x, buffer, &local));
  if (report) {
    FLI_TRY(fli_options_store(report, &local, sizeof local, "encode report"));
  }
out:
  return st;
}

fl_status fl_encode_options_init(fl_encode_options *options, size_t size)
{
  return fli_options_init(options, size, &encode_defaults,
                          sizeof encode_defaults);
}

fl_status fl_encode_report_init(fl_encode_report *report, size_t size)
{
  return fli_options_init(report, size, &report_defaults,
                          sizeof report_defaults);
}

fl_status fl_compressor_encode(const fl_compressor *compressor,
                               const fl_scale *scale,
                               const fl_encode_options *given, const float *x,
                               uint64_t n, uint8_t *buffer, size_t capacity,
                               size_t *needed, fl_encode_report *report)
{
  fli_clear_error();
  if (!compressor) return fli_error(FL_E_ARGUMENT, "encode: got NULL");
  if (n != compressor->layout.dim) {
    return fli_error(FL_E_DIM, "encode: got %llu values, want %llu",
                     (unsigned long long)n,
                     (unsigned long long)compressor->layout.dim);
  }
  fl_encode_options options = encode_defaults;
  fl_status st =
      fli_options_load(&options, sizeof options, given, "encode options");
  if (st != FL_OK) return st;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fli_agreed agreed;
  st = fli_agreed_init(&agreed, compressor, scale);
  if (st == FL_OK) {
    st = encode_checked(&agreed, &options, x, buffer, capacity, needed, report);
    fli_agreed_free(&agreed);
  }
  fli_fpguard_leave(&guard);
  return st;
}
