/* SPDX-License-Identifier: Apache-2.0 */
/* The clip for workers of a coherence and a spread, against an oracle that
 * shares no formula with it: the correlation of clamping errors as an integral
 * over that of the coordinates, strata as a long Fourier series. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/dmath.h"
#include "compress/table.h"
#include "compress_fixture.h"

#define PI_OF_ORACLE 3.14159265358979323846

enum { STEPS = 400, TERMS = 1000 };

static fl_compressor *open_mode(uint32_t codec, uint32_t mode, uint32_t bits)
{
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  fl_compressor_options o;
  cf_options(&o, codec, mode, bits);
  cr_assert_eq(fl_compressor_new(&compressor, NULL, &o, &n, 1), FL_OK, "%s",
               fl_last_error());
  return compressor;
}

/* 1 / p of the clip. */
static double outside(const fl_compressor *compressor, uint32_t workers,
                      double coherence)
{
  float clip = fl_compressor_best_clip(compressor, workers, coherence, 1.0);
  return 1.0 / (2.0 * fli_normal_tail((double)clip));
}

Test(clip, equal_vectors_want_a_small_tail_and_orthogonal_ones_a_large)
{
  fl_compressor *dither = open_mode(FL_CODEC_THC, FL_THC_DITHER, 4);
  double equal = outside(dither, 10, 1.0);
  double half = outside(dither, 10, 0.5);
  double independent = outside(dither, 10, 0.1);
  double nearly = outside(dither, 10, 0.101);
  /* The nearest power of two is 4096. */
  cr_expect(equal > 2897.0 && equal < 5792.0, "1/%g", equal);
  cr_expect(half > 128.0 && half < 256.0, "1/%g", half);
  cr_expect(independent > 85.0 && independent < 92.0, "1/%g", independent);
  cr_expect(nearly > 85.0 && nearly < 92.0, "1/%g", nearly);
  fl_compressor_free(dither);
}

Test(clip, unknown_coherence_is_that_of_independent_workers)
{
  fl_compressor *dither = open_mode(FL_CODEC_THC, FL_THC_DITHER, 4);
  float want = fl_compressor_clip(dither);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, (double)NAN, 1.0), want);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, -1.0, 1.0), want);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.0, 1.0), want);
  cr_expect_eq(fl_compressor_best_clip(dither, 1, 1.0, 1.0), want);
  cr_expect_eq(fl_compressor_best_clip(dither, 0, 1.0, 1.0), want);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, HUGE_VAL, 1.0),
               fl_compressor_best_clip(dither, 10, 1.0, 1.0));
  fl_compressor_free(dither);
}

Test(clip, spread_divides_it_down_to_the_least_clip)
{
  fl_compressor *dither = open_mode(FL_CODEC_THC, FL_THC_DITHER, 4);
  float one = fl_compressor_best_clip(dither, 10, 0.5, 1.0);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, 2.0), one / 2.0f);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, 0.5), one);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, 0.0), one);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, -2.0), one);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, (double)NAN), one);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, 100.0), FLI_CLIP_MIN);
  cr_expect_eq(fl_compressor_best_clip(dither, 10, 0.5, HUGE_VAL),
               FLI_CLIP_MIN);
  fl_compressor_free(dither);
}

Test(clip, is_0_without_a_grid)
{
  fl_compressor *f32 = open_mode(FL_CODEC_F32, FL_THC_DITHER, 4);
  cr_expect_eq(fl_compressor_best_clip(f32, 10, 0.5, 1.0), 0.0f);
  cr_expect_eq(fl_compressor_best_clip(NULL, 10, 0.5, 1.0), 0.0f);
  fl_compressor_free(f32);
}

Test(clip, correlation_is_0_for_independent_and_1_for_equal_workers)
{
  cr_expect_eq(fli_clip_correlation(10, 0.1), 0.0);
  cr_expect_eq(fli_clip_correlation(10, 0.05), 0.0);
  cr_expect_eq(fli_clip_correlation(10, 1.0), 1.0);
  cr_expect_eq(fli_clip_correlation(10, 3.0), 1.0);
  cr_expect_float_eq(fli_clip_correlation(2, 0.75), 0.5, 1e-15);
  cr_expect_eq(fli_clip_correlation(1, 1.0), 0.0);
  cr_expect_eq(fli_clip_correlation(0, 1.0), 0.0);
  cr_expect_eq(fli_clip_correlation(10, (double)NAN), 0.0);
}

/* ---- oracle ---- */

