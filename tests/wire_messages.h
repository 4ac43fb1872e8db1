/* SPDX-License-Identifier: Apache-2.0 */
/* One instance of every message, and "parse by type, write again": shared by
 * the wire tests, the golden bytes, the fuzz targets and their corpora. Values
 * are chosen so that every field is different from zero and its neighbours. */
#ifndef WIRE_MESSAGES_H
#define WIRE_MESSAGES_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "wire/messages.h"

/* Parse the frame's body as its type says and append it to `out` as a frame
 * again. FL_E_VERSION for an unknown type. */
static inline fl_status wire_rewrite(const fli_frame *frame, fli_bytes *out)
{
  fl_status st;
  fli_scale_msg scale;
  fli_slice_msg slice;
  fli_decline decline;
  switch (frame->type) {
#define WIRE_CASE_(name, TYPE)                               \
case FLI_MSG_##TYPE: {                                       \
  fli_##name message;                                        \
  st = fli_parse_##name(&message, frame->body, frame->size); \
  return st == FL_OK ? fli_write_##name(out, &message) : st; \
}
    FLI_MESSAGES(WIRE_CASE_)
#undef WIRE_CASE_
  case FLI_MSG_SCALE:
    st = fli_parse_scale(&scale, frame->body, frame->size);
    return st == FL_OK ? fli_write_scale(out, &scale) : st;
  case FLI_MSG_SLICE:
    st = fli_parse_slice_msg(&slice, frame->body, frame->size);
    return st == FL_OK ? fli_write_slice_msg(out, &slice) : st;
  case FLI_MSG_DECLINE:
  case FLI_MSG_BYE:
    st = fli_parse_decline(&decline, frame->body, frame->size);
    return st == FL_OK ? fli_write_decline(out, frame->type, &decline) : st;
  default: return FL_E_VERSION;
  }
}

/* Bytes first, first + 1, ... */
static inline void wire_fill(uint8_t *out, size_t n, uint8_t first)
{
  for (size_t i = 0; i < n; i++)
    out[i] = (uint8_t)(first + i);
}

static inline const uint8_t *wire_key(void)
{
  static const uint8_t key[FLI_KEY_BYTES] = {
      0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa,
      0xab, 0xac, 0xad, 0xae, 0xaf, 0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5,
      0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf};
  return key;
}

/* bf16 of 1, 2 and 0.5 */
static const uint8_t wire_norms[6] = {0x80, 0x3f, 0x00, 0x40, 0x00, 0x3f};

static inline void wire_hello(fli_hello *m)
{
  memset(m, 0, sizeof *m);
  m->version_min = 1;
  m->version_max = 3;
  strcpy(m->client_id, "phone-17");
  strcpy(m->job, "mnist");
  m->capabilities = FLI_CAP_TRAIN | FLI_CAP_EVALUATE;
  m->samples = 6000;
  strcpy(m->device_class, "arm64");
  m->has_schema = 1;
  wire_fill(m->schema, sizeof m->schema, 0x10);
  m->has_token = 1;
  wire_fill(m->token, sizeof m->token, 0x40);
  m->has_model = 1;
  m->model_version = 4;
  wire_fill(m->model_hash, sizeof m->model_hash, 0x60);
}

static inline void wire_welcome(fli_welcome *m)
{
  static const uint8_t description[4] = {0x81, 0x01, 0x93, 0xc0};
  memset(m, 0, sizeof *m);
  m->version = 1;
  strcpy(m->job, "mnist");
  wire_fill(m->token, sizeof m->token, 0x40);
  wire_fill(m->schema, sizeof m->schema, 0x10);
  m->description = description;
  m->description_size = sizeof description;
  m->codec = 3;
  m->thc_mode = 2;
  m->bits = 4;
  m->granularity = 30;
  m->clip = 2.5f;
  wire_fill(m->rotation_seed, sizeof m->rotation_seed, 0x80);
  m->round = 2;
  m->rounds = 15;
}

/* Table mode, two bits. */
static inline void wire_add_table(fli_welcome *m)
{
  static const uint8_t table[4] = {0, 2, 5, 7};
  m->description = NULL;
  m->thc_mode = 3;
  m->bits = 2;
  m->granularity = 7;
  m->table = table;
  m->table_size = sizeof table;
}

