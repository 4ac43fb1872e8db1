/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked before a round: every client that was drawn is a visit, and
 * tells the losses of those models that the set wants compared, one model at a
 * time. What it says is believed as far as the set checks it; what is no number
 * costs it the round. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/rng.h"

/* ---- what one is asked --------------------------------------------------- */

/* The own model first: it is there, or will be needed. */
static void take_route(fli_visit *visit, const fl_cohort_route *route)
{
  visit->chooses = route->chooses != 0;
  visit->n_probes = 0;
  if (route->n_probes == 0) return;
  for (uint32_t i = 0; i < route->n_probes; i++) {
    if (route->probes[i] == route->cohort)
      visit->probes[visit->n_probes++] = (uint8_t)route->cohort;
  }
  for (uint32_t i = 0; i < route->n_probes; i++) {
    if (route->probes[i] != route->cohort)
      visit->probes[visit->n_probes++] = (uint8_t)route->probes[i];
  }
}

static fl_status find_route(const fli_job *front, const fli_visit *visit,
                            double loss, fl_cohort_route *route)
{
  fl_status st = fl_cohort_route_init(route, sizeof *route);
  if (st != FL_OK) return st;
  return fl_cohort_set_route(front->cohorts->set, visit->slot,
                             (uint32_t)front->round, loss, route);
}

/* With one cohort there is nothing to tell; with more, everybody tells at
 * least the loss of its own model, always before training, so that losses are
 * of one kind. */
static fl_status begin_visit(fli_job *front, fli_visit *visit)
{
  const fl_cohort_set *set = front->cohorts->set;
  fl_cohort_route route;
  const fl_status st = find_route(front, visit, (double)NAN, &route);
  if (st != FL_OK) return st;
  visit->cohort = route.cohort;
  visit->limit = route.limit;
  visit->loss = NAN;
  take_route(visit, &route);
  if (visit->n_probes == 0 && fl_cohort_set_count(set) > 1 &&
      front->cohorts->options.rule == FL_COHORT_SKETCH) {
    visit->probes[0] = (uint8_t)route.cohort;
    visit->n_probes = 1;
  }
  visit->is_open = visit->n_probes > 0;
  return FL_OK;
}

static void close_visit(fli_job *front, fli_visit *visit)
{
  if (!visit->is_open) return;
  visit->is_open = 0;
  front->cohorts->n_open--;
}

static void choose(fli_visit *visit)
{
  double least = INFINITY;
  for (uint32_t i = 0; visit->chooses && i < visit->n_told; i++) {
    if (visit->losses[i] >= least) continue;
    least = visit->losses[i];
    visit->cohort = visit->probes[i];
  }
}

/* A loss above the limit: the client compares all. Losses that were told are
 * not asked again. */
static void widen(fli_job *front, fli_visit *visit)
{
  fl_cohort_route route;
  if (visit->chooses || !(visit->losses[0] > visit->limit)) return;
  if (find_route(front, visit, visit->losses[0], &route) != FL_OK) return;
  visit->limit = INFINITY;
  if (route.chooses) take_route(visit, &route);
}

static int is_last(const fli_visit *visit)
{
  return visit->n_told >= visit->n_probes;
}

/* ---- drawing ------------------------------------------------------------- */

enum { ROLE_NONE, ROLE_TRAINS, ROLE_ASKED, ROLE_NEEDED };

/* Those whose comparison a trial needs before they train are not drawn, unless
 * too few were left. */
static fl_status spare_needed(fli_job *front, fli_participant *const *all,
                              uint32_t n, uint8_t *roles)
{
  uint32_t needed = 0;
  for (uint32_t i = 0; i < n; i++) {
    fl_cohort_member member;
    fl_status st = fl_cohort_member_init(&member, sizeof member);
    if (st == FL_OK)
      st = fl_cohort_set_get_member(front->cohorts->set, all[i]->slot, &member);
    if (st != FL_OK) return st;
    if (!member.is_needed || !(all[i]->capabilities & FLI_CAP_EVALUATE))
      continue;
    roles[i] = ROLE_NEEDED;
    needed++;
  }
  if (n - needed >= front->options.min_participants && n > needed) return FL_OK;
  memset(roles, ROLE_NONE, n);
  return FL_OK;
}

