/* SPDX-License-Identifier: Apache-2.0 */
/* A server with a job that has cohorts, and real clients of it, joined by
 * function calls. Clients of a group want the same weights: the loss is the
 * mean square of what is missing, training goes half of the way, with noise of
 * the client's own. Failures are passed to CW_MUST, which the program defines;
 * those of the server's to CW_SERVED, if they may happen. */
#ifndef COHORT_WORLD_H
#define COHORT_WORLD_H

#include <fl/client.h>
#include <fl/server.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CW_WEIGHTS = 320, CW_MOST = 160, CW_GROUPS_MOST = 4, CW_KINDS = 8 };
#define CW_SECOND UINT64_C(1000000000)
#ifndef CW_SERVED
#  define CW_SERVED CW_MUST
#endif

typedef struct cw_world cw_world;

typedef struct cw_client {
  cw_world *world;
  fl_client *handle;
  char id[16];
  uint32_t group;
  uint32_t trained; /* times */
  uint32_t probed;
  uint32_t cohort; /* of the last training */
  int is_done;
  int is_shy; /* it will not be probed */
  float update[CW_WEIGHTS];
} cw_client;

struct cw_world {
  fl_context *context; /* of the server */
  fl_server *server;
  fl_model *model;
  fl_job_options job;
  fl_compressor_options codec;
  fl_cohort_options cohorts;
  fl_train_fn train; /* of all clients; NULL: cw_train */
  uint32_t n_clients;
  uint32_t n_groups;
  uint64_t now;
  cw_client clients[CW_MOST];
  /* what the server told */
  uint32_t changes[CW_KINDS]; /* by fl_server_event.cohort_change */
  uint32_t finished;          /* rounds */
  uint32_t rejected;          /* peers */
  uint32_t scores;            /* evaluations of the whole job */
  int is_finished;
};

static inline uint64_t cw_next(uint64_t *state)
{
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static inline float cw_uniform(uint64_t *state)
{
  return (float)((double)(cw_next(state) >> 11) * 0x1p-52 - 1.0);
}

static inline float cw_target(uint32_t group, size_t i)
{
  uint64_t state = group * 1000003u + i;
  return cw_uniform(&state);
}

static inline double cw_loss(const cw_client *client, const float *weights)
{
  double sum = 0.0;
  for (size_t i = 0; i < CW_WEIGHTS; i++) {
    const double d = (double)weights[i] - (double)cw_target(client->group, i);
    sum += d * d;
  }
  return sum / CW_WEIGHTS + .02;
}

static inline fl_status cw_train(const fl_train_task *task,
                                 fl_train_result *result, void *user)
{
  cw_client *client = user;
  uint64_t noise = task->seed;
  for (size_t i = 0; i < CW_WEIGHTS; i++) {
    const float missing = cw_target(client->group, i) - task->weights[i];
    client->update[i] = .3f * missing + .02f * cw_uniform(&noise);
  }
  client->trained++;
  client->cohort = task->cohort;
  result->update = client->update;
  result->n = CW_WEIGHTS;
  result->loss = cw_loss(client, task->weights);
  return FL_OK;
}

static inline fl_status cw_measure(const float *weights, uint64_t n,
                                   fl_score *score, void *user)
{
  cw_client *client = user;
  (void)n;
  client->probed++;
  if (client->is_shy) return FL_E_STATE;
  score->loss = cw_loss(client, weights);
  score->count = 1;
  return FL_OK;
}

/* Of 100 test images as many are right as the loss leaves. */
static inline fl_status cw_evaluate(const float *weights, uint64_t n,
                                    fl_score *score, void *user)
{
  const cw_client *client = user;
  (void)n;
  score->loss = cw_loss(client, weights);
  score->count = 100;
  score->correct =
      score->loss < 1.0 ? (uint64_t)(100.0 * (1 - score->loss)) : 0;
  return FL_OK;
}

static inline void cw_init(cw_world *w, uint32_t codec, uint32_t n_clients,
                           uint32_t n_groups)
{
  const uint64_t a = CW_WEIGHTS;
  fl_model_builder *builder = NULL;
  memset(w, 0, sizeof *w);
  w->n_clients = n_clients;
  w->n_groups = n_groups;
  CW_MUST(fl_model_builder_new(&builder, NULL));
  CW_MUST(fl_model_builder_tensor(builder, "a", &a, 1, 1));
  CW_MUST(fl_model_builder_build(builder, &w->model));
  fl_model_builder_free(builder);
  CW_MUST(fl_compressor_options_init(&w->codec, sizeof w->codec));
  CW_MUST(fl_job_options_init(&w->job, sizeof w->job));
  CW_MUST(fl_cohort_options_init(&w->cohorts, sizeof w->cohorts));
  w->codec.codec = codec;
  w->job.codec = &w->codec;
  w->job.cohorts = &w->cohorts;
  w->job.rounds = 60;
  w->job.min_clients = n_clients;
  w->job.participants = n_clients / 8;
  w->job.cohort_probed = 4;
  w->cohorts.dim = 64;
  w->cohorts.cap = 4;
  w->cohorts.min_members = 2;
  w->cohorts.trial_probes = 10;
  w->cohorts.trial_start = 4;
}

static inline void cw_add(cw_world *w, uint32_t at)
{
  cw_client *client = &w->clients[at];
  fl_client_options options;
  client->world = w;
  client->group = at % w->n_groups;
  snprintf(client->id, sizeof client->id, "c%03u", (unsigned)at);
  CW_MUST(fl_client_options_init(&options, sizeof options));
  options.client_id = client->id;
  options.model = w->model;
  options.train = w->train ? w->train : cw_train;
  options.evaluate = cw_evaluate;
  options.measure = cw_measure;
  options.user = client;
  CW_MUST(fl_client_new(&client->handle, NULL, &options));
}

static inline void cw_start(cw_world *w)
{
  CW_MUST(fl_server_new(&w->server, w->context, NULL));
  CW_MUST(fl_server_add_job(w->server, w->model, &w->job, NULL));
  for (uint32_t i = 0; i < w->n_clients; i++)
    cw_add(w, i);
}

static inline void cw_free(cw_world *w)
{
  for (uint32_t i = 0; i < w->n_clients; i++)
    fl_client_free(w->clients[i].handle);
  fl_server_free(w->server);
  fl_model_free(w->model);
}

static inline void cw_listen(cw_world *w)
{
  fl_server_event e;
  CW_MUST(fl_server_event_init(&e, sizeof e));
  while (fl_server_poll(w->server, &e) == FL_OK) {
    if (getenv("CW_VERBOSE"))
      fprintf(stderr, "%u round %u cohort %d: %s %s\n", (unsigned)e.kind,
              (unsigned)e.round, (int)e.cohort, e.client_id, e.text);
    if (e.kind == FL_SERVER_COHORT_CHANGED) w->changes[e.cohort_change]++;
    if (e.kind == FL_SERVER_PEER_REJECTED) w->rejected++;
    if (e.kind == FL_SERVER_EVALUATED && e.cohort == FL_COHORT_NONE)
      w->scores++;
    if (e.kind == FL_SERVER_ROUND_FINISHED && e.cohort == FL_COHORT_NONE)
      w->finished++;
    if (e.kind == FL_SERVER_JOB_FINISHED) w->is_finished = 1;
  }
}

/* One exchange of one client; 1: something was said. */
static inline int cw_talk(cw_world *w, uint32_t at)
{
  cw_client *client = &w->clients[at];
  const uint8_t *data;
  size_t n = 0, answered = 0;
  fl_client_event event;
  CW_MUST(fl_client_event_init(&event, sizeof event));
  do {
    CW_MUST(fl_client_poll(client->handle, w->now, &event));
    if (event.kind == FL_CLIENT_DONE) client->is_done = 1;
  } while (event.kind != FL_CLIENT_IDLE);
  CW_MUST(fl_client_send(client->handle, &data, &n));
  if (n > 0) CW_SERVED(fl_server_recv(w->server, at, data, n));
  CW_SERVED(fl_server_send(w->server, at, &data, &answered));
  if (answered > 0) CW_MUST(fl_client_recv(client->handle, data, answered));
  return n + answered > 0;
}

/* Until nobody has anything to say, or the round is this one. */
static inline void cw_run(cw_world *w, uint32_t rounds)
{
  int is_busy = 1;
  CW_MUST(fl_server_tick(w->server, w->now));
  while (is_busy && w->finished < rounds) {
    is_busy = 0;
    for (uint32_t i = 0; i < w->n_clients; i++)
      is_busy |= cw_talk(w, i);
    cw_listen(w);
  }
}

/* The server is killed, and comes back from what it saved. */
static inline void cw_restart(cw_world *w)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  CW_MUST(fl_buffer_new(&buffer, NULL));
  CW_MUST(fl_buffer_as_writer(buffer, &writer));
  CW_MUST(fl_server_save(w->server, &writer));
  fl_server_free(w->server);
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  CW_MUST(fl_server_restore(&w->server, w->context, NULL, &reader));
  fl_buffer_free(buffer);
  for (uint32_t i = 0; i < w->n_clients; i++)
    CW_MUST(fl_client_disconnected(w->clients[i].handle));
  CW_MUST(fl_server_tick(w->server, w->now));
}

