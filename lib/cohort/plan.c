/* SPDX-License-Identifier: Apache-2.0 */
/* How many train for each cohort, and who; and what a host sees of cohorts. */
#include "cohort/cohort.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/rng.h"

/* ---- looking at one ------------------------------------------------------ */

fl_status fl_cohort_info_init(fl_cohort_info *info, size_t size)
{
  static const fl_cohort_info defaults = {
      .sibling = FL_COHORT_NONE, .loss = NAN, .agreement = NAN, .gap = NAN};
  return fli_options_init(info, size, &defaults, sizeof defaults);
}

static uint32_t sibling_of(const fl_cohort_set *set, uint32_t leaf)
{
  for (uint32_t i = 0; i < set->n_trials; i++) {
    const fli_trial *trial = &set->trials[i];
    if (trial->parent == leaf) return trial->child;
    if (trial->child == leaf) return trial->parent;
  }
  return FL_COHORT_NONE;
}

fl_status fl_cohort_set_get_info(const fl_cohort_set *set, uint32_t cohort,
                                 fl_cohort_info *out)
{
  fli_clear_error();
  if (!set || !out) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  if (cohort >= set->options.cap) {
    return fli_error(FL_E_NOT_FOUND, "cohorts: cohort, got %u, want < %u",
                     (unsigned)cohort, (unsigned)set->options.cap);
  }
  const fli_leaf *leaf = &set->leaves[cohort];
  fl_cohort_info info = {.is_alive = leaf->is_alive,
                         .rounds = leaf->age,
                         .round = leaf->round,
                         .sibling = sibling_of(set, cohort),
                         .loss = leaf->loss < 0.0 ? NAN : leaf->loss,
                         .deviation = sqrt(leaf->variance),
                         .agreement = leaf->agreement,
                         .gap = leaf->gap};
  for (uint32_t slot = 0; leaf->is_alive && slot < set->n_slots; slot++) {
    const fli_member *m = &set->members[slot];
    if (m->leaf != cohort || !fli_member_is(m, FLI_MEMBER_HERE)) continue;
    info.members++;
    info.unknown += (uint32_t)fli_member_is(m, FLI_MEMBER_UNKNOWN);
  }
  return fli_options_store(out, &info, sizeof info, "cohort info");
}

/* ---- how many ------------------------------------------------------------ */

static void weigh(const fl_cohort_set *set, uint32_t by,
                  double weights[FL_COHORT_MAX])
{
  double most = -1.0;
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    const fli_member *m = &set->members[slot];
    if (fli_member_is(m, FLI_MEMBER_HERE)) weights[m->leaf] += 1.0;
  }
  if (by == FL_COHORT_BY_SIZE) return;
  for (uint32_t i = 0; i < set->options.cap; i++)
    most = fmax(most, set->leaves[i].loss);
  for (uint32_t i = 0; i < set->options.cap; i++) {
    double loss = set->leaves[i].loss < 0.0 ? most : set->leaves[i].loss;
    if (by == FL_COHORT_EQUAL) weights[i] = weights[i] > 0.0;
    if (by == FL_COHORT_BY_LOSS && most > 0.0) weights[i] *= loss;
  }
}

static void share(const double *weights, uint32_t total, uint32_t *counts,
                  uint32_t n)
{
  double sum = 0.0, left[FL_COHORT_MAX];
  uint32_t given = 0;
  for (uint32_t i = 0; i < n; i++)
    sum += weights[i];
  for (uint32_t i = 0; i < n; i++) {
    double exact = sum > 0.0 ? (double)total * (weights[i] / sum) : 0.0;
    counts[i] = (uint32_t)exact;
    left[i] = exact - counts[i];
    given += counts[i];
  }
  while (sum > 0.0 && given < total) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
      if (left[i] > left[best]) best = i;
    }
    counts[best]++;
    left[best] -= 1.0;
    given++;
  }
}

fl_status fl_cohort_set_plan(const fl_cohort_set *set, uint32_t total,
                             uint32_t by, uint32_t *counts, uint32_t n)
{
  double weights[FL_COHORT_MAX] = {0};
  fli_fpguard guard;
  fli_clear_error();
  if (!set || !counts || by < FL_COHORT_BY_SIZE || by > FL_COHORT_BY_LOSS)
    return fli_error(FL_E_ARGUMENT, "cohorts: plan, a NULL, or by what");
  if (n != set->options.cap) {
    return fli_error(FL_E_DIM, "cohorts: counts, got %u, want %u", (unsigned)n,
                     (unsigned)set->options.cap);
  }
  fli_fpguard_enter(&guard);
  weigh(set, by, weights);
  share(weights, total, counts, n);
  fli_fpguard_leave(&guard);
  return FL_OK;
}

/* ---- who ----------------------------------------------------------------- */

static int is_candidate(const fl_cohort_set *set, const fl_cohort_pick *pick,
                        uint32_t slot)
{
  const fli_member *m = &set->members[slot];
  if (m->leaf != pick->cohort || !fli_member_is(m, FLI_MEMBER_HERE)) return 0;
  if (!pick->online) return 1;
  return slot / 8 < pick->n_bytes && (pick->online[slot / 8] >> slot % 8 & 1);
}

fl_status fl_cohort_pick_init(fl_cohort_pick *pick, size_t size)
{
  static const fl_cohort_pick defaults = {.struct_size = sizeof defaults};
  return fli_options_init(pick, size, &defaults, sizeof defaults);
}

fl_status fl_cohort_set_pick(const fl_cohort_set *set,
                             const fl_cohort_pick *given, uint32_t *slots,
                             uint32_t *n)
{
  fl_cohort_pick pick = {.struct_size = sizeof pick};
  uint32_t candidates = 0, found = 0;
  fli_rng rng;
  fli_clear_error();
  if (!set || !given || !n)
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  fl_status st = fli_options_load(&pick, sizeof pick, given, "cohort pick");
  if (st != FL_OK) return st;
  if ((!slots && pick.want > 0) || (!pick.online && pick.n_bytes > 0))
    return fli_error(FL_E_ARGUMENT, "cohorts: pick, got NULL");
  if (!fli_leaf_is_alive(set, pick.cohort)) {
    return fli_error(FL_E_NOT_FOUND, "cohorts: there is no cohort %u",
                     (unsigned)pick.cohort);
  }
  for (uint32_t slot = 0; slot < set->n_slots; slot++)
    candidates += (uint32_t)is_candidate(set, &pick, slot);
  fli_rng_init(&rng, set->options.seed, FLI_RNG_COHORT, pick.round,
               pick.cohort);
  for (uint32_t slot = 0; slot < set->n_slots && found < pick.want; slot++) {
    if (!is_candidate(set, &pick, slot)) continue;
    /* Knuth's selection sampling (algorithm S): of those that are left. */
    if (fli_rng_below(&rng, candidates--) < pick.want - found)
      slots[found++] = slot;
  }
  *n = found;
  return FL_OK;
}
