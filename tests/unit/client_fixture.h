/* SPDX-License-Identifier: Apache-2.0 */
/* A client and a scripted server for Criterion tests: the test says which
 * frame the server sends next and looks at the frames that the client sent.
 * The model is two loose tensors in two modules. */
#ifndef CLIENT_FIXTURE_H
#define CLIENT_FIXTURE_H

#include <criterion/criterion.h>
#include <fl/client.h>
#include <fl/compress.h>
#include <fl/server.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "wire/transfer.h"
#include "outgoing.h"

/* An update takes more than one chunk, as float32. */
enum { FX_WEIGHTS = 1240, FX_MAX_FRAMES = 64, FX_CHUNK = 4096 };

#define FX_SECOND UINT64_C(1000000000)

typedef struct fx_frame {
  uint8_t type;
  uint8_t *body;
  size_t size;
} fx_frame;

typedef struct fixture {
  fl_context *context;
  fl_model *model;
  fl_client *client;
  fl_client_options options;
  fl_compressor_options codec;
  int has_feedback; /* the job wants error feedback, with this decay */
  float decay;
  fl_compressor *compressor;
  uint64_t n_norms;
  fli_plan plan; /* what fx_plan sends; tests change it */
  float weights[FX_WEIGHTS];
  uint8_t hash[FLI_HASH_BYTES]; /* of `weights` */
  uint64_t version;
  fli_bytes out; /* of the server */
  uint64_t next_transfer;
  fx_frame frames[FX_MAX_FRAMES]; /* of the client, not yet taken */
  size_t n_frames;
  uint64_t now_ns;
  fl_client_event event; /* of the last fx_poll */
} fixture;

/* The server's model as it travels. */
static inline void fx_weight_bytes(const fixture *fx,
                                   uint8_t bytes[4 * FX_WEIGHTS])
{
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    fli_store_f32(bytes + 4 * i, fx->weights[i]);
}

static inline void fx_hash(fixture *fx)
{
  uint8_t bytes[4 * FX_WEIGHTS];
  fx_weight_bytes(fx, bytes);
  fli_hash(fx->hash, bytes, sizeof bytes);
}

/* Make version `version` of the server's model, different from all others. */
static inline void fx_set_model(fixture *fx, uint64_t version)
{
  fx->version = version;
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    fx->weights[i] = (float)(i + 1) * 0.25f + (float)version;
  fx_hash(fx);
  fx->plan.model_version = version;
  memcpy(fx->plan.model_hash, fx->hash, sizeof fx->hash);
}

static inline fl_model *fx_make_model(void)
{
  const uint64_t first[2] = {204, 6}, second[1] = {16};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  cr_assert_eq(fl_model_builder_module(builder, 0), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "a", first, 2, 1), FL_OK);
  cr_assert_eq(fl_model_builder_module(builder, 1), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "b", second, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  fl_model_builder_free(builder);
  return model;
}

static inline void fx_options(fixture *fx)
{
  cr_assert_eq(fl_client_options_init(&fx->options, sizeof fx->options), FL_OK);
  fx->options.client_id = "alice";
  fx->options.samples = 10;
  fx->options.chunk_size = FX_CHUNK;
}

/* Everything but the client. */
static inline void fx_begin(fixture *fx, uint32_t codec)
{
  uint64_t segments[2];
  memset(fx, 0, sizeof *fx);
  fli_bytes_init(&fx->out, NULL);
  fx->next_transfer = 1;
  fx->model = fx_make_model();
  cr_assert_eq(fl_compressor_options_init(&fx->codec, sizeof fx->codec), FL_OK);
  fx->codec.codec = codec;
  cr_assert_eq(fl_model_copy_segments(fx->model, segments, 2), FL_OK);
  cr_assert_eq(
      fl_compressor_new(&fx->compressor, NULL, &fx->codec, segments, 2), FL_OK);
  fx->n_norms = fl_compressor_norm_count(fx->compressor);
  fx->plan = (fli_plan){.round = 1,
                        .slots = 4,
                        .epochs = 1,
                        .batch_size = 32,
                        .learning_rate = .5f,
                        .seed = 7,
                        .scale_mode = FL_SCALE_EXCHANGED};
  fx_set_model(fx, 3);
  fx_options(fx);
}

