/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding one update: weight, finite check, scaling down to the agreed norm,
 * and the codec's bytes, in parallel. THC measures a unit while it lies in the
 * cache; codecs with one norm per segment need a pass over the segment
 * first. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/encode.h"
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

double fli_encoding_factor(fli_encoding *encoding, double own, float agreed)
{
  double limit = (double)agreed;
  if (encoding->agreed->is_public) limit *= PUBLIC_EXCESS;
  if ((double)fli_norm_round_up(own) <= limit) return 1.0;
  atomic_fetch_add_explicit(&encoding->rescaled, 1, memory_order_relaxed);
  return limit / own;
}

static void encode_units(void *arg, uint64_t first, uint64_t last)
{
  fli_encoding *encoding = arg;
  encoding->agreed->compressor->codec->encode(encoding, first, last);
}

fl_status fli_encoding_check_finite(const fli_encoding *encoding,
                                    uint32_t segment)
{
  const fl_compressor *compressor = encoding->agreed->compressor;
  const fli_measuring m = {
      .compressor = compressor, .x = encoding->x, .x_first = encoding->x_first};
  if (encoding->x_end == UINT64_MAX) return fli_check_finite(&m, segment);
  const fli_window window =
      fli_layout_window(&compressor->layout, segment, encoding->x_end - 1);
  return fli_check_window(&m, &window);
}

fl_status fli_encoding_measure(fli_encoding *encoding, double *squares,
                               uint32_t segment)
{
  fli_measuring m = {.compressor = encoding->agreed->compressor,
                     .x = encoding->x,
                     .weight = encoding->weight,
                     .squares = squares};
  fli_measure_segment(&m, segment);
  return fli_encoding_measured(encoding, &m, segment);
}

fl_status fli_encoding_measured(fli_encoding *encoding, const fli_measuring *m,
                                uint32_t segment)
{
  const double own = fli_segment_length(m, segment);
  if (!isfinite(own)) return fli_check_finite(m, segment);
  encoding->factor =
      (double)encoding->weight *
      fli_encoding_factor(encoding, own, encoding->agreed->norms[segment]);
  return FL_OK;
}

static fl_status encode_segment(fli_encoding *encoding, uint32_t segment,
                                double *squares)
{
  const fl_compressor *compressor = encoding->agreed->compressor;
  if (squares) {
    const fl_status st = fli_encoding_measure(encoding, squares, segment);
    if (st != FL_OK) return st;
  }
  encoding->segment = segment;
  fli_for_segment(&compressor->layout, segment, encode_units, encoding);
  if (!atomic_load(&encoding->is_not_finite)) return FL_OK;
  return fli_encoding_check_finite(encoding, segment);
}

/* A segment that is left out is lost as a whole. */
static void lose_segment(fli_encoding *encoding, uint32_t segment)
{
  const fli_segment *s =
      &encoding->agreed->compressor->layout.segments[segment];
  if (!encoding->lost) return;
  memcpy(encoding->lost + s->offset, encoding->x + s->offset,
         (size_t)s->n * sizeof(float));
}

static fl_status encode(fli_encoding *encoding,
                        const fl_encode_options *options, uint8_t *buffer)
{
  fl_status st = FL_OK;
  const fli_agreed *agreed = encoding->agreed;
  const fl_compressor *compressor = agreed->compressor;
  size_t n_units = (size_t)compressor->layout.n_units;
  double *squares = NULL;
  if (!compressor->layout.is_rotated) {
    squares = fli_alloc(compressor->context, n_units, sizeof(double));
    if (!squares) return fli_nomem(n_units * sizeof(double));
  }
  encoding->payload =
      buffer + fli_update_write(agreed, options->slot, options->samples,
                                options->segments, buffer);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    if (options->segments && !options->segments[s]) {
      lose_segment(encoding, s);
      continue;
    }
    FLI_TRY(encode_segment(encoding, s, squares));
    encoding->payload += fli_payload_size(agreed, fli_agreed_count(agreed, s));
  }
out:
  fli_free(compressor->context, squares, n_units * sizeof(double));
  return st;
}