static inline void wire_plan(fli_plan *m)
{
  memset(m, 0, sizeof *m);
  m->round = 3;
  m->attempt = 1;
  m->slot = 7;
  m->slots = 8;
  m->weight_cap = 48000;
  m->epochs = 2;
  m->batch_size = 32;
  m->learning_rate = 0.05f;
  m->seed = UINT64_C(0x0123456789abcdef);
  m->model_version = 5;
  wire_fill(m->model_hash, sizeof m->model_hash, 0x60);
  m->deadline_ms = 600000;
  m->scale_mode = 2;
  m->noise_seed = wire_key();
  m->norms = wire_norms;
  m->norms_size = sizeof wire_norms;
  m->clip = 3.0f;
}

static inline void wire_manifest(fli_manifest *m)
{
  static const uint8_t clamped[6] = {1, 0, 0, 2, 5, 0};
  memset(m, 0, sizeof *m);
  m->transfer = 9;
  m->kind = FLI_TRANSFER_UPDATE;
  m->total = 70000;
  m->chunk_size = 65536;
  wire_fill(m->hash, sizeof m->hash, 0xc0);
  m->round = 3;
  m->attempt = 1;
  m->loss = 0.75;
  m->model_version = 6;
  m->base_version = 2;
  m->clamped = clamped;
  m->clamped_size = sizeof clamped;
}

/* Modules in front are frozen. */
static inline void wire_add_freezing(fli_plan *m)
{
  static const uint8_t freeze_plan[3] = {0x81, 0x01, 0x02};
  m->noise_seed = m->norms = NULL;
  m->clip = 0;
  m->scale_mode = 1;
  m->first_active = 2;
  m->freeze_plan = freeze_plan;
  m->freeze_plan_size = sizeof freeze_plan;
  m->freeze_reports = 1;
}

static inline fl_status wire_slices(uint32_t index, fli_bytes *out)
{
  static const uint8_t bytes[5] = {1, 'R', 0, 0, 9};
  const fli_get_slice get = {3, 1, bytes, sizeof bytes};
  const fli_slice_msg slice = {3, 2, bytes, sizeof bytes};
  fli_plan plan;
  fli_manifest manifest;
  wire_plan(&plan);
  wire_manifest(&manifest);
  plan.slices = bytes;
  plan.slices_size = sizeof bytes;
  manifest.slices_size = 4000;
  switch (index) {
  case 24: return fli_write_get_slice(out, &get);
  case 25: return fli_write_slice_msg(out, &slice);
  case 26: return fli_write_plan(out, &plan);
  default: return fli_write_manifest(out, &manifest);
  }
}

/* Of clients with keys, and of those that leave. */
static inline fl_status wire_signed(uint32_t index, fli_bytes *out)
{
  const fli_decline bye = {.forgets = 1};
  fli_challenge challenge;
  fli_hello hello;
  fli_manifest manifest;
  wire_hello(&hello);
  wire_manifest(&manifest);
  switch (index) {
  case 28:
    wire_fill(challenge.nonce, sizeof challenge.nonce, 0x20);
    return fli_write_challenge(out, &challenge);
  case 29:
    hello.has_key = hello.has_signature = hello.has_server_key = 1;
    wire_fill(hello.public_key, sizeof hello.public_key, 0x50);
    wire_fill(hello.signature, sizeof hello.signature, 0x90);
    wire_fill(hello.server_key, sizeof hello.server_key, 0x30);
    return fli_write_hello(out, &hello);
  case 30:
    manifest.has_signature = 1;
    wire_fill(manifest.signature, sizeof manifest.signature, 0x90);
    return fli_write_manifest(out, &manifest);
  default: return fli_write_decline(out, FLI_MSG_BYE, &bye);
  }
}

/* Two gaps. */
static inline fl_status wire_status(fli_bytes *out)
{
  static const uint8_t ranges[2 * FLI_RANGE_BYTES] = {
      [1] = 0x10, [9] = 0x20, [17] = 0x30, [24] = 0x70, [25] = 0x11, [26] = 1};
  const fli_missing missing = {9, ranges, sizeof ranges};
  return fli_write_missing(out, &missing);
}

enum { WIRE_SAMPLES = 34 };

