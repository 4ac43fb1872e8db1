/* SPDX-License-Identifier: Apache-2.0 */
/* A client's report: checked, then written to its member and to what waits for
 * the end of the cohort's round. */
#include "cohort/cohort.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/dmath.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"

#define LEAST_LOSS 1e-12
/* So that squares and ratios of losses are finite. */
#define MOST_LOSS 1e30
/* So that sums of a million squares are finite in float32. */
#define MOST_FEATURE 1e15f

/* What a report says, found while checking it. */
typedef struct reading {
  const fl_cohort_report *report;
  fli_leaf *leaf;
  double own;    /* loss of the member's cohort; NaN */
  double best;   /* least of the probes */
  int is_choice; /* the least one is its cohort from now on */
} reading;

fl_status fl_cohort_report_init(fl_cohort_report *report, size_t size)
{
  static const fl_cohort_report defaults = {.has_trained = 1};
  return fli_options_init(report, size, &defaults, sizeof defaults);
}

/* ---- checks -------------------------------------------------------------- */

static fl_status check_loss(const char *what, double loss)
{
  if (!isfinite(loss))
    return fli_error(FL_E_NOT_FINITE, "cohorts: %s, got %g", what, loss);
  if (loss < 0.0 || loss > MOST_LOSS)
    return fli_error(FL_E_RANGE, "cohorts: %s, got %g, want 0..%g", what, loss,
                     MOST_LOSS);
  return FL_OK;
}

/* Rounds of other cohorts may have the same number. */
static int has_trained(const fli_leaf *leaf, uint32_t slot)
{
  const fli_pending *items = leaf->pending.items;
  for (size_t i = 0; i < leaf->pending.n; i++) {
    if (items[i].slot == slot && !isnan(items[i].loss)) return 1;
  }
  return 0;
}

static fl_status check_round(const fl_cohort_set *set, const fli_leaf *leaf,
                             const fli_member *member,
                             const fl_cohort_report *r)
{
  if (leaf->has_ended) {
    return fli_error(FL_E_STATE,
                     "cohorts: round %u of cohort %u has ended, "
                     "decide first",
                     (unsigned)leaf->open, (unsigned)r->cohort);
  }
  if (r->has_trained && member->last == r->round &&
      has_trained(leaf, (uint32_t)(member - set->members)))
    return fli_error(FL_E_DUPLICATE, "cohorts: it has trained in round %u",
                     (unsigned)r->round);
  if (r->round < leaf->round + (r->has_trained ? 1 : 0) ||
      (r->has_trained && leaf->open && leaf->open != r->round)) {
    return fli_error(FL_E_STALE, "cohorts: round, got %u, cohort %u is in %u",
                     (unsigned)r->round, (unsigned)r->cohort,
                     (unsigned)(leaf->open ? leaf->open : leaf->round + 1));
  }
  return FL_OK;
}

static fl_status check_probe(const fl_cohort_set *set,
                             const fl_cohort_report *r, uint32_t i)
{
  fl_status st = check_loss("a probe's loss", r->losses[i]);
  if (st != FL_OK) return st;
  if (r->probes[i] >= set->options.cap) {
    return fli_error(FL_E_RANGE, "cohorts: probes[%u], got %u, want < %u",
                     (unsigned)i, (unsigned)r->probes[i],
                     (unsigned)set->options.cap);
  }
  if (!set->leaves[r->probes[i]].is_alive) {
    return fli_error(FL_E_STALE, "cohorts: probes[%u], cohort %u is no more",
                     (unsigned)i, (unsigned)r->probes[i]);
  }
  for (uint32_t k = 0; k < i; k++) {
    if (r->probes[k] != r->probes[i]) continue;
    return fli_error(FL_E_RANGE,
                     "cohorts: probes[%u], cohort %u is there twice",
                     (unsigned)i, (unsigned)r->probes[i]);
  }
  return FL_OK;
}

