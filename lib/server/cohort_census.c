/* SPDX-License-Identifier: Apache-2.0 */
/* APART: how many clients each cohort could draw, counted for all of them in
 * one pass over the table when somebody came or went or became free, so that a
 * cohort that waits costs nothing else.
 *
 * A cohort that has fewer clients than a round needs, those who will come back
 * included, lends them. All of these together are drawn by the one of them that
 * was least often; if they are too few, too, by any other that draws. Who is
 * lent trains, and is not asked where it belongs. */
#include "server/cohorts.h"

#include <string.h>

typedef struct counts {
  uint32_t home[FL_COHORT_MAX];   /* free, whichever they are candidates of */
  uint32_t coming[FL_COHORT_MAX]; /* at work, or lost just now */
  uint32_t anyone[FL_COHORT_MAX]; /* free, and candidates of every cohort */
} counts;

static fl_status get_member(const fli_participant *who,
                            fl_cohort_member *member)
{
  const fl_status st = fl_cohort_member_init(member, sizeof *member);
  if (st != FL_OK) return st;
  return fl_cohort_set_get_member(who->home->cohorts->set, who->slot, member);
}

static int is_free(const fli_participant *who)
{
  return who->visit == FLI_NO_MEMBER && who->member == FLI_NO_MEMBER &&
         !who->is_leaving;
}

/* ---- one client ---------------------------------------------------------- */

/* Undecided between two, it is a candidate of these; a newcomer, of all. Under
 * AUXO nobody chooses. */
int fli_census_is_candidate(const fli_job *leaf, const fli_participant *who)
{
  const fli_cohorts *cohorts = leaf->front->cohorts;
  fl_cohort_member member;
  if (!is_free(who) || get_member(who, &member) != FL_OK) return 0;
  if (member.cohort == leaf->cohort) return 1;
  if (!member.is_unknown || cohorts->options.rule == FL_COHORT_AUXO) return 0;
  if (member.other != FL_COHORT_NONE) return member.other == leaf->cohort;
  return (fli_held_mask(leaf->front) >> member.cohort & 1) == 0;
}

int fli_census_borrows(const fli_job *leaf)
{
  const fli_census *census = &leaf->front->cohorts->census;
  if (census->host != FL_COHORT_NONE) return census->host == leaf->cohort;
  return census->lends && (census->lends >> leaf->cohort & 1) == 0;
}

int fli_census_is_lent(const fli_job *leaf, const fli_participant *who)
{
  const fli_census *census = &leaf->front->cohorts->census;
  fl_cohort_member member;
  if (!fli_census_borrows(leaf) || !is_free(who) ||
      get_member(who, &member) != FL_OK) {
    return 0;
  }
  return member.cohort != leaf->cohort && (census->lends >> member.cohort & 1);
}

/* ---- all ----------------------------------------------------------------- */

static void count_one(fli_job *front, counts *all, const fli_participant *who,
                      uint64_t held)
{
  fli_cohorts *cohorts = front->cohorts;
  uint32_t *found = cohorts->census.found;
  fl_cohort_member member;
  if (!who || !(who->capabilities & FLI_CAP_TRAIN) || who->is_leaving ||
      !(who->peer || who->is_in_grace) || get_member(who, &member) != FL_OK)
    return;
  const uint32_t at = member.cohort;
  if (who->visit == FLI_GUEST) return;
  if (!is_free(who) || !who->peer) {
    all->coming[at]++;
    return;
  }
  all->home[at]++;
  found[at]++;
  if (!member.is_unknown || cohorts->options.rule == FL_COHORT_AUXO) return;
  if (member.other != FL_COHORT_NONE) {
    found[member.other] += member.other != at;
  } else if ((held >> at & 1) == 0) {
    all->anyone[at]++;
  }
}

static void count_all(fli_job *front, counts *all)
{
  const fli_registry *registry = &front->registry;
  fli_cohorts *cohorts = front->cohorts;
  const uint64_t held = fli_held_mask(front);
  uint32_t anyone = 0;
  memset(all, 0, sizeof *all);
  memset(cohorts->census.found, 0, sizeof cohorts->census.found);
  for (size_t i = 0; i < registry->capacity; i++)
    count_one(front, all, registry->slots[i], held);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    anyone += all->anyone[i];
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    cohorts->census.found[i] += anyone - all->anyone[i];
    cohorts->census.found[i] += cohorts->lanes[i].n_guests;
  }
}

/* Shares of `participants`, but enough for a round. */
static void find_wants(fli_job *front)
{
  const fl_job_options *options = &front->options;
  const fl_cohort_set *set = front->cohorts->set;
  uint32_t *want = front->cohorts->census.want;
  (void)fl_cohort_set_plan(set, fli_select_size(front), options->cohort_share,
                           want, fl_cohort_set_cap(set));
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (want[i] < options->min_participants)
      want[i] = options->min_participants;
  }
}

/* ---- cohorts that are too small ------------------------------------------ */

static int is_small(const fli_job *front, const counts *all, uint32_t at)
{
  const fli_cohorts *cohorts = front->cohorts;
  return cohorts->leaves[at] && !fli_apart_is_busy(front, at) &&
         (cohorts->scores.left >> at & 1) == 0 &&
         cohorts->census.found[at] + all->coming[at] <
             front->options.min_participants;
}

/* What the host of all draws is what all of them would. */
static void make_host(fli_census *census, uint32_t pool)
{
  uint64_t want = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    want += census->lends >> i & 1 ? census->want[i] : 0;
  census->found[census->host] = pool;
  census->want[census->host] = want < pool ? (uint32_t)want : pool;
}

static void find_lends(fli_job *front, const counts *all)
{
  fli_cohorts *cohorts = front->cohorts;
  fli_census *census = &cohorts->census;
  const uint64_t held = fli_held_mask(front);
  uint32_t pool = 0;
  census->lends = 0;
  census->host = FL_COHORT_NONE;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const uint32_t own = all->home[i] + cohorts->lanes[i].n_guests;
    if ((held >> i & 1) || !is_small(front, all, i) || own == 0) continue;
    census->lends |= UINT64_C(1) << i;
    pool += own;
    if (census->host == FL_COHORT_NONE ||
        cohorts->lanes[i].turn < cohorts->lanes[census->host].turn)
      census->host = i;
  }
  if (pool < front->options.min_participants) {
    census->host = FL_COHORT_NONE;
  } else {
    make_host(census, pool);
  }
}

/* ---- from outside -------------------------------------------------------- */

const fli_census *fli_census_of(fli_job *front)
{
  fli_census *census = &front->cohorts->census;
  counts all;
  if (census->is_known && census->changes == front->registry.changes &&
      census->ends == front->cohorts->ends) {
    return census;
  }
  count_all(front, &all);
  find_wants(front);
  find_lends(front, &all);
  census->changes = front->registry.changes;
  census->ends = front->cohorts->ends;
  census->is_known = 1;
  census->number++;
  return census;
}

int fli_census_is_ready(fli_job *leaf)
{
  fli_job *front = leaf->front;
  const fli_census *census = fli_census_of(front);
  const uint32_t found = census->found[leaf->cohort];
  if (found < front->options.min_participants) return 0;
  return (found >= census->want[leaf->cohort] && !front->cohorts->is_back) ||
         !front->registry.grace_first ||
         front->server->now_ns - leaf->waiting_ns >=
             front->options.return_grace_ns;
}
