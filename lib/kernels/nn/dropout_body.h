/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of dropout.h; included once per instruction set. The hash is the
 * finaliser of MurmurHash3 (Appleby, 2011, public domain), done twice with a
 * word of the key each time. */
#ifndef FLK_NN_DROPOUT_BODY_H
#define FLK_NN_DROPOUT_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_wide.h"

enum { MASK_RUN = 16, MASK_VECTORS = MASK_RUN / NN_WIDTH };

NN_INLINE nn_uvec mix(nn_uvec h)
{
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

NN_INLINE nn_ivec stays(uint32_t first, const flk_dropout *dropout)
{
  nn_uvec element = (nn_uvec)vec_lanes() + first;
  nn_uvec h = mix(mix(element + dropout->key[0]) ^ dropout->key[1]);
  return h >= dropout->threshold - (nn_uvec){0};
}

/* Up to MASK_RUN elements; the bits of those that stay. */
NN_INLINE uint32_t drop_run(float *y, const float *x, size_t n, uint32_t first,
                            const flk_dropout *dropout)
{
  uint32_t bits = 0;
  UNROLL for (size_t v = 0; v < MASK_VECTORS; v++)
  {
    size_t at = v * NN_WIDTH;
    if (at >= n) break;
    nn_ivec mask = stays(first + (uint32_t)at, dropout);
    nn_vec kept = vec_get(x + at, n - at) * dropout->factor;
    vec_put(y + at, (nn_vec)(mask & (nn_ivec)kept), n - at);
    bits |= vec_bits(mask) << at;
  }
  return bits;
}

static void dropout_forward(float *y, const float *x, uint8_t *mask, size_t n,
                            uint32_t first, const flk_dropout *given)
{
  const flk_dropout dropout = *given;
  size_t at = 0;
  for (; at + MASK_RUN <= n; at += MASK_RUN) {
    uint32_t bits =
        drop_run(y + at, x + at, MASK_RUN, first + (uint32_t)at, &dropout);
    mask[at / 8] = (uint8_t)bits;
    mask[at / 8 + 1] = (uint8_t)(bits >> 8);
  }
  if (at == n) return;
  uint32_t bits =
      drop_run(y + at, x + at, n - at, first + (uint32_t)at, &dropout);
  bits &= (1u << (n - at)) - 1;
  mask[at / 8] = (uint8_t)bits;
  if (n - at > 8) mask[at / 8 + 1] = (uint8_t)(bits >> 8);
}

static void dropout_backward(float *dx, const float *dy, const uint8_t *mask,
                             size_t n, float factor)
{
  for (size_t at = 0; at < n; at += NN_WIDTH) {
    size_t count = n - at;
    uint32_t bits = (uint32_t)mask[at / 8] >> at % 8;
    if (NN_WIDTH == 16 && count > 8) bits |= (uint32_t)mask[at / 8 + 1] << 8;
    nn_vec kept = vec_get(dy + at, count) * factor;
    vec_put(dx + at, (nn_vec)(vec_mask(bits) & (nn_ivec)kept), count);
  }
}

static void fill_dropout(flk_nn_table *table)
{
  table->dropout = (flk_dropout_kernels){.forward = dropout_forward,
                                         .backward = dropout_backward};
}

#endif
