/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a sealed channel:
 *
 *   client  "FLC1" | X25519 key                                  36 bytes
 *   server  "FLC1" | X25519 key | signature | stream header     124
 *   client  stream header                                        24
 *   then both: u32 length | sealed bytes, ...
 *
 * The server signs both X25519 keys, which pins it to this exchange. The
 * client's first record is its proof: empty, or its public key and a signature
 * over both X25519 keys and the server's public key, so that it is nobody's but
 * this server's to believe. A record is at most 64 KiB of plain bytes. Whatever
 * is wrong breaks the channel for good: there is nothing to try again. */
#include <fl/channel.h>

#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "crypto/keys.h"
#include "wire/writer.h"

enum {
  MAGIC_BYTES = 4,
  LENGTH_BYTES = 4,
  RECORD_MAX = 64 * 1024,
  CLIENT_HELLO_BYTES = MAGIC_BYTES + FLI_PUBLIC_BYTES,
  SERVER_HELLO_BYTES = MAGIC_BYTES + FLI_PUBLIC_BYTES + FLI_SIGNATURE_BYTES +
                       FLI_STREAM_HEADER_BYTES,
  PROOF_BYTES = FLI_PUBLIC_BYTES + FLI_SIGNATURE_BYTES
};

static const uint8_t magic[MAGIC_BYTES] = {'F', 'L', 'C', '1'};

typedef enum phase {
  WAITS_FOR_HELLO, /* the other end's first bytes */
  WAITS_FOR_HEADER,
  WAITS_FOR_PROOF,
  IS_OPEN,
  IS_BROKEN
} phase;

/* What signatures are over; the client's also has the server's key. */
typedef struct transcript {
  uint8_t purpose[24];
  uint8_t client[FLI_PUBLIC_BYTES];
  uint8_t server[FLI_PUBLIC_BYTES];
  uint8_t server_key[FLI_PUBLIC_BYTES];
} transcript;

struct fl_channel {
  fl_context *context;
  uint32_t is_server;
  uint32_t needs_client_key;
  int has_key;
  uint8_t secret_key[FLI_SECRET_BYTES];
  uint8_t server_key[FLI_PUBLIC_BYTES];
  fli_exchange mine;
  uint8_t theirs[FLI_PUBLIC_BYTES]; /* X25519 */
  uint8_t receive_key[FLI_KEY_BYTES];
  phase phase;
  int is_closed; /* by this end */
  int has_ended; /* the other end */
  int has_peer_key;
  uint8_t peer_key[FLI_PUBLIC_BYTES];
  fli_stream_state push, pull;
  fli_bytes in;      /* not whole yet */
  fli_bytes plain;   /* not read yet */
  fli_bytes waiting; /* to be sealed when the stream begins */
  fli_bytes out;
  fli_bytes handed;
};

/* ---- keys and options ---- */

fl_status fl_key_generate(fl_context *context,
                          uint8_t secret_key[FL_SECRET_KEY_BYTES],
                          uint8_t public_key[FL_PUBLIC_KEY_BYTES])
{
  uint8_t seed[FLI_KEY_BYTES];
  fli_clear_error();
  if (!secret_key || !public_key)
    return fli_error(FL_E_ARGUMENT, "fl_key_generate: NULL argument");
  fl_status st = fli_crypto_init();
  if (st == FL_OK) st = fli_random_bytes(context, seed, sizeof seed);
  if (st == FL_OK) fli_sign_keys(secret_key, public_key, seed);
  fli_wipe(seed, sizeof seed);
  return st;
}

fl_status fl_channel_options_init(fl_channel_options *options, size_t size)
{
  const fl_channel_options full = {.struct_size = (uint32_t)sizeof full};
  fli_clear_error();
  return fli_options_init(options, size, &full, sizeof full);
}

static fl_status load_options(fl_channel_options *local,
                              const fl_channel_options *options)
{
  *local = (fl_channel_options){.struct_size = (uint32_t)sizeof *local};
  const fl_status st =
      fli_options_load(local, sizeof *local, options, "fl_channel_options");
  if (st != FL_OK) return st;
  if (local->is_server > 1 || local->needs_client_key > 1)
    return fli_error(FL_E_OPTIONS,
                     "is_server, needs_client_key: got %u, %u, want 0 or 1",
                     local->is_server, local->needs_client_key);
  if (local->is_server ? !local->secret_key : !local->server_key)
    return fli_error(FL_E_ARGUMENT, "fl_channel_new: %s is NULL",
                     local->is_server ? "secret_key" : "server_key");
  return FL_OK;
}

