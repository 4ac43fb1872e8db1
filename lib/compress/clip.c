/* SPDX-License-Identifier: Apache-2.0 */
/* The clip t_p that costs least. After rotation coordinates are close to
 * N(0, 1); on a grid of g cells over [-t, t] one coordinate's expected squared
 * error is the rounding error inside plus the clamping error outside (THC,
 * section 5.3, and docs/design/thc.md):
 *   dither  (2t/g)^2 / 12                + C(t)
 *   uniform (2t/g)^2 / 6 * (1 - 2 Q(t))  + C(t)
 *   C(t) = 2 ((1 + t^2) Q(t) - t phi(t))
 * Workers that are independent of each other divide both terms alike, so the
 * number of workers does not matter. The search is over fixed polynomials
 * (base/dmath.h), so everybody finds the same clip. */
#include "base/dmath.h"
#include "compress/compressor.h"

static double expected_error(double t, uint32_t mode, double g)
{
  double cell = 2.0 * t / g;
  double tail = fli_normal_tail(t);
  double clamping = 2.0 * ((1.0 + t * t) * tail - t * fli_normal_pdf(t));
  if (mode == FL_THC_DITHER) return cell * cell / 12.0 + clamping;
  return cell * cell / 6.0 * (1.0 - 2.0 * tail) + clamping;
}

float fli_best_clip(uint32_t mode, uint32_t granularity)
{
  /* A coarse grid, then a finer one around its best point: no assumption on
   * the shape beyond one valley per coarse step. Steps are powers of two, so
   * candidates are exact. */
  double best = 0.0, best_error = 0.0;
  double low = 0.25;
  for (double step = 0x1p-4; step >= 0x1p-10; step *= 0x1p-3) {
    for (int i = 0; i < 128; i++) {
      double t = low + (double)i * step;
      double error = expected_error(t, mode, (double)granularity);
      if (best == 0.0 || error < best_error) {
        best = t;
        best_error = error;
      }
    }
    low = best - 8.0 * step;
    if (low < 0.25) low = 0.25;
  }
  return (float)best;
}
