/* SPDX-License-Identifier: Apache-2.0 */
/* Rotation, encode and decode of blocks in vector code, for files that have
 * defined `vec` (WIDTH floats, PARTS to a line), `ivec` (WIDTH 32-bit integers)
 * and the operations on them. Included once per instruction set.
 *
 * A block of 4096 is 16 x 16 lines: butterflies between the lines j, j + 16,
 * ..., j + 240 are one pass, which is also the way from and to the vector;
 * those between 16 neighbouring lines (a tile) and inside a line are the other,
 * next to indices and lanes. So a block is loaded and stored twice. Additions
 * are those of rotate_c.c, in the same order. */
#ifndef FLK_BLOCK_H
#define FLK_BLOCK_H

#include "kernels/kernels.h"

/* What the including file may choose. */

/* Which 32-bit words and lanes of a line part p has between line_down and
 * line_up: any order that its emit_high and emit_low know. */
#ifndef NOISE_LOAD
#  define NOISE_LOAD(words, p) int_load((words) + WIDTH * (p))
#endif
#ifndef LINE_LANES
#  define LINE_LANES(line, width, p) \
    int_lanes((line) + ((size_t)(WIDTH * (p)) << (width)), width)
#endif

/* Where registers are few: x is worked out here, not put off until all that it
 * is made of has left the registers. */
#ifndef NOW
#  define NOW(x) ((void)0)
#endif

enum { ROWS = 16 };
_Static_assert(PARTS *WIDTH == FLK_LINE, "a line is PARTS vectors");

#define BUTTERFLY(i, j)                   \
  do {                                    \
    vec difference = vec_sub(v[i], v[j]); \
    v[i] = vec_add(v[i], v[j]);           \
    v[j] = difference;                    \
  } while (0)

/* Butterflies between 16 rows v[0..15], four rows at a time: where there are 16
 * registers, 16 rows and what a butterfly needs do not fit them. `get` comes
 * before the first use of a row, `put` after the last one. */
#define NEAR_ROWS(m, i) \
  m(4 * i);             \
  m(4 * i + 1);         \
  m(4 * i + 2);         \
  m(4 * i + 3)
#define FAR_ROWS(m, i) \
  m(i);                \
  m(i + 4);            \
  m(i + 8);            \
  m(i + 12)
#define FAR_DOWN(get, i)    \
  FAR_ROWS(get, i);         \
  BUTTERFLY(i, i + 8);      \
  BUTTERFLY(i + 4, i + 12); \
  BUTTERFLY(i, i + 4);      \
  BUTTERFLY(i + 8, i + 12)
#define NEAR_DOWN(put, i)          \
  BUTTERFLY(4 * i, 4 * i + 2);     \
  BUTTERFLY(4 * i + 1, 4 * i + 3); \
  BUTTERFLY(4 * i, 4 * i + 1);     \
  BUTTERFLY(4 * i + 2, 4 * i + 3); \
  NEAR_ROWS(put, i)
#define NEAR_UP(get, i)            \
  NEAR_ROWS(get, i);               \
  BUTTERFLY(4 * i, 4 * i + 1);     \
  BUTTERFLY(4 * i + 2, 4 * i + 3); \
  BUTTERFLY(4 * i, 4 * i + 2);     \
  BUTTERFLY(4 * i + 1, 4 * i + 3)
#define FAR_UP(put, i)      \
  BUTTERFLY(i, i + 4);      \
  BUTTERFLY(i + 8, i + 12); \
  BUTTERFLY(i, i + 8);      \
  BUTTERFLY(i + 4, i + 12); \
  FAR_ROWS(put, i)
#define FOUR(m, how) \
  m(how, 0);         \
  m(how, 1);         \
  m(how, 2);         \
  m(how, 3)
#define ROWS_DOWN(get, put) \
  FOUR(FAR_DOWN, get);      \
  FOUR(NEAR_DOWN, put)
