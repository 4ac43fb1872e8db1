/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of an encoded update on demand. Units are encoded by themselves, so a
 * range of bytes is the units it covers, made where they are wanted, and parts
 * of one at either end, for which that unit is made aside and kept: the next
 * range mostly goes on with it. Codecs with one norm per segment need a pass
 * over the segment at hand before its first unit. Units of a norm that counts
 * as zero have no bytes, and are not looked at. */
#include "compress/encoder.h"

#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "compress/update.h"

enum {
  UNIT_BYTES = 4 * FLI_UNIT_MAX, /* at most */
  HASHED_AT_ONCE = 256 << 10
};

struct fli_encoder {
  fl_context *context;
  fli_agreed agreed;
  fli_encoding encoding;
  fli_floats from;
  double *squares; /* plain layouts: per unit; behind them, `factors` */
  size_t size;
  uint8_t *front; /* header and mask */
  size_t front_size;
  uint32_t segment; /* of which a byte was asked for last, */
  size_t at;        /* and where in the update it begins */
  double *factors;  /* of segments that were measured; 0 for others */
  int has_edge;
  uint64_t edge_unit;
  uint8_t edge[UNIT_BYTES];
};

/* ---- making one ---- */

static const fli_layout *layout_of(const fli_encoder *encoder)
{
  return &encoder->agreed.compressor->layout;
}

static const uint8_t *mask_of(const fli_encoder *encoder)
{
  return encoder->front + FLI_UPDATE_HEADER;
}

static fl_status allocate(fli_encoder *encoder)
{
  const fli_layout *layout = layout_of(encoder);
  const size_t n_units = (size_t)layout->n_units;
  encoder->front_size = fli_update_front(layout->n_segments);
  encoder->front = fli_alloc(encoder->context, encoder->front_size, 1);
  if (!encoder->front) return fli_nomem(encoder->front_size);
  if (layout->is_rotated) return FL_OK;
  const size_t n = n_units + layout->n_segments;
  encoder->squares = fli_alloc(encoder->context, n, sizeof(double));
  if (!encoder->squares) return fli_nomem(n * sizeof(double));
  encoder->factors = encoder->squares + n_units;
  return FL_OK;
}

static fl_status fill(fli_encoder *encoder, const fl_encode_options *options,
                      const fli_floats *from)
{
  fl_status st = FL_OK;
  const fli_agreed *agreed = &encoder->agreed;
  if (options->slot >= agreed->slots)
    return fli_error(FL_E_ARGUMENT, "encode: slot, got %u, want < %u",
                     options->slot, agreed->slots);
  FLI_TRY(allocate(encoder));
  fli_encoding_init(&encoder->encoding, agreed, options, from);
  encoder->from = *from;
  encoder->size = fli_update_size(agreed, options->segments);
  (void)fli_update_write(agreed, options->slot, options->samples,
                         options->segments, encoder->front);
  encoder->at = encoder->front_size;
out:
  return st;
}

fl_status fli_encoder_new(fli_encoder **out, const fl_compressor *compressor,
                          const fl_scale *scale,
                          const fl_encode_options *options,
                          const fli_floats *from)
{
  fl_status st;
  fl_context *context = compressor->context;
  fli_encoder *encoder = fli_alloc(context, 1, sizeof *encoder);
  if (!encoder) return fli_nomem(sizeof *encoder);
  encoder->context = fli_context_ref(context);
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = fli_agreed_init(&encoder->agreed, compressor, scale);
  if (st == FL_OK) st = fill(encoder, options, from);
  fli_fpguard_leave(&guard);
  if (st == FL_OK)
    *out = encoder;
  else
    fli_encoder_free(encoder);
  return st;
}

void fli_encoder_free(fli_encoder *encoder)
{
  if (!encoder) return;
  fl_context *context = encoder->context;
  if (encoder->squares) {
    const fli_layout *layout = layout_of(encoder);
    fli_free(context, encoder->squares,
             ((size_t)layout->n_units + layout->n_segments) * sizeof(double));
  }
  fli_free(context, encoder->front, encoder->front_size);
  if (encoder->agreed.compressor) fli_agreed_free(&encoder->agreed);
  fli_free(context, encoder, sizeof *encoder);
  fli_context_unref(context);
}

size_t fli_encoder_size(const fli_encoder *encoder)
{
  return encoder->size;
}

/* ---- units ---- */

/* Where a unit begins in its segment's payload. */
static FLI_NOINLINE size_t unit_at(const fli_encoder *encoder, uint64_t unit)
{
  const fli_segment *s = &layout_of(encoder)->segments[encoder->segment];
  const uint64_t *starts = encoder->agreed.starts;
  return fli_payload_size(&encoder->agreed,
                          starts[unit] - starts[s->first_unit]);
}

static void encode_units(void *arg, uint64_t first, uint64_t last)
{
  fli_encoding *encoding = arg;
  encoding->agreed->compressor->codec->encode(encoding, first, last);
}

static FLI_NOINLINE uint64_t end_of(const fli_encoder *encoder)
{
  const fli_segment *s = &layout_of(encoder)->segments[encoder->segment];
  return s->first_unit + fli_segment_units(s);
}

static fl_status set_factor(fli_encoder *encoder)
{
  fl_status st;
  const fli_floats *from = &encoder->from;
  fli_encoding *encoding = &encoder->encoding;
  const uint32_t segment = encoder->segment;
  if (!encoder->squares) return FL_OK;
  encoding->factor = encoder->factors[segment];
  if (encoding->factor > 0.0) return FL_OK;
  if (from->fetch)
    st = from->measure(from->arg, encoding, encoder->squares, segment);
  else
    st = fli_encoding_measure(encoding, encoder->squares, segment);
  if (st == FL_OK) encoder->factors[segment] = encoding->factor;
  return st;
}

