/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures, key exchange and sealed streams: keys.c, by libsodium. */
#ifndef FLI_KEYS_H
#define FLI_KEYS_H

#include "crypto/crypto.h"

enum {
  FLI_PUBLIC_BYTES = 32, /* Ed25519 and X25519 */
  FLI_SECRET_BYTES = 64, /* Ed25519: seed and public half */
  FLI_SIGNATURE_BYTES = 64,
  FLI_EXCHANGE_BYTES = 32, /* X25519, secret */
  FLI_STREAM_HEADER_BYTES = 24,
  FLI_STREAM_TAG_BYTES = 17
};

/* Ed25519, from FLI_KEY_BYTES of entropy. */
void fli_sign_keys(uint8_t secret[FLI_SECRET_BYTES],
                   uint8_t public_key[FLI_PUBLIC_BYTES],
                   const uint8_t seed[FLI_KEY_BYTES]);
void fli_sign(uint8_t signature[FLI_SIGNATURE_BYTES], const void *data,
              size_t n, const uint8_t secret[FLI_SECRET_BYTES]);
/* 1 = signed by the key's owner. */
int fli_verify(const uint8_t signature[FLI_SIGNATURE_BYTES], const void *data,
               size_t n, const uint8_t public_key[FLI_PUBLIC_BYTES]);

/* X25519. `mine` and the other end's public key give two keys; 0 when that key
 * is none. */
typedef struct fli_exchange {
  uint8_t secret[FLI_EXCHANGE_BYTES];
  uint8_t public_key[FLI_PUBLIC_BYTES];
} fli_exchange;
void fli_exchange_begin(fli_exchange *mine, const uint8_t seed[FLI_KEY_BYTES]);
int fli_exchange_keys(const fli_exchange *mine,
                      const uint8_t theirs[FLI_PUBLIC_BYTES], int is_server,
                      uint8_t receive[FLI_KEY_BYTES],
                      uint8_t send[FLI_KEY_BYTES]);

/* One direction of a secretstream. */
typedef struct fli_stream_state {
  _Alignas(16) unsigned char state[64];
} fli_stream_state;
void fli_stream_push_init(fli_stream_state *stream,
                          uint8_t header[FLI_STREAM_HEADER_BYTES],
                          const uint8_t key[FLI_KEY_BYTES]);
/* 0 when the header is none. */
int fli_stream_pull_init(fli_stream_state *stream,
                         const uint8_t header[FLI_STREAM_HEADER_BYTES],
                         const uint8_t key[FLI_KEY_BYTES]);
/* out: n + FLI_STREAM_TAG_BYTES. */
void fli_stream_push(fli_stream_state *stream, uint8_t *out,
                     const uint8_t *data, size_t n, int is_last);
/* n >= FLI_STREAM_TAG_BYTES sealed bytes; out: n - FLI_STREAM_TAG_BYTES. 0 when
 * they are not the next ones of the stream. */
int fli_stream_pull(fli_stream_state *stream, uint8_t *out, const uint8_t *data,
                    size_t n, int *is_last);

#endif
