/* SPDX-License-Identifier: Apache-2.0 */
/* What the front of cohorts is made of: the set, a leaf for each cohort, and
 * who belongs where. */
#include "server/cohorts.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "base/rng.h"
#include "server/rule.h"

#define SCATTER .05f
enum { DIM_SKETCH = 512, AUXO_SHARE = 10, AUXO_MOST = 1 << 20 };

/* ---- options ------------------------------------------------------------- */

fl_status fli_cohorts_check(const fl_job_options *options)
{
  if (options->cohort_sketches > FL_SKETCH_FLOATS)
    return fli_error(FL_E_OPTIONS, "cohort_sketches: got %u, want FL_SKETCH_*",
                     options->cohort_sketches);
  if (options->cohort_pace > FL_COHORT_APART)
    return fli_error(FL_E_OPTIONS, "cohort_pace: got %u, want FL_COHORT_*",
                     options->cohort_pace);
  if (options->cohort_share < FL_COHORT_BY_SIZE ||
      options->cohort_share > FL_COHORT_BY_LOSS)
    return fli_error(FL_E_OPTIONS, "cohort_share: got %u, want FL_COHORT_*",
                     options->cohort_share);
  if (!options->cohorts) return FL_OK;
  if (options->cohort_sketches == FL_SKETCH_LANES &&
      options->codec->codec != FL_CODEC_THC)
    return fli_error(FL_E_CONFLICT,
                     "cohort_sketches: got LANES with codec %u, want THC",
                     options->codec->codec);
  if (options->freeze || options->error_feedback)
    return fli_error(FL_E_CONFLICT,
                     "cohorts: got some with %s, want one or the other",
                     options->freeze ? "freeze" : "error_feedback");
  /* Controls are sent as probes are, and are one model's. */
  if (options->strategy && options->strategy->rule == FL_RULE_SCAFFOLD)
    return fli_error(FL_E_CONFLICT,
                     "cohorts: got some with SCAFFOLD, want one or the other");
  if (options->rounds > INT32_MAX)
    return fli_error(FL_E_CONFLICT, "rounds: got %u with cohorts, want < 2^31",
                     options->rounds);
  return FL_OK;
}

/* What is 0 is the job's to say. */
static fl_status take_options(fli_job *front, const fl_cohort_options *given)
{
  fli_cohorts *cohorts = front->cohorts;
  fl_cohort_options *o = &cohorts->options;
  const uint64_t n = front->store.canonical.n;
  uint8_t key[FLI_KEY_BYTES];
  fl_status st = fl_cohort_options_init(o, sizeof *o);
  if (st == FL_OK)
    st = fli_options_load(o, sizeof *o, given, "fl_cohort_options");
  if (st != FL_OK) return st;
  fli_derive(key, front->seed, "cohorts", 0, 0);
  if (o->seed == 0) o->seed = fli_load_u64(key);
  if (o->job == 0) o->job = fli_load_u64(key + 8);
  o->key = NULL;
  o->clients = 0;
  if (o->rule == FL_COHORT_AUXO && o->dim == 0) {
    o->dim =
        n / AUXO_SHARE > AUXO_MOST ? AUXO_MOST : (uint32_t)(n / AUXO_SHARE);
    if (o->dim == 0) o->dim = 1;
  }
  if (o->rule == FL_COHORT_AUXO && o->dim > n)
    return fli_error(FL_E_OPTIONS, "cohorts.dim: got %u of %" PRIu64 " values",
                     o->dim, n);
  if (o->rule == FL_COHORT_SKETCH && o->dim == 0) o->dim = DIM_SKETCH;
  return FL_OK;
}

/* The set has checked them; those that it copied are needed to save it. */
static void own_splits(fli_cohorts *cohorts)
{
  fl_cohort_options *o = &cohorts->options;
  for (uint32_t i = 0; i < o->n_splits; i++)
    cohorts->splits[i] = o->splits[i];
  o->splits = o->n_splits > 0 ? cohorts->splits : NULL;
}