static fl_status check_probes(const fl_cohort_set *set, reading *in,
                              const fli_member *member)
{
  const fl_cohort_report *r = in->report;
  int has_cohort = r->n_probes == 0;
  in->own = NAN;
  in->best = INFINITY;
  if (r->n_probes > set->options.cap)
    return fli_error(FL_E_RANGE, "cohorts: n_probes, got %u, want 0..%u",
                     (unsigned)r->n_probes, (unsigned)set->options.cap);
  for (uint32_t i = 0; i < r->n_probes; i++) {
    fl_status st = check_probe(set, r, i);
    if (st != FL_OK) return st;
    if (r->probes[i] == r->cohort) has_cohort = 1;
    if (r->probes[i] == member->leaf) in->own = r->losses[i];
    if (r->losses[i] < in->best) in->best = r->losses[i];
  }
  if (has_cohort) return FL_OK;
  return fli_error(FL_E_RANGE, "cohorts: probes, want cohort %u among them",
                   (unsigned)r->cohort);
}

static fl_status check_feature(const fl_cohort_set *set, const float *feature)
{
  float most = 0.0f;
  if (!feature) return fli_error(FL_E_DIM, "cohorts: feature, got none");
  for (uint32_t i = 0; i < set->options.dim; i++) {
    if (!isfinite(feature[i]))
      return fli_error(FL_E_NOT_FINITE, "cohorts: feature[%u]", (unsigned)i);
    if (fabsf(feature[i]) > most) most = fabsf(feature[i]);
  }
  if (most > MOST_FEATURE)
    return fli_error(FL_E_RANGE, "cohorts: feature, got %g, want <= %g",
                     (double)most, (double)MOST_FEATURE);
  if (most > 0.0f) return FL_OK;
  return fli_error(FL_E_RANGE, "cohorts: feature, got all zeros");
}

static fl_status check_trained(const fl_cohort_set *set,
                               const fl_cohort_report *r)
{
  if (!r->has_trained) return FL_OK;
  fl_status st = check_loss("loss", r->loss);
  if (st != FL_OK) return st;
  if (set->options.rule == FL_COHORT_AUXO)
    return check_feature(set, r->feature);
  if (set->options.rule != FL_COHORT_SKETCH) return FL_OK;
  size_t want = set->options.dim / 2, got = r->sketch ? r->sketch_size : 0;
  if (got == want) return FL_OK;
  return fli_error(FL_E_DIM, "cohorts: sketch, got %zu bytes, want %zu", got,
                   want);
}

static double loss_of(const fl_cohort_report *r, uint32_t cohort)
{
  for (uint32_t i = 0; i < r->n_probes; i++) {
    if (r->probes[i] == cohort) return r->losses[i];
  }
  return NAN;
}

/* One client's comparisons are not to count as those of many. One that trains
 * does so once in a round. */
static fl_status check_once(const reading *in, uint32_t slot)
{
  const fl_cohort_report *r = in->report;
  const fli_ratio *items = in->leaf->ratios.items;
  if (r->has_trained) return FL_OK;
  for (size_t i = 0; i < in->leaf->ratios.n; i++) {
    if (items[i].slot != slot) continue;
    return fli_error(FL_E_DUPLICATE, "cohorts: it has compared in round %u",
                     (unsigned)r->round);
  }
  return FL_OK;
}

/* Whether it was routed there, or chose. */
static fl_status check_cohort(const fl_cohort_set *set, reading *in,
                              const fli_member *member)
{
  const fl_cohort_report *r = in->report;
  const double limit = set->leaves[member->leaf].limit;
  int compares = r->n_probes >= 2 && set->options.rule != FL_COHORT_AUXO;
  int has_to = set->options.rule == FL_COHORT_LOSS ||
               fli_member_is(member, FLI_MEMBER_UNKNOWN);
  int is_above = set->options.asks_first && in->own > limit;
  in->is_choice = compares && (has_to || is_above);
  if (set->options.rule == FL_COHORT_LOSS && !compares && set->n_alive > 1)
    return fli_error(FL_E_CONFLICT, "cohorts: want the losses of all models");
  if (in->is_choice) {
    if (loss_of(r, r->cohort) <= in->best)
      return check_once(in, (uint32_t)(member - set->members));
    return fli_error(FL_E_CONFLICT, "cohorts: cohort %u has not the least loss",
                     (unsigned)r->cohort);
  }
  if (r->cohort != member->leaf) {
    return fli_error(FL_E_CONFLICT, "cohorts: cohort, got %u, was routed to %u",
                     (unsigned)r->cohort, (unsigned)member->leaf);
  }
  return FL_OK;
}

