/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of frames with one value that its message's check refuses, of
 * server_session with a stranger that knows the protocol, and of
 * client_session with a server that says all there is to say, at several
 * moments of a job. */
#include "seeds.h"

#include <fl/protocol.h>

#include "fuzz.h"
#include "wire_messages.h"

/* The scripts of server_session and client_session: an opcode below these, and
 * one more byte than it says. */
enum { STRANGER_MOST = 64, SERVER_MOST = 240, PAYLOAD = 60, MODEL = 240 };
/* Of server_session. */
enum { CLIENT_HELLO = 0x40, CLIENT_PULL = 0x44, CLIENT_ANSWER = 0x48 };
/* Of client_session; in OPS, f1 breaks the connection, f2 submits, f3
 * declines. */
enum { TIME = 0xf0, HONEST_DOWN = 0xf5, HONEST_UP = 0xf6 };

#define MUST(call) FUZZ_CHECK((call) == FL_OK)

static void put_byte(fli_bytes *script, int byte)
{
  const uint8_t one = (uint8_t)byte;
  MUST(fli_bytes_append(script, &one, 1));
}

/* Hand frames over, in pieces of at most `most` bytes. */
static void say(fli_bytes *script, fli_bytes *frames, size_t most)
{
  for (size_t at = 0; at < frames->size;) {
    const size_t left = frames->size - at;
    const size_t n = left < most ? left : most;
    put_byte(script, (int)n - 1);
    MUST(fli_bytes_append(script, frames->data + at, n));
    at += n;
  }
  fli_bytes_clear(frames);
}

/* ---- frames ---------------------------------------------------------------
 */

static void put_frame(const char *folder, const char *name, fli_bytes *frame)
{
  fli_bytes seed;
  fli_bytes_init(&seed, NULL);
  put_byte(&seed, 0);
  MUST(fli_bytes_append(&seed, frame->data, frame->size));
  seeds_put(folder, "frames", name, seed.data, seed.size);
  fli_bytes_free(&seed);
  fli_bytes_clear(frame);
}

