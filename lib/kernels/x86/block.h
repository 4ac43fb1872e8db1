/* SPDX-License-Identifier: Apache-2.0 */
/* Encode and decode of blocks in vector code, for files that have defined
 * `vec` (WIDTH floats), `ivec` (WIDTH 32-bit integers) and the operations
 * below them. Included once per instruction set.
 *
 * A block of 4096 is 16 x 16 lines: butterflies between the lines j, j + 16,
 * ..., j + 240 are one pass, those between 16 neighbouring lines and inside a
 * line are the other. Signs and the unpacking of lanes belong to the first
 * pass, quantisation and the way out to the last, so a block is loaded and
 * stored twice. Additions are those of rotate_c.c, in the same order. */
#ifndef FLK_X86_BLOCK_H
#define FLK_X86_BLOCK_H

#include <string.h>

#include "kernels/kernels.h"

enum { PARTS = FLK_LINE / WIDTH, ROWS = 16, ROW = ROWS * FLK_LINE };
enum { GATHER_MAX = 8 };

static inline void fetch(const float *p)
{
  _mm_prefetch((const char *)p, _MM_HINT_T1);
}

/* Row number `row` of what will be read soon. */
static inline void fetch_row(const flk_ahead *ahead, size_t row)
{
  if (row >= ahead->rows) return;
  for (size_t i = 0; i < ahead->row; i += FLK_LINE)
    fetch(ahead->src + row * ahead->stride + i);
}

static inline float vec_sum(vec v)
{
  float part[WIDTH], sum = 0.0f;
  vec_store(part, v);
  for (int k = 0; k < WIDTH; k++)
    sum += part[k];
  return sum;
}

#define EACH8(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7)
#define EACH16(m) EACH8(m) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)

#define BUTTERFLY(i, j)                   \
  do {                                    \
    vec difference = vec_sub(v[i], v[j]); \
    v[i] = vec_add(v[i], v[j]);           \
    v[j] = difference;                    \
  } while (0);
#define APART_8(i) BUTTERFLY(i, i + 8)
#define APART_4(i) BUTTERFLY(i + (i & 4), i + (i & 4) + 4)
#define APART_2(i) BUTTERFLY(i + (i & 6), i + (i & 6) + 2)
#define APART_1(i) BUTTERFLY(2 * i, 2 * i + 1)

static inline __attribute__((always_inline)) void rows_down(vec v[ROWS])
{
  EACH8(APART_8)
  EACH8(APART_4)
  EACH8(APART_2)
  EACH8(APART_1)
}

static inline __attribute__((always_inline)) void rows_up(vec v[ROWS])
{
  EACH8(APART_1)
  EACH8(APART_2)
  EACH8(APART_4)
  EACH8(APART_8)
}

/* One distance, in floats, where a block is too small for 16 x 16 lines. */
static void apart(float *x, size_t h, size_t n)
{
  for (size_t i = 0; i < n; i += 2 * h) {
    for (size_t j = i; j < i + h; j += WIDTH) {
      vec a = vec_load(x + j), b = vec_load(x + j + h);
      vec_store(x + j, vec_add(a, b));
      vec_store(x + j + h, vec_sub(a, b));
    }
  }
}

/* Signs, scale and the distances from n / 2 down to 256. */
static void encode_far(float *x, const flk_grid *grid, size_t n)
{
  const vec plus = vec_set1(grid->scale), minus = vec_set1(-grid->scale);
  const uint8_t *signs = grid->signs;
  if (n < FLK_BLOCK_MAX) {
    for (size_t i = 0; i < n; i += WIDTH) {
      vec_store(x + i,
                vec_mul(vec_load(x + i), vec_pick(signs + i / 8, plus, minus)));
    }
    for (size_t h = n / 2; h >= ROW; h /= 2)
      apart(x, h, n);
    return;
  }
  for (size_t j = 0; j < ROW; j += WIDTH) {
    vec v[ROWS];
    if (j % FLK_LINE == 0) fetch_row(&grid->ahead, j / FLK_LINE);
#define LOAD(i)                             \
  v[i] = vec_mul(vec_load(x + ROW * i + j), \
                 vec_pick(signs + (ROW * i + j) / 8, plus, minus));
#define STORE(i) vec_store(x + ROW * i + j, v[i]);
    EACH16(LOAD)
    rows_down(v);
    EACH16(STORE)
#undef LOAD
#undef STORE
  }
}

typedef struct quantiser {
  vec step;
  vec half;
  vec top;
  ivec low;     /* offset */
  ivec high;    /* offset << 16 */
  ivec clamped; /* minus the count */
  const flk_ahead *ahead;
} quantiser;

static inline __attribute__((always_inline)) ivec quantise(quantiser *q, vec y,
                                                           ivec noise)
{
  vec w = vec_add(vec_mul(y, q->step), q->half);
  vec z = vec_min(vec_max(w, vec_zero()), q->top);
  q->clamped = vec_count(q->clamped, w, z);
  /* The product is exact, so that one rounding is the sum's. */
  z = vec_fma(vec_from_int(noise), vec_set1(0x1p-16f), z);
  return vec_to_int(z);
}

