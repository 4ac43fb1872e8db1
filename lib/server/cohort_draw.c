/* SPDX-License-Identifier: Apache-2.0 */
/* Who is drawn, and what each does. TOGETHER, all that are there are candidates
 * of the one draw; APART, those of the leaf's members that are in the middle of
 * nothing, and those of no cohort yet. */
#include "server/cohorts.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/rng.h"

/* ---- roles --------------------------------------------------------------- */

typedef struct candidates {
  fli_job *asker;
  fli_job *front;
  fli_lane *lane;
  fli_participant **all; /* by id */
  uint32_t n;
  uint32_t room;
  uint32_t most;   /* who train */
  uint32_t probed; /* who tell losses only */
} candidates;

enum { ROLE_NONE, ROLE_TRAINS, ROLE_ASKED, ROLE_NEEDED };

static fl_status get_member(const fli_participant *who,
                            fl_cohort_member *member)
{
  const fl_status st = fl_cohort_member_init(member, sizeof *member);
  if (st != FL_OK) return st;
  return fl_cohort_set_get_member(who->home->cohorts->set, who->slot, member);
}

static int is_lent(const candidates *c, const fli_participant *who)
{
  return c->asker != c->front && !fli_census_is_candidate(c->asker, who);
}

/* Those whose comparison a trial needs before they train are not drawn, unless
 * too few were left. */
static fl_status spare_needed(const candidates *c, uint8_t *roles)
{
  const uint32_t n = c->n, least = c->front->options.min_participants;
  uint32_t needed = 0;
  for (uint32_t i = 0; i < n; i++) {
    fl_cohort_member member;
    const fl_status st = get_member(c->all[i], &member);
    if (st != FL_OK) return st;
    if (!member.is_needed || !(c->all[i]->capabilities & FLI_CAP_EVALUATE) ||
        is_lent(c, c->all[i]))
      continue;
    roles[i] = ROLE_NEEDED;
    needed++;
  }
  if (n - needed >= least && n > needed) return FL_OK;
  memset(roles, ROLE_NONE, n);
  return FL_OK;
}

/* First those who are needed, then everybody else in an order of its own, of
 * which the next ones have their turn. */
static fl_status pick_probed(const candidates *c, uint8_t *roles)
{
  const fli_job *front = c->front;
  const uint32_t n = c->n;
  uint32_t left = c->probed;
  fli_rng rng;
  if (n == 0 || fl_cohort_set_count(front->cohorts->set) < 2 ||
      front->cohorts->options.rule != FL_COHORT_SKETCH) {
    return FL_OK;
  }
  uint32_t *order = fli_alloc(front->context, n, sizeof *order);
  if (!order) return fli_nomem(n * sizeof *order);
  for (uint32_t i = 0; i < n; i++)
    order[i] = i;
  fli_rng_init(&rng, front->options.seed, FLI_RNG_COHORT, 0, 0);
  fli_rng_shuffle(&rng, order, n);
  for (uint32_t i = 0; i < n && left > 0; i++)
    left -= roles[order[i]] == ROLE_NEEDED;
  for (uint32_t i = 0; left > 0 && i < n; i++) {
    const uint32_t at = order[(c->lane->next_probed + i) % n];
    if (roles[at] || !(c->all[at]->capabilities & FLI_CAP_EVALUATE)) continue;
    roles[at] = ROLE_ASKED;
    left--;
    if (left == 0) c->lane->next_probed = (c->lane->next_probed + i + 1) % n;
  }
  fli_free(front->context, order, n * sizeof *order);
  return FL_OK;
}

/* Both lists are sorted by id. */
static fl_status find_roles(const candidates *c, uint8_t *roles)
{
  const uint32_t n = c->n;
  fl_context *context = c->front->context;
  uint32_t n_free = 0;
  fl_status st = spare_needed(c, roles);
  if (st != FL_OK) return st;
  fli_participant **drawn = fli_alloc(context, n, sizeof *drawn);
  if (!drawn) return fli_nomem(n * sizeof *drawn);
  for (uint32_t i = 0; i < n; i++) {
    if (!roles[i]) drawn[n_free++] = c->all[i];
  }
  const uint32_t k = c->most < n_free ? c->most : n_free;
  st = fli_select_draw(c->asker, drawn, n_free, k);
  for (uint32_t i = 0, at = 0; st == FL_OK && i < n && at < k; i++) {
    if (drawn[at] != c->all[i]) continue;
    roles[i] = ROLE_TRAINS;
    at++;
  }
  fli_free(context, drawn, n * sizeof *drawn);
  if (st == FL_OK) st = pick_probed(c, roles);
  for (uint32_t i = 0; st == FL_OK && i < n; i++) {
    if (roles[i] != ROLE_TRAINS && is_lent(c, c->all[i])) roles[i] = ROLE_NONE;
  }
  return st;
}

/* ---- visits -------------------------------------------------------------- */

