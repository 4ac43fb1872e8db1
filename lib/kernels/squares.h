/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of squares of blocks that lie side by side, for files that have defined
 * `squares` (16 sums in double) with squares_zero, squares_add (a line) and
 * squares_fold. Blocks are read all at once, in the order of addresses: one by
 * one, each line would come from another page. */
#ifndef FLK_SQUARES_H
#define FLK_SQUARES_H

#include "kernels/kernels.h"

enum {
  SQUARED_ROWS = 4, /* lines of a block that are added in registers */
  SQUARED_AHEAD = 16
};

static void sum_squares_group(double *sums, const float *src,
                              const flk_lines *lines)
{
  squares all[FLK_NEIGHBOURS_MAX];
  for (size_t b = 0; b < lines->count; b++)
    all[b] = squares_zero();
  for (size_t j = 0; j < lines->n / FLK_LINE; j += SQUARED_ROWS) {
    const float *row = src + j * lines->stride;
    /* Perhaps behind the vector: a hint, which reads nothing there. */
    uintptr_t ahead =
        (uintptr_t)row + SQUARED_AHEAD * lines->stride * sizeof *src;
    for (size_t b = 0; b < lines->count; b++) {
      squares one = all[b];
      FLI_UNROLL(4)
      for (size_t r = 0; r < SQUARED_ROWS; r++) {
        PREFETCH_FAR(ahead);
        ahead += FLK_LINE * sizeof *src;
        squares_add(&one, row + r * lines->stride + b * FLK_LINE);
      }
      all[b] = one;
    }
  }
  for (size_t b = 0; b < lines->count; b++)
    sums[b] = squares_fold(&all[b]);
}

#endif
