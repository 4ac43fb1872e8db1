/* SPDX-License-Identifier: Apache-2.0 */
/* A scripted client, one protocol step at a time. It speaks by lib/wire and
 * lib/compress alone, so that the server is not tested against the library's
 * own client. Its memory is outside the server's context: only the server
 * meets a failing allocator. */
#ifndef SERVER_CLIENT_H
#define SERVER_CLIENT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/server.h>

#include "base/bytes.h"
#include "compress/canonical.h"
#include "crypto/keys.h"
#include "wire/signed.h"
#include "wire/transfer.h"

enum {
  SV_FIRST = 300, /* elements of the two tensors */
  SV_SECOND = 44,
  SV_WEIGHTS = SV_FIRST + SV_SECOND,
  SV_MAX_CLIENTS = 8,
  SV_MAX_EVENTS = 1024,
  SV_MAX_NORMS = 16,
  SV_TYPES = 64
};
#define SV_SECOND_NS UINT64_C(1000000000)

#define SV_REQUIRE(condition)                                          \
  do {                                                                 \
    if (!(condition)) {                                                \
      fprintf(stderr, "%s:%d: fixture: %s (%s)\n", __FILE__, __LINE__, \
              #condition, fl_last_error());                            \
      abort();                                                         \
    }                                                                  \
  } while (0)

typedef struct sv_event {
  fl_server_event body;
  char client_id[80];
  char text[256];
} sv_event;

typedef struct sv_world sv_world;

typedef struct sv_client {
  sv_world *world;
  const char *id;
  uint64_t peer;
  uint64_t samples;
  double loss;
  uint32_t depth; /* said in HELLO */
  int has_report; /* goes with its updates, of the plan's front module */
  double report;
  int is_old;  /* knows nothing of first_active */
  int is_mute; /* answers nothing by itself */
  int is_gone; /* not connected */
  int has_key; /* proves it, and signs: sv_give_key */
  uint8_t secret[FL_SECRET_KEY_BYTES];
  uint8_t public_key[FL_PUBLIC_KEY_BYTES];
  uint8_t session[FL_HASH_BYTES];
  fli_challenge challenge;
  fli_bytes out;
  fli_frame_parser parser;
  fli_incoming incoming;
  fli_outgoing outgoing;
  fli_canonical model;
  float *update; /* trained; NULL until asked */
  uint64_t trained_round;
  size_t update_size;  /* of the last one sent */
  const uint8_t *tail; /* goes behind updates: a control */
  uint32_t n_tail;
  uint64_t more_capabilities;
  uint8_t probe_hash[FL_HASH_BYTES]; /* of the last probe that came */
  uint64_t down_size;                /* of the last model or chain of steps */
  uint32_t got[SV_TYPES];            /* frames by type since sv_clear */
  fli_welcome welcome;
  fli_plan plan;
  fl_scale scale;
  float norms[SV_MAX_NORMS];
  fli_ack ack;
  fli_evaluate evaluate;
  fli_wait wait;
  fli_reject reject;
  fli_done done;
  int has_plan, has_scale, is_done;
} sv_client;

struct sv_world {
  fl_context *context; /* the server's */
  fl_server *server;
  fl_server_options options;
  fl_job_options job_options;
  fl_compressor_options codec;
  fl_model *model;
  fl_compressor *compressor;
  uint8_t schema[FL_HASH_BYTES];
  uint32_t modules[2]; /* of the segments */
  sv_client clients[SV_MAX_CLIENTS];
  size_t n_clients;
  uint64_t now;
  sv_event events[SV_MAX_EVENTS];
  size_t n_events;
  /* What the clients train: update[i] of a client in a round. */
  float (*train)(const sv_client *client, uint64_t round, size_t i);
  uint32_t (*clamped)(const sv_client *client, uint64_t block);
  /* May change what a client is about to send; NULL = honest. */
  void (*tamper)(sv_client *client);
};

/* ---- what a client hears ---- */

static inline void sv_make_compressor(sv_client *client)
{
  sv_world *world = client->world;
  const fli_welcome *welcome = &client->welcome;
  fl_compressor_options codec;
  uint64_t segments[2];
  if (world->compressor) return;
  SV_REQUIRE(fl_compressor_options_init(&codec, sizeof codec) == FL_OK);
  codec.codec = welcome->codec;
  codec.thc_mode = welcome->thc_mode;
  codec.bits = welcome->bits;
  codec.granularity = welcome->granularity;
  codec.clip = welcome->clip;
  codec.table = welcome->table;
  codec.n_table = (uint32_t)welcome->table_size;
  memcpy(codec.rotation_seed, welcome->rotation_seed, FL_SEED_BYTES);
  SV_REQUIRE(fl_model_copy_segments(world->model, segments, 2) == FL_OK);
  SV_REQUIRE(fl_compressor_new(&world->compressor, NULL, &codec, segments, 2) ==
             FL_OK);
}

static inline void sv_take_scale(sv_client *client, const uint8_t *seed,
                                 const uint8_t *norms, size_t size, float clip,
                                 int is_public)
{
  const uint64_t n = fl_compressor_norm_count(client->world->compressor);
  SV_REQUIRE(n <= SV_MAX_NORMS);
  SV_REQUIRE(fli_norms_from_bf16(client->norms, n, norms, size) == FL_OK);
  SV_REQUIRE(fl_scale_init(&client->scale, sizeof client->scale) == FL_OK);
  client->scale.slots = client->plan.slots;
  client->scale.round =
      client->plan.scale_round ? client->plan.scale_round : client->plan.round;
  client->scale.weight_cap = client->plan.weight_cap;
  memcpy(client->scale.noise_seed, seed, FL_SEED_BYTES);
  client->scale.norms = client->norms;
  client->scale.n_norms = n;
  client->scale.clip = clip;
  client->scale.is_public = (uint32_t)is_public;
  client->has_scale = 1;
}

static inline void sv_take_transfer(sv_client *client)
{
  const fli_manifest *manifest = &client->incoming.manifest;
  const fli_bytes *data = &client->incoming.data;
  if (manifest->kind == FLI_TRANSFER_PROBE) {
    fli_hash(client->probe_hash, data->data, data->size);
    fli_incoming_reset(&client->incoming);
    return;
  }
  client->down_size = data->size;
  if (manifest->kind == FLI_TRANSFER_MODEL) {
    SV_REQUIRE(fli_canonical_set(&client->model, manifest->model_version,
                                 data->data, data->size) == FL_OK);
  } else {
    SV_REQUIRE(fli_canonical_apply(&client->model, client->world->compressor,
                                   data->data, data->size) == FL_OK);
    SV_REQUIRE(client->model.version == manifest->model_version);
  }
  fli_incoming_reset(&client->incoming);
}

static inline void sv_take_plan(sv_client *client, const fli_frame *frame)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_plan *plan = &client->plan;
  SV_REQUIRE(fli_parse_plan(plan, frame->body, frame->size) == FL_OK);
  client->has_plan = 1;
  client->has_scale = 0;
  if (client->model.is_valid) {
    fli_canonical_hash(&client->model, hash);
    SV_REQUIRE(plan->model_version == client->model.version);
    SV_REQUIRE(memcmp(hash, plan->model_hash, sizeof hash) == 0);
  }
  if (plan->norms) {
    sv_take_scale(client, plan->noise_seed, plan->norms, plan->norms_size,
                  plan->clip, 1);
  }
}

