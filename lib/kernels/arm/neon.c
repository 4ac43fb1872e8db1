/* SPDX-License-Identifier: Apache-2.0 */
/* NEON of 64-bit ARM: a line is four registers, and 16 rows fit the 32 there
 * are. Lanes in memory are little-endian, as the processor is. */
#include "kernels/arm/arm.h"

#include <arm_neon.h>
#include <string.h>

#include "base/compiler.h"

#define INLINE static inline __attribute__((always_inline))
#define PREFETCH_NEAR(p) __builtin_prefetch(p, 0, 3)
#define PREFETCH_FAR(p) __builtin_prefetch(p, 0, 2)
#define FOUR_TIMES FLI_UNROLL(1)
#define EACH_PART FLI_UNROLL(1)
#define FEW_VARIANTS 0
#define WIDTH 4
#define PARTS 4
typedef float32x4_t vec;
typedef uint32x4_t ivec;

INLINE vec vec_load(const float *p)
{
  return vld1q_f32(p);
}

INLINE void vec_store(float *p, vec v)
{
  vst1q_f32(p, v);
}

/* Whole lines one after the other: processors see that themselves. */
INLINE void vec_stream(float *p, vec v)
{
  vst1q_f32(p, v);
}

INLINE void vec_stream_end(void)
{
}

INLINE vec vec_set1(float v)
{
  return vdupq_n_f32(v);
}

INLINE vec vec_zero(void)
{
  return vdupq_n_f32(0.0f);
}

INLINE vec vec_add(vec a, vec b)
{
  return vaddq_f32(a, b);
}

INLINE vec vec_sub(vec a, vec b)
{
  return vsubq_f32(a, b);
}

INLINE vec vec_mul(vec a, vec b)
{
  return vmulq_f32(a, b);
}

INLINE vec vec_fma(vec a, vec b, vec c)
{
  return vfmaq_f32(c, a, b);
}

INLINE vec vec_min(vec a, vec b)
{
  return vminq_f32(a, b);
}

INLINE vec vec_max(vec a, vec b)
{
  return vmaxq_f32(a, b);
}

/* `minus`, which is -plus, where bit i, ... is set. */
INLINE vec vec_pick(const uint8_t *bits, size_t i, vec plus, vec minus)
{
  const int32x4_t to_sign = (int32x4_t){7, 6, 5, 4};
  const int32x4_t from_high = (int32x4_t){3, 2, 1, 0};
  ivec byte = vreinterpretq_u32_u8(vld1q_dup_u8(bits + i / 8));
  ivec sign = vandq_u32(vshlq_u32(byte, i & 4 ? from_high : to_sign),
                        vdupq_n_u32(0x80000000u));
  (void)minus;
  return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(plus), sign));
}

INLINE vec vec_from_int(ivec v)
{
  return vcvtq_f32_s32(vreinterpretq_s32_u32(v));
}

/* Saturates: what is too small becomes the smallest. */
INLINE ivec vec_to_int(vec v)
{
  return vreinterpretq_u32_s32(vcvtq_s32_f32(v));
}

INLINE ivec int_set1(uint32_t v)
{
  return vdupq_n_u32(v);
}

INLINE ivec int_load(const uint32_t *p)
{
  return vld1q_u32(p);
}

INLINE ivec int_add(ivec a, ivec b)
{
  return vaddq_u32(a, b);
}

INLINE ivec int_sub(ivec a, ivec b)
{
  return vsubq_u32(a, b);
}

INLINE ivec int_add16(ivec a, ivec b)
{
  return vreinterpretq_u32_u16(
      vaddq_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b)));
}

INLINE ivec int_mul16(ivec a, ivec b)
{
  return vreinterpretq_u32_u16(
      vmulq_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b)));
}

INLINE ivec int_mul(ivec a, ivec b)
{
  return vmulq_u32(a, b);
}

/* -1 where a > b, as signed numbers. */
INLINE ivec int_greater(ivec a, ivec b)
{
  return vcgtq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b));
}

INLINE ivec int_min(ivec a, ivec b)
{
  return vreinterpretq_u32_s32(
      vminq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)));
}

INLINE ivec int_max(ivec a, ivec b)
{
  return vreinterpretq_u32_s32(
      vmaxq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)));
}

/* v where a > b, else 0. */
INLINE ivec int_where_greater(ivec a, ivec b, ivec v)
{
  return vandq_u32(int_greater(a, b), v);
}

INLINE ivec int_and(ivec a, ivec b)
{
  return vandq_u32(a, b);
}

INLINE ivec int_shift(ivec v, uint32_t by)
{
  return vshlq_u32(v, vdupq_n_s32((int32_t)by));
}

INLINE ivec int_shift_16(ivec v)
{
  return vshlq_n_u32(v, 16);
}

INLINE ivec int_shift_right(ivec v, uint32_t by)
{
  return vreinterpretq_u32_s32(
      vshlq_s32(vreinterpretq_s32_u32(v), vdupq_n_s32(-(int32_t)by)));
}

INLINE ivec int_high_signed(ivec v)
{
  return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(v), 16));
}