/* Before WELCOME: THC in table mode. */
static inline void fx_use_table(fixture *fx, const uint8_t table[16])
{
  uint64_t segments[2];
  fx->codec.thc_mode = FL_THC_TABLE;
  fx->codec.bits = 4;
  fx->codec.granularity = table[15];
  fx->codec.n_table = 16;
  fx->codec.table = table;
  cr_assert_eq(fl_model_copy_segments(fx->model, segments, 2), FL_OK);
  fl_compressor_free(fx->compressor);
  cr_assert_eq(
      fl_compressor_new(&fx->compressor, NULL, &fx->codec, segments, 2), FL_OK);
}

static inline void fx_new(fixture *fx)
{
  cr_assert_eq(fl_client_new(&fx->client, fx->context, &fx->options), FL_OK,
               "%s", fl_last_error());
}

static inline void fx_init(fixture *fx, uint32_t codec)
{
  fx_begin(fx, codec);
  fx_new(fx);
}

static inline void fx_drop_frames(fixture *fx)
{
  for (size_t i = 0; i < fx->n_frames; i++)
    free(fx->frames[i].body);
  fx->n_frames = 0;
}

static inline void fx_free(fixture *fx)
{
  fx_drop_frames(fx);
  fl_client_free(fx->client);
  fl_compressor_free(fx->compressor);
  fl_model_free(fx->model);
  fli_bytes_free(&fx->out);
}

/* ---- the client's frames ------------------------------------------------ */

/* Take everything the client has to send. */
static inline void fx_pull(fixture *fx)
{
  fli_frame_parser parser;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  for (;;) {
    const uint8_t *data;
    size_t n;
    fli_frame frame;
    cr_assert_eq(fl_client_send(fx->client, &data, &n), FL_OK);
    if (n == 0) break;
    fli_frame_feed(&parser, data, n);
    while (fli_frame_next(&parser, &frame) == FL_OK) {
      cr_assert(fx->n_frames < FX_MAX_FRAMES);
      fx_frame *kept = &fx->frames[fx->n_frames++];
      kept->type = frame.type;
      kept->size = frame.size;
      kept->body = malloc(frame.size + 1);
      memcpy(kept->body, frame.body, frame.size);
    }
  }
  fli_frame_parser_free(&parser);
}

/* The first frame not yet taken must be of `type`; free the body. */
static inline fx_frame fx_take(fixture *fx, uint8_t type)
{
  fx_pull(fx);
  cr_assert(fx->n_frames > 0, "no frame of type %u", type);
  fx_frame frame = fx->frames[0];
  cr_assert_eq(frame.type, type, "got frame type %u, want %u", frame.type,
               type);
  fx->n_frames--;
  memmove(fx->frames, fx->frames + 1, fx->n_frames * sizeof frame);
  return frame;
}

static inline void fx_skip(fixture *fx, uint8_t type)
{
  free(fx_take(fx, type).body);
}

static inline void fx_nothing_sent(fixture *fx)
{
  fx_pull(fx);
  cr_assert_eq(fx->n_frames, 0, "unexpected frame of type %u",
               fx->frames[0].type);
}

static inline fli_hello fx_take_hello(fixture *fx)
{
  fli_hello hello;
  fx_frame frame = fx_take(fx, FLI_MSG_HELLO);
  cr_assert_eq(fli_parse_hello(&hello, frame.body, frame.size), FL_OK);
  free(frame.body);
  return hello;
}

/* The upload's manifest; its bytes go to *data (free it). */
static inline fli_manifest fx_take_upload(fixture *fx, uint8_t **data)
{
  fli_manifest manifest;
  fx_frame frame = fx_take(fx, FLI_MSG_MANIFEST);
  cr_assert_eq(fli_parse_manifest(&manifest, frame.body, frame.size), FL_OK);
  manifest.clamped = NULL;
  free(frame.body);
  uint8_t *bytes = malloc((size_t)manifest.total);
  uint64_t held = 0;
  while (held < manifest.total) {
    fli_chunk chunk;
    frame = fx_take(fx, FLI_MSG_CHUNK);
    cr_assert_eq(fli_parse_chunk(&chunk, frame.body, frame.size), FL_OK);
    cr_assert_eq(chunk.transfer, manifest.transfer);
    cr_assert_eq(chunk.offset, held);
    memcpy(bytes + held, chunk.data, chunk.size);
    held += chunk.size;
    free(frame.body);
  }
  if (data)
    *data = bytes;
  else
    free(bytes);
  return manifest;
}

/* ---- the server's frames ------------------------------------------------ */

static inline fl_status fx_flush(fixture *fx)
{
  fl_status st = fl_client_recv(fx->client, fx->out.data, fx->out.size);
  fli_bytes_clear(&fx->out);
  return st;
}

