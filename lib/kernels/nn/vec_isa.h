/* SPDX-License-Identifier: Apache-2.0 */
/* What the compilers' vector extension has no operator for, for the bodies of
 * nn_<isa>.c: parts of a vector, the lesser and greater of two, square roots,
 * sums over lanes, masks as bits. Where an instruction set has an instruction
 * for it, that one; else plain loops. */
#ifndef FLK_NN_VEC_ISA_H
#define FLK_NN_VEC_ISA_H

#include <string.h>

#include "kernels/nn/vec.h"

#if defined(__SSE2__)
#  include <immintrin.h>
#elif defined(__aarch64__)
#  include <arm_neon.h>
#endif

#define NN_INLINE static inline __attribute__((always_inline))

typedef uint32_t nn_uvec
    __attribute__((vector_size(NN_BYTES), aligned(4), may_alias));

NN_INLINE nn_vec vec_of(float value)
{
  return value - (nn_vec){0};
}

/* 0, 1, 2, ... */
NN_INLINE nn_ivec vec_lanes(void)
{
  static const int32_t lanes[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                    8, 9, 10, 11, 12, 13, 14, 15};
  return *(const nn_ivec *)lanes;
}

/* The lanes below `count`, all bits. */
NN_INLINE nn_ivec vec_first(size_t count)
{
  return vec_lanes() < (int32_t)count - (nn_ivec){0};
}

/* where the mask (all bits or none) is set a, else b */
NN_INLINE nn_vec vec_select(nn_ivec mask, nn_vec a, nn_vec b)
{
#if NN_BYTES == 64
  return (nn_vec)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask),
                                      (__m512)b, (__m512)a);
#elif NN_BYTES == 32
  return (nn_vec)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
  return (nn_vec)((mask & (nn_ivec)a) | (~mask & (nn_ivec)b));
#endif
}

/* The lesser of the two; b where one of them is NaN. */
NN_INLINE nn_vec vec_min(nn_vec a, nn_vec b)
{
#if NN_BYTES == 64
  return (nn_vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif NN_BYTES == 32
  return (nn_vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (nn_vec)_mm_min_ps((__m128)a, (__m128)b);
#else
  return vec_select(a < b, a, b);
#endif
}

NN_INLINE nn_vec vec_max(nn_vec a, nn_vec b)
{
#if NN_BYTES == 64
  return (nn_vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif NN_BYTES == 32
  return (nn_vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (nn_vec)_mm_max_ps((__m128)a, (__m128)b);
#else
  return vec_select(a > b, a, b);
#endif
}

/* NaN in x stays; `bound` is none. */
NN_INLINE nn_vec vec_at_most(nn_vec x, float bound)
{
  return vec_min(vec_of(bound), x);
}

NN_INLINE nn_vec vec_at_least(nn_vec x, float bound)
{
  return vec_max(vec_of(bound), x);
}

NN_INLINE nn_vec vec_abs(nn_vec x)
{
  return (nn_vec)((nn_ivec)x & INT32_MAX);
}

NN_INLINE nn_vec vec_sqrt(nn_vec x)
{
#if NN_BYTES == 64
  return (nn_vec)_mm512_sqrt_ps((__m512)x);
#elif NN_BYTES == 32
  return (nn_vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (nn_vec)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
  return (nn_vec)vsqrtq_f32((float32x4_t)x);
#else
  for (size_t i = 0; i < NN_WIDTH; i++) {
    x[i] = __builtin_sqrtf(x[i]);
  }
  return x;
#endif
}

NN_INLINE float scalar_sqrt(float x)
{
#if defined(__SSE2__)
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
  return vec_sqrt(vec_of(x))[0];
#endif
}

/* ---- whole vectors (count >= NN_WIDTH) or the first lanes of one ---- */

NN_INLINE nn_vec vec_get(const float *src, size_t count)
{
  if (count >= NN_WIDTH) return *(const nn_vec *)src;
  return vec_load_some(src, count);
}

/* `fill` behind the part. */
NN_INLINE nn_vec vec_get_or(const float *src, size_t count, float fill)
{
  if (count >= NN_WIDTH) return *(const nn_vec *)src;
  return vec_select(vec_first(count), vec_load_some(src, count), vec_of(fill));
}

/* x, 0 behind the part. */
NN_INLINE nn_vec vec_keep(nn_vec x, size_t count)
{
  if (count >= NN_WIDTH) return x;
  return (nn_vec)(vec_first(count) & (nn_ivec)x);
}

NN_INLINE void vec_put(float *dst, nn_vec x, size_t count)
{
  if (count >= NN_WIDTH) {
    *(nn_vec *)dst = x;
  } else {
    vec_store_some(dst, x, count);
  }
}

/* Do `step`, a call with the arguments `at` and `count`, for every vector of n
 * floats: count is the constant NN_WIDTH, and last what is left, if any. */
#define NN_EACH(n, step)                           \
  do {                                             \
    size_t at = 0;                                 \
    for (; at + NN_WIDTH <= (n); at += NN_WIDTH) { \
      enum { count = NN_WIDTH };                   \
      step;                                        \
    }                                              \
    if (at < (n)) {                                \
      const size_t count = (n)-at;                 \
      step;                                        \
    }                                              \
  } while (0)

/* ---- over the lanes ---- */

NN_INLINE float vec_sum(nn_vec x)
{
#if NN_BYTES == 64
  return _mm512_reduce_add_ps((__m512)x);
#else
#  if NN_BYTES == 32
  __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)x),
                           _mm256_extractf128_ps((__m256)x, 1));
#  else
  nn_vec four = x;
#  endif
  return (four[0] + four[2]) + (four[1] + four[3]);
#endif
}

/* A NaN may or may not be seen. */
NN_INLINE float vec_greatest(nn_vec x)
{
#if NN_BYTES == 64
  return _mm512_reduce_max_ps((__m512)x);
#else
#  if NN_BYTES == 32
  __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)x),
                           _mm256_extractf128_ps((__m256)x, 1));
#  else
  nn_vec four = x;
#  endif
  float a = four[0] > four[2] ? four[0] : four[2];
  float b = four[1] > four[3] ? four[1] : four[3];
  return a > b ? a : b;
#endif
}

/* ---- masks as bits: bit i is lane i ---- */

NN_INLINE uint32_t vec_bits(nn_ivec mask)
{
#if NN_BYTES == 64
  return _mm512_movepi32_mask((__m512i)mask);
#elif NN_BYTES == 32
  return (uint32_t)_mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
  return (uint32_t)_mm_movemask_ps((__m128)mask);
#else
  nn_ivec weighted = mask & (nn_ivec){1, 2, 4, 8};
  return (uint32_t)(weighted[0] | weighted[1] | weighted[2] | weighted[3]);
#endif
}

/* Bits behind the vector are not looked at. */
NN_INLINE nn_ivec vec_mask(uint32_t bits)
{
  static const int32_t lane_bits[16] = {1,    2,    4,     8,    16,   32,
                                        64,   128,  256,   512,  1024, 2048,
                                        4096, 8192, 16384, 32768};
  return (((int32_t)bits - (nn_ivec){0}) & *(const nn_ivec *)lane_bits) != 0;
}

#endif
