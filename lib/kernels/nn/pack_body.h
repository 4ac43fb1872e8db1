/* SPDX-License-Identifier: Apache-2.0 */
/* What stands between matrices as people store them and the tiles: panels of
 * B made contiguous, and products of few rows, which are not worth a panel.
 * The unit of a transpose is a vector of rows x 4 columns: quads of the rows
 * are joined to vectors, so that what is left is a 4 x 4 transpose in each
 * half, two shuffles per vector. The vectors are of 8 floats at most: joining
 * four quads costs more than it saves. */
#ifndef FLK_NN_PACK_BODY_H
#define FLK_NN_PACK_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

enum { DOTS_X_MAX = NN_REGISTERS == 32 ? 4 : 3, DOTS_W_MAX = 8 };

/* Whether rows and columns that are left over have instances for their number,
 * or go one by one: these take much room, and phones want little. */
#define DOTS_HAS_RESTS (NN_BYTES > 16)

typedef float nn_quad __attribute__((vector_size(16), aligned(4), may_alias));

#if NN_BYTES == 64
typedef nn_half nn_part;
#else
typedef nn_vec nn_part;
#endif
enum { PART = sizeof(nn_part) / sizeof(float) };

#if NN_BYTES == 16
#  define SHUFFLED(a, b, i, j, k, l) \
    __builtin_shufflevector(a, b, i, j, (k) + 4, (l) + 4)
#else
#  define SHUFFLED(a, b, i, j, k, l)                                        \
    __builtin_shufflevector(a, b, i, j, (k) + 8, (l) + 8, (i) + 4, (j) + 4, \
                            (k) + 12, (l) + 12)
#endif

/* rows[row] and, in longer vectors, rows[row + 4] */
static inline __attribute__((always_inline)) nn_part
join_rows(const float *const rows[PART], size_t row, size_t at)
{
#if NN_BYTES == 16
  return *(const nn_quad *)(rows[row] + at);
#else
  __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(rows[row] + at));
  return (nn_part)_mm256_insertf128_ps(low, _mm_loadu_ps(rows[row + 4] + at),
                                       1);
#endif
}

/* out[i][r] = rows[r][at + i] for 4 i and PART r */
static inline __attribute__((always_inline)) void
transpose_four(const float *const rows[PART], size_t at, nn_part out[4])
{
  nn_part a = join_rows(rows, 0, at), b = join_rows(rows, 1, at);
  nn_part c = join_rows(rows, 2, at), d = join_rows(rows, 3, at);
  nn_part ab_low = SHUFFLED(a, b, 0, 1, 0, 1);  /* a0 a1 b0 b1 */
  nn_part ab_high = SHUFFLED(a, b, 2, 3, 2, 3); /* a2 a3 b2 b3 */
  nn_part cd_low = SHUFFLED(c, d, 0, 1, 0, 1);
  nn_part cd_high = SHUFFLED(c, d, 2, 3, 2, 3);
  out[0] = SHUFFLED(ab_low, cd_low, 0, 2, 0, 2);
  out[1] = SHUFFLED(ab_low, cd_low, 1, 3, 1, 3);
  out[2] = SHUFFLED(ab_high, cd_high, 0, 2, 0, 2);
  out[3] = SHUFFLED(ab_high, cd_high, 1, 3, 1, 3);
}

#undef SHUFFLED

static void pack(const flk_pack *p)
{
  const float *src = p->src;
  float *dst = p->dst;
  size_t whole = p->columns / NN_WIDTH * NN_WIDTH;
  for (size_t k = 0; k < p->depth; k++, src += p->step, dst += p->width) {
    if (p->ahead > 0) {
      __builtin_prefetch(src + p->ahead, 0, 2);
      __builtin_prefetch(src + p->ahead + p->width - 1, 0, 2);
    }
    for (size_t j = 0; j < whole; j += NN_WIDTH) {
      *(nn_vec *)(dst + j) = *(const nn_vec *)(src + j);
    }
    if (whole == p->width) continue;
    for (size_t j = whole; j < p->columns; j++) {
      dst[j] = src[j];
    }
    for (size_t j = p->columns; j < p->width; j++) {
      dst[j] = 0.0f;
    }
  }
}

