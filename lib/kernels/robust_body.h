/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of robust.h with the compilers' vectors, which are as many
 * registers as the instruction set of the including file needs for them. It has
 * defined ROBUST_ROWS and ROBUST_COLUMNS: how many products its registers
 * hold. */
#ifndef FLK_ROBUST_BODY_H
#define FLK_ROBUST_BODY_H

#include <string.h>

#include "kernels/lanes.h"
#include "kernels/robust.h"

typedef float robust_floats
    __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t robust_keys
    __attribute__((vector_size(64), aligned(4), may_alias));
typedef float robust_halves
    __attribute__((vector_size(32), aligned(4), may_alias));
typedef double robust_doubles
    __attribute__((vector_size(64), aligned(8), may_alias));

enum { ROBUST_AT_ONCE = 32, ROBUST_EIGHTS = ROBUST_AT_ONCE / 8 };

static void robust_add_few(double *sum, const float *const *rows,
                           const double *factors, size_t n_rows, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    double acc = sum[i];
    for (size_t k = 0; k < n_rows; k++)
      acc += factors[k] * (double)rows[k][i];
    sum[i] = acc;
  }
}

/* Rows that have weight, few at a time, so that their streams stay few. */
static void robust_add_rows(double *sum, const float *const *rows,
                            const double *factors, size_t n_rows, size_t n)
{
  size_t at = 0;
  for (; at + ROBUST_AT_ONCE <= n; at += ROBUST_AT_ONCE) {
    robust_doubles acc[ROBUST_EIGHTS];
    for (size_t v = 0; v < ROBUST_EIGHTS; v++)
      acc[v] = *(const robust_doubles *)(sum + at + 8 * v);
    for (size_t k = 0; k < n_rows; k++) {
      const float *row = rows[k] + at;
      fetch_on(row);
      fetch_on(row + ROBUST_AT_ONCE / 2);
      for (size_t v = 0; v < ROBUST_EIGHTS; v++)
        acc[v] += factors[k] *
                  __builtin_convertvector(*(const robust_halves *)(row + 8 * v),
                                          robust_doubles);
    }
    for (size_t v = 0; v < ROBUST_EIGHTS; v++)
      *(robust_doubles *)(sum + at + 8 * v) = acc[v];
  }
  if (at == n) return;
  const float *tails[8];
  for (size_t k = 0; k < n_rows; k++)
    tails[k] = rows[k] + at;
  robust_add_few(sum + at, tails, factors, n_rows, n - at);
}

static void robust_add(double *sum, const float *const *rows,
                       const double *factors, size_t n_rows, size_t at,
                       size_t n)
{
  for (size_t k = 0; k < n_rows;) {
    const float *some[8];
    double weights[8];
    size_t count = 0;
    for (; k < n_rows && count < 8; k++) {
      if (factors[k] == 0.0) continue;
      some[count] = rows[k] + at;
      weights[count++] = factors[k];
    }
    robust_add_rows(sum, some, weights, count, n);
  }
}

static void robust_load(int32_t *keys, const flk_strip *strip)
{
  for (size_t k = 0; k < strip->n_rows; k++) {
    const float *row = strip->rows[k] + strip->at;
    float values[FLK_STRIP] = {0};
    uint32_t bits[FLK_STRIP];
    memcpy(values, row, strip->n * sizeof *row);
    if (strip->factors) {
      const float factor = strip->factors[k];
      for (size_t i = 0; i < FLK_STRIP; i++)
        values[i] *= factor;
    }
    memcpy(bits, values, sizeof bits);
    for (size_t i = 0; i < FLK_STRIP; i++)
      keys[i] = flk_key_of_bits(bits[i]);
    keys += FLK_STRIP;
  }
}