static void put_lies(const char *folder)
{
  static const uint8_t table[4] = {0, 2, 9, 7};
  fli_hello hello;
  fli_welcome welcome;
  fli_plan plan;
  fli_manifest manifest;
  fli_bytes out;
  fli_metrics metrics = {.round = 3, .loss = .5, .correct = 9, .count = 4};
  fli_bytes_init(&out, NULL);
#define LIE(name, message, change)                    \
  do {                                                \
    wire_##message(&message);                         \
    change;                                           \
    if (fli_write_##message(&out, &message) == FL_OK) \
      put_frame(folder, "lie-" name, &out);           \
  } while (0)
  LIE("versions", hello, hello.version_max = 0);
  LIE("versions-crossed", hello, hello.version_min = 9);
  LIE("samples", hello, hello.samples = UINT64_MAX);
  LIE("no-id", hello, hello.client_id[0] = 0);
  LIE("id-of-bytes", hello, hello.client_id[3] = '\x07');
  LIE("table-size", welcome, wire_add_table(&welcome); welcome.table_size = 3);
  LIE("table-order", welcome, wire_add_table(&welcome); welcome.table = table);
  LIE("clip", welcome, welcome.clip = -1.f);
  LIE("clip-nan", welcome, welcome.clip = (float)NAN);
  LIE("slot", plan, plan.slot = 8);
  LIE("prox", plan, plan.prox_mu = 2e6f);
  LIE("norms-odd", plan, plan.norms_size = 5);
  LIE("half-a-scale", plan, plan.norms = NULL);
  LIE("update-of-no-round", manifest, manifest.round = 0);
  LIE("steps-back", manifest, manifest.kind = FLI_TRANSFER_STEPS;
      manifest.base_version = 6);
  LIE("chunk-size", manifest, manifest.chunk_size = 1);
  LIE("loss", manifest, manifest.loss = (double)INFINITY);
#undef LIE
  if (fli_write_metrics(&out, &metrics) == FL_OK)
    put_frame(folder, "lie-correct", &out);
  metrics = (fli_metrics){.round = 3, .loss = (double)INFINITY, .count = 4};
  if (fli_write_metrics(&out, &metrics) == FL_OK)
    put_frame(folder, "lie-metrics-loss", &out);
  fli_bytes_free(&out);
}

/* ---- a stranger -----------------------------------------------------------
 */

static void write_hello(fli_bytes *out, const char *id, int has_token)
{
  fli_hello hello = {.version_min = 1,
                     .version_max = 1,
                     .capabilities = 15,
                     .samples = 5,
                     .has_token = has_token};
  strcpy(hello.client_id, id);
  MUST(fli_write_hello(out, &hello));
}

static fli_manifest an_upload(const uint8_t *payload)
{
  fli_manifest manifest = {.transfer = 1,
                           .kind = FLI_TRANSFER_UPDATE,
                           .total = PAYLOAD,
                           .chunk_size = 4096,
                           .round = 1,
                           .loss = 1};
  fli_hash(manifest.hash, payload, PAYLOAD);
  return manifest;
}

static void write_chunk(fli_bytes *out, const uint8_t *payload, uint64_t begin,
                        size_t n)
{
  const fli_chunk chunk = {1, begin, payload + begin, n};
  MUST(fli_write_chunk(out, &chunk));
}

static void write_norm(fli_bytes *out, uint16_t value)
{
  const uint8_t norms[4] = {(uint8_t)value, (uint8_t)(value >> 8), 0x80, 0x3f};
  const fli_norm norm = {1, 0, norms, sizeof norms, 5};
  MUST(fli_write_norm(out, &norm));
}

/* Two clients and the stranger are the round; all have said their norms. */
static void begin_round(fli_bytes *script, fli_bytes *out, int job,
                        uint16_t norm)
{
  put_byte(script, job);
  put_byte(script, CLIENT_HELLO);
  put_byte(script, CLIENT_HELLO + 1);
  write_hello(out, "eve", 0);
  write_norm(out, norm);
  say(script, out, STRANGER_MOST);
  for (int i = 0; i < 2; i++) {
    put_byte(script, CLIENT_PULL + i);
    put_byte(script, CLIENT_ANSWER + i);
  }
}

/* Uploads with gaps, repeats and lies. */
static void write_uploads(fli_bytes *out, const uint8_t *payload)
{
  static const uint8_t other[PAYLOAD] = {1};
  fli_manifest manifest = an_upload(payload);
  MUST(fli_write_manifest(out, &manifest));
  write_chunk(out, payload, 20, 10);
  write_chunk(out, payload, 40, 5);
  write_chunk(out, payload, 45, 15);
  write_chunk(out, payload, 0, 25);
  write_chunk(out, payload, 30, 10); /* whole, and no update */
  manifest = an_upload(other);
  MUST(fli_write_manifest(out, &manifest));
  write_chunk(out, payload, 0, 60); /* wrong hash */
  MUST(fli_write_manifest(out, &manifest));
  manifest.total = 50;
  write_chunk(out, payload, 59, 1);
  manifest.total = UINT64_C(1) << 40;
  MUST(fli_write_manifest(out, &manifest));
  manifest.total = 50;
  manifest.slices_size = 40;
  MUST(fli_write_manifest(out, &manifest));
  manifest.slices_size = 0;
  manifest.kind = FLI_TRANSFER_MODEL;
  MUST(fli_write_manifest(out, &manifest));
}

static void write_rest(fli_bytes *out)
{
  const fli_missing missing = {1, wire_key(), FLI_RANGE_BYTES};
  const fli_get_slice slice = {1, 0, wire_key(), 5};
  const fli_decline other = {.round = 9, .attempt = 9};
  MUST(fli_write_missing(out, &missing));
  MUST(fli_write_get_slice(out, &slice));
  MUST(fli_write_decline(out, FLI_MSG_DECLINE, &other));
  write_hello(out, "other", 0);
  MUST(fli_write_chunk(out, &(fli_chunk){1, 0, wire_key(), 9}));
}

static void put_script(const char *folder, const char *target, const char *name,
                       fli_bytes *script)
{
  seeds_put(folder, target, name, script->data, script->size);
  fli_bytes_clear(script);
}

static void put_strangers(const char *folder)
{
  static const uint8_t payload[PAYLOAD] = {'F', 'L', 'C', 'U', 2};
  const char *target = "server_session";
  fli_bytes script, out;
  fli_bytes_init(&script, NULL);
  fli_bytes_init(&out, NULL);
  begin_round(&script, &out, 1, 0x3f80);
  write_uploads(&out, payload);
  write_rest(&out);
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-uploads", &script);
  begin_round(&script, &out, 1, 0x7f80);
  put_script(folder, target, "stranger-norm", &script);
  put_byte(&script, 1);
  put_byte(&script, CLIENT_HELLO);
  put_byte(&script, CLIENT_HELLO + 1);
  write_hello(&out, "eve", 0);
  const fli_manifest early = an_upload(payload);
  MUST(fli_write_manifest(&out, &early));
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-early", &script);
  put_byte(&script, 1);
  write_norm(&out, 0x3f80);
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-without-hello", &script);
  put_byte(&script, 1);
  put_byte(&script, CLIENT_HELLO);
  write_hello(&out, "abe", 1);
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-with-a-name", &script);
  put_byte(&script, 1);
  for (int i = 0; i < 3; i++)
    put_byte(&script, CLIENT_HELLO + i);
  write_hello(&out, "eve", 0);
  write_norm(&out, 0x3f80);
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-not-asked", &script);
  put_byte(&script, 1);
  write_hello(&out, "eve", 0);
  MUST(fli_write_done(&out, &(fli_done){.rounds = 1}));
  say(&script, &out, STRANGER_MOST);
  put_script(folder, target, "stranger-says-done", &script);
  fli_bytes_free(&script);
  fli_bytes_free(&out);
}

/* ---- a server -------------------------------------------------------------
 */

static void write_scale(fli_bytes *out, uint64_t round)
{
  const fli_scale_msg scale = {round, 0,    wire_key(), wire_norms,
                               4,     2.5f, 90000};
  MUST(fli_write_scale(out, &scale));
}

/* A plan of a round, trained on a version that is held or not. */
static void write_plan(fli_bytes *out, uint64_t round, uint64_t version,
                       int is_public)
{
  fli_plan plan;
  wire_plan(&plan);
  plan.round = round;
  plan.attempt = 0;
  plan.model_version = version;
  plan.norms_size = 4;
  plan.scale_mode = is_public ? FL_SCALE_PUBLIC : FL_SCALE_EXCHANGED;
  if (!is_public) plan.noise_seed = plan.norms = NULL;
  MUST(fli_write_plan(out, &plan));
}

/* A full copy with a gap in it, and then whole. */
static void write_model(fli_bytes *out, uint64_t version)
{
  static const uint8_t zeros[MODEL];
  fli_manifest manifest = {.transfer = 1,
                           .kind = FLI_TRANSFER_MODEL,
                           .total = MODEL,
                           .chunk_size = 4096,
                           .model_version = version,
                           .loss = (double)NAN};
  fli_hash(manifest.hash, zeros, sizeof zeros);
  MUST(fli_write_manifest(out, &manifest));
  write_chunk(out, zeros, 0, 100);
  write_chunk(out, zeros, 120, 20);
  MUST(fli_write_manifest(out, &manifest));
  write_chunk(out, zeros, 100, 140);
}

static void write_work(fli_bytes *out, uint64_t round)
{
  const fli_missing missing = {1,
                               (const uint8_t *)"\0\0\0\0\0\0\0\0\12\0\0\0"
                                                "\0\0\0\0",
                               FLI_RANGE_BYTES};
  fli_evaluate evaluate = {.round = round, .model_version = 9};
  static const uint8_t reasons[] = {0, 7, 1, 9, 14};
  write_plan(out, round, 0, 0);
  write_scale(out, round);
  MUST(fli_write_missing(out, &missing));
  for (size_t i = 0; i < sizeof reasons; i++)
    MUST(fli_write_ack(out, &(fli_ack){round, 0, reasons[i], "seed"}));
  write_model(out, 9);
  MUST(fli_write_evaluate(out, &evaluate));
  MUST(fli_write_evaluate(out, &evaluate));
  evaluate.is_probe = 1;
  MUST(fli_write_evaluate(out, &evaluate));
  write_plan(out, round + 1, 9, 1);
  write_plan(out, round + 1, 9, 1);
  MUST(fli_write_wait(out, &(fli_wait){1u << 30, "wait"}));
}

static void put_server(const char *folder, int mode)
{
  const char *target = "client_session";
  char name[64];
  fli_bytes script, out;
  fli_bytes_init(&script, NULL);
  fli_bytes_init(&out, NULL);
  put_byte(&script, mode);
  write_work(&out, 1 + (uint64_t)(mode & 15) / 4);
  say(&script, &out, SERVER_MOST);
  put_byte(&script, HONEST_UP);
  put_byte(&script, HONEST_DOWN);
  put_byte(&script, TIME);
  snprintf(name, sizeof name, "server-works-%02x", (unsigned)mode);
  put_script(folder, target, name, &script);
  for (uint32_t reason = 1; reason < 18; reason += 2) {
    put_byte(&script, mode);
    MUST(fli_write_reject(&out, &(fli_reject){reason, ""}));
    say(&script, &out, SERVER_MOST);
    put_byte(&script, TIME);
    put_byte(&script, HONEST_UP);
    put_byte(&script, HONEST_DOWN);
    if (mode % 16 != 3) reason = 18;
    snprintf(name, sizeof name, "server-rejects-%02x-%u", (unsigned)mode,
             (unsigned)reason);
    put_script(folder, target, name, &script);
  }
  put_byte(&script, mode);
  MUST(fli_write_slice_msg(&out, &(fli_slice_msg){1, 0, wire_key(), 9}));
  MUST(fli_write_decline(&out, FLI_MSG_BYE, &(fli_decline){.round = 1}));
  say(&script, &out, SERVER_MOST);
  put_byte(&script, TIME);
  snprintf(name, sizeof name, "server-odd-%02x", (unsigned)mode);
  put_script(folder, target, name, &script);
  fli_bytes_free(&script);
  fli_bytes_free(&out);
}

static void put_ops(fli_bytes *script, const char *ops, size_t n)
{
  for (size_t i = 0; i < n; i++)
    put_byte(script, (uint8_t)ops[i]);
}
#define OPS(script, text) put_ops(script, text, sizeof text - 1)

/* Honest work of a client, and what a server may say in its middle. */
static void put_middles(const char *folder, int mode)
{
  const char *target = "client_session";
  char name[64];
  fli_bytes script, out;
  const fli_missing missing = {1,
                               (const uint8_t *)"\0\0\0\0\0\0\0\0\12\0\0\0"
                                                "\0\0\0\0",
                               FLI_RANGE_BYTES};
  static const uint8_t reasons[] = {1, 10, 12, 9};
  fli_bytes_init(&script, NULL);
  fli_bytes_init(&out, NULL);
  put_byte(&script, mode);
  OPS(&script, "\xf3\xf6\xf5\xf5\xf1\xf6\xf5\xf5\xf5\xf6\xf5");
  snprintf(name, sizeof name, "declines-%02x", (unsigned)mode);
  put_script(folder, target, name, &script);
  for (size_t i = 0; i < sizeof reasons; i++) {
    put_byte(&script, mode);
    OPS(&script, "\xf2\xf6\xf5");
    if (i % 2) put_byte(&script, HONEST_UP);
    MUST(fli_write_missing(&out, &missing));
    MUST(fli_write_ack(&out, &(fli_ack){1, 0, reasons[i], ""}));
    say(&script, &out, SERVER_MOST);
    OPS(&script, "\xf6\xf5\xf6\xf5");
    snprintf(name, sizeof name, "refused-%02x-%u", (unsigned)mode, reasons[i]);
    put_script(folder, target, name, &script);
  }
  put_byte(&script, mode);
  OPS(&script, "\xf2\xf6\xf5\xf6");
  write_plan(&out, 2, 9, 0);
  MUST(fli_write_ack(&out, &(fli_ack){1, 0, 0, ""}));
  say(&script, &out, SERVER_MOST);
  snprintf(name, sizeof name, "counted-late-%02x", (unsigned)mode);
  put_script(folder, target, name, &script);
  fli_bytes_free(&script);
  fli_bytes_free(&out);
}

/* A model that is cut, and goes on after another WELCOME. */
static void put_resumed(const char *folder, int mode)
{
  char name[64];
  fli_bytes script, out;
  fli_bytes_init(&script, NULL);
  fli_bytes_init(&out, NULL);
  put_byte(&script, mode);
  write_model(&out, 9);
  out.size -= FLI_FRAME_HEADER + FLI_CHUNK_HEADER + 140;
  say(&script, &out, SERVER_MOST);
  OPS(&script, "\xf1\xf6\xf5");
  write_model(&out, 9);
  say(&script, &out, SERVER_MOST);
  snprintf(name, sizeof name, "resumes-%02x", (unsigned)mode);
  put_script(folder, "client_session", name, &script);
  fli_bytes_free(&script);
  fli_bytes_free(&out);
}

/* WELCOMEs that cannot be worked with. */
static void put_welcomes(const char *folder, int mode)
{
  char name[64];
  fli_welcome welcome;
  fli_bytes script, out;
  fli_bytes_init(&script, NULL);
  fli_bytes_init(&out, NULL);
  for (int i = 0; i < 4; i++) {
    put_byte(&script, mode);
    put_byte(&script, HONEST_UP);
    wire_welcome(&welcome);
    if (i == 1) welcome.description = NULL;
    if (i == 2) wire_add_table(&welcome);
    if (i == 3) welcome.codec = 99;
    MUST(fli_write_welcome(&out, &welcome));
    say(&script, &out, SERVER_MOST);
    snprintf(name, sizeof name, "welcomed-%02x-%d", (unsigned)mode, i);
    put_script(folder, "client_session", name, &script);
  }
  fli_bytes_free(&script);
  fli_bytes_free(&out);
}

void seeds_put_sessions(const char *folder)
{
  put_welcomes(folder, 0);
  put_welcomes(folder, 64);
  put_resumed(folder, 2);
  for (int steps = 1; steps < 5; steps++)
    put_middles(folder, steps | 32);
  put_lies(folder);
  put_strangers(folder);
  for (int steps = 0; steps < 8; steps++) {
    put_server(folder, steps);
    put_server(folder, steps | 32);
  }
}