#define ROWS_UP(get, put) \
  FOUR(NEAR_UP, get);     \
  FOUR(FAR_UP, put)

/* ---- from the vector and back ---- */

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

/* The two factors that `vec_pick` chooses between. */
typedef struct turning {
  vec plus;
  vec minus;
} turning;

INLINE turning turning_of(const flk_turn *turn)
{
  return (turning){vec_set1(turn->scale), vec_set1(-turn->scale)};
}

static void small_in(float *x, const float *src, const flk_lines *lines,
                     const flk_turn *turn)
{
  const turning t = turning_of(turn);
  for (size_t i = 0; i < lines->n; i += WIDTH) {
    vec v = vec_load(src + i / FLK_LINE * lines->stride + i % FLK_LINE);
    vec_store(x + i, vec_mul(v, vec_pick(turn->signs, i, t.plus, t.minus)));
  }
  for (size_t h = lines->n / 2; h >= FLK_TILE; h /= 2)
    apart(x, h, lines->n);
}

/* Scale and sign of row i: `at` and p are the same for all rows. */
#define ROW_PICK(signs, i) \
  vec_pick((signs) + FLK_TILE / 8 * (i), at + p, t.plus, t.minus)

/* The lines at `src`, `far` apart, to `dst`; the sum of their squares. */
INLINE vec column_in(float *dst, const float *src, size_t far,
                     const flk_turn *turn, size_t at)
{
  const turning t = turning_of(turn);
  vec sum = vec_zero();
  EACH_PART
  for (size_t p = 0; p < FLK_LINE; p += WIDTH) {
    vec v[ROWS];
#define LOAD(i)                         \
  v[i] = vec_load(src + far * (i) + p); \
  sum = vec_fma(v[i], v[i], sum);       \
  NOW(sum);                             \
  v[i] = vec_mul(v[i], ROW_PICK(turn->signs, i))
#define STORE(i) vec_store(dst + FLK_TILE * (i) + p, v[i])
    ROWS_DOWN(LOAD, STORE);
#undef LOAD
#undef STORE
  }
  return sum;
}

INLINE float vec_sum(vec v)
{
  float part[WIDTH], sum = 0.0f;
  vec_store(part, v);
  for (int k = 0; k < WIDTH; k++)
    sum += part[k];
  return sum;
}

static void rotate_in(float *blocks, const float *src, const flk_lines *lines,
                      const flk_turn *turns, const float *next, float *about)
{
  if (lines->n < FLK_BLOCK_MAX) {
    small_in(blocks, src, lines, turns);
    about[0] = 0.0f; /* not known */
    return;
  }
  const size_t far = ROWS * lines->stride;
  vec sum[FLK_GROUP_MAX];
  for (size_t b = 0; b < FLK_GROUP_MAX; b++)
    sum[b] = vec_zero();
  for (size_t j = 0; j < ROWS; j++) {
    const float *ahead = j + 1 < ROWS ? src + (j + 1) * lines->stride : next;
    for (size_t b = 0; b < lines->count; b++) {
      vec one = column_in(blocks + b * FLK_BLOCK_STRIDE + j * FLK_LINE,
                          src + j * lines->stride + b * FLK_LINE, far,
                          &turns[b], j * FLK_LINE);
      sum[b] = vec_add(sum[b], one);
      for (size_t i = 0; ahead && i < ROWS; i++)
        PREFETCH_NEAR(ahead + b * FLK_LINE + far * i);
    }
  }
  for (size_t b = 0; b < lines->count; b++)
    about[b] = vec_sum(sum[b]);
}

static void small_out(float *dst, float *x, const flk_lines *lines,
                      const flk_turn *turn)
{
  const turning t = turning_of(turn);
  for (size_t h = FLK_TILE; h < lines->n; h *= 2)
    apart(x, h, lines->n);
  for (size_t i = 0; i < lines->n; i += WIDTH) {
    vec v = vec_mul(vec_load(x + i), vec_pick(turn->signs, i, t.plus, t.minus));
    vec_store(dst + i / FLK_LINE * lines->stride + i % FLK_LINE, v);
  }
}