static fl_status check(fl_cohort_set *set, reading *in,
                       const fli_member *member)
{
  const fl_cohort_report *r = in->report;
  if (r->has_trained > 1 || r->round == 0 || r->round > INT32_MAX ||
      (r->n_probes > 0 && (!r->probes || !r->losses))) {
    return fli_error(FL_E_ARGUMENT, "cohorts: report, a NULL, round or "
                                    "has_trained out of range");
  }
  if (!fli_leaf_is_alive(set, r->cohort))
    return fli_error(FL_E_STALE, "cohorts: there is no cohort %u",
                     (unsigned)r->cohort);
  in->leaf = &set->leaves[r->cohort];
  fl_status st = check_round(set, in->leaf, member, r);
  if (st == FL_OK) st = check_trained(set, r);
  if (st == FL_OK) st = check_probes(set, in, member);
  return st == FL_OK ? check_cohort(set, in, member) : st;
}

/* ---- what it changes ----------------------------------------------------- */

static fl_status make_room(fl_cohort_set *set, const reading *in)
{
  fl_context *context = set->context;
  const fl_cohort_report *r = in->report;
  const uint32_t rule = set->options.rule;
  size_t size = rule == FL_COHORT_AUXO ? set->options.dim * sizeof(float)
                                       : set->options.dim / 2;
  fl_status st =
      fli_list_room(context, &in->leaf->pending, 1, sizeof(fli_pending));
  if (st == FL_OK && r->n_probes > 1) {
    st = fli_list_room(context, &in->leaf->ratios, r->n_probes,
                       sizeof(fli_ratio));
  }
  if (st == FL_OK && r->has_trained && rule != FL_COHORT_LOSS)
    st = fli_list_room(context, &in->leaf->sketches, 1, size);
  return st;
}

static double log_ratio(double above, double below)
{
  return fli_ln(fmax(above, LEAST_LOSS) / fmax(below, LEAST_LOSS));
}

static void push_ratios(const reading *in, uint32_t slot)
{
  const fl_cohort_report *r = in->report;
  fli_list *list = &in->leaf->ratios;
  fli_ratio *items = list->items;
  for (uint32_t i = 0; i < r->n_probes; i++) {
    if (r->probes[i] == r->cohort) continue;
    items[list->n++] = (fli_ratio){slot, r->probes[i],
                                   (float)log_ratio(r->losses[i], in->best)};
  }
}

/* It belongs to the cohort of the least loss. Halves of a young trial are still
 * alike: it is asked again. */
static void choose(fl_cohort_set *set, const reading *in, fli_member *member)
{
  const fl_cohort_report *r = in->report;
  const uint8_t from = member->leaf, to = (uint8_t)r->cohort;
  fli_trial *trial = fli_trial_of(set, to);
  int is_young = trial && r->round <= trial->begun + set->options.settle;
  if (to != from) fli_member_reset(member);
  member->leaf = to;
  fli_member_set(member, FLI_MEMBER_FRESH, 0);
  if (!fli_member_is(member, FLI_MEMBER_UNKNOWN))
    member->other = FLI_COHORT_NO_LEAF;
  if (to == member->other) member->other = from;
  fli_member_set(member, FLI_MEMBER_UNKNOWN, is_young);
  if (is_young) return;
  member->other = FLI_COHORT_NO_LEAF;
  push_ratios(in, (uint32_t)(member - set->members));
}