INLINE ivec int_top_byte(ivec v)
{
  return vshrq_n_u32(v, 24);
}

INLINE ivec int_low(ivec v)
{
  return vandq_u32(v, vdupq_n_u32(0xffff));
}

INLINE ivec int_high(ivec v)
{
  return vshrq_n_u32(v, 16);
}

INLINE ivec int_lanes(const uint8_t *p, uint32_t width)
{
  if (width == FLK_U8) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
    return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
  }
  if (width == FLK_U16) return vmovl_u16(vreinterpret_u16_u8(vld1_u8(p)));
  return vreinterpretq_u32_u8(vld1q_u8(p));
}

/* Entries of cells. Up to 32 of them are 128 bytes in eight registers. */
typedef struct cells {
  const uint32_t *entries;
  uint8x16x4_t low;
  uint8x16x4_t high;
} cells;

INLINE int table_is_large(const flk_grid *grid)
{
  return grid->entries && grid->g >= 8 * WIDTH;
}

INLINE cells table_begin(const flk_grid *grid)
{
  cells table = {.entries = grid->entries};
  for (int i = 0; i < 4; i++) {
    table.low.val[i] =
        vreinterpretq_u8_u32(int_load(grid->entries + WIDTH * i));
    table.high.val[i] =
        vreinterpretq_u8_u32(int_load(grid->entries + WIDTH * (i + 4)));
  }
  return table;
}

INLINE ivec four_loads(const uint32_t *entries, ivec cell)
{
  uint64_t low = vgetq_lane_u64(vreinterpretq_u64_u32(cell), 0);
  uint64_t high = vgetq_lane_u64(vreinterpretq_u64_u32(cell), 1);
  ivec v = vdupq_n_u32(entries[(uint32_t)low]);
  v = vld1q_lane_u32(entries + (low >> 32), v, 1);
  v = vld1q_lane_u32(entries + (uint32_t)high, v, 2);
  return vld1q_lane_u32(entries + (high >> 32), v, 3);
}

/* Bytes from 64 on are not in `low`, and those below not in `high`. */
INLINE ivec table_lookup(const cells *table, ivec cell, int kind)
{
  if (kind == 2) return four_loads(table->entries, cell);
  ivec at = vmlaq_u32(vdupq_n_u32(0x03020100u), cell, vdupq_n_u32(0x04040404u));
  uint8x16_t byte = vreinterpretq_u8_u32(at);
  uint8x16_t entry = vqtbl4q_u8(table->low, byte);
  byte = veorq_u8(byte, vdupq_n_u8(64));
  return vreinterpretq_u32_u8(vqtbx4q_u8(entry, table->high, byte));
}

/* Where four lines of indices become bytes or nibbles. */
typedef struct emitter {
  uint8x16_t g8;
  uint16x8_t g16;
  uint16x8_t inside; /* a block gives each lane 512 */
  ivec same;
  uint32_t looked_at;
} emitter;

INLINE emitter emit_begin(const flk_grid *grid)
{
  return (emitter){.g8 = vdupq_n_u8((uint8_t)grid->g),
                   .g16 = vdupq_n_u16((uint16_t)grid->g),
                   .inside = vdupq_n_u16(0),
                   .same = vdupq_n_u32(0)};
}

INLINE uint32_t emit_end(const emitter *out)
{
  return out->looked_at - vaddlvq_u16(out->inside) - vaddvq_u32(out->same);
}

INLINE void emit_count(emitter *out, vec a, vec b)
{
  out->same = vsubq_u32(out->same, vceqq_f32(a, b));
  out->looked_at += WIDTH;
}

/* Four lines of indices, as bytes or nibbles. */
INLINE void emit_bytes(uint8_t *dst, const uint8x16_t line[4], int is_nibbles)
{
  for (int i = 0; i < 4; i += 2) {
    if (is_nibbles) {
      uint8x16_t even = vuzp1q_u8(line[i], line[i + 1]);
      uint8x16_t odd = vuzp2q_u8(line[i], line[i + 1]);
      vst1q_u8(dst + FLK_LINE / 2 * i, vsliq_n_u8(even, odd, 4));
    } else {
      vst1q_u8(dst + FLK_LINE * i, line[i]);
      vst1q_u8(dst + FLK_LINE * (i + 1), line[i + 1]);
    }
  }
}

/* Eight indices with fractions, as signed numbers without them. */
INLINE int16x8_t high_words(emitter *out, ivec a, ivec b)
{
  uint16x8_t words =
      vuzp2q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
  /* What is negative is above g here. */
  out->inside = vsubq_u16(out->inside, vcleq_u16(words, out->g16));
  return vreinterpretq_s16_u16(words);
}

/* Indices with fractions: cut to the grid, and counted where that changes
 * them. */
INLINE void emit_high(uint8_t *dst, ivec k[4][PARTS], emitter *out,
                      int is_nibbles)
{
  uint8x16_t line[4];
  for (int i = 0; i < 4; i++) {
    uint8x8_t low = vqmovun_s16(high_words(out, k[i][0], k[i][1]));
    uint8x16_t bytes = vqmovun_high_s16(low, high_words(out, k[i][2], k[i][3]));
    line[i] = vminq_u8(bytes, out->g8);
  }
  out->looked_at += 4 * FLK_LINE;
  emit_bytes(dst, line, is_nibbles);
}

