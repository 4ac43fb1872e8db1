/* SPDX-License-Identifier: Apache-2.0 */
/* What clients' comparisons decide: whether both halves of a split stay, and
 * which cohorts are one. */
#include "cohort/cohort.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
  TRIAL_LEAST = 10, /* comparisons: fewer prove nothing */
  TRIAL_LONGEST = 3,
  HOME_LEAST = 5 /* comparisons of a half that may move */
};

#define HOME_SHARE .5
#define LUMP_AGAIN .9f /* wanted at a second look */

/* ---- gathering ----------------------------------------------------------- */

void fli_trial_gather(fl_cohort_set *set, uint32_t index)
{
  const fli_leaf *leaf = &set->leaves[index];
  const fli_pending *items = leaf->pending.items;
  fli_trial *trial = fli_trial_of(set, index);
  if (!trial) return;
  for (size_t i = 0; i < leaf->pending.n; i++) {
    if (!items[i].is_on_trial || trial->n >= set->options.trial_most) continue;
    trial->ratio[trial->n] = items[i].ratio;
    trial->side[trial->n] = index == trial->child;
    trial->third[trial->n++] = items[i].third;
  }
}

static fli_pair *pair_of(fl_cohort_set *set, uint32_t a, uint32_t b)
{
  uint32_t low = a < b ? a : b, high = a < b ? b : a;
  return &set->pairs[low * set->options.cap + high];
}

void fli_pairs_gather(fl_cohort_set *set, uint32_t index)
{
  const fli_list *list = &set->leaves[index].ratios;
  const fli_ratio *items = list->items;
  for (size_t i = 0; i < list->n; i++) {
    if (!set->leaves[items[i].other].is_alive) continue;
    fli_pair *pair = pair_of(set, index, items[i].other);
    pair->values[pair->n % FLI_COHORT_PAIR] = items[i].value;
    pair->n++;
    if (pair->n >= 2 * FLI_COHORT_PAIR) pair->n -= FLI_COHORT_PAIR;
  }
}

/* ---- leaves that end ----------------------------------------------------- */

static void forget_pairs(fl_cohort_set *set, uint32_t leaf)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (i != leaf) pair_of(set, leaf, i)->n = 0;
  }
}

static void forget_ratios(fli_leaf *leaf, uint32_t gone)
{
  fli_ratio *items = leaf->ratios.items;
  size_t kept = 0;
  for (size_t i = 0; i < leaf->ratios.n; i++) {
    if (items[i].other != gone) items[kept++] = items[i];
  }
  leaf->ratios.n = kept;
}

/* Its number will be another cohort's: nothing may speak of it any more, not
 * even in rounds that have not ended. */
static void forget_leaf(fl_cohort_set *set, uint32_t gone)
{
  forget_pairs(set, gone);
  for (uint32_t t = 0; t < set->n_trials; t++) {
    fli_trial *trial = &set->trials[t];
    for (uint32_t i = 0; i < trial->n; i++) {
      if (trial->third[i] == gone) trial->third[i] = FLI_COHORT_NO_LEAF;
    }
  }
  for (uint32_t k = 0; k < set->options.cap; k++) {
    fli_leaf *leaf = &set->leaves[k];
    fli_pending *items = leaf->pending.items;
    forget_ratios(leaf, gone);
    for (size_t i = 0; i < leaf->pending.n; i++) {
      if (items[i].third == gone) items[i].third = FLI_COHORT_NO_LEAF;
    }
  }
}

static uint64_t count_members(const fl_cohort_set *set, uint32_t leaf)
{
  uint64_t n = 0;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    const fli_member *m = &set->members[slot];
    n += m->leaf == leaf && fli_member_is(m, FLI_MEMBER_HERE);
  }
  return n;
}

void fli_event_weigh(const fl_cohort_set *set, fl_cohort_event *event)
{
  event->weight = count_members(set, event->cohort);
  event->child_weight = count_members(set, event->child);
}

static void remove_trial(fl_cohort_set *set, const fli_trial *trial)
{
  size_t at = (size_t)(trial - set->trials);
  set->n_trials--;
  memmove(&set->trials[at], &set->trials[at + 1],
          (set->n_trials - at) * sizeof *trial);
}

static void remove_trials_of(fl_cohort_set *set, uint32_t leaf)
{
  fli_trial *trial = fli_trial_of(set, leaf);
  if (trial) remove_trial(set, trial);
}

