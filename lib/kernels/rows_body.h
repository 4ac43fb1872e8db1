/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of rows.c with the compilers' vectors of ROWS_BYTES, which a
 * file of some instruction set has defined. Multiply and add stay apart, as
 * everywhere in rows.h. */
#ifndef FLK_ROWS_BODY_H
#define FLK_ROWS_BODY_H

#include "base/compiler.h"
#include "kernels/rows.h"

typedef float rows_vec
    __attribute__((vector_size(ROWS_BYTES), aligned(4), may_alias));
typedef float rows_four __attribute__((vector_size(16), aligned(4), may_alias));

enum { ROWS_LANES = ROWS_BYTES / sizeof(float), ROWS_MOST = 4 };

/* `count` vectors from `at` on stay in registers over all rows. It is a
 * constant where this is called. */
FLI_UNWATCHED static inline __attribute__((always_inline)) void
rows_add_block(float *sum, const float *const *rows, const float *factors,
               size_t n_rows, size_t at, size_t count)
{
  rows_vec acc[ROWS_MOST];
  for (size_t v = 0; v < count; v++)
    acc[v] = *(const rows_vec *)(sum + at + v * ROWS_LANES);
  for (size_t r = 0; r < n_rows; r++) {
    const float *row = rows[r] + at;
    if (factors) {
      for (size_t v = 0; v < count; v++)
        acc[v] += factors[r] * *(const rows_vec *)(row + v * ROWS_LANES);
    } else {
      for (size_t v = 0; v < count; v++)
        acc[v] += *(const rows_vec *)(row + v * ROWS_LANES);
    }
  }
  for (size_t v = 0; v < count; v++)
    *(rows_vec *)(sum + at + v * ROWS_LANES) = acc[v];
}

FLI_UNWATCHED
static void rows_add(float *sum, const float *const *rows, const float *factors,
                     size_t n_rows, size_t n)
{
  size_t at = 0;
  for (; at + 4 * ROWS_LANES <= n; at += 4 * ROWS_LANES)
    rows_add_block(sum, rows, factors, n_rows, at, 4);
  if (at + 2 * ROWS_LANES <= n) {
    rows_add_block(sum, rows, factors, n_rows, at, 2);
    at += 2 * ROWS_LANES;
  }
  if (at + ROWS_LANES <= n) {
    rows_add_block(sum, rows, factors, n_rows, at, 1);
    at += ROWS_LANES;
  }
  for (; at < n; at += 4) {
    rows_four acc = *(const rows_four *)(sum + at);
    for (size_t r = 0; r < n_rows; r++) {
      const float factor = factors ? factors[r] : 1.0f;
      acc += factor * *(const rows_four *)(rows[r] + at);
    }
    *(rows_four *)(sum + at) = acc;
  }
}

static void row_step(float *row, const float *gradient, float factor, size_t n)
{
  size_t at = 0;
  for (; at + ROWS_LANES <= n; at += ROWS_LANES)
    *(rows_vec *)(row + at) -= factor * *(const rows_vec *)(gradient + at);
  for (; at < n; at += 4)
    *(rows_four *)(row + at) -= factor * *(const rows_four *)(gradient + at);
}

static void chunk_squares(float *sums, const float *x, size_t n_chunks,
                          size_t n)
{
  for (size_t k = 0; k < n_chunks; k++) {
    rows_four lanes = {0, 0, 0, 0};
    for (size_t i = 0; i < n; i += 4) {
      rows_four v = *(const rows_four *)(x + i);
      lanes += v * v;
    }
    sums[k] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    x += n;
  }
}

#define ROWS_TABLE                                              \
  {                                                             \
    .add = rows_add, .step = row_step, .squares = chunk_squares \
  }

#endif
