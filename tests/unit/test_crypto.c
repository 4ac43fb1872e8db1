/* SPDX-License-Identifier: Apache-2.0 */
/* Known answers: BLAKE2b from a second implementation (Python's hashlib),
 * ChaCha20 from RFC 8439, appendix A.1, XChaCha20-Poly1305 from
 * draft-irtf-cfrg-xchacha-03, A.3.1. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "crypto/crypto.h"

static void check_hex(const uint8_t *bytes, size_t n, const char *want)
{
  char got[300];
  cr_assert_lt(2 * n, sizeof got);
  for (size_t i = 0; i < n; i++) {
    snprintf(got + 2 * i, 3, "%02x", bytes[i]);
  }
  cr_assert_str_eq(got, want);
}

static void counting_bytes(uint8_t *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    bytes[i] = (uint8_t)i;
  }
}

Test(crypto, init_may_be_called_again)
{
  cr_assert_eq(fli_crypto_init(), FL_OK);
  cr_assert_eq(fli_crypto_init(), FL_OK);
}

Test(crypto, blake2b_known_answers)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hash(hash, NULL, 0);
  check_hex(hash, sizeof hash,
            "0e5751c026e543b2e8ab2eb06099daa1"
            "d1e5df47778f7787faab45cdf12fe3a8");
  fli_hash(hash, "abc", 3);
  check_hex(hash, sizeof hash,
            "bddd813c634239723171ef3fee98579b"
            "94964e3bb1cb3e427262c8c068d52319");
}

Test(crypto, keyed_blake2b_known_answer)
{
  uint8_t hash[FLI_HASH_BYTES];
  uint8_t key[32];
  uint8_t data[200];
  counting_bytes(key, sizeof key);
  counting_bytes(data, sizeof data);
  fli_hash_keyed(hash, key, sizeof key, data, sizeof data);
  check_hex(hash, sizeof hash,
            "a39ff6e7e838226fd50e24a55375ff3a"
            "39419fd93e32cc463f3f74323291c425");
}

Test(crypto, streaming_hash_does_not_depend_on_the_cuts)
{
  uint8_t data[300];
  uint8_t whole[FLI_HASH_BYTES];
  counting_bytes(data, sizeof data);
  fli_hash(whole, data, sizeof data);
  for (size_t cut = 0; cut <= sizeof data; cut++) {
    fli_hasher hasher;
    uint8_t parts[FLI_HASH_BYTES];
    fli_hasher_init(&hasher);
    fli_hasher_update(&hasher, data, cut);
    fli_hasher_update(&hasher, data + cut, sizeof data - cut);
    fli_hasher_final(&hasher, parts);
    cr_assert_eq(memcmp(parts, whole, sizeof whole), 0, "cut %zu", cut);
  }
}

Test(crypto, hasher_takes_numbers_as_little_endian_bytes)
{
  fli_hasher hasher;
  uint8_t number[FLI_HASH_BYTES];
  uint8_t bytes[FLI_HASH_BYTES];
  fli_hasher_init(&hasher);
  fli_hasher_u64(&hasher, UINT64_C(0x0807060504030201));
  fli_hasher_final(&hasher, number);
  fli_hash(bytes, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
  cr_assert_eq(memcmp(number, bytes, sizeof bytes), 0);
}

Test(crypto, hash_id_is_the_first_eight_bytes)
{
  uint8_t hash[FLI_HASH_BYTES];
  counting_bytes(hash, sizeof hash);
  cr_assert_eq(fli_hash_id(hash), UINT64_C(0x0706050403020100));
}

/* Keyed BLAKE2b over "purpose\0", 1 and 2 as 8 bytes little-endian. */
Test(crypto, derive_known_answer)
{
  uint8_t seed[FLI_KEY_BYTES];
  uint8_t key[FLI_KEY_BYTES];
  counting_bytes(seed, sizeof seed);
  fli_derive(key, seed, "purpose", 1, 2);
  check_hex(key, sizeof key,
            "2d7cf02d44d6f974357999c65563f2dc"
            "5f0f015f5095d644de03d2c057e6cb72");
}