static fl_status make_sketcher(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  const fl_cohort_options *o = &cohorts->options;
  const uint32_t source = front->options.cohort_sketches;
  cohorts->row = o->rule == FL_COHORT_SKETCH ? o->dim / 2
                 : o->rule == FL_COHORT_AUXO ? o->dim * sizeof(float)
                                             : 0;
  if (o->rule != FL_COHORT_SKETCH || source == FL_SKETCH_LANES ||
      (source == FL_SKETCH_AUTO && front->codec.codec == FL_CODEC_THC)) {
    return FL_OK;
  }
  return fl_sketcher_new(&cohorts->sketcher, front->context, o->seed,
                         front->store.canonical.n, o->dim);
}

/* ---- leaves -------------------------------------------------------------- */

uint32_t fli_cohort_of(const fli_job *job)
{
  return job->front ? job->cohort : FL_COHORT_NONE;
}

const fli_job *fli_cohorts_first(const fli_job *job)
{
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    if (job->cohorts->leaves[i]) return job->cohorts->leaves[i];
  }
  return job;
}

fli_job *fli_cohorts_leaf(const fli_job *front, uint32_t cohort)
{
  return cohort < FL_COHORT_MAX ? front->cohorts->leaves[cohort] : NULL;
}

int fli_cohorts_is_apart(const fli_job *front)
{
  return front->options.cohort_pace == FL_COHORT_APART;
}

fli_lane *fli_lane_of(const fli_job *job)
{
  const fli_job *front = job->front ? job->front : job;
  const int has_own = fli_cohorts_is_apart(front) && job->front;
  return &front->cohorts->lanes[has_own ? job->cohort : 0];
}

fli_job *fli_lane_job(fli_job *front, uint32_t lane)
{
  return fli_cohorts_is_apart(front) ? fli_cohorts_leaf(front, lane) : front;
}

static fl_status add_leaf(fli_job *front, uint32_t cohort, fl_model *model)
{
  fl_job_options options = front->options;
  fli_job *leaf = NULL;
  options.cohorts = NULL;
  /* Its numbers are those of all cohorts. */
  if (fli_cohorts_is_apart(front)) options.rounds = UINT32_MAX;
  const fl_status st =
      fli_job_new(&leaf, front->server, front->index, &options, model);
  if (st != FL_OK) return st;
  leaf->front = front;
  leaf->cohort = cohort;
  front->cohorts->leaves[cohort] = leaf;
  return FL_OK;
}

fl_status fli_cohorts_add_leaf(fli_job *front, uint32_t cohort)
{
  fl_model *model = NULL;
  fl_status st = fl_model_from_description(
      &model, front->context, front->description.data, front->description.size);
  if (st == FL_OK) st = add_leaf(front, cohort, model);
  if (st == FL_OK) {
    st = fli_job_set_weights(fli_cohorts_leaf(front, cohort),
                             front->store.canonical.version,
                             front->store.canonical.weights);
  }
  fl_model_free(model);
  return st;
}

void fli_cohorts_drop_leaf(fli_job *front, uint32_t cohort)
{
  fli_job_free(front->cohorts->leaves[cohort]);
  front->cohorts->leaves[cohort] = NULL;
}

/* Loose tensors, which nobody can draw: near the first model's values. */
static void scatter(const fli_job *front, uint32_t cohort, float *weights,
                    uint64_t n)
{
  const float *given = front->store.canonical.weights;
  fli_rng rng;
  fli_rng_init(&rng, front->cohorts->options.seed, FLI_RNG_COHORT, 0, cohort);
  for (uint64_t i = 0; i < n; i++) {
    const float by = SCATTER * (2.0f * fli_rng_f32(&rng) - 1.0f);
    if (weights[i] == 0.0f) weights[i] = given[i] + by;
  }
}

/* LOSS compares models from the start, so they begin different: the first as
 * given, the others as drawn. */
static fl_status draw_model(fli_job *front, uint32_t cohort)
{
  fli_job *leaf = fli_cohorts_leaf(front, cohort);
  fl_model *model = NULL;
  float *weights = NULL;
  uint64_t n = 0;
  fl_status st = fl_model_from_description(
      &model, front->context, front->description.data, front->description.size);
  if (st == FL_OK)
    st = fl_model_init_weights(model, front->cohorts->options.seed + cohort);
  if (st == FL_OK) st = fl_model_get_weights(model, &weights, &n);
  if (st == FL_OK) scatter(front, cohort, weights, n);
  if (st == FL_OK) st = fli_job_set_weights(leaf, 0, weights);
  fl_model_free(model);
  return st;
}