/* To the end; `every` exchanges the server is killed, 0: never. */
static inline void cw_run_with_kills(cw_world *w, uint32_t every)
{
  uint32_t n = 0, idle = 0;
  cw_start(w);
  CW_MUST(fl_server_tick(w->server, w->now));
  while (!w->is_finished && idle < 3) {
    idle++;
    for (uint32_t i = 0; i < w->n_clients; i++) {
      if (cw_talk(w, i)) idle = 0;
      cw_listen(w);
      if (every && ++n % every == 0 && !w->is_finished) cw_restart(w);
    }
  }
}

/* The whole of a job with such sketches that is scored every ten rounds. */
static inline void cw_run_sketched(cw_world *w, uint32_t sketches)
{
  w->job.cohort_sketches = sketches;
  w->job.evaluate_every = 10;
  cw_start(w);
  cw_run(w, UINT32_MAX);
}

static inline const fl_cohort_set *cw_set(const cw_world *w)
{
  const fl_cohort_set *set = NULL;
  CW_MUST(fl_server_get_cohorts(w->server, 0, &set));
  return set;
}

static inline uint32_t cw_cohort(const cw_world *w, uint32_t at)
{
  fl_cohort_member member;
  uint32_t slot;
  CW_MUST(fl_cohort_member_init(&member, sizeof member));
  CW_MUST(fl_server_find_member(w->server, 0, w->clients[at].id, &slot));
  CW_MUST(fl_cohort_set_get_member(cw_set(w), slot, &member));
  return member.cohort;
}

/* 1 when clients share a cohort exactly when they share a group. */
static inline int cw_is_sorted(const cw_world *w)
{
  for (uint32_t i = 0; i < w->n_clients; i++) {
    for (uint32_t k = 0; k < i; k++) {
      const int is_one = cw_cohort(w, i) == cw_cohort(w, k);
      if (is_one != (w->clients[i].group == w->clients[k].group)) return 0;
    }
  }
  return 1;
}

#endif