/* Hand over what was written; it must be taken. */
static inline void fx_deliver(fixture *fx)
{
  fl_status st = fx_flush(fx);
  cr_assert_eq(st, FL_OK, "recv: %s (%s)", fl_status_name(st), fl_last_error());
}

static inline fli_welcome fx_welcome_message(fixture *fx, uint8_t *description,
                                             size_t capacity)
{
  size_t size = 0;
  fli_welcome welcome = {.version = 1,
                         .job = "job",
                         .codec = fx->codec.codec,
                         .thc_mode = fx->codec.thc_mode,
                         .bits = fx->codec.bits,
                         .granularity = fx->codec.granularity,
                         .clip = fl_compressor_clip(fx->compressor),
                         .rounds = 5,
                         .table = fx->codec.table,
                         .table_size = fx->codec.n_table,
                         .has_feedback = fx->has_feedback,
                         .feedback_decay = fx->decay};
  memset(welcome.token, 0x5a, sizeof welcome.token);
  cr_assert_eq(fl_model_copy_schema(fx->model, welcome.schema), FL_OK);
  cr_assert_eq(
      fl_model_copy_description(fx->model, description, capacity, &size),
      FL_OK);
  welcome.description = description;
  welcome.description_size = size;
  return welcome;
}

static inline void fx_welcome(fixture *fx)
{
  uint8_t description[1024];
  fli_welcome welcome = fx_welcome_message(fx, description, sizeof description);
  cr_assert_eq(fli_write_welcome(&fx->out, &welcome), FL_OK);
  fx_deliver(fx);
}

/* HELLO, WELCOME. */
static inline void fx_join(fixture *fx)
{
  fx_skip(fx, FLI_MSG_HELLO);
  fx_welcome(fx);
}

/* Write the server's model, as the manifest has it: MANIFEST and CHUNKs. */
static inline void fx_write_transfer(fixture *fx, fli_manifest *manifest)
{
  uint8_t bytes[4 * FX_WEIGHTS];
  fli_outgoing outgoing = {.transfer = fx->next_transfer++};
  manifest->model_version = fx->version;
  manifest->loss = (double)NAN;
  fx_weight_bytes(fx, bytes);
  cr_assert_eq(outgoing_begin(&outgoing, &fx->out, manifest, bytes,
                              sizeof bytes, FX_CHUNK),
               FL_OK);
  while (outgoing.is_active)
    cr_assert_eq(fli_outgoing_next(&outgoing, &fx->out), FL_OK);
}

/* A full copy of it. */
static inline void fx_write_model(fixture *fx)
{
  fli_manifest manifest = {.kind = FLI_TRANSFER_MODEL};
  fx_write_transfer(fx, &manifest);
}

static inline void fx_send_model(fixture *fx)
{
  fx_write_model(fx);
  fx_deliver(fx);
}

static inline void fx_plan(fixture *fx)
{
  cr_assert_eq(fli_write_plan(&fx->out, &fx->plan), FL_OK);
  fx_deliver(fx);
}

/* SCALE with the same norm for every block. */
static inline void fx_scale(fixture *fx, float norm, uint8_t seed)
{
  uint8_t norms[64], noise[FLI_KEY_BYTES];
  float values[32];
  cr_assert(fx->n_norms <= 32);
  for (uint64_t i = 0; i < fx->n_norms; i++)
    values[i] = norm;
  fli_norms_to_bf16(norms, values, fx->n_norms);
  memset(noise, seed, sizeof noise);
  fli_scale_msg scale = {.round = fx->plan.round,
                         .attempt = fx->plan.attempt,
                         .noise_seed = noise,
                         .norms = norms,
                         .norms_size = 2 * (size_t)fx->n_norms,
                         .clip = fl_compressor_clip(fx->compressor)};
  cr_assert_eq(fli_write_scale(&fx->out, &scale), FL_OK);
  fx_deliver(fx);
}

static inline void fx_ack(fixture *fx, uint32_t reason)
{
  fli_ack ack = {
      .round = fx->plan.round, .attempt = fx->plan.attempt, .reason = reason};
  cr_assert_eq(fli_write_ack(&fx->out, &ack), FL_OK);
  fx_deliver(fx);
}

static inline void fx_evaluate(fixture *fx, uint64_t round)
{
  fli_evaluate evaluate = {.round = round, .model_version = fx->version};
  memcpy(evaluate.model_hash, fx->hash, sizeof fx->hash);
  cr_assert_eq(fli_write_evaluate(&fx->out, &evaluate), FL_OK);
  fx_deliver(fx);
}