Test(crypto, derived_keys_differ_in_every_argument)
{
  uint8_t seeds[2][FLI_KEY_BYTES] = {{0}, {1}};
  uint8_t keys[5][FLI_KEY_BYTES];
  fli_derive(keys[0], seeds[0], "mask", 1, 2);
  fli_derive(keys[1], seeds[1], "mask", 1, 2);
  fli_derive(keys[2], seeds[0], "mas", 1, 2);
  fli_derive(keys[3], seeds[0], "mask", 2, 2);
  fli_derive(keys[4], seeds[0], "mask", 1, 1);
  for (int i = 0; i < 5; i++) {
    for (int j = 0; j < i; j++) {
      cr_assert_neq(memcmp(keys[i], keys[j], FLI_KEY_BYTES), 0);
    }
  }
}

Test(crypto, chacha20_known_answers)
{
  uint8_t key[FLI_KEY_BYTES] = {0};
  uint8_t block[64];
  fli_chacha20(block, sizeof block, key, 0, 0);
  check_hex(block, sizeof block,
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
            "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586");
  fli_chacha20(block, sizeof block, key, 0, 1);
  check_hex(block, sizeof block,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
            "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f");
  key[31] = 1;
  fli_chacha20(block, sizeof block, key, 0, 1);
  check_hex(block, sizeof block,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
            "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0");
}

Test(crypto, chacha20_is_seekable_and_streams_differ)
{
  uint8_t key[FLI_KEY_BYTES] = {7};
  uint8_t whole[512];
  uint8_t part[128];
  fli_chacha20(whole, sizeof whole, key, 99, 5);
  fli_chacha20(part, sizeof part, key, 99, 8);
  cr_assert_eq(memcmp(part, whole + 192, sizeof part), 0);
  fli_chacha20(part, sizeof part, key, UINT64_C(99) << 32, 8);
  cr_assert_neq(memcmp(part, whole + 192, sizeof part), 0);
}

Test(crypto, chacha20_reaches_its_last_block)
{
  uint8_t key[FLI_KEY_BYTES] = {7};
  uint8_t two[128];
  uint8_t last[64];
  fli_chacha20(two, sizeof two, key, 0, UINT32_MAX - 1);
  fli_chacha20(last, sizeof last, key, 0, UINT32_MAX);
  cr_assert_eq(memcmp(two + 64, last, sizeof last), 0);
}

Test(crypto, random_bytes_of_the_system_do_not_repeat)
{
  uint8_t a[32] = {0};
  uint8_t b[32] = {0};
  cr_assert_eq(fli_random_bytes(NULL, a, sizeof a), FL_OK);
  cr_assert_eq(fli_random_bytes(NULL, b, sizeof b), FL_OK);
  cr_assert_neq(memcmp(a, b, sizeof a), 0);
}

static fl_status host_entropy(void *user, void *buf, size_t n)
{
  memset(buf, 0x5a, n);
  return *(fl_status *)user;
}

static fl_context *entropy_context(fl_status *result)
{
  fl_context_options options;
  fl_context *context = NULL;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.user = result;
  options.entropy = host_entropy;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  return context;
}

Test(crypto, random_bytes_come_from_the_hosts_hook)
{
  fl_status result = FL_OK;
  fl_context *context = entropy_context(&result);
  uint8_t bytes[5] = {0};
  cr_assert_eq(fli_random_bytes(context, bytes, 4), FL_OK);
  cr_assert_eq(memcmp(bytes, "\x5a\x5a\x5a\x5a\x00", 5), 0);
  fl_context_free(context);
}

Test(crypto, failing_entropy_hook_is_no_entropy_and_leaves_no_bytes)
{
  fl_status result = FL_E_IO;
  fl_context *context = entropy_context(&result);
  uint8_t bytes[4] = {1, 1, 1, 1};
  cr_assert_eq(fli_random_bytes(context, bytes, 4), FL_E_ENTROPY);
  cr_assert_eq(memcmp(bytes, "\0\0\0\0", 4), 0);
  cr_assert_not_null(strstr(fl_last_error(), "FL_E_IO"));
  fl_context_free(context);
}

