/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011, section 3.3). The key is
 * the seed; the counter is the stream's name and, in its first word, the number
 * of the block: counter = {block, b, a mod 2^32, a / 2^32 + purpose * 2^16}.
 * A stream has 2^34 words. */
#include "base/rng.h"

#include <assert.h>

enum { PHILOX_ROUNDS = 10, PHILOX_WORDS = 4 };

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

static void philox_block(uint32_t out[PHILOX_WORDS],
                         const uint32_t counter[PHILOX_WORDS],
                         const uint32_t key[2])
{
  uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    uint64_t p0 = (uint64_t)PHILOX_M0 * x0;
    uint64_t p1 = (uint64_t)PHILOX_M1 * x2;
    x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
    x1 = (uint32_t)p1;
    x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
    x3 = (uint32_t)p0;
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

void fli_rng_init(fli_rng *rng, uint64_t seed, uint32_t purpose, uint64_t a,
                  uint32_t b)
{
  assert(purpose < 1u << 16);
  assert(a < (uint64_t)1 << 48);
  rng->key[0] = (uint32_t)seed;
  rng->key[1] = (uint32_t)(seed >> 32);
  rng->counter[0] = 0;
  rng->counter[1] = b;
  rng->counter[2] = (uint32_t)a;
  rng->counter[3] = (uint32_t)(a >> 32) | purpose << 16;
  rng->used = PHILOX_WORDS;
}

uint32_t fli_rng_u32(fli_rng *rng)
{
  if (rng->used == PHILOX_WORDS) {
    philox_block(rng->out, rng->counter, rng->key);
    rng->counter[0]++;
    rng->used = 0;
  }
  return rng->out[rng->used++];
}

uint64_t fli_rng_u64(fli_rng *rng)
{
  uint64_t low = fli_rng_u32(rng);
  return low | (uint64_t)fli_rng_u32(rng) << 32;
}

/* Lemire, "Fast random integer generation in an interval" (2019), alg. 5. */
uint32_t fli_rng_below(fli_rng *rng, uint32_t bound)
{
  assert(bound >= 1);
  uint64_t product = (uint64_t)fli_rng_u32(rng) * bound;
  if ((uint32_t)product < bound) {
    uint32_t threshold = (uint32_t)(0u - bound) % bound;
    while ((uint32_t)product < threshold) {
      product = (uint64_t)fli_rng_u32(rng) * bound;
    }
  }
  return (uint32_t)(product >> 32);
}

float fli_rng_f32(fli_rng *rng)
{
  return (float)(fli_rng_u32(rng) >> 8) * 0x1p-24f;
}

double fli_rng_f64(fli_rng *rng)
{
  return (double)(fli_rng_u64(rng) >> 11) * 0x1p-53;
}

void fli_rng_shuffle(fli_rng *rng, uint32_t *items, uint32_t n)
{
  for (uint32_t left = n; left > 1; left--) {
    uint32_t pick = fli_rng_below(rng, left);
    uint32_t item = items[pick];
    items[pick] = items[left - 1];
    items[left - 1] = item;
  }
}
