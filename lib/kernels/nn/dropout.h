/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout (dropout_body.h). Whether an element stays is a hash of (seed, step,
 * node, element) in integers: the same on every machine, however a layer is
 * cut into ranges. */
#ifndef FLK_NN_DROPOUT_H
#define FLK_NN_DROPOUT_H

#include <stddef.h>
#include <stdint.h>

/* One layer's dropout in one step. */
typedef struct flk_dropout {
  uint32_t key[2];
  uint32_t threshold; /* elements with a hash below it are dropped */
  float factor;       /* of those that stay: 1 / (1 - p) */
} flk_dropout;

/* p: 0..1, not 1. step < 2^48. */
void flk_dropout_init(flk_dropout *dropout, uint64_t seed, uint64_t step,
                      uint32_t node, float p);

typedef struct flk_dropout_kernels {
  /* y[i] = factor x[i] where element first + i stays, else 0 (whatever x[i]
   * is); y may be x. Bit i % 8 of mask[i / 8] says whether it stays; bits
   * behind the last one are 0. Elements of a layer are fewer than 2^32. */
  void (*forward)(float *y, const float *x, uint8_t *mask, size_t n,
                  uint32_t first, const flk_dropout *dropout);
  /* dx = factor dy where the mask's bit is set, else 0; dx may be dy. */
  void (*backward)(float *dx, const float *dy, const uint8_t *mask, size_t n,
                   float factor);
} flk_dropout_kernels;

#endif