static const char sunscreen[] =
    "Ladies and Gentlemen of the class of '99: If I could offer you only one "
    "tip for the future, sunscreen would be it.";

enum { SUNSCREEN = sizeof sunscreen - 1 };

static const uint8_t *bytes_from(uint8_t first)
{
  static uint8_t all[256];
  counting_bytes(all, sizeof all);
  return all + first;
}

static fli_seal sunscreen_seal(void)
{
  static const uint8_t context[] = {0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1,
                                    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7};
  return (fli_seal){bytes_from(0x80), bytes_from(0x40), context,
                    sizeof context};
}

Test(crypto, sealed_bytes_known_answer)
{
  uint8_t out[SUNSCREEN], tag[FLI_TAG_BYTES], back[SUNSCREEN];
  fli_seal seal = sunscreen_seal();
  fli_seal_bytes(&seal, tag, out, sunscreen, SUNSCREEN);
  check_hex(tag, sizeof tag, "c0875924c1c7987947deafd8780acf49");
  check_hex(out, sizeof out,
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
            "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
            "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
            "21f9664c97637da9768812f615c68b13b52e");
  cr_assert_eq(fli_unseal_bytes(&seal, tag, back, out, SUNSCREEN), 1);
  cr_assert_eq(memcmp(back, sunscreen, SUNSCREEN), 0);
  cr_assert_eq(fli_unseal_bytes(&seal, tag, out, out, SUNSCREEN), 1);
  cr_assert_eq(memcmp(out, sunscreen, SUNSCREEN), 0);
}

Test(crypto, sealed_bytes_of_anything_else_stay_shut)
{
  uint8_t out[SUNSCREEN], tag[FLI_TAG_BYTES], back[SUNSCREEN];
  const fli_seal seal = sunscreen_seal();
  fli_seal_bytes(&seal, tag, out, sunscreen, SUNSCREEN);
  for (size_t i = 0; i < SUNSCREEN; i++) {
    out[i] ^= 1;
    cr_assert_eq(fli_unseal_bytes(&seal, tag, back, out, SUNSCREEN), 0);
    out[i] ^= 1;
  }
  for (size_t i = 0; i < sizeof tag; i++) {
    tag[i] ^= 0x80;
    cr_assert_eq(fli_unseal_bytes(&seal, tag, back, out, SUNSCREEN), 0);
    tag[i] ^= 0x80;
  }
  fli_seal other = seal;
  other.key = bytes_from(0x81);
  cr_assert_eq(fli_unseal_bytes(&other, tag, back, out, SUNSCREEN), 0);
  other = seal;
  other.nonce = bytes_from(0x41);
  cr_assert_eq(fli_unseal_bytes(&other, tag, back, out, SUNSCREEN), 0);
  other = seal;
  other.context_size--;
  cr_assert_eq(fli_unseal_bytes(&other, tag, back, out, SUNSCREEN), 0);
  cr_assert_eq(fli_unseal_bytes(&seal, tag, back, out, SUNSCREEN - 1), 0);
}

Test(crypto, equal_secret_compares_every_byte)
{
  uint8_t a[16] = {0};
  uint8_t b[16] = {0};
  cr_assert_eq(fli_equal_secret(a, b, sizeof a), 1);
  for (size_t i = 0; i < sizeof a; i++) {
    b[i] = 0x80;
    cr_assert_eq(fli_equal_secret(a, b, sizeof a), 0);
    b[i] = 0;
  }
  cr_assert_eq(fli_equal_secret(a, b, 0), 1);
}

Test(crypto, wipe_clears)
{
  uint8_t secret[8];
  counting_bytes(secret, sizeof secret);
  fli_wipe(secret + 1, 6);
  cr_assert_eq(memcmp(secret, "\0\0\0\0\0\0\0\x07", 8), 0);
}
