/* SPDX-License-Identifier: Apache-2.0 */
/* A job of a server and its clients in one process, for benchmarks that hand
 * the bytes on by themselves. Clients "train" by giving one update. */
#ifndef BENCH_JOB_H
#define BENCH_JOB_H

#include <stdio.h>

#include <fl/client.h>
#include <fl/server.h>

#include "base/error.h"

enum { BENCH_MAX_CLIENTS = 256 };

typedef struct bench_job {
  uint32_t n_clients;
  float *update; /* everybody's; the caller's */
  fl_model *model;
  fl_server *server;
  fl_client *clients[BENCH_MAX_CLIENTS];
  uint64_t now_ns;
  uint32_t n_done; /* clients that have heard that it is over */
} bench_job;

/* A model of one tensor. */
static inline fl_status bench_make_model(fl_model **out, uint64_t n_weights)
{
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, NULL));
  FLI_TRY(fl_model_builder_tensor(builder, "w", &n_weights, 1, 1));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

static inline fl_status bench_give_update(const fl_train_task *task,
                                          fl_train_result *result, void *user)
{
  const bench_job *j = user;
  result->update = j->update;
  result->n = task->n_weights;
  result->loss = 1;
  return FL_OK;
}

/* `store` may be NULL. What was made is there for bench_job_end, also when
 * this fails. */
static inline fl_status bench_job_begin(bench_job *j, const fl_store *store,
                                        uint64_t n_weights, uint32_t codec_id,
                                        uint32_t rounds)
{
  fl_status st = FL_OK;
  fl_compressor_options codec;
  fl_job_options options;
  fl_server_options server;
  FLI_TRY(bench_make_model(&j->model, n_weights));
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = codec_id;
  FLI_TRY(fl_job_options_init(&options, sizeof options));
  options.codec = &codec;
  options.rounds = rounds;
  options.min_clients = j->n_clients;
  FLI_TRY(fl_server_options_init(&server, sizeof server));
  server.store = store;
  FLI_TRY(fl_server_new(&j->server, NULL, &server));
  FLI_TRY(fl_server_add_job(j->server, j->model, &options, NULL));
  for (uint32_t i = 0; i < j->n_clients; i++) {
    char id[24];
    fl_client_options client;
    snprintf(id, sizeof id, "client-%u", i);
    FLI_TRY(fl_client_options_init(&client, sizeof client));
    client.client_id = id;
    client.model = j->model;
    client.train = bench_give_update;
    client.user = j;
    FLI_TRY(fl_client_new(&j->clients[i], NULL, &client));
  }
out:
  return st;
}

/* Ready for another one of as many clients. */
static inline void bench_job_end(bench_job *j)
{
  for (uint32_t i = 0; i < j->n_clients; i++) {
    fl_client_free(j->clients[i]);
    j->clients[i] = NULL;
  }
  fl_server_free(j->server);
  fl_model_free(j->model);
  j->server = NULL;
  j->model = NULL;
  j->n_done = 0;
}

/* Client `i` does what it has to do. */
static inline fl_status bench_job_poll(bench_job *j, uint32_t i)
{
  fl_status st = FL_OK;
  fl_client_event event;
  FLI_TRY(fl_client_event_init(&event, sizeof event));
  do {
    FLI_TRY(fl_client_poll(j->clients[i], j->now_ns, &event));
    if (event.kind == FL_CLIENT_DONE) j->n_done++;
  } while (event.kind != FL_CLIENT_IDLE);
out:
  return st;
}

#endif
