/* SPDX-License-Identifier: Apache-2.0 */
/* The vector type of an instruction set's file: NN_BYTES wide, at any address
 * that a float may have. */
#ifndef FLK_NN_VEC_H
#define FLK_NN_VEC_H

#include <stdint.h>

enum { NN_WIDTH = NN_BYTES / sizeof(float) };

typedef float nn_vec
    __attribute__((vector_size(NN_BYTES), aligned(4), may_alias));
typedef int32_t nn_ivec
    __attribute__((vector_size(NN_BYTES), aligned(4), may_alias));
#if NN_HAS_HALF
typedef float nn_half
    __attribute__((vector_size(NN_BYTES / 2), aligned(4), may_alias));
#endif

#endif
