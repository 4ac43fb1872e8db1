/* SPDX-License-Identifier: Apache-2.0 */
/* A server among honest clients, tampered ones and a stranger. The first byte
 * picks the job (bit 0: f32 instead of THC, 1: public scale, 2: momentum,
 * 3: evaluation, 4: module 0 is frozen from round 2 on, 5: reports decide on
 * freezing, 6: two clients can afford the last module only, 7: one of the
 * others knows nothing of that; 4 and 5 together: nothing freezes, but rounds
 * are buffered with a public scale, or have controls with f32; 0 and 1:
 * messages are metered, and bad ones lead to a ban); the rest is a script:
 * honest steps of four clients bring the server into any state, their messages
 * can be changed on the way, and the stranger sends whatever follows.
 *
 * Whatever comes: no bad access, memory below a cap, every frame sent is one
 * that a client can parse, ready peers come in order, a snapshot restores, the
 * model stays finite, and all memory comes back. */
#include "fuzz.h"

#include "unit/server_fixture.h"

enum {
  MEMORY_CAP = 8 << 20,
  STRANGER = 999,
  MAX_SENDS = 256,
  /* Below, opcode + 1 bytes follow from the stranger. The others are for
   * client (opcode & 3) where they name one. */
  OP_HELLO = 0x40,
  OP_PULL = 0x44,
  OP_ANSWER = 0x48,
  OP_LOSE = 0x4c,
  OP_RETURN = 0x50,
  OP_TAMPER = 0x54, /* offset, xor: of the client's next message */
  OP_TICK = 0x58,   /* seconds */
  OP_RESTART = 0x59,
  OP_STOP = 0x5a,
  OP_STRANGER_GONE = 0x5b,
  OP_GET_MODEL = 0x5c, /* .. 0x5f */
  OP_DECLINE = 0x60,   /* .. 0x63 */
  OP_KEY = 0x64,       /* .. 0x67: it has a key from now on */
  OP_BAN = 0x68,       /* .. 0x6b */
  OP_UNBAN = 0x6c,     /* .. 0x6f */
  OP_LEAVE = 0x70,     /* .. 0x73 */
  OP_FORGET = 0x74,    /* .. 0x77 */
  OP_ALLOW = 0x78,     /* .. 0x7b */
  OP_DISALLOW = 0x7c,  /* .. 0x7f */
  OP_NOTHING = 0x80
};

typedef struct script {
  const uint8_t *at;
  const uint8_t *end;
} script;

static uint8_t tamper_offset, tamper_xor;
/* The connection, by client, on which a message was changed. */
static uint64_t tampered[SV_MAX_CLIENTS];

static uint8_t take(script *input)
{
  return input->at < input->end ? *input->at++ : 0;
}

static void tamper(sv_client *client)
{
  if (tamper_xor != 0 && tamper_offset < client->out.size) {
    client->out.data[tamper_offset] ^= tamper_xor;
    tampered[client - client->world->clients] = client->peer;
  }
  tamper_xor = 0;
}

/* The same tokens in every run. */
static fl_status no_entropy(void *user, void *buf, size_t n)
{
  (void)user;
  memset(buf, 0x5e, n);
  return FL_OK;
}

static void freeze(sv_world *world, uint8_t job)
{
  static const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  static fl_freeze_options options;
  if (!(job & 48) || (job & 48) == 48) return;
  FUZZ_CHECK(fl_freeze_options_init(&options, sizeof options) == FL_OK);
  options.max_frozen = 1;
  if (job & 16) {
    options.criterion = FL_FREEZE_FIXED;
    options.fixed = fixed;
    options.n_fixed = 1;
  }
  world->job_options.freeze = &options;
}

/* Two updates end a round. */
static void buffer(sv_world *world)
{
  world->codec.thc_mode = FL_THC_UNIFORM;
  world->job_options.evaluate_every = 0;
  world->job_options.buffer = 2;
  world->job_options.buffer_staleness = 1;
  world->job_options.rounds = 6;
}

