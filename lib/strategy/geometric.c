/* SPDX-License-Identifier: Apache-2.0 */
/* Geometric median by smoothed Weiszfeld passes (Pillutla et al., IEEE TSP
 * 2022, algorithm 2): z = sum b_k D_k / sum b_k, then
 * b_k = p_k / max(nu, |D_k - z|), beginning with b_k = p_k. A pass reads every
 * update once: z is made piece by piece, and measured against while the piece
 * is there. */
#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "strategy/strategy.h"

/* The distances' lanes, folded like those of flk_table.sum_squares. */
static double square_to(const float *x, const double *z, double clip, size_t n)
{
  double lanes[16] = {0};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t k = 0; k < 16; k++) {
      const double d = clip * (double)x[i + k] - z[i + k];
      lanes[k] += d * d;
    }
  }
  for (size_t k = 0; i + k < n; k++) {
    const double d = clip * (double)x[i + k] - z[i + k];
    lanes[k] += d * d;
  }
  for (size_t h = 8; h > 0; h /= 2) {
    for (size_t k = 0; k < h; k++)
      lanes[k] += lanes[k + h];
  }
  return lanes[0];
}

/* `scaled`: factors that sum to 1, times clips. */
static fl_status measure(const fl_strategy *strategy, fli_updates *updates,
                         const double *clips, const double *scaled,
                         double *squares)
{
  const uint32_t count = updates->round->count;
  for (uint32_t k = 0; k < count; k++)
    squares[k] = 0.0;
  for (uint64_t at = 0; at < strategy->n; at += FLI_TILE) {
    const uint64_t left = strategy->n - at;
    const size_t n = (size_t)(left < FLI_TILE ? left : FLI_TILE);
    double z[FLI_TILE] = {0};
    const fl_status st = fli_updates_read(updates, 0, count, at, n);
    if (st != FL_OK) return st;
    flk_robust_kernels()->add(z, updates->rows, scaled, count, 0, n);
    for (uint32_t k = 0; k < count; k++)
      squares[k] += square_to(updates->rows[k], z, clips ? clips[k] : 1.0, n);
  }
  return FL_OK;
}

static void normalise(double *factors, uint32_t count)
{
  double sum = 0.0;
  for (uint32_t k = 0; k < count; k++)
    sum += factors[k];
  for (uint32_t k = 0; k < count; k++)
    factors[k] /= sum;
}

fl_status fli_choose_geometric(const fl_strategy *strategy,
                               const fl_strategy_round *round,
                               const double *clips, fli_pending *pending)
{
  fl_context *context = strategy->context;
  const size_t count = round->count, bytes = count * sizeof(double);
  const double nu = (double)strategy->options.smoothing;
  fl_status st = FL_OK;
  fli_updates updates;
  double *shares = NULL, *scaled = NULL, *squares = NULL;
  FLI_TRY(fli_updates_open(&updates, context, round, round->count, 0));
  shares = fli_alloc(context, count, sizeof(double));
  scaled = fli_alloc(context, count, sizeof(double));
  squares = fli_alloc(context, count, sizeof(double));
  if (!shares || !scaled || !squares) FLI_TRY(fli_nomem(bytes));
  for (size_t k = 0; k < count; k++)
    shares[k] = pending->factors[k];
  for (uint32_t pass = 0; pass < strategy->options.passes; pass++) {
    for (size_t k = 0; k < count; k++)
      scaled[k] = pending->factors[k] * (clips ? clips[k] : 1.0);
    FLI_TRY(measure(strategy, &updates, clips, scaled, squares));
    for (size_t k = 0; k < count; k++) {
      const double length = sqrt(squares[k]);
      pending->factors[k] = shares[k] / (length > nu ? length : nu);
    }
    normalise(pending->factors, round->count);
  }
out:
  fli_updates_close(&updates);
  fli_free(context, shares, bytes);
  fli_free(context, scaled, bytes);
  fli_free(context, squares, bytes);
  return st;
}
