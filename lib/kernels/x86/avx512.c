/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 (F, BW, DQ, VL): a line is one register. */
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#include "base/compiler.h"

#define INLINE static inline __attribute__((always_inline))
#define PREFETCH_NEAR(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define PREFETCH_FAR(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#define FOUR_TIMES FLI_UNROLL(4)
#define EACH_PART FLI_UNROLL(2)
#define FEW_VARIANTS 0
#define WIDTH 16
#define PARTS 1
typedef __m512 vec;
typedef __m512i ivec;

INLINE vec vec_load(const float *p)
{
  return _mm512_loadu_ps(p);
}

INLINE void vec_store(float *p, vec v)
{
  _mm512_storeu_ps(p, v);
}

INLINE vec vec_set1(float v)
{
  return _mm512_set1_ps(v);
}

INLINE vec vec_zero(void)
{
  return _mm512_setzero_ps();
}

INLINE vec vec_add(vec a, vec b)
{
  return _mm512_add_ps(a, b);
}

INLINE vec vec_sub(vec a, vec b)
{
  return _mm512_sub_ps(a, b);
}

INLINE vec vec_mul(vec a, vec b)
{
  return _mm512_mul_ps(a, b);
}

INLINE vec vec_fma(vec a, vec b, vec c)
{
  return _mm512_fmadd_ps(a, b, c);
}

INLINE vec vec_min(vec a, vec b)
{
  return _mm512_min_ps(a, b);
}

INLINE vec vec_max(vec a, vec b)
{
  return _mm512_max_ps(a, b);
}

INLINE void vec_stream(float *p, vec v)
{
  _mm512_stream_ps(p, v);
}

INLINE void vec_stream_end(void)
{
  _mm_sfence();
}

/* `minus` where bit i, ... is set. */
INLINE vec vec_pick(const uint8_t *bits, size_t i, vec plus, vec minus)
{
  uint16_t mask;
  memcpy(&mask, bits + i / 8, sizeof mask);
  return _mm512_mask_blend_ps(mask, plus, minus);
}

INLINE vec vec_from_int(ivec v)
{
  return _mm512_cvtepi32_ps(v);
}

INLINE ivec vec_to_int(vec v)
{
  return _mm512_cvttps_epi32(v);
}

INLINE ivec int_set1(uint32_t v)
{
  return _mm512_set1_epi32((int)v);
}

INLINE ivec int_load(const uint32_t *p)
{
  return _mm512_loadu_si512(p);
}

INLINE ivec int_add(ivec a, ivec b)
{
  return _mm512_add_epi32(a, b);
}

INLINE ivec int_sub(ivec a, ivec b)
{
  return _mm512_sub_epi32(a, b);
}

INLINE ivec int_add16(ivec a, ivec b)
{
  return _mm512_add_epi16(a, b);
}

INLINE ivec int_mul16(ivec a, ivec b)
{
  return _mm512_mullo_epi16(a, b);
}

/* a below 65536, b below 256. */
INLINE ivec int_mul(ivec a, ivec b)
{
  return _mm512_mullo_epi32(a, b);
}

INLINE ivec int_min(ivec a, ivec b)
{
  return _mm512_min_epi32(a, b);
}

INLINE ivec int_max(ivec a, ivec b)
{
  return _mm512_max_epi32(a, b);
}

INLINE ivec int_and(ivec a, ivec b)
{
  return _mm512_and_si512(a, b);
}

/* v where a > b, else 0. */
INLINE ivec int_where_greater(ivec a, ivec b, ivec v)
{
  return _mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(a, b), v);
}

INLINE ivec int_shift(ivec v, uint32_t by)
{
  return _mm512_sll_epi32(v, _mm_cvtsi32_si128((int)by));
}

INLINE ivec int_shift_16(ivec v)
{
  return _mm512_slli_epi32(v, 16);
}

INLINE ivec int_shift_right(ivec v, uint32_t by)
{
  return _mm512_sra_epi32(v, _mm_cvtsi32_si128((int)by));
}

INLINE ivec int_high_signed(ivec v)
{
  return _mm512_srai_epi32(v, 16);
}

INLINE ivec int_top_byte(ivec v)
{
  return _mm512_srli_epi32(v, 24);
}

INLINE ivec int_low(ivec v)
{
  return _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
}

INLINE ivec int_high(ivec v)
{
  return _mm512_srli_epi32(v, 16);
}

INLINE ivec int_lanes(const uint8_t *p, uint32_t width)
{
  if (width == FLK_U8) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
  }
  if (width == FLK_U16) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  }
  return _mm512_loadu_si512(p);
}

/* Entries of cells; up to 32 of them stay in registers. */
typedef struct cells {
  const uint32_t *entries;
  ivec low;
  ivec high;
} cells;

INLINE int table_is_large(const flk_grid *grid)
{
  return grid->entries && grid->g >= 2 * FLK_LINE;
}

INLINE cells table_begin(const flk_grid *grid)
{
  return (cells){.entries = grid->entries,
                 .low = int_load(grid->entries),
                 .high = int_load(grid->entries + FLK_LINE)};
}

INLINE ivec table_lookup(const cells *table, ivec cell, int kind)
{
  if (kind == 2) return _mm512_i32gather_epi32(cell, table->entries, 4);
  return _mm512_permutex2var_epi32(table->low, cell, table->high);
}

