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
typedef uint8_t nn_byte __attribute__((vector_size(1), aligned(1), may_alias));

#define VEC nn_vec
#define IVEC nn_ivec
#define BYTES nn_bytes
#define NAMED(name) name##_full
#include "kernels/nn/pool_rows.h"
#undef VEC
#undef IVEC
#undef BYTES
#undef NAMED

#if NN_HAS_HALF
typedef int32_t nn_half_ivec
    __attribute__((vector_size(NN_BYTES / 2), aligned(4), may_alias));
typedef uint8_t nn_half_bytes
    __attribute__((vector_size(NN_WIDTH / 2), aligned(1), may_alias));
#  define VEC nn_half
#  define IVEC nn_half_ivec
#  define BYTES nn_half_bytes
#  define NAMED(name) name##_half
#  include "kernels/nn/pool_rows.h"
#  undef VEC
#  undef IVEC
#  undef BYTES
#  undef NAMED
#endif

#define VEC nn_one
#define IVEC nn_one_ivec
#define BYTES nn_byte
#define NAMED(name) name##_one
#include "kernels/nn/pool_rows.h"
#undef VEC
#undef IVEC
#undef BYTES
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

/* All lanes of all outputs of a row; 2 x 2 is unrolled. */
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
  static void name(const flk_pool *p)                            \
  {                                                              \
    if (p->n_taps == 4) {                                        \
      name##_taps(p, 4);                                         \
    } else {                                                     \
      name##_taps(p, p->n_taps);                                 \
    }                                                            \
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