/* Two lines. */
static inline __attribute__((always_inline)) void
encode_pair(uint8_t *dst, quantiser *q, vec *first, vec *second, ivec *state,
            uint32_t bits)
{
  ivec index[2 * PARTS];
  line_down(first);
  line_down(second);
  for (int p = 0; p < PARTS; p++) {
    ivec s = int_xorshift(state[p]);
    state[p] = s;
    index[p] = quantise(q, first[p], int_low(int_add(s, q->low)));
    index[PARTS + p] = quantise(q, second[p], int_high(int_add(s, q->high)));
  }
  if (bits == 4) {
    store_nibbles(dst, index);
  } else {
    store_bytes(dst, index);
  }
}

/* The distances from 128 down, and the indices: packed for 4 bits, else one a
 * byte. */
static inline __attribute__((always_inline)) void
encode_near(uint8_t *dst, const float *x, quantiser *q, ivec *state, size_t n,
            uint32_t bits)
{
  for (size_t i = 0; i < n; i += ROW) {
    vec rows[ROWS][PARTS];
    fetch_row(q->ahead, ROWS + i / ROW);
    for (int p = 0; p < PARTS; p++) {
      vec v[ROWS];
#define LOAD(r) v[r] = vec_load(x + i + FLK_LINE * r + WIDTH * p);
#define KEEP(r) rows[r][p] = v[r];
      EACH16(LOAD)
      rows_down(v);
      EACH16(KEEP)
#undef LOAD
#undef KEEP
    }
#define PAIR(r)                                                          \
  encode_pair(dst + (i + 2 * FLK_LINE * r) * (bits == 4 ? 4 : 8) / 8, q, \
              rows[2 * r], rows[2 * r + 1], state, bits);
    EACH8(PAIR)
#undef PAIR
  }
}

static uint32_t encode_block(uint8_t *dst, float *x, const flk_grid *grid,
                             uint32_t state[FLK_NOISE_LANES], size_t n)
{
  uint32_t g = (1u << grid->bits) - 1u;
  quantiser q = {.step = vec_set1(grid->step),
                 .half = vec_set1(0.5f * (float)g),
                 .top = vec_set1((float)g),
                 .low = int_set1(grid->offset),
                 .high = int_set1((uint32_t)grid->offset << 16),
                 .clamped = int_set1(0),
                 .ahead = &grid->ahead};
  ivec s[PARTS];
  for (int p = 0; p < PARTS; p++)
    s[p] = int_load(state + WIDTH * p);
  encode_far(x, grid, n);
  if (grid->bits == 4) {
    encode_near(dst, x, &q, s, n, 4);
  } else {
    uint8_t indices[FLK_BLOCK_MAX];
    encode_near(indices, x, &q, s, n, 8);
    flk_pack_c(dst, indices, n, grid->bits);
  }
  for (int p = 0; p < PARTS; p++)
    int_store(state + WIDTH * p, s[p]);
  return (uint32_t)-int_sum(q.clamped);
}

typedef struct dither {
  const flk_lattice *lattice;
  ivec factor;
  ivec bias;
  ivec state[PARTS];
} dither;

/* What the slots in the sum have added, for noise in 0..65535. */
static inline ivec dither_sum(const dither *d, ivec noise)
{
  const flk_lattice *lattice = d->lattice;
  ivec sum = int_add(int_mul16(noise, d->factor), d->bias);
  for (uint32_t i = 0; i < lattice->n_offsets; i++) {
    ivec one = int_low(int_add(noise, int_set1(lattice->offsets[i])));
    sum = lattice->sign > 0 ? int_add(sum, one) : int_sub(sum, one);
  }
  return sum;
}

static inline __attribute__((always_inline)) vec
dequantise(const dither *d, const uint8_t *lanes, size_t at, uint32_t width,
           int has_dither, ivec noise)
{
  vec y = vec_from_int(int_lanes(lanes + (at << width), width));
  if (has_dither) {
    vec e = vec_from_int(dither_sum(d, noise));
    /* Exact product: one rounding, as in C. */
    y = vec_fma(e, vec_set1(-0x1p-16f), y);
  }
  y = vec_mul(y, vec_set1(d->lattice->step));
  return vec_add(y, vec_set1(d->lattice->shift));
}