/* Where four lines of indices become bytes or nibbles. */
typedef struct emitter {
  ivec g8;
  ivec g16;
  uint64_t outside;
} emitter;

INLINE emitter emit_begin(const flk_grid *grid)
{
  return (emitter){.g8 = _mm512_set1_epi8((char)grid->g),
                   .g16 = _mm512_set1_epi16((short)grid->g)};
}

INLINE uint32_t emit_end(const emitter *out)
{
  return (uint32_t)out->outside;
}

INLINE void emit_count(emitter *out, vec a, vec b)
{
  const __mmask16 differs = _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
  out->outside += (uint64_t)_mm_popcnt_u32(differs);
}

/* Four lines of indices; those of a pair of lines lie in the same register. */
INLINE void emit_bytes(uint8_t *dst, ivec bytes, int is_nibbles)
{
  const ivec order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  bytes = _mm512_permutexvar_epi64(order, bytes);
  if (is_nibbles) {
    ivec pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x1001));
    _mm256_storeu_si256((__m256i *)dst, _mm512_cvtepi16_epi8(pairs));
  } else {
    _mm512_storeu_si512(dst, bytes);
  }
}

/* The high (odd) or low halves of two lines. */
INLINE ivec halves(ivec first, ivec second, int is_odd)
{
  const ivec even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42,
                                     40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20,
                                     18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const ivec odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
  return _mm512_permutex2var_epi16(first, is_odd ? odd : even, second);
}

/* Indices with fractions: cut to the grid, and counted where that changes
 * them. */
INLINE void emit_high(uint8_t *dst, ivec k[4][PARTS], emitter *out,
                      int is_nibbles)
{
  ivec a = halves(k[0][0], k[1][0], 1), b = halves(k[2][0], k[3][0], 1);
  uint64_t outside = _mm512_cmpgt_epu16_mask(a, out->g16);
  outside |= (uint64_t)_mm512_cmpgt_epu16_mask(b, out->g16) << 32;
  out->outside += (uint64_t)_mm_popcnt_u64(outside);
  emit_bytes(dst, _mm512_min_epu8(_mm512_packus_epi16(a, b), out->g8),
             is_nibbles);
}

/* Indices in the low byte. */
INLINE void emit_low(uint8_t *dst, ivec k[4][PARTS], int is_nibbles)
{
  const ivec low = _mm512_set1_epi16(0xff);
  ivec a = halves(k[0][0], k[1][0], 0), b = halves(k[2][0], k[3][0], 0);
  ivec bytes = _mm512_packus_epi16(int_and(a, low), int_and(b, low));
  emit_bytes(dst, bytes, is_nibbles);
}

/* (a, b) -> (a + b, a - b) inside a line: with the partners in `other`,
 * x * +-1 + other is a + b or a - b in one rounding. */
INLINE vec butterfly(vec x, vec other, uint16_t second)
{
  vec one =
      _mm512_mask_blend_ps(second, _mm512_set1_ps(1.0f), _mm512_set1_ps(-1.0f));
  return _mm512_fmadd_ps(x, one, other);
}

INLINE vec apart_8(vec x)
{
  return butterfly(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
}

INLINE vec apart_4(vec x)
{
  return butterfly(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
}

INLINE vec apart_2(vec x)
{
  return butterfly(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
}

INLINE vec apart_1(vec x)
{
  return butterfly(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
}

INLINE void line_down(vec *line)
{
  line[0] = apart_1(apart_2(apart_4(apart_8(line[0]))));
}

INLINE void line_up(vec *line)
{
  line[0] = apart_8(apart_4(apart_2(apart_1(line[0]))));
}

#include "kernels/block.h"

typedef struct squares {
  __m512d of[2];
} squares;

INLINE squares squares_zero(void)
{
  return (squares){{_mm512_setzero_pd(), _mm512_setzero_pd()}};
}

INLINE void squares_add_line(squares *sum, vec v)
{
  __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
  __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
  /* The squares of float32 are exact in double. */
  sum->of[0] = _mm512_fmadd_pd(a, a, sum->of[0]);
  sum->of[1] = _mm512_fmadd_pd(b, b, sum->of[1]);
}

INLINE void squares_add(squares *sum, const float *line)
{
  squares_add_line(sum, vec_load(line));
}

INLINE double squares_fold(const squares *sum)
{
  __m512d all = _mm512_add_pd(sum->of[0], sum->of[1]);
  __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(all),
                               _mm512_extractf64x4_pd(all, 1));
  __m128d two =
      _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#include "kernels/squares.h"

static double sum_squares(const float *x, size_t n)
{
  squares sum = squares_zero();
  for (size_t i = 0; i < n; i += FLK_LINE) {
    uint32_t all = n - i < FLK_LINE ? (1u << (n - i)) - 1u : 0xffffu;
    squares_add_line(&sum, _mm512_maskz_loadu_ps((__mmask16)all, x + i));
  }
  return squares_fold(&sum);
}

void flk_fill_avx512(flk_table *table)
{
  table->name = "avx512";
  table->sum_squares = sum_squares;
  table->sum_squares_group = sum_squares_group;
  fill_blocks(table);
}