static void scaffold(sv_world *world)
{
  static fl_strategy_options options;
  FUZZ_CHECK(fl_strategy_options_named(&options, sizeof options, "scaffold") ==
             FL_OK);
  world->job_options.server_momentum = 0.0f;
  world->job_options.strategy = &options;
}

static void add_controls(sv_client *client)
{
  static const uint8_t tail[4 * SV_WEIGHTS];
  client->more_capabilities = FLI_CAP_CONTROLS;
  client->tail = tail;
  client->n_tail = sizeof tail;
}

static void begin(sv_world *world, fl_context *context, uint8_t job)
{
  static const char *const ids[] = {"abe", "bea", "cay", "dan"};
  sv_init(world, context, job & 1 ? FL_CODEC_F32 : FL_CODEC_THC);
  if ((job & 3) == 2) world->job_options.scale_mode = FL_SCALE_PUBLIC;
  if (job & 4) world->job_options.server_momentum = 0.5f;
  if (job & 8) world->job_options.evaluate_every = 1;
  if ((job & 3) == 3) {
    world->options.max_messages = 20;
    world->options.max_rejects = 2;
    world->options.max_bans = 2;
    world->options.ban_ns = 100 * SV_SECOND_NS;
  }
  world->job_options.rounds = 3;
  world->tamper = tamper;
  freeze(world, job);
  const int is_buffered = (job & 51) == 50, has_controls = (job & 49) == 49;
  if (is_buffered) buffer(world);
  if (has_controls) scaffold(world);
  sv_start(world);
  for (size_t i = 0; i < 4; i++) {
    sv_client *client = sv_add(world, ids[i], 10 + 10 * i);
    client->depth = job & 64 && i < 2 ? 1 : 0;
    client->is_old = job & 128 && i == 2;
    client->has_report = (job & 32) != 0;
    client->report = i == 3 ? (double)NAN : 1.0;
    if (has_controls) add_controls(client);
  }
}

/* The stranger reads what it is sent, and all of it are frames. */
static void drain_stranger(sv_world *world)
{
  fli_frame_parser parser;
  fli_frame frame;
  int i;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  for (i = 0; i < MAX_SENDS; i++) {
    const uint8_t *data = NULL;
    size_t n = 0;
    FUZZ_CHECK(fl_server_send(world->server, STRANGER, &data, &n) == FL_OK);
    if (n == 0) break;
    fli_frame_feed(&parser, data, n);
    while (fli_frame_next(&parser, &frame) == FL_OK) {
      FUZZ_CHECK(frame.type >= FLI_MSG_WELCOME);
    }
    FUZZ_CHECK(parser.pending.size == 0);
  }
  FUZZ_CHECK(i < MAX_SENDS);
  fli_frame_parser_free(&parser);
}

static void check(sv_world *world)
{
  uint64_t bytes = 0, peer = UINT64_MAX, last = 0;
  float weights[SV_WEIGHTS];
  FUZZ_CHECK(fl_context_get_memory(world->context, &bytes, NULL) == FL_OK);
  FUZZ_CHECK(bytes < MEMORY_CAP);
  while (fl_server_next_ready(world->server, &peer) == FL_OK) {
    FUZZ_CHECK(last == 0 || peer > last);
    last = peer;
  }
  FUZZ_CHECK(fl_server_copy_weights(world->server, 0, weights, SV_WEIGHTS,
                                    NULL) == FL_OK);
  for (size_t i = 0; i < SV_WEIGHTS; i++)
    FUZZ_CHECK(isfinite(weights[i]));
  sv_drain(world);
  world->n_events = 0;
}

static void hear_stranger(sv_world *world, script *input, size_t n)
{
  const size_t left = (size_t)(input->end - input->at);
  const size_t size = n < left ? n : left;
  uint8_t *copy = fuzz_exact_copy(input->at, size);
  FUZZ_CHECK(fl_server_recv(world->server, STRANGER, copy, size) == FL_OK);
  free(copy);
  input->at += size;
  drain_stranger(world);
}