INLINE void column_out(float *dst, const float *src, size_t far,
                       const flk_turn *turn, size_t at, int is_streamed)
{
  const turning t = turning_of(turn);
  _Alignas(64) float lines[ROWS * FLK_LINE];
  float *to = is_streamed ? lines : dst;
  const size_t step = is_streamed ? FLK_LINE : far;
  EACH_PART
  for (size_t p = 0; p < FLK_LINE; p += WIDTH) {
    vec v[ROWS];
#define LOAD(i) v[i] = vec_load(src + FLK_TILE * (i) + p)
#define STORE(i) \
  vec_store(to + step * (i) + p, vec_mul(v[i], ROW_PICK(turn->signs, i)))
    ROWS_UP(LOAD, STORE);
#undef LOAD
#undef STORE
  }
  if (!is_streamed) return;
  /* Whole lines, one after the other: each leaves the processor as one. */
  for (size_t i = 0; i < ROWS; i++) {
    for (size_t p = 0; p < FLK_LINE; p += WIDTH)
      vec_stream(dst + far * i + p, vec_load(to + FLK_LINE * i + p));
  }
}

static void rotate_out(float *dst, float *blocks, const flk_lines *lines,
                       const flk_turn *turns, int is_streamed)
{
  if (lines->n < FLK_BLOCK_MAX) {
    small_out(dst, blocks, lines, turns);
    return;
  }
  const size_t far = ROWS * lines->stride;
  is_streamed = is_streamed && (uintptr_t)dst % (FLK_LINE * sizeof *dst) == 0;
  for (size_t j = 0; j < ROWS; j++) {
    for (size_t b = 0; b < lines->count; b++) {
      float *to = dst + j * lines->stride + b * FLK_LINE;
      const float *from = blocks + b * FLK_BLOCK_STRIDE + j * FLK_LINE;
      if (is_streamed) {
        column_out(to, from, far, &turns[b], j * FLK_LINE, 1);
      } else {
        column_out(to, from, far, &turns[b], j * FLK_LINE, 0);
      }
    }
  }
  if (is_streamed) vec_stream_end();
}

/* ---- noise ---- */

typedef struct generator {
  ivec state[PARTS];
  ivec step[PARTS];
} generator;

INLINE generator generator_of(const flk_noise *noise)
{
  generator g;
  for (int p = 0; p < PARTS; p++) {
    g.state[p] = NOISE_LOAD(noise->state, p);
    g.step[p] = NOISE_LOAD(noise->step, p);
  }
  return g;
}

INLINE ivec next_noise(generator *g, int p)
{
  ivec product = int_mul16(g->state[p], int_set1(FLK_NOISE_FACTOR * 0x10001u));
  g->state[p] = int_add16(product, g->step[p]);
  return g->state[p];
}

/* ---- to indices ---- */

/* A small table fits registers, if the instruction set has that. */
enum { NO_TABLE, SMALL_TABLE, LARGE_TABLE };

typedef struct quantiser {
  const flk_grid *grid;
  vec centre;
  vec top;     /* of a table */
  ivec offset; /* in both halves of every 32 bits */
  generator noise;
  cells cells;
  emitter out;
} quantiser;

/* Line number `line` (0 or 1) of a pair: the noise in the low or high half. */
INLINE ivec noise_half(const quantiser *q, int part, int line)
{
  ivec both = int_add16(q->noise.state[part], q->offset);
  return line == 0 ? int_low(both) : int_high(both);
}

/* What is too small for an integer becomes the smallest: as good as -2^30. */
INLINE ivec fixed_point(const quantiser *q, vec y)
{
  vec z = vec_min(vec_add(y, q->centre), vec_set1(0x1p30f));
  return vec_to_int(z);
}

