/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA: a line is two registers. Also what is bound by memory and
 * gains nothing from wider registers. */
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#include "base/compiler.h"

#define INLINE static inline __attribute__((always_inline))
#define PREFETCH_NEAR(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define PREFETCH_FAR(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define FOUR_TIMES FLI_UNROLL(1)
#define EACH_PART FLI_UNROLL(1)
#define FEW_VARIANTS 0
#define WIDTH 8
#define PARTS 2
typedef __m256 vec;
typedef __m256i ivec;

INLINE vec vec_load(const float *p)
{
  return _mm256_loadu_ps(p);
}

INLINE void vec_store(float *p, vec v)
{
  _mm256_storeu_ps(p, v);
}

INLINE vec vec_set1(float v)
{
  return _mm256_set1_ps(v);
}

INLINE vec vec_zero(void)
{
  return _mm256_setzero_ps();
}

INLINE vec vec_add(vec a, vec b)
{
  return _mm256_add_ps(a, b);
}

INLINE vec vec_sub(vec a, vec b)
{
  return _mm256_sub_ps(a, b);
}

INLINE vec vec_mul(vec a, vec b)
{
  return _mm256_mul_ps(a, b);
}

INLINE vec vec_fma(vec a, vec b, vec c)
{
  return _mm256_fmadd_ps(a, b, c);
}

INLINE vec vec_min(vec a, vec b)
{
  return _mm256_min_ps(a, b);
}

INLINE vec vec_max(vec a, vec b)
{
  return _mm256_max_ps(a, b);
}

INLINE void vec_stream(float *p, vec v)
{
  _mm256_stream_ps(p, v);
}

INLINE void vec_stream_end(void)
{
  _mm_sfence();
}

/* `minus` where bit i, ... is set. */
INLINE vec vec_pick(const uint8_t *bits, size_t i, vec plus, vec minus)
{
  const ivec to_sign = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  ivec mask = _mm256_sllv_epi32(_mm256_set1_epi32(bits[i / 8]), to_sign);
  return _mm256_blendv_ps(plus, minus, _mm256_castsi256_ps(mask));
}

INLINE vec vec_from_int(ivec v)
{
  return _mm256_cvtepi32_ps(v);
}

INLINE ivec vec_to_int(vec v)
{
  return _mm256_cvttps_epi32(v);
}

INLINE ivec int_set1(uint32_t v)
{
  return _mm256_set1_epi32((int)v);
}

INLINE ivec int_load(const uint32_t *p)
{
  return _mm256_loadu_si256((const __m256i *)p);
}

INLINE ivec int_add(ivec a, ivec b)
{
  return _mm256_add_epi32(a, b);
}

INLINE ivec int_sub(ivec a, ivec b)
{
  return _mm256_sub_epi32(a, b);
}

INLINE ivec int_add16(ivec a, ivec b)
{
  return _mm256_add_epi16(a, b);
}

INLINE ivec int_mul16(ivec a, ivec b)
{
  return _mm256_mullo_epi16(a, b);
}

/* a below 65536, b below 256. */
INLINE ivec int_mul(ivec a, ivec b)
{
  return _mm256_mullo_epi32(a, b);
}

INLINE ivec int_min(ivec a, ivec b)
{
  return _mm256_min_epi32(a, b);
}

INLINE ivec int_max(ivec a, ivec b)
{
  return _mm256_max_epi32(a, b);
}

INLINE ivec int_and(ivec a, ivec b)
{
  return _mm256_and_si256(a, b);
}

/* v where a > b, else 0. */
INLINE ivec int_where_greater(ivec a, ivec b, ivec v)
{
  return _mm256_and_si256(_mm256_cmpgt_epi32(a, b), v);
}

INLINE ivec int_shift(ivec v, uint32_t by)
{
  return _mm256_sll_epi32(v, _mm_cvtsi32_si128((int)by));
}

INLINE ivec int_shift_16(ivec v)
{
  return _mm256_slli_epi32(v, 16);
}

INLINE ivec int_shift_right(ivec v, uint32_t by)
{
  return _mm256_sra_epi32(v, _mm_cvtsi32_si128((int)by));
}

INLINE ivec int_high_signed(ivec v)
{
  return _mm256_srai_epi32(v, 16);
}

INLINE ivec int_top_byte(ivec v)
{
  return _mm256_srli_epi32(v, 24);
}

INLINE ivec int_low(ivec v)
{
  return _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
}

INLINE ivec int_high(ivec v)
{
  return _mm256_srli_epi32(v, 16);
}