static fl_status check_options(const fli_agreed *agreed,
                               const fl_encode_options *options)
{
  const fl_compressor *compressor = agreed->compressor;
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
  return FL_OK;
}

static fl_status check_report(const fli_agreed *agreed,
                              const fl_encode_report *report)
{
  const uint64_t n_norms = fl_compressor_norm_count(agreed->compressor);
  if (!report->block_clamped || report->n_block_clamped == n_norms)
    return FL_OK;
  return fli_error(FL_E_DIM, "encode: n_block_clamped, got %llu, want %llu",
                   (unsigned long long)report->n_block_clamped,
                   (unsigned long long)n_norms);
}

void fli_encoding_init(fli_encoding *encoding, const fli_agreed *agreed,
                       const fl_encode_options *options, const fli_floats *from)
{
  *encoding = (fli_encoding){
      .agreed = agreed,
      .x = from->x,
      .x_end = UINT64_MAX,
      .lost = from->lost,
      .weight = from->lost
                    ? 1.0f
                    : fli_update_weight(options->samples, agreed->weight_cap)};
  atomic_init(&encoding->clamped, 0);
  atomic_init(&encoding->rescaled, 0);
  atomic_init(&encoding->is_not_finite, 0);
  agreed->compressor->codec->begin(encoding, options->slot);
}

/* `report`: in the caller's settings, out the counts. */
static fl_status encode_into(const fli_agreed *agreed,
                             const fl_encode_options *options,
                             const fli_floats *from, uint8_t *buffer,
                             fl_encode_report *report)
{
  fli_encoding encoding;
  fli_encoding_init(&encoding, agreed, options, from);
  encoding.unit_clamped = report->block_clamped;
  if (report->block_clamped) {
    memset(report->block_clamped, 0,
           (size_t)report->n_block_clamped * sizeof(uint16_t));
  }
  fl_status st = encode(&encoding, options, buffer);
  report->clamped = atomic_load(&encoding.clamped);
  report->rescaled = atomic_load(&encoding.rescaled);
  return st;
}

/* Everything but the argument checks that need no agreed scale. */
static fl_status encode_checked(const fli_agreed *agreed,
                                const fl_encode_options *options,
                                const fli_floats *from,
                                const fli_encoded_bytes *to,
                                fl_encode_report *report)
{
  fl_status st = FL_OK;
  fl_encode_report local = report_defaults;
  if (report) {
    FLI_TRY(fli_options_load(&local, sizeof local, report, "encode report"));
  }
  FLI_TRY(check_options(agreed, options));
  FLI_TRY(check_report(agreed, &local));
  size_t size = fli_update_size(agreed, options->segments);
  if (to->needed) *to->needed = size;
  if (!to->buffer && to->capacity == 0) return FL_OK;
  if (!to->buffer || !from->x) {
    return fli_error(FL_E_ARGUMENT, "encode: got NULL");
  }
  if (to->capacity < size) {
    return fli_error(FL_E_SIZE, "encode: buffer, got %zu bytes, want %zu",
                     to->capacity, size);
  }
  FLI_TRY(encode_into(agreed, options, from, to->buffer, &local));
  if (report) {
    FLI_TRY(fli_options_store(report, &local, sizeof local, "encode report"));
  }
out:
  return st;
}

fl_status fli_encode(const fl_compressor *compressor, const fl_scale *scale,
                     const fl_encode_options *given, const fli_floats *from,
                     const fli_encoded_bytes *to, fl_encode_report *report)
{
  fl_encode_options options = encode_defaults;
  fl_status st =
      fli_options_load(&options, sizeof options, given, "encode options");
  if (st != FL_OK) return st;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fli_agreed agreed;
  st = fli_agreed_init(&agreed, compressor, scale);
  if (st == FL_OK) {
    st = encode_checked(&agreed, &options, from, to, report);
    fli_agreed_free(&agreed);
  }
  fli_fpguard_leave(&guard);
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
  const fli_floats from = {.x = x};
  const fli_encoded_bytes to = {
      .buffer = buffer, .capacity = capacity, .needed = needed};
  return fli_encode(compressor, scale, given, &from, &to, report);
}
