/* SPDX-License-Identifier: Apache-2.0 */
/* Sums with NEON. Every place of an index in a byte is summed apart, in
 * registers, and the places are put in order once per group of updates. Indices
 * that add themselves are not taken apart at all: bytes are summed whole,
 * modulo 256, and shifted right by one index, by two, ...; one such sum is that
 * of its place plus 2^bits times the next. A shift with addition is one
 * instruction. Adding lanes to lanes has no code here: compilers turn the plain
 * loops into the same instructions. */
#include "kernels/arm/arm.h"

#include <arm_neon.h>

#include "base/compiler.h"
#include "kernels/sums.h"

#define INLINE static inline __attribute__((always_inline))

/* 256 coordinates and 16 sums in registers, for every number of bits. */
enum { STEP = 256, SUMS = STEP / 16, WORD_VECTORS = 4 };

INLINE uint16x8_t load_16(const uint8_t *p)
{
  return vreinterpretq_u16_u8(vld1q_u8(p));
}

INLINE uint32x4_t load_32(const uint8_t *p)
{
  return vreinterpretq_u32_u8(vld1q_u8(p));
}

INLINE void store_16(uint8_t *p, uint16x8_t v)
{
  vst1q_u8(p, vreinterpretq_u8_u16(v));
}

INLINE void store_32(uint8_t *p, uint32x4_t v)
{
  vst1q_u8(p, vreinterpretq_u8_u32(v));
}

/* 8 lanes += words. */
INLINE void add_words(uint8_t *lanes, uint32_t width, uint16x8_t v)
{
  if (width == FLK_U16) {
    store_16(lanes, vaddq_u16(load_16(lanes), v));
  } else {
    store_32(lanes, vaddw_u16(load_32(lanes), vget_low_u16(v)));
    store_32(lanes + 16, vaddw_high_u16(load_32(lanes + 16), v));
  }
}

/* 16 lanes += bytes. */
INLINE void add_bytes(uint8_t *lanes, uint32_t width, uint8x16_t v)
{
  if (width == FLK_U8) {
    vst1q_u8(lanes, vaddq_u8(vld1q_u8(lanes), v));
  } else if (width == FLK_U16) {
    store_16(lanes, vaddw_u8(load_16(lanes), vget_low_u8(v)));
    store_16(lanes + 16, vaddw_high_u8(load_16(lanes + 16), v));
  } else {
    add_words(lanes, width, vmovl_u8(vget_low_u8(v)));
    add_words(lanes + 32, width, vmovl_high_u8(v));
  }
}

/* Bytes of `count` vectors, 2, 4 or 8, one of each in turn. */
INLINE void interleave(uint8x16_t *v, size_t count)
{
  for (size_t step = 1; step < count; step *= 2) {
    uint8x16_t was[8];
    for (size_t k = 0; k < count; k++)
      was[k] = v[k];
    for (size_t k = 0; k < count / 2; k++) {
      v[2 * k] = vzip1q_u8(was[k], was[k + count / 2]);
      v[2 * k + 1] = vzip2q_u8(was[k], was[k + count / 2]);
    }
  }
}

/* STEP lanes += sums, `places` of which belong to the same 16 bytes. */
INLINE void add_sums(uint8_t *lanes, uint32_t width, uint8x16_t sum[SUMS],
                     size_t places)
{
  /* Left to itself gcc would keep all sums in memory as well. */
  FLI_UNROLL(8)
  for (size_t i = 0; i < SUMS; i += places)
    interleave(sum + i, places);
  if (width == FLK_U8) {
    for (size_t i = 0; i < SUMS; i++)
      add_bytes(lanes + 16 * i, FLK_U8, sum[i]);
  } else if (width == FLK_U16) {
    for (size_t i = 0; i < SUMS; i++)
      add_bytes(lanes + 32 * i, FLK_U16, sum[i]);
  } else {
    for (size_t i = 0; i < SUMS; i++)
      add_bytes(lanes + 64 * i, FLK_U32, sum[i]);
  }
}

/* `bits` is a constant where this is called, as below. */
INLINE void sum_plain(uint8_t *lanes, uint32_t width, const sum_fields *group,
                      size_t n, int bits)
{
  const size_t places = 8u / (unsigned int)bits;
  for (size_t i = 0; i < n; i += STEP) {
    uint8x16_t sum[SUMS];
    for (size_t h = 0; h < SUMS; h++)
      sum[h] = vdupq_n_u8(0);
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / places;
      for (size_t h = 0; h < SUMS / places; h++) {
        uint8x16_t v = vld1q_u8(src + 16 * h);
        for (size_t p = 0; p < places; p++)
          sum[places * h + p] += v >> bits * (int)p;
      }
    }
    for (size_t h = 0; h < SUMS; h++) {
      if (h % places < places - 1) sum[h] -= sum[h + 1] << bits;
    }
    add_sums(lanes + (i << width), width, sum, places);
  }
}

