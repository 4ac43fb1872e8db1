/* SPDX-License-Identifier: Apache-2.0 */
/* Power of choice and Oort over flat arrays. Draws with weights but without
 * putting back are Efraimidis' and Spirakis': the least of -ln(u) / weight.
 * Sorting decides ties by place, so that no library's qsort shows. D0. */
#include "server/selector.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/dmath.h"
#include "base/error.h"
#include "base/rng.h"

enum { LEAST_CANDIDATES = 20 };
/* Of the last score that would be chosen: above it, scores are drawn by. */
#define CUTOFF 0.95

typedef struct ranked {
  double key; /* least first */
  uint32_t index;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
  const ranked *left = a, *right = b;
  if (left->key != right->key) return left->key < right->key ? -1 : 1;
  return (left->index > right->index) - (left->index < right->index);
}

static void sort(ranked *items, uint32_t n)
{
  if (n > 1) qsort(items, n, sizeof *items, compare_ranked);
}

/* In (0, 1). */
static double uniform(fli_rng *rng)
{
  return ((double)(fli_rng_u64(rng) >> 11) + 0.5) * 0x1p-53;
}

static double weighted_key(fli_rng *rng, double weight)
{
  const double key = -fli_ln(uniform(rng));
  return weight > 0.0 ? key / weight : DBL_MAX;
}

static void begin(fli_rng *rng, const fli_choice *choice)
{
  fli_rng_init(rng, choice->seed, FLI_RNG_SELECT, choice->round->round,
               choice->round->attempt);
}

/* ---- power of choice ---- */

static uint32_t count_candidates(const fli_choice *choice)
{
  const fl_selection_round *round = choice->round;
  uint64_t d = choice->options->candidates;
  if (d == 0) {
    d = 2 * (uint64_t)round->wanted;
    if (d < LEAST_CANDIDATES) d = LEAST_CANDIDATES;
  }
  if (d < round->wanted) d = round->wanted;
  return d < round->count ? (uint32_t)d : round->count;
}

fl_status fli_choose_by_power(fli_choice *choice, uint32_t *order)
{
  const fl_selection_round *round = choice->round;
  const uint32_t n = round->count, d = count_candidates(choice);
  fli_rng rng;
  ranked *items = fli_alloc(choice->context, n, sizeof *items);
  if (!items) return fli_nomem(n * sizeof *items);
  begin(&rng, choice);
  for (uint32_t i = 0; i < n; i++) {
    items[i].key = weighted_key(&rng, (double)round->samples[i]);
    items[i].index = i;
  }
  sort(items, n);
  for (uint32_t i = 0; i < n; i++)
    order[i] = items[i].index;
  /* Of the candidates, the largest losses; among equals the one drawn first. */
  for (uint32_t i = 0; i < d; i++) {
    const float loss = round->losses[order[i]];
    items[i].key = isnan(loss) ? -DBL_MAX : -(double)loss;
    items[i].index = i;
  }
  sort(items, d);
  for (uint32_t i = 0; i < d; i++)
    items[i].index = order[items[i].index];
  for (uint32_t i = 0; i < d; i++)
    order[i] = items[i].index;
  fli_free(choice->context, items, n * sizeof *items);
  return FL_OK;
}

/* ---- Oort ---- */

double fli_utility(uint64_t samples, float loss)
{
  return (double)samples * fabs((double)loss);
}

typedef struct oort {
  fli_choice *choice;
  fli_rng rng;
  ranked *seen; /* those whose loss is known */
  ranked *fresh;
  uint32_t n_seen, n_fresh;
  double *scores; /* of all */
} oort;

/* The q-th of n sorted values. */
static double quantile(const ranked *sorted, uint32_t n, float q)
{
  return sorted[(uint32_t)((double)q * (double)(n - 1))].key;
}

/* Clients whose loss is known by utility; the others, those who were never
 * asked first, in any order. */
static void divide(oort *self)
{
  const fl_selection_round *round = self->choice->round;
  for (uint32_t i = 0; i < round->count; i++) {
    const int is_seen = !isnan(round->losses[i]) && round->rounds[i] > 0;
    ranked *item =
        is_seen ? &self->seen[self->n_seen++] : &self->fresh[self->n_fresh++];
    item->index = i;
    item->key = is_seen ? fli_utility(round->samples[i], round->losses[i])
                        : uniform(&self->rng) + (round->rounds[i] > 0);
  }
  sort(self->seen, self->n_seen);
  sort(self->fresh, self->n_fresh);
}