static inline void fx_done(fixture *fx)
{
  fli_done done = {.rounds = 5, .model_version = fx->version};
  memcpy(done.model_hash, fx->hash, sizeof fx->hash);
  cr_assert_eq(fli_write_done(&fx->out, &done), FL_OK);
  fx_deliver(fx);
}

static inline void fx_wait(fixture *fx, uint64_t wait_ms)
{
  fli_wait wait = {.wait_ms = wait_ms, .text = "later"};
  cr_assert_eq(fli_write_wait(&fx->out, &wait), FL_OK);
  fx_deliver(fx);
}

static inline void fx_reject(fixture *fx, uint32_t reason)
{
  fli_reject reject = {.reason = reason, .text = "no"};
  cr_assert_eq(fli_write_reject(&fx->out, &reject), FL_OK);
  fx_deliver(fx);
}

/* Sum the client's bytes as a server does and decode the mean. */
static inline void fx_decode(fixture *fx, float norm, uint8_t seed,
                             const uint8_t *data, size_t n, float *out)
{
  float norms[32];
  fl_partial *partial = NULL;
  fl_scale scale;
  cr_assert_eq(fl_scale_init(&scale, sizeof scale), FL_OK);
  for (uint64_t i = 0; i < fx->n_norms; i++)
    norms[i] = norm;
  scale.slots = fx->plan.slots;
  scale.round = fx->plan.round;
  scale.weight_cap = fx->plan.weight_cap;
  memset(scale.noise_seed, seed, sizeof scale.noise_seed);
  scale.norms = norms;
  scale.n_norms = fx->n_norms;
  scale.is_public = fx->plan.scale_mode == FL_SCALE_PUBLIC;
  scale.clip = fl_compressor_clip(fx->compressor);
  cr_assert_eq(fl_partial_new(&partial, fx->compressor, &scale), FL_OK);
  fl_status st = fl_partial_add(partial, data, n);
  cr_assert_eq(st, FL_OK, "%s", fl_last_error());
  cr_assert(fl_partial_has_slot(partial, fx->plan.slot));
  cr_assert_eq(fl_partial_decode(partial, out, FX_WEIGHTS), FL_OK);
  fl_partial_free(partial);
}

/* ---- the host ----------------------------------------------------------- */

static inline uint32_t fx_poll(fixture *fx)
{
  cr_assert_eq(fl_client_event_init(&fx->event, sizeof fx->event), FL_OK);
  cr_assert_eq(fl_client_poll(fx->client, fx->now_ns, &fx->event), FL_OK, "%s",
               fl_last_error());
  return fx->event.kind;
}

#define FX_EVENT(fx, want) cr_assert_eq(fx_poll(fx), (uint32_t)(want))

/* Poll until nothing is left to be told. */
static inline void fx_drain(fixture *fx)
{
  for (int i = 0; i < 32; i++)
    if (fx_poll(fx) == FL_CLIENT_IDLE) return;
  cr_assert(0, "events without end");
}

/* The update that fx_submit gives. */
static inline void fx_update(float update[FX_WEIGHTS], float factor)
{
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    update[i] = factor * ((float)(i % 5) - 2.f);
}

static inline void fx_submit(fixture *fx, float factor)
{
  float update[FX_WEIGHTS];
  fl_train_result result;
  fx_update(update, factor);
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  result.update = update;
  result.n = FX_WEIGHTS;
  result.loss = .75;
  cr_assert_eq(fl_client_submit(fx->client, &result), FL_OK, "%s",
               fl_last_error());
}

/* HELLO, WELCOME, model, PLAN: NEED_TRAIN is out. */
static inline void fx_to_train(fixture *fx)
{
  fx_join(fx);
  fx_send_model(fx);
  fx_plan(fx);
  FX_EVENT(fx, FL_CLIENT_JOINED);
  FX_EVENT(fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(fx, FL_CLIENT_NEED_TRAIN);
}

/* Trained, NORM sent. */
static inline void fx_to_norm(fixture *fx)
{
  fx_to_train(fx);
  fx_submit(fx, 1.f);
  fx_skip(fx, FLI_MSG_NORM);
  FX_EVENT(fx, FL_CLIENT_IDLE);
}

/* SCALE taken, update sent. */
static inline void fx_to_update(fixture *fx)
{
  fx_to_norm(fx);
  fx_scale(fx, 100.f, 1);
  fx_take_upload(fx, NULL);
  FX_EVENT(fx, FL_CLIENT_IDLE);
}

#endif
