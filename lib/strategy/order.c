/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinate-wise median and trimmed mean (Yin et al., ICML 2018): of every
 * coordinate's values in order, the mean of those in a window. A strip of
 * FLK_STRIP coordinates is sorted at once, row against row, by a network that
 * leaves out what the window does not depend on; beyond FLI_NETWORK_MAX updates
 * the window's ends are found bit by bit, and the sum is of what lies
 * between. */
#include <math.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "strategy/strategy.h"

typedef struct sorter {
  const flk_robust *kernels;
  fli_network network;
  int32_t *keys;
  float *factors; /* NULL: ones */
  uint32_t count;
  uint32_t first, last; /* the window */
} sorter;

static void find_window(sorter *s, const fl_strategy_options *options)
{
  const uint32_t middle = (s->count - 1) / 2;
  s->first = middle;
  if (options->rule == FL_RULE_TRIMMED_MEAN) {
    /* A float32 like .35 may lie below what was meant. */
    const double cut =
        floor((double)options->trim * (double)s->count * (1.0 + 1e-7));
    if (cut < (double)middle) s->first = (uint32_t)cut;
  }
  s->last = s->count - s->first;
}

static double value_of(int32_t key)
{
  return (double)fli_f32_from_bits((uint32_t)flk_key_of_bits((uint32_t)key));
}

/* Values between the window's ends, and as many of the ends themselves as the
 * window has. */
static void sum_between(const sorter *s, const int32_t *low,
                        const int32_t *high, double *out)
{
  for (size_t i = 0; i < FLK_STRIP; i++) {
    double sum = 0.0;
    uint32_t below = 0, between = 0;
    if (low[i] == high[i]) {
      out[i] = value_of(low[i]) * (double)(s->last - s->first);
      continue;
    }
    for (size_t k = 0; k < s->count; k++) {
      const int32_t key = s->keys[k * FLK_STRIP + i];
      const int is_between = key > low[i] && key < high[i];
      below += key <= low[i];
      between += (uint32_t)is_between;
      sum += is_between ? value_of(key) : 0.0;
    }
    const double lows = (double)(below - s->first);
    const double highs = (double)(s->last - below - between);
    out[i] = sum + lows * value_of(low[i]) + highs * value_of(high[i]);
  }
}

static void sort_strip(const sorter *s, double *sums)
{
  if (s->count <= FLI_NETWORK_MAX) {
    s->kernels->exchange(s->keys, s->network.exchanges, s->network.n);
    s->kernels->sum(sums, s->keys + (size_t)s->first * FLK_STRIP,
                    s->last - s->first);
    return;
  }
  int32_t low[FLK_STRIP], high[FLK_STRIP];
  s->kernels->select(low, s->keys, s->count, s->first);
  s->kernels->select(high, s->keys, s->count, s->last - 1);
  sum_between(s, low, high, sums);
}

static fl_status combine_tile(const sorter *s, const fli_updates *updates,
                              size_t n, float *out)
{
  const double scale = 1.0 / (double)(s->last - s->first);
  for (size_t at = 0; at < n; at += FLK_STRIP) {
    const size_t left = n - at;
    double sums[FLK_STRIP];
    const flk_strip strip = {.rows = updates->rows,
                             .factors = s->factors,
                             .n_rows = s->count,
                             .at = at,
                             .n = left < FLK_STRIP ? left : FLK_STRIP};
    s->kernels->load(s->keys, &strip);
    sort_strip(s, sums);
    for (size_t i = 0; i < strip.n; i++)
      out[at + i] = (float)(sums[i] * scale);
  }
  return fli_expect_finite(out, n, "the combined updates");
}

static fl_status sorter_open(sorter *s, fl_context *context,
                             const double *clips)
{
  const size_t count = s->count;
  if (s->count <= FLI_NETWORK_MAX) {
    const fl_status st =
        fli_network_make(&s->network, context, s->count, s->first, s->last);
    if (st != FL_OK) return st;
  }
  s->keys = fli_alloc(context, count, FLK_STRIP * sizeof *s->keys);
  if (clips) s->factors = fli_alloc(context, count, sizeof *s->factors);
  if (!s->keys || (clips && !s->factors))
    return fli_nomem(count * FLK_STRIP * sizeof *s->keys);
  for (size_t k = 0; clips && k < count; k++)
    s->factors[k] = (float)clips[k];
  return FL_OK;
}

fl_status fli_combine_order(const fl_strategy *strategy,
                            const fl_strategy_round *round, const double *clips,
                            float *out)
{
  fl_context *context = strategy->context;
  const size_t count = round->count;
  fl_status st = FL_OK;
  fli_updates updates;
  sorter s = {.kernels = flk_robust_kernels(), .count = round->count};
  find_window(&s, &strategy->options);
  FLI_TRY(fli_updates_open(&updates, context, round, round->count, 0));
  FLI_TRY(sorter_open(&s, context, clips));
  for (uint64_t at = 0; at < strategy->n; at += FLI_TILE) {
    const uint64_t left = strategy->n - at;
    const size_t n = (size_t)(left < FLI_TILE ? left : FLI_TILE);
    FLI_TRY(fli_updates_read(&updates, 0, round->count, at, n));
    FLI_TRY(combine_tile(&s, &updates, n, out + at));
  }
out:
  fli_updates_close(&updates);
  fli_network_free(&s.network, context);
  fli_free(context, s.keys, count * FLK_STRIP * sizeof *s.keys);
  fli_free(context, s.factors, count * sizeof *s.factors);
  return st;
}
