/* SPDX-License-Identifier: Apache-2.0 */
/* A client and a hostile server. The first byte brings the client into some
 * state of an honest job (bits 0-3: steps done, 4: f32 instead of THC, 5: the
 * host is asked instead of a callback, 6: the model is at hand, 7: module 0 is
 * frozen from round 2 on); the rest is a script of what happens then: bytes for
 * recv mixed with time, broken connections, answers of the host, deaths, and
 * the honest server's messages.
 *
 * Whatever comes: no bad access, memory below a cap, every frame sent is one
 * that a server can parse, polls come to their end, and a model that is held
 * is finite. */
#include "fuzz.h"

#include <math.h>

#include "client_pair.h"
#include "crypto/keys.h"
#include "wire_messages.h"

enum {
  MEMORY_CAP = 4 << 20,
  MAX_POLLS = 64,
  MAX_SENDS = 64,
  /* Opcodes; below them, opcode + 1 bytes follow for recv. */
  OP_TIME = 0xf0,
  OP_DISCONNECT,
  OP_SUBMIT,
  OP_DECLINE,
  OP_DIE,
  OP_HONEST_DOWN,
  OP_HONEST_UP,
  OP_NOTHING,
  OP_KEY,
  OP_LEAVE
};

static void check_frames(const uint8_t *data, size_t n)
{
  fli_frame_parser parser;
  fli_frame frame;
  fli_bytes again;
  fl_status st;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  fli_bytes_init(&again, NULL);
  fli_frame_feed(&parser, data, n);
  while ((st = fli_frame_next(&parser, &frame)) == FL_OK) {
    FUZZ_CHECK(frame.type < FLI_MSG_WELCOME || frame.type >= FLI_MSG_MANIFEST);
    FUZZ_CHECK(wire_rewrite(&frame, &again) == FL_OK);
  }
  FUZZ_CHECK(st == FL_E_EMPTY);
  FUZZ_CHECK(parser.pending.size == 0);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&again);
}

static void drain_sends(pair *p, int is_delivered)
{
  int i;
  for (i = 0; i < MAX_SENDS; i++) {
    const uint8_t *data = NULL;
    size_t n = 0;
    fl_status st = fl_client_send(p->client, &data, &n);
    FUZZ_CHECK(st == FL_OK || st == FL_E_NOMEM);
    if (st != FL_OK || n == 0) return;
    check_frames(data, n);
    if (is_delivered)
      FUZZ_CHECK(fl_server_recv(p->server, p->peer, data, n) == FL_OK);
  }
  FUZZ_CHECK(i < MAX_SENDS);
}

static void drain_polls(pair *p)
{
  int i;
  for (i = 0; i < MAX_POLLS; i++) {
    fl_client_event event;
    FUZZ_CHECK(fl_client_event_init(&event, sizeof event) == FL_OK);
    fl_status st = fl_client_poll(p->client, p->now_ns, &event);
    FUZZ_CHECK(event.text != NULL);
    if (st == FL_OK && event.kind == FL_CLIENT_IDLE) return;
  }
  FUZZ_CHECK(i < MAX_POLLS);
}

static void check_model(const pair *p)
{
  float weights[PAIR_WEIGHTS];
  fl_status st = fl_client_copy_weights(p->client, weights, PAIR_WEIGHTS, NULL);
  FUZZ_CHECK(st == FL_OK || st == FL_E_EMPTY || st == FL_E_DIM);
  for (size_t i = 0; st == FL_OK && i < PAIR_WEIGHTS; i++)
    FUZZ_CHECK(isfinite(weights[i]));
}

