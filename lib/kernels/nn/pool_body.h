/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling (nn.h): vectors along channels; what is left behind whole vectors
 * goes float by float. Included once per instruction set. */
#ifndef FLK_NN_POOL_BODY_H
#define FLK_NN_POOL_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

typedef uint8_t nn_bytes
    __attribute__((vector_size(NN_WIDTH), aligned(1), may_alias));
typedef float nn_one __attribute__((vector_size(4), aligned(4), may_alias));
typedef int32_t nn_one_ivec
    __attribute__((vector_size(4), aligned(4), may_alias));

/* Places, from bytes and to bytes. Compilers take them apart one by one. */
#ifdef __AVX2__
static inline __m256i eight_places(const void *at)
{
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(at));
}

static inline void put_eight_places(void *at, __m256i places)
{
  __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(places),
                                   _mm256_extracti128_si256(places, 1));
  _mm_storel_epi64(at, _mm_packus_epi16(words, words));
}
#endif

#if NN_BYTES == 64
#  define PLACES(at) (nn_ivec) _mm512_cvtepu8_epi32(_mm_loadu_si128(at))
#  define PUT_PLACES(at, places) \
    _mm_storeu_si128(at, _mm512_cvtepi32_epi8((__m512i)(places)))
#elif NN_BYTES == 32
#  define PLACES(at) (nn_ivec) eight_places(at)
#  define PUT_PLACES(at, places) put_eight_places(at, (__m256i)(places))
#else
#  define PLACES(at) __builtin_convertvector(*(const nn_bytes *)(at), nn_ivec)
#  define PUT_PLACES(at, places) \
    (*(nn_bytes *)(at) = __builtin_convertvector(places, nn_bytes))
#endif
#define VEC nn_vec
#define IVEC nn_ivec
#define NAMED(name) name##_full
#include "kernels/nn/pool_rows.h"
#undef VEC
#undef IVEC
#undef PLACES
#undef PUT_PLACES
#undef NAMED

#if NN_HAS_HALF
typedef int32_t nn_half_ivec
    __attribute__((vector_size(NN_BYTES / 2), aligned(4), may_alias));
#  define VEC nn_half
#  define IVEC nn_half_ivec
#  define PLACES(at) (nn_half_ivec) eight_places(at)
#  define PUT_PLACES(at, places) put_eight_places(at, (__m256i)(places))
#  define NAMED(name) name##_half
#  include "kernels/nn/pool_rows.h"
#  undef VEC
#  undef IVEC
#  undef PLACES
#  undef PUT_PLACES
#  undef NAMED
#endif

#define VEC nn_one
#define IVEC nn_one_ivec
#define PLACES(at) ((nn_one_ivec){*(const uint8_t *)(at)})
#define PUT_PLACES(at, places) (*(uint8_t *)(at) = (uint8_t)(places)[0])
#define NAMED(name) name##_one
#include "kernels/nn/pool_rows.h"
#undef VEC
#undef IVEC
#undef PLACES
#undef PUT_PLACES
#undef NAMED

#if NN_HAS_HALF
#  define POOL_HALF(name, p, i, lane, n_taps) \
    if (lane + NN_WIDTH / 2 <= (p)->lanes) {  \
      name##_half(p, i, lane, n_taps);        \
      lane += NN_WIDTH / 2;                   \
    }
#else
#  define POOL_HALF(name, p, i, lane, n_taps)
#endif

/* All lanes of all outputs of a row. 2 x 2 is unrolled, with its four places
 * in registers: bytes that are stored could be anything that is read. */
#define POOL_ROW(name)                                           \
  static inline __attribute__((always_inline)) void name##_taps( \
      const flk_pool *p, size_t n_taps)                          \
  {                                                              \
    for (size_t i = 0; i < p->n; i++) {                          \
      size_t lane = 0;                                           \
      for (; lane + NN_WIDTH <= p->lanes; lane += NN_WIDTH) {    \
        name##_full(p, i, lane, n_taps);                         \
      }                                                          \
      POOL_HALF(name, p, i, lane, n_taps)                        \
      for (; lane < p->lanes; lane++) {                          \
        name##_one(p, i, lane, n_taps);                          \
      }                                                          \
    }                                                            \
  }                                                              \
  static void name(const flk_pool *row)                          \
  {                                                              \
    flk_pool p = *row;                                           \
    ptrdiff_t offsets[4];                                        \
    uint8_t places[4];                                           \
    if (p.n_taps != 4) {                                         \
      name##_taps(&p, p.n_taps);                                 \
      return;                                                    \
    }                                                            \
    UNROLL for (size_t t = 0; t < 4; t++)                        \
    {                                                            \
      offsets[t] = p.offsets[t];                                 \
      places[t] = p.places[t];                                   \
    }                                                            \
    p.offsets = offsets;                                         \
    p.places = places;                                           \
    name##_taps(&p, 4);                                          \
  }

POOL_ROW(max_pool)
POOL_ROW(max_pool_back)
POOL_ROW(sum_pool)
POOL_ROW(sum_pool_back)

static void fill_pools(flk_nn_table *table)
{
  table->max_pool = max_pool;
  table->max_pool_back = max_pool_back;
  table->sum_pool = sum_pool;
  table->sum_pool_back = sum_pool_back;
}

#endif
