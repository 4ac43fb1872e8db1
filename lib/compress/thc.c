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
#include "base/dmath.h"
#include "base/error.h"
#include "compress/compressor.h"
#include "compress/table.h"

enum { SIGN_BYTES = FLI_UNIT_MAX / 8 };

/* Replaces a lane state of 0, which xorshift would never leave. */
#define NONZERO_STATE 0x9e3779b9u

/* A unit's agreed norm, l = mantissa * 2^exponent, mantissa in [1, 2). */
static double split_norm(float norm, int *exponent)
{
  double mantissa = frexp((double)norm, exponent);
  *exponent -= 1;
  return 2.0 * mantissa;
}

/* Half width where 1/32 of N(0, 1) is outside: the paper's for its tables. */
#define TABLE_CLIP_TAIL (1.0 / 64.0)

static fl_status check_grid(const fl_compressor_options *options)
{
  uint32_t mode = options->thc_mode;
  if (mode < FL_THC_UNIFORM || mode > FL_THC_TABLE)
    return fli_error(FL_E_OPTIONS, "thc_mode: got %u, want FL_THC_*", mode);
  if (options->bits < 1 || options->bits > 8)
    return fli_error(FL_E_OPTIONS, "bits: got %u, want 1..8", options->bits);
  if (options->workers > FL_MAX_SLOTS)
    return fli_error(FL_E_OPTIONS, "workers: got %u, want 0..%d",
                     options->workers, FL_MAX_SLOTS);
  if (mode == FL_THC_TABLE) return FL_OK;
  if (options->table || options->n_table != 0)
    return fli_error(FL_E_OPTIONS,
                     "table: got one with thc_mode %u, want FL_THC_TABLE",
                     mode);
  uint32_t top = (1u << options->bits) - 1u;
  if (options->granularity != 0 && options->granularity != top)
    return fli_error(FL_E_OPTIONS, "granularity: got %u, want 0 or %u",
                     options->granularity, top);
  return FL_OK;
}

static float default_clip(uint32_t mode, uint32_t top)
{
  if (mode == FL_THC_TABLE) return (float)-fli_probit(TABLE_CLIP_TAIL);
  return fli_best_clip(mode, top);
}

