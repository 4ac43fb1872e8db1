/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks in the compiler's own vectors of four: ordinary code for any
 * processor, which compilers turn into whatever the target's baseline has.
 * Packs, minima and maxima have no such form; where SSE2 is the baseline its
 * own are called by name. */
#include "kernels/portable.h"

#include <string.h>

#include "base/compiler.h"
#include "kernels/lane_bytes.h"

#if defined(__SSE2__)
#  include <emmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define PREFETCH_NEAR(p) __builtin_prefetch((const void *)(p), 0, 3)
#define PREFETCH_FAR(p) __builtin_prefetch((const void *)(p), 0, 2)
#define FOUR_TIMES FLI_UNROLL(1)
#define EACH_PART FLI_UNROLL(1)
#define FEW_VARIANTS 1
#if defined(__SSE2__)
#  define NOW(x) __asm__("" : "+x"(x))
#endif
#define WIDTH 4
#define PARTS 4
typedef float vec __attribute__((vector_size(16)));
typedef uint32_t ivec __attribute__((vector_size(16)));
typedef int32_t signed_ivec __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));

#if defined(__clang__)
#  define TWO_OF(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#  define TWO_OF(x, y, i, j, k, l) \
    __builtin_shuffle(x, y, (signed_ivec){i, j, k, l})
#endif

INLINE vec vec_load(const float *p)
{
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void vec_store(float *p, vec v)
{
  memcpy(p, &v, sizeof v);
}

INLINE void vec_stream(float *p, vec v)
{
  memcpy(p, &v, sizeof v);
}

INLINE void vec_stream_end(void)
{
}

INLINE vec vec_set1(float v)
{
  return (vec){v, v, v, v};
}

INLINE vec vec_zero(void)
{
  return vec_set1(0.0f);
}

INLINE vec vec_add(vec a, vec b)
{
  return a + b;
}

INLINE vec vec_sub(vec a, vec b)
{
  return a - b;
}

INLINE vec vec_mul(vec a, vec b)
{
  return a * b;
}

INLINE vec vec_fma(vec a, vec b, vec c)
{
  return a * b + c;
}

INLINE ivec int_set1(uint32_t v)
{
  return (ivec){v, v, v, v};
}

/* a where the mask is set, b elsewhere. */
INLINE ivec int_choose(ivec mask, ivec a, ivec b)
{
  return (a & mask) | (b & ~mask);
}

INLINE vec vec_min(vec a, vec b)
{
#if defined(__SSE2__)
  return (vec)_mm_min_ps((__m128)a, (__m128)b);
#else
  return (vec)int_choose((ivec)(a < b), (ivec)a, (ivec)b);
#endif
}

INLINE vec vec_max(vec a, vec b)
{
#if defined(__SSE2__)
  return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
  return (vec)int_choose((ivec)(a > b), (ivec)a, (ivec)b);
#endif
}

#define S 0x80000000u
static const ivec sign_bits[16] = {
    {0, 0, 0, 0}, {S, 0, 0, 0}, {0, S, 0, 0}, {S, S, 0, 0},
    {0, 0, S, 0}, {S, 0, S, 0}, {0, S, S, 0}, {S, S, S, 0},
    {0, 0, 0, S}, {S, 0, 0, S}, {0, S, 0, S}, {S, S, 0, S},
    {0, 0, S, S}, {S, 0, S, S}, {0, S, S, S}, {S, S, S, S}};
#undef S

/* `minus`, which is -plus, where bit i, ... is set. From a table and without a
 * branch: signs cannot be predicted. */
INLINE vec vec_pick(const uint8_t *bits, size_t i, vec plus, vec minus)
{
  (void)minus;
  const size_t bit = ((size_t)bits[i / 8] << (~i & 4)) & 0xf0;
  return (vec)((ivec)plus ^ sign_bits[bit / 16]);
}

INLINE vec vec_from_int(ivec v)
{
  return __builtin_convertvector((signed_ivec)v, vec);
}

/* C leaves it open what becomes of too small a number. */
INLINE ivec vec_to_int(vec v)
{
#if defined(__SSE2__)
  return (ivec)_mm_cvttps_epi32((__m128)v);
#else
  return (ivec) __builtin_convertvector(vec_max(v, vec_set1(-0x1p30f)),
                                        signed_ivec);
#endif
}

INLINE ivec int_add(ivec a, ivec b)
{
  return a + b;
}

INLINE ivec int_sub(ivec a, ivec b)
{
  return a - b;
}

INLINE ivec int_add16(ivec a, ivec b)
{
  return (ivec)((halves)a + (halves)b);
}

INLINE ivec int_mul16(ivec a, ivec b)
{
  return (ivec)((halves)a * (halves)b);
}

/* a below 65536, b below 256. */
INLINE ivec int_mul(ivec a, ivec b)
{
#if defined(__SSE2__)
  ivec low = (ivec)_mm_mullo_epi16((__m128i)a, (__m128i)b);
  return low | (ivec)_mm_mulhi_epu16((__m128i)a, (__m128i)b) << 16;
#else
  return a * b;
#endif
}

/* -1 where a > b. */
INLINE ivec int_greater(ivec a, ivec b)
{
  return (ivec)((signed_ivec)a > (signed_ivec)b);
}

INLINE ivec int_min(ivec a, ivec b)
{
  return int_choose(int_greater(a, b), b, a);
}

INLINE ivec int_max(ivec a, ivec b)
{
  return int_choose(int_greater(a, b), a, b);
}

/* v where a > b, else 0. */
INLINE ivec int_where_greater(ivec a, ivec b, ivec v)
{
  return int_greater(a, b) & v;
}

INLINE ivec int_and(ivec a, ivec b)
{
  return a & b;
}

INLINE ivec int_shift(ivec v, uint32_t by)
{
  return v << by;
}

INLINE ivec int_shift_16(ivec v)
{
  return v << 16;
}

INLINE ivec int_shift_right(ivec v, uint32_t by)
{
  return (ivec)((signed_ivec)v >> (int32_t)by);
}

INLINE ivec int_high_signed(ivec v)
{
  return (ivec)((signed_ivec)v >> 16);
}

INLINE ivec int_top_byte(ivec v)
{
  return v >> 24;
}

INLINE ivec int_low(ivec v)
{
  return v & 0xffff;
}

INLINE ivec int_high(ivec v)
{
  return v >> 16;
}

/* Inside a line the transform has lanes in the order of columns: part p is the
 * lanes p, p + 4, p + 8, p + 12. */
#define NOISE_LOAD(words, p) column_of(words, p)
#define LINE_LANES(line, width, p) line_lanes(line, width, p)

INLINE ivec column_of(const uint32_t *line, int p)
{
  return (ivec){line[p], line[p + 4], line[p + 8], line[p + 12]};
}

INLINE ivec line_lanes(const uint8_t *line, uint32_t width, int p)
{
  if (width == FLK_U8) {
    ivec four = {flk_load_u32(line), flk_load_u32(line + 4),
                 flk_load_u32(line + 8), flk_load_u32(line + 12)};
    return four >> (8 * p) & 0xff;
  }
  if (width == FLK_U16) {
    line += 2 * p;
    return (ivec){flk_load_u16(line), flk_load_u16(line + 8),
                  flk_load_u16(line + 16), flk_load_u16(line + 24)};
  }
  line += 4 * p;
  return (ivec){flk_load_u32(line), flk_load_u32(line + 16),
                flk_load_u32(line + 32), flk_load_u32(line + 48)};
}

typedef const uint32_t *cells;

INLINE cells table_begin(const flk_grid *grid)
{
  return grid->entries;
}

INLINE ivec table_lookup(const cells *table, ivec cell, int kind)
{
  const uint32_t *entries = *table;
  (void)kind;
  return (ivec){entries[cell[0]], entries[cell[1]], entries[cell[2]],
                entries[cell[3]]};
}

/* ---- eight 16-bit numbers ---- */

typedef int16_t words __attribute__((vector_size(16)));

/* From each pair of 32-bit places the low half, as neighbours in memory. */
INLINE words join(ivec first, ivec second)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return (words)(first << 16 | (second & 0xffff));
#else
  return (words)((first & 0xffff) | second << 16);
#endif
}

