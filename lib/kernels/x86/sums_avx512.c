/* SPDX-License-Identifier: Apache-2.0 */
/* Sums with AVX-512 (BW), as sums_avx2.c: low and high nibbles of 64 bytes
 * are summed apart, in registers, and put in order once per group. */
#include "kernels/x86/sums.h"

#include <immintrin.h>

enum { STEP = 128 /* coordinates */ };

static inline __m512i load(const uint8_t *p)
{
  return _mm512_loadu_si512(p);
}

static inline void add_8(uint8_t *lanes, __m512i v)
{
  _mm512_storeu_si512(lanes, _mm512_add_epi8(load(lanes), v));
}

static inline void add_16(uint8_t *lanes, __m256i v)
{
  __m512i sum = _mm512_add_epi16(load(lanes), _mm512_cvtepu8_epi16(v));
  _mm512_storeu_si512(lanes, sum);
}

static inline void add_32(uint8_t *lanes, __m128i v)
{
  __m512i sum = _mm512_add_epi32(load(lanes), _mm512_cvtepu8_epi32(v));
  _mm512_storeu_si512(lanes, sum);
}

/* 64 lanes += bytes. */
static inline void add_bytes(uint8_t *lanes, uint32_t width, __m512i v)
{
  __m256i half[2] = {_mm512_castsi512_si256(v),
                     _mm512_extracti64x4_epi64(v, 1)};
  if (width == FLK_U8) {
    add_8(lanes, v);
    return;
  }
  for (size_t k = 0; k < 2; k++) {
    if (width == FLK_U16) {
      add_16(lanes + 64 * k, half[k]);
    } else {
      add_32(lanes + 128 * k, _mm256_castsi256_si128(half[k]));
      add_32(lanes + 128 * k + 64, _mm256_extracti128_si256(half[k], 1));
    }
  }
}

/* 128 lanes += sums of the low and of the high nibbles of 64 bytes. */
static inline void add_sums(uint8_t *lanes, uint32_t width, __m512i low,
                            __m512i high)
{
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  __m512i a = _mm512_unpacklo_epi8(low, high);
  __m512i b = _mm512_unpackhi_epi8(low, high);
  add_bytes(lanes, width, _mm512_permutex2var_epi64(a, first, b));
  add_bytes(lanes + ((size_t)64 << width), width,
            _mm512_permutex2var_epi64(a, second, b));
}

/* Sums of whole bytes, modulo 256, less 16 times those of their high nibbles:
 * the sums of the low ones, which fit a byte. */
static inline __m512i less_high(__m512i whole, __m512i high)
{
  const __m512i nibble = _mm512_set1_epi8(15);
  high = _mm512_slli_epi16(_mm512_and_si512(high, nibble), 4);
  return _mm512_sub_epi8(whole, high);
}

/* Width and whether there are tables are constants where this is called. */
static inline void sum_all(uint8_t *lanes, uint32_t width,
                           const sum_fields *group, size_t n, int has_tables)
{
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t i = 0; i < n; i += STEP) {
    __m512i low = _mm512_setzero_si512(), high = low, table = low;
    for (size_t k = 0; k < group->count; k++) {
      const uint8_t *src = group->src[k] + group->skip + i / 2;
      fetch_on(src);
      __m512i a = load(src);
      __m512i b = _mm512_and_si512(_mm512_srli_epi16(a, 4), nibble);
      if (has_tables) {
        table = _mm512_broadcast_i32x4(
            _mm_loadu_si128((const __m128i *)group->tables[k]));
        a = _mm512_shuffle_epi8(table, _mm512_and_si512(a, nibble));
        b = _mm512_shuffle_epi8(table, b);
      }
      low = _mm512_add_epi8(low, a);
      high = _mm512_add_epi8(high, b);
    }
    if (!has_tables) low = less_high(low, high);
    add_sums(lanes + (i << width), width, low, high);
  }
}

