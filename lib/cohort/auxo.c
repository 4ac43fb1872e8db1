/* SPDX-License-Identifier: Apache-2.0 */
/* Auxo's rule (Liu et al., SoCC 2023, section 4), written after its published
 * example, with what does not work there mended: clients have slots, not places
 * in a list; exploration decays once per round; the gate of sizes counts
 * clients; affinity forgets, so that who moves is let go; a half that is known
 * can be revised; features are made unit vectors first, so that large updates
 * are not far away. With `is_published` the last three are as they were. */
#include "cohort/cohort.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

enum { STARTS = 4, GATE_CLIENTS = 10, GATE_HALF = 20, REACH = 5 };

#define DECAY .99
#define LEAST_EXPLORATION 1e-4
#define KEEP .95        /* of the affinity, a time it is seen */
#define MOST_VOTES 6.0f /* a half is revised after so many against it */

/* Of one round: rows are features minus their mean, and those of length 1. */
typedef struct work {
  float *unit;
  float *known; /* a copy of some */
  float *mean;
  float *length; /* [n] before they were made units */
  uint8_t *labels;
  double *distances;
  float *centroids;
  void *halves;
  uint32_t n;
  size_t dim;
} work;

static fli_affinity *at(const fl_cohort_set *set, uint32_t slot, uint32_t leaf)
{
  return &set->affinities[(size_t)slot * set->options.cap + leaf];
}

/* ---- room ---------------------------------------------------------------- */

fl_status fli_auxo_room(fl_cohort_set *set, size_t clients)
{
  const size_t cap = set->options.cap, old = set->capacity;
  if (set->options.rule != FL_COHORT_AUXO) return FL_OK;
  fli_affinity *affinities =
      fli_alloc(set->context, clients, cap * sizeof *affinities);
  uint8_t *assigned = fli_alloc(set->context, clients, 1);
  if (!affinities || !assigned) {
    if (affinities)
      fli_free(set->context, affinities, clients * cap * sizeof *affinities);
    if (assigned) fli_free(set->context, assigned, clients);
    return fli_nomem(clients * cap * sizeof *affinities);
  }
  if (old > 0) {
    memcpy(affinities, set->affinities,
           set->n_slots * cap * sizeof *affinities);
    memcpy(assigned, set->assigned, set->n_slots);
    fli_free(set->context, set->affinities, old * cap * sizeof *affinities);
    fli_free(set->context, set->assigned, old);
  }
  set->affinities = affinities;
  set->assigned = assigned;
  return FL_OK;
}

void fli_auxo_join(fl_cohort_set *set, uint32_t slot)
{
  if (set->options.rule != FL_COHORT_AUXO) return;
  for (uint32_t i = 0; i < set->options.cap; i++)
    *at(set, slot, i) = (fli_affinity){.r = i == 0 ? 1.0 : -INFINITY};
  set->assigned[slot] = set->members[slot].leaf;
}

static size_t work_size(size_t n, size_t dim)
{
  return n * sizeof(double) + (2 * n * dim + n + 3 * dim) * sizeof(float) + n +
         fli_halves_scratch((uint32_t)n, dim);
}

static void lay_out(work *w, void *memory, uint32_t n, size_t dim)
{
  w->n = n;
  w->dim = dim;
  w->distances = memory;
  w->unit = (float *)(void *)(w->distances + n);
  w->known = w->unit + n * dim;
  w->length = w->known + n * dim;
  w->mean = w->length + n;
  w->centroids = w->mean + dim;
  w->halves = w->centroids + 2 * dim;
  w->labels = (uint8_t *)w->halves + fli_halves_scratch(n, dim);
}

/* ---- halves -------------------------------------------------------------- */

enum { HALF_UNKNOWN = 2 };

static uint8_t half_of(const fli_affinity *a)
{
  if (a->s == 0.0f || a->r < 0.0) return HALF_UNKNOWN;
  return a->s < 0.0f;
}

static int is_known(const fli_affinity *a)
{
  return a->times > 0 && a->r > 1.0;
}