/* ---- sealing ---- */

static fl_status push_record(fl_channel *channel, const uint8_t *data, size_t n,
                             int is_last)
{
  const size_t sealed = n + FLI_STREAM_TAG_BYTES;
  fli_bytes *out = &channel->out;
  const fl_status st = fli_bytes_reserve(out, LENGTH_BYTES + sealed);
  if (st != FL_OK) return st;
  fli_store_u32(out->data + out->size, (uint32_t)sealed);
  fli_stream_push(&channel->push, out->data + out->size + LENGTH_BYTES, data, n,
                  is_last);
  out->size += LENGTH_BYTES + sealed;
  return FL_OK;
}

/* Room for all first: a stream cannot go back. */
static fl_status push_all(fl_channel *channel, const uint8_t *data, size_t n)
{
  const size_t records = n / RECORD_MAX + 1;
  const size_t over = LENGTH_BYTES + FLI_STREAM_TAG_BYTES;
  if (records > (SIZE_MAX - n) / over) return fli_nomem(SIZE_MAX);
  fl_status st = fli_bytes_reserve(&channel->out, n + records * over);
  for (size_t at = 0; st == FL_OK && at < n; at += RECORD_MAX) {
    const size_t part = n - at < RECORD_MAX ? n - at : RECORD_MAX;
    st = push_record(channel, data + at, part, 0);
  }
  return st;
}

/* The other end is known: send what waited, and the end if it was said. */
static fl_status begin_talking(fl_channel *channel)
{
  channel->phase = IS_OPEN;
  fl_status st =
      push_all(channel, channel->waiting.data, channel->waiting.size);
  if (st != FL_OK) return st;
  fli_wipe(channel->waiting.data, channel->waiting.size);
  fli_bytes_free(&channel->waiting);
  return channel->is_closed ? push_record(channel, NULL, 0, 1) : FL_OK;
}

/* ---- the handshake ---- */

static void describe(transcript *what, const fl_channel *channel,
                     const char *purpose)
{
  memset(what, 0, sizeof *what);
  memcpy(what->purpose, purpose, strlen(purpose));
  memcpy(what->client,
         channel->is_server ? channel->theirs : channel->mine.public_key,
         FLI_PUBLIC_BYTES);
  memcpy(what->server,
         channel->is_server ? channel->mine.public_key : channel->theirs,
         FLI_PUBLIC_BYTES);
  memcpy(what->server_key, channel->server_key, FLI_PUBLIC_BYTES);
}

static const char server_purpose[] = "fl channel 1 server";
static const char client_purpose[] = "fl channel 1 client";

/* Both keys from the exchange; the sending one begins its stream, whose header
 * goes to `header`. */
static fl_status begin_streams(fl_channel *channel, const uint8_t *theirs,
                               uint8_t header[FLI_STREAM_HEADER_BYTES])
{
  uint8_t send_key[FLI_KEY_BYTES];
  memcpy(channel->theirs, theirs, FLI_PUBLIC_BYTES);
  const int is_good =
      fli_exchange_keys(&channel->mine, theirs, (int)channel->is_server,
                        channel->receive_key, send_key);
  if (is_good) fli_stream_push_init(&channel->push, header, send_key);
  fli_wipe(send_key, sizeof send_key);
  fli_wipe(channel->mine.secret, sizeof channel->mine.secret);
  if (is_good) return FL_OK;
  return fli_error(FL_E_FORMAT, "channel: the other end's X25519 key is none");
}

static fl_status begin_pulling(fl_channel *channel, const uint8_t *header)
{
  const int is_good =
      fli_stream_pull_init(&channel->pull, header, channel->receive_key);
  fli_wipe(channel->receive_key, sizeof channel->receive_key);
  if (is_good) return FL_OK;
  return fli_error(FL_E_FORMAT, "channel: the stream's header is none");
}

static fl_status check_magic(const uint8_t *hello)
{
  if (memcmp(hello, magic, MAGIC_BYTES) == 0) return FL_OK;
  return fli_error(FL_E_FORMAT, "channel: does not begin with FLC1");
}