static inline void add_words(uint8_t *lanes, uint32_t width, __m512i v)
{
  if (width == FLK_U16) {
    _mm512_storeu_si512(lanes, _mm512_add_epi16(load(lanes), v));
    return;
  }
  __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(v));
  __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1));
  _mm512_storeu_si512(lanes, _mm512_add_epi32(load(lanes), a));
  _mm512_storeu_si512(lanes + 64, _mm512_add_epi32(load(lanes + 64), b));
}

/* 128 lanes += sums in 16 bits: those of the low nibbles of even bytes, of odd
 * ones, and the high nibbles alike. */
static inline void add_word_sums(uint8_t *lanes, uint32_t width,
                                 const __m512i low[2], const __m512i high[2])
{
  __m512i even = _mm512_unpacklo_epi16(low[0], high[0]);
  __m512i odd = _mm512_unpacklo_epi16(low[1], high[1]);
  __m512i a = _mm512_unpacklo_epi32(even, odd);
  __m512i b = _mm512_unpackhi_epi32(even, odd);
  even = _mm512_unpackhi_epi16(low[0], high[0]);
  odd = _mm512_unpackhi_epi16(low[1], high[1]);
  __m512i c = _mm512_unpacklo_epi32(even, odd);
  __m512i d = _mm512_unpackhi_epi32(even, odd);
  /* Now quarter q of a, b, c, d belongs to the lanes from 32 q on. */
  __m512i first[2] = {_mm512_shuffle_i64x2(a, b, 0x44),
                      _mm512_shuffle_i64x2(c, d, 0x44)};
  __m512i last[2] = {_mm512_shuffle_i64x2(a, b, 0xee),
                     _mm512_shuffle_i64x2(c, d, 0xee)};
  size_t step = (size_t)32 << width;
  add_words(lanes, width, _mm512_shuffle_i64x2(first[0], first[1], 0x88));
  add_words(lanes + step, width,
            _mm512_shuffle_i64x2(first[0], first[1], 0xdd));
  add_words(lanes + 2 * step, width,
            _mm512_shuffle_i64x2(last[0], last[1], 0x88));
  add_words(lanes + 3 * step, width,
            _mm512_shuffle_i64x2(last[0], last[1], 0xdd));
}

/* Pairs of bytes are summed as they are, modulo 65536, and their high bytes
 * apart; that gives the low ones in the end. */
static inline void sum_in_words(uint8_t *lanes, uint32_t width,
                                const sum_fields *group, size_t n)
{
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t i = 0; i < n; i += STEP) {
    __m512i low[2], high[2];
    for (size_t h = 0; h < 2; h++)
      low[h] = high[h] = _mm512_setzero_si512();
    for (size_t k = 0; k < group->count; k++) {
      __m512i table = _mm512_broadcast_i32x4(
          _mm_loadu_si128((const __m128i *)group->tables[k]));
      const uint8_t *src = group->src[k] + group->skip + i / 2;
      fetch_on(src);
      __m512i v = load(src);
      __m512i a = _mm512_and_si512(v, nibble);
      __m512i b = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
      a = _mm512_shuffle_epi8(table, a);
      b = _mm512_shuffle_epi8(table, b);
      low[0] = _mm512_add_epi16(low[0], a);
      low[1] = _mm512_add_epi16(low[1], _mm512_srli_epi16(a, 8));
      high[0] = _mm512_add_epi16(high[0], b);
      high[1] = _mm512_add_epi16(high[1], _mm512_srli_epi16(b, 8));
    }
    low[0] = _mm512_sub_epi16(low[0], _mm512_slli_epi16(low[1], 8));
    high[0] = _mm512_sub_epi16(high[0], _mm512_slli_epi16(high[1], 8));
    add_word_sums(lanes + (i << width), width, low, high);
  }
}

#include "kernels/x86/fill_sums.h"

void flk_fill_sums_avx512(flk_table *table)
{
  fill_sums(table);
}