static inline void sv_take_chunk(sv_client *client, const fli_frame *frame)
{
  fli_chunk chunk;
  int is_complete = 0;
  SV_REQUIRE(fli_parse_chunk(&chunk, frame->body, frame->size) == FL_OK);
  const fl_status st =
      fli_incoming_chunk(&client->incoming, &chunk, &is_complete);
  SV_REQUIRE(st == FL_OK || st == FL_E_EMPTY);
  if (is_complete) sv_take_transfer(client);
}

static inline void sv_take_frame(sv_client *client, const fli_frame *frame)
{
  fli_manifest manifest;
  fli_scale_msg scale;
  const uint8_t *body = frame->body;
  const size_t n = frame->size;
  fl_status st = FL_OK;
  client->got[frame->type % SV_TYPES]++;
  switch (frame->type) {
  case FLI_MSG_WELCOME:
    st = fli_parse_welcome(&client->welcome, body, n);
    sv_make_compressor(client);
    break;
  case FLI_MSG_MANIFEST:
    st = fli_parse_manifest(&manifest, body, n);
    SV_REQUIRE(st == FL_OK);
    st = fli_incoming_begin(&client->incoming, &manifest, UINT64_MAX);
    break;
  case FLI_MSG_CHUNK: sv_take_chunk(client, frame); break;
  case FLI_MSG_PLAN: sv_take_plan(client, frame); break;
  case FLI_MSG_SCALE:
    st = fli_parse_scale(&scale, body, n);
    SV_REQUIRE(st == FL_OK);
    sv_take_scale(client, scale.noise_seed, scale.norms, scale.norms_size,
                  scale.clip, 0);
    break;
  case FLI_MSG_ACK: st = fli_parse_ack(&client->ack, body, n); break;
  case FLI_MSG_EVALUATE:
    st = fli_parse_evaluate(&client->evaluate, body, n);
    break;
  case FLI_MSG_WAIT: st = fli_parse_wait(&client->wait, body, n); break;
  case FLI_MSG_REJECT: st = fli_parse_reject(&client->reject, body, n); break;
  case FLI_MSG_CHALLENGE:
    st = fli_parse_challenge(&client->challenge, body, n);
    break;
  case FLI_MSG_DONE:
    st = fli_parse_done(&client->done, body, n);
    client->is_done = 1;
    break;
  default: SV_REQUIRE(frame->type == FLI_MSG_WELCOME);
  }
  SV_REQUIRE(st == FL_OK);
}

