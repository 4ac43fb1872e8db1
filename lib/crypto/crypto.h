/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes, key streams, sealed bytes and secure random bytes: the only user of
 * libsodium. */
#ifndef FLI_CRYPTO_H
#define FLI_CRYPTO_H

#include <fl/base.h>

enum { FLI_HASH_BYTES = 32, FLI_KEY_BYTES = 32, FLI_TOKEN_BYTES = 16 };
enum { FLI_NONCE_BYTES = 24, FLI_TAG_BYTES = 16 };

/* sodium_init once; FL_E_ENTROPY when it fails. Cheap afterwards, any
 * thread. */
fl_status fli_crypto_init(void);

/* BLAKE2b-256 in one go. `key` may be NULL (key_size 0). */
void fli_hash(uint8_t out[FLI_HASH_BYTES], const void *data, size_t n);
void fli_hash_keyed(uint8_t out[FLI_HASH_BYTES], const uint8_t *key,
                    size_t key_size, const void *data, size_t n);
/* First 8 bytes of a hash as a little-endian number: a short id. */
uint64_t fli_hash_id(const uint8_t hash[FLI_HASH_BYTES]);

/* Streaming BLAKE2b-256. */
typedef struct fli_hasher {
  _Alignas(64) unsigned char state[384];
} fli_hasher;
void fli_hasher_init(fli_hasher *hasher);
void fli_hasher_update(fli_hasher *hasher, const void *data, size_t n);
void fli_hasher_u64(fli_hasher *hasher, uint64_t value); /* 8 bytes LE */
void fli_hasher_final(fli_hasher *hasher, uint8_t out[FLI_HASH_BYTES]);

/* Derive a key: BLAKE2b keyed by `seed` over (purpose text, a, b). */
void fli_derive(uint8_t out[FLI_KEY_BYTES], const uint8_t seed[FLI_KEY_BYTES],
                const char *purpose, uint64_t a, uint64_t b);
/* 64-byte block number `block` of the ChaCha20 (IETF, zero nonce except
 * `stream` in its first 8 bytes LE) key stream of `key`: seekable. n bytes,
 * a multiple of 64, from that block on. */
void fli_chacha20(uint8_t *out, size_t n, const uint8_t key[FLI_KEY_BYTES],
                  uint64_t stream, uint32_t block);

/* Encrypt n bytes (out may be data) and authenticate them together with the
 * context, which is not in `out`: XChaCha20-Poly1305. The nonce is random, one
 * for each call: chance does not
 * draw one twice. */
typedef struct fli_seal {
  const uint8_t *key;   /* FLI_KEY_BYTES */
  const uint8_t *nonce; /* FLI_NONCE_BYTES */
  const uint8_t *context;
  size_t context_size;
} fli_seal;
void fli_seal_bytes(const fli_seal *seal, uint8_t tag[FLI_TAG_BYTES], void *out,
                    const void *data, size_t n);
/* 1, or 0 when it was not made by fli_seal_bytes with the same key, nonce and
 * context; out is then untouched or zeros. */
int fli_unseal_bytes(const fli_seal *seal, const uint8_t tag[FLI_TAG_BYTES],
                     void *out, const void *data, size_t n);

/* Unpredictable bytes from the host's hook, else from libsodium.
 * FL_E_ENTROPY. */
fl_status fli_random_bytes(fl_context *context, void *out, size_t n);
/* Constant-time; 1 = equal. */
int fli_equal_secret(const void *a, const void *b, size_t n);
void fli_wipe(void *data, size_t n);

#endif
