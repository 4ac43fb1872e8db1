/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that every machine gets back from an activation cache, and the checksum
 * in front of them. The values were found by a second implementation, in numpy
 * and Python's integers. */
#include "base/bytes.h"
#include "cache_blob.h"
#include "check.h"
#include "cache/cache.h"

enum { N = 1000 };

/* Of all exponents from 2^-27 to 2^18, some too large for f16. */
static void fill(float *x)
{
  for (uint32_t i = 0; i < N; i++) {
    uint32_t mix = i * UINT32_C(2654435761);
    uint32_t bits = mix >> 31 << 31 | (100 + i % 46) << 23 | (mix & 0x7fffff);
    x[i] = fli_f32_from_bits(bits);
  }
}

static void rows_come_back_as_these_values(void)
{
  static const uint64_t want[] = {0x26bbc83ad65d8989, 0x25bddf8e2f0453f8,
                                  0x2009bfc4619d9427};
  const uint64_t id = 0;
  for (uint32_t dtype = FL_CACHE_F32; dtype <= FL_CACHE_I8; dtype++) {
    static float x[N], y[N];
    fl_cache *cache = NULL;
    fl_cache_options options;
    uint8_t hash[FLI_HASH_BYTES];
    fli_hasher hasher;
    fill(x);
    CHECK_OK(fl_cache_options_init(&options, sizeof options));
    options.dtype = dtype;
    CHECK_OK(fl_cache_new(&cache, NULL, &options));
    CHECK_OK(fl_cache_begin(cache, cache_tag(1), 1, N));
    CHECK_OK(fl_cache_put(cache, &id, 1, x));
    CHECK_OK(fl_cache_get(cache, &id, 1, y));
    fl_cache_free(cache);
    fli_hasher_init(&hasher);
    for (uint32_t i = 0; i < N; i++)
      fli_hasher_u64(&hasher, fli_f32_bits(y[i]));
    fli_hasher_final(&hasher, hash);
    CHECK_EQ_U64(fli_hash_id(hash), want[dtype - 1]);
  }
}

static void checksums_are_these(void)
{
  static const struct {
    size_t n;
    uint64_t sum;
  } rows[] = {{1, 0x4d2ff48ee00f8097},
              {4, 0x46231d1416dc7ed9},
              {5, 0x6251c7d2f85d825c},
              {64, 0x05d385776dcc0011}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t bytes[8 * 64];
    for (uint64_t k = 0; k < rows[i].n; k++) {
      uint64_t word = (k + 1) * (k + 1) * UINT64_C(0x123456789abcdef);
      memcpy(bytes + 8 * k, &word, sizeof word);
    }
    CHECK_EQ_U64(fli_row_sum(bytes, 8 * rows[i].n, 42, 7), rows[i].sum);
  }
}

int main(void)
{
  CHECK_CASE(rows_come_back_as_these_values);
  CHECK_CASE(checksums_are_these);
  return check_report();
}