/* Server: answer the client's hello. */
static fl_status answer_hello(fl_channel *channel, const uint8_t *hello)
{
  uint8_t answer[SERVER_HELLO_BYTES];
  uint8_t *signature = answer + MAGIC_BYTES + FLI_PUBLIC_BYTES;
  transcript what;
  fl_status st = check_magic(hello);
  if (st != FL_OK) return st;
  st = begin_streams(channel, hello + MAGIC_BYTES,
                     signature + FLI_SIGNATURE_BYTES);
  if (st != FL_OK) return st;
  memcpy(answer, magic, MAGIC_BYTES);
  memcpy(answer + MAGIC_BYTES, channel->mine.public_key, FLI_PUBLIC_BYTES);
  describe(&what, channel, server_purpose);
  fli_sign(signature, &what, sizeof what, channel->secret_key);
  channel->phase = WAITS_FOR_HEADER;
  return fli_bytes_append(&channel->out, answer, sizeof answer);
}

static fl_status push_proof(fl_channel *channel)
{
  uint8_t proof[PROOF_BYTES];
  transcript what;
  if (!channel->has_key) return push_record(channel, NULL, 0, 0);
  describe(&what, channel, client_purpose);
  /* An Ed25519 secret key ends with the public one. */
  memcpy(proof, channel->secret_key + FLI_SECRET_BYTES - FLI_PUBLIC_BYTES,
         FLI_PUBLIC_BYTES);
  fli_sign(proof + FLI_PUBLIC_BYTES, &what, sizeof what, channel->secret_key);
  return push_record(channel, proof, sizeof proof, 0);
}

/* Client: the server's answer. Nothing of it is believed before its
 * signature is. */
static fl_status take_answer(fl_channel *channel, const uint8_t *answer)
{
  const uint8_t *theirs = answer + MAGIC_BYTES;
  const uint8_t *signature = theirs + FLI_PUBLIC_BYTES;
  uint8_t header[FLI_STREAM_HEADER_BYTES];
  transcript what;
  fl_status st = check_magic(answer);
  if (st != FL_OK) return st;
  memcpy(channel->theirs, theirs, FLI_PUBLIC_BYTES);
  describe(&what, channel, server_purpose);
  if (!fli_verify(signature, &what, sizeof what, channel->server_key))
    return fli_error(FL_E_FORMAT,
                     "channel: not the server whose key is pinned");
  st = begin_streams(channel, theirs, header);
  if (st != FL_OK) return st;
  st = begin_pulling(channel, signature + FLI_SIGNATURE_BYTES);
  if (st != FL_OK) return st;
  memcpy(channel->peer_key, channel->server_key, FLI_PUBLIC_BYTES);
  channel->has_peer_key = 1;
  st = fli_bytes_append(&channel->out, header, sizeof header);
  if (st == FL_OK) st = push_proof(channel);
  return st == FL_OK ? begin_talking(channel) : st;
}

static fl_status take_header(fl_channel *channel, const uint8_t *header)
{
  channel->phase = WAITS_FOR_PROOF;
  return begin_pulling(channel, header);
}

static fl_status take_proof(fl_channel *channel, const uint8_t *proof, size_t n)
{
  transcript what;
  if (n == 0 && channel->needs_client_key)
    return fli_error(FL_E_FORMAT, "channel: the client has no key, want one");
  if (n == 0) return begin_talking(channel);
  describe(&what, channel, client_purpose);
  if (n != PROOF_BYTES ||
      !fli_verify(proof + FLI_PUBLIC_BYTES, &what, sizeof what, proof))
    return fli_error(FL_E_FORMAT, "channel: the client's key is not its own");
  memcpy(channel->peer_key, proof, FLI_PUBLIC_BYTES);
  channel->has_peer_key = 1;
  return begin_talking(channel);
}

/* ---- records ---- */

