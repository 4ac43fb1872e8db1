/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 signatures, X25519 key exchange (crypto_kx) and sealed streams
 * (secretstream, XChaCha20-Poly1305), by libsodium. */
#include "crypto/keys.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

_Static_assert((int)FLI_PUBLIC_BYTES == (int)crypto_sign_PUBLICKEYBYTES &&
                   (int)FLI_PUBLIC_BYTES == (int)crypto_kx_PUBLICKEYBYTES &&
                   (int)FLI_SECRET_BYTES == (int)crypto_sign_SECRETKEYBYTES &&
                   (int)FLI_SIGNATURE_BYTES == (int)crypto_sign_BYTES &&
                   (int)FLI_EXCHANGE_BYTES == (int)crypto_kx_SECRETKEYBYTES &&
                   (int)FLI_KEY_BYTES == (int)crypto_kx_SESSIONKEYBYTES &&
                   (int)FLI_KEY_BYTES == (int)crypto_sign_SEEDBYTES &&
                   (int)FLI_KEY_BYTES == (int)crypto_kx_SEEDBYTES,
               "sizes of keys");
_Static_assert((int)FLI_STREAM_HEADER_BYTES ==
                       (int)crypto_secretstream_xchacha20poly1305_HEADERBYTES &&
                   (int)FLI_STREAM_TAG_BYTES ==
                       (int)crypto_secretstream_xchacha20poly1305_ABYTES,
               "sizes of sealed streams");
_Static_assert(sizeof(crypto_secretstream_xchacha20poly1305_state) <=
                       sizeof(fli_stream_state) &&
                   _Alignof(crypto_secretstream_xchacha20poly1305_state) <=
                       _Alignof(fli_stream_state),
               "fli_stream_state has room for libsodium's");

/* These fail on sizes alone, which are constants here. */
static void must_succeed(int result)
{
  assert(result == 0);
  (void)result;
}

void fli_sign_keys(uint8_t secret[FLI_SECRET_BYTES],
                   uint8_t public_key[FLI_PUBLIC_BYTES],
                   const uint8_t seed[FLI_KEY_BYTES])
{
  must_succeed(crypto_sign_seed_keypair(public_key, secret, seed));
}

void fli_sign(uint8_t signature[FLI_SIGNATURE_BYTES], const void *data,
              size_t n, const uint8_t secret[FLI_SECRET_BYTES])
{
  must_succeed(crypto_sign_detached(signature, NULL, data, n, secret));
}

int fli_verify(const uint8_t signature[FLI_SIGNATURE_BYTES], const void *data,
               size_t n, const uint8_t public_key[FLI_PUBLIC_BYTES])
{
  return crypto_sign_verify_detached(signature, data, n, public_key) == 0;
}

void fli_exchange_begin(fli_exchange *mine, const uint8_t seed[FLI_KEY_BYTES])
{
  must_succeed(crypto_kx_seed_keypair(mine->public_key, mine->secret, seed));
}

int fli_exchange_keys(const fli_exchange *mine,
                      const uint8_t theirs[FLI_PUBLIC_BYTES], int is_server,
                      uint8_t receive[FLI_KEY_BYTES],
                      uint8_t send[FLI_KEY_BYTES])
{
  return (is_server ? crypto_kx_server_session_keys
                    : crypto_kx_client_session_keys)(
             receive, send, mine->public_key, mine->secret, theirs) == 0;
}

static crypto_secretstream_xchacha20poly1305_state *
state_of(fli_stream_state *stream)
{
  return (crypto_secretstream_xchacha20poly1305_state *)(void *)stream->state;
}

void fli_stream_push_init(fli_stream_state *stream,
                          uint8_t header[FLI_STREAM_HEADER_BYTES],
                          const uint8_t key[FLI_KEY_BYTES])
{
  must_succeed(crypto_secretstream_xchacha20poly1305_init_push(state_of(stream),
                                                               header, key));
}

int fli_stream_pull_init(fli_stream_state *stream,
                         const uint8_t header[FLI_STREAM_HEADER_BYTES],
                         const uint8_t key[FLI_KEY_BYTES])
{
  return crypto_secretstream_xchacha20poly1305_init_pull(state_of(stream),
                                                         header, key) == 0;
}

void fli_stream_push(fli_stream_state *stream, uint8_t *out,
                     const uint8_t *data, size_t n, int is_last)
{
  must_succeed(crypto_secretstream_xchacha20poly1305_push(
      state_of(stream), out, NULL, data, n, NULL, 0,
      is_last
          ? (unsigned char)crypto_secretstream_xchacha20poly1305_TAG_FINAL
          : (unsigned char)crypto_secretstream_xchacha20poly1305_TAG_MESSAGE));
}

int fli_stream_pull(fli_stream_state *stream, uint8_t *out, const uint8_t *data,
                    size_t n, int *is_last)
{
  unsigned char tag = 0;
  if (crypto_secretstream_xchacha20poly1305_pull(state_of(stream), out, NULL,
                                                 &tag, data, n, NULL, 0) != 0)
    return 0;
  *is_last = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
  return 1;
}