/* For every nibble what the index in its place p adds. */
INLINE uint8x16_t nibble_table(uint8x16_t table, size_t p, int bits)
{
  const uint8x16_t nibbles = {0, 1, 2,  3,  4,  5,  6,  7,
                              8, 9, 10, 11, 12, 13, 14, 15};
  uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << bits) - 1));
  if (bits == 4) return table;
  return vqtbl1q_u8(table, nibbles >> bits * (int)p & mask);
}

INLINE void sum_looked_up(uint8_t *lanes, uint32_t width,
                          const sum_fields *group, size_t n, int bits)
{
  const size_t places = 8u / (unsigned int)bits, half = places / 2;
  const uint8x16_t nibble = vdupq_n_u8(15);
  for (size_t i = 0; i < n; i += STEP) {
    uint8x16_t sum[SUMS];
    for (size_t h = 0; h < SUMS; h++)
      sum[h] = vdupq_n_u8(0);
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / places;
      uint8x16_t table[4];
      for (size_t p = 0; p < half; p++)
        table[p] = nibble_table(vld1q_u8(group->tables[k]), p, bits);
      for (size_t h = 0; h < SUMS / places; h++) {
        uint8x16_t v = vld1q_u8(src + 16 * h), *to = sum + places * h;
        uint8x16_t low = vandq_u8(v, nibble), high = vshrq_n_u8(v, 4);
        for (size_t p = 0; p < half; p++) {
          to[p] = vaddq_u8(to[p], vqtbl1q_u8(table[p], low));
          to[p + half] = vaddq_u8(to[p + half], vqtbl1q_u8(table[p], high));
        }
      }
    }
    add_sums(lanes + (i << width), width, sum, places);
  }
}

/* 16 lanes += sums of eight low and eight high nibbles. */
INLINE void add_word_sums(uint8_t *lanes, uint32_t width, uint16x8_t low,
                          uint16x8_t high)
{
  add_words(lanes, width, vzip1q_u16(low, high));
  add_words(lanes + ((size_t)8 << width), width, vzip2q_u16(low, high));
}

INLINE void sum_in_words(uint8_t *lanes, uint32_t width,
                         const sum_fields *group, size_t n)
{
  const uint8x16_t nibble = vdupq_n_u8(15);
  for (size_t i = 0; i < n; i += 32 * WORD_VECTORS) {
    uint16x8_t low[2 * WORD_VECTORS], high[2 * WORD_VECTORS];
    for (size_t h = 0; h < 2 * WORD_VECTORS; h++)
      low[h] = high[h] = vdupq_n_u16(0);
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / 2;
      uint8x16_t table = vld1q_u8(group->tables[k]);
      for (size_t h = 0; h < 2 * WORD_VECTORS; h += 2) {
        uint8x16_t v = vld1q_u8(src + 8 * h);
        uint8x16_t a = vqtbl1q_u8(table, vandq_u8(v, nibble));
        uint8x16_t b = vqtbl1q_u8(table, vshrq_n_u8(v, 4));
        low[h] = vaddw_u8(low[h], vget_low_u8(a));
        low[h + 1] = vaddw_high_u8(low[h + 1], a);
        high[h] = vaddw_u8(high[h], vget_low_u8(b));
        high[h + 1] = vaddw_high_u8(high[h + 1], b);
      }
    }
    for (size_t h = 0; h < 2 * WORD_VECTORS; h++)
      add_word_sums(lanes + ((i + 16 * h) << width), width, low[h], high[h]);
  }
}

static void fields(uint8_t *lanes, uint32_t width, const sum_fields *group,
                   size_t n)
{
  if (group->kind == SUM_WORDS && width == FLK_U16) {
    sum_in_words(lanes, FLK_U16, group, n);
  } else if (group->kind == SUM_WORDS) {
    sum_in_words(lanes, FLK_U32, group, n);
  } else if (group->bits == 4 && group->tables) {
    sum_looked_up(lanes, width, group, n, 4);
  } else if (group->bits == 4) {
    sum_plain(lanes, width, group, n, 4);
  } else if (group->bits == 2 && group->tables) {
    sum_looked_up(lanes, width, group, n, 2);
  } else if (group->bits == 2) {
    sum_plain(lanes, width, group, n, 2);
  } else if (group->tables) {
    sum_looked_up(lanes, width, group, n, 1);
  } else {
    sum_plain(lanes, width, group, n, 1);
  }
}

void flk_add_packed_neon(uint8_t *lanes, uint32_t width,
                         const flk_packed *packed, size_t n)
{
  sum_packed(lanes, width, packed, n, fields);
}