static double tail_of(double t)
{
  return erfc(t / sqrt(2.0)) / 2.0;
}

/* E[e(X) e(Y)] of the clamping errors of two normal variables. Its second
 * derivative by the correlation is the density of (X, Y) at the four corners
 * (+-t, +-t), with signs; at correlation 0 it is 0 and its first derivative
 * P(|X| > t)^2. Substituting s = sin takes the density's root away. */
static double shared_clamping(double t, double c)
{
  double sum = 0.0, width = asin(c) / STEPS;
  for (int i = 0; i < STEPS; i++) {
    double s = sin(((double)i + 0.5) * width);
    sum += (c - s) * (exp(-t * t / (1.0 + s)) - exp(-t * t / (1.0 - s)));
  }
  return 4.0 * tail_of(t) * tail_of(t) * c + sum * width / PI_OF_ORACLE;
}

static double clamping_of(double t)
{
  double density = exp(-t * t / 2.0) / sqrt(2.0 * PI_OF_ORACLE);
  return 2.0 * ((1.0 + t * t) * tail_of(t) - t * density);
}

/* A frequency's share in the square of a value dithered by U(0, 1). */
static double power_at(double k)
{
  return 1.0 / (2.0 * PI_OF_ORACLE * PI_OF_ORACLE * k * k);
}

/* How much two slots have in common of it, whose values differ at random. */
static double alike_at(double k, double sigma)
{
  double phase = 2.0 * PI_OF_ORACLE * k * sigma;
  return exp(-phase * phase);
}

/* Mean square of the mean of n dithered values: what is alike cancels among
 * slots that are 1/n apart, but for multiples of n. */
static double strata(double n, double sigma)
{
  double last = (double)TERMS;
  double sum = power_at(1.0) / last * (1.0 - alike_at(last, sigma)) / n;
  for (int i = 1; i <= TERMS; i++) {
    double k = (double)i;
    sum += power_at(k) * (1.0 - alike_at(k, sigma)) / n;
    sum += power_at(n * k) * alike_at(n * k, sigma);
  }
  return sum;
}

/* The error that a clip is chosen by. */
static double true_error(const fl_compressor *compressor, double n, double r,
                         double t)
{
  double g = (double)compressor->granularity;
  double cell = 2.0 * t / g;
  double c = n > 1.0 ? fmin(fmax((n * r - 1.0) / (n - 1.0), 0.0), 1.0) : 0.0;
  double shared = shared_clamping(t, c);
  double rounding = cell * cell / 6.0 * (1.0 - 2.0 * tail_of(t)) / n;
  if (compressor->mode == FL_THC_DITHER)
    rounding = cell * cell * strata(n, sqrt(1.0 - c) / cell);
  if (compressor->mode == FL_THC_TABLE)
    rounding = fli_table_cost(compressor->values, compressor->bits, t) / n;
  return rounding + shared + (clamping_of(t) - shared) / n;
}

static void expect_best(const fl_compressor *compressor, uint32_t workers,
                        double r)
{
  double n = (double)workers;
  double clip = (double)fl_compressor_best_clip(compressor, workers, r, 1.0);
  double mine = true_error(compressor, n, r, clip), least = HUGE_VAL;
  for (double t = 0.5; t < 7.0; t += 0x1p-6) {
    double error = true_error(compressor, n, r, t);
    if (error < least) least = error;
  }
  cr_expect(mine <= least * (1.0 + 1e-3),
            "mode %u, bits %u, n %g, r %g, clip %g: %g above %g",
            compressor->mode, compressor->bits, n, r, clip, mine, least);
}

Test(clip, no_other_has_less_error)
{
  static const uint32_t workers[] = {1, 2, 10, 64, 1000};
  static const double coherence[] = {0.0, 0.02, 0.3, 0.94, 0.99, 1.0};
  fl_compressor *c[] = {open_mode(FL_CODEC_THC, FL_THC_TABLE, 4),
                        open_mode(FL_CODEC_THC, FL_THC_UNIFORM, 4),
                        open_mode(FL_CODEC_THC, FL_THC_DITHER, 4),
                        open_mode(FL_CODEC_THC, FL_THC_DITHER, 8),
                        open_mode(FL_CODEC_THC, FL_THC_DITHER, 1)};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    for (size_t w = 0; w < sizeof workers / sizeof *workers; w++) {
      for (size_t r = 0; r < sizeof coherence / sizeof *coherence; r++)
        expect_best(c[i], workers[w], coherence[r]);
    }
    fl_compressor_free(c[i]);
  }
}
