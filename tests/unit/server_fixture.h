/* SPDX-License-Identifier: Apache-2.0 */
/* A server with scripted clients in memory, for unit, OOM and fuzz programs:
 * making and freeing such a world, its events and time, and letting everybody
 * talk until nobody has anything to say. */
#ifndef SERVER_FIXTURE_H
#define SERVER_FIXTURE_H

#include "server_client.h"

/* ---- the model ---- */

/* Of two modules that have a tensor each. */
static inline fl_model *sv_make_model_of(fl_context *context, uint64_t first,
                                         const uint32_t modules[2])
{
  const uint64_t second = SV_SECOND;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  float *weights = NULL;
  uint64_t n = 0;
  SV_REQUIRE(fl_model_builder_new(&builder, context) == FL_OK);
  SV_REQUIRE(fl_model_builder_module(builder, modules[0]) == FL_OK);
  SV_REQUIRE(fl_model_builder_tensor(builder, "a", &first, 1, 1) == FL_OK);
  SV_REQUIRE(fl_model_builder_module(builder, modules[1]) == FL_OK);
  SV_REQUIRE(fl_model_builder_tensor(builder, "b", &second, 1, 1) == FL_OK);
  SV_REQUIRE(fl_model_builder_build(builder, &model) == FL_OK);
  SV_REQUIRE(fl_model_get_weights(model, &weights, &n) == FL_OK);
  for (uint64_t i = 0; i < n; i++)
    weights[i] = (float)(i % 17) * 0.25f - 2.0f;
  fl_model_builder_free(builder);
  return model;
}

static inline fl_model *sv_make_model(fl_context *context, uint64_t first)
{
  return sv_make_model_of(context, first, (const uint32_t[]){0, 1});
}

/* Multiples of 1/64, so that f32 sums are exact. */
static inline float sv_train(const sv_client *client, uint64_t round, size_t i)
{
  const uint64_t mix =
      (i * 2654435761u + round * 40503u + (uint64_t)client->id[0] * 977u) >> 3;
  return (float)((int64_t)(mix % 129) - 64) / 64.0f;
}

/* ---- a world ---- */

/* Options for a test to change, then sv_start. */
static inline void sv_init(sv_world *world, fl_context *context, uint32_t codec)
{
  memset(world, 0, sizeof *world);
  world->context = context;
  world->train = sv_train;
  SV_REQUIRE(fl_server_options_init(&world->options, sizeof world->options) ==
             FL_OK);
  SV_REQUIRE(fl_job_options_init(&world->job_options,
                                 sizeof world->job_options) == FL_OK);
  SV_REQUIRE(fl_compressor_options_init(&world->codec, sizeof world->codec) ==
             FL_OK);
  world->codec.codec = codec;
  world->job_options.codec = &world->codec;
  world->job_options.rounds = 2;
  world->job_options.seed = 5;
  world->job_options.min_clients = 3;
  world->options.chunk_size = 4096;
  world->model = sv_make_model(NULL, SV_FIRST);
  world->modules[1] = 1;
  SV_REQUIRE(fl_model_copy_schema(world->model, world->schema) == FL_OK);
}

static inline void sv_start(sv_world *world)
{
  SV_REQUIRE(fl_server_new(&world->server, world->context, &world->options) ==
             FL_OK);
  SV_REQUIRE(fl_server_add_job(world->server, world->model, &world->job_options,
                               NULL) == FL_OK);
}

static inline void sv_client_free(sv_client *client)
{
  fli_bytes_free(&client->out);
  fli_frame_parser_free(&client->parser);
  fli_incoming_reset(&client->incoming);
  fli_canonical_free(&client->model);
  free(client->update);
}

static inline void sv_free(sv_world *world)
{
  for (size_t i = 0; i < world->n_clients; i++) {
    sv_client_free(&world->clients[i]);
  }
  fl_server_free(world->server);
  fl_compressor_free(world->compressor);
  fl_model_free(world->model);
}

static inline sv_client *sv_add(sv_world *world, const char *id,
                                uint64_t samples)
{
  SV_REQUIRE(world->n_clients < SV_MAX_CLIENTS);
  sv_client *client = &world->clients[world->n_clients++];
  memset(client, 0, sizeof *client);
  client->world = world;
  client->id = id;
  client->peer = 100 + world->n_clients;
  client->samples = samples;
  client->loss = 1.0;
  fli_bytes_init(&client->out, NULL);
  fli_frame_parser_init(&client->parser, NULL, FLI_FRAME_MAX_BODY);
  fli_incoming_init(&client->incoming, NULL);
  SV_REQUIRE(fli_canonical_init(&client->model, NULL,
                                fl_model_weight_count(world->model)) == FL_OK);
  return client;
}

/* ---- events ---- */

static inline void sv_drain(sv_world *world)
{
  fl_server_event event;
  SV_REQUIRE(fl_server_event_init(&event, sizeof event) == FL_OK);
  while (world->server && fl_server_poll(world->server, &event) == FL_OK) {
    SV_REQUIRE(world->n_events < SV_MAX_EVENTS);
    sv_event *kept = &world->events[world->n_events++];
    kept->body = event;
    snprintf(kept->client_id, sizeof kept->client_id, "%s", event.client_id);
    snprintf(kept->text, sizeof kept->text, "%s", event.text);
  }
}

/* Number of events of a kind so far; *last is the newest. */
static inline uint32_t sv_events(sv_world *world, uint32_t kind,
                                 const sv_event **last)
{
  uint32_t n = 0;
  sv_drain(world);
  for (size_t i = 0; i < world->n_events; i++) {
    if (world->events[i].body.kind != kind) continue;
    if (last) *last = &world->events[i];
    n++;
  }
  return n;
}

