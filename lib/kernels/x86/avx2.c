/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA: a line is two registers. Also what is bound by memory and
 * gains nothing from wider registers. */
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#define WIDTH 8
typedef __m256 vec;
typedef __m256i ivec;

static inline vec vec_load(const float *p)
{
  return _mm256_loadu_ps(p);
}

static inline void vec_store(float *p, vec v)
{
  _mm256_storeu_ps(p, v);
}

static inline vec vec_set1(float v)
{
  return _mm256_set1_ps(v);
}

static inline vec vec_zero(void)
{
  return _mm256_setzero_ps();
}

static inline vec vec_add(vec a, vec b)
{
  return _mm256_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
  return _mm256_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
  return _mm256_mul_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
  return _mm256_fmadd_ps(a, b, c);
}

static inline vec vec_min(vec a, vec b)
{
  return _mm256_min_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
  return _mm256_max_ps(a, b);
}

/* `minus` where the bit is set. */
static inline vec vec_pick(const uint8_t *bits, vec plus, vec minus)
{
  const ivec to_sign = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  ivec mask = _mm256_sllv_epi32(_mm256_set1_epi32(*bits), to_sign);
  return _mm256_blendv_ps(plus, minus, _mm256_castsi256_ps(mask));
}

static inline vec vec_from_int(ivec v)
{
  return _mm256_cvtepi32_ps(v);
}

static inline ivec vec_to_int(vec v)
{
  return _mm256_cvttps_epi32(v);
}

/* One less where a and b differ. */
static inline ivec vec_count(ivec count, vec a, vec b)
{
  vec differs = _mm256_cmp_ps(a, b, _CMP_NEQ_UQ);
  return _mm256_add_epi32(count, _mm256_castps_si256(differs));
}

static inline ivec int_set1(uint32_t v)
{
  return _mm256_set1_epi32((int)v);
}

static inline ivec int_load(const uint32_t *p)
{
  return _mm256_loadu_si256((const __m256i *)p);
}

static inline void int_store(uint32_t *p, ivec v)
{
  _mm256_storeu_si256((__m256i *)p, v);
}

static inline ivec int_add(ivec a, ivec b)
{
  return _mm256_add_epi32(a, b);
}

static inline ivec int_sub(ivec a, ivec b)
{
  return _mm256_sub_epi32(a, b);
}

/* The low 16 bits of a b, for a below 65536. */
static inline ivec int_mul16(ivec a, ivec b)
{
  return _mm256_mullo_epi16(a, b);
}

static inline ivec int_low(ivec v)
{
  return _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
}

static inline ivec int_high(ivec v)
{
  return _mm256_srli_epi32(v, 16);
}

static inline ivec int_xorshift(ivec x)
{
  x = _mm256_xor_si256(x, _mm256_slli_epi32(x, 13));
  x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 17));
  return _mm256_xor_si256(x, _mm256_slli_epi32(x, 5));
}

static inline int32_t int_sum(ivec v)
{
  int32_t lane[WIDTH], sum = 0;
  _mm256_storeu_si256((__m256i *)lane, v);
  for (int k = 0; k < WIDTH; k++)
    sum += lane[k];
  return sum;
}

static inline ivec int_lanes(const uint8_t *p, uint32_t width)
{
  if (width == FLK_U8) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
  }
  if (width == FLK_U16) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
  }
  return _mm256_loadu_si256((const __m256i *)p);
}

/* Two lines as bytes; of the first, 0-3 and 8-11 in the low half and 4-7 and
 * 12-15 in the high one, then the second alike. */
static inline ivec two_lines(const ivec *index)
{
  return _mm256_packus_epi16(_mm256_packus_epi32(index[0], index[1]),
                             _mm256_packus_epi32(index[2], index[3]));
}

/* Two lines of indices, 4 bits each. */
static inline void store_nibbles(uint8_t *dst, const ivec *index)
{
  ivec pairs =
      _mm256_maddubs_epi16(two_lines(index), _mm256_set1_epi16(0x1001));
  ivec packed = _mm256_packus_epi16(pairs, pairs);
  _mm_storeu_si128((__m128i *)dst,
                   _mm_unpacklo_epi16(_mm256_castsi256_si128(packed),
                                      _mm256_extracti128_si256(packed, 1)));
}

