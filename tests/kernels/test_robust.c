/* SPDX-License-Identifier: Apache-2.0 */
/* Combining updates: every version against plain loops, byte for byte. */
#include "check.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "kernels/robust.h"

enum { ROWS = 19, LONG = 200 };

static const flk_robust *kernels;
static float values[ROWS][LONG];
static const float *rows[ROWS];

static void draw(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 5, FLI_RNG_TEST, 0, 0);
  for (size_t r = 0; r < ROWS; r++) {
    rows[r] = values[r];
    for (size_t i = 0; i < LONG; i++)
      values[r][i] = (float)(4.0 * fli_rng_f64(&rng) - 2.0);
    values[r][r] = 0.0f;
    values[r][r + 1] = -0.0f;
  }
}

static void weighted_sums_go_in_the_order_of_rows(void)
{
  double factors[ROWS], got[LONG], want[LONG];
  for (size_t r = 0; r < ROWS; r++)
    factors[r] = r % 5 == 3 ? 0.0 : 0.1 * (double)r - 0.7;
  for (size_t n = 0; n <= 150; n++) {
    for (size_t n_rows = 0; n_rows <= ROWS; n_rows += 3) {
      for (size_t i = 0; i < LONG; i++)
        got[i] = want[i] = (double)i;
      kernels->add(got, rows, factors, n_rows, n % 3, n);
      for (size_t i = 0; i < n; i++) {
        for (size_t r = 0; r < n_rows; r++)
          want[i] += factors[r] * (double)rows[r][n % 3 + i];
      }
      CHECK_EQ_MEM(got, want, sizeof got);
    }
  }
}

static int compare(const void *a, const void *b)
{
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* Keys of all lanes and lengths; zeros are told apart. */
static void keys_are_in_the_order_of_floats(void)
{
  static const float rising[] = {-1e30f, -1.0f,  -1e-40f, -0.0f,
                                 0.0f,   1e-40f, 1.0f,    1e30f};
  int32_t keys[ROWS * FLK_STRIP];
  for (size_t i = 0; i + 1 < sizeof rising / sizeof *rising; i++) {
    CHECK(flk_key_of_bits(fli_f32_bits(rising[i])) <
          flk_key_of_bits(fli_f32_bits(rising[i + 1])));
  }
  float factors[ROWS];
  for (size_t r = 0; r < ROWS; r++)
    factors[r] = 0.3f * (float)r;
  for (size_t n = 1; n <= FLK_STRIP; n++) {
    for (int has_factors = 0; has_factors < 2; has_factors++) {
      const flk_strip strip = {rows, has_factors ? factors : NULL, ROWS, 7, n};
      kernels->load(keys, &strip);
      for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < FLK_STRIP; i++) {
          float x = i < n ? rows[r][7 + i] : 0.0f;
          if (has_factors) x *= factors[r];
          CHECK_EQ_I64(keys[r * FLK_STRIP + i],
                       flk_key_of_bits(fli_f32_bits(x)));
        }
      }
    }
  }
}

static void exchange_orders_two_rows(void)
{
  const flk_strip strip = {rows, NULL, ROWS, 0, FLK_STRIP};
  const flk_exchange exchanges[] = {{2, 5}, {7, 1}, {2, 7}};
  int32_t keys[ROWS * FLK_STRIP], want[ROWS * FLK_STRIP];
  kernels->load(keys, &strip);
  memcpy(want, keys, sizeof want);
  kernels->exchange(keys, exchanges, 3);
  for (size_t e = 0; e < 3; e++) {
    int32_t *low = want + exchanges[e].low * FLK_STRIP;
    int32_t *high = want + exchanges[e].high * FLK_STRIP;
    for (size_t i = 0; i < FLK_STRIP; i++) {
      const int32_t a = low[i], b = high[i];
      low[i] = a < b ? a : b;
      high[i] = a < b ? b : a;
    }
  }
  CHECK_EQ_MEM(keys, want, sizeof keys);
}

static void selection_finds_every_rank(void)
{
  const flk_strip strip = {rows, NULL, ROWS, 0, FLK_STRIP};
  int32_t keys[ROWS * FLK_STRIP], got[FLK_STRIP];
  kernels->load(keys, &strip);
  keys[0] = INT32_MAX;
  keys[FLK_STRIP] = INT32_MIN;
  keys[2 * FLK_STRIP] = keys[3 * FLK_STRIP];
  for (size_t rank = 0; rank < ROWS; rank++) {
    kernels->select(got, keys, ROWS, rank);
    for (size_t i = 0; i < FLK_STRIP; i++) {
      int32_t column[ROWS];
      for (size_t r = 0; r < ROWS; r++)
        column[r] = keys[r * FLK_STRIP + i];
      qsort(column, ROWS, sizeof *column, compare);
      CHECK_EQ_I64(got[i], column[rank]);
    }
  }
}

static void values_of_keys_are_summed_in_order(void)
{
  const flk_strip strip = {rows, NULL, ROWS, 0, FLK_STRIP};
  int32_t keys[ROWS * FLK_STRIP];
  double got[FLK_STRIP], want[FLK_STRIP] = {0};
  kernels->load(keys, &strip);
  kernels->sum(got, keys, ROWS);
  for (size_t r = 0; r < ROWS; r++) {
    for (size_t i = 0; i < FLK_STRIP; i++)
      want[i] += (double)rows[r][i];
  }
  CHECK_EQ_MEM(got, want, sizeof got);
}

static float dot(const float *a, const float *b, size_t n)
{
  float lanes[FLK_DOT_LANES] = {0};
  for (size_t i = 0; i < n; i++)
    lanes[i % FLK_DOT_LANES] += a[i] * b[i];
  for (size_t h = FLK_DOT_LANES / 2; h > 0; h /= 2) {
    for (size_t i = 0; i < h; i++)
      lanes[i] += lanes[i + h];
  }
  return lanes[0];
}

static void products_have_sixteen_lanes(void)
{
  float sums[FLK_DOT_MOST * FLK_DOT_MOST];
  for (size_t n = 0; n <= 192; n += FLK_DOT_LANES) {
    kernels->dots(sums, rows, rows + 5, n);
    for (size_t r = 0; r < kernels->dot_rows; r++) {
      for (size_t c = 0; c < kernels->dot_columns; c++) {
        const float want = dot(rows[r], rows[5 + c], n);
        CHECK_EQ_MEM(&sums[r * FLK_DOT_MOST + c], &want, sizeof want);
      }
    }
  }
}

int main(void)
{
  draw();
  for (size_t i = 0; flk_robust_at(i); i++) {
    kernels = flk_robust_at(i);
    CHECK_CASE(weighted_sums_go_in_the_order_of_rows);
    CHECK_CASE(keys_are_in_the_order_of_floats);
    CHECK_CASE(exchange_orders_two_rows);
    CHECK_CASE(selection_finds_every_rank);
    CHECK_CASE(values_of_keys_are_summed_in_order);
    CHECK_CASE(products_have_sixteen_lanes);
  }
  CHECK(flk_robust_kernels() == kernels);
  return check_report();
}
