/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs f32 and bf16: values travel as they are and are summed as int64
 * fixed point, so that order, tree and threads change no bit. The agreed norm
 * l of a segment bounds its coordinates; a value x becomes the integer nearest
 * to x 2^s, with s such that slots * l * 2^s stays below 2^61: far from where
 * int64 ends. l lies on the bf16 grid, therefore rounding a value to bf16 does
 * not carry it over l, and l 2^s is an integer. */
#include <math.h>

#include "compress/compressor.h"

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

static void float_encode(fli_encoding *encoding, const fli_unit *unit,
                         float *block, double own, const flk_ahead *ahead,
                         uint8_t *dst)
{
  const fli_agreed *agreed = encoding->agreed;
  const flk_table *kernels = agreed->compressor->kernels;
  float values[FLI_UNIT_MAX];
  float norm = fli_agreed_norm(agreed, unit);
  double factor = fli_encoding_factor(encoding, own, norm);
  kernels->scale_clamp(values, block, unit->n, factor, norm);
  if (agreed->compressor->bits == 32) {
    kernels->f32_store(dst, values, unit->n);
  } else {
    kernels->bf16_store(dst, values, unit->n);
  }
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

static void float_add(const fli_agreed *agreed, const fli_addends *addends,
                      uint8_t *lanes, uint32_t width)
{
  size_t bytes = agreed->compressor->bits / 8;
  double one = fixed_point(agreed, addends->segment);
  float values[FLI_UNIT_MAX];
  for (size_t i = 0; i < addends->n; i += FLI_UNIT_MAX) {
    size_t n = addends->n - i < FLI_UNIT_MAX ? addends->n - i : FLI_UNIT_MAX;
    size_t skip = ((size_t)addends->first + i) * bytes;
    for (size_t k = 0; k < addends->count; k++) {
      load(agreed, values, addends->src[k] + skip, n);
      agreed->compressor->kernels->fixed_add(lanes + 8 * i, values, n, one);
    }
  }
}

static void float_decode(const fli_mean *mean, const fli_unit *unit,
                         float *block, size_t stride, const uint8_t *lanes,
                         uint32_t width)
{
  double one = fixed_point(mean->agreed, unit->segment);
  double factor = mean->weight / (double)mean->tally->lane_weight / one;
  mean->agreed->compressor->kernels->fixed_load(block, lanes, unit->n, factor);
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
