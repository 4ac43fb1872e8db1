/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of vector.h; included once per instruction set. */
#ifndef FLK_NN_VECTOR_BODY_H
#define FLK_NN_VECTOR_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_wide.h"

static void add(float *y, const float *a, const float *b, size_t n)
{
  NN_EACH(n, vec_put(y + at, vec_get(a + at, count) + vec_get(b + at, count),
                     count));
}

static void axpy(float *y, float factor, const float *x, size_t n)
{
  NN_EACH(n, vec_put(y + at,
                     vec_get(x + at, count) * factor + vec_get(y + at, count),
                     count));
}

static void scale(float *y, float factor, const float *x, size_t n)
{
  NN_EACH(n, vec_put(y + at, vec_get(x + at, count) * factor, count));
}

#if NN_BYTES > 16
NN_INLINE nn_vec float_of_bytes(const uint8_t *x)
{
#  if NN_BYTES == 64
  __m128i bytes = _mm_loadu_si128((const void *)x);
  return (nn_vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#  else
  __m128i bytes = _mm_loadl_epi64((const void *)x);
  return (nn_vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
#  endif
}
#else
NN_INLINE nn_vec float_of_bytes(const uint8_t *x)
{
  return (nn_vec){(float)x[0], (float)x[1], (float)x[2], (float)x[3]};
}
#endif

static void from_u8(float *y, const uint8_t *x, size_t n, float factor,
                    float shift)
{
  size_t at = 0;
  for (; at + NN_WIDTH <= n; at += NN_WIDTH) {
    *(nn_vec *)(y + at) = float_of_bytes(x + at) * factor + shift;
  }
  if (at < n) {
    uint8_t last[NN_WIDTH] = {0};
    memcpy(last, x + at, n - at);
    vec_store_some(y + at, float_of_bytes(last) * factor + shift, n - at);
  }
}

static void from_f32(float *y, const float *x, size_t n, float factor,
                     float shift)
{
  NN_EACH(n, vec_put(y + at, vec_get(x + at, count) * factor + shift, count));
}

/* Columns at..at + count of all rows, count <= n_vectors NN_WIDTH. Narrow ones
 * take turns with several sums, so that additions need not wait for each
 * other. */
NN_INLINE void sum_columns(float *sums, const float *x, size_t rows, size_t n,
                           size_t n_vectors, size_t last)
{
  enum { RUN = 256 };
  const size_t turns = n_vectors == 1 ? 4 : n_vectors == 2 ? 2 : 1;
  nn_vec total[4] = {{0}};
  for (size_t from = 0; from < rows; from += RUN) {
    size_t to = rows - from < RUN ? rows : from + RUN;
    nn_vec sum[4] = {{0}};
    size_t r = from;
    for (; r + turns <= to; r += turns) {
      UNROLL for (size_t t = 0; t < turns; t++)
      {
        const float *row = x + (r + t) * n;
        UNROLL for (size_t v = 0; v < n_vectors; v++)
        {
          size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
          sum[t * n_vectors + v] += vec_get(row + v * NN_WIDTH, count);
        }
      }
    }
    for (; r < to; r++) {
      UNROLL for (size_t v = 0; v < n_vectors; v++)
      {
        size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
        sum[v] += vec_get(x + r * n + v * NN_WIDTH, count);
      }
    }
    UNROLL for (size_t i = 0; i < 4; i++) total[i] += sum[i];
  }
  if (n_vectors == 1) total[0] += (total[1] + total[2]) + total[3];
  if (n_vectors == 2) {
    total[0] += total[2];
    total[1] += total[3];
  }
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
    float *to = sums + v * NN_WIDTH;
    vec_put(to, vec_get(to, count) + total[v], count);
  }
}

static void column_sums(float *sums, const float *x, size_t rows, size_t n,
                        int does_add)
{
  size_t at = 0;
  if (!does_add && n > 0) memset(sums, 0, n * sizeof *sums);
  for (; at + 4 * NN_WIDTH <= n; at += 4 * NN_WIDTH) {
    sum_columns(sums + at, x + at, rows, n, 4, NN_WIDTH);
  }
  for (; at + 2 * NN_WIDTH <= n; at += 2 * NN_WIDTH) {
    sum_columns(sums + at, x + at, rows, n, 2, NN_WIDTH);
  }
  if (at + NN_WIDTH <= n) {
    sum_columns(sums + at, x + at, rows, n, 1, NN_WIDTH);
    at += NN_WIDTH;
  }
  if (at < n) sum_columns(sums + at, x + at, rows, n, 1, n - at);
}

static double sum_squares(const float *x, size_t n)
{
  nn_wide sum[4] = {{0}};
  size_t at = 0;
  for (; at + 2 * NN_WIDTH <= n; at += 2 * NN_WIDTH) {
    wide_add_squares(sum, *(const nn_vec *)(x + at));
    wide_add_squares(sum + 2, *(const nn_vec *)(x + at + NN_WIDTH));
  }
  for (; at < n; at += NN_WIDTH) {
    size_t left = n - at;
    wide_add_squares(sum, vec_get(x + at, left));
  }
  return wide_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

static void gather(float *y, const float *table, const int32_t *ids,
                   size_t rows, size_t n)
{
  for (size_t r = 0; r < rows; r++, y += n) {
    const float *row = table + (size_t)ids[r] * n;
    NN_EACH(n, vec_put(y + at, vec_get(row + at, count), count));
  }
}

static void scatter_add(float *table, const float *x, const int32_t *ids,
                        size_t rows, size_t n)
{
  for (size_t r = 0; r < rows; r++, x += n) {
    float *row = table + (size_t)ids[r] * n;
    NN_EACH(n,
            vec_put(row + at, vec_get(row + at, count) + vec_get(x + at, count),
                    count));
  }
}

static void fill_vectors(flk_nn_table *table)
{
  table->vector = (flk_vector_kernels){.add = add,
                                       .axpy = axpy,
                                       .scale = scale,
                                       .from_u8 = from_u8,
                                       .from_f32 = from_f32,
                                       .column_sums = column_sums,
                                       .sum_squares = sum_squares,
                                       .gather = gather,
                                       .scatter_add = scatter_add};
}

#endif
