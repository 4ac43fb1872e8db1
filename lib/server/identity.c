/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of clients. A HELLO with a key is answered with a challenge that the
 * next HELLO of the peer signs, so nothing that was recorded opens a session;
 * what it claims (id, job, samples, ...) is under the signature, and the hash
 * of all that stands for the session in the signatures of its updates.
 *
 * Of a key the server keeps a hash of 16 bytes, keyed by its secret, with the
 * client; the key itself only while its connection lasts. */
#include "server/server.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "crypto/keys.h"
#include "wire/signed.h"

void fli_name_of(uint8_t name[FLI_NAME_BYTES], const fl_server *server,
                 uint8_t kind, const void *data, size_t n)
{
  uint8_t text[1 + FLI_ID_BYTES] = {kind}, digest[FLI_HASH_BYTES];
  memcpy(text + 1, data, n);
  fli_hash_keyed(digest, server->secret, sizeof server->secret, text, 1 + n);
  memcpy(name, digest, FLI_NAME_BYTES);
}

fl_status fli_identity_check_options(const fl_server_options *options)
{
  if (options->enrolment > FL_ENROL_ASK)
    return fli_error(FL_E_OPTIONS, "enrolment: got %u, want FL_ENROL_*",
                     options->enrolment);
  if (options->enrolment == FL_ENROL_ASK && !options->enrol)
    return fli_error(FL_E_OPTIONS, "enrol: got NULL, want a function to ask");
  return FL_OK;
}

/* ---- what is known of a client ---- */

fli_standing *fli_standing_of(fli_participant *who)
{
  if (!who->standing)
    who->standing = fli_alloc(who->home->context, 1, sizeof *who->standing);
  return who->standing;
}

void fli_standing_free(fli_participant *who)
{
  if (!who->standing) return;
  fli_free(who->home->context, who->standing, sizeof *who->standing);
  who->standing = NULL;
}

void fli_identity_free(fli_peer *peer)
{
  if (!peer->proof.spare) return;
  fli_free(peer->server->context, peer->proof.spare, sizeof *peer->proof.spare);
  peer->proof.spare = NULL;
}

static int has_key(const fli_participant *who)
{
  return who && who->standing && who->standing->has_key;
}

int fli_identity_is_owner(const fli_peer *peer, const fli_participant *who)
{
  return has_key(who) && peer->proof.is_proven &&
         fli_equal_secret(who->standing->key, peer->proof.name, FLI_NAME_BYTES);
}

void fli_identity_bind(fli_peer *peer, fli_participant *who)
{
  fli_proof *proof = &peer->proof;
  if (!proof->is_proven) return;
  if (!who->standing) {
    who->standing = proof->spare;
    proof->spare = NULL;
  }
  if (fli_identity_is_owner(peer, who)) return;
  memcpy(who->standing->key, proof->name, FLI_NAME_BYTES);
  who->standing->has_key = 1;
  fli_enrol_take(peer->server, proof->name, who->id);
  fli_bound_note(who);
}

/* ---- HELLO ---- */

static fl_status challenge(fli_peer *peer)
{
  fli_challenge message;
  fli_proof *proof = &peer->proof;
  if (!proof->has_nonce) {
    const fl_status st = fli_random_bytes(peer->server->context, proof->nonce,
                                          sizeof proof->nonce);
    if (st != FL_OK)
      return fli_peer_reject(peer, FL_REJECT_LIMIT, "%s", fl_last_error());
    proof->has_nonce = 1;
  }
  memcpy(message.nonce, proof->nonce, sizeof message.nonce);
  /* Whatever was to be said is said again after the next HELLO. */
  fli_bytes_clear(&peer->queue);
  peer->answers = 0;
  peer->due = 0;
  fli_peer_drop_download(peer);
  const fl_status st = fli_write_challenge(&peer->queue, &message);
  fli_peer_touch(peer);
  return st;
}

static fl_status refuse_banned(fli_peer *peer, uint64_t left_ns)
{
  if (left_ns == UINT64_MAX)
    return fli_peer_reject(peer, FL_REJECT_BANNED, "banned");
  return fli_peer_reject(peer, FL_REJECT_BANNED, "banned for %llu s more",
                         (unsigned long long)(left_ns / 1000000000 + 1));
}

/* What can be said before anything is proven: cheap, and first. Its answer, if
 * there is one, is *why. */
