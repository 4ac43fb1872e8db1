/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a cohort's round: what its losses and sketches teach. Nothing of
 * other cohorts is touched. */
#include "cohort/cohort.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

#define KEEP_LOSS .8
#define KEEP_SCORE .7f
#define CUT 10.0 /* median distances */
#define RATE_OF_ONE .02f
#define RATE_MOST .5f

enum { CUT_LEAST = 3 };

/* Memory of one round. */
typedef struct work {
  float *rows; /* [n, dim] */
  float *mean;
  float *direction;
  double *losses; /* [2, pending] */
  uint32_t n;     /* sketches */
} work;

/* ---- losses -------------------------------------------------------------- */

static double variance_of(const double *values, uint32_t n)
{
  double sum = 0.0, squares = 0.0;
  for (uint32_t i = 0; i < n; i++)
    sum += values[i];
  for (uint32_t i = 0; i < n; i++)
    squares += (values[i] - sum / n) * (values[i] - sum / n);
  return squares / n;
}

/* One client's huge loss must not make the deviation so large that no spike is
 * one: what is above the median by ten times the median distance from it counts
 * as just there. `losses` and `distances` are n each; sorts both. */
static void cut_losses(double *losses, double *distances, uint32_t n)
{
  const double median = fli_median_of(losses, n);
  for (uint32_t i = 0; i < n; i++)
    distances[i] = fabs(losses[i] - median);
  const double most = median + CUT * fli_median_of(distances, n);
  for (uint32_t i = 0; i < n; i++)
    losses[i] = fmin(losses[i], most);
}

/* Those who compared and found nothing better than a loss above the limit say
 * nothing of the cohort. */
static void learn_losses(const fl_cohort_set *set, fli_leaf *leaf,
                         double *losses)
{
  const fli_pending *items = leaf->pending.items;
  double limit = set->options.asks_first ? fli_leaf_limit(set, leaf) : INFINITY;
  uint32_t n = 0;
  for (size_t i = 0; i < leaf->pending.n; i++) {
    if (items[i].loss <= limit) losses[n++] = items[i].loss;
  }
  if (n == 0) return;
  if (n >= CUT_LEAST) cut_losses(losses, losses + leaf->pending.n, n);
  double variance = variance_of(losses, n), median = fli_median_of(losses, n);
  if (leaf->loss < 0.0) {
    leaf->loss = median;
    leaf->variance = variance;
    return;
  }
  leaf->loss = KEEP_LOSS * leaf->loss + (1.0 - KEEP_LOSS) * median;
  leaf->variance = KEEP_LOSS * leaf->variance + (1.0 - KEEP_LOSS) * variance;
}

/* ---- sketches ------------------------------------------------------------ */

static void unpack(const fl_cohort_set *set, const fli_leaf *leaf, work *w)
{
  const size_t dim = set->options.dim;
  const uint8_t *sketches = leaf->sketches.items;
  for (uint32_t k = 0; k < w->n; k++)
    fli_unpack_sketch(w->rows + k * dim, sketches + k * (dim / 2), dim);
  fli_centre_rows(w->rows, w->n, dim, w->mean);
}

static void keep_row(fli_leaf *leaf, const float *row, size_t dim)
{
  size_t at = (leaf->first_row + leaf->n_buffer) % FLI_COHORT_BUFFER;
  memcpy(leaf->buffer + at * dim, row, dim * sizeof *row);
  if (leaf->n_buffer < FLI_COHORT_BUFFER) {
    leaf->n_buffer++;
  } else {
    leaf->first_row = (leaf->first_row + 1) % FLI_COHORT_BUFFER;
  }
}

static void keep_vote(fli_leaf *leaf, const fli_vote *vote)
{
  uint32_t at = (leaf->first_vote + leaf->n_votes) % FLI_COHORT_VOTES;
  leaf->votes[at] = *vote;
  if (leaf->n_votes < FLI_COHORT_VOTES) {
    leaf->n_votes++;
  } else {
    leaf->first_vote = (leaf->first_vote + 1) % FLI_COHORT_VOTES;
  }
}

