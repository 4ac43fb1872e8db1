/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of fl_cohort_set, driven as a server would. A client's slot is its
 * number. */
#include "cohorts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER = 7000, SKETCH = 8000, ASKED = 11000, MODEL_STEP = 7919 };

static void open_set(run *r, uint32_t kind)
{
  r->options.rule = kind;
  r->options.seed = CLUSTER + r->w->seed;
  cohorts_must(fl_cohort_set_new(&r->set, NULL, &r->options), "set");
  r->seen = r->set;
  for (uint32_t i = 0; i < r->w->n; i++) {
    uint32_t slot;
    cohorts_must(fl_cohort_set_join(r->set, i, 0, NULL, 0, &slot, NULL),
                 "join");
    if (slot != i) cohorts_must(FL_E_INTERNAL, "slots");
  }
}

static void begin_models(run *r, uint32_t n)
{
  float *weights = cohorts_get(COHORTS_WEIGHTS, sizeof *weights);
  for (uint32_t m = 0; m < n; m++) {
    net_draw(weights, r->w->seed + (uint64_t)MODEL_STEP * m);
    run_model(r, m, weights);
  }
  free(weights);
}

static fl_cohort_member member_of(const run *r, uint32_t client)
{
  fl_cohort_member member;
  cohorts_must(fl_cohort_member_init(&member, sizeof member), "member");
  cohorts_must(fl_cohort_set_get_member(r->seen, client, &member), "member");
  return member;
}

/* ---- events -------------------------------------------------------------- */

void run_drop(run *r, uint32_t model)
{
  free(r->models[model]);
  free(r->sums[model]);
  r->models[model] = r->sums[model] = NULL;
  r->counts[model] = 0;
}

static void average_into(float *kept, const float *gone, double a, double b)
{
  const double sum = a + b > 0.0 ? a + b : 1.0;
  for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++) {
    kept[i] = (float)((a * (double)kept[i] + b * (double)gone[i]) / sum);
  }
}

const char *event_name(uint32_t kind)
{
  static const char *const names[] = {"?",      "trial", "kept",   "again",
                                      "undone", "moved", "merged", "split"};
  return names[kind < sizeof names / sizeof *names ? kind : 0];
}

static void follow(run *r)
{
  fl_cohort_event e;
  cohorts_must(fl_cohort_event_init(&e, sizeof e), "event");
  while (fl_cohort_set_poll(r->set, &e) == FL_OK) {
    if (r->on_event) r->on_event(r, &e);
    if (e.kind == FL_COHORT_TRIAL || e.kind == FL_COHORT_SPLIT)
      run_model(r, e.child, r->models[e.cohort]);
    if (e.kind == FL_COHORT_UNDONE || e.kind == FL_COHORT_MERGED) {
      average_into(r->models[e.cohort], r->models[e.child], (double)e.weight,
                   (double)e.child_weight);
    }
    if (e.kind == FL_COHORT_UNDONE || e.kind == FL_COHORT_MERGED ||
        e.kind == FL_COHORT_MOVED) {
      run_drop(r, e.child);
    }
  }
}

/* ---- a client ------------------------------------------------------------ */

/* What a client has been sent, and has measured. */
typedef struct visit {
  fl_cohort_route route;
  double losses[FL_COHORT_MAX];
  uint32_t cohort;
  double loss; /* of the cohort's model; NaN: not measured */
  uint64_t down;
} visit;

static void measure(run *r, uint32_t client, visit *v)
{
  double best = INFINITY;
  v->down = v->route.n_probes ? v->route.n_probes : 1;
  for (uint32_t i = 0; i < v->route.n_probes; i++) {
    const uint32_t m = v->route.probes[i];
    v->losses[i] = net_loss(r->net, r->w, client, r->models[m]);
    if (v->route.chooses && v->losses[i] < best) {
      best = v->losses[i];
      v->cohort = m;
    }
  }
  for (uint32_t i = 0; i < v->route.n_probes; i++) {
    if (v->route.probes[i] == v->cohort) v->loss = v->losses[i];
  }
}

