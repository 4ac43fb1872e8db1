/* SPDX-License-Identifier: Apache-2.0 */
/* Thin layer over libsodium: BLAKE2b-256, ChaCha20 (RFC 8439) as a seekable
 * key stream, XChaCha20-Poly1305, secure random bytes. Nothing above this file
 * knows libsodium, so that another provider can take its place here. Hashes and
 * key streams are D0. */
#include "crypto/crypto.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"

enum { CHACHA_BLOCK_BYTES = 64 };

_Static_assert(
    (int)FLI_NONCE_BYTES == (int)crypto_aead_xchacha20poly1305_ietf_NPUBBYTES &&
        (int)FLI_TAG_BYTES == (int)crypto_aead_xchacha20poly1305_ietf_ABYTES &&
        (int)FLI_KEY_BYTES == (int)crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
    "sizes of XChaCha20-Poly1305");

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(fli_hasher),
               "fli_hasher has room for libsodium's state");
_Static_assert(_Alignof(crypto_generichash_state) <= _Alignof(fli_hasher),
               "fli_hasher is aligned as libsodium's state");

static crypto_generichash_state *state_of(fli_hasher *hasher)
{
  return (crypto_generichash_state *)(void *)hasher->state;
}

/* crypto_generichash can only fail on sizes, which are constants here or
 * asserted; its result is checked in debug builds. */
static void must_succeed(int result)
{
  assert(result == 0);
  (void)result;
}

fl_status fli_crypto_init(void)
{
  if (sodium_init() < 0) {
    return fli_error(FL_E_ENTROPY, "libsodium: sodium_init failed");
  }
  return FL_OK;
}

void fli_hash(uint8_t out[FLI_HASH_BYTES], const void *data, size_t n)
{
  fli_hash_keyed(out, NULL, 0, data, n);
}

void fli_hash_keyed(uint8_t out[FLI_HASH_BYTES], const uint8_t *key,
                    size_t key_size, const void *data, size_t n)
{
  assert(key_size <= crypto_generichash_KEYBYTES_MAX);
  must_succeed(crypto_generichash(out, FLI_HASH_BYTES, data, n, key, key_size));
}

uint64_t fli_hash_id(const uint8_t hash[FLI_HASH_BYTES])
{
  return fli_load_u64(hash);
}

void fli_hasher_init(fli_hasher *hasher)
{
  must_succeed(
      crypto_generichash_init(state_of(hasher), NULL, 0, FLI_HASH_BYTES));
}

void fli_hasher_update(fli_hasher *hasher, const void *data, size_t n)
{
  must_succeed(crypto_generichash_update(state_of(hasher), data, n));
}

void fli_hasher_u64(fli_hasher *hasher, uint64_t value)
{
  uint8_t bytes[8];
  fli_store_u64(bytes, value);
  fli_hasher_update(hasher, bytes, sizeof bytes);
}

void fli_hasher_final(fli_hasher *hasher, uint8_t out[FLI_HASH_BYTES])
{
  must_succeed(crypto_generichash_final(state_of(hasher), out, FLI_HASH_BYTES));
}

/* The purpose goes in with its NUL, so that no purpose is the beginning of
 * another one. */
void fli_derive(uint8_t out[FLI_KEY_BYTES], const uint8_t seed[FLI_KEY_BYTES],
                const char *purpose, uint64_t a, uint64_t b)
{
  fli_hasher hasher;
  must_succeed(crypto_generichash_init(state_of(&hasher), seed, FLI_KEY_BYTES,
                                       FLI_KEY_BYTES));
  fli_hasher_update(&hasher, purpose, strlen(purpose) + 1);
  fli_hasher_u64(&hasher, a);
  fli_hasher_u64(&hasher, b);
  fli_hasher_final(&hasher, out);
  fli_wipe(&hasher, sizeof hasher);
}

void fli_chacha20(uint8_t *out, size_t n, const uint8_t key[FLI_KEY_BYTES],
                  uint64_t stream, uint32_t block)
{
  assert(n % CHACHA_BLOCK_BYTES == 0);
  assert(n / CHACHA_BLOCK_BYTES <= ((uint64_t)1 << 32) - block);
  uint8_t nonce[crypto_stream_chacha20_ietf_NONCEBYTES] = {0};
  fli_store_u64(nonce, stream);
  memset(out, 0, n);
  must_succeed(
      crypto_stream_chacha20_ietf_xor_ic(out, out, n, nonce, block, key));
}

void fli_seal_bytes(const fli_seal *seal, uint8_t tag[FLI_TAG_BYTES], void *out,
                    const void *data, size_t n)
{
  must_succeed(crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
      out, tag, NULL, data, n, seal->context, seal->context_size, NULL,
      seal->nonce, seal->key));
}

int fli_unseal_bytes(const fli_seal *seal, const uint8_t tag[FLI_TAG_BYTES],
                     void *out, const void *data, size_t n)
{
  return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
             out, NULL, data, n, tag, seal->context, seal->context_size,
             seal->nonce, seal->key) == 0;
}

fl_status fli_random_bytes(fl_context *context, void *out, size_t n)
{
  void *user;
  fl_status (*hook)(void *, void *, size_t) =
      fli_context_entropy(context, &user);
  if (hook) {
    fl_status st = hook(user, out, n);
    if (st == FL_OK) return FL_OK;
    fli_wipe(out, n);
    return fli_error(FL_E_ENTROPY, "entropy: the host's hook said %s",
                     fl_status_name(st));
  }
  fl_status st = fli_crypto_init();
  if (st == FL_OK) randombytes_buf(out, n);
  return st;
}

int fli_equal_secret(const void *a, const void *b, size_t n)
{
  return sodium_memcmp(a, b, n) == 0;
}

void fli_wipe(void *data, size_t n)
{
  sodium_memzero(data, n);
}
