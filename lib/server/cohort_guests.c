/* SPDX-License-Identifier: Apache-2.0 */
/* APART: clients that one cohort has drawn and that, asked, chose another. They
 * take part in that one's next round, or in the one for which it is asking its
 * own. Until then they do nothing; who leaves, or whose cohort does, is let go.
 */
#include "server/cohorts.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"

static int is_there(const fli_participant *who)
{
  return (who->peer || who->is_in_grace) && !who->is_leaving;
}

static void let_go(fli_job *front, fli_participant *who)
{
  who->visit = FLI_NO_MEMBER;
  front->registry.is_sweep_due |= who->is_leaving;
}

static void free_guests(fli_job *front, fli_lane *lane)
{
  fli_free(front->context, lane->guests,
           lane->guest_room * sizeof *lane->guests);
  lane->guests = NULL;
  lane->n_guests = 0;
  lane->guest_room = 0;
}

void fli_guests_release(fli_job *front, fli_lane *lane)
{
  for (uint32_t i = 0; i < lane->n_guests; i++)
    let_go(front, lane->guests[i].participant);
  free_guests(front, lane);
}

void fli_guests_sweep(fli_job *front, fli_lane *lane)
{
  uint32_t kept = 0;
  for (uint32_t i = 0; i < lane->n_guests; i++) {
    fli_participant *who = lane->guests[i].participant;
    if (is_there(who)) {
      lane->guests[kept++] = lane->guests[i];
    } else {
      let_go(front, who);
    }
  }
  lane->n_guests = kept;
}

/* ---- leaving ------------------------------------------------------------- */

static int is_before(const fli_visit *a, const fli_visit *b)
{
  return strcmp(a->participant->id, b->participant->id) < 0;
}

/* 0: it is let go, for want of memory or because that cohort takes none. */
static int become_guest(fli_job *front, const fli_visit *visit)
{
  const uint32_t to = visit->cohort;
  fli_lane *lane = &front->cohorts->lanes[to];
  size_t room = lane->guest_room;
  void *items = lane->guests;
  if (!fli_cohorts_leaf(front, to) || fli_held_has_ended(front, to) ||
      lane->n_guests >= FL_MAX_SLOTS / 2) {
    return 0;
  }
  if (fli_grow(front->context, &items, &room, (size_t)lane->n_guests + 1,
               sizeof *lane->guests) != FL_OK) {
    fli_clear_error();
    return 0;
  }
  lane->guests = items;
  lane->guest_room = room;
  uint32_t at = lane->n_guests++;
  for (; at > 0 && is_before(visit, &lane->guests[at - 1]); at--)
    lane->guests[at] = lane->guests[at - 1];
  lane->guests[at] = *visit;
  lane->guests[at].trains = 1;
  visit->participant->visit = FLI_GUEST;
  visit->participant->lane = to;
  return 1;
}

/* Visits that stay, in their places; how many are guests elsewhere now. */
static uint32_t part(fli_job *leaf, fli_lane *lane)
{
  uint32_t kept = 0, moved = 0;
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    const fli_visit *visit = &lane->visits[i];
    const int stays = visit->cohort == leaf->cohort || visit->is_lost;
    if (stays) {
      visit->participant->visit = kept;
      lane->visits[kept++] = *visit;
    } else if (become_guest(leaf->front, visit)) {
      moved++;
    } else {
      let_go(leaf->front, visit->participant);
    }
  }
  lane->n_visits = kept;
  return moved;
}

/* ---- arriving ------------------------------------------------------------ */

/* Those for whom there is no memory come with another draw. */
static void lend(fli_job *front, fli_lane *from, uint32_t to)
{
  uint32_t kept = 0;
  for (uint32_t i = 0; i < from->n_guests; i++) {
    fli_visit visit = from->guests[i];
    fli_visit_lend(&visit, to);
    if (!become_guest(front, &visit)) from->guests[kept++] = from->guests[i];
  }
  from->n_guests = kept;
}

void fli_guests_borrow(fli_job *leaf)
{
  fli_cohorts *cohorts = leaf->front->cohorts;
  if (!fli_census_borrows(leaf)) return;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if ((cohorts->census.lends >> i & 1) && i != leaf->cohort)
      lend(leaf->front, &cohorts->lanes[i], leaf->cohort);
  }
}

static void merge(const fli_job *leaf, fli_lane *lane, fli_visit *all)
{
  uint32_t a = 0, b = 0;
  while (a < lane->n_visits || b < lane->n_guests) {
    const int takes_guest =
        a == lane->n_visits ||
        (b < lane->n_guests && is_before(&lane->guests[b], &lane->visits[a]));
    fli_visit *to = &all[a + b];
    *to = takes_guest ? lane->guests[b] : lane->visits[a];
    to->participant->visit = a + b;
    to->participant->lane = leaf->cohort;
    if (takes_guest)
      b++;
    else
      a++;
  }
}

/* FL_E_NOMEM: they are guests still. */
static fl_status receive(fli_job *leaf, fli_lane *lane)
{
  const uint32_t n = lane->n_visits + lane->n_guests;
  if (lane->n_guests == 0) return FL_OK;
  fli_visit *all = fli_alloc(leaf->context, n, sizeof *all);
  if (!all) return fli_nomem(n * sizeof *all);
  merge(leaf, lane, all);
  fli_free(leaf->context, lane->visits, lane->room * sizeof *lane->visits);
  lane->visits = all;
  lane->n_visits = lane->room = n;
  free_guests(leaf->front, lane);
  return FL_OK;
}

fl_status fli_guests_settle(fli_job *leaf, uint32_t *n_moved)
{
  fli_lane *lane = fli_lane_of(leaf);
  const size_t row = leaf->front->cohorts->row;
  *n_moved = part(leaf, lane);
  fli_guests_sweep(leaf->front, lane);
  const fl_status st = receive(leaf, lane);
  if (st != FL_OK || row == 0) return st;
  lane->sketches = fli_alloc(leaf->context, lane->n_visits, row);
  return lane->sketches ? FL_OK : fli_nomem(lane->n_visits * row);
}
