/* SPDX-License-Identifier: Apache-2.0 */
/* The clip t_p that costs least. After rotation coordinates are close to
 * N(0, 1); on a grid of g cells over [-t, t] one coordinate's expected squared
 * error is the rounding error inside plus the clamping error outside (THC,
 * section 5.3, and docs/design/thc.md, "Clip"):
 *   dither  (2t/g)^2 / 12                + C(t)
 *   uniform (2t/g)^2 / 6 * (1 - 2 Q(t))  + C(t)
 *   table   cost of its values on [-t, t] + C(t)
 *   C(t) = 2 ((1 + t^2) Q(t) - t phi(t))
 * In a mean over n workers rounding divides by n, and clamping by less where
 * workers have something in common: their coordinates are normal with a
 * correlation c, and the mean of two clamping errors' product is G(t, c), so
 * that of the mean's square is G + (C - G) / n. The search is over fixed
 * polynomials (base/dmath.h), so everybody finds the same clip. */
#include <math.h>

#include "base/dmath.h"
#include "compress/compressor.h"
#include "compress/table.h"

#define PI 0x1.921fb54442d18p+1
#define INV_SQRT_PI 0x1.20dd750429b6dp-1

/* No expected error is least beyond: 2^-53 of N(0, 1) are outside. */
#define CLIP_BEST 8.4375

/* Terms of the series of G go up to this power of the correlation. */
enum { HERMITE_MOST = 63 };

typedef struct objective {
  uint32_t mode;
  uint32_t bits;
  double g;
  const uint8_t *values; /* table mode */
  double workers;
  double correlation; /* of two workers' coordinates, 0..1 */
} objective;

/* Its two terms all but cancel where t is large. */
double fli_clamping_error(double t)
{
  double tail = fli_normal_tail(t);
  double error = 2.0 * ((1.0 + t * t) * tail - t * fli_normal_pdf(t));
  return error > 0.0 ? error : 0.0;
}

/* G(t, c). The clamping error is an odd function of a normal variable, and its
 * coefficients in Hermite polynomials are 2 Q(t), and 2 phi(t) He_k-2(t) for
 * odd k >= 3. By Mehler's formula
 *   G(t, c) = (2 Q)^2 c + sum over odd k >= 3 of
 *             (2 phi(t) He_k-2(t))^2 c^k / k!
 * All terms are positive and add up to C(t) at c = 1, so that what C lacks
 * there times c^(K + 2) bounds what is behind power K. It stands for that rest:
 * exact at c = 1, too large by a part of C elsewhere that thc.md bounds.
 * He_k / sqrt(k!) is what is computed, which stays small. */
static double shared_error(double t, double c)
{
  double head = 2.0 * fli_normal_tail(t);
  double density = 2.0 * fli_normal_pdf(t);
  double before = 1.0, at = t; /* He_k-3, He_k-2, so scaled */
  double power = c, sum = head * head * c, sum_of_all = head * head;
  for (int k = 3; k <= HERMITE_MOST; k += 2) {
    double term = density * at;
    term = term * term / ((double)k * (double)(k - 1));
    power *= c * c;
    sum += term * power;
    sum_of_all += term;
    for (int m = k - 2; m < k; m++) {
      double next = (t * at - sqrt((double)m) * before) / sqrt((double)m + 1.0);
      before = at;
      at = next;
    }
  }
  double rest = fli_clamping_error(t) - sum_of_all;
  return rest > 0.0 ? sum + rest * power * c * c : sum;
}

/* Sum over k >= 1 of exp(-(2 pi k sigma)^2) / (2 pi^2 k^2), to 1e-7 of 1/12:
 * three terms are enough where it falls fast, and its transform by Poisson's
 * formula, whose next term has exp(-1 / (4 sigma^2)), where it does not. */
static double overlap(double sigma)
{
  double variance = sigma * sigma;
  if (sigma < 0.15) return 1.0 / 12.0 - sigma * INV_SQRT_PI + variance;
  double sum = 0.0;
  for (int k = 1; k <= 3; k++) {
    double square = (double)(k * k) * PI * PI;
    sum += fli_exp(-4.0 * square * variance) / (2.0 * square);
  }
  return sum;
}

/* Squared error, in cells, of the mean of n dithered values. Slot s subtracts
 * V + s/n: slots whose values differ by a normal variable of sqrt(2) sigma
 * cells have errors with a correlation of their own. 1 / (12 n) where sigma is
 * large, 1 / (12 n^2) where all values are equal. */
static double strata_error(const objective *o, double cell)
{
  double n = o->workers;
  if (n == 1.0) return 1.0 / 12.0;
  double sigma = sqrt(1.0 - o->correlation) / cell;
  return (1.0 / 12.0 - overlap(sigma)) / n + overlap(n * sigma) / (n * n);
}

static double expected_error(const void *arg, double t)
{
  const objective *o = arg;
  double cell = 2.0 * t / o->g;
  double clamping = fli_clamping_error(t);
  double shared = o->correlation > 0.0 ? shared_error(t, o->correlation) : 0.0;
  double rounding;
  switch (o->mode) {
  case FL_THC_DITHER: rounding = cell * cell * strata_error(o, cell); break;
  case FL_THC_TABLE:
    rounding = fli_table_cost(o->values, o->bits, t) / o->workers;
    break;
  default:
    rounding =
        cell * cell / 6.0 * (1.0 - 2.0 * fli_normal_tail(t)) / o->workers;
    break;
  }
  return rounding + shared + (clamping - shared) / o->workers;
}

/* A coarse grid, then a finer one around its best point: no assumption on the
 * shape beyond one valley per coarse step. Steps are powers of two, so
 * candidates are exact. */
double fli_clip_search(fli_clip_error_fn error_at, const void *arg, double low,
                       double high)
{
  double best = 0.0, best_error = 0.0, from = low, to = high;
  for (double step = 0x1p-4; step >= 0x1p-10; step *= 0x1p-3) {
    for (double t = from; t <= to; t += step) {
      double error = error_at(arg, t);
      if (best == 0.0 || error < best_error) {
        best = t;
        best_error = error;
      }
    }
    from = best - step > low ? best - step : low;
    to = best + step;
  }
  return best;
}

static double search(const objective *o)
{
  return fli_clip_search(expected_error, o, (double)FLI_CLIP_MIN, CLIP_BEST);
}

float fli_best_clip(uint32_t mode, uint32_t granularity)
{
  objective o = {.mode = mode, .g = (double)granularity, .workers = 1.0};
  return (float)search(&o);
}

/* Correlation of the workers' coordinates, from r = |mean|^2 / mean |x|^2: 0
 * at 1/n, for vectors that are independent, 1 for equal ones. */
double fli_clip_correlation(uint32_t workers, double coherence)
{
  double n = (double)workers;
  if (!(n > 1.0 && coherence > 0.0)) return 0.0;
  double c = (n * coherence - 1.0) / (n - 1.0);
  if (!(c > 0.0)) return 0.0;
  return c < 1.0 ? c : 1.0;
}

float fli_best_clip_for(const fl_compressor *compressor, uint32_t workers,
                        double correlation, double spread)
{
  objective o = {.mode = compressor->mode,
                 .bits = compressor->bits,
                 .g = (double)compressor->granularity,
                 .values = compressor->values,
                 .workers = workers > 0 ? (double)workers : 1.0,
                 .correlation = correlation};
  /* In units of the workers' own norms. */
  float clip = (float)(search(&o) / (spread > 1.0 ? spread : 1.0));
  return clip > FLI_CLIP_MIN ? clip : FLI_CLIP_MIN;
}
