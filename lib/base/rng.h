/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A stream is named by (seed, purpose,
 * a, b): same name, same numbers, on every machine. D0. Not for secrets. */
#ifndef FLI_RNG_H
#define FLI_RNG_H

#include <stdint.h>

enum {
  FLI_RNG_INIT_WEIGHTS = 1, /* a = tensor */
  FLI_RNG_SHUFFLE = 2,      /* a = epoch */
  FLI_RNG_SELECT = 3,       /* a = round, b = attempt */
  FLI_RNG_CLIENT_SEED = 4,  /* a = round, b = hash of the client's id */
  FLI_RNG_DROPOUT = 5,      /* a = step, b = node */
  FLI_RNG_COHORT = 6,       /* a = round, b = cohort */
  FLI_RNG_SPARSE = 9,       /* a = layout, b = table */
  FLI_RNG_SKETCH = 12,
  FLI_RNG_BACKOFF = 17, /* a = round, b = hash of the client's id */
  FLI_RNG_TEST = 100
};

typedef struct fli_rng {
  uint32_t key[2];
  uint32_t counter[4];
  uint32_t out[4];
  uint32_t used; /* words of `out` already given away */
} fli_rng;

/* purpose < 2^16, a < 2^48 are kept whole; b is 32 bits. */
void fli_rng_init(fli_rng *rng, uint64_t seed, uint32_t purpose, uint64_t a,
                  uint32_t b);
uint32_t fli_rng_u32(fli_rng *rng);
uint64_t fli_rng_u64(fli_rng *rng);
/* Uniform in 0..bound-1 without bias; bound >= 1. */
uint32_t fli_rng_below(fli_rng *rng, uint32_t bound);
/* Uniform in [0, 1), 24 / 53 bits. */
float fli_rng_f32(fli_rng *rng);
double fli_rng_f64(fli_rng *rng);
/* Fisher-Yates over n indices. */
void fli_rng_shuffle(fli_rng *rng, uint32_t *items, uint32_t n);

#endif
