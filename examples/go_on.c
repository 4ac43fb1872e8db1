/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host with threads of its own that survives a crash. libfl-host lends hooks
 * (here two threads); after every round the server is saved into one
 * buffer in memory, and in the middle everything is thrown away and taken up
 * again from that buffer. The run ends with the bytes of one without a crash.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/fl.h>
#include <fl/host.h>

enum { ROUNDS = 6, CRASH_AFTER = 3, DIM = 20000 };

static void check(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

/* Halfway to one, in every coordinate. */
static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  float *update = user;
  for (uint64_t i = 0; i < task->n_weights; i++)
    update[i] = .5f * (1 - task->weights[i]);
  result->update = update;
  result->n = task->n_weights;
  return FL_OK;
}

static fl_server *open_server(fl_context *context)
{
  const uint64_t dim = DIM;
  fl_model_builder *builder;
  fl_model *model;
  fl_server *server;
  fl_job_options job;
  uint32_t number;
  check(fl_model_builder_new(&builder, context));
  check(fl_model_builder_tensor(builder, "w", &dim, 1, 1));
  check(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  check(fl_job_options_init(&job, sizeof job));
  job.rounds = ROUNDS;
  check(fl_server_new(&server, context, NULL));
  check(fl_server_add_job(server, model, &job, &number));
  fl_model_free(model);
  return server;
}

/* Replace what the buffer holds by the server's state. */
static void save(const fl_server *server, fl_buffer *state)
{
  fl_writer writer;
  fl_buffer_clear(state);
  check(fl_buffer_as_writer(state, &writer));
  check(fl_server_save(server, &writer));
}

static fl_server *restore(fl_context *context, fl_buffer *state)
{
  fl_reader reader;
  fl_server *server;
  check(fl_buffer_as_reader(state, &reader));
  check(fl_server_restore(&server, context, NULL, &reader));
  return server;
}

/* Move what both have for each other; 1 when the client is done. */
static int exchange(fl_client *client, fl_server *server, uint64_t now_ns)
{
  fl_client_event event;
  const uint8_t *data;
  size_t n;
  check(fl_client_event_init(&event, sizeof event));
  check(fl_client_poll(client, now_ns, &event));
  while (fl_client_send(client, &data, &n) == FL_OK && n > 0)
    check(fl_server_recv(server, 1, data, n));
  check(fl_server_tick(server, now_ns));
  while (fl_server_send(server, 1, &data, &n) == FL_OK && n > 0)
    check(fl_client_recv(client, data, n));
  return event.kind == FL_CLIENT_DONE;
}

/* Train to the end; the server dies after round `crash_after`. */
static void run(fl_context *context, uint64_t crash_after, float *weights)
{
  static float update[DIM];
  fl_client_options options;
  fl_client *client;
  fl_buffer *state;
  fl_server_event event;
  fl_server *server = open_server(context);
  check(fl_server_event_init(&event, sizeof event));
  check(fl_buffer_new(&state, context));
  check(fl_client_options_init(&options, sizeof options));
  options.client_id = "ada";
  options.train = train;
  options.user = update;
  check(fl_client_new(&client, context, &options));
  for (uint64_t turn = 0; !exchange(client, server, turn << 20); turn++) {
    while (fl_server_poll(server, &event) == FL_OK) {
      if (event.kind != FL_SERVER_ROUND_FINISHED) continue;
      save(server, state);
      if (event.round != crash_after) continue;
      fl_server_free(server);
      server = restore(context, state);
      check(fl_client_disconnected(client));
    }
  }
  check(fl_server_copy_weights(server, 0, weights, DIM, NULL));
  fl_client_free(client);
  fl_server_free(server);
  fl_buffer_free(state);
}

int main(void)
{
  static float without[DIM], with[DIM];
  fl_host_options options;
  fl_host *host;
  check(fl_host_options_init(&options, sizeof options));
  options.threads = 2;
  check(fl_host_new(&host, &options));
  run(fl_host_context(host), 0, without);
  run(fl_host_context(host), CRASH_AFTER, with);
  fl_host_free(host);
  const int is_same = memcmp(without, with, sizeof with) == 0;
  printf("%.3f with a crash, %.3f without: %s bytes\n", (double)with[0],
         (double)without[0], is_same ? "the same" : "other");
  return is_same && with[0] > .9f ? 0 : 1;
}