/* Towards the mean of the rows that count and voted for it, by a share that
 * grows with their number. */
static void move_centroid(const fl_cohort_set *set, fli_leaf *leaf, work *w,
                          int half)
{
  const size_t dim = set->options.dim;
  const fli_pending *items = leaf->pending.items;
  float *centroid = leaf->centroids + (size_t)half * dim;
  uint32_t count = 0;
  memset(w->mean, 0, dim * sizeof *w->mean);
  for (size_t i = 0, k = 0; i < leaf->pending.n; i++) {
    if (!items[i].has_sketch) continue;
    const float *row = w->rows + k++ * dim;
    if (!items[i].is_sure || items[i].half != half) continue;
    for (size_t j = 0; j < dim; j++)
      w->mean[j] += row[j];
    count++;
  }
  if (count == 0) return;
  float rate = fminf(RATE_OF_ONE * (float)count, RATE_MOST);
  for (size_t j = 0; j < dim; j++) {
    centroid[j] =
        (1.0f - rate) * centroid[j] + rate * (w->mean[j] / (float)count);
  }
}

static void vote(fl_cohort_set *set, fli_leaf *leaf, work *w)
{
  const size_t dim = set->options.dim;
  const float *a = leaf->centroids, *b = a + dim;
  fli_pending *items = leaf->pending.items;
  for (size_t j = 0; j < dim; j++)
    w->direction[j] = b[j] - a[j];
  float middle = .5f * (fli_dot(b, b, dim) - fli_dot(a, a, dim));
  float length = sqrtf(fli_dot(w->direction, w->direction, dim)) + 1e-12f;
  for (size_t i = 0, k = 0; i < leaf->pending.n; i++) {
    if (!items[i].has_sketch) continue;
    const float *row = w->rows + k++ * dim;
    float x = (fli_dot(row, w->direction, dim) - middle) / length;
    fli_member *member = &set->members[items[i].slot];
    fli_vote v = {x, member->score > 0, x > 0.0f};
    int seen = fli_member_seen(member);
    if (seen > 0) keep_vote(leaf, &v);
    items[i].half = v.now;
    member->score =
        (int8_t)((int)rintf(KEEP_SCORE * (float)member->score) +
                 (v.now ? FLI_COHORT_SCORE_ONE : -FLI_COHORT_SCORE_ONE));
    if (seen < FLI_COHORT_SEEN_MOST)
      member->bits = (uint8_t)(member->bits + (1 << FLI_MEMBER_SEEN_AT));
  }
  move_centroid(set, leaf, w, 0);
  move_centroid(set, leaf, w, 1);
}

/* Cohen's kappa of the votes with the signs before, and the gap. */
static void judge_votes(fli_leaf *leaf, uint32_t evidence)
{
  double xs[FLI_COHORT_VOTES];
  double agreed = 0.0, before = 0.0, now = 0.0;
  const uint32_t n = leaf->n_votes;
  leaf->agreement = leaf->gap = NAN;
  if (n < evidence) return;
  for (uint32_t i = 0; i < n; i++) {
    const fli_vote *v = &leaf->votes[(leaf->first_vote + i) % FLI_COHORT_VOTES];
    xs[i] = (double)v->x;
    agreed += v->before == v->now;
    before += v->before;
    now += v->now;
  }
  agreed /= n;
  before /= n;
  now /= n;
  double chance = before * now + (1.0 - before) * (1.0 - now);
  leaf->agreement = (float)((agreed - chance) / (1.0 - chance + 1e-9));
  leaf->gap = (float)fli_gap_of(xs, n);
}