static uint32_t check_claim(const fli_peer *peer, const fli_participant *known,
                            const fli_hello *hello,
                            const uint8_t key[FLI_NAME_BYTES], const char **why)
{
  const fl_server *server = peer->server;
  if (!hello->has_key) {
    *why = "hello: got no key, want one";
    if (server->options.enrolment != FL_ENROL_OPEN)
      return FL_REJECT_NOT_ENROLLED;
    return has_key(known) ? FL_REJECT_KEY : FL_REJECT_NONE;
  }
  *why = "hello: pins the key of another server";
  if (hello->has_server_key &&
      (!server->trust.has_server_key ||
       memcmp(hello->server_key, server->trust.server_key, FLI_KEY_BYTES) != 0))
    return FL_REJECT_KEY;
  *why = "hello: got a key that has another client id";
  const uint32_t reason = fli_enrol_check(server, key, hello->client_id);
  if (reason == FL_REJECT_NOT_ENROLLED) *why = "hello: got a key not enrolled";
  if (reason != FL_REJECT_NONE) return reason;
  *why = "hello: got a client id that has another key";
  return has_key(known) &&
                 memcmp(known->standing->key, key, FLI_NAME_BYTES) != 0
             ? FL_REJECT_KEY
             : FL_REJECT_NONE;
}

static int is_asked_for(const fli_peer *peer, const fli_job *job,
                        const fli_hello *hello)
{
  const fl_server_options *options = &peer->server->options;
  const fl_enrol_request request = {
      .struct_size = (uint32_t)sizeof request,
      .job = job->index,
      .client_id = hello->client_id,
      .public_key = hello->public_key,
  };
  return options->enrolment != FL_ENROL_ASK ||
         options->enrol(&request, options->enrol_user) == 1;
}

static fl_status check_proof(fli_peer *peer, const fli_job *job,
                             const fli_hello *hello,
                             const uint8_t name[FLI_NAME_BYTES],
                             int *is_welcome)
{
  fli_proof *proof = &peer->proof;
  uint8_t session[FLI_HASH_BYTES];
  if (!proof->has_nonce || !hello->has_signature) return challenge(peer);
  fli_signed_hello(session, hello, proof->nonce);
  if (!fli_verify(hello->signature, session, sizeof session, hello->public_key))
    return fli_peer_reject(peer, FL_REJECT_SIGNATURE,
                           "hello: the signature is not the key's");
  if (!is_asked_for(peer, job, hello))
    return fli_peer_reject(peer, FL_REJECT_NOT_ENROLLED,
                           "hello: got a key not enrolled");
  if (!proof->spare)
    proof->spare = fli_alloc(peer->server->context, 1, sizeof *proof->spare);
  if (!proof->spare) return fli_nomem(sizeof *proof->spare);
  proof->is_proven = 1;
  memcpy(proof->key, hello->public_key, sizeof proof->key);
  memcpy(proof->name, name, sizeof proof->name);
  memcpy(proof->session, session, sizeof proof->session);
  *is_welcome = 1;
  return FL_OK;
}

fl_status fli_identity_check(fli_peer *peer, fli_job *job,
                             const fli_hello *hello, int *is_welcome)
{
  const fl_server *server = peer->server;
  uint8_t id[FLI_NAME_BYTES], key[FLI_NAME_BYTES] = {0};
  const char *why = "";
  *is_welcome = 0;
  fli_name_of(id, server, FLI_NAME_OF_ID, hello->client_id,
              strlen(hello->client_id));
  uint64_t left = fli_ban_left(server, id);
  if (hello->has_key) {
    fli_name_of(key, server, FLI_NAME_OF_KEY, hello->public_key,
                sizeof hello->public_key);
    const uint64_t of_key = fli_ban_left(server, key);
    if (of_key > left) left = of_key;
  }
  if (left > 0) return refuse_banned(peer, left);
  fli_participant *known = NULL;
  const fl_status st = fli_registry_call(job, hello->client_id, &known);
  if (st != FL_OK) return st;
  const uint32_t reason = check_claim(peer, known, hello, key, &why);
  if (reason != FL_REJECT_NONE) return fli_peer_reject(peer, reason, "%s", why);
  if (hello->has_key) return check_proof(peer, job, hello, key, is_welcome);
  peer->proof.is_proven = 0;
  *is_welcome = 1;
  return FL_OK;
}

/* ---- updates ---- */

int fli_identity_is_replay(const fli_participant *who, uint64_t round,
                           uint32_t attempt)
{
  if (!has_key(who)) return 0;
  if (round != who->counted_round) return round < who->counted_round;
  return attempt < who->counted_attempt;
}

fl_status fli_identity_check_update(fli_peer *peer,
                                    const fli_manifest *manifest, int *is_good)
{
  uint8_t statement[FLI_HASH_BYTES];
  *is_good = 1;
  if (!has_key(peer->participant)) return FL_OK;
  fli_signed_update(statement, manifest, peer->proof.session);
  if (manifest->has_signature && fli_verify(manifest->signature, statement,
                                            sizeof statement, peer->proof.key))
    return FL_OK;
  *is_good = 0;
  return fli_peer_ack(peer, manifest->round, manifest->attempt,
                      FL_REJECT_SIGNATURE, "update: %s",
                      manifest->has_signature
                          ? "the signature is not the client's"
                          : "is not signed");
}