static void robust_exchange(int32_t *keys, const flk_exchange *exchanges,
                            size_t n)
{
  for (size_t e = 0; e < n; e++) {
    int32_t *restrict low = keys + (size_t)exchanges[e].low * FLK_STRIP;
    int32_t *restrict high = keys + (size_t)exchanges[e].high * FLK_STRIP;
    for (size_t i = 0; i < FLK_STRIP; i++) {
      const int32_t a = low[i], b = high[i];
      low[i] = a < b ? a : b;
      high[i] = a < b ? b : a;
    }
  }
}

/* Bit by bit, from above: the greatest number that at most `rank` keys are
 * smaller than. */
static void robust_select(int32_t *out, const int32_t *keys, size_t n_rows,
                          size_t rank)
{
  for (size_t half = 0; half < FLK_STRIP; half += 16) {
    robust_keys found, most;
    for (size_t i = 0; i < 16; i++) {
      found[i] = INT32_MIN;
      most[i] = (int32_t)rank;
    }
    for (uint32_t bit = 32; bit-- > 0;) {
      robust_keys next, count = {0};
      for (size_t i = 0; i < 16; i++)
        next[i] = (int32_t)((uint32_t)found[i] + (UINT32_C(1) << bit));
      const int32_t *column = keys + half;
      for (size_t k = 0; k < n_rows; k++, column += FLK_STRIP)
        count -= *(const robust_keys *)column < next;
      const robust_keys is_low = count <= most;
      found = (next & is_low) | (found & ~is_low);
    }
    *(robust_keys *)(out + half) = found;
  }
}

static void robust_sum(double *out, const int32_t *keys, size_t n_rows)
{
  robust_doubles acc[FLK_STRIP / 8];
  memset(acc, 0, sizeof acc);
  for (size_t k = 0; k < n_rows; k++, keys += FLK_STRIP) {
    uint32_t bits[FLK_STRIP];
    float values[FLK_STRIP];
    for (size_t i = 0; i < FLK_STRIP; i++)
      bits[i] = (uint32_t)flk_key_of_bits((uint32_t)keys[i]);
    memcpy(values, bits, sizeof values);
    for (size_t v = 0; v < FLK_STRIP / 8; v++)
      acc[v] += __builtin_convertvector(
          *(const robust_halves *)(values + 8 * v), robust_doubles);
  }
  memcpy(out, acc, sizeof acc);
}

static float robust_fold(const robust_floats *lanes)
{
  float x[FLK_DOT_LANES];
  memcpy(x, lanes, sizeof x);
  for (size_t h = FLK_DOT_LANES / 2; h > 0; h /= 2) {
    for (size_t i = 0; i < h; i++)
      x[i] += x[i + h];
  }
  return x[0];
}

static void robust_dots(float *sums, const float *const *rows,
                        const float *const *columns, size_t n)
{
  robust_floats acc[ROBUST_ROWS][ROBUST_COLUMNS];
  memset(acc, 0, sizeof acc);
  for (size_t at = 0; at < n; at += FLK_DOT_LANES) {
    robust_floats b[ROBUST_COLUMNS];
    for (size_t c = 0; c < ROBUST_COLUMNS; c++)
      b[c] = *(const robust_floats *)(columns[c] + at);
    for (size_t r = 0; r < ROBUST_ROWS; r++) {
      const robust_floats a = *(const robust_floats *)(rows[r] + at);
      for (size_t c = 0; c < ROBUST_COLUMNS; c++)
        acc[r][c] += a * b[c];
    }
  }
  for (size_t r = 0; r < ROBUST_ROWS; r++) {
    for (size_t c = 0; c < ROBUST_COLUMNS; c++)
      sums[r * FLK_DOT_MOST + c] = robust_fold(&acc[r][c]);
  }
}

#define ROBUST_TABLE                                                     \
  {                                                                      \
    .add = robust_add, .load = robust_load, .exchange = robust_exchange, \
    .select = robust_select, .sum = robust_sum, .dots = robust_dots,     \
    .dot_rows = ROBUST_ROWS, .dot_columns = ROBUST_COLUMNS               \
  }

#endif