fl_status fli_cohorts_init(fli_job *front, const fl_cohort_options *given)
{
  fl_status st = FL_OK;
  if (!given) return FL_OK;
  front->cohorts = fli_alloc(front->context, 1, sizeof *front->cohorts);
  if (!front->cohorts) return fli_nomem(sizeof *front->cohorts);
  FLI_TRY(take_options(front, given));
  FLI_TRY(fl_cohort_set_new(&front->cohorts->set, front->context,
                            &front->cohorts->options));
  own_splits(front->cohorts);
  FLI_TRY(make_sketcher(front));
  for (uint32_t i = 0; i < fl_cohort_set_count(front->cohorts->set); i++) {
    FLI_TRY(fli_cohorts_add_leaf(front, i));
    if (i > 0) FLI_TRY(draw_model(front, i));
  }
out:
  return st;
}

void fli_cohorts_free(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  if (!cohorts) return;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_visits_clear(front, &cohorts->lanes[i]);
    fli_guests_release(front, &cohorts->lanes[i]);
    fli_cohorts_drop_leaf(front, i);
  }
  fli_scores_free(front);
  fl_sketcher_free(cohorts->sketcher);
  fl_cohort_set_free(cohorts->set);
  fli_free(front->context, cohorts, sizeof *cohorts);
  front->cohorts = NULL;
}

/* ---- participants -------------------------------------------------------- */

static uint64_t number_of(const char *id)
{
  uint8_t digest[FLI_HASH_BYTES];
  fli_hash(digest, id, strlen(id));
  return fli_hash_id(digest);
}

static fli_job *leaf_of(const fli_participant *participant)
{
  fl_cohort_member member;
  const fli_job *front = participant->home;
  fl_status st = fl_cohort_member_init(&member, sizeof member);
  if (st == FL_OK)
    st = fl_cohort_set_get_member(front->cohorts->set, participant->slot,
                                  &member);
  fli_job *leaf = st == FL_OK ? fli_cohorts_leaf(front, member.cohort) : NULL;
  /* A birth that is held (cohort_held.c) has no leaf: its clients are the first
   * one's, until the event is followed and all are placed anew. */
  for (uint32_t i = 0; !leaf && i < FL_COHORT_MAX; i++)
    leaf = front->cohorts->leaves[i];
  return leaf;
}

fl_status fli_cohorts_join(fli_participant *participant)
{
  fli_job *front = participant->home;
  if (!front->cohorts) return FL_OK;
  const fl_status st = fl_cohort_set_join(
      front->cohorts->set, number_of(participant->id), (uint32_t)front->round,
      NULL, 0, &participant->slot, NULL);
  if (st != FL_OK) return st;
  fli_cohorts_place(participant, leaf_of(participant));
  return FL_OK;
}

fl_status fli_cohorts_find(fli_participant *participant)
{
  return fl_cohort_set_find(participant->home->cohorts->set,
                            number_of(participant->id), &participant->slot);
}

static int is_same_model(const fli_job *a, const fli_job *b)
{
  return a->store.canonical.version == b->store.canonical.version &&
         memcmp(a->store.hash, b->store.hash, FLI_HASH_BYTES) == 0;
}

/* What the client holds of it: the model of a leaf that was copied, or a probe
 * that came last. */
static int holds(const fli_participant *who, const fli_job *leaf)
{
  const uint64_t version = leaf->store.canonical.version;
  if (who->has_model && who->model_version == version &&
      is_same_model(who->job, leaf)) {
    return 1;
  }
  return who->probe_cohort == leaf->cohort && who->probe_version == version;
}

void fli_cohorts_place(fli_participant *participant, fli_job *leaf)
{
  if (!leaf || participant->job == leaf) return;
  participant->has_model = holds(participant, leaf);
  participant->model_version = leaf->store.canonical.version;
  participant->job = leaf;
  if (participant->peer && participant->peer->outgoing.is_active)
    fli_peer_drop_download(participant->peer);
  (void)fli_visits_resync(participant->peer);
}