/* First those who are needed, then everybody else in an order of its own, of
 * which the next ones have their turn. */
static fl_status pick_probed(fli_job *front, fli_participant *const *all,
                             uint32_t n, uint8_t *roles)
{
  fli_cohorts *cohorts = front->cohorts;
  uint32_t left = front->options.cohort_probed;
  fli_rng rng;
  if (n == 0 || fl_cohort_set_count(cohorts->set) < 2 ||
      cohorts->options.rule != FL_COHORT_SKETCH) {
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
    const uint32_t at = order[(cohorts->next_probed + i) % n];
    if (roles[at] || !(all[at]->capabilities & FLI_CAP_EVALUATE)) continue;
    roles[at] = ROLE_ASKED;
    left--;
    if (left == 0) cohorts->next_probed = (cohorts->next_probed + i + 1) % n;
  }
  fli_free(front->context, order, n * sizeof *order);
  return FL_OK;
}

/* Both lists are sorted by id. */
static fl_status find_roles(fli_job *front, fli_participant **all, uint32_t n,
                            uint8_t *roles)
{
  const uint32_t most = fli_select_size(front);
  uint32_t n_free = 0;
  fl_status st = spare_needed(front, all, n, roles);
  if (st != FL_OK) return st;
  fli_participant **drawn = fli_alloc(front->context, n, sizeof *drawn);
  if (!drawn) return fli_nomem(n * sizeof *drawn);
  for (uint32_t i = 0; i < n; i++) {
    if (!roles[i]) drawn[n_free++] = all[i];
  }
  const uint32_t k = most < n_free ? most : n_free;
  st = fli_select_draw(front, drawn, n_free, k);
  for (uint32_t i = 0, at = 0; st == FL_OK && i < n && at < k; i++) {
    if (drawn[at] != all[i]) continue;
    roles[i] = ROLE_TRAINS;
    at++;
  }
  fli_free(front->context, drawn, n * sizeof *drawn);
  return st == FL_OK ? pick_probed(front, all, n, roles) : st;
}

static fl_status take_visits(fli_job *front, fli_participant **all, uint32_t n,
                             const uint8_t *roles)
{
  fli_cohorts *cohorts = front->cohorts;
  uint32_t count = 0;
  for (uint32_t i = 0; i < n; i++)
    count += roles[i] != 0;
  cohorts->visits = fli_alloc(front->context, count, sizeof *cohorts->visits);
  if (!cohorts->visits) return fli_nomem(count * sizeof *cohorts->visits);
  cohorts->n_visits = count;
  if (cohorts->row > 0) {
    cohorts->sketches = fli_alloc(front->context, count, cohorts->row);
    if (!cohorts->sketches) return fli_nomem(count * cohorts->row);
  }
  for (uint32_t i = 0, at = 0; i < n; i++) {
    if (!roles[i]) continue;
    fli_visit *visit = &cohorts->visits[at];
    visit->participant = all[i];
    visit->slot = all[i]->slot;
    visit->trains = roles[i] == ROLE_TRAINS;
    const fl_status st = begin_visit(front, visit);
    if (st != FL_OK) return st;
    all[i]->visit = at++;
    cohorts->n_open += visit->is_open;
  }
  return FL_OK;
}