static inline void sv_clear(sv_client *client)
{
  memset(client->got, 0, sizeof client->got);
  memset(&client->ack, 0, sizeof client->ack);
}

/* Take all that the server has for the client; 0 = nothing. */
static inline int sv_pull(sv_client *client)
{
  int got = 0;
  for (;;) {
    const uint8_t *data = NULL;
    size_t n = 0;
    fli_frame frame;
    if (fl_server_send(client->world->server, client->peer, &data, &n) !=
            FL_OK ||
        n == 0) {
      return got;
    }
    got = 1;
    fli_frame_feed(&client->parser, data, n);
    while (fli_frame_next(&client->parser, &frame) == FL_OK) {
      sv_take_frame(client, &frame);
    }
  }
}

/* ---- what a client says ---- */

static inline fl_status sv_push(sv_client *client)
{
  if (client->world->tamper) client->world->tamper(client);
  const fl_status st = fl_server_recv(client->world->server, client->peer,
                                      client->out.data, client->out.size);
  fli_bytes_clear(&client->out);
  return st;
}

static inline fli_hello sv_hello_message(const sv_client *client)
{
  fli_hello hello;
  memset(&hello, 0, sizeof hello);
  hello.version_min = FLI_PROTOCOL_MIN;
  hello.version_max = FLI_PROTOCOL_MAX;
  snprintf(hello.client_id, sizeof hello.client_id, "%s", client->id);
  hello.capabilities =
      FLI_CAP_TRAIN | FLI_CAP_EVALUATE | client->more_capabilities;
  hello.samples = client->samples;
  hello.depth = client->depth;
  hello.has_schema = 1;
  memcpy(hello.schema, client->world->schema, sizeof hello.schema);
  if (client->model.is_valid) {
    hello.has_model = 1;
    hello.model_version = client->model.version;
    fli_canonical_hash(&client->model, hello.model_hash);
  }
  return hello;
}

static inline void sv_send_hello(sv_client *client, const fli_hello *hello)
{
  SV_REQUIRE(fli_write_hello(&client->out, hello) == FL_OK);
  (void)sv_push(client);
}

