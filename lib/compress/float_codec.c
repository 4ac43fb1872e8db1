/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs f32 and bf16: values travel as they are and are summed as int64
 * fixed point, so that order, tree and threads change no bit. The agreed norm
 * l of a segment bounds its coordinates; a value x becomes the integer nearest
 * to x 2^s, with s such that slots * l * 2^s stays below 2^61: far from where
 * int64 ends. l lies on the bf16 grid, therefore rounding a value to bf16 does
 * not carry it over l, and l 2^s is an integer. */
#include <math.h>
#include <string.h>

#include "compress/partial.h"
#include "compress/update.h"

/* 2^s. With l < 2^e and slots <= 2^k: s = 61 - k - e. */
static double fixed_point(const fli_agreed *agreed, uint32_t segment)
{
  int exponent;
  frexp((double)agreed->norms[segment], &exponent);
  int log_slots = 0;
  while (1u << log_slots < agreed->slots)
    log_slots++;
  return ldexp(1.0, 61 - log_slots - exponent);
}

static fl_status f32_configure(fl_compressor *compressor,
                               const fl_compressor_options *options)
{
  compressor->bits = 32;
  return FL_OK;
}

static fl_status bf16_configure(fl_compressor *compressor,
                                const fl_compressor_options *options)
{
  compressor->bits = 16;
  return FL_OK;
}

static void float_begin(fli_encoding *encoding, uint32_t slot)
{
}

/* n values, at most a unit. */
static void load(const fli_agreed *agreed, float *values, const uint8_t *src,
                 size_t n)
{
  const flk_table *kernels = agreed->compressor->kernels;
  if (agreed->compressor->bits == 32) {
    kernels->f32_load(values, src, n);
  } else {
    kernels->bf16_load(values, src, n);
  }
}

static void store(const fli_encoding *encoding, const fli_unit *unit,
                  float *values, uint8_t *dst)
{
  const fli_agreed *agreed = encoding->agreed;
  const flk_table *kernels = agreed->compressor->kernels;
  kernels->scale_clamp(values, fli_encoding_at(encoding, unit->offset), unit->n,
                       encoding->factor, fli_agreed_norm(agreed, unit));
  if (agreed->compressor->bits == 32) {
    kernels->f32_store(dst, values, unit->n);
  } else {
    kernels->bf16_store(dst, values, unit->n);
  }
  if (encoding->lost) load(agreed, values, dst, unit->n);
}

static void float_encode(fli_encoding *encoding, uint64_t first, uint64_t last)
{
  const fli_agreed *agreed = encoding->agreed;
  const fli_layout *layout = &agreed->compressor->layout;
  for (; first < last; first++) {
    float sent[FLI_UNIT_MAX];
    fli_unit unit = fli_layout_unit(layout, encoding->segment, first);
    if (fli_agreed_is_sent(agreed, &unit)) {
      store(encoding, &unit, sent,
            encoding->payload +
                (fli_payload_offset(agreed, &unit) - encoding->skip));
    } else if (encoding->lost) {
      memset(sent, 0, sizeof sent);
    }
    for (uint32_t i = 0; encoding->lost && i < unit.n; i++) {
      encoding->lost[unit.offset + i] =
          fli_encoding_at(encoding, unit.offset)[i] - sent[i];
    }
  }
}

static int float_check(const fli_agreed *agreed, uint32_t segment,
                       const uint8_t *src, size_t n)
{
  size_t bytes = agreed->compressor->bits / 8;
  float values[FLI_UNIT_MAX];
  for (size_t i = 0; i < n; i += FLI_UNIT_MAX) {
    size_t count = n - i < FLI_UNIT_MAX ? n - i : FLI_UNIT_MAX;
    load(agreed, values, src + i * bytes, count);
    float max = agreed->compressor->kernels->abs_max(values, count);
    if (!(max <= agreed->norms[segment])) return 0;
  }
  return 1;
}

static uint32_t float_most_weight(const fli_agreed *agreed)
{
  return 1;
}