static visit visit_client(run *r, uint32_t client, uint32_t t)
{
  visit v = {.loss = NAN};
  cohorts_must(fl_cohort_route_init(&v.route, sizeof v.route), "route");
  cohorts_must(fl_cohort_set_route(r->set, client, t, NAN, &v.route), "route");
  v.cohort = v.route.cohort;
  measure(r, client, &v);
  if (r->is_reference || v.route.chooses) return v;
  if (isnan(v.loss))
    v.loss = net_loss(r->net, r->w, client, r->models[v.cohort]);
  if (v.loss <= v.route.limit) return v;
  cohorts_must(fl_cohort_set_route(r->set, client, t, v.loss, &v.route),
               "route");
  measure(r, client, &v);
  return v;
}

static void report(run *r, uint32_t client, uint32_t t, const visit *v,
                   fl_cohort_report *what)
{
  what->cohort = v->cohort;
  what->round = t;
  what->n_probes = v->route.n_probes;
  what->probes = v->route.probes;
  what->losses = v->losses;
  fl_status st = fl_cohort_set_report(r->set, client, what);
  cohorts_must(st, "report");
}

static void train_client(run *r, uint32_t client, uint32_t t)
{
  uint8_t sketch[2048];
  size_t size = 0;
  fl_cohort_report what;
  visit v = visit_client(r, client, t);
  r->down += v.down - 1;
  cohorts_must(fl_cohort_report_init(&what, sizeof what), "report");
  what.loss = run_train(r, client, v.cohort);
  if (!r->is_reference && !isnan(v.loss)) what.loss = v.loss;
  if (r->sketcher) {
    cohorts_must(fl_sketcher_write(r->sketcher, r->update, COHORTS_WEIGHTS,
                                   sketch, sizeof sketch, &size),
                 "sketch");
    what.sketch = sketch;
    what.sketch_size = size;
  }
  what.feature = r->feature;
  const uint32_t tail = r->options.dim;
  for (uint32_t i = 0; r->feature && i < tail; i++)
    r->feature[i] = -r->update[COHORTS_WEIGHTS - tail + i];
  report(r, client, t, &v, &what);
}

/* Nobody trains: some clients, each in its turn, tell losses, until as many
 * models were sent as the round will train. */
static void evaluate_some(run *r, uint32_t t)
{
  fl_cohort_report what;
  const uint64_t most = r->eval_down + r->per_round;
  if (fl_cohort_set_count(r->set) < 2) return;
  for (uint32_t i = 0; i < r->evaluated && r->eval_down < most; i++) {
    uint32_t client = r->asked[r->next_asked++ % r->w->n];
    visit v = visit_client(r, client, t);
    r->eval_down += v.down;
    cohorts_must(fl_cohort_report_init(&what, sizeof what), "report");
    what.has_trained = 0;
    if (v.route.n_probes == 0) {
      v.route.n_probes = 1;
      v.route.probes[0] = v.cohort;
      v.losses[0] = v.loss;
    }
    report(r, client, t, &v, &what);
  }
}

/* ---- SKETCH -------------------------------------------------------------- */

static void begin_sketch(run *r)
{
  stream s = stream_of(ASKED, r->w->seed);
  open_set(r, FL_COHORT_SKETCH);
  cohorts_must(fl_sketcher_new(&r->sketcher, NULL, SKETCH + r->w->seed,
                               COHORTS_WEIGHTS,
                               r->options.dim ? r->options.dim : 512),
               "sketcher");
  r->asked = cohorts_get(r->w->n, sizeof *r->asked);
  for (uint32_t i = 0; i < r->w->n; i++)
    r->asked[i] = i;
  stream_pick(&s, r->asked, r->w->n, r->w->n);
  begin_models(r, 1);
}

static void end_all(run *r, uint32_t t)
{
  run_average(r);
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    if (r->models[m])
      cohorts_must(fl_cohort_set_end_round(r->set, m, t), "end of round");
  }
  cohorts_must(fl_cohort_set_decide(r->set), "decision");
  follow(r);
}

static void round_sketch(run *r, uint32_t t)
{
  if (!r->is_reference) evaluate_some(r, t);
  run_pick(r, r->per_round);
  for (uint32_t i = 0; i < r->per_round; i++)
    train_client(r, r->order[i], t);
  end_all(r, t);
}

static uint32_t best_of(run *r, uint32_t client, float *const *models)
{
  uint32_t best = 0;
  double least = INFINITY;
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    if (!models[m]) continue;
    double loss = net_loss(r->net, r->w, client, models[m]);
    if (loss >= least) continue;
    least = loss;
    best = m;
  }
  return best;
}