static void learn_sketches(fl_cohort_set *set, uint32_t index, uint32_t round,
                           work *w)
{
  const fl_cohort_options *o = &set->options;
  fli_leaf *leaf = &set->leaves[index];
  const fli_pending *items = leaf->pending.items;
  int is_on_trial = fli_trial_of(set, index) != NULL;
  leaf->wants_seed = leaf->proposes = 0;
  if (w->n < o->min_participants || round < leaf->wait) return;
  unpack(set, leaf, w);
  for (size_t i = 0, k = 0; i < leaf->pending.n; i++) {
    if (!items[i].has_sketch) continue;
    if (items[i].is_sure) keep_row(leaf, w->rows + k * o->dim, o->dim);
    k++;
  }
  if (leaf->has_centroids && round - leaf->seeded >= o->reseed &&
      !is_on_trial) {
    leaf->wants_seed = 1;
  }
  if (!leaf->has_centroids && leaf->n_buffer >= FLI_COHORT_SEED)
    leaf->wants_seed = 1;
  if (leaf->wants_seed || !leaf->has_centroids) return;
  vote(set, leaf, w);
  judge_votes(leaf, o->evidence);
  leaf->proposes =
      !is_on_trial && leaf->agreement > o->agreement && leaf->gap > o->gap;
}

/* ---- the end of the round ------------------------------------------------ */

static fl_status find_room(fl_cohort_set *set, fli_leaf *leaf, work *w)
{
  const size_t dim =
      set->options.rule == FL_COHORT_SKETCH ? set->options.dim : 0;
  const size_t n_losses = leaf->pending.n;
  size_t floats = dim > 0 ? (leaf->sketches.n + 2) * dim : 0;
  fl_status st = FL_OK;
  w->n = dim > 0 ? (uint32_t)leaf->sketches.n : 0;
  if (n_losses == 0) return FL_OK;
  /* doubles first, then floats */
  st = fli_list_room(set->context, &leaf->scratch,
                     2 * n_losses + (floats + 1) / 2, sizeof(double));
  if (st == FL_OK && w->n > 0) st = fli_leaf_room(set, leaf);
  if (st != FL_OK) return st;
  w->losses = leaf->scratch.items;
  w->rows = (float *)(void *)(w->losses + 2 * n_losses);
  w->mean = w->rows + w->n * dim;
  w->direction = w->mean + dim;
  return FL_OK;
}

static fl_status check_end(const fl_cohort_set *set, uint32_t cohort,
                           uint32_t round)
{
  if (!fli_leaf_is_alive(set, cohort)) {
    return fli_error(FL_E_NOT_FOUND, "cohorts: there is no cohort %u",
                     (unsigned)cohort);
  }
  const fli_leaf *leaf = &set->leaves[cohort];
  if (leaf->has_ended)
    return fli_error(FL_E_STATE, "cohorts: cohort %u, decide first",
                     (unsigned)cohort);
  if (round <= leaf->round || (leaf->open && leaf->open != round)) {
    return fli_error(FL_E_STALE, "cohorts: round, got %u, cohort %u is in %u",
                     (unsigned)round, (unsigned)cohort,
                     (unsigned)(leaf->open ? leaf->open : leaf->round + 1));
  }
  return FL_OK;
}

fl_status fl_cohort_set_end_round(fl_cohort_set *set, uint32_t cohort,
                                  uint32_t round)
{
  work w = {0};
  fli_fpguard guard;
  fli_clear_error();
  if (!set || round > INT32_MAX)
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL, or round above 2^31");
  fl_status st = check_end(set, cohort, round);
  if (st != FL_OK) return st;
  fli_leaf *leaf = &set->leaves[cohort];
  st = find_room(set, leaf, &w);
  if (st != FL_OK) return st;
  fli_fpguard_enter(&guard);
  if (leaf->open) leaf->age++;
  if (w.losses) learn_losses(set, leaf, w.losses);
  if (set->options.rule == FL_COHORT_SKETCH)
    learn_sketches(set, cohort, round, &w);
  fli_fpguard_leave(&guard);
  leaf->round = round;
  leaf->has_ended = 1;
  return FL_OK;
}