static uint32_t slot_of(const fli_leaf *leaf, uint32_t k)
{
  return ((const fli_pending *)leaf->pending.items)[k].slot;
}

static void mark(const fl_cohort_set *set, uint32_t slot, uint32_t leaf,
                 uint8_t half)
{
  fli_affinity *a = at(set, slot, leaf);
  a->s += half == 0 ? 2.0f : -2.0f;
  if (!set->options.is_published)
    a->s = fmaxf(fminf(a->s, MOST_VOTES), -MOST_VOTES);
  a->times++;
}

/* The first time: two means, over who is known to belong here. */
static void find_first(fl_cohort_set *set, uint32_t index, work *w)
{
  fli_leaf *leaf = &set->leaves[index];
  const size_t bytes = w->dim * sizeof *w->unit;
  uint32_t n = 0;
  uint32_t *slots = (uint32_t *)(void *)w->distances;
  float *rows = w->known;
  for (uint32_t k = 0; k < w->n; k++) {
    uint32_t slot = slot_of(leaf, k);
    if (set->n_alive > 1 && !is_known(at(set, slot, index))) continue;
    memcpy(rows + n * w->dim, w->unit + k * w->dim, bytes);
    slots[n++] = slot;
  }
  if (n < 2) return;
  const fli_rows known = {rows, n, w->dim};
  fli_find_halves(&known, STARTS, &set->rng, w->centroids, w->labels,
                  w->halves);
  for (uint32_t i = 0; i < n; i++)
    mark(set, slots[i], index, w->labels[i] == 1);
  leaf->has_halves = 1;
}

/* The nearest of those that have a label, but itself; w->n if there is none. */
static uint32_t nearest(const work *w, uint32_t to)
{
  uint32_t best = w->n;
  float least = INFINITY;
  for (uint32_t k = 0; k < w->n; k++) {
    if (k == to || w->labels[k] == HALF_UNKNOWN) continue;
    float d =
        fli_distance2(w->unit + k * w->dim, w->unit + to * w->dim, w->dim);
    if (d >= least) continue;
    least = d;
    best = k;
  }
  return best;
}

/* Only one half is there: the quarter that is nearest to its first client. */
static void spread_one(fl_cohort_set *set, uint32_t index, work *w,
                       uint32_t first)
{
  const fli_leaf *leaf = &set->leaves[index];
  const uint8_t half = w->labels[first];
  for (uint32_t k = 0; k < w->n; k++) {
    w->distances[k] = (double)fli_distance2(w->unit + k * w->dim,
                                            w->unit + first * w->dim, w->dim);
  }
  for (uint32_t i = 0; i < w->n / 4; i++) {
    uint32_t best = 0;
    for (uint32_t k = 1; k < w->n; k++) {
      if (w->distances[k] < w->distances[best]) best = k;
    }
    w->distances[best] = INFINITY;
    mark(set, slot_of(leaf, best), index, half);
  }
}

static void find_next(fl_cohort_set *set, uint32_t index, work *w)
{
  const fli_leaf *leaf = &set->leaves[index];
  uint32_t counts[3] = {0}, first = w->n;
  for (uint32_t k = 0; k < w->n; k++) {
    w->labels[k] = half_of(at(set, slot_of(leaf, k), index));
    counts[w->labels[k]]++;
    if (w->labels[k] != HALF_UNKNOWN && first == w->n) first = k;
  }
  if (first == w->n) return;
  if (counts[0] == 0 || counts[1] == 0) {
    spread_one(set, index, w, first);
    return;
  }
  for (uint32_t k = 0; k < w->n; k++) {
    if (set->options.is_published && w->labels[k] != HALF_UNKNOWN) continue;
    uint32_t other = nearest(w, k);
    if (other < w->n) mark(set, slot_of(leaf, k), index, w->labels[other]);
  }
}

/* ---- affinity ------------------------------------------------------------ */

