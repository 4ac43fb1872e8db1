/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 (F, BW, DQ, VL): a line is one register. */
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#define WIDTH 16
typedef __m512 vec;
typedef __m512i ivec;

static inline vec vec_load(const float *p)
{
  return _mm512_loadu_ps(p);
}

static inline void vec_store(float *p, vec v)
{
  _mm512_storeu_ps(p, v);
}

static inline vec vec_set1(float v)
{
  return _mm512_set1_ps(v);
}

static inline vec vec_zero(void)
{
  return _mm512_setzero_ps();
}

static inline vec vec_add(vec a, vec b)
{
  return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
  return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
  return _mm512_mul_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
  return _mm512_fmadd_ps(a, b, c);
}

static inline vec vec_min(vec a, vec b)
{
  return _mm512_min_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
  return _mm512_max_ps(a, b);
}

/* `minus` where the bit is set. */
static inline vec vec_pick(const uint8_t *bits, vec plus, vec minus)
{
  uint16_t mask;
  memcpy(&mask, bits, sizeof mask);
  return _mm512_mask_blend_ps(mask, plus, minus);
}

static inline vec vec_from_int(ivec v)
{
  return _mm512_cvtepi32_ps(v);
}

static inline ivec vec_to_int(vec v)
{
  return _mm512_cvttps_epi32(v);
}

/* One less where a and b differ. */
static inline ivec vec_count(ivec count, vec a, vec b)
{
  __mmask16 differs = _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
  return _mm512_mask_sub_epi32(count, differs, count, _mm512_set1_epi32(1));
}

static inline ivec int_set1(uint32_t v)
{
  return _mm512_set1_epi32((int)v);
}

static inline ivec int_load(const uint32_t *p)
{
  return _mm512_loadu_si512(p);
}

static inline void int_store(uint32_t *p, ivec v)
{
  _mm512_storeu_si512(p, v);
}

static inline ivec int_add(ivec a, ivec b)
{
  return _mm512_add_epi32(a, b);
}

static inline ivec int_sub(ivec a, ivec b)
{
  return _mm512_sub_epi32(a, b);
}

/* The low 16 bits of a b, for a below 65536. */
static inline ivec int_mul16(ivec a, ivec b)
{
  return _mm512_mullo_epi16(a, b);
}

static inline ivec int_low(ivec v)
{
  return _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
}

static inline ivec int_high(ivec v)
{
  return _mm512_srli_epi32(v, 16);
}

static inline ivec int_xorshift(ivec x)
{
  x = _mm512_xor_si512(x, _mm512_slli_epi32(x, 13));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 17));
  return _mm512_xor_si512(x, _mm512_slli_epi32(x, 5));
}

static inline int32_t int_sum(ivec v)
{
  return _mm512_reduce_add_epi32(v);
}

static inline ivec int_lanes(const uint8_t *p, uint32_t width)
{
  if (width == FLK_U8) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
  }
  if (width == FLK_U16) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  }
  return _mm512_loadu_si512(p);
}

/* Two lines of indices, 4 bits each. */
static inline void store_nibbles(uint8_t *dst, const ivec *index)
{
  ivec a = _mm512_or_si512(index[0], _mm512_srli_epi64(index[0], 28));
  ivec b = _mm512_or_si512(index[1], _mm512_srli_epi64(index[1], 28));
  _mm_storeu_si128((__m128i *)dst, _mm_unpacklo_epi64(_mm512_cvtepi64_epi8(a),
                                                      _mm512_cvtepi64_epi8(b)));
}

static inline void store_bytes(uint8_t *dst, const ivec *index)
{
  _mm_storeu_si128((__m128i *)dst, _mm512_cvtepi32_epi8(index[0]));
  _mm_storeu_si128((__m128i *)(dst + 16), _mm512_cvtepi32_epi8(index[1]));
}

/* (a, b) -> (a + b, a - b) inside a line: with the partners in `other`,
 * x * +-1 + other is a + b or a - b in one rounding. */
static inline vec butterfly(vec x, vec other, uint16_t second)
{
  vec one =
      _mm512_mask_blend_ps(second, _mm512_set1_ps(1.0f), _mm512_set1_ps(-1.0f));
  return _mm512_fmadd_ps(x, one, other);
}

static inline vec apart_8(vec x)
{
  return butterfly(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
}

static inline vec apart_4(vec x)
{
  return butterfly(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
}

static inline vec apart_2(vec x)
{
  return butterfly(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
}

static inline vec apart_1(vec x)
{
  return butterfly(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
}

static inline void line_down(vec *line)
{
  line[0] = apart_1(apart_2(apart_4(apart_8(line[0]))));
}

static inline void line_up(vec *line)
{
  line[0] = apart_8(apart_4(apart_2(apart_1(line[0]))));
}

#include "kernels/x86/block.h"

static double sum_squares(const float *x, size_t n)
{
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (size_t i = 0; i < n; i += FLK_LINE) {
    uint32_t all = n - i < FLK_LINE ? (1u << (n - i)) - 1u : 0xffffu;
    __mmask16 here = (__mmask16)all;
    vec v = _mm512_maskz_loadu_ps(here, x + i);
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    low = _mm512_fmadd_pd(a, a, low);
    high = _mm512_fmadd_pd(b, b, high);
  }
  low = _mm512_add_pd(low, high);
  __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(low),
                               _mm512_extractf64x4_pd(low, 1));
  __m128d two =
      _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

void flk_fill_avx512(flk_table *table)
{
  table->name = "avx512";
  table->sum_squares = sum_squares;
  table->gather = gather;
  table->encode = encode_block;
  table->decode = decode_block;
}
