/* SPDX-License-Identifier: Apache-2.0 */
/* What stands between matrices as people store them and the tiles: panels of
 * B made contiguous, transposes on the way in and out, and products of one row
 * that are not worth a panel. The unit of a transpose is NN_WIDTH rows x 4
 * columns: quads of the rows are joined to vectors, so that what is left is a
 * 4 x 4 transpose in each quarter, two shuffles per vector. */
#ifndef FLK_NN_PACK_BODY_H
#define FLK_NN_PACK_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

enum { DOTS_X_MAX = NN_REGISTERS == 32 ? 4 : 2, DOTS_W_MAX = 8 };

typedef float nn_quad __attribute__((vector_size(16), aligned(4), may_alias));

#define QUAD(row) (*(const nn_quad *)(rows[row] + at))
#if NN_BYTES == 16
#  define JOINED(row) QUAD(row)
#  define SHUFFLED(a, b, i, j, k, l) \
    __builtin_shufflevector(a, b, i, j, (k) + 4, (l) + 4)
#elif NN_BYTES == 32
#  define JOINED(row) JOINED_TWO(row, (row) + 4)
#  define SHUFFLED(a, b, i, j, k, l)                                        \
    __builtin_shufflevector(a, b, i, j, (k) + 8, (l) + 8, (i) + 4, (j) + 4, \
                            (k) + 12, (l) + 12)