INLINE ivec int_lanes(const uint8_t *p, uint32_t width)
{
  if (width == FLK_U8) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
  }
  if (width == FLK_U16) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
  }
  return _mm256_loadu_si256((const __m256i *)p);
}

/* Entries of cells. Up to 32 of them are four registers of eight, chosen
 * between by bits 3 and 4. */
typedef struct cells {
  const uint32_t *entries;
  ivec part[4];
} cells;

INLINE int table_is_large(const flk_grid *grid)
{
  return grid->entries && grid->g >= 4 * WIDTH;
}

INLINE cells table_begin(const flk_grid *grid)
{
  cells table = {.entries = grid->entries};
  for (int i = 0; i < 4; i++)
    table.part[i] = int_load(grid->entries + WIDTH * i);
  return table;
}

INLINE __m128i four_loads(const uint32_t *entries, __m128i cell)
{
  uint64_t low = (uint64_t)_mm_cvtsi128_si64(cell);
  uint64_t high = (uint64_t)_mm_extract_epi64(cell, 1);
  __m128i v = _mm_cvtsi32_si128((int)entries[(uint32_t)low]);
  v = _mm_insert_epi32(v, (int)entries[low >> 32], 1);
  v = _mm_insert_epi32(v, (int)entries[(uint32_t)high], 2);
  return _mm_insert_epi32(v, (int)entries[high >> 32], 3);
}

/* A gather is not faster, and qemu 7.2 has it read the wrong register. */
INLINE ivec eight_loads(const uint32_t *entries, ivec cell)
{
  __m128i low = four_loads(entries, _mm256_castsi256_si128(cell));
  __m128i high = four_loads(entries, _mm256_extracti128_si256(cell, 1));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

INLINE ivec table_lookup(const cells *table, ivec cell, int kind)
{
  if (kind == 2) return eight_loads(table->entries, cell);
  vec bit_3 = _mm256_castsi256_ps(_mm256_slli_epi32(cell, 28));
  vec bit_4 = _mm256_castsi256_ps(_mm256_slli_epi32(cell, 27));
  vec part[4];
  for (int i = 0; i < 4; i++) {
    part[i] =
        _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(table->part[i], cell));
  }
  vec low = _mm256_blendv_ps(part[0], part[1], bit_3);
  vec high = _mm256_blendv_ps(part[2], part[3], bit_3);
  return _mm256_castps_si256(_mm256_blendv_ps(low, high, bit_4));
}

/* Where four lines of indices become bytes or nibbles. */
typedef struct emitter {
  ivec g8;
  ivec g16;
  ivec inside; /* minus the count, in 16 lanes; a block gives each 256 */
  uint32_t outside;
  uint32_t looked_at;
} emitter;

INLINE emitter emit_begin(const flk_grid *grid)
{
  return (emitter){.g8 = _mm256_set1_epi8((char)grid->g),
                   .g16 = _mm256_set1_epi16((short)grid->g),
                   .inside = _mm256_setzero_si256()};
}

INLINE uint32_t emit_end(const emitter *out)
{
  int16_t lane[2 * WIDTH];
  uint32_t outside = out->outside + out->looked_at;
  _mm256_storeu_si256((__m256i *)lane, out->inside);
  for (int k = 0; k < 2 * WIDTH; k++)
    outside -= (uint32_t)-lane[k];
  return outside;
}

INLINE void emit_count(emitter *out, vec a, vec b)
{
  int differs = _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ));
  out->outside += (uint32_t)__builtin_popcount((uint32_t)differs);
}

/* A line's high halves as 16-bit numbers, 0 8 1 9 2 10 3 11 in the low half of
 * the register and 4 12 ... in the high one. */
INLINE ivec high_halves(const ivec k[PARTS])
{
  return _mm256_blend_epi16(_mm256_srli_epi32(k[0], 16), k[1], 0xaa);
}

INLINE ivec low_bytes(const ivec k[PARTS])
{
  ivec words = _mm256_blend_epi16(k[0], _mm256_slli_epi32(k[1], 16), 0xaa);
  return _mm256_and_si256(words, _mm256_set1_epi16(0xff));
}