/* Units [first, last) of the segment at hand. */
static FLI_NOINLINE fl_status encode_run(fli_encoder *encoder, uint64_t first,
                                         uint64_t last, uint8_t *out)
{
  const fli_floats *from = &encoder->from;
  fli_encoding *encoding = &encoder->encoding;
  fl_status st = set_factor(encoder);
  encoding->segment = encoder->segment;
  encoding->payload = out;
  encoding->skip = unit_at(encoder, first);
  while (st == FL_OK && first < last) {
    uint64_t end = last;
    if (from->fetch) st = from->fetch(from->arg, encoding, first, &end);
    if (st != FL_OK) break;
    fli_for_units(encoder->context, first, end, encode_units, encoding);
    first = end;
  }
  if (st != FL_OK || !atomic_load(&encoding->is_not_finite)) return st;
  atomic_store(&encoding->is_not_finite, 0);
  return fli_encoding_check_finite(encoding, encoder->segment);
}

static void enter_segment(fli_encoder *encoder, uint32_t segment, size_t at)
{
  encoder->segment = segment;
  encoder->at = at;
}

/* Units from `first` on that fit n bytes. */
static uint64_t last_that_fits(const fli_encoder *encoder, uint64_t first,
                               size_t n)
{
  const size_t at = unit_at(encoder, first);
  const uint64_t end = end_of(encoder);
  uint64_t last = first;
  while (last < end && unit_at(encoder, last + 1) - at <= n)
    last++;
  return last;
}

/* ---- parts ---- */

/* Find the segment of a byte behind the front. */
static void seek_segment(fli_encoder *encoder, size_t offset)
{
  const uint8_t *mask = mask_of(encoder);
  if (offset < encoder->at) enter_segment(encoder, 0, encoder->front_size);
  for (;;) {
    const size_t n =
        mask[encoder->segment] ? unit_at(encoder, end_of(encoder)) : 0;
    if (offset - encoder->at < n) return;
    enter_segment(encoder, encoder->segment + 1, encoder->at + n);
  }
}

/* The unit that has a byte of the segment at hand. */
static uint64_t seek_unit(const fli_encoder *encoder, size_t skip)
{
  const fli_segment *s = &layout_of(encoder)->segments[encoder->segment];
  uint64_t low = s->first_unit, high = end_of(encoder);
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    if (unit_at(encoder, middle) <= skip)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* A part of one unit: *done bytes, n at most, from `skip` of the segment. */
static fl_status read_edge(fli_encoder *encoder, uint64_t unit, size_t skip,
                           uint8_t *out, size_t *done)
{
  fl_status st = FL_OK;
  const size_t begin = unit_at(encoder, unit), end = unit_at(encoder, unit + 1);
  if (!encoder->has_edge || encoder->edge_unit != unit)
    st = encode_run(encoder, unit, unit + 1, encoder->edge);
  encoder->has_edge = st == FL_OK;
  encoder->edge_unit = unit;
  if (*done > end - skip) *done = end - skip;
  if (st == FL_OK) memcpy(out, encoder->edge + (skip - begin), *done);
  return st;
}

/* *done: n bytes, out as many of them as were made. */
static fl_status read_some(fli_encoder *encoder, size_t offset, uint8_t *out,
                           size_t *done)
{
  if (offset < encoder->front_size) {
    const size_t left = encoder->front_size - offset;
    if (*done > left) *done = left;
    memcpy(out, encoder->front + offset, *done);
    return FL_OK;
  }
  seek_segment(encoder, offset);
  const size_t skip = offset - encoder->at;
  const uint64_t first = seek_unit(encoder, skip);
  const uint64_t last = last_that_fits(encoder, first, *done);
  if (unit_at(encoder, first) != skip || last == first)
    return read_edge(encoder, first, skip, out, done);
  *done = unit_at(encoder, last) - skip;
  return encode_run(encoder, first, last, out);
}

fl_status fli_encoder_read(fli_encoder *encoder, uint64_t offset, uint8_t *out,
                           size_t n)
{
  fl_status st = FL_OK;
  size_t at = (size_t)offset;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  while (st == FL_OK && n > 0) {
    size_t done = n;
    st = read_some(encoder, at, out, &done);
    at += done;
    out += done;
    n -= done;
  }
  fli_fpguard_leave(&guard);
  return st;
}

/* ---- all of it ---- */

fl_status fli_encoder_hash(fli_encoder *encoder, fli_hasher *hasher,
                           uint16_t *clamped)
{
  fl_status st = FL_OK;
  fli_encoding *encoding = &encoder->encoding;
  const size_t size = encoder->size;
  uint8_t *bytes = fli_alloc(encoder->context, HASHED_AT_ONCE, 1);
  if (!bytes) return fli_nomem(HASHED_AT_ONCE);
  /* All is lost but for what is made. */
  if (encoding->lost)
    memcpy(encoding->lost, encoding->x,
           (size_t)layout_of(encoder)->dim * sizeof(float));
  encoding->unit_clamped = clamped;
  encoder->has_edge = 0;
  if (encoder->squares)
    memset(encoder->factors, 0,
           layout_of(encoder)->n_segments * sizeof(double));
  for (size_t at = 0; at < size && st == FL_OK; at += HASHED_AT_ONCE) {
    const size_t n = size - at < HASHED_AT_ONCE ? size - at : HASHED_AT_ONCE;
    st = fli_encoder_read(encoder, at, bytes, n);
    fli_hasher_update(hasher, bytes, n);
  }
  encoding->unit_clamped = NULL;
  /* Bytes that are read lose nothing more. */
  encoding->lost = NULL;
  fli_free(encoder->context, bytes, HASHED_AT_ONCE);
  return st;
}
