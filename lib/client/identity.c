/* SPDX-License-Identifier: Apache-2.0 */
/* A client's key, and how it leaves. HELLO names the key; the server answers
 * with a challenge, and the next HELLO is signed for that. Its hash is the
 * session's name in the signatures of updates. */
#include "client/client.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "crypto/keys.h"
#include "wire/signed.h"

typedef struct keys {
  uint8_t secret[FLI_SECRET_BYTES];
  uint8_t public_key[FLI_PUBLIC_BYTES];
  int has_server_key;
  uint8_t server_key[FLI_PUBLIC_BYTES];
  int is_challenged; /* the next HELLO is to be signed */
  uint8_t nonce[FLI_KEY_BYTES];
  int has_session;
  uint8_t session[FLI_HASH_BYTES];
} keys;

static fl_status on_challenge(fl_client *client, const fli_frame *frame)
{
  keys *self = client->keys;
  fli_challenge message;
  const fl_status st = fli_parse_challenge(&message, frame->body, frame->size);
  if (st != FL_OK) return st;
  /* A server that never has enough of it is none. */
  client->tries++;
  if (client->options.max_retries > 0 &&
      client->tries > client->options.max_retries) {
    fli_client_abort(client, FL_REJECT_NO_ANSWER,
                     fl_reject_text(FL_REJECT_NO_ANSWER));
    return FL_OK;
  }
  memcpy(self->nonce, message.nonce, sizeof self->nonce);
  self->is_challenged = 1;
  fli_client_resync(client);
  return FL_OK;
}

static void sign_hello(fl_client *client, fli_hello *hello)
{
  keys *self = client->keys;
  hello->has_key = 1;
  memcpy(hello->public_key, self->public_key, sizeof hello->public_key);
  hello->has_server_key = self->has_server_key;
  memcpy(hello->server_key, self->server_key, sizeof hello->server_key);
  if (!self->is_challenged) return;
  self->is_challenged = 0;
  fli_signed_hello(self->session, hello, self->nonce);
  self->has_session = 1;
  hello->has_signature = 1;
  fli_sign(hello->signature, self->session, sizeof self->session, self->secret);
}

static void sign_update(fl_client *client, fli_manifest *manifest)
{
  keys *self = client->keys;
  uint8_t statement[FLI_HASH_BYTES];
  if (!self->has_session) return;
  fli_signed_update(statement, manifest, self->session);
  manifest->has_signature = 1;
  fli_sign(manifest->signature, statement, sizeof statement, self->secret);
}

static void free_keys(fl_client *client)
{
  keys *self = client->keys;
  fli_wipe(self, sizeof *self);
  fli_free(client->context, self, sizeof *self);
  client->keys = NULL;
  client->signer = NULL;
}

static const fli_signer signer = {.on_challenge = on_challenge,
                                  .sign_hello = sign_hello,
                                  .sign_update = sign_update,
                                  .free = free_keys};

/* The secret half has the public one at its end. */
static int is_key_pair(const uint8_t secret[FLI_SECRET_BYTES],
                       uint8_t public_key[FLI_PUBLIC_BYTES])
{
  uint8_t again[FLI_SECRET_BYTES];
  fli_sign_keys(again, public_key, secret);
  const int is_same = fli_equal_secret(again, secret, sizeof again);
  fli_wipe(again, sizeof again);
  return is_same;
}

fl_status fl_client_set_key(fl_client *client,
                            const uint8_t secret_key[FL_SECRET_KEY_BYTES],
                            const uint8_t *server_key)
{
  uint8_t public_key[FLI_PUBLIC_BYTES];
  fli_clear_error();
  if (!client || !secret_key)
    return fli_error(FL_E_ARGUMENT, "fl_client_set_key: NULL argument");
  if (!is_key_pair(secret_key, public_key))
    return fli_error(FL_E_ARGUMENT, "secret_key: is no key of fl_key_generate");
  keys *made = fli_alloc(client->context, 1, sizeof *made);
  if (!made) return fli_nomem(sizeof *made);
  if (client->signer) client->signer->free(client);
  memcpy(made->secret, secret_key, sizeof made->secret);
  memcpy(made->public_key, public_key, sizeof made->public_key);
  if (server_key) {
    memcpy(made->server_key, server_key, sizeof made->server_key);
    made->has_server_key = 1;
  }
  client->keys = made;
  client->signer = &signer;
  return FL_OK;
}

fl_status fl_client_leave(fl_client *client)
{
  fli_clear_error();
  if (!client)
    return fli_error(FL_E_ARGUMENT, "fl_client_leave: NULL argument");
  if (client->phase == FLI_PHASE_ABORTED)
    return fli_error(FL_E_STATE, "leave: the client has been aborted");
  const int is_over = client->phase == FLI_PHASE_DONE;
  client->is_leaving = 1;
  client->phase = FLI_PHASE_IDLE;
  client->outgoing.is_active = 0;
  client->due = FLI_DUE_LEAVE;
  if (is_over) fli_client_resync(client);
  return FL_OK;
}