static fl_status thc_configure(fl_compressor *compressor,
                               const fl_compressor_options *options)
{
  fl_status st = check_grid(options);
  if (st != FL_OK) return st;
  uint32_t top = (1u << options->bits) - 1u;
  float clip = options->clip;
  if (clip == 0.0f) clip = default_clip(options->thc_mode, top);
  if (!(clip >= FLI_CLIP_MIN && clip <= FLI_CLIP_MAX)) {
    return fli_error(FL_E_OPTIONS, "clip: got %g, want 0 or %g..%g",
                     (double)clip, (double)FLI_CLIP_MIN, (double)FLI_CLIP_MAX);
  }
  compressor->mode = options->thc_mode;
  compressor->bits = options->bits;
  compressor->granularity = top;
  compressor->clip = clip;
  if (options->thc_mode != FL_THC_TABLE) return FL_OK;
  return fli_table_configure(compressor, options);
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

void fli_noise_init(fli_noise *noise, const uint8_t seed[FL_SEED_BYTES],
                    const char *purpose, uint32_t slot)
{
  uint8_t key[FLI_KEY_BYTES];
  uint8_t stream[8 * FLK_NOISE_LANES];
  fli_derive(key, seed, purpose, slot, 0);
  fli_chacha20(stream, sizeof stream, key, 0, 0);
  for (size_t k = 0; k < FLK_NOISE_LANES; k++)
    noise->lanes[k] = fli_load_u64(stream + 8 * k);
}

/* SplitMix64: a stream cipher per unit would cost a tenth of the encoder, and
 * rounding needs evenly spread numbers, not secret ones. */
void fli_noise_start(const fli_noise *noise, uint64_t unit,
                     uint32_t state[FLK_NOISE_LANES])
{
  for (size_t k = 0; k < FLK_NOISE_LANES; k++) {
    uint64_t z = noise->lanes[k] + unit * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    state[k] = (uint32_t)((z ^ z >> 31) >> 32);
    if (state[k] == 0) state[k] = NONZERO_STATE;
  }
}

static void thc_begin(fli_encoding *encoding, uint32_t slot)
{
  const fli_agreed *agreed = encoding->agreed;
  if (agreed->compressor->mode == FL_THC_DITHER) {
    encoding->noise = agreed->dither;
    encoding->noise_offset = agreed->offsets[slot];
  } else {
    fli_noise_init(&encoding->noise, agreed->noise_seed, "thc uniform", slot);
    encoding->noise_offset = 0;
  }
}

static void thc_encode(fli_encoding *encoding, const fli_unit *unit,
                       float *block, double own, const flk_ahead *ahead,
                       uint8_t *dst)
{
  const fli_agreed *agreed = encoding->agreed;
  const fl_compressor *compressor = agreed->compressor;
  uint32_t state[FLK_NOISE_LANES];
  float norm = fli_agreed_norm(agreed, unit);
  int exponent;
  double mantissa = split_norm(norm, &exponent);
  double factor = fli_encoding_factor(encoding, own, norm);
  double g = (double)compressor->granularity;
  flk_grid grid = {
      .signs = compressor->signs + unit->index * SIGN_BYTES,
      .scale = (float)ldexp(factor, -exponent),
      .step = (float)(g / (2.0 * (double)agreed->clip * mantissa)),
      .bits = compressor->bits,
      .offset = encoding->noise_offset,
      .ahead = *ahead,
  };
  fli_noise_start(&encoding->noise, unit->index, state);
  uint32_t clamped =
      compressor->kernels->encode(dst, block, &grid, state, unit->padded);
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
  compressor->kernels->add_packed(lanes, width, src, unit->padded,
                                  compressor->bits);
}

/* Sum over the slots in the sum of U_s - 1/2, in 1/65536. All slots together
 * have (n V mod 65536) + sum of floor(65536 s / n) over s < n; from there, or
 * from 0, slots are taken or added one by one, whichever are fewer. The result
 * is the same integer both ways, and as at most half of the slots are looked
 * at, nothing on the way leaves 32 bits. */
static void set_dither(flk_lattice *lattice, const fli_mean *mean)
{
  const fli_agreed *agreed = mean->agreed;
  int64_t bias = -32768 * (int64_t)mean->tally->count;
  if (mean->sign < 0) {
    lattice->factor = agreed->slots;
    for (uint32_t s = 0; s < agreed->slots; s++)
      bias += agreed->offsets[s];
  }
  lattice->bias = (int32_t)bias;
  lattice->offsets = mean->offsets;
  lattice->n_offsets = mean->n_offsets;
  lattice->sign = mean->sign;
}

static void thc_decode(const fli_mean *mean, const fli_unit *unit, float *dst,
                       size_t stride, const uint8_t *lanes, uint32_t width)
{
  const fli_agreed *agreed = mean->agreed;
  const fl_compressor *compressor = agreed->compressor;
  double g = (double)compressor->granularity;
  double norm = (double)fli_agreed_norm(agreed, unit);
  double count = (double)mean->tally->count;
  uint32_t state[FLK_NOISE_LANES];
  flk_lattice lattice = {
      .signs = compressor->signs + unit->index * SIGN_BYTES,
      .width = width,
      .step = (float)(2.0 * (double)agreed->clip / (g * count)),
      .shift = -agreed->clip,
      .scale = (float)(mean->weight * norm / (double)unit->padded),
  };
  if (compressor->mode == FL_THC_DITHER) {
    set_dither(&lattice, mean);
    fli_noise_start(&agreed->dither, unit->index, state);
    lattice.state = state;
  }
  compressor->kernels->decode(dst, stride, lanes, &lattice, unit->padded);
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
