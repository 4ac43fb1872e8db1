/* SPDX-License-Identifier: Apache-2.0 */
/* The THC codec: Li et al., "THC: Accelerating Distributed Deep Learning Using
 * Tensor Homomorphic Compression", NSDI 2024, uniform grid, with stochastic
 * rounding or with stratified subtractive dither. docs/design/thc.md has the
 * formulas; names here are its names.
 *
 * A block is first scaled by a power of two that brings its agreed norm into
 * [1, 2), so that no float32 overflows or loses bits on the way through the
 * transform, whatever the size of the update. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "compress/compressor.h"

enum { SIGN_BYTES = FLI_UNIT_MAX / 8, NOISE_KEY_BLOCK = 64 };

/* Replaces a lane state of 0, which xorshift would never leave. */
#define NONZERO_STATE 0x9e3779b9u

/* A unit's agreed norm, l = mantissa * 2^exponent, mantissa in [1, 2). */
static double split_norm(float norm, int *exponent)
{
  double mantissa = frexp((double)norm, exponent);
  *exponent -= 1;
  return 2.0 * mantissa;
}

static fl_status thc_configure(fl_compressor *compressor,
                               const fl_compressor_options *options)
{
  if (options->thc_mode != FL_THC_UNIFORM &&
      options->thc_mode != FL_THC_DITHER) {
    return fli_error(FL_E_OPTIONS, "thc_mode: got %u, want FL_THC_*",
                     options->thc_mode);
  }
  if (options->bits < 1 || options->bits > 8) {
    return fli_error(FL_E_OPTIONS, "bits: got %u, want 1..8", options->bits);
  }
  uint32_t top = (1u << options->bits) - 1u;
  if (options->granularity != 0 && options->granularity != top) {
    return fli_error(FL_E_OPTIONS, "granularity: got %u, want 0 or %u",
                     options->granularity, top);
  }
  float clip = options->clip;
  if (clip == 0.0f) clip = fli_best_clip(options->thc_mode, top);
  if (!(clip >= FLI_CLIP_MIN && clip <= FLI_CLIP_MAX)) {
    return fli_error(FL_E_OPTIONS, "clip: got %g, want 0 or %g..%g",
                     (double)clip, (double)FLI_CLIP_MIN, (double)FLI_CLIP_MAX);
  }
  compressor->mode = options->thc_mode;
  compressor->bits = options->bits;
  compressor->granularity = top;
  compressor->clip = clip;
  return FL_OK;
}

void fli_rotation_signs(uint8_t *signs, uint64_t n_units,
                        const uint8_t seed[FL_SEED_BYTES])
{
  uint8_t key[FLI_KEY_BYTES];
  fli_derive(key, seed, "thc signs", 0, 0);
  for (uint64_t u = 0; u < n_units; u++) {
    fli_chacha20(signs + u * SIGN_BYTES, SIGN_BYTES, key, u, 0);
  }
}

/* Slots in the order of their bit-reversed numbers take 0, 1/n, 2/n, ... of a
 * cell: whichever slots of a row stay away, the others are spread out. */
void fli_dither_offsets(uint16_t *offsets, uint32_t slots)
{
  uint32_t bits = 0;
  while (1u << bits < slots)
    bits++;
  uint32_t rank = 0;
  for (uint32_t i = 0; i < 1u << bits; i++) {
    uint32_t slot = 0;
    for (uint32_t k = 0; k < bits; k++)
      slot |= (i >> k & 1u) << (bits - 1 - k);
    if (slot >= slots) continue;
    offsets[slot] = (uint16_t)((UINT64_C(65536) * rank) / slots);
    rank++;
  }
}

static void unit_noise(const flk_table *kernels, uint16_t *noise,
                       const fli_unit *unit, const uint8_t *key)
{
  uint8_t stream[NOISE_KEY_BLOCK];
  uint32_t state[FLK_NOISE_LANES];
  fli_chacha20(stream, sizeof stream, key, unit->index, 0);
  for (size_t k = 0; k < FLK_NOISE_LANES; k++) {
    state[k] = fli_load_u32(stream + 4 * k);
    if (state[k] == 0) state[k] = NONZERO_STATE;
  }
  kernels->noise(noise, unit->padded, state);
}

static void thc_begin(fli_encoding *encoding, uint32_t slot)
{
  const fli_agreed *agreed = encoding->agreed;
  if (agreed->compressor->mode == FL_THC_DITHER) {
    memcpy(encoding->noise_key, agreed->dither_key, FLI_KEY_BYTES);
    encoding->noise_offset = agreed->offsets[slot];
  } else {
    fli_derive(encoding->noise_key, agreed->noise_seed, "thc uniform", slot, 0);
    encoding->noise_offset = 0;
  }
}