void fli_cohorts_place_all(fli_job *front)
{
  const fli_registry *registry = &front->registry;
  const uint64_t held = fli_held_mask(front);
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (!who || who->member != FLI_NO_MEMBER) continue;
    fli_job *leaf = leaf_of(who);
    if (who->job == front || (held >> leaf->cohort & 1) == 0)
      fli_cohorts_place(who, leaf);
  }
}

/* ---- events -------------------------------------------------------------- */

static void copy_floats(float *dst, const float *src, uint64_t n)
{
  if (dst && src) memcpy(dst, src, (size_t)n * sizeof *dst);
}

/* Moments, controls, the moving clip: as if it had been the child's own. */
static fl_status copy_strategy(const fli_job *child, const fli_job *parent)
{
  fli_bytes state;
  if (!parent->strategy) return FL_OK;
  fli_bytes_init(&state, parent->context);
  fl_status st = fli_strategy_write(parent->strategy, &state);
  if (st == FL_OK)
    st = fli_strategy_read(child->strategy, state.data, state.size);
  fli_bytes_free(&state);
  return st;
}

static fl_status copy_leaf(fli_job *front, uint32_t from, uint32_t to)
{
  const fli_job *parent = fli_cohorts_leaf(front, from);
  const uint64_t n = parent->store.canonical.n;
  fl_status st = fli_cohorts_add_leaf(front, to);
  fli_job *child = fli_cohorts_leaf(front, to);
  if (st == FL_OK)
    st = fli_job_set_weights(child, parent->store.canonical.version,
                             parent->store.canonical.weights);
  if (st == FL_OK && parent->public_norms) {
    child->public_norms = fli_alloc(front->context, (size_t)parent->n_norms,
                                    sizeof *child->public_norms);
    if (!child->public_norms) st = fli_nomem((size_t)parent->n_norms * 4);
  }
  if (st == FL_OK) st = copy_strategy(child, parent);
  if (st != FL_OK) {
    fli_cohorts_drop_leaf(front, to);
    return st;
  }
  copy_floats(child->momentum, parent->momentum, n);
  copy_floats(child->residual, parent->residual, n);
  copy_floats(child->public_norms, parent->public_norms, parent->n_norms);
  child->energy = parent->energy;
  child->correlation = parent->correlation;
  child->is_begun = parent->is_begun;
  return FL_OK;
}

/* Every client gets the new model as a full copy: there is no step to it. */
static fl_status average(fli_job *kept, const fli_job *gone,
                         const fl_cohort_event *event)
{
  const size_t n = (size_t)kept->store.canonical.n;
  const float *a = kept->store.canonical.weights;
  const float *b = gone->store.canonical.weights;
  double share = (double)event->weight, other = (double)event->child_weight;
  if (share + other == 0.0) share = other = 1.0;
  float *mean = fli_alloc(kept->context, n, sizeof *mean);
  if (!mean) return fli_nomem(n * sizeof *mean);
  for (size_t i = 0; i < n; i++) {
    mean[i] = (float)((share * (double)a[i] + other * (double)b[i]) /
                      (share + other));
  }
  const fl_status st =
      fli_job_set_weights(kept, kept->store.canonical.version + 1, mean);
  fli_free(kept->context, mean, n * sizeof *mean);
  return st;
}

static void leave_leaf(fli_job *front, const fli_job *gone, fli_job *kept)
{
  const fli_registry *registry = &front->registry;
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (!who) continue;
    if (who->probe_cohort == gone->cohort) who->probe_cohort = FL_COHORT_NONE;
    if (who->peer && who->peer->outgoing.is_active &&
        who->peer->blob_cohort == gone->cohort)
      fli_peer_drop_download(who->peer);
    if (who->job == gone) fli_cohorts_place(who, kept);
  }
}

static fl_status change(fli_job *front, const fl_cohort_event *event)
{
  fli_job *kept = fli_cohorts_leaf(front, event->cohort);
  fli_job *other = fli_cohorts_leaf(front, event->child);
  fl_status st = FL_OK;
  switch (event->kind) {
  case FL_COHORT_TRIAL:
  case FL_COHORT_SPLIT: return copy_leaf(front, event->cohort, event->child);
  case FL_COHORT_UNDONE:
  case FL_COHORT_MERGED: st = average(kept, other, event); break;
  case FL_COHORT_MOVED: break;
  default: return FL_OK;
  }
  if (st != FL_OK) return st;
  leave_leaf(front, other, kept);
  fli_cohorts_drop_leaf(front, event->child);
  return FL_OK;
}