/* Lanes to floats and the distances up to 128. */
static inline __attribute__((always_inline)) void
decode_near(float *x, const uint8_t *lanes, dither *d, size_t n, uint32_t width,
            int has_dither)
{
  for (size_t i = 0; i < n; i += ROW) {
    vec rows[ROWS][PARTS];
#define PAIR(r)                                                            \
  for (int p = 0; p < PARTS; p++) {                                        \
    size_t at = i + 2 * FLK_LINE * r + WIDTH * (size_t)p;                  \
    if (has_dither) d->state[p] = int_xorshift(d->state[p]);               \
    rows[2 * r][p] =                                                       \
        dequantise(d, lanes, at, width, has_dither, int_low(d->state[p])); \
    rows[2 * r + 1][p] = dequantise(d, lanes, at + FLK_LINE, width,        \
                                    has_dither, int_high(d->state[p]));    \
  }                                                                        \
  line_up(rows[2 * r]);                                                    \
  line_up(rows[2 * r + 1]);
    EACH8(PAIR)
#undef PAIR
    for (int p = 0; p < PARTS; p++) {
      vec v[ROWS];
#define TAKE(r) v[r] = rows[r][p];
#define STORE(r) vec_store(x + i + FLK_LINE * r + WIDTH * p, v[r]);
      EACH16(TAKE)
      rows_up(v);
      EACH16(STORE)
#undef TAKE
#undef STORE
    }
  }
}

/* The distances from 256 up, signs and scale. */
static void decode_far(float *dst, size_t stride, float *x,
                       const flk_lattice *lattice, size_t n)
{
  const vec plus = vec_set1(lattice->scale), minus = vec_set1(-lattice->scale);
  const uint8_t *signs = lattice->signs;
  if (n < FLK_BLOCK_MAX) {
    for (size_t h = ROW; h < n; h *= 2)
      apart(x, h, n);
    for (size_t i = 0; i < n; i += WIDTH) {
      vec_store(dst + i / FLK_LINE * stride + i % FLK_LINE,
                vec_mul(vec_load(x + i), vec_pick(signs + i / 8, plus, minus)));
    }
    return;
  }
  for (size_t j = 0; j < ROW; j += WIDTH) {
    float *to = dst + j / FLK_LINE * stride + j % FLK_LINE;
    vec v[ROWS];
#define LOAD(i) v[i] = vec_load(x + ROW * i + j);
#define STORE(i)                    \
  vec_store(to + ROWS * i * stride, \
            vec_mul(v[i], vec_pick(signs + (ROW * i + j) / 8, plus, minus)));
    EACH16(LOAD)
    rows_up(v);
    EACH16(STORE)
#undef LOAD
#undef STORE
  }
}

static void decode_block(float *dst, size_t stride, const uint8_t *lanes,
                         const flk_lattice *lattice, size_t n)
{
  _Alignas(64) float x[FLK_BLOCK_MAX];
  dither d = {.lattice = lattice,
              .factor = int_set1(lattice->factor),
              .bias = int_set1((uint32_t)lattice->bias)};
  for (int p = 0; p < PARTS; p++) {
    d.state[p] =
        lattice->state ? int_load(lattice->state + WIDTH * p) : int_set1(0);
  }
  if (lattice->width == FLK_U8 && lattice->state) {
    decode_near(x, lanes, &d, n, FLK_U8, 1);
  } else if (lattice->width == FLK_U8) {
    decode_near(x, lanes, &d, n, FLK_U8, 0);
  } else if (lattice->width == FLK_U16 && lattice->state) {
    decode_near(x, lanes, &d, n, FLK_U16, 1);
  } else if (lattice->width == FLK_U16) {
    decode_near(x, lanes, &d, n, FLK_U16, 0);
  } else {
    decode_near(x, lanes, &d, n, FLK_U32, lattice->state != NULL);
  }
  decode_far(dst, stride, x, lattice, n);
}

/* Runs of lines are far apart, often by a power of two: hardware prefetchers
 * do not see them coming. */
enum { ROWS_AHEAD = 12 };

static inline __attribute__((always_inline)) void
gather_count(float *dst, const flk_lines *group, size_t count, float *about)
{
  const vec weight = vec_set1(group->weight);
  const size_t stride = group->stride;
  const float *src = group->src;
  vec sum[GATHER_MAX];
  for (size_t b = 0; b < count; b++)
    sum[b] = vec_zero();
  for (size_t j = 0; j < group->lines; j++) {
    for (size_t b = 0; b < count && j + ROWS_AHEAD < group->lines; b++)
      fetch(src + ROWS_AHEAD * stride + b * FLK_LINE);
    for (size_t b = 0; b < count; b++) {
      for (size_t k = 0; k < FLK_LINE; k += WIDTH) {
        vec v = vec_mul(vec_load(src + b * FLK_LINE + k), weight);
        vec_store(dst + b * FLK_BLOCK_STRIDE + k, v);
        sum[b] = vec_fma(v, v, sum[b]);
      }
    }
    src += stride;
    dst += FLK_LINE;
  }
  for (size_t b = 0; about && b < count; b++)
    about[b] = vec_sum(sum[b]);
}

static void gather(float *dst, const flk_lines *group, float *about)
{
  if (group->count == GATHER_MAX) {
    gather_count(dst, group, GATHER_MAX, about);
  } else if (group->count < GATHER_MAX) {
    gather_count(dst, group, group->count, about);
  } else {
    flk_gather_c(dst, group, about);
  }
}

#endif
