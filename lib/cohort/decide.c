/* SPDX-License-Identifier: Apache-2.0 */
/* What changes the tree, in one place and one order, whatever order cohorts
 * ended their rounds in: halves are drawn, splits proposed, trials decided,
 * cohorts merged. All memory is taken before anything changes. */
#include "cohort/cohort.h"

#include <assert.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

enum { SKETCH_STARTS = 8 };

/* ---- halves -------------------------------------------------------------- */

static void reset_members(fl_cohort_set *set, uint32_t leaf)
{
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    if (set->members[slot].leaf == leaf) fli_member_reset(&set->members[slot]);
  }
}

static void draw_halves(fl_cohort_set *set, uint32_t index, void *scratch)
{
  const size_t dim = set->options.dim;
  fli_leaf *leaf = &set->leaves[index];
  float *rows = scratch;
  if (leaf->has_centroids) {
    reset_members(set, index);
    leaf->n_votes = leaf->first_vote = 0;
    if (leaf->n_buffer > FLI_COHORT_SEED) {
      leaf->first_row = (leaf->first_row + leaf->n_buffer - FLI_COHORT_SEED) %
                        FLI_COHORT_BUFFER;
      leaf->n_buffer = FLI_COHORT_SEED;
    }
  }
  for (uint32_t i = 0; i < leaf->n_buffer; i++) {
    size_t at = (leaf->first_row + i) % FLI_COHORT_BUFFER;
    memcpy(rows + i * dim, leaf->buffer + at * dim, dim * sizeof *rows);
  }
  const fli_rows set_of_rows = {rows, leaf->n_buffer, dim};
  fli_find_halves(&set_of_rows, SKETCH_STARTS, &set->rng, leaf->centroids, NULL,
                  rows + FLI_COHORT_BUFFER * dim);
  leaf->has_centroids = 1;
  leaf->wants_seed = 0;
  leaf->seeded = leaf->round;
}

/* ---- splits -------------------------------------------------------------- */

static int halves_are_large(const fl_cohort_set *set, uint32_t leaf)
{
  uint64_t counts[2] = {0};
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    const fli_member *m = &set->members[slot];
    if (m->leaf != leaf || !fli_member_is(m, FLI_MEMBER_HERE)) continue;
    if (m->score != 0) counts[m->score > 0]++;
  }
  uint64_t least = counts[0] < counts[1] ? counts[0] : counts[1];
  return least >= set->options.min_members &&
         (double)least > (double)set->options.floor * set->n_clients;
}

/* Scores say which half; a weak one that it is undecided between them. */
static void divide_members(fl_cohort_set *set, uint32_t parent, uint32_t child,
                           int is_first)
{
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    fli_member *m = &set->members[slot];
    if (m->leaf != parent || !fli_member_is(m, FLI_MEMBER_HERE)) continue;
    int is_weak =
        m->score > -FLI_COHORT_SCORE_ONE && m->score < FLI_COHORT_SCORE_ONE;
    m->other = FLI_COHORT_NO_LEAF;
    if (m->score > 0) m->leaf = (uint8_t)child;
    if (!is_weak) {
      fli_member_set(m, FLI_MEMBER_UNKNOWN, 0);
    } else if (is_first || !fli_member_is(m, FLI_MEMBER_UNKNOWN)) {
      fli_member_set(m, FLI_MEMBER_UNKNOWN, 1);
      m->other = (uint8_t)(m->score > 0 ? parent : child);
    }
    fli_member_set(m, FLI_MEMBER_FRESH, !is_weak);
    fli_member_reset(m);
  }
}

/* Whether too few members will be left who have not trained when losses are
 * first compared, if as many train in each round as did in this one. */
static int will_be_scarce(const fl_cohort_set *set, uint32_t parent,
                          uint32_t child)
{
  const double trained = (double)set->leaves[parent].sketches.n;
  double fresh = 0.0, members = 0.0;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    const fli_member *m = &set->members[slot];
    if (!fli_member_is(m, FLI_MEMBER_HERE)) continue;
    if (m->leaf != parent && m->leaf != child) continue;
    members += 1.0;
    fresh += fli_member_is(m, FLI_MEMBER_FRESH);
  }
  const double left = members > trained ? 1.0 - trained / members : 0.0;
  for (uint32_t i = 0; i < set->options.trial_start && fresh >= 1.0; i++)
    fresh *= left;
  return fresh < (double)set->options.trial_probes;
}

