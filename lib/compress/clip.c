/* SPDX-License-Identifier: Apache-2.0 */
/* The clip t_p that costs least. After rotation coordinates are close to
 * N(0, 1); on a grid of g cells over [-t, t] one coordinate's expected squared
 * error is the rounding error inside plus the clamping error outside (THC,
 * section 5.3, and docs/design/thc.md):
 *   dither  (2t/g)^2 / 12                + C(t)
 *   uniform (2t/g)^2 / 6 * (1 - 2 Q(t))  + C(t)
 *   table   cost of its values on [-t, t] + C(t)
 *   C(t) = 2 ((1 + t^2) Q(t) - t phi(t))
 * Workers that are independent of each other divide both terms alike, so their
 * number does not matter. What workers have in common is clamped alike by all
 * of them and does not average out, and where nearly everything is in common
 * the stratified dither divides the rounding error by the number's square. The
 * search is over fixed polynomials (base/dmath.h), so everybody finds the same
 * clip. */
#include "base/dmath.h"
#include "compress/compressor.h"
#include "compress/table.h"

/* Vectors this much alike, and the strata of a dither fit together. */
#define ALIKE 0.95

typedef struct objective {
  uint32_t mode;
  uint32_t bits;
  double g;
  const uint8_t *values; /* table mode */
  double rounding;       /* weights of the two terms */
  double clamping;
} objective;

static double expected_error(const objective *o, double t)
{
  double cell = 2.0 * t / o->g;
  double tail = fli_normal_tail(t);
  double clamping = 2.0 * ((1.0 + t * t) * tail - t * fli_normal_pdf(t));
  double rounding;
  switch (o->mode) {
  case FL_THC_DITHER: rounding = cell * cell / 12.0; break;
  case FL_THC_TABLE: rounding = fli_table_cost(o->values, o->bits, t); break;
  default: rounding = cell * cell / 6.0 * (1.0 - 2.0 * tail); break;
  }
  return o->rounding * rounding + o->clamping * clamping;
}

static float search(const objective *o)
{
  /* A coarse grid, then a finer one around its best point: no assumption on
   * the shape beyond one valley per coarse step. Steps are powers of two, so
   * candidates are exact. */
  double best = 0.0, best_error = 0.0;
  double low = (double)FLI_CLIP_MIN;
  for (double step = 0x1p-4; step >= 0x1p-10; step *= 0x1p-3) {
    int n = best == 0.0 ? 128 : 17;
    for (int i = 0; i < n; i++) {
      double t = low + (double)i * step;
      double error = expected_error(o, t);
      if (best == 0.0 || error < best_error) {
        best = t;
        best_error = error;
      }
    }
    low = best - step;
    if (low < (double)FLI_CLIP_MIN) low = (double)FLI_CLIP_MIN;
  }
  return (float)best;
}

float fli_best_clip(uint32_t mode, uint32_t granularity)
{
  objective o = {
      .mode = mode, .g = (double)granularity, .rounding = 1.0, .clamping = 1.0};
  return search(&o);
}

/* Share of the clamping error that all of n workers have in common, from
 * r = |mean|^2 / mean |x|^2: 1/n for vectors that are independent, 1 for equal
 * ones. */
static double common_share(double n, double r)
{
  if (!(n > 1.0 && r > 0.0)) return 0.0;
  double share = (n * r - 1.0) / (n - 1.0);
  if (share < 0.0) return 0.0;
  return share < 1.0 ? share : 1.0;
}

float fli_best_clip_for(const fl_compressor *compressor, uint32_t workers,
                        double coherence)
{
  double n = workers > 0 ? (double)workers : 1.0;
  double common = common_share(n, coherence);
  objective o = {.mode = compressor->mode,
                 .bits = compressor->bits,
                 .g = (double)compressor->granularity,
                 .values = compressor->values,
                 .rounding = 1.0 / n,
                 .clamping = common + (1.0 - common) / n};
  if (o.mode == FL_THC_DITHER && common > ALIKE) o.rounding /= n;
  return search(&o);
}