static void thc_encode(fli_encoding *encoding, const fli_unit *unit,
                       float *block, double own, uint8_t *dst)
{
  const fli_agreed *agreed = encoding->agreed;
  const fl_compressor *compressor = agreed->compressor;
  const flk_table *kernels = compressor->kernels;
  uint16_t noise[FLI_UNIT_MAX];
  uint8_t q[FLI_UNIT_MAX];
  float norm = fli_agreed_norm(agreed, unit);
  int exponent;
  double mantissa = split_norm(norm, &exponent);
  double factor = fli_encoding_factor(encoding, own, norm);
  uint32_t g = compressor->granularity;
  float step = (float)((double)g / (2.0 * (double)agreed->clip * mantissa));
  kernels->rotate(block, compressor->signs + unit->index * SIGN_BYTES,
                  (float)ldexp(factor, -exponent), unit->padded);
  unit_noise(kernels, noise, unit, encoding->noise_key);
  uint32_t clamped = kernels->quantise(q, block, noise, encoding->noise_offset,
                                       step, g, unit->padded);
  kernels->pack(dst, q, unit->padded, compressor->bits);
  atomic_fetch_add_explicit(&encoding->clamped, clamped, memory_order_relaxed);
  if (encoding->unit_clamped) {
    encoding->unit_clamped[unit->index] =
        (uint16_t)(clamped < UINT16_MAX ? clamped : UINT16_MAX);
  }
}

static uint64_t thc_lane_limit(const fli_agreed *agreed, uint32_t segment,
                               uint32_t count)
{
  return (uint64_t)count * agreed->compressor->granularity;
}

static uint32_t thc_lane_width(const fli_agreed *agreed, uint32_t count)
{
  uint64_t limit = thc_lane_limit(agreed, 0, count);
  return limit <= UINT8_MAX ? FLK_U8 : limit <= UINT16_MAX ? FLK_U16 : FLK_U32;
}

static void thc_add(const fli_agreed *agreed, const fli_unit *unit,
                    uint8_t *lanes, uint32_t width, const uint8_t *src)
{
  const fl_compressor *compressor = agreed->compressor;
  uint8_t q[FLI_UNIT_MAX];
  compressor->kernels->unpack(q, src, unit->padded, compressor->bits);
  compressor->kernels->accumulate[width][FLK_U8](lanes, q, unit->padded);
}

/* Sum over the slots in the sum of U_s - 1/2, in 1/65536. All slots together
 * have (n V mod 65536) + sum of floor(65536 s / n) over s < n; from there, or
 * from 0, slots are taken or added one by one, whichever are fewer. The result
 * is the same integer both ways, and as at most half of the slots are looked
 * at, nothing on the way leaves 32 bits. */
static void dither_sum(const fli_mean *mean, const fli_unit *unit, int32_t *sum)
{
  const fli_agreed *agreed = mean->agreed;
  const flk_table *kernels = agreed->compressor->kernels;
  uint16_t noise[FLI_UNIT_MAX];
  unit_noise(kernels, noise, unit, agreed->dither_key);
  int64_t bias = -32768 * (int64_t)mean->tally->count;
  uint32_t factor = 0;
  if (mean->sign < 0) {
    factor = agreed->slots;
    for (uint32_t s = 0; s < agreed->slots; s++)
      bias += agreed->offsets[s];
  }
  kernels->dither_total(sum, noise, unit->padded, factor, (int32_t)bias);
  for (uint32_t i = 0; i < mean->n_offsets; i++) {
    kernels->dither_slot(sum, noise, unit->padded, mean->offsets[i],
                         mean->sign);
  }
}

static void thc_decode(const fli_mean *mean, const fli_unit *unit, float *block,
                       const uint8_t *lanes, uint32_t width)
{
  const fli_agreed *agreed = mean->agreed;
  const fl_compressor *compressor = agreed->compressor;
  const flk_table *kernels = compressor->kernels;
  float norm = fli_agreed_norm(agreed, unit);
  double count = (double)mean->tally->count;
  double clip = (double)agreed->clip;
  float step = (float)(2.0 * clip / ((double)compressor->granularity * count));
  if (compressor->mode == FL_THC_DITHER) {
    int32_t sum[FLI_UNIT_MAX];
    dither_sum(mean, unit, sum);
    kernels->dequantise_dither(block, lanes, width, sum, unit->padded, step,
                               -agreed->clip);
  } else {
    kernels->dequantise(block, lanes, width, unit->padded, step, -agreed->clip);
  }
  double scale = mean->weight * (double)norm / (double)unit->padded;
  kernels->unrotate(block, compressor->signs + unit->index * SIGN_BYTES,
                    (float)scale, unit->padded);
}

const fli_codec fli_codec_thc = {
    .id = FL_CODEC_THC,
    .name = "thc",
    .is_rotated = 1,
    .min_norm = 0x1p-100f,
    .configure = thc_configure,
    .begin = thc_begin,
    .encode = thc_encode,
    .lane_width = thc_lane_width,
    .lane_limit = thc_lane_limit,
    .check = NULL,
    .add = thc_add,
    .decode = thc_decode,
};