/* Two pairs of lines as bytes: the first two of each half of `a` and `b`. */
INLINE void emit_bytes(uint8_t *dst, ivec a, ivec b, int is_nibbles)
{
  const ivec order =
      _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0,
                       2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  a = _mm256_shuffle_epi8(a, order);
  b = _mm256_shuffle_epi8(b, order);
  __m128i *to = (__m128i *)dst;
  if (is_nibbles) {
    const ivec join = _mm256_set1_epi16(0x1001);
    ivec pairs = _mm256_packus_epi16(_mm256_maddubs_epi16(a, join),
                                     _mm256_maddubs_epi16(b, join));
    __m128i low = _mm256_castsi256_si128(pairs);
    __m128i high = _mm256_extracti128_si256(pairs, 1);
    _mm_storeu_si128(to, _mm_unpacklo_epi16(low, high));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low, high));
    return;
  }
  for (int i = 0; i < 2; i++) {
    __m128i low = _mm256_castsi256_si128(i ? b : a);
    __m128i high = _mm256_extracti128_si256(i ? b : a, 1);
    _mm_storeu_si128(to + 2 * i, _mm_unpacklo_epi32(low, high));
    _mm_storeu_si128(to + 2 * i + 1, _mm_unpackhi_epi32(low, high));
  }
}

/* Indices with fractions: cut to the grid, and counted where that changes
 * them. */
INLINE void emit_high(uint8_t *dst, ivec k[4][PARTS], emitter *out,
                      int is_nibbles)
{
  ivec words[4];
  for (int i = 0; i < 4; i++) {
    words[i] = high_halves(k[i]);
    ivec least = _mm256_min_epu16(words[i], out->g16);
    ivec same = _mm256_cmpeq_epi16(least, words[i]);
    out->inside = _mm256_add_epi16(out->inside, same);
  }
  out->looked_at += 4 * FLK_LINE;
  ivec a = _mm256_packus_epi16(words[0], words[1]);
  ivec b = _mm256_packus_epi16(words[2], words[3]);
  emit_bytes(dst, _mm256_min_epu8(a, out->g8), _mm256_min_epu8(b, out->g8),
             is_nibbles);
}

/* Indices in the low byte. */
INLINE void emit_low(uint8_t *dst, ivec k[4][PARTS], int is_nibbles)
{
  ivec a = _mm256_packus_epi16(low_bytes(k[0]), low_bytes(k[1]));
  ivec b = _mm256_packus_epi16(low_bytes(k[2]), low_bytes(k[3]));
  emit_bytes(dst, a, b, is_nibbles);
}

/* (a, b) -> (a + b, a - b) inside a register: with the partners in `other`,
 * x * +-1 + other is a + b or a - b in one rounding. */
INLINE vec apart_4(vec x)
{
  const vec one = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute2f128_ps(x, x, 1));
}

INLINE vec apart_2(vec x)
{
  const vec one = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute_ps(x, 0x4e));
}

INLINE vec apart_1(vec x)
{
  const vec one = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
  return _mm256_fmadd_ps(x, one, _mm256_permute_ps(x, 0xb1));
}

INLINE void line_down(vec *line)
{
  vec sum = vec_add(line[0], line[1]);
  vec difference = vec_sub(line[0], line[1]);
  line[0] = apart_1(apart_2(apart_4(sum)));
  line[1] = apart_1(apart_2(apart_4(difference)));
}

INLINE void line_up(vec *line)
{
  vec a = apart_4(apart_2(apart_1(line[0])));
  vec b = apart_4(apart_2(apart_1(line[1])));
  line[0] = vec_add(a, b);
  line[1] = vec_sub(a, b);
}

#include "kernels/block.h"

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

typedef struct squares {
  __m256d of[4];
} squares;

INLINE squares squares_zero(void)
{
  const __m256d zero = _mm256_setzero_pd();
  return (squares){{zero, zero, zero, zero}};
}

INLINE void squares_add(squares *sum, const float *line)
{
  for (size_t k = 0; k < 4; k++) {
    __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(line + 4 * k));
    /* The squares of float32 are exact in double. */
    sum->of[k] = _mm256_fmadd_pd(v, v, sum->of[k]);
  }
}

INLINE double squares_fold(const squares *sum)
{
  __m256d all = _mm256_add_pd(_mm256_add_pd(sum->of[0], sum->of[2]),
                              _mm256_add_pd(sum->of[1], sum->of[3]));
  __m128d two =
      _mm_add_pd(_mm256_castpd256_pd128(all), _mm256_extractf128_pd(all, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#include "kernels/squares.h"

static double sum_squares(const float *x, size_t n)
{
  squares sum = squares_zero();
  float rest[FLK_LINE] = {0};
  for (size_t i = 0; i < n; i += FLK_LINE) {
    const float *line = x + i;
    if (n - i < FLK_LINE) {
      memcpy(rest, line, (n - i) * sizeof(float));
      line = rest;
    }
    squares_add(&sum, line);
  }
  return squares_fold(&sum);
}

void flk_fill_avx2(flk_table *table)
{
  table->name = "avx2";
  table->find_not_finite = find_not_finite;
  table->sum_squares = sum_squares;
  table->sum_squares_group = sum_squares_group;
  fill_blocks(table);
}
