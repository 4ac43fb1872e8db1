/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked before a round: every client that was drawn is a visit, and
 * tells the losses of those models that the set wants compared, one model at a
 * time. What it says is believed as far as the set checks it; what is no number
 * costs it the round. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

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

/* What is held is not what the set thinks that it is. */
static void drop_held(const fli_job *front, fl_cohort_route *route)
{
  const uint64_t held = fli_held_mask(front);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < route->n_probes; i++) {
    if (held >> route->probes[i] & 1) continue;
    route->probes[kept++] = route->probes[i];
  }
  route->n_probes = kept;
}

static fl_status find_route(const fli_job *front, const fli_lane *lane,
                            const fli_visit *visit, double loss,
                            fl_cohort_route *route)
{
  fl_status st = fl_cohort_route_init(route, sizeof *route);
  if (st == FL_OK) {
    st = fl_cohort_set_route(front->cohorts->set, visit->slot, lane->turn, loss,
                             route);
  }
  if (st == FL_OK) drop_held(front, route);
  return st;
}

/* With one cohort there is nothing to tell; with more, everybody tells at
 * least the loss of its own model, always before training, so that losses are
 * of one kind. */
fl_status fli_visit_begin(const fli_job *front, const fli_lane *lane,
                          fli_visit *visit)
{
  const fl_cohort_set *set = front->cohorts->set;
  fl_cohort_route route;
  const fl_status st = find_route(front, lane, visit, (double)NAN, &route);
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

void fli_visit_lend(fli_visit *visit, uint32_t cohort)
{
  visit->cohort = cohort;
  visit->limit = INFINITY;
  visit->chooses = visit->is_open = 0;
  visit->n_probes = visit->n_told = 0;
  visit->trains = 1;
}

static void close_visit(fli_lane *lane, fli_visit *visit)
{
  if (!visit->is_open) return;
  visit->is_open = 0;
  lane->n_open--;
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
static void widen(const fli_job *front, const fli_lane *lane, fli_visit *visit)
{
  fl_cohort_route route;
  if (visit->chooses || !(visit->losses[0] > visit->limit)) return;
  if (find_route(front, lane, visit, visit->losses[0], &route) != FL_OK) return;
  visit->limit = INFINITY;
  if (route.chooses) take_route(visit, &route);
}

static int is_last(const fli_visit *visit)
{
  return visit->n_told >= visit->n_probes;
}

/* ---- answers ------------------------------------------------------------- */

static fli_lane *lane_of(const fli_participant *who)
{
  return &who->home->cohorts->lanes[who->lane];
}

fli_visit *fli_visit_of(const fli_participant *participant)
{
  if (!participant || !participant->home->cohorts ||
      participant->visit >= FLI_GUEST)
    return NULL;
  return &lane_of(participant)->visits[participant->visit];
}

fli_visit *fli_visit_open(const fli_participant *participant)
{
  fli_visit *visit = fli_visit_of(participant);
  return visit && visit->is_open ? visit : NULL;
}

void fli_visits_lose(fli_participant *participant)
{
  fli_visit *visit = fli_visit_open(participant);
  if (!visit) return;
  visit->is_lost = 1;
  close_visit(lane_of(participant), visit);
}

/* 0: it is about another round, or another model than the one asked. */
static int is_answer(const fli_participant *who, const fli_visit *visit,
                     const fli_metrics *metrics)
{
  if (!visit || visit->n_told >= visit->n_probes) return 0;
  const fli_job *asker = fli_lane_job(who->home, who->lane);
  const fli_job *leaf =
      fli_cohorts_leaf(who->home, visit->probes[visit->n_told]);
  if (!leaf) return 0;
  const uint64_t version =
      visit->is_sent ? visit->sent_version : leaf->store.canonical.version;
  return metrics->round == asker->round && metrics->attempt == asker->attempt &&
         metrics->cohort == leaf->cohort && metrics->model_version == version;
}

/* One loss was told, or is not wanted any more: the next one, or the end. */
static void go_on(fli_participant *who, fli_visit *visit)
{
  visit->is_sent = 0;
  if (!is_last(visit)) {
    (void)fli_visits_resync(who->peer);
    return;
  }
  choose(visit);
  close_visit(lane_of(who), visit);
}

fl_status fli_visits_on_metrics(fli_peer *peer, const fli_metrics *metrics)
{
  fli_participant *who = peer->participant;
  fli_visit *visit = fli_visit_open(who);
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
  if (visit->n_told == 1) widen(who->home, lane_of(who), visit);
  go_on(who, visit);
  return FL_OK;
}

/* 1: it was among the probes. */
static int drop_probe(fli_visit *visit, uint32_t cohort)
{
  uint32_t at = 0;
  while (at < visit->n_probes && visit->probes[at] != cohort)
    at++;
  if (at == visit->n_probes) return 0;
  visit->n_told = (uint8_t)(visit->n_told - (at < visit->n_told));
  visit->n_probes--;
  for (; at < visit->n_probes; at++) {
    visit->probes[at] = visit->probes[at + 1];
    visit->losses[at] = visit->losses[at + 1];
  }
  return 1;
}

void fli_visits_forget(fli_job *front, uint32_t cohort)
{
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_lane *lane = &front->cohorts->lanes[i];
    for (uint32_t k = 0; k < lane->n_visits; k++) {
      fli_visit *visit = &lane->visits[k];
      if (drop_probe(visit, cohort) && visit->is_open)
        go_on(visit->participant, visit);
    }
    for (uint32_t k = 0; k < lane->n_guests; k++)
      (void)drop_probe(&lane->guests[k], cohort);
  }
}

int fli_visits_on_decline(fli_peer *peer, const fli_decline *decline)
{
  const fli_participant *who = peer->participant;
  if (!fli_visit_open(who)) return 0;
  const fli_job *asker = fli_lane_job(who->home, who->lane);
  if (decline->round != asker->round || decline->attempt != asker->attempt)
    return 0;
  fli_visits_lose(peer->participant);
  return 1;
}

/* ---- what is said -------------------------------------------------------- */

int fli_visits_resync(fli_peer *peer)
{
  if (!peer || !fli_visit_open(peer->participant)) return 0;
  fli_peer_add_due(peer, FLI_DUE_PROBE_MODEL | FLI_DUE_PROBE);
  return 1;
}

int fli_visits_are_asking(const fli_peer *peer)
{
  const fli_visit *visit = fli_visit_open(peer->participant);
  return visit && visit->is_sent && (peer->due & FLI_DUE_PROBE) != 0;
}

static fli_job *asked_of(const fli_peer *peer)
{
  const fli_visit *visit = fli_visit_open(peer->participant);
  if (!visit) return NULL;
  return fli_cohorts_leaf(peer->participant->home,
                          visit->probes[visit->n_told]);
}

static void note_sent(fli_peer *peer, const fli_job *leaf)
{
  fli_visit *visit = fli_visit_open(peer->participant);
  visit->is_sent = 1;
  visit->sent_version = leaf->store.canonical.version;
  memcpy(visit->sent_hash, leaf->store.hash, sizeof visit->sent_hash);
}

static fl_status send_probe(fli_peer *peer, fli_job *leaf)
{
  const fli_participant *who = peer->participant;
  fli_manifest manifest = {0};
  fli_blob *blob = NULL;
  fl_status st = fli_store_transfer(&leaf->store, 0, 0, &blob, &manifest);
  if (st != FL_OK) return st;
  manifest.kind = FLI_TRANSFER_PROBE;
  manifest.round = fli_lane_job(who->home, who->lane)->round;
  manifest.has_cohort = 1;
  manifest.cohort = leaf->cohort;
  return fli_outbox_download(peer, blob, &manifest, leaf->cohort);
}

fl_status fli_visits_write_model(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  fli_job *leaf = asked_of(peer);
  if (!leaf) return FL_OK;
  note_sent(peer, leaf);
  if (leaf == who->job) return fli_outbox_model(peer);
  if (who->probe_cohort == leaf->cohort &&
      who->probe_version == leaf->store.canonical.version) {
    return FL_OK;
  }
  return send_probe(peer, leaf);
}

fl_status fli_visits_write_probe(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  const fli_job *leaf = asked_of(peer);
  if (!leaf) return FL_OK;
  const fli_job *asker = fli_lane_job(who->home, who->lane);
  const fli_visit *visit = fli_visit_open(who);
  fli_evaluate message = {.round = asker->round,
                          .model_version = visit->sent_version,
                          .is_probe = 1,
                          .cohort = leaf->cohort,
                          .attempt = asker->attempt};
  memcpy(message.model_hash, visit->sent_hash, sizeof message.model_hash);
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

static fl_status report(const fli_cohorts *cohorts, const fli_lane *lane,
                        uint32_t at)
{
  const fli_visit *visit = &lane->visits[at];
  const uint8_t *row = lane->sketches + at * cohorts->row;
  uint32_t probes[FL_COHORT_MAX];
  fl_cohort_report what;
  fl_status st = fl_cohort_report_init(&what, sizeof what);
  if (st != FL_OK) return st;
  for (uint32_t i = 0; i < visit->n_told; i++)
    probes[i] = visit->probes[i];
  what.cohort = visit->cohort;
  what.round = lane->turn;
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

fl_status fli_visits_report(fli_job *front, fli_lane *lane)
{
  const fli_cohorts *cohorts = front->cohorts;
  for (; lane->end.n_reported < lane->n_visits; lane->end.n_reported++) {
    const fli_visit *visit = &lane->visits[lane->end.n_reported];
    const int has_answered = visit->n_told > 0 &&
                             visit->n_told == visit->n_probes &&
                             !visit->is_lost;
    const int has_trained =
        visit->is_counted && (visit->has_sketch || cohorts->row == 0);
    if (!has_trained && (visit->is_counted || !has_answered)) continue;
    /* What the set will not take teaches it nothing. */
    const fl_status st = report(cohorts, lane, lane->end.n_reported);
    if (st == FL_E_NOMEM) return st;
    fli_clear_error();
  }
  return FL_OK;
}
