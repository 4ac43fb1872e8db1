/* SPDX-License-Identifier: Apache-2.0 */
/* Sums with AVX2. Low and high nibbles of 64 bytes are summed apart, in
 * registers, and put in order once per group of updates. */
#include "kernels/x86/sums.h"

#include <immintrin.h>

enum { STEP = 128 /* coordinates */ };

static inline __m256i load(const uint8_t *p)
{
  return _mm256_loadu_si256((const __m256i *)p);
}

static inline void add_8(uint8_t *lanes, __m256i v)
{
  _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi8(load(lanes), v));
}

static inline void add_16(uint8_t *lanes, __m128i v)
{
  __m256i sum = _mm256_add_epi16(load(lanes), _mm256_cvtepu8_epi16(v));
  _mm256_storeu_si256((__m256i *)lanes, sum);
}

static inline void add_32(uint8_t *lanes, __m128i v)
{
  __m256i a = _mm256_cvtepu8_epi32(v);
  __m256i b = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(v, v));
  a = _mm256_add_epi32(a, load(lanes));
  b = _mm256_add_epi32(b, load(lanes + 32));
  _mm256_storeu_si256((__m256i *)lanes, a);
  _mm256_storeu_si256((__m256i *)(lanes + 32), b);
}

/* 64 lanes += sums of the low and of the high nibbles of 32 bytes. */
static inline void add_sums(uint8_t *lanes, uint32_t width, __m256i low,
                            __m256i high)
{
  __m256i a = _mm256_unpacklo_epi8(low, high);
  __m256i b = _mm256_unpackhi_epi8(low, high);
  __m128i v[4] = {_mm256_castsi256_si128(a), _mm256_castsi256_si128(b),
                  _mm256_extracti128_si256(a, 1),
                  _mm256_extracti128_si256(b, 1)};
  if (width == FLK_U8) {
    add_8(lanes, _mm256_permute2x128_si256(a, b, 0x20));
    add_8(lanes + 32, _mm256_permute2x128_si256(a, b, 0x31));
  } else if (width == FLK_U16) {
    for (size_t k = 0; k < 4; k++)
      add_16(lanes + 32 * k, v[k]);
  } else {
    for (size_t k = 0; k < 4; k++)
      add_32(lanes + 64 * k, v[k]);
  }
}

/* Sums of whole bytes, modulo 256, less 16 times those of their high nibbles:
 * the sums of the low ones, which fit a byte. */
static inline __m256i less_high(__m256i whole, __m256i high)
{
  const __m256i nibble = _mm256_set1_epi8(15);
  high = _mm256_slli_epi16(_mm256_and_si256(high, nibble), 4);
  return _mm256_sub_epi8(whole, high);
}

/* Width and whether there are tables are constants where this is called. */
static inline void sum_all(uint8_t *lanes, uint32_t width,
                           const sum_fields *group, size_t n, int has_tables)
{
  const __m256i nibble = _mm256_set1_epi8(15);
  for (size_t i = 0; i < n; i += STEP) {
    __m256i low[2], high[2];
    for (size_t h = 0; h < 2; h++)
      low[h] = high[h] = _mm256_setzero_si256();
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / 2;
      __m256i table = _mm256_setzero_si256();
      if (has_tables) {
        table = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)group->tables[k]));
      }
      fetch_on(src);
      for (size_t h = 0; h < 2; h++) {
        __m256i a = load(src + 32 * h);
        __m256i b = _mm256_and_si256(_mm256_srli_epi16(a, 4), nibble);
        if (has_tables) {
          a = _mm256_shuffle_epi8(table, _mm256_and_si256(a, nibble));
          b = _mm256_shuffle_epi8(table, b);
        }
        low[h] = _mm256_add_epi8(low[h], a);
        high[h] = _mm256_add_epi8(high[h], b);
      }
    }
    for (size_t h = 0; h < 2 && !has_tables; h++)
      low[h] = less_high(low[h], high[h]);
    for (size_t h = 0; h < 2; h++)
      add_sums(lanes + ((i + 64 * h) << width), width, low[h], high[h]);
  }
}

static inline void add_words(uint8_t *lanes, uint32_t width, __m256i v)
{
  if (width == FLK_U16) {
    v = _mm256_add_epi16(load(lanes), v);
    _mm256_storeu_si256((__m256i *)lanes, v);
    return;
  }
  __m256i a = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(v));
  __m256i b = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1));
  a = _mm256_add_epi32(a, load(lanes));
  b = _mm256_add_epi32(b, load(lanes + 32));
  _mm256_storeu_si256((__m256i *)lanes, a);
  _mm256_storeu_si256((__m256i *)(lanes + 32), b);
}

/* 64 lanes += sums in 16 bits: those of the low nibbles of even bytes, of odd
 * ones, and the high nibbles alike. */
static inline void add_word_sums(uint8_t *lanes, uint32_t width,
                                 const __m256i low[2], const __m256i high[2])
{
  __m256i even = _mm256_unpacklo_epi16(low[0], high[0]);
  __m256i odd = _mm256_unpacklo_epi16(low[1], high[1]);
  __m256i a = _mm256_unpacklo_epi32(even, odd);
  __m256i b = _mm256_unpackhi_epi32(even, odd);
  even = _mm256_unpackhi_epi16(low[0], high[0]);
  odd = _mm256_unpackhi_epi16(low[1], high[1]);
  __m256i c = _mm256_unpacklo_epi32(even, odd);
  __m256i d = _mm256_unpackhi_epi32(even, odd);
  size_t step = (size_t)16 << width;
  add_words(lanes, width, _mm256_permute2x128_si256(a, b, 0x20));
  add_words(lanes + step, width, _mm256_permute2x128_si256(c, d, 0x20));
  add_words(lanes + 2 * step, width, _mm256_permute2x128_si256(a, b, 0x31));
  add_words(lanes + 3 * step, width, _mm256_permute2x128_si256(c, d, 0x31));
}

