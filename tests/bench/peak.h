/* SPDX-License-Identifier: Apache-2.0 */
/* What a core can multiply and add in a second: the roof that benchmarks put
 * their figures under. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <stddef.h>
#include <string.h>

#include "base/compiler.h"

#ifdef __x86_64__
#  include <immintrin.h>
#endif

enum { PEAK_CHAINS = 12, PEAK_STEPS = 20000 };

/* Independent chains of multiply-add in the registers of an ISA; the number
 * of floats in one. The sum keeps them from being left out. */
static volatile float peak_sink;

static inline size_t peak_chains_c(void)
{
  enum { LANES = 4 };
  typedef float vec __attribute__((vector_size(16)));
  vec sums[PEAK_CHAINS] = {{0}}, factor = {0}, term = {0};
  factor += 0.999f;
  term += 0.001f;
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    sums[i] += (float)i;
  }
  for (size_t s = 0; s < PEAK_STEPS; s++) {
    FLI_UNROLL(16)
    for (size_t i = 0; i < PEAK_CHAINS; i++) {
      sums[i] = sums[i] * factor + term;
    }
  }
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    peak_sink += sums[i][0];
  }
  return LANES;
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static inline size_t peak_chains_avx2(void)
{
  enum { LANES = 8 };
  __m256 sums[PEAK_CHAINS], factor = _mm256_set1_ps(0.999f);
  __m256 term = _mm256_set1_ps(0.001f);
  FLI_UNROLL(16)
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    sums[i] = _mm256_set1_ps((float)i);
  }
  for (size_t s = 0; s < PEAK_STEPS; s++) {
    FLI_UNROLL(16)
    for (size_t i = 0; i < PEAK_CHAINS; i++) {
      sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
    }
  }
  FLI_UNROLL(16)
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    peak_sink += _mm256_cvtss_f32(sums[i]);
  }
  return LANES;
}

__attribute__((target("avx512f"))) static inline size_t peak_chains_avx512(void)
{
  enum { LANES = 16 };
  __m512 sums[PEAK_CHAINS], factor = _mm512_set1_ps(0.999f);
  __m512 term = _mm512_set1_ps(0.001f);
  FLI_UNROLL(16)
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    sums[i] = _mm512_set1_ps((float)i);
  }
  for (size_t s = 0; s < PEAK_STEPS; s++) {
    FLI_UNROLL(16)
    for (size_t i = 0; i < PEAK_CHAINS; i++) {
      sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
    }
  }
  FLI_UNROLL(16)
  for (size_t i = 0; i < PEAK_CHAINS; i++) {
    peak_sink += _mm512_cvtss_f32(sums[i]);
  }
  return LANES;
}
#endif

/* GFLOP/s of an instruction set by the caller's clock, in seconds. */
static inline double peak_gflops(const char *isa, double (*now)(void))
{
  size_t (*chains)(void) = peak_chains_c;
#ifdef __x86_64__
  if (strcmp(isa, "avx2") == 0) chains = peak_chains_avx2;
  if (strcmp(isa, "avx512") == 0) chains = peak_chains_avx512;
#endif
  double begin = now();
  size_t lanes = chains();
  return 2e-9 * PEAK_CHAINS * PEAK_STEPS * (double)lanes / (now() - begin);
}

#endif