void fli_visits_clear(fli_job *front, fli_lane *lane)
{
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    fli_participant *who = lane->visits[i].participant;
    if (!who) continue;
    who->visit = FLI_NO_MEMBER;
    front->registry.is_sweep_due |= who->is_leaving;
  }
  fli_free(front->context, lane->sketches,
           lane->n_visits * front->cohorts->row);
  fli_free(front->context, lane->visits, lane->room * sizeof *lane->visits);
  lane->visits = NULL;
  lane->sketches = NULL;
  lane->n_visits = lane->n_open = lane->room = 0;
  lane->is_drawn = 0;
  front->cohorts->ends++;
  memset(&lane->end, 0, sizeof lane->end);
}

static uint32_t index_of(const fli_job *front, const fli_lane *lane)
{
  return (uint32_t)(lane - front->cohorts->lanes);
}

static fl_status take_visits(const candidates *c, const uint8_t *roles)
{
  fli_lane *lane = c->lane;
  const size_t row = c->front->cohorts->row;
  uint32_t count = 0;
  for (uint32_t i = 0; i < c->n; i++)
    count += roles[i] != 0;
  lane->visits = fli_alloc(c->front->context, count, sizeof *lane->visits);
  if (!lane->visits) return fli_nomem(count * sizeof *lane->visits);
  lane->n_visits = lane->room = count;
  /* APART, it is not known yet who stays. */
  if (row > 0 && c->asker == c->front) {
    lane->sketches = fli_alloc(c->front->context, count, row);
    if (!lane->sketches) return fli_nomem(count * row);
  }
  for (uint32_t i = 0, at = 0; i < c->n; i++) {
    if (!roles[i]) continue;
    fli_visit *visit = &lane->visits[at];
    visit->participant = c->all[i];
    visit->slot = c->all[i]->slot;
    visit->trains = roles[i] == ROLE_TRAINS;
    const int is_guest = is_lent(c, c->all[i]);
    const fl_status st = fli_visit_begin(c->front, lane, visit);
    if (st != FL_OK) return st;
    if (is_guest) fli_visit_lend(visit, c->asker->cohort);
    c->all[i]->visit = at++;
    c->all[i]->lane = index_of(c->front, lane);
    lane->n_open += visit->is_open;
  }
  return FL_OK;
}

/* ---- candidates ---------------------------------------------------------- */

static void keep_candidates(candidates *c)
{
  uint32_t kept = 0;
  for (uint32_t i = 0; i < c->n; i++) {
    if (fli_census_is_candidate(c->asker, c->all[i]) ||
        fli_census_is_lent(c->asker, c->all[i]))
      c->all[kept++] = c->all[i];
  }
  c->n = kept;
}

/* Its share of those who tell losses only. */
static fl_status find_probed(candidates *c)
{
  const fl_cohort_set *set = c->front->cohorts->set;
  uint32_t counts[FL_COHORT_MAX] = {0};
  const fl_status st =
      fl_cohort_set_plan(set, c->front->options.cohort_probed,
                         FL_COHORT_BY_SIZE, counts, fl_cohort_set_cap(set));
  c->probed = counts[c->asker->cohort];
  return st;
}

static fl_status find_sizes(candidates *c)
{
  fl_status st = FL_OK;
  c->most = fli_select_size(c->front);
  c->probed = c->front->options.cohort_probed;
  if (c->asker == c->front) return FL_OK;
  c->most = c->front->cohorts->census.want[c->asker->cohort];
  FLI_TRY(find_probed(c));
  fli_guests_borrow(c->asker);
  const uint32_t guests = c->lane->n_guests;
  if (c->most + guests > FL_MAX_SLOTS) c->most = FL_MAX_SLOTS - guests;
  c->most -= guests < c->most ? guests : c->most;
  keep_candidates(c);
out:
  return st;
}

fl_status fli_visits_draw(fli_job *asker)
{
  fli_job *front = asker->front ? asker->front : asker;
  candidates c = {.asker = asker, .front = front, .lane = fli_lane_of(asker)};
  fl_status st = FL_OK;
  uint8_t *roles = NULL;
  FLI_TRY(fli_registry_sorted(front, FLI_CAP_TRAIN, &c.all, &c.room));
  c.n = c.room;
  FLI_TRY(find_sizes(&c));
  roles = fli_alloc(front->context, c.room, 1);
  if (!roles) FLI_TRY(fli_nomem(c.room));
  FLI_TRY(find_roles(&c, roles));
  FLI_TRY(take_visits(&c, roles));
  for (uint32_t i = 0; i < c.lane->n_visits; i++) {
    const fli_visit *visit = &c.lane->visits[i];
    if (visit->is_open) (void)fli_visits_resync(visit->participant->peer);
  }
out:
  fli_free(front->context, roles, c.room);
  fli_free(front->context, c.all, c.room * sizeof *c.all);
  return st;
}
