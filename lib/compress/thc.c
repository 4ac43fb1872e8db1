/* SPDX-License-Identifier: Apache-2.0 */
/* The THC codec: Li et al., "THC: Accelerating Distributed Deep Learning Using
 * Tensor Homomorphic Compression", NSDI 2024, integer grid, with stochastic
 * rounding or with stratified subtractive dither. docs/design/thc.md has the
 * formulas; names here are its names. Here: options, signs, noise and lanes;
 * the ways in and out are thc_encode.c and thc_decode.c. */
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "compress/compressor.h"
#include "compress/table.h"

/* Lanes are converted to float32 by way of int32, twice as large. */
#define LANE_MAX ((UINT64_C(1) << 30) - 1)

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

static fl_status thc_configure(fl_compressor *compressor,
                               const fl_compressor_options *options)
{
  fl_status st = check_grid(options);
  if (st != FL_OK) return st;
  uint32_t top = (1u << options->bits) - 1u;
  float clip = options->clip;
  if (clip != 0.0f && !(clip >= FLI_CLIP_MIN && clip <= FLI_CLIP_MAX)) {
    return fli_error(FL_E_OPTIONS, "clip: got %g, want 0 or %g..%g",
                     (double)clip, (double)FLI_CLIP_MIN, (double)FLI_CLIP_MAX);
  }
  compressor->mode = options->thc_mode;
  compressor->bits = options->bits;
  compressor->granularity = top;
  compressor->clip = clip;
  if (options->thc_mode == FL_THC_TABLE) {
    st = fli_table_configure(compressor, options);
    if (st != FL_OK) return st;
  }
  if (clip != 0.0f) return FL_OK;
  if (!compressor->chooser)
    return fli_error(FL_E_OPTIONS, "clip: got 0, want what was agreed on");
  compressor->clip = compressor->chooser->clip(compressor, 1, 0.0, 1.0);
  return FL_OK;
}

void fli_rotation_signs(uint8_t *signs, uint64_t n_units,
                        const uint8_t seed[FL_SEED_BYTES])
{
  uint8_t key[FLI_KEY_BYTES];
  fli_derive(key, seed, "thc signs", 0, 0);
  for (uint64_t u = 0; u < n_units; u++) {
    fli_chacha20(signs + u * FLI_SIGN_BYTES, FLI_SIGN_BYTES, key, u, 0);
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
void fli_noise_start(const fli_noise *noise, uint64_t unit, flk_noise *start)
{
  for (size_t k = 0; k < FLK_NOISE_LANES; k++) {
    uint64_t z = noise->lanes[k] + unit * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    start->state[k] = (uint32_t)(z >> 32);
    start->step[k] = (uint32_t)z | 0x10001u;
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

/* Dither counts on every slot's noise once. */
static uint32_t thc_most_weight(const fli_agreed *agreed)
{
  int is_dither = agreed->compressor->mode == FL_THC_DITHER;
  return is_dither ? 1 : FL_MAX_LANE_WEIGHT;
}

static uint64_t thc_most_total(const fli_agreed *agreed)
{
  return LANE_MAX / agreed->compressor->granularity;
}

static uint64_t thc_lane_limit(const fli_agreed *agreed, uint32_t segment,
                               uint64_t total)
{
  return total * agreed->compressor->granularity;
}

static uint32_t thc_lane_width(const fli_agreed *agreed, uint64_t total)
{
  uint64_t limit = thc_lane_limit(agreed, 0, total);
  return limit <= UINT8_MAX ? FLK_U8 : limit <= UINT16_MAX ? FLK_U16 : FLK_U32;
}

static int thc_add(const fli_agreed *agreed, const fli_addends *addends,
                   uint8_t *lanes, uint32_t width)
{
  const fl_compressor *compressor = agreed->compressor;
  flk_packed packed = {
      .src = addends->src,
      .skip = (size_t)(addends->first * compressor->bits / 8),
      .weights = addends->weights,
      .count = addends->count,
      .bits = compressor->bits,
      .values = compressor->values,
  };
  compressor->kernels->add_packed(lanes, width, &packed, addends->n);
  return 0;
}

const fli_codec fli_codec_thc = {
    .id = FL_CODEC_THC,
    .name = "thc",
    .is_rotated = 1,
    .min_norm = 0x1p-80f,
    .configure = thc_configure,
    .begin = thc_begin,
    .encode = fli_thc_encode,
    .most_weight = thc_most_weight,
    .most_total = thc_most_total,
    .lane_width = thc_lane_width,
    .lane_limit = thc_lane_limit,
    .check = NULL,
    .add = thc_add,
    .decode = fli_thc_decode,
};