/* `more` is added to the point that was chosen. */
INLINE vec left_of(const quantiser *q, vec y, ivec point, uint32_t more)
{
  ivec middle = int_set1(more - 32768u * q->grid->g);
  return vec_sub(y, vec_from_int(int_add(point, middle)));
}

/* One vector: the index with its fraction; what is left goes to *y. */
INLINE ivec on_grid(const quantiser *q, vec *y, ivec u, int leave)
{
  ivec k = int_add(fixed_point(q, *y), u);
  if (leave != FLK_LEAVE_NOTHING) {
    ivec index =
        int_min(int_max(int_high_signed(k), int_set1(0)), int_set1(q->grid->g));
    ivec point = int_shift_16(index);
    if (leave == FLK_LEAVE_DITHERED)
      *y = left_of(q, *y, int_sub(point, u), 32768);
    else
      *y = left_of(q, *y, point, 0);
  }
  return k;
}

/* One vector: the index in the low byte. */
INLINE ivec in_table(quantiser *q, vec *y, ivec u, int table, int leave)
{
  vec z = vec_add(*y, q->centre);
  vec inside = vec_min(vec_max(z, vec_zero()), q->top);
  ivec t = vec_to_int(inside);
  ivec entry = table_lookup(&q->cells, int_high(t), table);
  ivec below = int_and(entry, int_set1(0xff0000u));
  ivec gap = int_top_byte(entry);
  ivec above = int_sub(t, below), threshold = int_mul(u, gap);
  emit_count(&q->out, inside, z);
  if (leave != FLK_LEAVE_NOTHING) {
    ivec up = int_where_greater(above, threshold, int_shift_16(gap));
    *y = left_of(q, *y, int_add(below, up), 0);
  }
  return int_add(entry, int_where_greater(above, threshold, int_set1(1)));
}

/* Four lines to indices; what is left takes their places. */
INLINE void encode_four(uint8_t *dst, quantiser *q, vec (*lines)[PARTS],
                        int table, int leave)
{
  ivec k[4][PARTS];
  for (int line = 0; line < 4; line++) {
    line_down(lines[line]);
    for (int p = 0; p < PARTS; p++) {
      if (line % 2 == 0) next_noise(&q->noise, p);
      ivec u = noise_half(q, p, line % 2);
      k[line][p] = table ? in_table(q, &lines[line][p], u, table, leave)
                         : on_grid(q, &lines[line][p], u, leave);
    }
    if (leave != FLK_LEAVE_NOTHING) line_up(lines[line]);
  }
  if (table) {
    emit_low(dst, k, q->grid->bits == 4);
  } else {
    emit_high(dst, k, &q->out, q->grid->bits == 4);
  }
}

/* An equal share of what lies ahead. */
INLINE void fetch_ahead(const flk_ahead *ahead, size_t tile, size_t tiles)
{
  if (!ahead->src) return;
  const size_t each = ahead->lines / tiles;
  for (size_t j = tile * each; j < (tile + 1) * each; j++) {
    for (size_t b = 0; b < ahead->count; b++)
      PREFETCH_FAR(ahead->src + j * ahead->stride + b * FLK_LINE);
  }
}

INLINE void encode_tiles(uint8_t *dst, float *x, quantiser *q, size_t n,
                         int table, int leave)
{
  const size_t step = q->grid->bits == 4 ? 4 * FLK_LINE / 2 : 4 * FLK_LINE;
  for (size_t i = 0; i < n; i += FLK_TILE) {
    vec rows[ROWS][PARTS];
    fetch_ahead(&q->grid->ahead, i / FLK_TILE, n / FLK_TILE);
    EACH_PART
    for (int p = 0; p < PARTS; p++) {
      vec v[ROWS];
#define LOAD(r) v[r] = vec_load(x + i + FLK_LINE * (r) + WIDTH * p)
#define KEEP(r) rows[r][p] = v[r]
      ROWS_DOWN(LOAD, KEEP);
    }
    FOUR_TIMES
    for (int r = 0; r < ROWS; r += 4) {
      encode_four(dst, q, rows + r, table, leave);
      dst += step;
    }
    EACH_PART
    for (int p = 0; p < PARTS && leave != FLK_LEAVE_NOTHING; p++) {
      vec v[ROWS];
#define TAKE(r) v[r] = rows[r][p]
#define STORE(r) vec_store(x + i + FLK_LINE * (r) + WIDTH * p, v[r])
      ROWS_UP(TAKE, STORE);
    }
#undef LOAD
#undef KEEP
#undef TAKE
#undef STORE
  }
}

