/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/signed.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"

enum { TAG_BYTES = 16 };
#define NAN_BITS UINT64_C(0x7ff8000000000000)

static void begin(fli_hasher *hasher, const char *tag)
{
  char padded[TAG_BYTES] = {0};
  memcpy(padded, tag, strlen(tag));
  fli_hasher_init(hasher);
  fli_hasher_update(hasher, padded, sizeof padded);
}

static void add_sized(fli_hasher *hasher, const void *data, size_t n)
{
  fli_hasher_u64(hasher, n);
  if (n > 0) fli_hasher_update(hasher, data, n);
}

static uint64_t bits_of(double value)
{
  return isnan(value) ? NAN_BITS : fli_f64_bits(value);
}

void fli_signed_hello(uint8_t out[FLI_HASH_BYTES], const fli_hello *hello,
                      const uint8_t nonce[FLI_KEY_BYTES])
{
  static const uint8_t none[FLI_KEY_BYTES];
  fli_hasher hasher;
  begin(&hasher, "fl hello 1");
  fli_hasher_update(&hasher, nonce, FLI_KEY_BYTES);
  fli_hasher_update(&hasher, hello->public_key, FLI_KEY_BYTES);
  fli_hasher_update(&hasher, hello->has_server_key ? hello->server_key : none,
                    FLI_KEY_BYTES);
  add_sized(&hasher, hello->job, strlen(hello->job));
  add_sized(&hasher, hello->client_id, strlen(hello->client_id));
  fli_hasher_u64(&hasher, hello->samples);
  fli_hasher_u64(&hasher, hello->capabilities);
  fli_hasher_u64(&hasher, hello->depth);
  fli_hasher_final(&hasher, out);
}

void fli_signed_update(uint8_t out[FLI_HASH_BYTES],
                       const fli_manifest *manifest,
                       const uint8_t session[FLI_HASH_BYTES])
{
  const int has_report = manifest->has_report != 0;
  fli_hasher hasher;
  begin(&hasher, "fl update 1");
  fli_hasher_update(&hasher, session, FLI_HASH_BYTES);
  fli_hasher_u64(&hasher, manifest->round);
  fli_hasher_u64(&hasher, manifest->attempt);
  fli_hasher_u64(&hasher, manifest->total);
  fli_hasher_update(&hasher, manifest->hash, FLI_HASH_BYTES);
  fli_hasher_u64(&hasher, manifest->model_version);
  fli_hasher_u64(&hasher, manifest->slices_size);
  fli_hasher_u64(&hasher, bits_of(manifest->loss));
  fli_hasher_u64(&hasher, (uint64_t)has_report);
  fli_hasher_u64(&hasher, has_report ? manifest->report_module : 0);
  fli_hasher_u64(&hasher, has_report ? bits_of(manifest->report_value) : 0);
  add_sized(&hasher, manifest->clamped, manifest->clamped_size);
  fli_hasher_final(&hasher, out);
}