/* An Ed25519 key of its own, from `seed`. */
static inline void sv_give_key(sv_client *client, uint8_t seed)
{
  uint8_t bytes[FLI_KEY_BYTES];
  memset(bytes, seed, sizeof bytes);
  fli_sign_keys(client->secret, client->public_key, bytes);
  client->has_key = 1;
}

/* The client's key, and its signature for the challenge at hand. */
static inline void sv_sign_hello(sv_client *client, fli_hello *hello)
{
  hello->has_key = 1;
  memcpy(hello->public_key, client->public_key, sizeof hello->public_key);
  fli_signed_hello(client->session, hello, client->challenge.nonce);
  hello->has_signature = 1;
  fli_sign(hello->signature, client->session, sizeof client->session,
           client->secret);
}

/* With the key, but nothing signed: the answer is a challenge. */
static inline void sv_ask_challenge(sv_client *client)
{
  fli_hello hello = sv_hello_message(client);
  hello.has_key = 1;
  memcpy(hello.public_key, client->public_key, sizeof hello.public_key);
  sv_send_hello(client, &hello);
  (void)sv_pull(client);
}

static inline void sv_hello(sv_client *client)
{
  fli_hello hello = sv_hello_message(client);
  client->is_gone = 0;
  client->has_plan = client->has_scale = 0;
  if (client->has_key) {
    sv_ask_challenge(client);
    sv_sign_hello(client, &hello);
  }
  sv_send_hello(client, &hello);
}

static inline void sv_lose(sv_client *client)
{
  client->is_gone = 1;
  fli_frame_parser_reset(&client->parser);
  SV_REQUIRE(fl_server_disconnected(client->world->server, client->peer) ==
             FL_OK);
}

/* Come back on another connection. */
static inline void sv_return(sv_client *client)
{
  client->peer += 100;
  sv_hello(client);
}

static inline void sv_train_now(sv_client *client)
{
  const uint64_t n = client->model.n;
  if (client->update && client->trained_round == client->plan.round) return;
  free(client->update);
  client->update = malloc((size_t)n * sizeof(float));
  SV_REQUIRE(client->update != NULL);
  for (size_t i = 0; i < n; i++) {
    client->update[i] = client->world->train(client, client->plan.round, i);
  }
  client->trained_round = client->plan.round;
}

/* The segments that the plan at hand asks for, of two modules of one each. */
static inline void sv_mask(const sv_client *client, uint8_t mask[2])
{
  mask[0] =
      client->is_old || client->plan.first_active <= client->world->modules[0];
  mask[1] = 1;
}

/* NORM of the plan at hand; `norms` NULL = the true ones. */
static inline void sv_norm_with(sv_client *client, const float *norms)
{
  const fl_compressor *compressor = client->world->compressor;
  const uint64_t n = fl_compressor_norm_count(compressor);
  float mine[SV_MAX_NORMS];
  uint8_t wire[2 * SV_MAX_NORMS];
  fl_scale scale;
  SV_REQUIRE(n <= SV_MAX_NORMS);
  sv_train_now(client);
  SV_REQUIRE(fl_scale_init(&scale, sizeof scale) == FL_OK);
  scale.slots = client->plan.slots;
  scale.round = client->plan.round;
  scale.weight_cap = client->plan.weight_cap;
  SV_REQUIRE(fl_compressor_measure(compressor, &scale, client->samples,
                                   client->update, client->model.n, mine,
                                   n) == FL_OK);
  /* Two segments of one block each. */
  uint8_t mask[2];
  sv_mask(client, mask);
  if (!mask[0]) mine[0] = 0.0f;
  fli_norms_to_bf16(wire, norms ? norms : mine, n);
  const fli_norm message = {.round = client->plan.round,
                            .attempt = client->plan.attempt,
                            .norms = wire,
                            .norms_size = (size_t)n * 2,
                            .samples = client->samples};
  SV_REQUIRE(fli_write_norm(&client->out, &message) == FL_OK);
  (void)sv_push(client);
}

static inline void sv_norm(sv_client *client)
{
  sv_norm_with(client, NULL);
}