/* 0 = nobody's duration is known. `scratch` has room for all. */
static double find_pace(const oort *self, ranked *scratch)
{
  const fl_selection_round *round = self->choice->round;
  uint32_t n = 0;
  for (uint32_t i = 0; i < self->n_seen; i++) {
    const float seconds = round->seconds[self->seen[i].index];
    if (isnan(seconds)) continue;
    scratch[n] = (ranked){(double)seconds, n};
    n++;
  }
  sort(scratch, n);
  return n > 0 ? quantile(scratch, n, self->choice->pace) : 0.0;
}

/* Utility is clipped, put in 0..1, and added to what has not been seen for
 * long; who is slow counts less. */
static void score(oort *self, ranked *scratch)
{
  fli_choice *choice = self->choice;
  const fl_selection_round *round = choice->round;
  const uint32_t m = self->n_seen;
  if (m == 0) return;
  const double clip = quantile(self->seen, m, choice->options->clip_quantile);
  const double least = self->seen[0].key;
  const double range = clip - least > 1e-4 ? clip - least : 1e-4;
  const double age = 0.1 * fli_ln((double)round->round);
  const double pace = find_pace(self, scratch);
  for (uint32_t i = 0; i < m; i++) {
    const uint32_t k = self->seen[i].index;
    const double utility = self->seen[i].key < clip ? self->seen[i].key : clip;
    const double seconds = (double)round->seconds[k];
    double q = (utility - least) / range + sqrt(age / (double)round->rounds[k]);
    if (seconds > pace && pace > 0.0) q *= (pace / seconds) * (pace / seconds);
    self->scores[k] = q;
  }
  for (uint32_t i = 0; i < m; i++)
    self->seen[i].key = -self->scores[self->seen[i].index];
  sort(self->seen, m);
  choice->clip = clip;
}

static double exploring(const fli_choice *choice)
{
  const fl_selection_options *o = choice->options;
  const double rounds = (double)(choice->round->round - 1);
  const double share =
      (double)o->explore * fli_exp(rounds * fli_ln((double)o->explore_decay));
  return share > (double)o->explore_least ? share : (double)o->explore_least;
}

static uint32_t at_most(uint32_t a, uint32_t b)
{
  return a < b ? a : b;
}

/* Of `n` wanted ones, draw among the best by score. What is left over stays in
 * its order behind them. */
static void draw_seen(oort *self, uint32_t n)
{
  ranked *seen = self->seen;
  uint32_t near_ = 0;
  if (n == 0) return;
  const double cutoff = CUTOFF * -seen[n - 1].key;
  while (near_ < self->n_seen && -seen[near_].key >= cutoff)
    near_++;
  for (uint32_t i = 0; i < near_; i++)
    seen[i].key = weighted_key(&self->rng, -seen[i].key);
  sort(seen, near_);
}

static void fill_order(oort *self, uint32_t *order)
{
  const uint32_t wanted = self->choice->round->wanted;
  const double share = exploring(self->choice) * (double)wanted;
  uint32_t n_fresh = at_most((uint32_t)(share + 0.5), self->n_fresh);
  const uint32_t n_seen =
      at_most(wanted - at_most(n_fresh, wanted), self->n_seen);
  uint32_t at = 0;
  n_fresh = wanted - n_seen;
  draw_seen(self, n_seen);
  for (uint32_t i = 0; i < n_seen; i++)
    order[at++] = self->seen[i].index;
  for (uint32_t i = 0; i < n_fresh; i++)
    order[at++] = self->fresh[i].index;
  for (uint32_t i = n_seen; i < self->n_seen; i++)
    order[at++] = self->seen[i].index;
  for (uint32_t i = n_fresh; i < self->n_fresh; i++)
    order[at++] = self->fresh[i].index;
}

fl_status fli_choose_by_oort(fli_choice *choice, uint32_t *order)
{
  const uint32_t n = choice->round->count;
  fl_context *context = choice->context;
  fl_status st = FL_OK;
  oort self = {.choice = choice};
  ranked *scratch = fli_alloc(context, n, sizeof *scratch);
  self.seen = fli_alloc(context, n, sizeof *self.seen);
  self.fresh = fli_alloc(context, n, sizeof *self.fresh);
  self.scores = fli_alloc(context, n, sizeof *self.scores);
  if (!scratch || !self.seen || !self.fresh || !self.scores)
    FLI_TRY(fli_nomem(n * sizeof *scratch));
  begin(&self.rng, choice);
  divide(&self);
  score(&self, scratch);
  fill_order(&self, order);
out:
  fli_free(context, scratch, n * sizeof *scratch);
  fli_free(context, self.seen, n * sizeof *self.seen);
  fli_free(context, self.fresh, n * sizeof *self.fresh);
  fli_free(context, self.scores, n * sizeof *self.scores);
  return st;
}