/* Distances of features from the mean of the known. 0: fewer than two are. */
static uint32_t measure(const fl_cohort_set *set, uint32_t index, work *w)
{
  const fli_leaf *leaf = &set->leaves[index];
  uint32_t known = 0;
  memset(w->mean, 0, w->dim * sizeof *w->mean);
  for (uint32_t k = 0; k < w->n; k++) {
    if (!is_known(at(set, slot_of(leaf, k), index))) continue;
    for (size_t j = 0; j < w->dim; j++)
      w->mean[j] += w->length[k] * w->unit[k * w->dim + j];
    known++;
  }
  if (known < 2) return 0;
  for (size_t j = 0; j < w->dim; j++)
    w->mean[j] /= (float)known;
  const double square = (double)fli_dot(w->mean, w->mean, w->dim);
  for (uint32_t k = 0; k < w->n; k++) {
    const double length = (double)w->length[k];
    const double dot =
        length * (double)fli_dot(w->unit + k * w->dim, w->mean, w->dim);
    w->distances[k] = sqrt(fmax(length * length - 2.0 * dot + square, 0.0));
  }
  return known;
}

static int learn_affinity(fl_cohort_set *set, uint32_t index, work *w)
{
  const fli_leaf *leaf = &set->leaves[index];
  double sum = 0.0, squares = 0.0;
  uint32_t known = measure(set, index, w);
  if (known == 0) return 0;
  for (uint32_t k = 0; k < w->n; k++)
    sum += w->distances[k];
  const double mean = sum / w->n;
  for (uint32_t k = 0; k < w->n; k++)
    squares += (w->distances[k] - mean) * (w->distances[k] - mean);
  const double reach = mean + sqrt(squares / w->n);
  for (uint32_t k = 0; k < w->n; k++) {
    fli_affinity *a = at(set, slot_of(leaf, k), index);
    double x = REACH - REACH * w->distances[k] / fmax(reach, 1e-12);
    x *= (double)known / w->n;
    if (!set->options.is_published) a->r *= KEEP;
    a->r += x;
    if (x < 0.0) {
      a->s = 0.0f;
      a->times = 0;
    }
    a->times++;
  }
  return 1;
}

/* ---- splits and choices -------------------------------------------------- */

static int is_planned(const fl_cohort_set *set, uint32_t epoch)
{
  for (uint32_t i = 0; i < set->options.n_splits; i++) {
    if (set->splits[i] == epoch) return 1;
  }
  return 0;
}

static int may_split(const fl_cohort_set *set, uint32_t index)
{
  const uint32_t n = set->n_clients;
  uint64_t members = 0, counts[3] = {0};
  if (set->n_alive >= set->options.cap) return 0;
  if (set->options.n_splits > 0)
    return is_planned(set, set->leaves[index].epoch);
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    if (!fli_member_is(&set->members[slot], FLI_MEMBER_HERE)) continue;
    if (set->assigned[slot] != index) continue;
    members++;
    counts[half_of(at(set, slot, index))]++;
  }
  if (members < n / GATE_CLIENTS) return 0;
  double need = (double)n / GATE_HALF;
  for (uint32_t i = 1; i < set->n_alive; i++)
    need *= .9;
  if ((double)counts[0] <= need || (double)counts[1] <= need) return 0;
  double ratio = (double)counts[0] / (double)counts[1];
  return set->n_alive == 1 || (ratio > .5 && ratio < 2.0);
}

static void split(fl_cohort_set *set, uint32_t index)
{
  fli_leaf *leaf = &set->leaves[index];
  const uint32_t child = fli_first_dead(set);
  fli_leaf_begin(set, child, leaf->round);
  set->leaves[child].epoch = leaf->epoch;
  leaf->has_halves = 0;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    fli_affinity *a = at(set, slot, index), *b = at(set, slot, child);
    const int first = a->s > 0.0f, second = a->s < 0.0f;
    b->r = a->r + second;
    a->r += first;
    b->times = second ? a->times : 0;
    a->times = first ? a->times : 0;
    a->s = b->s = 0.0f;
  }
  fl_cohort_event *event = fli_cohort_emit(set, FL_COHORT_SPLIT, leaf->round);
  event->cohort = index;
  event->child = child;
  set->splits_made++;
}