static const char *name_of(uint32_t kind)
{
  switch (kind) {
  case FL_COHORT_TRIAL: return "on trial";
  case FL_COHORT_KEPT: return "stay";
  case FL_COHORT_AGAIN: return "are looked at again";
  case FL_COHORT_UNDONE: return "are one again";
  case FL_COHORT_MOVED: return "are one: all moved";
  case FL_COHORT_MERGED: return "are alike";
  default: return "are split";
  }
}

fl_status fli_cohorts_follow(fli_job *front, const fl_cohort_event *event)
{
  fl_server_event news = fli_event_of(front, FL_SERVER_COHORT_CHANGED);
  const fl_status st = change(front, event);
  if (st != FL_OK) return st;
  news.round = front->round;
  news.cohort = event->cohort;
  news.child = event->child;
  news.cohort_change = event->kind;
  news.count = event->n_probes;
  news.cohort_win = event->win;
  news.cohort_lump = event->lump;
  news.selected = fl_cohort_set_count(front->cohorts->set);
  fli_events_add(&front->server->events, &news, "",
                 "cohorts %u, %u: %s, win %.2f, lump %.2f of %u", event->cohort,
                 event->child, name_of(event->kind), (double)event->win,
                 (double)event->lump, event->n_probes);
  return FL_OK;
}

/* ---- what the host may see ----------------------------------------------- */

static fl_status find_front(const fl_server *server, uint32_t job,
                            const fli_job **front)
{
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  if (job >= server->n_jobs)
    return fli_error(FL_E_NOT_FOUND, "job: got %u, want < %zu", job,
                     server->n_jobs);
  *front = server->jobs[job];
  if ((*front)->cohorts) return FL_OK;
  return fli_error(FL_E_STATE, "job %u: has no cohorts", job);
}

fl_status fl_server_get_cohorts(const fl_server *server, uint32_t job,
                                const fl_cohort_set **cohorts)
{
  const fli_job *front = NULL;
  fli_clear_error();
  if (!cohorts) return fli_error(FL_E_ARGUMENT, "cohorts: is NULL");
  const fl_status st = find_front(server, job, &front);
  if (st == FL_OK) *cohorts = front->cohorts->set;
  return st;
}

fl_status fl_server_copy_cohort(const fl_server *server, uint32_t job,
                                uint32_t cohort, float *weights, uint64_t count,
                                uint64_t *version)
{
  const fli_job *front = NULL;
  fli_clear_error();
  if (!weights) return fli_error(FL_E_ARGUMENT, "weights: is NULL");
  const fl_status st = find_front(server, job, &front);
  if (st != FL_OK) return st;
  const fli_job *leaf = fli_cohorts_leaf(front, cohort);
  if (!leaf)
    return fli_error(FL_E_NOT_FOUND, "cohort: got %u, which is none", cohort);
  const fli_canonical *model = &leaf->store.canonical;
  if (count != model->n)
    return fli_error(FL_E_DIM, "weights: got %" PRIu64 ", want %" PRIu64, count,
                     model->n);
  memcpy(weights, model->weights, (size_t)count * sizeof *weights);
  if (version) *version = model->version;
  return FL_OK;
}

fl_status fl_server_find_member(const fl_server *server, uint32_t job,
                                const char *client_id, uint32_t *slot)
{
  const fli_job *front = NULL;
  fli_clear_error();
  if (!client_id || !slot)
    return fli_error(FL_E_ARGUMENT, "fl_server_find_member: NULL argument");
  const fl_status st = find_front(server, job, &front);
  if (st != FL_OK) return st;
  const fli_participant *who = strlen(client_id) < FLI_ID_BYTES
                                   ? fli_registry_find(front, client_id)
                                   : NULL;
  if (!who) return fli_error(FL_E_NOT_FOUND, "client: got one not known");
  *slot = who->slot;
  return FL_OK;
}