static int is_either(uint32_t leaf, uint32_t a, uint32_t b)
{
  return leaf == a || leaf == b;
}

/* All members of both are `kept`'s. Those who were undecided between the two
 * know where they belong, those between one and a third compare all. */
static void join_members(fl_cohort_set *set, uint32_t kept, uint32_t gone,
                         uint64_t counts[2])
{
  counts[0] = counts[1] = 0;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    fli_member *m = &set->members[slot];
    if (!fli_member_is(m, FLI_MEMBER_HERE)) continue;
    int is_in = is_either(m->leaf, kept, gone);
    int is_between = m->other != FLI_COHORT_NO_LEAF &&
                     (is_in || is_either(m->other, kept, gone));
    if (is_between) {
      if (is_in && is_either(m->other, kept, gone))
        fli_member_set(m, FLI_MEMBER_UNKNOWN, 0);
      m->other = FLI_COHORT_NO_LEAF;
    }
    if (!is_in) continue;
    counts[m->leaf == gone]++;
    m->leaf = (uint8_t)kept;
    fli_member_set(m, FLI_MEMBER_FRESH, 0);
    fli_member_reset(m);
  }
}

static fl_cohort_event *join_leaves(fl_cohort_set *set, uint32_t kept,
                                    uint32_t gone, uint32_t kind,
                                    uint32_t round)
{
  fli_leaf *leaf = &set->leaves[kept];
  uint64_t counts[2];
  join_members(set, kept, gone, counts);
  fl_cohort_event *event = fli_cohort_emit(set, kind, round);
  event->cohort = kept;
  event->child = gone;
  event->weight = counts[0];
  event->child_weight = counts[1];
  uint32_t back = leaf->back;
  fli_leaf_renew(leaf, leaf->round, round + back,
                 2 * back > FLI_COHORT_BACK_MOST ? back : 2 * back);
  fli_leaf_end(set, gone);
  remove_trials_of(set, kept);
  remove_trials_of(set, gone);
  forget_pairs(set, kept);
  forget_leaf(set, gone);
  set->splits_made++;
  return event;
}

/* Members of `half` are asked again, beginning with `home`. */
static void move_half(fl_cohort_set *set, uint32_t half, uint32_t home,
                      uint32_t round)
{
  fl_cohort_event *event = fli_cohort_emit(set, FL_COHORT_MOVED, round);
  event->cohort = home;
  event->child = half;
  fli_event_weigh(set, event);
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    fli_member *m = &set->members[slot];
    if (!fli_member_is(m, FLI_MEMBER_HERE)) continue;
    if (m->other == half) m->other = FLI_COHORT_NO_LEAF;
    if (m->leaf != half) continue;
    m->leaf = (uint8_t)home;
    m->other = FLI_COHORT_NO_LEAF;
    fli_member_set(m, FLI_MEMBER_UNKNOWN, 1);
    fli_member_set(m, FLI_MEMBER_FRESH, 0);
    fli_member_reset(m);
  }
  fli_leaf_end(set, half);
  forget_leaf(set, half);
  set->splits_made++;
}

/* ---- verdicts ------------------------------------------------------------ */

typedef struct verdict {
  float win;
  float lump;
  int is_kept;
} verdict;

static verdict judge(const fl_cohort_options *o, const fli_trial *trial)
{
  verdict v = {0};
  double values[FLI_COHORT_TRIAL_MOST];
  uint32_t wins = 0;
  const uint32_t n = trial->n;
  if (n == 0) return v;
  for (uint32_t i = 0; i < n; i++)
    values[i] = (double)trial->ratio[i];
  double least = (double)o->trial_share * fli_median_of(values, n);
  if (least < (double)o->trial_margin) least = (double)o->trial_margin;
  for (uint32_t i = 0; i < n; i++) {
    double ratio = (double)trial->ratio[i];
    wins += ratio > least;
    values[i] = trial->side[i] ? ratio : -ratio;
  }
  if (n >= TRIAL_LEAST) v.win = (float)((double)wins / n);
  v.lump = (float)fli_gap_of(values, n);
  int is_sure = v.win >= o->trial_sure, has_lumps = v.lump > o->trial_lump;
  int is_apart = v.lump > fmaxf(o->trial_lump, LUMP_AGAIN);
  v.is_kept = trial->is_extended
                  ? is_sure && is_apart
                  : is_sure || (v.win >= o->trial_win && has_lumps);
  return v;
}

