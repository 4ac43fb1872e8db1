/* SPDX-License-Identifier: Apache-2.0 */
/* What an end of a sealed channel is sent: the first byte says which end, and
 * whether the handshake is done. Nobody without the keys can have a byte read,
 * whatever comes: the rest is sent in pieces, or laid over an honest record
 * (bit 2), which is read only if nothing of it changed. */
#include "fuzz.h"

#include <fl/channel.h>

typedef struct ends {
  uint8_t secret[FL_SECRET_KEY_BYTES], key[FL_PUBLIC_KEY_BYTES];
  fl_channel *server, *client;
} ends;

static void make(ends *e)
{
  fl_channel_options options;
  FUZZ_CHECK(fl_key_generate(NULL, e->secret, e->key) == FL_OK);
  FUZZ_CHECK(fl_channel_options_init(&options, sizeof options) == FL_OK);
  options.secret_key = e->secret;
  options.server_key = e->key;
  FUZZ_CHECK(fl_channel_new(&e->client, NULL, &options) == FL_OK);
  options.is_server = 1;
  FUZZ_CHECK(fl_channel_new(&e->server, NULL, &options) == FL_OK);
}

static void carry(fl_channel *from, fl_channel *to)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  FUZZ_CHECK(fl_channel_send(from, &data, &n) == FL_OK);
  FUZZ_CHECK(fl_channel_recv(to, data, n) == FL_OK);
}

/* Bytes that can be read; a broken channel has none. */
static size_t readable(fl_channel *channel)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  const fl_status st = fl_channel_read(channel, &data, &n);
  FUZZ_CHECK(st == FL_OK || st == FL_E_STATE);
  return st == FL_OK ? n : 0;
}

static void feed(fl_channel *channel, const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  for (size_t at = 0; st == FL_OK && at < n;) {
    size_t piece = 1 + data[at] % 97;
    if (piece > n - at) piece = n - at;
    uint8_t *copy = fuzz_exact_copy(data + at, piece);
    st = fl_channel_recv(channel, copy, piece);
    free(copy);
    at += piece;
  }
  FUZZ_CHECK(readable(channel) == 0);
  FUZZ_CHECK(st == FL_OK || !fl_channel_is_open(channel));
}

/* An honest record of 16 bytes with the input laid over it. */
static void overlay(fl_channel *from, fl_channel *to, const uint8_t *data,
                    size_t n)
{
  uint8_t record[64];
  const uint8_t *sent = NULL;
  size_t size = 0, changed = 0;
  FUZZ_CHECK(fl_channel_write(from, (const uint8_t *)"sixteen bytes ok", 16) ==
             FL_OK);
  FUZZ_CHECK(fl_channel_send(from, &sent, &size) == FL_OK);
  FUZZ_CHECK(size <= sizeof record);
  for (size_t i = 0; i < size; i++) {
    record[i] = sent[i] ^ (i < n ? data[i] : 0);
    changed += record[i] != sent[i];
  }
  const fl_status st = fl_channel_recv(to, record, size);
  const size_t got = readable(to);
  FUZZ_CHECK(changed == 0 ? st == FL_OK && got == 16 : got == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  ends e;
  if (n == 0) return 0;
  const uint8_t how = data[0];
  make(&e);
  fl_channel *to = how & 1 ? e.client : e.server;
  if (how & 6) {
    carry(e.client, e.server);
    carry(e.server, e.client);
    carry(e.client, e.server);
  }
  if (how & 4) {
    overlay(how & 1 ? e.server : e.client, to, data + 1, n - 1);
  } else {
    feed(to, data + 1, n - 1);
  }
  fl_channel_free(e.server);
  fl_channel_free(e.client);
  return 0;
}