static void split(fl_cohort_set *set, uint32_t parent)
{
  fli_leaf *leaf = &set->leaves[parent];
  const uint32_t child = fli_first_dead(set), round = leaf->round;
  const uint32_t back = leaf->back;
  fl_cohort_event *event = fli_cohort_emit(set, FL_COHORT_TRIAL, round);
  event->cohort = parent;
  event->child = child;
  event->win = leaf->agreement;
  event->lump = leaf->gap;
  divide_members(set, parent, child, set->n_alive == 1);
  fli_event_weigh(set, event);
  fli_leaf_begin(set, child, round);
  fli_leaf_renew(&set->leaves[child], round, round, back);
  fli_leaf_renew(leaf, round, round, back);
  assert(set->n_trials < FL_COHORT_MAX / 2);
  set->trials[set->n_trials++] =
      (fli_trial){.parent = (uint8_t)parent,
                  .child = (uint8_t)child,
                  .is_scarce = (uint8_t)will_be_scarce(set, parent, child),
                  .begun = round};
  set->splits_made++;
}

static void consider(fl_cohort_set *set, uint32_t index, void *scratch)
{
  fli_leaf *leaf = &set->leaves[index];
  if (leaf->wants_seed) {
    draw_halves(set, index, scratch);
  } else if (leaf->proposes && set->n_alive < set->options.cap &&
             halves_are_large(set, index)) {
    split(set, index);
  }
  leaf->proposes = 0;
}

/* ---- a decision ---------------------------------------------------------- */

static void close_round(fli_leaf *leaf)
{
  leaf->pending.n = leaf->sketches.n = leaf->ratios.n = 0;
  leaf->open = 0;
  leaf->has_ended = 0;
}

static void decide_sketch(fl_cohort_set *set, void *scratch)
{
  const uint32_t cap = set->options.cap;
  for (uint32_t i = 0; i < cap; i++) {
    if (!set->leaves[i].has_ended) continue;
    fli_trial_gather(set, i);
    fli_pairs_gather(set, i);
  }
  for (uint32_t i = 0; i < cap; i++) {
    if (set->leaves[i].has_ended) consider(set, i, scratch);
  }
  fli_trials_decide(set);
  fli_pairs_decide(set);
}

/* A leaf that splits does not change what the others have reported. */
static void decide_auxo(fl_cohort_set *set, void *scratch)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (set->leaves[i].has_ended) fli_auxo_decide(set, i, scratch);
  }
}

/* Room for the rows in order, and what fli_find_halves wants. */
static size_t halves_size(const fl_cohort_set *set)
{
  const size_t row = set->options.dim * sizeof(float);
  return FLI_COHORT_BUFFER * row +
         fli_halves_scratch(FLI_COHORT_BUFFER, set->options.dim);
}

/* What one leaf's decision takes: they are made one after another. */
static size_t leaf_scratch(const fl_cohort_set *set, uint32_t leaf)
{
  switch (set->options.rule) {
  case FL_COHORT_SKETCH:
    return set->leaves[leaf].wants_seed ? halves_size(set) : 0;
  case FL_COHORT_AUXO: return fli_auxo_scratch(set, leaf);
  default: return 0;
  }
}

static size_t scratch_size(const fl_cohort_set *set)
{
  size_t most = 0;
  for (uint32_t i = 0; i < set->options.cap; i++) {
    const size_t bytes = set->leaves[i].has_ended ? leaf_scratch(set, i) : 0;
    if (bytes > most) most = bytes;
  }
  return most;
}

fl_status fl_cohort_set_decide(fl_cohort_set *set)
{
  fli_fpguard guard;
  void *scratch = NULL;
  fli_clear_error();
  if (!set) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  if (set->n_events > 0)
    return fli_error(FL_E_STATE, "cohorts: events wait, poll them first");
  const size_t bytes = scratch_size(set);
  if (bytes > 0) {
    scratch = fli_alloc(set->context, bytes, 1);
    if (!scratch) return fli_nomem(bytes);
  }
  fli_fpguard_enter(&guard);
  if (set->options.rule == FL_COHORT_SKETCH) decide_sketch(set, scratch);
  if (set->options.rule == FL_COHORT_AUXO) decide_auxo(set, scratch);
  fli_limits_renew(set);
  fli_fpguard_leave(&guard);
  if (scratch) fli_free(set->context, scratch, bytes);
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (set->leaves[i].has_ended) close_round(&set->leaves[i]);
  }
  return FL_OK;
}
