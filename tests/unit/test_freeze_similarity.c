/* SPDX-License-Identifier: Apache-2.0 */
/* Plasticity and CKA against their formulas in double, written the plain
 * way. */
#include "freeze_fixture.h"

enum { ROWS = 12, WIDE = 700, NARROW = 5 };

static float *noise(uint32_t rows, uint64_t n, uint32_t seed)
{
  fli_rng rng;
  float *x = malloc((size_t)(rows * n) * sizeof *x);
  cr_assert(x != NULL);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < rows * n; i++)
    x[i] = 2 * fli_rng_f32(&rng) - 1;
  return x;
}

static double plasticity(const float *a, const float *b, uint32_t rows,
                         uint64_t n)
{
  double p = NAN;
  must(fl_plasticity(NULL, a, b, rows, n, &p));
  return p;
}

static double cka(const float *a, uint64_t n_a, const float *b, uint64_t n_b,
                  uint32_t rows)
{
  double value = NAN;
  must(fl_cka(NULL, a, n_a, b, n_b, rows, &value));
  return value;
}

static void plain_gram(double *g, const double *x, size_t rows, size_t n)
{
  for (size_t i = 0; i < rows; i++) {
    for (size_t k = 0; k < rows; k++) {
      g[i * rows + k] = 0;
      for (size_t j = 0; j < n; j++)
        g[i * rows + k] += x[i * n + j] * x[k * n + j];
    }
  }
}

/* |G_a - G_b|_F^2 / rows^2, rows of G divided by their norms, of every
 * step-th column. */
static double plain_plasticity(const float *a, const float *b, size_t rows,
                               size_t n, size_t step)
{
  const size_t m = (n + step - 1) / step;
  double *x = malloc(rows * m * sizeof *x), *g[2];
  double sum = 0;
  for (int side = 0; side < 2; side++) {
    for (size_t i = 0; i < rows * m; i++)
      x[i] = (double)(side ? b : a)[i / m * n + i % m * step];
    g[side] = malloc(rows * rows * sizeof(double));
    plain_gram(g[side], x, rows, m);
    for (size_t i = 0; i < rows; i++) {
      double norm = 0;
      for (size_t k = 0; k < rows; k++)
        norm += g[side][i * rows + k] * g[side][i * rows + k];
      for (size_t k = 0; k < rows; k++)
        g[side][i * rows + k] /= sqrt(norm);
    }
  }
  for (size_t i = 0; i < rows * rows; i++)
    sum += (g[0][i] - g[1][i]) * (g[0][i] - g[1][i]);
  free(x);
  free(g[0]);
  free(g[1]);
  return sum / (double)(rows * rows);
}

/* Values with the mean of their column taken away. */
static double *centred(const float *x, size_t rows, size_t n)
{
  double *c = malloc(rows * n * sizeof *c);
  for (size_t k = 0; k < n; k++) {
    double mean = 0;
    for (size_t i = 0; i < rows; i++)
      mean += (double)x[i * n + k] / (double)rows;
    for (size_t i = 0; i < rows; i++)
      c[i * n + k] = (double)x[i * n + k] - mean;
  }
  return c;
}

/* |X'Y|_F of [rows, n] and [rows, m]. */
static double cross(const double *x, size_t n, const double *y, size_t m,
                    size_t rows)
{
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    for (size_t k = 0; k < m; k++) {
      double one = 0;
      for (size_t r = 0; r < rows; r++)
        one += x[r * n + i] * y[r * m + k];
      sum += one * one;
    }
  }
  return sqrt(sum);
}

/* In the form of features, not of samples: |Y'X|^2 / (|X'X| |Y'Y|). */
static double plain_cka(const float *a, size_t n_a, const float *b, size_t n_b,
                        size_t rows)
{
  double *x = centred(a, rows, n_a), *y = centred(b, rows, n_b);
  const double both = cross(x, n_a, y, n_b, rows);
  const double value =
      both * both / (cross(x, n_a, x, n_a, rows) * cross(y, n_b, y, n_b, rows));
  free(x);
  free(y);
  return value;
}

Test(freeze_similarity, plasticity_of_the_same_outputs_is_zero)
{
  float *a = noise(ROWS, WIDE, 1);
  cr_expect_eq(plasticity(a, a, ROWS, WIDE), 0);
  cr_expect_eq(plasticity(a, a, 2, 1), 0);
  free(a);
}

Test(freeze_similarity, plasticity_is_its_formula)
{
  static const uint64_t sizes[] = {1, 7, 8, 9, 255, 256, 257, WIDE};
  float *a = noise(ROWS, WIDE, 1), *b = noise(ROWS, WIDE, 2);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const double want = plain_plasticity(a, b, ROWS, (size_t)sizes[i], 1);
    const double got = plasticity(a, b, ROWS, sizes[i]);
    cr_expect(want > 1e-3);
    cr_expect_float_eq(got, want, 1e-12 * want, "%zu: %.17g, want %.17g",
                       (size_t)sizes[i], got, want);
  }
  free(a);
  free(b);
}

Test(freeze_similarity, plasticity_does_not_see_a_common_scale)
{
  float *a = noise(ROWS, WIDE, 1), *b = noise(ROWS, WIDE, 2);
  float *scaled = malloc(ROWS * WIDE * sizeof *scaled);
  const double want = plasticity(a, b, ROWS, WIDE);
  for (size_t i = 0; i < ROWS * WIDE; i++)
    scaled[i] = 1024 * b[i];
  cr_expect_float_eq(plasticity(a, scaled, ROWS, WIDE), want, 1e-14);
  for (size_t i = 0; i < ROWS * WIDE; i++)
    scaled[i] = -.3f * b[i];
  cr_expect_float_eq(plasticity(a, scaled, ROWS, WIDE), want, 1e-7);
  cr_expect(plasticity(b, scaled, ROWS, WIDE) < 1e-12);
  free(a);
  free(b);
  free(scaled);
}