/* Pairs of bytes are summed as they are, modulo 65536, and their high bytes
 * apart; that gives the low ones in the end. */
static inline void sum_in_words(uint8_t *lanes, uint32_t width,
                                const sum_fields *group, size_t n)
{
  const __m256i nibble = _mm256_set1_epi8(15);
  for (size_t i = 0; i < n; i += STEP / 2) {
    __m256i low[2], high[2];
    for (size_t h = 0; h < 2; h++)
      low[h] = high[h] = _mm256_setzero_si256();
    for (size_t k = 0; k < group->count; k++) {
      __m256i table = _mm256_broadcastsi128_si256(
          _mm_loadu_si128((const __m128i *)group->tables[k]));
      const uint8_t *src = group->src[k] + group->skip + i / 2;
      fetch_on(src);
      __m256i v = load(src);
      __m256i a = _mm256_and_si256(v, nibble);
      __m256i b = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
      a = _mm256_shuffle_epi8(table, a);
      b = _mm256_shuffle_epi8(table, b);
      low[0] = _mm256_add_epi16(low[0], a);
      low[1] = _mm256_add_epi16(low[1], _mm256_srli_epi16(a, 8));
      high[0] = _mm256_add_epi16(high[0], b);
      high[1] = _mm256_add_epi16(high[1], _mm256_srli_epi16(b, 8));
    }
    low[0] = _mm256_sub_epi16(low[0], _mm256_slli_epi16(low[1], 8));
    high[0] = _mm256_sub_epi16(high[0], _mm256_slli_epi16(high[1], 8));
    add_word_sums(lanes + (i << width), width, low, high);
  }
}

/* Bytes of `count` vectors, 2, 4 or 8, one of each in turn: in every half of
 * the registers, v[0] has the first 16, and so on. */
static inline void interleave(__m256i *v, size_t count)
{
  for (size_t step = 1, wide = 8; step < count; step *= 2, wide *= 2) {
    __m256i a[8];
    for (size_t k = 0; k < count; k++)
      a[k] = v[k];
    for (size_t k = 0; k < count / 2; k++) {
      size_t from = k / step * 2 * step + k % step;
      __m256i x = a[from], y = a[from + step];
      size_t to = k / step * 2 * step + 2 * (k % step);
      v[to] = wide == 8    ? _mm256_unpacklo_epi8(x, y)
              : wide == 16 ? _mm256_unpacklo_epi16(x, y)
                           : _mm256_unpacklo_epi32(x, y);
      v[to + 1] = wide == 8    ? _mm256_unpackhi_epi8(x, y)
                  : wide == 16 ? _mm256_unpackhi_epi16(x, y)
                               : _mm256_unpackhi_epi32(x, y);
    }
  }
}

static inline void add_16_lanes(uint8_t *lanes, uint32_t width, __m128i v)
{
  if (width == FLK_U8) {
    __m128i was = _mm_loadu_si128((const __m128i *)lanes);
    _mm_storeu_si128((__m128i *)lanes, _mm_add_epi8(was, v));
  } else if (width == FLK_U16) {
    add_16(lanes, v);
  } else {
    add_32(lanes, v);
  }
}

/* Every place of an index in a byte is summed apart; `bits` is a constant where
 * this is called. */
static inline void sum_few_bits(uint8_t *lanes, uint32_t width,
                                const sum_fields *group, size_t n, int bits)
{
  const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
  const size_t count = 8u / (unsigned int)bits;
  for (size_t i = 0; i < n; i += 32 * count) {
    __m256i sum[8];
    for (size_t f = 0; f < count; f++)
      sum[f] = _mm256_setzero_si256();
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / count;
      fetch_on(src);
      __m256i v = load(src);
      __m256i table = _mm256_setzero_si256();
      if (group->tables) {
        table = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)group->tables[k]));
      }
      for (size_t f = 0; f < count; f++) {
        __m256i index = _mm256_and_si256(v, mask);
        v = _mm256_srli_epi16(v, bits);
        if (group->tables) index = _mm256_shuffle_epi8(table, index);
        sum[f] = _mm256_add_epi8(sum[f], index);
      }
    }
    interleave(sum, count);
    for (size_t f = 0; f < count; f++) {
      uint8_t *first = lanes + ((i + 16 * f) << width);
      uint8_t *second = first + ((16 * count) << width);
      add_16_lanes(first, width, _mm256_castsi256_si128(sum[f]));
      add_16_lanes(second, width, _mm256_extracti128_si256(sum[f], 1));
    }
  }
}

void flk_sum_few_bits_avx2(uint8_t *lanes, uint32_t width,
                           const sum_fields *group, size_t n)
{
  if (group->bits == 1) {
    sum_few_bits(lanes, width, group, n, 1);
  } else {
    sum_few_bits(lanes, width, group, n, 2);
  }
}

#include "kernels/x86/fill_sums.h"

void flk_fill_sums_avx2(flk_table *table)
{
  fill_sums(table);
}