/* The client has lost its model. Where a message was changed the server may not
 * hear of that, this one being swallowed by a frame that is longer now, and is
 * right to send steps. lib/client drops those and asks when a plan comes; a
 * client of ours would apply them. */
static void get_model(sv_client *client)
{
  const fli_get_model message = {.version = client->model.version};
  FUZZ_CHECK(fli_write_get_model(&client->out, &message) == FL_OK);
  (void)sv_push(client);
  if (tampered[client - client->world->clients] != client->peer)
    client->model.is_valid = 0;
}

/* What the host does about clients. */
static void step_host(sv_client *client, uint8_t op)
{
  fl_server *server = client->world->server;
  fl_status st = FL_OK;
  switch (op & ~3) {
  case OP_BAN: st = fl_server_ban(server, client->id, SV_SECOND_NS); break;
  case OP_UNBAN: st = fl_server_unban(server, client->id); break;
  case OP_FORGET: st = fl_server_forget(server, 0, client->id); break;
  case OP_ALLOW: st = fl_server_allow(server, client->public_key, NULL); break;
  default: st = fl_server_disallow(server, client->public_key);
  }
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOT_FOUND || st == FL_E_LIMIT);
}

static void leave(sv_client *client)
{
  const fli_decline bye = {.forgets = 1};
  FUZZ_CHECK(fli_write_decline(&client->out, FLI_MSG_BYE, &bye) == FL_OK);
  (void)sv_push(client);
}

static void step_client(sv_client *client, uint8_t op, script *input)
{
  const int is_welcome = client->got[FLI_MSG_WELCOME] > 0;
  switch (op & ~3) {
  case OP_HELLO: sv_hello(client); break;
  case OP_PULL: (void)sv_pull(client); break;
  case OP_ANSWER: (void)sv_answer(client); break;
  case OP_LOSE: sv_lose(client); break;
  case OP_RETURN: sv_return(client); break;
  case OP_GET_MODEL:
    if (is_welcome) get_model(client);
    break;
  case OP_DECLINE:
    if (is_welcome) sv_decline(client, FLI_MSG_DECLINE);
    break;
  case OP_KEY: sv_give_key(client, op); break;
  case OP_LEAVE:
    if (is_welcome) leave(client);
    break;
  default: tamper_offset = take(input); tamper_xor = take(input);
  }
}

static void step(sv_world *world, script *input)
{
  const uint8_t op = take(input);
  if (op < OP_HELLO) {
    hear_stranger(world, input, (size_t)op + 1);
  } else if (op == OP_TICK) {
    sv_tick(world, take(input) * SV_SECOND_NS);
  } else if (op == OP_RESTART) {
    sv_restart(world);
  } else if (op == OP_STOP) {
    FUZZ_CHECK(fl_server_stop_job(world->server, 0) == FL_OK);
  } else if (op == OP_STRANGER_GONE) {
    FUZZ_CHECK(fl_server_disconnected(world->server, STRANGER) == FL_OK);
  } else if (op < OP_NOTHING && op >= OP_BAN && (op & ~3) != OP_LEAVE) {
    step_host(&world->clients[op & 3], op);
  } else if (op < OP_NOTHING) {
    step_client(&world->clients[op & 3], op, input);
  }
  check(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_context *context = NULL;
  fl_context_options options;
  uint64_t bytes = 1;
  script input = {data, data + n};
  if (n == 0) return 0;
  sv_world *world = malloc(sizeof *world);
  FUZZ_CHECK(world != NULL);
  FUZZ_CHECK(fl_context_options_init(&options, sizeof options) == FL_OK);
  options.entropy = no_entropy;
  FUZZ_CHECK(fl_context_new(&context, &options) == FL_OK);
  tamper_xor = 0;
  memset(tampered, 0, sizeof tampered);
  begin(world, context, take(&input));
  while (input.at < input.end)
    step(world, &input);
  sv_free(world);
  free(world);
  FUZZ_CHECK(fl_context_get_memory(context, &bytes, NULL) == FL_OK);
  FUZZ_CHECK(bytes == 0);
  fl_context_free(context);
  return 0;
}