static uint8_t choice_of(const fl_cohort_set *set, uint32_t slot,
                         int *is_known_somewhere)
{
  uint32_t best = 0;
  *is_known_somewhere = 0;
  for (uint32_t i = 0; i < set->n_alive; i++) {
    if (at(set, slot, i)->times > 0) *is_known_somewhere = 1;
    if (at(set, slot, i)->r > at(set, slot, best)->r) best = i;
  }
  return (uint8_t)best;
}

/* Where each client belongs now, or, by chance or because nothing is known,
 * would be tried. Leaves never end under this rule: those alive are the first.
 */
static void choose(fl_cohort_set *set)
{
  set->exploration *= DECAY;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    int known;
    if (!fli_member_is(&set->members[slot], FLI_MEMBER_HERE)) continue;
    uint8_t best = choice_of(set, slot, &known);
    if (!known || (set->exploration > LEAST_EXPLORATION &&
                   fli_split_unit(&set->rng) < set->exploration)) {
      best = (uint8_t)fli_split_below(&set->rng, set->n_alive);
    }
    set->assigned[slot] = best;
  }
}

static void learn(fl_cohort_set *set, uint32_t index, work *w)
{
  fli_leaf *leaf = &set->leaves[index];
  const uint32_t last =
      set->options.n_splits > 0 ? set->splits[set->options.n_splits - 1] : 0;
  leaf->epoch++;
  if (!leaf->has_halves) {
    find_first(set, index, w);
  } else if (last == 0 || leaf->epoch <= last + 1) {
    find_next(set, index, w);
  }
  if (set->n_alive > 1 && !learn_affinity(set, index, w)) return;
  int is_split = may_split(set, index);
  if (is_split) split(set, index);
  choose(set);
  for (uint32_t k = 0; k < w->n; k++) {
    uint32_t slot = slot_of(leaf, k);
    set->members[slot].leaf = set->assigned[slot];
  }
  if (!is_split) return;
  for (uint32_t slot = 0; slot < set->n_slots; slot++)
    set->members[slot].leaf = set->assigned[slot];
  fli_event_weigh(
      set,
      &set->events[(set->first_event + set->n_events - 1) % FLI_COHORT_EVENTS]);
}

/* Rows become features minus their mean, of length 1; their lengths before. */
static void take_features(const fl_cohort_set *set, const float *features,
                          work *w)
{
  const size_t dim = w->dim;
  memcpy(w->known, features, w->n * dim * sizeof *features);
  for (uint32_t k = 0; k < w->n && !set->options.is_published; k++) {
    float *row = w->known + k * dim;
    double squares = 0.0;
    for (size_t j = 0; j < dim; j++)
      squares += (double)row[j] * (double)row[j];
    for (size_t j = 0; j < dim; j++)
      row[j] = (float)((double)row[j] / sqrt(squares));
  }
  memcpy(w->unit, w->known, w->n * dim * sizeof *features);
  fli_centre_rows(w->unit, w->n, dim, w->mean);
  for (uint32_t k = 0; k < w->n; k++) {
    double squares = 0.0;
    for (size_t j = 0; j < dim; j++) {
      double v = (double)(w->known[k * dim + j] - w->mean[j]);
      squares += v * v;
    }
    w->length[k] = (float)sqrt(squares);
  }
}

size_t fli_auxo_scratch(const fl_cohort_set *set, uint32_t index)
{
  const size_t n = set->leaves[index].sketches.n;
  if (n < set->options.min_participants) return 0;
  return work_size(n, set->options.dim);
}

void fli_auxo_decide(fl_cohort_set *set, uint32_t index, void *scratch)
{
  const fli_leaf *leaf = &set->leaves[index];
  work w = {0};
  if (fli_auxo_scratch(set, index) == 0) return;
  lay_out(&w, scratch, (uint32_t)leaf->sketches.n, set->options.dim);
  take_features(set, leaf->sketches.items, &w);
  learn(set, index, &w);
}