static fl_status take_record(fl_channel *channel, const uint8_t *sealed,
                             size_t n)
{
  fli_bytes *plain = &channel->plain;
  const size_t size = n - FLI_STREAM_TAG_BYTES;
  const size_t before = plain->size;
  int is_last = 0;
  fl_status st = fli_bytes_reserve(plain, size + 1);
  if (st != FL_OK) return st;
  if (!fli_stream_pull(&channel->pull, plain->data + before, sealed, n,
                       &is_last))
    return fli_error(FL_E_FORMAT, "channel: a record is not the next one of "
                                  "this channel");
  channel->has_ended = is_last;
  if (channel->phase == WAITS_FOR_PROOF) {
    return take_proof(channel, plain->data + before, size);
  }
  plain->size += size;
  return FL_OK;
}

/* The next whole piece of what came: *taken 0 = more is needed. */
static fl_status take_piece(fl_channel *channel, const uint8_t *data, size_t n,
                            size_t *taken)
{
  const size_t hello =
      channel->is_server ? CLIENT_HELLO_BYTES : SERVER_HELLO_BYTES;
  *taken = 0;
  if (channel->phase == WAITS_FOR_HELLO) {
    if (n < hello) return FL_OK;
    *taken = hello;
    return channel->is_server ? answer_hello(channel, data)
                              : take_answer(channel, data);
  }
  if (channel->phase == WAITS_FOR_HEADER) {
    if (n < FLI_STREAM_HEADER_BYTES) return FL_OK;
    *taken = FLI_STREAM_HEADER_BYTES;
    return take_header(channel, data);
  }
  if (n > 0 && channel->has_ended)
    return fli_error(FL_E_FORMAT, "channel: bytes after its end");
  if (n < LENGTH_BYTES) return FL_OK;
  const uint32_t size = fli_load_u32(data);
  if (size < FLI_STREAM_TAG_BYTES)
    return fli_error(FL_E_FORMAT, "channel: a record of %u bytes", size);
  if (size > RECORD_MAX + FLI_STREAM_TAG_BYTES)
    return fli_error(FL_E_TOO_LARGE,
                     "channel: a record of %u bytes, want <= %d", size,
                     (int)RECORD_MAX + (int)FLI_STREAM_TAG_BYTES);
  if (n - LENGTH_BYTES < size) return FL_OK;
  *taken = LENGTH_BYTES + size;
  return take_record(channel, data + LENGTH_BYTES, size);
}

/* ---- public ---- */

static void clear_bytes(fli_bytes *bytes)
{
  if (bytes->data) fli_wipe(bytes->data, bytes->capacity);
  fli_bytes_free(bytes);
}

void fl_channel_free(fl_channel *channel)
{
  if (!channel) return;
  fl_context *context = channel->context;
  clear_bytes(&channel->in);
  clear_bytes(&channel->plain);
  clear_bytes(&channel->waiting);
  clear_bytes(&channel->out);
  clear_bytes(&channel->handed);
  fli_wipe(channel, sizeof *channel);
  fli_free(context, channel, sizeof *channel);
  fli_context_unref(context);
}

fl_status fl_channel_new(fl_channel **out, fl_context *context,
                         const fl_channel_options *options)
{
  fl_status st = FL_OK;
  fl_channel *channel = NULL;
  fl_channel_options local;
  uint8_t seed[FLI_KEY_BYTES];
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "fl_channel_new: out is NULL");
  FLI_TRY(load_options(&local, options));
  FLI_TRY(fli_crypto_init());
  channel = fli_alloc(context, 1, sizeof *channel);
  if (!channel) FLI_TRY(fli_nomem(sizeof *channel));
  channel->context = fli_context_ref(context);
  channel->is_server = local.is_server;
  channel->needs_client_key = local.needs_client_key;
  fli_bytes *const all[] = {&channel->in, &channel->plain, &channel->waiting,
                            &channel->out, &channel->handed};
  for (size_t i = 0; i < FLI_COUNT_OF(all); i++)
    fli_bytes_init(all[i], context);
  if (local.secret_key) {
    memcpy(channel->secret_key, local.secret_key, FLI_SECRET_BYTES);
    channel->has_key = 1;
  }
  memcpy(channel->server_key,
         local.is_server
             ? local.secret_key + FLI_SECRET_BYTES - FLI_PUBLIC_BYTES
             : local.server_key,
         FLI_PUBLIC_BYTES);
  FLI_TRY(fli_random_bytes(context, seed, sizeof seed));
  fli_exchange_begin(&channel->mine, seed);
  fli_wipe(seed, sizeof seed);
  if (!local.is_server) {
    FLI_TRY(fli_bytes_append(&channel->out, magic, sizeof magic));
    FLI_TRY(fli_bytes_append(&channel->out, channel->mine.public_key,
                             FLI_PUBLIC_BYTES));
  }
  *out = channel;
  channel = NULL;
