/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the activation cache as bytes: f32 as they are, f16, or int8 with a
 * scale, and the checksum over them. Loops are written for the vectoriser, in
 * integers or in float operations that IEEE defines to the last bit, so that
 * every CPU makes the same bytes. */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "cache/cache.h"

#define F32_INFINITY 0x7f800000
#define F16_MOST 0x477fe000 /* 65504 */
/* Adding it to a float below 1/4 rounds to multiples of 2^-24, what f16 below
 * 2^-14 consists of: 0.5 has bits HALF. */
#define HALF 0x3f000000
#define F16_NORMAL 0x38800000 /* 2^-14 */
/* Exponents of f32 and f16 differ by 112. */
#define REBIAS (112 << 23)
#define I8_MOST 127
/* Adding it to a float of at most 2^21 rounds to integers, by which its
 * bits then differ from ROUNDER's. */
#define ROUNDER 12582912.0f
#define ROUNDER_BITS 0x4b400000

static inline uint32_t bits_of(float v)
{
  return fli_f32_bits(v);
}

/* Bits of the largest magnitude. As integers they are ordered like the floats,
 * infinities and NaN above all. */
static int32_t largest(const float *x, size_t n)
{
  int32_t most = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t bits = (int32_t)(bits_of(x[i]) & 0x7fffffffu);
    most = bits > most ? bits : most;
  }
  return most;
}

/* All signed, for comparisons that every vector unit has, and a mask in place
 * of a choice, which compilers make a branch of. */
static inline uint16_t f16_of(float v)
{
  uint32_t bits = bits_of(v);
  int32_t size = (int32_t)(bits & 0x7fffffffu);
  size = size < F16_MOST ? size : F16_MOST;
  int32_t is_small = -(int32_t)(size < F16_NORMAL);
  float shifted = fli_f32_from_bits((uint32_t)size) + 0.5f;
  int32_t small = (int32_t)bits_of(shifted) - HALF;
  int32_t normal = (size - REBIAS + 0xfff + (size >> 13 & 1)) >> 13;
  int32_t half = (small & is_small) | (normal & ~is_small);
  return (uint16_t)((bits >> 16 & 0x8000u) | (uint32_t)half);
}

static void encode_f16(uint8_t *restrict row, const float *restrict x, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint16_t half = f16_of(x[i]);
    memcpy(row + 2 * i, &half, sizeof half);
  }
}

/* The product is exact: by its exponent, a denormal becomes a normal number. */
static void decode_f16(float *restrict x, const uint8_t *restrict row, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint16_t half;
    memcpy(&half, row + 2 * i, sizeof half);
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    float magnitude =
        fli_f32_from_bits((uint32_t)(half & 0x7fffu) << 13) * 0x1p112f;
    x[i] = fli_f32_from_bits(bits_of(magnitude) | sign);
  }
}

/* A row so small that its scale is 0 becomes zeros; near that the scale is
 * coarse, quotients are up to 1.5 times too large and have to be cut. */
static void quantise(uint8_t *restrict values, const float *restrict x,
                     size_t n, float scale)
{
  for (size_t i = 0; i < n; i++) {
    int32_t value = (int32_t)bits_of(x[i] / scale + ROUNDER) - ROUNDER_BITS;
    value = value < I8_MOST ? value : I8_MOST;
    value = value > -I8_MOST ? value : -I8_MOST;
    values[i] = (uint8_t)value;
  }
}

static void encode_i8(uint8_t *row, const float *x, size_t n)
{
  float scale = fli_f32_from_bits((uint32_t)largest(x, n)) / (float)I8_MOST;
  memset(row, 0, FLI_CACHE_SCALE);
  memcpy(row, &scale, sizeof scale);
  if (scale > 0.0f) {
    quantise(row + FLI_CACHE_SCALE, x, n, scale);
  } else {
    memset(row + FLI_CACHE_SCALE, 0, n);
  }
}

static void decode_i8(float *restrict x, const uint8_t *restrict row, size_t n)
{
  float scale;
  memcpy(&scale, row, sizeof scale);
  for (size_t i = 0; i < n; i++) {
    x[i] = (float)(int8_t)row[FLI_CACHE_SCALE + i] * scale;
  }
}

int fli_rows_are_finite(const float *x, size_t n)
{
  return largest(x, n) < F32_INFINITY;
}

uint64_t fli_row_bytes(uint32_t dtype, uint64_t n_values)
{
  if (dtype == FL_CACHE_F32) return 4 * n_values;
  return dtype == FL_CACHE_F16 ? 2 * n_values : FLI_CACHE_SCALE + n_values;
}

void fli_row_encode(uint32_t dtype, uint8_t *row, const float *x, size_t n)
{
  assert(dtype >= FL_CACHE_F32 && dtype <= FL_CACHE_I8);
  if (dtype == FL_CACHE_F32) {
    memcpy(row, x, n * sizeof *x);
  } else if (dtype == FL_CACHE_F16) {
    encode_f16(row, x, n);
  } else {
    encode_i8(row, x, n);
  }
}

int fli_row_decode(uint32_t dtype, float *x, const uint8_t *row, size_t n)
{
  assert(dtype >= FL_CACHE_F32 && dtype <= FL_CACHE_I8);
  if (dtype == FL_CACHE_F32) {
    memcpy(x, row, n * sizeof *x);
  } else if (dtype == FL_CACHE_F16) {
    decode_f16(x, row, n);
  } else {
    decode_i8(x, row, n);
  }
  return fli_rows_are_finite(x, n);
}

/* ---- checksum ------------------------------------------------------------ */

#define MIX_A UINT64_C(0x9e3779b97f4a7c15)
#define MIX_B UINT64_C(0xbf58476d1ce4e5b9)
#define MIX_C UINT64_C(0x94d049bb133111eb)

enum { LANES = 4, STRIPE = 8 * LANES };

static inline uint64_t rotated(uint64_t v, unsigned by)
{
  return v << by | v >> (64 - by);
}

/* A bijection of the lane for any word, and of the word for any lane (as a
 * round of XXH64): a word that is another one is never lost on the way. */
static inline uint64_t mixed(uint64_t lane, uint64_t word)
{
  return rotated(lane + word * MIX_A, 31) * MIX_B;
}

/* The finaliser of splitmix64, a bijection. */
static inline uint64_t finished(uint64_t v)
{
  v = (v ^ v >> 30) * MIX_B;
  v = (v ^ v >> 27) * MIX_C;
  return v ^ v >> 31;
}

static inline void mix_stripe(uint64_t lanes[LANES], const uint8_t *p)
{
  for (unsigned lane = 0; lane < LANES; lane++) {
    uint64_t word;
    memcpy(&word, p + 8 * lane, sizeof word);
    lanes[lane] = mixed(lanes[lane], word);
  }
}

uint64_t fli_row_sum(const uint8_t *row, size_t n, uint64_t seed, uint64_t id)
{
  uint64_t first = finished(seed + id * MIX_A);
  uint64_t lanes[LANES] = {first, first + MIX_A, first + MIX_B, first + MIX_C};
  size_t i = 0;
  for (; i + STRIPE <= n; i += STRIPE) {
    mix_stripe(lanes, row + i);
  }
  if (i < n) {
    uint8_t last[STRIPE] = {0};
    memcpy(last, row + i, n - i);
    mix_stripe(lanes, last);
  }
  return finished(rotated(lanes[0], 1) + rotated(lanes[1], 7) +
                  rotated(lanes[2], 12) + rotated(lanes[3], 18));
}