#else
typedef float nn_eight __attribute__((vector_size(32), aligned(4), may_alias));
#  define JOINED(row)                                                         \
    __builtin_shufflevector(JOINED_TWO(row, (row) + 4),                       \
                            JOINED_TWO((row) + 8, (row) + 12), 0, 1, 2, 3, 4, \
                            5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#  define SHUFFLED(a, b, i, j, k, l)                                          \
    __builtin_shufflevector(a, b, i, j, (k) + 16, (l) + 16, (i) + 4, (j) + 4, \
                            (k) + 20, (l) + 20, (i) + 8, (j) + 8, (k) + 24,   \
                            (l) + 24, (i) + 12, (j) + 12, (k) + 28, (l) + 28)
#endif
#define JOINED_TWO(row, other) \
  __builtin_shufflevector(QUAD(row), QUAD(other), 0, 1, 2, 3, 4, 5, 6, 7)

/* out[i][r] = rows[r][at + i] for 4 i and NN_WIDTH r */
static inline __attribute__((always_inline)) void
transpose_four(const float *const rows[NN_WIDTH], size_t at, nn_vec out[4])
{
  nn_vec a = JOINED(0), b = JOINED(1), c = JOINED(2), d = JOINED(3);
  nn_vec ab_low = SHUFFLED(a, b, 0, 1, 0, 1);  /* a0 a1 b0 b1 */
  nn_vec ab_high = SHUFFLED(a, b, 2, 3, 2, 3); /* a2 a3 b2 b3 */
  nn_vec cd_low = SHUFFLED(c, d, 0, 1, 0, 1);
  nn_vec cd_high = SHUFFLED(c, d, 2, 3, 2, 3);
  out[0] = SHUFFLED(ab_low, cd_low, 0, 2, 0, 2);
  out[1] = SHUFFLED(ab_low, cd_low, 1, 3, 1, 3);
  out[2] = SHUFFLED(ab_high, cd_high, 0, 2, 0, 2);
  out[3] = SHUFFLED(ab_high, cd_high, 1, 3, 1, 3);
}

#undef QUAD
#undef JOINED
#undef JOINED_TWO
#undef SHUFFLED

static void pack(const flk_pack *p)
{
  const float *src = p->src;
  float *dst = p->dst;
  size_t whole = p->columns / NN_WIDTH * NN_WIDTH;
  for (size_t k = 0; k < p->depth; k++, src += p->step, dst += p->width) {
    size_t j = 0;
    for (; j < whole; j += NN_WIDTH) {
      *(nn_vec *)(dst + j) = *(const nn_vec *)(src + j);
    }
    for (; j < p->columns; j++) {
      dst[j] = src[j];
    }
    for (; j < p->width; j++) {
      dst[j] = 0.0f;
    }
  }
}

/* Columns j.. of a panel, a vector of them or (is_half) half of one, of which
 * `n` are there; the others repeat the last. */
static inline __attribute__((always_inline)) void
pack_columns(const flk_pack *p, size_t j, size_t n, int is_half)
{
  const float *rows[NN_WIDTH];
  float *dst = p->dst + j;
  size_t lanes = is_half ? NN_WIDTH / 2 : NN_WIDTH;
  size_t k = 0;
  for (size_t r = 0; r < NN_WIDTH; r++) {
    rows[r] = p->src + (ptrdiff_t)(j + (r < n ? r : n - 1)) * p->step;
  }
  for (; k + 4 <= p->depth; k += 4) {
    nn_vec out[4];
    transpose_four(rows, k, out);
    for (size_t i = 0; i < 4; i++, dst += p->width) {
      vec_store_some(dst, out[i], lanes);
    }
  }
  for (; k < p->depth; k++, dst += p->width) {
    for (size_t r = 0; r < lanes; r++) {
      dst[r] = rows[r][k];
    }
  }
}

static void pack_transposed(const flk_pack *p)
{
  size_t j = 0;
  for (; j + NN_WIDTH <= p->columns; j += NN_WIDTH) {
    pack_columns(p, j, NN_WIDTH, 0);
  }
  if (j == p->columns) return;
  if (p->width - j < NN_WIDTH) {
    pack_columns(p, j, p->columns - j, 1);
  } else {
    pack_columns(p, j, p->columns - j, 0);
  }
}

static inline __attribute__((always_inline)) void
store_row(const flk_store *s, nn_vec y, size_t i, size_t j, size_t n)
{
  float *c = s->c + (ptrdiff_t)i * s->c_row + j;
  y *= s->alpha;
  if (s->beta != 0.0f) y += s->beta * vec_load_some(c, n);
  if (s->bias) y += vec_load_some(s->bias + j, n);
  /* NaN stays */
  if (s->does_relu) y = (nn_vec)(~(y < 0.0f) & (nn_ivec)y);
  vec_store_some(c, y, n);
}

static inline __attribute__((always_inline)) void
store_columns(const flk_store *s, size_t j, size_t n)
{
  const float *rows[NN_WIDTH];
  for (size_t r = 0; r < NN_WIDTH; r++) {
    rows[r] = s->sums + (j + (r < n ? r : n - 1)) * s->sums_step;
  }
  for (size_t i = 0; i < s->rows; i += 4) {
    nn_vec out[4];
    transpose_four(rows, i, out);
    store_row(s, out[0], i, j, n);
    if (i + 1 < s->rows) store_row(s, out[1], i + 1, j, n);
    if (i + 2 < s->rows) store_row(s, out[2], i + 2, j, n);
    if (i + 3 < s->rows) store_row(s, out[3], i + 3, j, n);
  }
}

static void store_transposed(const flk_store *s)
{
  size_t j = 0;
  for (; j + NN_WIDTH <= s->columns; j += NN_WIDTH) {
    store_columns(s, j, NN_WIDTH);
  }
  if (j < s->columns) store_columns(s, j, s->columns - j);
}

static inline float sum_of(nn_vec sum)
{
  float lanes[NN_WIDTH];
  *(nn_vec *)lanes = sum;
  for (size_t half = NN_WIDTH / 2; half > 0; half /= 2) {
    for (size_t l = 0; l < half; l++) {
      lanes[l] += lanes[l + half];
    }
  }
  return lanes[0];
}

/* n_x rows of x times n_w rows of w. A sum's order is the same whatever it is
 * computed next to; there are many at once because each waits for its last
 * term. */
static inline __attribute__((always_inline)) void
dot_block(const flk_dots *d, size_t row, size_t column, size_t n_x, size_t n_w)
{
  nn_vec sums[DOTS_X_MAX][DOTS_W_MAX];
  const float *x = d->x + (ptrdiff_t)row * d->x_row;
  const float *w = d->w + (ptrdiff_t)column * d->w_row;
  UNROLL for (size_t i = 0; i < n_x; i++)
  {
    UNROLL for (size_t j = 0; j < n_w; j++) sums[i][j] = (nn_vec){0};
  }
  for (size_t k = 0; k < d->depth; k += NN_WIDTH) {
    nn_vec values[DOTS_X_MAX];
    size_t left = d->depth - k < NN_WIDTH ? d->depth - k : NN_WIDTH;
    UNROLL for (size_t i = 0; i < n_x; i++)
    {
      values[i] = vec_load_some(x + (ptrdiff_t)i * d->x_row + k, left);
    }
    UNROLL for (size_t j = 0; j < n_w; j++)
    {
      nn_vec weights = vec_load_some(w + (ptrdiff_t)j * d->w_row + k, left);
      UNROLL for (size_t i = 0; i < n_x; i++) sums[i][j] += values[i] * weights;
    }
  }
  UNROLL for (size_t i = 0; i < n_x; i++)
  {
    UNROLL for (size_t j = 0; j < n_w; j++)
    {
      d->y[(row + i) * d->y_row + column + j] = sum_of(sums[i][j]);
    }
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
  for (; j < d->n; j++) {
    dot_block(d, row, j, n_x, 1);
  }
}

static void dots(const flk_dots *d)
{
  size_t i = 0;
#if NN_REGISTERS == 32
  for (; i + 4 <= d->m; i += 4) {
    dot_rows(d, i, 4);
  }
#endif
  for (; i + 2 <= d->m; i += 2) {
    dot_rows(d, i, 2);
  }
  if (i < d->m) dot_rows(d, i, 1);
}

static void fill_pack(flk_nn_table *table)
{
  table->pack = pack;
  table->pack_transposed = pack_transposed;
  table->store_transposed = store_transposed;
  table->dots = dots;
}

#endif
