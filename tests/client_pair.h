/* SPDX-License-Identifier: Apache-2.0 */
/* One real server and one client, joined by function calls: for the tests that
 * want a client in any state of a job without a network between (oom, fuzz,
 * bench). Every function returns the first status that is not FL_OK. */
#ifndef CLIENT_PAIR_H
#define CLIENT_PAIR_H

#include <fl/client.h>
#include <fl/server.h>
#include <string.h>

#include "base/error.h"

enum { PAIR_WEIGHTS = 60, PAIR_PEER = 1 };

typedef struct pair {
  fl_context *context; /* of the client */
  fl_client_options options;
  fl_model *model;
  fl_server *server;
  fl_client *client;
  uint64_t peer;
  uint64_t now_ns;
  uint32_t last_kind; /* event of the last poll */
  int is_done;
  float update[PAIR_WEIGHTS];
} pair;

static inline fl_status pair_make_model(fl_model **out)
{
  const uint64_t a[2] = {5, 8}, b[1] = {20};
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, NULL));
  FLI_TRY(fl_model_builder_module(builder, 0));
  FLI_TRY(fl_model_builder_tensor(builder, "a", a, 2, 1));
  FLI_TRY(fl_model_builder_module(builder, 1));
  FLI_TRY(fl_model_builder_tensor(builder, "b", b, 1, 1));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

/* A job of this name; `freezes`: module 0, from round 2 on. */
static inline fl_status pair_add_job(pair *p, uint32_t codec_id,
                                     uint32_t rounds, const char *name,
                                     int freezes)
{
  const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  fl_freeze_options freeze;
  fl_status st = FL_OK;
  fl_compressor_options codec;
  fl_job_options job;
  uint32_t index;
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = codec_id;
  FLI_TRY(fl_job_options_init(&job, sizeof job));
  FLI_TRY(fl_freeze_options_init(&freeze, sizeof freeze));
  freeze.criterion = FL_FREEZE_FIXED;
  freeze.max_frozen = 1;
  freeze.fixed = fixed;
  freeze.n_fixed = 1;
  if (freezes) job.freeze = &freeze;
  job.name = name;
  job.codec = &codec;
  job.rounds = rounds;
  job.evaluate_every = 2;
  job.retry_pause_ns = 1;
  FLI_TRY(fl_server_add_job(p->server, p->model, &job, &index));
out:
  return st;
}

static inline fl_status pair_train(const fl_train_task *task,
                                   fl_train_result *result, void *user)
{
  pair *p = user;
  for (size_t i = 0; i < PAIR_WEIGHTS; i++)
    p->update[i] = (float)(i % 7 + task->round) * .125f;
  result->update = p->update;
  result->n = PAIR_WEIGHTS;
  result->report_module = task->first_active;
  result->report_value = 1.;
  return FL_OK;
}

static inline fl_status pair_score(const float *weights, uint64_t n,
                                   fl_score *score, void *user)
{
  (void)user;
  score->loss = weights[n - 1] > 0 ? 1. : 2.;
  score->count = 1;
  return FL_OK;
}

static inline void pair_end(pair *p)
{
  fl_client_free(p->client);
  fl_server_free(p->server);
  fl_model_free(p->model);
  p->client = NULL;
  p->server = NULL;
  p->model = NULL;
}

/* The server, with memory of its own; the client's options, to be changed. */
static inline fl_status pair_begin(pair *p, fl_context *context, uint32_t codec,
                                   uint32_t rounds)
{
  fl_status st = FL_OK;
  memset(p, 0, sizeof *p);
  p->context = context;
  p->peer = PAIR_PEER;
  FLI_TRY(pair_make_model(&p->model));
  FLI_TRY(fl_server_new(&p->server, NULL, NULL));
  FLI_TRY(pair_add_job(p, codec, rounds, "plain", 0));
  FLI_TRY(fl_client_options_init(&p->options, sizeof p->options));
  p->options.client_id = "one";
  p->options.chunk_size = 4096;
  p->options.train = pair_train;
  p->options.evaluate = pair_score;
  p->options.user = p;
out:
  return st;
}

/* Before connecting: join a job that freezes, instead. */
static inline fl_status pair_freeze(pair *p, uint32_t codec, uint32_t rounds)
{
  p->options.job = "freezing";
  return pair_add_job(p, codec, rounds, p->options.job, 1);
}

static inline fl_status pair_connect(pair *p)
{
  return fl_client_new(&p->client, p->context, &p->options);
}

/* One poll. */
static inline fl_status pair_poll(pair *p)
{
  fl_client_event event;
  fl_status st = fl_client_event_init(&event, sizeof event);
  if (st == FL_OK) st = fl_client_poll(p->client, p->now_ns, &event);
  if (st != FL_OK) return st;
  p->last_kind = event.kind;
  if (event.kind == FL_CLIENT_DONE) p->is_done = 1;
  return FL_OK;
}

/* What the client has to send goes to the server. */
static inline fl_status pair_up(pair *p)
{
  fl_status st = FL_OK;
  for (;;) {
    const uint8_t *data = NULL;
    size_t n = 0;
    FLI_TRY(fl_client_send(p->client, &data, &n));
    if (n == 0) break;
    FLI_TRY(fl_server_recv(p->server, p->peer, data, n));
  }
out:
  return st;
}

/* What one send of the server gives goes to the client; *n = its size. */
static inline fl_status pair_down(pair *p, size_t *n)
{
  fl_status st = FL_OK;
  const uint8_t *data = NULL;
  *n = 0;
  FLI_TRY(fl_server_tick(p->server, p->now_ns));
  FLI_TRY(fl_server_send(p->server, p->peer, &data, n));
  if (*n > 0) FLI_TRY(fl_client_recv(p->client, data, *n));
out:
  return st;
}

/* Everything once: events, up, down. */
static inline fl_status pair_step(pair *p)
{
  fl_status st = FL_OK;
  size_t n;
  p->now_ns += 1000000;
  do {
    FLI_TRY(pair_poll(p));
  } while (p->last_kind != FL_CLIENT_IDLE);
  FLI_TRY(pair_up(p));
  do {
    FLI_TRY(pair_down(p, &n));
  } while (n > 0);
out:
  return st;
}

/* The connection breaks and a new one is made. */
static inline fl_status pair_reconnect(pair *p)
{
  fl_status st = fl_server_disconnected(p->server, p->peer);
  p->peer++;
  return st == FL_OK ? fl_client_disconnected(p->client) : st;
}

#endif