static inline void store_bytes(uint8_t *dst, const ivec *index)
{
  const ivec order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256((__m256i *)dst,
                      _mm256_permutevar8x32_epi32(two_lines(index), order));
}

/* (a, b) -> (a + b, a - b) inside a register: with the partners in `other`,
 * x * +-1 + other is a + b or a - b in one rounding. */
static inline vec apart_4(vec x)
{
  const vec one = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute2f128_ps(x, x, 1));
}

static inline vec apart_2(vec x)
{
  const vec one = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute_ps(x, 0x4e));
}

static inline vec apart_1(vec x)
{
  const vec one = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute_ps(x, 0xb1));
}

static inline void line_down(vec *line)
{
  vec sum = vec_add(line[0], line[1]);
  vec difference = vec_sub(line[0], line[1]);
  line[0] = apart_1(apart_2(apart_4(sum)));
  line[1] = apart_1(apart_2(apart_4(difference)));
}

static inline void line_up(vec *line)
{
  vec a = apart_4(apart_2(apart_1(line[0])));
  vec b = apart_4(apart_2(apart_1(line[1])));
  line[0] = vec_add(a, b);
  line[1] = vec_sub(a, b);
}

#include "kernels/x86/block.h"

static size_t find_not_finite(const float *x, size_t n)
{
  const __m256i exponent = _mm256_set1_epi32(0x7f800000);
  size_t i = 0;
  for (; i + 4 * WIDTH <= n; i += 4 * WIDTH) {
    __m256i found = _mm256_setzero_si256();
    for (size_t k = 0; k < 4 * WIDTH; k += WIDTH) {
      __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i + k));
      bits = _mm256_and_si256(bits, exponent);
      found = _mm256_or_si256(found, _mm256_cmpeq_epi32(bits, exponent));
    }
    if (!_mm256_testz_si256(found, found)) break;
  }
  return i + flk_find_not_finite_c(x + i, n - i);
}

static double sum_squares(const float *x, size_t n)
{
  __m256d acc[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(),
                    _mm256_setzero_pd(), _mm256_setzero_pd()};
  float rest[FLK_LINE] = {0};
  for (size_t i = 0; i < n; i += FLK_LINE) {
    const float *line = x + i;
    if (n - i < FLK_LINE) {
      memcpy(rest, line, (n - i) * sizeof(float));
      line = rest;
    }
    for (size_t k = 0; k < 4; k++) {
      __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(line + 4 * k));
      acc[k] = _mm256_fmadd_pd(v, v, acc[k]);
    }
  }
  acc[0] = _mm256_add_pd(acc[0], acc[2]);
  acc[1] = _mm256_add_pd(acc[1], acc[3]);
  acc[0] = _mm256_add_pd(acc[0], acc[1]);
  __m128d two = _mm_add_pd(_mm256_castpd256_pd128(acc[0]),
                           _mm256_extractf128_pd(acc[0], 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

/* Rows that no cache will hold until they are read again go past it, all but
 * the cache lines that they share with their neighbours. */
static void scatter(float *dst, size_t stride, const float *src,
                    size_t src_stride, size_t rows, size_t count)
{
  size_t row = count * FLK_LINE;
  for (size_t j = 0; j < rows; j++) {
    float *to = dst + j * stride;
    const float *from = src + j * src_stride;
    if ((uintptr_t)to % 4 != 0 || count == 1) {
      memcpy(to, from, row * sizeof(float));
      continue;
    }
    size_t head = (0 - (uintptr_t)to / 4) % FLK_LINE;
    size_t middle = head + (row - head) / FLK_LINE * FLK_LINE;
    memcpy(to, from, head * sizeof(float));
    for (size_t i = head; i < middle; i += WIDTH)
      _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
    memcpy(to + middle, from + middle, (row - middle) * sizeof(float));
  }
  _mm_sfence();
}

void flk_fill_avx2(flk_table *table)
{
  table->name = "avx2";
  table->find_not_finite = find_not_finite;
  table->sum_squares = sum_squares;
  table->gather = gather;
  table->scatter = scatter;
  table->encode = encode_block;
  table->decode = decode_block;
}