#if FEW_VARIANTS
static void encode_any(uint8_t *dst, float *x, quantiser *q, size_t n)
{
  if (q->grid->entries) {
    encode_tiles(dst, x, q, n, SMALL_TABLE, q->grid->leave);
  } else if (q->grid->leave) {
    encode_tiles(dst, x, q, n, NO_TABLE, q->grid->leave);
  } else {
    encode_tiles(dst, x, q, n, NO_TABLE, FLK_LEAVE_NOTHING);
  }
}
#else
static void encode_any(uint8_t *dst, float *x, quantiser *q, size_t n)
{
  const uint32_t leave = q->grid->leave;
  if (table_is_large(q->grid) && leave) {
    encode_tiles(dst, x, q, n, LARGE_TABLE, FLK_LEAVE_ROUNDED);
  } else if (table_is_large(q->grid)) {
    encode_tiles(dst, x, q, n, LARGE_TABLE, FLK_LEAVE_NOTHING);
  } else if (q->grid->entries && leave) {
    encode_tiles(dst, x, q, n, SMALL_TABLE, FLK_LEAVE_ROUNDED);
  } else if (q->grid->entries) {
    encode_tiles(dst, x, q, n, SMALL_TABLE, FLK_LEAVE_NOTHING);
  } else if (leave == FLK_LEAVE_DITHERED) {
    encode_tiles(dst, x, q, n, NO_TABLE, FLK_LEAVE_DITHERED);
  } else if (leave) {
    encode_tiles(dst, x, q, n, NO_TABLE, FLK_LEAVE_ROUNDED);
  } else {
    encode_tiles(dst, x, q, n, NO_TABLE, FLK_LEAVE_NOTHING);
  }
}
#endif

static uint32_t encode_block(uint8_t *dst, float *x, const flk_grid *grid,
                             size_t n)
{
  uint8_t indices[FLK_BLOCK_MAX];
  quantiser q = {.grid = grid,
                 .centre = vec_set1(grid->centre),
                 .top = vec_set1(65536.0f * (float)grid->g),
                 .offset = int_set1(grid->offset * 0x10001u),
                 .noise = generator_of(grid->noise),
                 .out = emit_begin(grid)};
  if (grid->entries) q.cells = table_begin(grid);
  encode_any(grid->bits == 4 ? dst : indices, x, &q, n);
  if (grid->bits != 4) flk_pack_c(dst, indices, n, grid->bits);
  return emit_end(&q.out);
}

/* ---- from lanes ---- */

typedef struct dither {
  const flk_lattice *lattice;
  ivec factor; /* in both halves of every 32 bits */
  ivec bias;
  generator noise;
} dither;

/* What the slots in the sum have added. `noise`: 0..65535; `times`: factor
 * times noise, mod 65536. */
INLINE ivec dither_sum(const dither *d, ivec noise, ivec times)
{
  const flk_lattice *lattice = d->lattice;
  ivec sum = times;
  for (uint32_t i = 0; i < lattice->n_offsets; i++) {
    ivec one = int_low(int_add(noise, int_set1(lattice->offsets[i])));
    sum = lattice->sign > 0 ? int_add(sum, one) : int_sub(sum, one);
  }
  return sum;
}