/* The high halves of columns. */
INLINE words join_high(ivec first, ivec second)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return (words)((first & 0xffff0000u) | second >> 16);
#else
  return (words)(first >> 16 | (second & 0xffff0000u));
#endif
}

/* A line's columns 0 and 1, 2 and 3 to its first and second half. */
INLINE void to_halves(words *a, words *b)
{
  vec first = (vec)*a, second = (vec)*b;
  *a = (words)TWO_OF(first, second, 0, 4, 1, 5);
  *b = (words)TWO_OF(first, second, 2, 6, 3, 7);
}

INLINE words words_cut(words v, words top)
{
#if defined(__SSE2__)
  return (words)_mm_min_epi16(_mm_max_epi16((__m128i)v, _mm_setzero_si128()),
                              (__m128i)top);
#else
  v = v & (words)(v > 0);
  words is_less = (words)(v < top);
  return (v & is_less) | (top & ~is_less);
#endif
}

/* A line of indices below 256 as bytes or nibbles. */
INLINE void emit_line(uint8_t *dst, words a, words b, int is_nibbles)
{
#if defined(__SSE2__)
  __m128i bytes = _mm_packus_epi16((__m128i)a, (__m128i)b);
  if (is_nibbles) {
    bytes = _mm_or_si128(bytes, _mm_srli_epi16(bytes, 4));
    bytes = _mm_and_si128(bytes, _mm_set1_epi16(0xff));
    _mm_storel_epi64((__m128i *)dst, _mm_packus_epi16(bytes, bytes));
  } else {
    _mm_storeu_si128((__m128i *)dst, bytes);
  }
#else
  for (size_t i = 0; i < FLK_LINE / 2; i += is_nibbles ? 2 : 1) {
    if (is_nibbles) {
      dst[i / 2] = (uint8_t)(a[i] | a[i + 1] << 4);
      dst[i / 2 + 4] = (uint8_t)(b[i] | b[i + 1] << 4);
    } else {
      dst[i] = (uint8_t)a[i];
      dst[i + 8] = (uint8_t)b[i];
    }
  }
#endif
}