static uint8_t third_of(const fl_cohort_report *r, const fli_trial *trial)
{
  double least = loss_of(r, r->cohort);
  uint8_t third = FLI_COHORT_NO_LEAF;
  for (uint32_t i = 0; i < r->n_probes; i++) {
    if (r->probes[i] == trial->parent || r->probes[i] == trial->child) continue;
    if (r->losses[i] >= least) continue;
    least = r->losses[i];
    third = (uint8_t)r->probes[i];
  }
  return third;
}

static int compare_halves(fl_cohort_set *set, const reading *in,
                          fli_member *member, fli_pending *pending)
{
  const fl_cohort_report *r = in->report;
  fli_trial *trial = fli_trial_of(set, r->cohort);
  if (!trial || !fli_member_is(member, FLI_MEMBER_FRESH)) return 0;
  double sibling =
      loss_of(r, trial->parent == r->cohort ? trial->child : trial->parent);
  uint32_t start = trial->begun + set->options.trial_start;
  if (isnan(sibling) || r->round < start) return 0;
  pending->is_on_trial = 1;
  pending->ratio = (float)log_ratio(sibling, in->own);
  pending->third = third_of(r, trial);
  fli_member_set(member, FLI_MEMBER_FRESH, 0);
  return 1;
}

static void push_sketch(fl_cohort_set *set, const reading *in)
{
  fli_list *list = &in->leaf->sketches;
  const void *from = set->options.rule == FL_COHORT_AUXO
                         ? (const void *)in->report->feature
                         : in->report->sketch;
  memcpy((uint8_t *)list->items + list->n++ * list->size, from, list->size);
}

static void apply(fl_cohort_set *set, const reading *in, uint32_t slot)
{
  const fl_cohort_report *r = in->report;
  fli_member *member = &set->members[slot];
  fli_pending pending = {.slot = slot, .loss = NAN};
  double measured = in->is_choice ? in->best : in->own;
  double limit = in->leaf->limit;
  if (r->has_trained) measured = r->loss;
  int has_compared = 0;
  if (in->is_choice) {
    choose(set, in, member);
  } else {
    has_compared = compare_halves(set, in, member, &pending);
  }
  if (measured > limit && !(in->is_choice && set->options.asks_first)) {
    fli_member_set(member, FLI_MEMBER_UNKNOWN, 1);
    member->other = FLI_COHORT_NO_LEAF;
  }
  if (r->has_trained) {
    member->last = r->round;
    in->leaf->open = r->round;
    fli_member_set(member, FLI_MEMBER_FRESH, 0);
    pending.loss = r->loss;
    pending.has_sketch = set->options.rule != FL_COHORT_LOSS;
    pending.is_sure =
        set->n_alive == 1 || !fli_member_is(member, FLI_MEMBER_UNKNOWN);
    if (pending.has_sketch) push_sketch(set, in);
  }
  if (!r->has_trained && !has_compared) return;
  fli_pending *items = in->leaf->pending.items;
  items[in->leaf->pending.n++] = pending;
}

fl_status fl_cohort_set_report(fl_cohort_set *set, uint32_t slot,
                               const fl_cohort_report *given)
{
  fl_cohort_report report;
  reading in = {.report = &report};
  fli_fpguard guard;
  fli_clear_error();
  if (!set || !given)
    return fli_error(FL_E_ARGUMENT, "cohorts: report, got NULL");
  fl_status st = fl_cohort_report_init(&report, sizeof report);
  if (st == FL_OK)
    st = fli_options_load(&report, sizeof report, given, "cohort report");
  if (st == FL_OK) st = fli_cohort_check_slot(set, slot);
  if (st != FL_OK) return st;
  fli_fpguard_enter(&guard);
  st = check(set, &in, &set->members[slot]);
  if (st == FL_OK) st = make_room(set, &in);
  if (st == FL_OK) apply(set, &in, slot);
  fli_fpguard_leave(&guard);
  return st;
}