/* Saved, freed, restored. Only a lack of memory may get in the way. */
static void die(pair *p)
{
  fl_buffer *state = NULL;
  fl_client *again = NULL;
  fl_writer writer;
  fl_reader reader;
  FUZZ_CHECK(fl_buffer_new(&state, NULL) == FL_OK);
  FUZZ_CHECK(fl_buffer_as_writer(state, &writer) == FL_OK);
  FUZZ_CHECK(fl_buffer_as_reader(state, &reader) == FL_OK);
  fl_status st = fl_client_save(p->client, &writer);
  if (st == FL_OK)
    st = fl_client_restore(&again, p->context, &p->options, &reader);
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOMEM);
  fl_buffer_free(state);
  if (!again) return;
  fl_client_free(p->client);
  p->client = again;
}

static void answer(pair *p)
{
  const fl_train_task task = {.round = 1};
  fl_train_result result;
  fl_score score;
  FUZZ_CHECK(fl_train_result_init(&result, sizeof result) == FL_OK);
  FUZZ_CHECK(fl_score_init(&score, sizeof score) == FL_OK);
  FUZZ_CHECK(pair_train(&task, &result, p) == FL_OK);
  (void)fl_client_submit(p->client, &result);
  (void)fl_client_submit_score(p->client, &score);
}

static void set_key(pair *p)
{
  uint8_t secret[FLI_SECRET_BYTES], public_key[FLI_PUBLIC_BYTES];
  const uint8_t seed[FLI_KEY_BYTES] = {1};
  fli_sign_keys(secret, public_key, seed);
  const fl_status st = fl_client_set_key(p->client, secret, public_key);
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOMEM);
}

static void run_op(pair *p, uint8_t op)
{
  size_t n;
  switch (op) {
  case OP_TIME: p->now_ns += UINT64_C(11000000000); break;
  case OP_DISCONNECT: FUZZ_CHECK(pair_reconnect(p) == FL_OK); break;
  case OP_SUBMIT: answer(p); break;
  case OP_DECLINE: (void)fl_client_decline(p->client); break;
  case OP_DIE: die(p); break;
  case OP_HONEST_DOWN: (void)pair_down(p, &n); break;
  case OP_HONEST_UP: drain_sends(p, 1); break;
  case OP_KEY: set_key(p); break;
  case OP_LEAVE: (void)fl_client_leave(p->client); break;
  default: break;
  }
}

static void run_script(pair *p, const uint8_t *data, size_t n)
{
  while (n > 0) {
    uint8_t op = *data++;
    n--;
    if (op < OP_TIME) {
      size_t piece = (size_t)op + 1 < n ? (size_t)op + 1 : n;
      uint8_t *copy = fuzz_exact_copy(data, piece);
      (void)fl_client_recv(p->client, copy, piece);
      free(copy);
      data += piece;
      n -= piece;
    } else {
      run_op(p, op);
    }
    drain_polls(p);
    drain_sends(p, 0);
    check_model(p);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_context_options options;
  fl_context *context = NULL;
  uint64_t bytes_now = 0;
  pair p;
  if (n == 0) return 0;
  FUZZ_CHECK(fl_context_options_init(&options, sizeof options) == FL_OK);
  options.memory_cap = MEMORY_CAP;
  FUZZ_CHECK(fl_context_new(&context, &options) == FL_OK);
  uint8_t mode = data[0];
  FUZZ_CHECK(pair_begin(&p, context, mode & 16 ? FL_CODEC_F32 : FL_CODEC_THC,
                        4) == FL_OK);
  if (mode & 128)
    FUZZ_CHECK(pair_freeze(&p, mode & 16 ? FL_CODEC_F32 : FL_CODEC_THC, 4) ==
               FL_OK);
  if (mode & 32) p.options.train = NULL;
  if (mode & 64) p.options.model = p.model;
  FUZZ_CHECK(pair_connect(&p) == FL_OK);
  for (uint8_t i = 0; i < (mode & 15); i++)
    FUZZ_CHECK(pair_step(&p) == FL_OK);
  run_script(&p, data + 1, n - 1);
  pair_end(&p);
  FUZZ_CHECK(fl_context_get_memory(context, &bytes_now, NULL) == FL_OK);
  FUZZ_CHECK(bytes_now == 0);
  fl_context_free(context);
  return 0;
}