/* A pair of lines of part p, as coordinates. */
INLINE void dequantise(dither *d, const uint8_t *lanes, uint32_t width,
                       int has_dither, vec *first, vec *second, int p)
{
  const uint32_t shift = width == FLK_U8 && has_dither ? 16 : d->lattice->shift;
  ivec a = int_shift(LINE_LANES(lanes, width, p), shift);
  ivec b = int_shift(LINE_LANES(lanes + (FLK_LINE << width), width, p), shift);
  a = int_add(a, d->bias);
  b = int_add(b, d->bias);
  if (has_dither) {
    ivec noise = next_noise(&d->noise, p);
    ivec times = int_mul16(noise, d->factor);
    ivec e = dither_sum(d, int_low(noise), int_low(times));
    ivec f = dither_sum(d, int_high(noise), int_high(times));
    a = int_sub(a, shift == 16 ? e : int_shift_right(e, 16 - shift));
    b = int_sub(b, shift == 16 ? f : int_shift_right(f, 16 - shift));
  }
  *first = vec_from_int(a);
  *second = vec_from_int(b);
}

/* Two lines, through the butterflies inside a line. */
INLINE void decode_pair(dither *d, const uint8_t *lanes, uint32_t width,
                        int has_dither, vec (*lines)[PARTS])
{
  for (int p = 0; p < PARTS; p++) {
    dequantise(d, lanes, width, has_dither, &lines[0][p], &lines[1][p], p);
  }
  line_up(lines[0]);
  line_up(lines[1]);
}

INLINE void decode_tiles(float *x, const uint8_t *lanes, dither *d, size_t n,
                         uint32_t width, int has_dither)
{
  for (size_t i = 0; i < n; i += FLK_TILE) {
    vec rows[ROWS][PARTS];
    FOUR_TIMES
    for (int r = 0; r < ROWS; r += 4) {
      decode_pair(d, lanes + ((i + FLK_LINE * (size_t)r) << width), width,
                  has_dither, rows + r);
      decode_pair(d, lanes + ((i + FLK_LINE * (size_t)(r + 2)) << width), width,
                  has_dither, rows + r + 2);
    }
    EACH_PART
    for (int p = 0; p < PARTS; p++) {
      vec v[ROWS];
#define TAKE(r) v[r] = rows[r][p]
#define STORE(r) vec_store(x + i + FLK_LINE * (r) + WIDTH * p, v[r])
      ROWS_UP(TAKE, STORE);
#undef TAKE
#undef STORE
    }
  }
}

static void decode_block(float *x, const uint8_t *lanes,
                         const flk_lattice *lattice, size_t n)
{
  dither d = {.lattice = lattice,
              .factor = int_set1((lattice->factor & 0xffffu) * 0x10001u),
              .bias = int_set1((uint32_t)lattice->bias)};
  if (lattice->noise) d.noise = generator_of(lattice->noise);
  const int has_dither = lattice->noise != NULL;
#if FEW_VARIANTS
  if (lattice->width == FLK_U8 && has_dither) {
    decode_tiles(x, lanes, &d, n, FLK_U8, 1);
  } else {
    decode_tiles(x, lanes, &d, n, lattice->width, has_dither);
  }
#else
  if (lattice->width == FLK_U8 && has_dither) {
    decode_tiles(x, lanes, &d, n, FLK_U8, 1);
  } else if (lattice->width == FLK_U8) {
    decode_tiles(x, lanes, &d, n, FLK_U8, 0);
  } else if (lattice->width == FLK_U16 && has_dither) {
    decode_tiles(x, lanes, &d, n, FLK_U16, 1);
  } else if (lattice->width == FLK_U16) {
    decode_tiles(x, lanes, &d, n, FLK_U16, 0);
  } else {
    decode_tiles(x, lanes, &d, n, FLK_U32, has_dither);
  }
#endif
}

static void fill_blocks(flk_table *table)
{
  table->rotate_in = rotate_in;
  table->encode = encode_block;
  table->decode = decode_block;
  table->rotate_out = rotate_out;
}

#endif