/* Columns j.. of a panel, of which `n` are there; others repeat the last. */
static void pack_columns(const flk_pack *p, size_t j, size_t n)
{
  const float *rows[PART];
  size_t depth = p->depth, width = p->width;
  ptrdiff_t ahead = p->ahead;
  float *dst = p->dst + j;
  size_t k = 0;
  for (size_t r = 0; r < PART; r++) {
    rows[r] = p->src + (ptrdiff_t)(j + (r < n ? r : n - 1)) * p->step;
  }
  for (; k + 4 <= depth; k += 4) {
    nn_part out[4];
    if (ahead > 0 && k % 16 == 0) {
      for (size_t r = 0; r < PART; r++) {
        __builtin_prefetch(rows[r] + k + ahead, 0, 2);
      }
    }
    transpose_four(rows, k, out);
    UNROLL for (size_t i = 0; i < 4; i++, dst += width)
    {
      *(nn_part *)dst = out[i];
    }
  }
  for (; k < depth; k++, dst += width) {
    for (size_t r = 0; r < PART; r++) {
      dst[r] = rows[r][k];
    }
  }
}

static void pack_transposed(const flk_pack *p)
{
  for (size_t j = 0; j < p->columns; j += PART) {
    pack_columns(p, j, p->columns - j < PART ? p->columns - j : PART);
  }
}

/* Lanes added up to four. */
static inline nn_quad fold(nn_vec v)
{
#if NN_BYTES == 16
  return v;
#elif NN_BYTES == 32
  return (nn_quad)_mm256_castps256_ps128((__m256)v) +
         (nn_quad)_mm256_extractf128_ps((__m256)v, 1);
#else
  __m256 half = (__m256)((nn_half)_mm512_castps512_ps256((__m512)v) +
                         (nn_half)_mm512_extractf32x8_ps((__m512)v, 1));
  return (nn_quad)_mm256_castps256_ps128(half) +
         (nn_quad)_mm256_extractf128_ps(half, 1);
#endif
}

/* The sums of four vectors' lanes. */
static inline nn_quad sums_of(nn_vec a, nn_vec b, nn_vec c, nn_vec d)
{
  nn_quad p = fold(a), q = fold(b), r = fold(c), s = fold(d);
  nn_quad pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) +
               __builtin_shufflevector(p, q, 2, 6, 3, 7);
  nn_quad rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) +
               __builtin_shufflevector(r, s, 2, 6, 3, 7);
  return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) +
         __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

/* `n` of a quad's lanes. */
static inline nn_quad quad_load(const float *at, size_t n)
{
  nn_quad y = {0};
  if (n == 4) return *(const nn_quad *)at;
  UNROLL for (size_t j = 0; j < n; j++) y[j] = at[j];
  return y;
}

static inline __attribute__((always_inline)) void
dot_store(const flk_dots *d, nn_quad y, size_t row, size_t column, size_t n)
{
  float *c = d->c + (ptrdiff_t)row * d->c_row + column;
  y *= d->alpha;
  if (d->beta != 0.0f) y += d->beta * quad_load(c, n);
  if (d->bias) y += quad_load(d->bias + column, n);
  /* NaN stays */
  if (d->does_relu) y = (nn_quad)(~(y < 0.0f) & (__typeof__(y < y))y);
  if (n == 4) {
    *(nn_quad *)c = y;
    return;
  }
  UNROLL for (size_t j = 0; j < n; j++) c[j] = y[j];
}

/* The same vector, of which compilers know nothing: told that lanes come from
 * single loads, they take sums apart and fuse some of them and others not, and
 * a sum's bits would depend on what is computed next to it. */