/* A trial that is not decided counts as undone; who does not know tries all. */
static void view_sketch(run *r, float **models)
{
  uint32_t home[COHORTS_CAP];
  uint64_t members[COHORTS_CAP] = {0};
  uint32_t alive = 0;
  memcpy(models, r->models, sizeof r->models);
  for (uint32_t m = 0; m < fl_cohort_set_cap(r->seen); m++) {
    fl_cohort_info info;
    cohorts_must(fl_cohort_info_init(&info, sizeof info), "info");
    cohorts_must(fl_cohort_set_get_info(r->seen, m, &info), "info");
    home[m] =
        info.sibling != FL_COHORT_NONE && info.sibling < m ? info.sibling : m;
    members[m] = info.members;
    if (!info.is_alive || home[m] == m) {
      alive += info.is_alive;
      continue;
    }
    if (!r->joined[home[m]]) {
      r->joined[home[m]] = cohorts_get(COHORTS_WEIGHTS, sizeof(float));
    }
    memcpy(r->joined[home[m]], models[home[m]],
           COHORTS_WEIGHTS * sizeof(float));
    average_into(r->joined[home[m]], models[m], (double)members[home[m]],
                 (double)members[m]);
    models[home[m]] = r->joined[home[m]];
    models[m] = NULL;
  }
  for (uint32_t i = 0; i < r->w->n; i++) {
    fl_cohort_member member = member_of(r, i);
    r->assign[i] = home[member.cohort];
    if (member.is_unknown && alive > 1) r->assign[i] = best_of(r, i, models);
  }
}

/* ---- AUXO ---------------------------------------------------------------- */

static void begin_auxo(run *r)
{
  r->options.dim = COHORTS_WEIGHTS / 10;
  if (r->options.cap == 0) r->options.cap = COHORTS_GROUPS;
  r->feature = cohorts_get(r->options.dim, sizeof *r->feature);
  open_set(r, FL_COHORT_AUXO);
  begin_models(r, 1);
}

/* Cohorts one after the other, the participants shared equally; each has rounds
 * of its own, for who has been moved may train for the next one, too. */
static void round_auxo(run *r, uint32_t t)
{
  const uint32_t n_cohorts = fl_cohort_set_count(r->set);
  for (uint32_t m = 0; m < n_cohorts; m++) {
    const uint32_t round = t * COHORTS_CAP + m;
    uint32_t n = 0, want = r->per_round / n_cohorts;
    for (uint32_t i = 0; i < r->w->n; i++) {
      if (member_of(r, i).cohort == m) r->order[n++] = i;
    }
    stream_pick(&r->participants, r->order, n, want);
    for (uint32_t i = 0; i < want && i < n; i++)
      train_client(r, r->order[i], round);
    run_average(r);
    cohorts_must(fl_cohort_set_end_round(r->set, m, round), "end of round");
    cohorts_must(fl_cohort_set_decide(r->set), "decision");
    follow(r);
  }
}

static void view_auxo(run *r, float **models)
{
  memcpy(models, r->models, sizeof r->models);
  if (r->place) {
    r->place(r);
    return;
  }
  for (uint32_t i = 0; i < r->w->n; i++)
    r->assign[i] = member_of(r, i).cohort;
}

/* ---- LOSS ---------------------------------------------------------------- */

static void begin_loss(run *r)
{
  r->options.cap = r->options.cap ? r->options.cap : COHORTS_GROUPS;
  open_set(r, FL_COHORT_LOSS);
  begin_models(r, r->options.cap);
}

static void round_loss(run *r, uint32_t t)
{
  run_pick(r, r->per_round);
  for (uint32_t i = 0; i < r->per_round; i++)
    train_client(r, r->order[i], t);
  end_all(r, t);
}

static void view_loss(run *r, float **models)
{
  memcpy(models, r->models, sizeof r->models);
  for (uint32_t i = 0; i < r->w->n; i++)
    r->assign[i] = best_of(r, i, models);
}

const rule rule_sketch = {"sketch", begin_sketch, round_sketch, view_sketch};
const rule rule_auxo = {"auxo", begin_auxo, round_auxo, view_auxo};
const rule rule_loss = {"loss", begin_loss, round_loss, view_loss};