static uint64_t float_most_total(const fli_agreed *agreed)
{
  return agreed->slots;
}

static uint32_t float_lane_width(const fli_agreed *agreed, uint64_t total)
{
  return FLK_I64;
}

static uint64_t float_lane_limit(const fli_agreed *agreed, uint32_t segment,
                                 uint64_t total)
{
  double one = (double)agreed->norms[segment] * fixed_point(agreed, segment);
  return total * (uint64_t)one;
}

/* bf16 becomes float32 a tile at a time. */
static int fold_bf16(const flk_table *kernels, const flk_floats *floats,
                     uint8_t *lanes, size_t n)
{
  enum { TILE = 1024 };
  float values[TILE];
  uint8_t bytes[4 * TILE];
  const uint8_t *tile = bytes;
  flk_floats one = *floats;
  int is_bad = 0;
  one.src = &tile;
  one.skip = 0;
  one.count = 1;
  for (size_t i = 0; i < n; i += TILE) {
    const size_t count = n - i < TILE ? n - i : TILE;
    for (size_t k = 0; k < floats->count; k++) {
      kernels->bf16_load(values, floats->src[k] + floats->skip + 2 * i, count);
      kernels->f32_store(bytes, values, count);
      is_bad |= kernels->fixed_fold(lanes + 8 * i, &one, count);
    }
  }
  return is_bad;
}

static int float_add(const fli_agreed *agreed, const fli_addends *addends,
                     uint8_t *lanes, uint32_t width)
{
  const fl_compressor *compressor = agreed->compressor;
  const size_t bytes = compressor->bits / 8;
  const double one = fixed_point(agreed, addends->segment);
  const flk_floats floats = {.src = addends->src,
                             .skip = (size_t)addends->first * bytes,
                             .count = addends->count,
                             .factor = addends->is_taken_away ? -one : one,
                             .bound = agreed->norms[addends->segment]};
  if (bytes == 2)
    return fold_bf16(compressor->kernels, &floats, lanes, addends->n);
  return compressor->kernels->fixed_fold(lanes, &floats, addends->n);
}

static void float_decode(const fli_mean *mean, uint64_t first, uint64_t last)
{
  const fli_agreed *agreed = mean->agreed;
  const fl_compressor *compressor = agreed->compressor;
  double one = fixed_point(agreed, mean->segment);
  double factor = mean->weight / (double)mean->tally->lane_weight / one;
  for (; first < last; first++) {
    fli_unit unit = fli_layout_unit(&compressor->layout, mean->segment, first);
    float *dst = fli_mean_at(mean, unit.offset);
    if (fli_agreed_is_sent(agreed, &unit)) {
      size_t at = fli_lane_offset(agreed, &unit, mean->width);
      compressor->kernels->fixed_load(dst, mean->lanes + (at - mean->skip),
                                      unit.n, factor);
    } else {
      memset(dst, 0, unit.n * sizeof(float));
    }
  }
}

const fli_codec fli_codec_f32 = {
    .id = FL_CODEC_F32,
    .name = "f32",
    .is_rotated = 0,
    .min_norm = 0x1p-133f,
    .configure = f32_configure,
    .begin = float_begin,
    .encode = float_encode,
    .most_weight = float_most_weight,
    .most_total = float_most_total,
    .lane_width = float_lane_width,
    .lane_limit = float_lane_limit,
    .check = float_check,
    .add = float_add,
    .decode = float_decode,
};

const fli_codec fli_codec_bf16 = {
    .id = FL_CODEC_BF16,
    .name = "bf16",
    .is_rotated = 0,
    .min_norm = 0x1p-133f,
    .configure = bf16_configure,
    .begin = float_begin,
    .encode = float_encode,
    .most_weight = float_most_weight,
    .most_total = float_most_total,
    .lane_width = float_lane_width,
    .lane_limit = float_lane_limit,
    .check = float_check,
    .add = float_add,
    .decode = float_decode,
};