/* The update as the client would send it; free(). */
static inline uint8_t *sv_encode(sv_client *client, uint32_t slot,
                                 uint64_t samples, size_t *size)
{
  const fl_compressor *compressor = client->world->compressor;
  const size_t capacity = (size_t)fl_compressor_max_update_size(compressor);
  uint8_t *data = malloc(capacity);
  fl_encode_options options;
  uint8_t mask[2];
  sv_mask(client, mask);
  sv_train_now(client);
  SV_REQUIRE(data != NULL);
  SV_REQUIRE(fl_encode_options_init(&options, sizeof options) == FL_OK);
  options.slot = slot;
  options.samples = samples;
  options.segments = mask;
  options.n_segments = 2;
  SV_REQUIRE(fl_compressor_encode(compressor, &client->scale, &options,
                                  client->update, client->model.n, data,
                                  capacity, size, NULL) == FL_OK);
  return data;
}

static inline fli_manifest sv_manifest(const sv_client *client)
{
  const fli_manifest manifest = {.kind = FLI_TRANSFER_UPDATE,
                                 .round = client->plan.round,
                                 .attempt = client->plan.attempt,
                                 .loss = client->loss,
                                 .has_report = client->has_report,
                                 .report_module = client->plan.first_active,
                                 .report_value = client->report};
  return manifest;
}

static inline void sv_sign_update(sv_client *client, fli_manifest *manifest)
{
  uint8_t statement[FLI_HASH_BYTES];
  fli_signed_update(statement, manifest, client->session);
  manifest->has_signature = 1;
  fli_sign(manifest->signature, statement, sizeof statement, client->secret);
}

/* Upload bytes under a manifest of the test's making. */
static inline void sv_upload(sv_client *client, fli_manifest *manifest,
                             const uint8_t *data, size_t size)
{
  fli_hash(manifest->hash, data, size);
  manifest->total = size;
  if (client->has_key && !manifest->has_signature)
    sv_sign_update(client, manifest);
  SV_REQUIRE(fli_outgoing_begin_hashed(&client->outgoing, &client->out,
                                       manifest, data, size,
                                       FLI_CHUNK_MIN) == FL_OK);
  while (client->outgoing.is_active) {
    SV_REQUIRE(fli_outgoing_next(&client->outgoing, &client->out) == FL_OK);
  }
  (void)sv_push(client);
}

static inline void sv_update(sv_client *client)
{
  uint8_t clamped[2 * SV_MAX_NORMS];
  fli_manifest manifest = sv_manifest(client);
  const uint64_t n = fl_compressor_norm_count(client->world->compressor);
  size_t size = 0;
  uint8_t *data = sv_encode(client, client->plan.slot, client->samples, &size);
  for (uint64_t i = 0; client->scale.is_public && i < n; i++) {
    const uint32_t count =
        client->world->clamped ? client->world->clamped(client, i) : 0;
    fli_store_u16(clamped + 2 * i, (uint16_t)count);
    manifest.clamped = clamped;
    manifest.clamped_size = (size_t)n * 2;
  }
  client->update_size = size;
  if (client->n_tail > 0) {
    data = realloc(data, size + client->n_tail);
    SV_REQUIRE(data != NULL);
    memcpy(data + size, client->tail, client->n_tail);
    size += client->n_tail;
    manifest.slices_size = client->n_tail;
  }
  sv_upload(client, &manifest, data, size);
  free(data);
}

static inline void sv_score(sv_client *client, double loss, uint64_t correct,
                            uint64_t count)
{
  const fli_metrics message = {.round = client->evaluate.round,
                               .model_version = client->evaluate.model_version,
                               .loss = loss,
                               .correct = correct,
                               .count = count};
  SV_REQUIRE(fli_write_metrics(&client->out, &message) == FL_OK);
  (void)sv_push(client);
}

static inline void sv_decline(sv_client *client, uint8_t type)
{
  const fli_decline message = {.round = client->plan.round,
                               .attempt = client->plan.attempt};
  SV_REQUIRE(fli_write_decline(&client->out, type, &message) == FL_OK);
  (void)sv_push(client);
}

#endif