out:
  fl_channel_free(channel);
  return st;
}

static fl_status check_usable(const fl_channel *channel)
{
  fli_clear_error();
  if (!channel) return fli_error(FL_E_ARGUMENT, "channel: is NULL");
  if (channel->phase == IS_BROKEN)
    return fli_error(FL_E_STATE, "channel: is broken");
  return FL_OK;
}

fl_status fl_channel_recv(fl_channel *channel, const uint8_t *data, size_t n)
{
  fl_status st = check_usable(channel);
  size_t taken = 1, at = 0;
  if (st != FL_OK) return st;
  if (!data && n > 0)
    return fli_error(FL_E_ARGUMENT, "fl_channel_recv: data is NULL");
  st = fli_bytes_append(&channel->in, data, n);
  while (st == FL_OK && taken > 0) {
    st = take_piece(channel, channel->in.data + at, channel->in.size - at,
                    &taken);
    at += taken;
  }
  if (st == FL_OK) fli_bytes_consume(&channel->in, at);
  if (st != FL_OK) channel->phase = IS_BROKEN;
  return st;
}

/* Give a queue out, and keep it alive until the next call. */
static fl_status hand_out(fl_channel *channel, fli_bytes *queue,
                          const uint8_t **data, size_t *n)
{
  fl_status st = check_usable(channel);
  if (st != FL_OK) return st;
  if (!data || !n)
    return fli_error(FL_E_ARGUMENT, "channel: data or n is NULL");
  clear_bytes(&channel->handed);
  channel->handed = *queue;
  fli_bytes_init(queue, channel->context);
  *data = channel->handed.data;
  *n = channel->handed.size;
  return FL_OK;
}

fl_status fl_channel_read(fl_channel *channel, const uint8_t **data, size_t *n)
{
  return hand_out(channel, channel ? &channel->plain : NULL, data, n);
}

fl_status fl_channel_send(fl_channel *channel, const uint8_t **data, size_t *n)
{
  return hand_out(channel, channel ? &channel->out : NULL, data, n);
}

/* This end may say something. */
static fl_status check_writable(const fl_channel *channel)
{
  const fl_status st = check_usable(channel);
  if (st != FL_OK) return st;
  if (channel->is_closed)
    return fli_error(FL_E_STATE, "channel: was closed by this end");
  return FL_OK;
}

fl_status fl_channel_write(fl_channel *channel, const uint8_t *data, size_t n)
{
  const fl_status st = check_writable(channel);
  if (st != FL_OK) return st;
  if (!data && n > 0)
    return fli_error(FL_E_ARGUMENT, "fl_channel_write: data is NULL");
  return channel->phase == IS_OPEN
             ? push_all(channel, data, n)
             : fli_bytes_append(&channel->waiting, data, n);
}

fl_status fl_channel_close(fl_channel *channel)
{
  fl_status st = check_writable(channel);
  if (st != FL_OK) return st;
  if (channel->phase == IS_OPEN) st = push_record(channel, NULL, 0, 1);
  if (st == FL_OK) channel->is_closed = 1;
  return st;
}

int32_t fl_channel_is_open(const fl_channel *channel)
{
  return channel && channel->phase == IS_OPEN;
}

int32_t fl_channel_has_ended(const fl_channel *channel)
{
  return channel && channel->phase == IS_OPEN && channel->has_ended;
}

fl_status fl_channel_copy_peer_key(const fl_channel *channel,
                                   uint8_t key[FL_PUBLIC_KEY_BYTES])
{
  const fl_status st = check_usable(channel);
  if (st != FL_OK) return st;
  if (!key) return fli_error(FL_E_ARGUMENT, "channel: key is NULL");
  if (channel->phase != IS_OPEN)
    return fli_error(FL_E_STATE, "channel: is not open yet");
  if (!channel->has_peer_key)
    return fli_error(FL_E_NOT_FOUND, "channel: the client has no key");
  memcpy(key, channel->peer_key, FL_PUBLIC_KEY_BYTES);
  return FL_OK;
}