static inline fl_job_status sv_status(const sv_world *world)
{
  fl_job_status status;
  SV_REQUIRE(fl_job_status_init(&status, sizeof status) == FL_OK);
  SV_REQUIRE(fl_server_get_status(world->server, 0, &status) == FL_OK);
  return status;
}

/* ---- all together ---- */

/* Answer what the client was asked; 1 = it said something. */
static inline int sv_answer(sv_client *client)
{
  int did = 0;
  if (client->got[FLI_MSG_EVALUATE]) {
    client->got[FLI_MSG_EVALUATE] = 0;
    sv_score(client, client->loss, 3, 4);
    did = 1;
  }
  if (client->has_scale) {
    client->has_plan = client->has_scale = 0;
    sv_update(client);
    did = 1;
  } else if (client->has_plan) {
    client->has_plan = 0;
    sv_norm(client);
    did = 1;
  }
  return did;
}

/* Let everybody talk until nobody has anything to say. */
static inline void sv_run(sv_world *world)
{
  int is_busy = 1;
  for (int i = 0; is_busy; i++) {
    SV_REQUIRE(i < 10000);
    is_busy = 0;
    for (size_t k = 0; k < world->n_clients; k++) {
      sv_client *client = &world->clients[k];
      if (client->is_gone) continue;
      is_busy |= sv_pull(client);
      if (!client->is_mute) is_busy |= sv_answer(client);
    }
    sv_drain(world);
  }
}

static inline void sv_tick(sv_world *world, uint64_t ns)
{
  world->now += ns;
  SV_REQUIRE(fl_server_tick(world->server, world->now) == FL_OK);
}

/* Everybody says HELLO, in order of being added. */
static inline void sv_join(sv_world *world)
{
  for (size_t i = 0; i < world->n_clients; i++)
    sv_hello(&world->clients[i]);
}

/* The first `n` clients take what has come for them and report norms. */
static inline void sv_report(sv_world *world, size_t n)
{
  for (size_t i = 0; i < n; i++)
    sv_pull(&world->clients[i]);
  for (size_t i = 0; i < n; i++)
    sv_norm(&world->clients[i]);
}

/* The server dies and comes back from its snapshot; clients are cut off. */
static inline void sv_restart(sv_world *world)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  SV_REQUIRE(fl_buffer_new(&buffer, NULL) == FL_OK);
  SV_REQUIRE(fl_buffer_as_writer(buffer, &writer) == FL_OK);
  SV_REQUIRE(fl_server_save(world->server, &writer) == FL_OK);
  sv_drain(world);
  fl_server_free(world->server);
  world->server = NULL;
  SV_REQUIRE(fl_buffer_as_reader(buffer, &reader) == FL_OK);
  SV_REQUIRE(fl_server_restore(&world->server, world->context, &world->options,
                               &reader) == FL_OK);
  fl_buffer_free(buffer);
  for (size_t i = 0; i < world->n_clients; i++) {
    fli_frame_parser_reset(&world->clients[i].parser);
  }
}

/* 1 when the client's model is the server's, bit for bit. */
static inline int sv_agrees(const sv_client *client)
{
  const uint64_t n = client->model.n;
  float *weights = malloc((size_t)n * sizeof *weights);
  uint64_t version = 0;
  SV_REQUIRE(weights != NULL);
  SV_REQUIRE(fl_server_copy_weights(client->world->server, 0, weights, n,
                                    &version) == FL_OK);
  const int is_same =
      version == client->model.version &&
      memcmp(weights, client->model.weights, (size_t)n * sizeof *weights) == 0;
  free(weights);
  return is_same;
}

/* Three equal clients, not in order of id. */
static inline void sv_add_three(sv_world *world)
{
  sv_add(world, "cay", 10);
  sv_add(world, "abe", 10);
  sv_add(world, "bea", 10);
}

/* The plans of round 1 wait for three clients; the clock runs. */
static inline void sv_begin(sv_world *world, uint32_t codec)
{
  sv_init(world, NULL, codec);
  sv_start(world);
  sv_add_three(world);
  sv_join(world);
  sv_tick(world, 1000 * SV_SECOND_NS);
}

/* Everybody in turn, until nobody has anything to do any more. After `kill_at`
 * steps (SIZE_MAX: never) the server is killed and goes on from its state, and
 * all come again. Returns the number of steps. */
static inline size_t sv_play_killed(sv_world *world, size_t kill_at)
{
  const size_t n = world->n_clients;
  size_t steps = 0, idle = 0;
  while (idle < 2 * n && steps < 20000) {
    sv_client *client = &world->clients[steps / 2 % n];
    const int did = steps % 2 ? sv_answer(client) : sv_pull(client);
    idle = did ? 0 : idle + 1;
    sv_drain(world);
    if (steps++ != kill_at) continue;
    sv_restart(world);
    sv_tick(world, SV_SECOND_NS);
    for (size_t i = 0; i < n; i++) {
      sv_client *back = &world->clients[i];
      const int is_done = back->is_done;
      sv_clear(back);
      sv_return(back);
      back->is_done = is_done;
    }
    idle = 0;
  }
  SV_REQUIRE(sv_status(world).is_finished);
  return steps;
}

/* 1 when the job is over, and everybody has been told and holds its model. */
static inline int sv_is_finished(const sv_world *world)
{
  if (!sv_status(world).is_finished) return 0;
  for (size_t i = 0; i < world->n_clients; i++) {
    const sv_client *client = &world->clients[i];
    if (!client->is_done || !sv_agrees(client)) return 0;
  }
  return 1;
}

#endif