INLINE uint8x16_t low_words(ivec a, ivec b)
{
  return vreinterpretq_u8_u16(
      vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b)));
}

/* Indices in the low byte. */
INLINE void emit_low(uint8_t *dst, ivec k[4][PARTS], int is_nibbles)
{
  uint8x16_t line[4];
  for (int i = 0; i < 4; i++) {
    line[i] =
        vuzp1q_u8(low_words(k[i][0], k[i][1]), low_words(k[i][2], k[i][3]));
  }
  emit_bytes(dst, line, is_nibbles);
}

/* (a, b) -> (a + b, a - b) inside a register: with the partners in another,
 * x * +-1 + partner is a + b or a - b in one rounding. */
INLINE vec apart_2(vec x)
{
  const vec one = (vec){1.0f, 1.0f, -1.0f, -1.0f};
  return vfmaq_f32(vextq_f32(x, x, 2), x, one);
}

INLINE vec apart_1(vec x)
{
  const vec one = (vec){1.0f, -1.0f, 1.0f, -1.0f};
  return vfmaq_f32(vrev64q_f32(x), x, one);
}

INLINE void butterfly(vec *a, vec *b)
{
  vec difference = vsubq_f32(*a, *b);
  *a = vaddq_f32(*a, *b);
  *b = difference;
}

INLINE void line_down(vec r[PARTS])
{
  butterfly(&r[0], &r[2]);
  butterfly(&r[1], &r[3]);
  butterfly(&r[0], &r[1]);
  butterfly(&r[2], &r[3]);
  for (int p = 0; p < PARTS; p++)
    r[p] = apart_1(apart_2(r[p]));
}

INLINE void line_up(vec r[PARTS])
{
  for (int p = 0; p < PARTS; p++)
    r[p] = apart_2(apart_1(r[p]));
  butterfly(&r[0], &r[1]);
  butterfly(&r[2], &r[3]);
  butterfly(&r[0], &r[2]);
  butterfly(&r[1], &r[3]);
}

#include "kernels/block.h"

static size_t find_not_finite(const float *x, size_t n)
{
  const ivec exponent = vdupq_n_u32(0x7f800000u);
  size_t i = 0;
  for (; i + FLK_LINE <= n; i += FLK_LINE) {
    ivec found = vdupq_n_u32(0);
    for (size_t k = 0; k < FLK_LINE; k += WIDTH) {
      ivec bits = vreinterpretq_u32_f32(vld1q_f32(x + i + k));
      found = vmaxq_u32(found, vandq_u32(bits, exponent));
    }
    if (vmaxvq_u32(found) == 0x7f800000u) break;
  }
  return i + flk_find_not_finite_c(x + i, n - i);
}

enum { PAIRS = FLK_LINE / 2 };

INLINE void add_squares(float64x2_t acc[PAIRS], const float *line)
{
  for (size_t k = 0; k < PAIRS; k += 2) {
    vec v = vld1q_f32(line + 2 * k);
    float64x2_t low = vcvt_f64_f32(vget_low_f32(v)),
                high = vcvt_high_f64_f32(v);
    /* The squares of float32 are exact in double. */
    acc[k] = vfmaq_f64(acc[k], low, low);
    acc[k + 1] = vfmaq_f64(acc[k + 1], high, high);
  }
}

INLINE double fold(float64x2_t acc[PAIRS])
{
  for (size_t half = PAIRS / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; k++)
      acc[k] = vaddq_f64(acc[k], acc[k + half]);
  }
  return vgetq_lane_f64(acc[0], 0) + vgetq_lane_f64(acc[0], 1);
}

static double sum_squares(const float *x, size_t n)
{
  float64x2_t acc[PAIRS];
  float rest[FLK_LINE] = {0};
  for (size_t k = 0; k < PAIRS; k++)
    acc[k] = vdupq_n_f64(0.0);
  for (size_t i = 0; i < n; i += FLK_LINE) {
    const float *line = x + i;
    if (n - i < FLK_LINE) {
      memcpy(rest, line, (n - i) * sizeof(float));
      line = rest;
    }
    add_squares(acc, line);
  }
  return fold(acc);
}

static void sum_squares_group(double *sums, const float *src,
                              const flk_lines *lines)
{
  for (size_t b = 0; b < lines->count; b++) {
    float64x2_t acc[PAIRS];
    for (size_t k = 0; k < PAIRS; k++)
      acc[k] = vdupq_n_f64(0.0);
    for (size_t j = 0; j < lines->n / FLK_LINE; j++)
      add_squares(acc, src + j * lines->stride + b * FLK_LINE);
    sums[b] = fold(acc);
  }
}

void flk_fill_neon(flk_table *table)
{
  table->name = "neon";
  table->find_not_finite = find_not_finite;
  table->sum_squares = sum_squares;
  table->sum_squares_group = sum_squares_group;
  table->add_packed = flk_add_packed_neon;
  fill_blocks(table);
}