fl_status fli_visits_draw(fli_job *front)
{
  fl_status st = FL_OK;
  fli_participant **all = NULL;
  uint8_t *roles = NULL;
  uint32_t n = 0;
  FLI_TRY(fli_registry_sorted(front, FLI_CAP_TRAIN, &all, &n));
  roles = fli_alloc(front->context, n, 1);
  if (!roles) FLI_TRY(fli_nomem(n));
  FLI_TRY(find_roles(front, all, n, roles));
  FLI_TRY(take_visits(front, all, n, roles));
  for (uint32_t i = 0; i < front->cohorts->n_visits; i++) {
    const fli_visit *visit = &front->cohorts->visits[i];
    if (visit->is_open) (void)fli_visits_resync(visit->participant->peer);
  }
out:
  fli_free(front->context, roles, n);
  fli_free(front->context, all, n * sizeof *all);
  return st;
}

/* ---- answers ------------------------------------------------------------- */

static fli_visit *visit_of(const fli_participant *who)
{
  if (!who || !who->home->cohorts || who->visit == FLI_NO_MEMBER) return NULL;
  return &who->home->cohorts->visits[who->visit];
}

fli_visit *fli_visit_of(const fli_participant *participant)
{
  fli_visit *visit = visit_of(participant);
  return visit && visit->is_open &&
                 participant->home->phase == FLI_PHASE_PROBING
             ? visit
             : NULL;
}

void fli_visits_lose(fli_participant *participant)
{
  fli_visit *visit = fli_visit_of(participant);
  if (!visit) return;
  visit->is_lost = 1;
  close_visit(participant->home, visit);
}

/* 0: it is about another round, or another model than the one asked. */
static int is_answer(const fli_participant *who, const fli_visit *visit,
                     const fli_metrics *metrics)
{
  const fli_job *front = who->home;
  const fli_job *leaf =
      visit && visit->n_told < visit->n_probes
          ? fli_cohorts_leaf(front, visit->probes[visit->n_told])
          : NULL;
  return leaf && metrics->round == front->round &&
         metrics->attempt == front->attempt &&
         metrics->cohort == leaf->cohort &&
         metrics->model_version == leaf->store.canonical.version;
}

fl_status fli_visits_on_metrics(fli_peer *peer, const fli_metrics *metrics)
{
  fli_participant *who = peer->participant;
  fli_visit *visit = fli_visit_of(who);
  if (!is_answer(who, visit, metrics)) {
    return fli_peer_ack(peer, metrics->round, metrics->attempt, FL_REJECT_STALE,
                        "%s", fl_reject_text(FL_REJECT_STALE));
  }
  if (!(metrics->loss >= 0.0 && metrics->loss <= 1e30)) {
    fli_visits_lose(who);
    return fli_peer_ack(peer, metrics->round, metrics->attempt, FL_REJECT_RANGE,
                        "probe of cohort %u: loss, got %g", metrics->cohort,
                        metrics->loss);
  }
  visit->losses[visit->n_told++] = metrics->loss;
  if (visit->n_told == 1) widen(who->home, visit);
  if (!is_last(visit)) {
    (void)fli_visits_resync(peer);
    return FL_OK;
  }
  choose(visit);
  close_visit(who->home, visit);
  return FL_OK;
}

int fli_visits_on_decline(fli_peer *peer, const fli_decline *decline)
{
  const fli_participant *who = peer->participant;
  if (!fli_visit_of(who) || decline->round != who->home->round ||
      decline->attempt != who->home->attempt) {
    return 0;
  }
  fli_visits_lose(peer->participant);
  return 1;
}

/* ---- what is said -------------------------------------------------------- */

int fli_visits_resync(fli_peer *peer)
{
  if (!peer || !fli_visit_of(peer->participant)) return 0;
  fli_peer_add_due(peer, FLI_DUE_PROBE_MODEL | FLI_DUE_PROBE);
  return 1;
}

static fli_job *asked_of(const fli_peer *peer)
{
  const fli_visit *visit = fli_visit_of(peer->participant);
  if (!visit) return NULL;
  return fli_cohorts_leaf(peer->participant->home,
                          visit->probes[visit->n_told]);
}

