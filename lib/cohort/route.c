/* SPDX-License-Identifier: Apache-2.0 */
/* Which models a client gets: its cohort's, and those whose losses say where it
 * belongs, or decide a trial. */
#include "cohort/cohort.h"

#include <math.h>

#include "base/error.h"
#include "base/options.h"

enum { LIMIT_AGE = 10 };

double fli_leaf_limit(const fl_cohort_set *set, const fli_leaf *leaf)
{
  if (set->options.rule != FL_COHORT_SKETCH || set->n_alive < 2 ||
      leaf->loss < 0.0 || leaf->age < LIMIT_AGE) {
    return INFINITY;
  }
  return leaf->loss + (double)set->options.spike * sqrt(leaf->variance);
}

void fli_limits_renew(fl_cohort_set *set)
{
  for (uint32_t i = 0; i < set->options.cap; i++)
    set->leaves[i].limit = fli_leaf_limit(set, &set->leaves[i]);
}

fli_trial *fli_trial_of(fl_cohort_set *set, uint32_t leaf)
{
  for (uint32_t i = 0; i < set->n_trials; i++) {
    fli_trial *trial = &set->trials[i];
    if (trial->parent == leaf || trial->child == leaf) return trial;
  }
  return NULL;
}

int fli_trial_is_open(const fl_cohort_set *set, const fli_trial *trial,
                      uint32_t round)
{
  const fl_cohort_options *o = &set->options;
  uint32_t begun = trial->begun + o->trial_start +
                   (trial->is_extended ? o->trial_length : 0);
  return round >= begun && trial->n + trial->asked < o->trial_most;
}

/* Half of those who have a side, by a hash of their id. */
int fli_is_needed(const fl_cohort_set *set, uint32_t slot)
{
  const fli_member *member = &set->members[slot];
  fli_split_rng mix = {set->ids[slot]};
  if (!fli_member_is(member, FLI_MEMBER_FRESH) ||
      fli_member_is(member, FLI_MEMBER_UNKNOWN) ||
      (fli_split_next(&mix) & 1) == 0) {
    return 0;
  }
  for (uint32_t i = 0; i < set->n_trials; i++) {
    const fli_trial *trial = &set->trials[i];
    if (trial->parent != member->leaf && trial->child != member->leaf) continue;
    return trial->is_scarce && trial->n < set->options.trial_most;
  }
  return 0;
}

static void probe_all(const fl_cohort_set *set, fl_cohort_route *route)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (set->leaves[i].is_alive) route->probes[route->n_probes++] = i;
  }
}

static void probe_two(const fli_member *member, fl_cohort_route *route)
{
  uint32_t a = member->leaf, b = member->other;
  route->probes[0] = a < b ? a : b;
  route->probes[1] = a < b ? b : a;
  route->n_probes = 2;
}

/* Returns the trial that it is asked for, or NULL. */
static fli_trial *find_probes(fl_cohort_set *set, const fli_member *member,
                              int has_spiked, fl_cohort_route *route)
{
  if (set->options.rule == FL_COHORT_AUXO || set->n_alive < 2) return NULL;
  if (set->options.rule == FL_COHORT_LOSS) {
    route->chooses = 1;
    probe_all(set, route);
  } else if (fli_member_is(member, FLI_MEMBER_UNKNOWN)) {
    route->chooses = 1;
    if (member->other == FLI_COHORT_NO_LEAF) {
      probe_all(set, route);
    } else {
      probe_two(member, route);
    }
  } else if (has_spiked) {
    route->chooses = 1;
    probe_all(set, route);
  } else if (fli_member_is(member, FLI_MEMBER_FRESH)) {
    return fli_trial_of(set, member->leaf);
  }
  return NULL;
}

fl_status fl_cohort_route_init(fl_cohort_route *route, size_t size)
{
  static const fl_cohort_route defaults = {.limit = INFINITY};
  return fli_options_init(route, size, &defaults, sizeof defaults);
}

fl_status fl_cohort_set_route(fl_cohort_set *set, uint32_t slot, uint32_t round,
                              double loss, fl_cohort_route *out)
{
  fl_cohort_route route;
  fli_clear_error();
  if (!set || !out || round == 0 || round > INT32_MAX)
    return fli_error(FL_E_ARGUMENT, "cohorts: route, got NULL or no round");
  fl_status st = fli_cohort_check_slot(set, slot);
  if (st != FL_OK) return st;
  const fli_member *member = &set->members[slot];
  double limit =
      set->options.asks_first ? set->leaves[member->leaf].limit : INFINITY;
  route.struct_size = sizeof route;
  route.cohort = member->leaf;
  route.chooses = route.n_probes = 0;
  route.limit = limit;
  fli_trial *trial = find_probes(set, member, loss > limit, &route);
  if (trial && !fli_trial_is_open(set, trial, round)) trial = NULL;
  if (trial) probe_all(set, &route);
  for (uint32_t i = route.n_probes; i < FL_COHORT_MAX; i++)
    route.probes[i] = 0;
  st = fli_options_store(out, &route, sizeof route, "cohort route");
  if (st == FL_OK && trial) trial->asked++;
  return st;
}
