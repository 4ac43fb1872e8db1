/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of fl_cohort_set through a server's job and real clients: every
 * byte of the protocol, but no sockets, threads or clock. Clients train in
 * their callbacks; what the server decides is read from its events. */
#include "cohorts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER = 7000, SELECT = 4000 };

typedef struct guest guest;

struct guest {
  run *r;
  fl_client *client;
  uint32_t number;
};

/* ---- a client ------------------------------------------------------------ */

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  const guest *g = user;
  run *r = g->r;
  result->loss = net_train(r->net, r->w, g->number, task->weights, r->update);
  if (r->is_corrupting && r->w->is_corrupt[g->number])
    run_corrupt(r, g->number);
  result->update = r->update;
  result->n = COHORTS_WEIGHTS;
  r->up++;
  return FL_OK;
}

static fl_status measure(const float *weights, uint64_t n, fl_score *score,
                         void *user)
{
  const guest *g = user;
  (void)n;
  score->loss = net_loss(g->r->net, g->r->w, g->number, weights);
  score->count = 1;
  return FL_OK;
}

static void add_guest(run *r, uint32_t number)
{
  guest *g = &r->guests[number];
  char id[16];
  fl_client_options options;
  cohorts_must(fl_client_options_init(&options, sizeof options), "client");
  snprintf(id, sizeof id, "%06u", (unsigned)number);
  options.client_id = id;
  options.samples = r->w->samples;
  options.model = r->served;
  options.train = train;
  options.measure = measure;
  options.user = g;
  *g = (guest){.r = r, .number = number};
  cohorts_must(fl_client_new(&g->client, NULL, &options), "client");
}

/* ---- moving bytes -------------------------------------------------------- */

/* The client does what it has been asked, and says so. */
static void answer(run *r, uint32_t number)
{
  fl_client *client = r->guests[number].client;
  fl_client_event event;
  const uint8_t *data = NULL;
  size_t n = 0;
  cohorts_must(fl_client_event_init(&event, sizeof event), "event");
  do {
    cohorts_must(fl_client_poll(client, r->now, &event), "client");
  } while (event.kind != FL_CLIENT_IDLE);
  cohorts_must(fl_client_send(client, &data, &n), "client");
  if (n > 0) cohorts_must(fl_server_recv(r->server, number, data, n), "server");
}

static void deliver(run *r, uint32_t number)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  cohorts_must(fl_server_send(r->server, number, &data, &n), "server");
  r->bytes_down += n;
  if (n > 0)
    cohorts_must(fl_client_recv(r->guests[number].client, data, n), "client");
  answer(r, number);
}

static void listen(run *r)
{
  fl_server_event e;
  cohorts_must(fl_server_event_init(&e, sizeof e), "event");
  while (fl_server_poll(r->server, &e) == FL_OK) {
    if (e.kind == FL_SERVER_ROUND_FINISHED && e.cohort == FL_COHORT_NONE)
      r->finished++;
    if (e.kind == FL_SERVER_PEER_REJECTED || e.kind == FL_SERVER_ROUND_ABORTED)
      fprintf(stderr, "%s: %s\n", e.client_id, e.text);
    if (e.kind != FL_SERVER_COHORT_CHANGED || !r->on_event) continue;
    const fl_cohort_event event = {.kind = e.cohort_change,
                                   .round = (uint32_t)e.round,
                                   .cohort = e.cohort,
                                   .child = e.child,
                                   .n_probes = (uint32_t)e.count,
                                   .win = e.cohort_win,
                                   .lump = e.cohort_lump};
    r->on_event(r, &event);
  }
}

/* ---- the rule ------------------------------------------------------------ */

static void begin(run *r, uint32_t kind)
{
  fl_job_options job;
  fl_compressor_options codec;
  float *weights = NULL;
  r->served = net_new();
  cohorts_must(fl_model_get_weights(r->served, &weights, NULL), "weights");
  net_draw(weights, r->w->seed);
  cohorts_must(fl_job_options_init(&job, sizeof job), "job");
  cohorts_must(fl_compressor_options_init(&codec, sizeof codec), "codec");
  r->options.rule = kind;
  r->options.seed = CLUSTER + r->w->seed;
  codec.codec = r->codec;
  job.codec = &codec;
  job.seed = SELECT + r->w->seed;
  job.rounds = r->rounds;
  job.participants = r->per_round;
  job.min_clients = r->w->n;
  job.cohorts = &r->options;
  job.cohort_sketches = r->sketches;
  job.cohort_probed = r->evaluated;
  job.cohort_pace = r->pace;
  cohorts_must(fl_server_new(&r->server, NULL, NULL), "server");
  cohorts_must(fl_server_add_job(r->server, r->served, &job, NULL), "job");
  cohorts_must(fl_server_get_cohorts(r->server, 0, &r->seen), "cohorts");
  r->guests = calloc(r->w->n, sizeof *r->guests);
  if (!r->guests) cohorts_must(FL_E_NOMEM, "clients");
  for (uint32_t i = 0; i < r->w->n; i++)
    add_guest(r, i);
  cohorts_must(fl_server_tick(r->server, r->now), "server");
  for (uint32_t i = 0; i < r->w->n; i++)
    answer(r, i);
}

static void begin_sketch(run *r)
{
  begin(r, FL_COHORT_SKETCH);
}

static void begin_auxo(run *r)
{
  begin(r, FL_COHORT_AUXO);
}

static void begin_loss(run *r)
{
  begin(r, FL_COHORT_LOSS);
}

static void round_served(run *r, uint32_t t)
{
  uint64_t peer = UINT64_MAX;
  listen(r);
  while (r->finished < t) {
    if (fl_server_next_ready(r->server, &peer) == FL_OK) {
      deliver(r, (uint32_t)peer);
    } else if (peer != UINT64_MAX) {
      peer = UINT64_MAX;
    } else {
      cohorts_must(FL_E_INTERNAL, "a round that stands still");
    }
    listen(r);
  }
  r->down = r->bytes_down / (COHORTS_WEIGHTS * sizeof(float));
}

static void take_models(run *r)
{
  float *weights = cohorts_get(COHORTS_WEIGHTS, sizeof *weights);
  cohorts_must(fl_server_get_cohorts(r->server, 0, &r->seen), "cohorts");
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    if (fl_server_copy_cohort(r->server, 0, m, weights, COHORTS_WEIGHTS,
                              NULL) == FL_OK) {
      run_model(r, m, weights);
    } else {
      run_drop(r, m);
    }
  }
  free(weights);
}

void serve_close(run *r)
{
  for (uint32_t i = 0; r->guests && i < r->w->n; i++)
    fl_client_free(r->guests[i].client);
  free(r->guests);
  fl_server_free(r->server);
  fl_model_free(r->served);
}

static void view_sketch(run *r, float **models)
{
  take_models(r);
  rule_sketch.view(r, models);
}

static void view_auxo(run *r, float **models)
{
  take_models(r);
  rule_auxo.view(r, models);
}

static void view_loss(run *r, float **models)
{
  take_models(r);
  rule_loss.view(r, models);
}

const rule *rule_served(const char *name)
{
  static const rule rules[] = {
      {"sketch", begin_sketch, round_served, view_sketch},
      {"auxo", begin_auxo, round_served, view_auxo},
      {"loss", begin_loss, round_served, view_loss}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    if (strcmp(rules[i].name, name) == 0) return &rules[i];
  }
  return NULL;
}
