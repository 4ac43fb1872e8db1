/* SPDX-License-Identifier: Apache-2.0 */
/* Krum and multi-Krum (Blanchard et al., NeurIPS 2017). |a - b|^2 is taken from
 * inner products, aa + bb - 2 ab, of updates less their mean, which makes the
 * three numbers small and so the difference a good one. Products go by pieces
 * of FLI_TILE coordinates in float32 and are added up in double: a shape of
 * their own, so that every machine finds the same bits, and the same winner. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"
#include "strategy/strategy.h"

typedef struct gram {
  const fl_strategy *strategy;
  fli_updates updates;
  double *products; /* count x count, the upper half */
  double *means;    /* what every update has of the mean */
  uint32_t count;
} gram;

/* Put pieces less their mean into the buffer, with zeros up to whole lanes. */
static size_t centre(gram *g, const double *clips, size_t n)
{
  const size_t padded = (n + FLK_DOT_LANES - 1) / FLK_DOT_LANES * FLK_DOT_LANES;
  double sums[FLI_TILE] = {0};
  float mean[FLI_TILE];
  flk_robust_kernels()->add(sums, g->updates.rows, g->means, g->count, 0, n);
  for (size_t i = 0; i < n; i++)
    mean[i] = (float)sums[i];
  for (uint32_t k = 0; k < g->count; k++) {
    const float *from = g->updates.rows[k];
    float *to = g->updates.buffer + (size_t)k * FLI_TILE;
    const float clip = clips ? (float)clips[k] : 1.0f;
    for (size_t i = 0; i < n; i++)
      to[i] = clip * from[i] - mean[i];
    for (size_t i = n; i < padded; i++)
      to[i] = 0.0f;
    g->updates.rows[k] = to;
  }
  return padded;
}

/* Beyond the last update its products are made once more, and dropped. */
static void add_block(gram *g, uint32_t row, uint32_t column, size_t n)
{
  const flk_robust *kernels = flk_robust_kernels();
  const float *rows[FLK_DOT_MOST], *columns[FLK_DOT_MOST];
  float sums[FLK_DOT_MOST * FLK_DOT_MOST];
  const uint32_t last = g->count - 1;
  for (uint32_t i = 0; i < FLK_DOT_MOST; i++) {
    rows[i] = g->updates.rows[row + i < last ? row + i : last];
    columns[i] = g->updates.rows[column + i < last ? column + i : last];
  }
  kernels->dots(sums, rows, columns, n);
  for (uint32_t r = 0; r < kernels->dot_rows && row + r <= last; r++) {
    for (uint32_t c = 0; c < kernels->dot_columns && column + c <= last; c++) {
      if (column + c < row + r) continue;
      g->products[(size_t)(row + r) * g->count + column + c] +=
          (double)sums[r * FLK_DOT_MOST + c];
    }
  }
}

static fl_status add_products(gram *g, const double *clips)
{
  const flk_robust *kernels = flk_robust_kernels();
  const uint64_t all = g->strategy->n;
  const uint32_t rows = (uint32_t)kernels->dot_rows;
  const uint32_t columns = (uint32_t)kernels->dot_columns;
  for (uint64_t at = 0; at < all; at += FLI_TILE) {
    const uint64_t n = all - at < FLI_TILE ? all - at : FLI_TILE;
    fl_status st = fli_updates_read(&g->updates, 0, g->count, at, n);
    if (st != FL_OK) return st;
    const size_t padded = centre(g, clips, (size_t)n);
    for (uint32_t r = 0; r < g->count; r += rows) {
      for (uint32_t c = r / columns * columns; c < g->count; c += columns)
        add_block(g, r, c, padded);
    }
  }
  return FL_OK;
}

static double distance(const gram *g, uint32_t a, uint32_t b)
{
  const size_t count = g->count;
  const uint32_t low = a < b ? a : b, high = a < b ? b : a;
  const double d = g->products[low * count + low] +
                   g->products[high * count + high] -
                   2.0 * g->products[low * count + high];
  return d > 0.0 ? d : 0.0;
}

static int compare(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sum of the count - f - 2 smallest distances to others. */
static double score(const gram *g, uint32_t k, double *others)
{
  const uint32_t f = g->strategy->options.byzantine;
  uint32_t n = 0;
  double sum = 0.0;
  for (uint32_t i = 0; i < g->count; i++) {
    if (i != k) others[n++] = distance(g, i, k);
  }
  qsort(others, n, sizeof *others, compare);
  for (uint32_t i = 0; i < g->count - f - 2; i++)
    sum += others[i];
  return sum;
}

/* Of equal ones the first. */
static void choose(const gram *g, double *scores, fli_pending *pending)
{
  const int is_one = g->strategy->options.rule == FL_RULE_KRUM;
  const uint32_t n = is_one ? 1 : g->count - g->strategy->options.byzantine;
  memset(pending->factors, 0, g->count * sizeof *pending->factors);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t best = 0;
    for (uint32_t k = 1; k < g->count; k++) {
      if (scores[k] < scores[best]) best = k;
    }
    if (is_one) pending->chosen = best;
    pending->factors[best] = 1.0 / (double)n;
    scores[best] = (double)INFINITY;
  }
}

fl_status fli_choose_krum(const fl_strategy *strategy,
                          const fl_strategy_round *round, const double *clips,
                          fli_pending *pending)
{
  fl_context *context = strategy->context;
  const size_t count = round->count;
  size_t pairs = 0, bytes = 0;
  fl_status st = FL_OK;
  gram g = {.strategy = strategy, .count = round->count};
  double *others = NULL, *scores = NULL;
  if (!fli_mul_size(count, count, &pairs) ||
      !fli_mul_size(pairs, sizeof(double), &bytes))
    return fli_nomem(SIZE_MAX);
  FLI_TRY(fli_updates_open(&g.updates, context, round, round->count, 1));
  g.products = fli_alloc(context, pairs, sizeof(double));
  g.means = fli_alloc(context, count, sizeof(double));
  others = fli_alloc(context, count, sizeof(double));
  scores = fli_alloc(context, count, sizeof(double));
  if (!g.products || !g.means || !others || !scores) FLI_TRY(fli_nomem(bytes));
  for (size_t k = 0; k < count; k++)
    g.means[k] = (clips ? clips[k] : 1.0) / (double)count;
  FLI_TRY(add_products(&g, clips));
  for (uint32_t k = 0; k < round->count; k++)
    scores[k] = score(&g, k, others);
  choose(&g, scores, pending);
out:
  fli_updates_close(&g.updates);
  fli_free(context, g.products, bytes);
  fli_free(context, g.means, count * sizeof(double));
  fli_free(context, others, count * sizeof(double));
  fli_free(context, scores, count * sizeof(double));
  return st;
}