static fl_status send_probe(fli_peer *peer, fli_job *leaf)
{
  fli_manifest manifest = {0};
  fli_blob *blob = NULL;
  fl_status st = fli_store_transfer(&leaf->store, 0, 0, &blob, &manifest);
  if (st != FL_OK) return st;
  manifest.kind = FLI_TRANSFER_PROBE;
  manifest.round = leaf->front->round;
  manifest.has_cohort = 1;
  manifest.cohort = leaf->cohort;
  return fli_outbox_download(peer, blob, &manifest, leaf->cohort);
}

fl_status fli_visits_write_model(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  fli_job *leaf = asked_of(peer);
  if (!leaf) return FL_OK;
  if (leaf == who->job) return fli_outbox_model(peer);
  if (who->probe_cohort == leaf->cohort &&
      who->probe_version == leaf->store.canonical.version) {
    return FL_OK;
  }
  return send_probe(peer, leaf);
}

fl_status fli_visits_write_probe(fli_peer *peer)
{
  const fli_job *leaf = asked_of(peer);
  if (!leaf) return FL_OK;
  fli_evaluate message = {.round = leaf->front->round,
                          .model_version = leaf->store.canonical.version,
                          .is_probe = 1,
                          .cohort = leaf->cohort,
                          .attempt = leaf->front->attempt};
  memcpy(message.model_hash, leaf->store.hash, sizeof message.model_hash);
  return fli_write_evaluate(&peer->queue, &message);
}

/* ---- what the set is told ------------------------------------------------ */

static double own_loss(const fli_visit *visit)
{
  for (uint32_t i = 0; i < visit->n_told; i++) {
    if (visit->probes[i] == visit->cohort) return visit->losses[i];
  }
  /* One of training may be missing: with one cohort it does not matter. */
  return visit->loss >= 0.0 && visit->loss <= 1e30 ? visit->loss : 0.0;
}

static fl_status report(fli_job *front, uint32_t at)
{
  fli_cohorts *cohorts = front->cohorts;
  const fli_visit *visit = &cohorts->visits[at];
  const uint8_t *row = cohorts->sketches + at * cohorts->row;
  uint32_t probes[FL_COHORT_MAX];
  fl_cohort_report what;
  fl_status st = fl_cohort_report_init(&what, sizeof what);
  if (st != FL_OK) return st;
  for (uint32_t i = 0; i < visit->n_told; i++)
    probes[i] = visit->probes[i];
  what.cohort = visit->cohort;
  what.round = (uint32_t)front->round;
  what.has_trained = visit->is_counted;
  what.loss = own_loss(visit);
  what.n_probes = visit->n_told;
  what.probes = probes;
  what.losses = visit->losses;
  if (visit->has_sketch && cohorts->options.rule == FL_COHORT_AUXO)
    what.feature = (const float *)(const void *)row;
  if (visit->has_sketch && cohorts->options.rule == FL_COHORT_SKETCH) {
    what.sketch = row;
    what.sketch_size = cohorts->row;
  }
  return fl_cohort_set_report(cohorts->set, visit->slot, &what);
}

fl_status fli_visits_report(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  for (; cohorts->end.n_reported < cohorts->n_visits;
       cohorts->end.n_reported++) {
    const fli_visit *visit = &cohorts->visits[cohorts->end.n_reported];
    const int has_answered = visit->n_told > 0 &&
                             visit->n_told == visit->n_probes &&
                             !visit->is_lost;
    const int has_trained =
        visit->is_counted && (visit->has_sketch || cohorts->row == 0);
    if (!has_trained && (visit->is_counted || !has_answered)) continue;
    /* What the set will not take teaches it nothing. */
    const fl_status st = report(front, cohorts->end.n_reported);
    if (st == FL_E_NOMEM) return st;
    fli_clear_error();
  }
  return FL_OK;
}