/* Messages with other keys than those that wire_x fills. */
static inline fl_status wire_variant(uint32_t index, fli_bytes *out)
{
  fli_hello hello;
  fli_welcome welcome;
  fli_plan plan;
  fli_manifest manifest;
  wire_hello(&hello);
  wire_welcome(&welcome);
  wire_plan(&plan);
  wire_manifest(&manifest);
  switch (index) {
  case 16: /* nothing optional */
    hello.job[0] = hello.device_class[0] = '\0';
    hello.has_schema = hello.has_token = hello.has_model = 0;
    return fli_write_hello(out, &hello);
  case 17: welcome.description = NULL; return fli_write_welcome(out, &welcome);
  case 18:
    plan.noise_seed = plan.norms = NULL;
    plan.clip = 0;
    plan.scale_mode = 1;
    return fli_write_plan(out, &plan);
  case 19:
    manifest.kind = FLI_TRANSFER_STEPS;
    manifest.loss = (double)NAN;
    manifest.clamped = NULL;
    return fli_write_manifest(out, &manifest);
  case 20: wire_add_table(&welcome); return fli_write_welcome(out, &welcome);
  case 21: hello.depth = 3; return fli_write_hello(out, &hello);
  case 22: wire_add_freezing(&plan); return fli_write_plan(out, &plan);
  case 23:
    manifest.has_report = 1;
    manifest.report_module = 2;
    manifest.report_value = 0.125;
    return fli_write_manifest(out, &manifest);
  case 32: return wire_status(out);
  case 33: welcome.has_status = 1; return fli_write_welcome(out, &welcome);
  default:
    return index < 28 ? wire_slices(index, out) : wire_signed(index, out);
  }
}

/* Append sample `index` as a frame; the first 16 are one of each type. */
static inline fl_status wire_sample(uint32_t index, fli_bytes *out)
{
  fli_hello hello;
  fli_welcome welcome;
  fli_plan plan;
  fli_manifest manifest;
  wire_hello(&hello);
  wire_welcome(&welcome);
  wire_plan(&plan);
  wire_manifest(&manifest);
  fli_norm norm = {3, 1, wire_norms, sizeof wire_norms, 5999};
  fli_metrics metrics = {.round = 3,
                         .model_version = 6,
                         .loss = 0.5,
                         .correct = 870,
                         .count = 1000};
  fli_decline decline = {.round = 3, .attempt = 1};
  fli_get_model get_model = {6};
  fli_scale_msg scale = {3,    1,    wire_key(), wire_norms, sizeof wire_norms,
                         2.5f, 90000};
  fli_ack ack = {3, 1, 8, "already counted"};
  fli_evaluate evaluate = {.round = 3, .model_version = 6};
  fli_wait wait = {1500, "staging is full"};
  fli_reject reject = {5, "no job \"x\""};
  fli_done done = {.rounds = 15, .model_version = 15};
  fli_chunk chunk = {9, 65536, wire_key(), FLI_KEY_BYTES};
  memcpy(evaluate.model_hash, plan.model_hash, FLI_HASH_BYTES);
  memcpy(done.model_hash, plan.model_hash, FLI_HASH_BYTES);
  switch (index) {
  case 0: return fli_write_hello(out, &hello);
  case 1: return fli_write_norm(out, &norm);
  case 2: return fli_write_metrics(out, &metrics);
  case 3: return fli_write_decline(out, FLI_MSG_DECLINE, &decline);
  case 4: return fli_write_get_model(out, &get_model);
  case 5: return fli_write_decline(out, FLI_MSG_BYE, &decline);
  case 6: return fli_write_welcome(out, &welcome);
  case 7: return fli_write_plan(out, &plan);
  case 8: return fli_write_scale(out, &scale);
  case 9: return fli_write_ack(out, &ack);
  case 10: return fli_write_evaluate(out, &evaluate);
  case 11: return fli_write_wait(out, &wait);
  case 12: return fli_write_reject(out, &reject);
  case 13: return fli_write_done(out, &done);
  case 14: return fli_write_manifest(out, &manifest);
  case 15: return fli_write_chunk(out, &chunk);
  default: return wire_variant(index, out);
  }
}

static inline const char *wire_sample_name(uint32_t index)
{
  static const char *const names[WIRE_SAMPLES] = {
      "hello",           "norm",
      "metrics",         "decline",
      "get_model",       "bye",
      "welcome",         "plan",
      "scale",           "ack",
      "evaluate",        "wait",
      "reject",          "done",
      "manifest",        "chunk",
      "hello-minimal",   "welcome-known-schema",
      "plan-exchanged",  "manifest-steps",
      "welcome-table",   "hello-depth",
      "plan-freezing",   "manifest-report",
      "get_slice",       "slice",
      "plan-slices",     "manifest-slices",
      "challenge",       "hello-signed",
      "manifest-signed", "bye-forget",
      "status",          "welcome-status"};
  return names[index];
}

#endif
