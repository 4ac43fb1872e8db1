/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers with somebody's key, who answer the challenge: they get as far as
 * the client itself, and do worse. What they sign is right, or forged in one
 * of the ways of mu_forgeries. */
#ifndef MU_FORGE_H
#define MU_FORGE_H

#include "net/mu_world.h"
#include "wire/signed.h"

enum {
  MU_SIGNED,   /* as the client would */
  MU_OLD,      /* the signature of what was recorded */
  MU_FLIPPED,  /* bits of the signature */
  MU_SWAPPED,  /* another client's key */
  MU_UNLISTED, /* a key that nobody allowed */
  MU_PINNED,   /* meant for another server */
  MU_REPLAYED, /* an earlier attempt's update, or round's */
  MU_FORGET,   /* "forget me", in the client's name */
  MU_FLOODED,  /* the same message, more often than is allowed */
  MU_FORGERIES
};
enum { MU_FLOOD = 40 };
static const char *const mu_forgeries[MU_FORGERIES] = {
    "signed",   "signature of another session",
    "flipped",  "another's key",
    "unlisted", "other server pinned",
    "replayed", "asked to be forgotten",
    "flooded"};

/* One connection of one. */
typedef struct mu_forger {
  uint32_t index; /* whose key it has */
  int has_nonce;
  uint8_t nonce[FLI_KEY_BYTES];
  int has_session;
  uint8_t session[FLI_HASH_BYTES];
  uint64_t *counts; /* of MU_FORGERIES */
} mu_forger;

/* What it is told. */
static inline void mu_forger_hear(mu_forger *forger, const fli_frame *frame)
{
  fli_challenge challenge;
  if (frame->type != FLI_MSG_CHALLENGE ||
      fli_parse_challenge(&challenge, frame->body, frame->size) != FL_OK)
    return;
  memcpy(forger->nonce, challenge.nonce, sizeof forger->nonce);
  forger->has_nonce = 1;
}

static inline void mu_forge_flip(uint8_t *signature, fli_rng *rng)
{
  signature[fli_rng_below(rng, FLI_SIGNATURE_BYTES)] ^=
      (uint8_t)(1u << fli_rng_below(rng, 8));
}

static inline int mu_forge_draw(int first, const int *ways, uint32_t n,
                                fli_rng *rng)
{
  return fli_rng_below(rng, 2) ? first : ways[fli_rng_below(rng, n)];
}

static inline int mu_forge_hello(mu_forger *forger, fli_hello *m, fli_rng *rng)
{
  static const int ways[] = {MU_OLD,     MU_FLIPPED,  MU_SIGNED,
                             MU_SWAPPED, MU_UNLISTED, MU_PINNED};
  uint8_t secret[FLI_SECRET_BYTES];
  uint32_t index = forger->index;
  if (!m->has_key || !m->has_signature || !forger->has_nonce) return -1;
  const int way = mu_forge_draw(MU_SIGNED, ways, FLI_COUNT_OF(ways), rng);
  if (way == MU_OLD) return way;
  if (way == MU_SWAPPED) index = (index + 1) % MU_PEOPLE;
  if (way == MU_UNLISTED) index = MU_PEOPLE + fli_rng_below(rng, 4);
  m->has_server_key = way == MU_PINNED;
  memset(m->server_key, 7, sizeof m->server_key);
  mu_keys(index, secret, m->public_key);
  fli_signed_hello(forger->session, m, forger->nonce);
  fli_sign(m->signature, forger->session, sizeof forger->session, secret);
  if (way == MU_FLIPPED) mu_forge_flip(m->signature, rng);
  forger->has_session = 1;
  return way;
}

static inline int mu_forge_manifest(const mu_forger *forger, fli_manifest *m,
                                    fli_rng *rng)
{
  static const int ways[] = {MU_OLD, MU_FLIPPED, MU_SIGNED, MU_REPLAYED};
  uint8_t secret[FLI_SECRET_BYTES], public_key[FLI_PUBLIC_BYTES];
  uint8_t statement[FLI_HASH_BYTES];
  if (!m->has_signature || !forger->has_session) return -1;
  const int way = mu_forge_draw(MU_SIGNED, ways, FLI_COUNT_OF(ways), rng);
  if (way == MU_OLD) return way;
  if (way == MU_REPLAYED) {
    m->round -= m->round > 1;
    m->attempt = 0;
  }
  mu_keys(forger->index, secret, public_key);
  fli_signed_update(statement, m, forger->session);
  fli_sign(m->signature, statement, sizeof statement, secret);
  if (way == MU_FLIPPED) mu_forge_flip(m->signature, rng);
  return way;
}

/* Sign what is to be signed, one way or another. What cannot be read any more
 * stays as it is. */
static inline void mu_forge(mu_forger *forger, mu_frame *frame, fli_rng *rng)
{
  const uint8_t *body = frame->data + FLI_FRAME_HEADER;
  const size_t size = frame->n - FLI_FRAME_HEADER;
  const int type = mu_type(frame);
  int way = -1;
  fli_hello hello;
  fli_manifest manifest;
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  if (type > 0 && forger->has_session && fli_rng_below(rng, 64) == 0) {
    const fli_decline bye = {.forgets = 1};
    (void)fli_write_decline(&out, FLI_MSG_BYE, &bye);
    way = MU_FORGET;
  } else if (type == FLI_MSG_HELLO &&
             fli_parse_hello(&hello, body, size) == FL_OK) {
    way = mu_forge_hello(forger, &hello, rng);
    if (way >= 0 && fli_write_hello(&out, &hello) != FL_OK) out.size = 0;
  } else if (type == FLI_MSG_MANIFEST &&
             fli_parse_manifest(&manifest, body, size) == FL_OK) {
    way = mu_forge_manifest(forger, &manifest, rng);
    if (way >= 0 && fli_write_manifest(&out, &manifest) != FL_OK) out.size = 0;
  }
  if (way >= 0) forger->counts[way]++;
  fli_clear_error();
  mu_replace(frame, &out);
  fli_bytes_free(&out);
}

/* How often the next frame is said. */
static inline int mu_forge_times(const mu_forger *forger, fli_rng *rng)
{
  if (!forger->has_session || fli_rng_below(rng, 24) > 0) return 1;
  forger->counts[MU_FLOODED]++;
  return MU_FLOOD;
}

#endif