/* Where four lines of indices become bytes or nibbles. */
typedef struct emitter {
  words g;
  words inside; /* minus the count; a block gives each lane 512 */
  ivec outside; /* likewise */
  uint32_t looked_at;
} emitter;

INLINE emitter emit_begin(const flk_grid *grid)
{
  const int16_t g = (int16_t)grid->g;
  return (emitter){.g = {g, g, g, g, g, g, g, g}};
}

INLINE uint32_t emit_end(const emitter *out)
{
  uint32_t count = out->looked_at;
  for (int i = 0; i < 2 * WIDTH; i++)
    count -= (uint32_t)-out->inside[i];
  for (int i = 0; i < WIDTH; i++)
    count -= out->outside[i];
  return count;
}

INLINE void emit_count(emitter *out, vec a, vec b)
{
  out->outside += (ivec)(a != b);
}

/* Indices with fractions: cut to the grid, and counted where that changes
 * them. */
INLINE void emit_high(uint8_t *dst, ivec k[4][PARTS], emitter *out,
                      int is_nibbles)
{
  for (int line = 0; line < 4; line++) {
    words index[2];
    for (int i = 0; i < 2; i++) {
      words v = join_high(k[line][2 * i], k[line][2 * i + 1]);
      index[i] = words_cut(v, out->g);
      out->inside += (words)(index[i] == v);
    }
    to_halves(&index[0], &index[1]);
    emit_line(dst + line * FLK_LINE / (is_nibbles ? 2 : 1), index[0], index[1],
              is_nibbles);
  }
  out->looked_at += 4 * FLK_LINE;
}

/* Indices in the low byte. */
INLINE void emit_low(uint8_t *dst, ivec k[4][PARTS], int is_nibbles)
{
  for (int line = 0; line < 4; line++) {
    words a = join(k[line][0] & 0xff, k[line][1] & 0xff);
    words b = join(k[line][2] & 0xff, k[line][3] & 0xff);
    to_halves(&a, &b);
    emit_line(dst + line * FLK_LINE / (is_nibbles ? 2 : 1), a, b, is_nibbles);
  }
}

/* Distances p and q between four rows, p first. */
INLINE void rows4(vec *x0, vec *xp, vec *xq, vec *xpq)
{
  vec a = *x0 + *xp, b = *x0 - *xp;
  vec c = *xq + *xpq, d = *xq - *xpq;
  *x0 = a + c;
  *xp = b + d;
  *xq = a - c;
  *xpq = b - d;
}

/* Four rows of four change places with four columns. */
INLINE void transpose(vec r[PARTS])
{
  vec a = TWO_OF(r[0], r[1], 0, 4, 1, 5), b = TWO_OF(r[0], r[1], 2, 6, 3, 7);
  vec c = TWO_OF(r[2], r[3], 0, 4, 1, 5), d = TWO_OF(r[2], r[3], 2, 6, 3, 7);
  r[0] = TWO_OF(a, c, 0, 1, 4, 5);
  r[1] = TWO_OF(a, c, 2, 3, 6, 7);
  r[2] = TWO_OF(b, d, 0, 1, 4, 5);
  r[3] = TWO_OF(b, d, 2, 3, 6, 7);
}

/* From columns. */
INLINE void line_up(vec r[PARTS])
{
  rows4(&r[0], &r[1], &r[2], &r[3]);
  transpose(r);
  rows4(&r[0], &r[1], &r[2], &r[3]);
}

/* To columns. */
INLINE void line_down(vec r[PARTS])
{
  rows4(&r[0], &r[2], &r[1], &r[3]);
  transpose(r);
  rows4(&r[0], &r[2], &r[1], &r[3]);
}

#include "kernels/block.h"

typedef struct squares {
  double of[FLK_LINE];
} squares;

INLINE squares squares_zero(void)
{
  return (squares){{0}};
}

INLINE void squares_add(squares *sum, const float *line)
{
  for (size_t k = 0; k < FLK_LINE; k++)
    sum->of[k] += (double)line[k] * (double)line[k];
}

INLINE double squares_fold(squares *sum)
{
  for (size_t half = FLK_LINE / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; k++)
      sum->of[k] += sum->of[k + half];
  }
  return sum->of[0];
}

#include "kernels/squares.h"

void flk_fill_portable(flk_table *table)
{
  table->name = "c";
  table->sum_squares_group = sum_squares_group;
  fill_blocks(table);
}