/* Reflections I - 2 v v' of one side's features. */
static void reflect(float *x, size_t rows, size_t n, uint32_t seed)
{
  float *v = noise(1, n, seed);
  double square = 0;
  for (size_t k = 0; k < n; k++)
    square += (double)v[k] * (double)v[k];
  for (size_t r = 0; r < rows; r++) {
    double along = 0;
    for (size_t k = 0; k < n; k++)
      along += (double)v[k] * (double)x[r * n + k];
    for (size_t k = 0; k < n; k++)
      x[r * n + k] =
          (float)((double)x[r * n + k] - 2 * along / square * (double)v[k]);
  }
  free(v);
}

Test(freeze_similarity, an_orthogonal_change_of_features_is_not_seen)
{
  float *a = noise(ROWS, WIDE, 1), *b = noise(ROWS, WIDE, 2);
  float *c = noise(ROWS, WIDE, 2);
  reflect(c, ROWS, WIDE, 3);
  reflect(c, ROWS, WIDE, 4);
  cr_expect(memcmp(b, c, ROWS * WIDE * sizeof *b) != 0);
  cr_expect(plasticity(b, c, ROWS, WIDE) < 1e-12);
  cr_expect_float_eq(plasticity(a, c, ROWS, WIDE), plasticity(a, b, ROWS, WIDE),
                     1e-7);
  cr_expect_float_eq(cka(b, WIDE, c, WIDE, ROWS), 1, 1e-7);
  free(a);
  free(b);
  free(c);
}

Test(freeze_similarity, wide_outputs_are_read_in_strides)
{
  enum { N = 65537, LONG = 3 * 65536 };
  float *a = noise(3, LONG, 1), *b = noise(3, LONG, 2);
  cr_expect_float_eq(plasticity(a, b, 3, N), plain_plasticity(a, b, 3, N, 2),
                     1e-12);
  cr_expect_float_eq(plasticity(a, b, 3, LONG),
                     plain_plasticity(a, b, 3, LONG, 3), 1e-12);
  cr_expect_float_eq(plasticity(a, b, 3, N - 1),
                     plain_plasticity(a, b, 3, N - 1, 1), 1e-12);
  free(a);
  free(b);
}

Test(freeze_similarity, samples_of_zeros_have_no_direction)
{
  float a[] = {0, 0, 3, 4}, b[] = {5, 12, 3, 4};
  double none = plasticity(a, a, 2, 2), some = plasticity(a, b, 2, 2);
  cr_expect_eq(none, 0);
  cr_expect(isfinite(some) && some > 0);
}

Test(freeze_similarity, cka_is_its_formula)
{
  float *a = noise(ROWS, WIDE, 1), *b = noise(ROWS, WIDE, 2);
  static const uint64_t sizes[] = {1, NARROW, 16, WIDE};
  for (size_t i = 0; i < 4; i++) {
    for (size_t k = 0; k < 4; k++) {
      const size_t n = (size_t)sizes[i], m = (size_t)sizes[k];
      const double want = plain_cka(a, n, b, m, ROWS);
      cr_expect_float_eq(cka(a, n, b, m, ROWS), want, 1e-12);
      cr_expect_float_eq(cka(b, m, a, n, ROWS), want, 1e-12);
    }
  }
  free(a);
  free(b);
}

Test(freeze_similarity, cka_of_constant_features_is_one)
{
  float a[8] = {.1f, .1f, .1f, .1f, .1f, .1f, .1f, .1f};
  float b[8] = {1, 2, 3, 4, 5, 6, 7, 9};
  cr_expect_eq(cka(a, 2, b, 2, 4), 1);
  cr_expect_eq(cka(b, 2, a, 2, 4), 1);
  cr_expect_eq(cka(a, 2, a, 1, 4), 1);
  cr_expect_eq(cka(b, 2, b, 2, 4), 1);
}

Test(freeze_similarity, arguments_are_checked)
{
  float a[] = {1, 2, 3, 4}, bad[] = {1, 2, NAN, 4};
  double p = 7;
  cr_expect_eq(fl_plasticity(NULL, NULL, a, 2, 2, &p), FL_E_ARGUMENT);
  cr_expect_eq(fl_plasticity(NULL, a, a, 2, 2, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_plasticity(NULL, a, a, 1, 2, &p), FL_E_DIM);
  cr_expect_eq(fl_plasticity(NULL, a, a, 1025, 2, &p), FL_E_DIM);
  cr_expect_eq(fl_plasticity(NULL, a, a, 2, 0, &p), FL_E_DIM);
  cr_expect_eq(fl_plasticity(NULL, a, a, 2, UINT64_MAX / 2 + 2, &p), FL_E_DIM);
  cr_expect_eq(fl_plasticity(NULL, a, bad, 2, 2, &p), FL_E_NOT_FINITE);
  cr_expect_eq(fl_cka(NULL, bad, 2, a, 2, 2, &p), FL_E_NOT_FINITE);
  cr_expect_eq(fl_cka(NULL, a, 0, a, 2, 2, &p), FL_E_DIM);
  cr_expect_eq(p, 7);
}
