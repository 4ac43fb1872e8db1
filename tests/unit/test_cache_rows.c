/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the activation cache as bytes: which values come back, within which
 * bounds, and what the checksum sees. */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "cache_blob.h"
#include "cache/cache.h"

static fl_cache *begun_cache(uint32_t dtype, uint64_t samples, uint64_t values)
{
  fl_cache *cache = NULL;
  fl_cache_options options;
  cr_assert_eq(fl_cache_options_init(&options, sizeof options), FL_OK);
  options.dtype = dtype;
  cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_OK);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), samples, values), FL_OK);
  return cache;
}

/* What one row becomes. */
static void pass(uint32_t dtype, const float *x, float *y, uint64_t n)
{
  const uint64_t id = 0;
  fl_cache *cache = begun_cache(dtype, 1, n);
  cr_assert_eq(fl_cache_put(cache, &id, 1, x), FL_OK);
  cr_assert_eq(fl_cache_get(cache, &id, 1, y), FL_OK);
  fl_cache_free(cache);
}

static float from_bits(uint32_t bits)
{
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

Test(cache_rows, rows_of_any_length_come_back_bit_for_bit)
{
  for (uint64_t n = 1; n < 80; n++) {
    const uint64_t ids[] = {3, 0, 1};
    float rows[3 * 80], back[3 * 80 + 1];
    fl_cache *cache = begun_cache(FL_CACHE_F32, 4, n);
    for (uint64_t i = 0; i < 3; i++)
      cache_fill(rows + i * n, n, ids[i], n);
    rows[0] = -0.0f;
    rows[n] = from_bits(1);
    rows[2 * n] = from_bits(0x7f7fffff);
    back[3 * n] = 42.0f;
    cr_assert_eq(fl_cache_put(cache, ids, 3, rows), FL_OK);
    cr_assert_eq(fl_cache_get(cache, ids, 3, back), FL_OK);
    cr_assert_eq(memcmp(rows, back, 3 * n * sizeof *rows), 0);
    cr_assert_eq(back[3 * n], 42.0f);
    fl_cache_free(cache);
  }
}

/* Nearest of all f16 values by search among the two neighbours in f64. */
static double nearest_f16(double x)
{
  double magnitude = fabs(x);
  int exponent;
  if (magnitude >= 65504) return copysign(65504, x);
  frexp(magnitude, &exponent);
  double unit = ldexp(1, exponent < -13 ? -24 : exponent - 11);
  double below = floor(magnitude / unit), rest = magnitude / unit - below;
  if (rest > 0.5 || (rest == 0.5 && fmod(below, 2) == 1)) below++;
  return copysign(below * unit, x);
}

Test(cache_rows, f16_is_the_nearest_ties_to_even_at_every_exponent)
{
  enum { N = 1 << 16 };
  static float x[N], y[N];
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (uint32_t i = 0; i < N; i++) {
    uint32_t bits = (uint32_t)fli_rng_u64(&rng);
    if ((bits >> 23 & 255) == 255) bits &= 0xbfffffffu;
    /* Every other one near or on a tie. */
    if (i & 1) bits = (bits & 0xfffff000u) + (uint32_t)(i >> 1) % 3 - 1;
    if ((bits >> 23 & 255) == 255) bits = 0;
    x[i] = from_bits(bits);
    /* Most exponents are beyond f16. */
    if (i % 4 < 3)
      x[i] = (float)ldexp(frexp((double)x[i], &(int){0}), (int)(i % 43) - 26);
  }
  pass(FL_CACHE_F16, x, y, N);
  for (uint32_t i = 0; i < N; i++) {
    double want = nearest_f16((double)x[i]);
    double off = fabs((double)y[i] - (double)x[i]);
    double size = fabs((double)x[i]);
    cr_assert_eq((double)y[i], want, "%a: got %a, want %a", (double)x[i],
                 (double)y[i], want);
    cr_assert_eq(signbit(y[i]) != 0, signbit(x[i]) != 0);
    if (size <= 65504)
      cr_assert_leq(off, size < 0x1p-14 ? 0x1p-25 : size * 0x1p-11);
  }
}

Test(cache_rows, every_f16_value_comes_back_as_it_is)
{
  enum { N = 0x7c00 };
  static float x[2 * N], y[2 * N];
  for (uint32_t i = 0; i < N; i++) {
    double mantissa = (i >> 10 ? 1024 : 0) + (i & 1023);
    int exponent = (int)(i >> 10 ? i >> 10 : 1);
    x[i] = (float)ldexp(mantissa, exponent - 25);
    x[N + i] = -x[i];
  }
  pass(FL_CACHE_F16, x, y, 2 * N);
  cr_assert_eq(memcmp(x, y, sizeof x), 0);
  cr_assert_eq(x[N - 1], 65504.0f);
}

Test(cache_rows, f16_saturates_instead_of_becoming_infinite)
{
  const float x[] = {65504.0f,   65519.0f, 65520.0f, 1e30f,
                     0x1.fp127f, -65520.f, -1e9f,    65503.0f};
  float y[8];
  pass(FL_CACHE_F16, x, y, 8);
  for (int i = 0; i < 8; i++)
    cr_assert_eq(fabsf(y[i]), 65504.0f);
  cr_assert_eq(y[6], -65504.0f);
}

static void check_i8_row(const float *x, uint64_t n)
{
  float y[256];
  double most = 0;
  pass(FL_CACHE_I8, x, y, n);
  for (uint64_t i = 0; i < n; i++)
    most = fmax(most, fabs((double)x[i]));
  for (uint64_t i = 0; i < n; i++) {
    double off = fabs((double)x[i] - (double)y[i]);
    cr_assert_leq(off, most / 253 + 0x1p-142, "%a of %a: off by %a",
                  (double)x[i], most, off);
  }
}

Test(cache_rows, i8_is_within_its_bound_at_every_size)
{
  fli_rng rng;
  fli_rng_init(&rng, 2, FLI_RNG_TEST, 0, 0);
  for (int exponent = -149; exponent <= 127; exponent++) {
    float x[256];
    for (int i = 0; i < 256; i++) {
      double part = (double)(fli_rng_u64(&rng) >> 11) * 0x1p-52 - 1;
      x[i] = (float)ldexp(part, exponent);
    }
    x[17] = (float)ldexp(1, exponent);
    check_i8_row(x, 256);
    x[3] = (float)ldexp(-1.9999, exponent);
    check_i8_row(x, 256);
  }
}

Test(cache_rows, i8_is_symmetric_and_rounds_ties_to_even)
{
  /* The scale is 1. */
  const float x[] = {127, -127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f, -0.0f};
  const float want[] = {127, -127, 0, 2, 2, 0, -2, 126, 0};
  float y[9];
  pass(FL_CACHE_I8, x, y, 9);
  for (int i = 0; i < 9; i++)
    cr_assert_eq(y[i], want[i], "%g", (double)x[i]);
}

Test(cache_rows, i8_of_zeros_is_zeros)
{
  const float x[5] = {0};
  float y[5] = {1, 1, 1, 1, 1};
  pass(FL_CACHE_I8, x, y, 5);
  cr_assert_eq(memcmp(x, y, sizeof x), 0);
}

/* Bytes of the rows, in a host that rounds up and flushes denormals or not. */
Test(cache_rows, rounding_mode_of_the_host_changes_nothing)
{
  const float x[] = {1.0f / 3, -2.0f / 3, 1e-5f, 3e-7f, 100.1f, 5e-41f};
  const uint32_t dtypes[] = {FL_CACHE_F32, FL_CACHE_F16, FL_CACHE_I8};
  for (int d = 0; d < 3; d++) {
    float want[6], got[6];
    pass(dtypes[d], x, want, 6);
    cr_assert_eq(fesetround(FE_UPWARD), 0);
    pass(dtypes[d], x, got, 6);
    cr_assert_eq(fegetround(), FE_UPWARD);
    cr_assert_eq(fesetround(FE_TONEAREST), 0);
    cr_assert_eq(memcmp(want, got, sizeof want), 0);
  }
}

/* A word changed is a sum changed, whatever the word; and so is the place. */
Test(cache_rows, checksum_sees_any_change_of_a_word)
{
  enum { N = 100 };
  uint8_t row[N];
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < N; i++)
    row[i] = (uint8_t)fli_rng_u64(&rng);
  for (size_t n = 1; n <= N; n++) {
    uint64_t sum = fli_row_sum(row, n, 5, 6);
    for (size_t i = 0; i < n; i++) {
      for (int bit = 0; bit < 8; bit++) {
        row[i] ^= (uint8_t)(1 << bit);
        cr_assert_neq(fli_row_sum(row, n, 5, 6), sum);
        row[i] ^= (uint8_t)(1 << bit);
      }
    }
    cr_assert_neq(fli_row_sum(row, n, 6, 6), sum);
    cr_assert_neq(fli_row_sum(row, n, 5, 7), sum);
    cr_assert_eq(fli_row_sum(row, n, 5, 6), sum);
  }
}
