/* SPDX-License-Identifier: Apache-2.0 */
/* A sketch straight from the values of a THC update. The rotation is the same
 * for all clients and rounds of a job, so that a place of one update is that
 * place of another: nothing has to be rotated back, and the half of it that the
 * kernel which reads values takes back may go. Number j is the sum of the
 * values at places j, j + dim, .. of every block, in the length that they stand
 * for, with signs of their own: without them rows of the rotation would be
 * added up, and most of the block would not be seen. So a block with much of
 * the length is in all of the numbers, and no number is one value's. Dither is
 * subtracted, as it would be for the mean: it is other noise in every round and
 * slot.
 *
 * Block u begins at number 256 u mod dim, as it may have fewer places than the
 * sketch has numbers. Blocks that are not sent, and those of segments that the
 * client does not train, add nothing. */
#include "server/cohort_sketch.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/rng.h"
#include "compress/partial.h"
#include "compress/update.h"

enum { RUN = 256, LEVELS = 15, DIM_MOST = 4096 };

typedef struct sums {
  const fli_agreed *agreed;
  uint16_t offset; /* of the slot's dither */
  uint32_t dim;
  float signs[FLI_UNIT_MAX]; /* 1 or -1, of every place */
  uint8_t lanes[FLI_UNIT_MAX];
  float values[FLI_UNIT_MAX];
  float numbers[DIM_MOST];
} sums;

static void draw_signs(sums *s)
{
  fli_rng rng;
  fli_rng_init(&rng, 0, FLI_RNG_SKETCH, 0, 0);
  for (uint32_t i = 0; i < FLI_UNIT_MAX; i += 32) {
    const uint32_t bits = fli_rng_u32(&rng);
    for (uint32_t k = 0; k < 32; k++)
      s->signs[i + k] = bits >> k & 1 ? 1.0f : -1.0f;
  }
}

/* Values of one update, in 2^-16 or halves of a cell. */
static void read_values(sums *s, const uint8_t *src, const fli_unit *unit)
{
  const fl_compressor *compressor = s->agreed->compressor;
  const int32_t g = (int32_t)compressor->granularity;
  const flk_packed packed = {.src = &src,
                             .count = 1,
                             .bits = compressor->bits,
                             .values = compressor->values};
  flk_lattice lattice = {.width = FLK_U8, .shift = 1, .bias = -g};
  flk_noise noise;
  if (compressor->mode == FL_THC_DITHER) {
    fli_noise_start(&s->agreed->dither, unit->index, &noise);
    lattice.noise = &noise;
    lattice.offsets = &s->offset;
    lattice.n_offsets = 1;
    lattice.sign = 1;
    lattice.shift = 16;
    lattice.bias = -(g - 1) * 32768;
  }
  memset(s->lanes, 0, unit->padded);
  compressor->kernels->add_packed(s->lanes, FLK_U8, &packed, unit->padded);
  compressor->kernels->decode(s->values, s->lanes, &lattice, unit->padded);
}

static void add_line(float *restrict numbers, const float *restrict values,
                     const float *restrict signs, float scale)
{
  for (uint32_t i = 0; i < FLK_LINE; i++)
    numbers[i] += values[i] * signs[i] * scale;
}

/* Runs, blocks and sketches are whole lines. */
static void add_unit(sums *s, const uint8_t *payload, const fli_unit *unit)
{
  const float norm = fli_agreed_norm(s->agreed, unit);
  const float scale = norm * 0x1p-24f / sqrtf((float)unit->padded);
  uint32_t at = (uint32_t)(unit->index * RUN % s->dim);
  read_values(s, payload + fli_payload_offset(s->agreed, unit), unit);
  for (uint32_t k = 0; k < unit->padded; k += FLK_LINE) {
    add_line(s->numbers + at, s->values + k, s->signs + k, scale);
    at += FLK_LINE;
    if (at == s->dim) at = 0;
  }
}

static void add_units(sums *s, const fli_update *update)
{
  const fli_agreed *agreed = s->agreed;
  const fli_layout *layout = &agreed->compressor->layout;
  const uint8_t *payload = update->payload;
  for (uint32_t i = 0; i < layout->n_segments; i++) {
    const fli_segment *segment = &layout->segments[i];
    const uint64_t end = segment->first_unit + fli_segment_units(segment);
    if (!update->mask[i]) continue;
    for (uint64_t u = segment->first_unit; u < end; u++) {
      const fli_unit unit = fli_layout_unit(layout, i, u);
      if (fli_agreed_is_sent(agreed, &unit)) add_unit(s, payload, &unit);
    }
    payload += fli_payload_size(agreed, fli_agreed_count(agreed, i));
  }
}

static fl_status pack(const float *numbers, uint32_t dim, uint8_t *sketch)
{
  float most = 0.0f;
  for (uint32_t j = 0; j < dim; j++) {
    if (!isfinite(numbers[j])) most = INFINITY;
    if (fabsf(numbers[j]) > most) most = fabsf(numbers[j]);
  }
  if (!(most > 0.0f && isfinite(most)))
    return fli_error(FL_E_RANGE, "sketch: the update has no direction");
  for (uint32_t j = 0; j < dim; j += 2) {
    const double scale = LEVELS / (2.0 * (double)most);
    const double low = ((double)numbers[j] + (double)most) * scale;
    const double high = ((double)numbers[j + 1] + (double)most) * scale;
    sketch[j / 2] = (uint8_t)((uint32_t)rint(low) | (uint32_t)rint(high) << 4);
  }
  return FL_OK;
}

fl_status fli_lane_sketch(const fli_agreed *agreed, const fli_bytes *update,
                          uint32_t dim, uint8_t *sketch)
{
  fli_update view;
  fli_fpguard guard;
  fl_status st = fli_update_read(agreed, update->data, update->size, &view);
  if (st != FL_OK) return st;
  fl_context *context = agreed->compressor->context;
  sums *s = fli_alloc(context, 1, sizeof *s);
  if (!s) return fli_nomem(sizeof *s);
  s->agreed = agreed;
  s->dim = dim;
  draw_signs(s);
  if (agreed->compressor->mode == FL_THC_DITHER)
    s->offset = agreed->offsets[view.slot];
  fli_fpguard_enter(&guard);
  add_units(s, &view);
  st = pack(s->numbers, dim, sketch);
  fli_fpguard_leave(&guard);
  fli_free(context, s, sizeof *s);
  return st;
}