/* Where most of a half's clients would rather be, or FL_COHORT_NONE. */
static uint32_t home_of(const fl_cohort_set *set, const fli_trial *trial,
                        uint8_t side)
{
  uint32_t counts[FL_COHORT_MAX] = {0};
  uint32_t n = 0, away = 0, home = FL_COHORT_NONE;
  for (uint32_t i = 0; i < trial->n; i++) {
    if (trial->side[i] != side) continue;
    n++;
    uint8_t third = trial->third[i];
    if (third == FLI_COHORT_NO_LEAF || !set->leaves[third].is_alive) continue;
    away++;
    counts[third]++;
  }
  if (n < HOME_LEAST || away < HOME_SHARE * n) return FL_COHORT_NONE;
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (counts[i] > (home == FL_COHORT_NONE ? 0 : counts[home])) home = i;
  }
  return home;
}

static void tell(fl_cohort_set *set, uint32_t kind, const fli_trial *trial,
                 const verdict *v, uint32_t round)
{
  fl_cohort_event *event = fli_cohort_emit(set, kind, round);
  event->cohort = trial->parent;
  event->child = trial->child;
  event->n_probes = trial->n;
  event->win = v->win;
  event->lump = v->lump;
  fli_event_weigh(set, event);
}

static void keep_halves(fl_cohort_set *set, const fli_trial *trial,
                        const verdict *v, uint32_t round)
{
  const uint32_t homes[2] = {home_of(set, trial, 0), home_of(set, trial, 1)};
  const fli_trial ended = *trial;
  tell(set, FL_COHORT_KEPT, trial, v, round);
  remove_trial(set, trial);
  if ((homes[0] == FL_COHORT_NONE) == (homes[1] == FL_COHORT_NONE)) return;
  int side = homes[0] == FL_COHORT_NONE;
  move_half(set, side ? ended.child : ended.parent, homes[side], round);
}

/* 1: the trial is over. */
static int decide(fl_cohort_set *set, fli_trial *trial)
{
  const fl_cohort_options *o = &set->options;
  uint32_t a = set->leaves[trial->parent].round;
  uint32_t b = set->leaves[trial->child].round, round = a < b ? a : b;
  uint32_t length = o->trial_length;
  uint32_t from = trial->begun + (trial->is_extended ? length : 0);
  trial->asked = 0;
  if (round < from + length) return 0;
  if (trial->n < o->trial_probes && round < from + TRIAL_LONGEST * length)
    return 0;
  verdict v = judge(o, trial);
  if (v.is_kept) {
    keep_halves(set, trial, &v, round);
    return 1;
  }
  if (!trial->is_extended && fminf(v.win, v.lump) >= o->trial_again) {
    tell(set, FL_COHORT_AGAIN, trial, &v, round);
    trial->is_extended = 1;
    trial->n = 0;
    return 0;
  }
  uint32_t n = trial->n;
  fl_cohort_event *event =
      join_leaves(set, trial->parent, trial->child, FL_COHORT_UNDONE, round);
  event->n_probes = n;
  event->win = v.win;
  event->lump = v.lump;
  return 1;
}

void fli_trials_decide(fl_cohort_set *set)
{
  for (uint32_t i = 0; i < set->n_trials;) {
    if (!decide(set, &set->trials[i])) i++;
  }
}

static int are_one(fl_cohort_set *set, uint32_t a, uint32_t b, double *median)
{
  double values[FLI_COHORT_PAIR];
  const fli_pair *pair = pair_of(set, a, b);
  /* A half of a trial has its verdict before it. */
  if (pair->n < FLI_COHORT_PAIR || fli_trial_of(set, a) || fli_trial_of(set, b))
    return 0;
  for (unsigned i = 0; i < FLI_COHORT_PAIR; i++)
    values[i] = fabs((double)pair->values[i]);
  *median = fli_median_of(values, FLI_COHORT_PAIR);
  return *median < (double)set->options.merge;
}

void fli_pairs_decide(fl_cohort_set *set)
{
  const uint32_t cap = set->options.cap;
  double median = 0.0;
  for (uint32_t a = 0; a < cap; a++) {
    for (uint32_t b = a + 1; b < cap && set->leaves[a].is_alive; b++) {
      if (!set->leaves[b].is_alive || !are_one(set, a, b, &median)) continue;
      uint32_t round = set->leaves[a].round;
      fl_cohort_event *event = join_leaves(set, a, b, FL_COHORT_MERGED, round);
      event->lump = (float)median;
    }
  }
}