static inline nn_vec dot_whole(nn_vec x)
{
#if defined(__x86_64__)
  __asm__("" : "+x"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#endif
  return x;
}

/* n_x rows of x times n_w rows of w, constants. A sum's order is the same
 * whatever it is computed next to; there are many at once because each waits
 * for its last term. */
static inline __attribute__((always_inline)) void
dot_block(const flk_dots *d, size_t row, size_t column, size_t n_x, size_t n_w)
{
  nn_vec sums[DOTS_X_MAX][DOTS_W_MAX];
  const float *x = d->x + (ptrdiff_t)row * d->x_row;
  const float *w = d->w + (ptrdiff_t)column * d->w_row;
  ptrdiff_t x_row = d->x_row, w_row = d->w_row;
  size_t k = 0, depth = d->depth;
  UNROLL for (size_t i = 0; i < n_x; i++)
  {
    UNROLL for (size_t j = 0; j < n_w; j++) sums[i][j] = (nn_vec){0};
  }
  for (; k + NN_WIDTH <= depth; k += NN_WIDTH) {
    nn_vec values[DOTS_X_MAX];
    UNROLL for (size_t i = 0; i < n_x; i++)
    {
      values[i] = *(const nn_vec *)(x + (ptrdiff_t)i * x_row + k);
    }
    UNROLL for (size_t j = 0; j < n_w; j++)
    {
      nn_vec weights = *(const nn_vec *)(w + (ptrdiff_t)j * w_row + k);
      UNROLL for (size_t i = 0; i < n_x; i++) sums[i][j] += values[i] * weights;
    }
  }
  if (k < depth) {
    UNROLL for (size_t j = 0; j < n_w; j++)
    {
      const float *part = w + (ptrdiff_t)j * w_row + k;
      nn_vec weights = dot_whole(vec_load_some(part, depth - k));
      UNROLL for (size_t i = 0; i < n_x; i++)
      {
        const float *at = x + (ptrdiff_t)i * x_row + k;
        sums[i][j] += weights * dot_whole(vec_load_some(at, depth - k));
      }
    }
  }
  UNROLL for (size_t i = 0; i < n_x; i++)
  {
    for (size_t j = 0; j + 4 <= n_w; j += 4) {
      dot_store(
          d,
          sums_of(sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]),
          row + i, column + j, 4);
    }
    if (n_w >= 4) continue;
    dot_store(d,
              sums_of(sums[i][0], sums[i][n_w > 1], sums[i][n_w - 1],
                      sums[i][n_w - 1]),
              row + i, column, n_w);
  }
}

static inline __attribute__((always_inline)) void
dot_rows(const flk_dots *d, size_t row, size_t n_x)
{
  size_t j = 0;
  for (; n_x == 1 && j + 8 <= d->n; j += 8) {
    dot_block(d, row, j, n_x, 8);
  }
  for (; j + 4 <= d->n; j += 4) {
    dot_block(d, row, j, n_x, 4);
  }
#if DOTS_HAS_RESTS
  switch (d->n - j) {
  case 1: dot_block(d, row, j, n_x, 1); break;
  case 2: dot_block(d, row, j, n_x, 2); break;
  case 3: dot_block(d, row, j, n_x, 3); break;
  }
#else
  for (; j < d->n; j++) {
    dot_block(d, row, j, n_x, 1);
  }
#endif
}

static void dots(const flk_dots *d)
{
  size_t i = 0;
  for (; i + DOTS_X_MAX <= d->m; i += DOTS_X_MAX) {
    dot_rows(d, i, DOTS_X_MAX);
  }
#if DOTS_HAS_RESTS
  switch (d->m - i) {
  case 1: dot_rows(d, i, 1); break;
  case 2: dot_rows(d, i, 2); break;
  case 3: dot_rows(d, i, 3); break;
  }
#else
  for (; i < d->m; i++) {
    dot_rows(d, i, 1);
  }
#endif
}

static void fill_pack(flk_nn_table *table)
{
  table->pack = pack;
  table->pack_transposed = pack_transposed;
  table->dots = dots;
}

#endif
