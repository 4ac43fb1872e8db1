/* SPDX-License-Identifier: Apache-2.0 */
/* The vector type of an instruction set's file: NN_BYTES wide, at any address
 * that a float may have. */
#ifndef FLK_NN_VEC_H
#define FLK_NN_VEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __AVX__
#  include <immintrin.h>
#endif

/* Before a loop over registers: it has to go away whole. */
#ifdef __clang__
#  define UNROLL _Pragma("clang loop unroll(full)")
#else
#  define UNROLL _Pragma("GCC unroll 16")
#endif

enum { NN_WIDTH = NN_BYTES / sizeof(float) };

typedef float nn_vec
    __attribute__((vector_size(NN_BYTES), aligned(4), may_alias));
typedef int32_t nn_ivec
    __attribute__((vector_size(NN_BYTES), aligned(4), may_alias));
#if NN_HAS_HALF
typedef float nn_half
    __attribute__((vector_size(NN_BYTES / 2), aligned(4), may_alias));
#endif

/* The first `n` lanes, 0..NN_WIDTH; nothing behind them is touched. A load's
 * other lanes are 0. */
#ifdef __AVX512F__
static inline nn_vec vec_load_some(const float *at, size_t n)
{
  return (nn_vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), at);
}

static inline void vec_store_some(float *at, nn_vec value, size_t n)
{
  _mm512_mask_storeu_ps(at, (__mmask16)((1u << n) - 1u), (__m512)value);
}

static inline nn_half half_load_some(const float *at, size_t n)
{
  return (nn_half)_mm256_maskz_loadu_ps((__mmask8)((1u << n) - 1u), at);
}

static inline void half_store_some(float *at, nn_half value, size_t n)
{
  _mm256_mask_storeu_ps(at, (__mmask8)((1u << n) - 1u), (__m256)value);
}
#elif defined(__AVX2__)
#  include <immintrin.h>
static inline nn_vec vec_load_some(const float *at, size_t n)
{
  static const int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  const void *mask = masks + NN_WIDTH - n;
  return (nn_vec)_mm256_maskload_ps(at, _mm256_loadu_si256(mask));
}

/* A masked store takes some processors dozens of cycles. */
static inline void vec_store_some(float *at, nn_vec value, size_t n)
{
  if (n == NN_WIDTH) {
    *(nn_vec *)at = value;
    return;
  }
  __m128 four = _mm256_castps256_ps128((__m256)value);
  if (n & 4) {
    _mm_storeu_ps(at, four);
    four = _mm256_extractf128_ps((__m256)value, 1);
    at += 4;
  }
  if (n & 2) {
    _mm_storel_pi((void *)at, four);
    four = _mm_movehl_ps(four, four);
    at += 2;
  }
  if (n & 1) _mm_store_ss(at, four);
}
#else
static inline nn_vec vec_load_some(const float *at, size_t n)
{
  if (n == NN_WIDTH) return *(const nn_vec *)at;
  /* By way of registers: a load has to wait for several stores. */
  if (n == 3) return (nn_vec){at[0], at[1], at[2]};
  if (n == 2) return (nn_vec){at[0], at[1]};
  return n == 1 ? (nn_vec){at[0]} : (nn_vec){0};
}

static inline void vec_store_some(float *at, nn_vec value, size_t n)
{
  if (n == NN_WIDTH) {
    *(nn_vec *)at = value;
    return;
  }
  if (n > 0) at[0] = value[0];
  if (n > 1) at[1] = value[1];
  if (n > 2) at[2] = value[2];
}
#endif

#endif
