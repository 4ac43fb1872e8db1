/* SPDX-License-Identifier: Apache-2.0 */
/* How a product of matrices is cut into the register tiles of kernels/nn; a
 * convolution's own goes by rows of images (conv_sweep.c). Cuts do not change a
 * bit, because every element is a sum of its own. */
#ifndef FLI_LINALG_TILES_H
#define FLI_LINALG_TILES_H

#include "kernels/nn/nn.h"
#include "linalg/sizes.h"

/* FLK_PANEL_*, for the next of `left` columns: together the panels have as many
 * as there are, rounded up to the narrowest. */
static inline int fli_tile_panel(const flk_nn_table *nn, size_t left)
{
  size_t half = nn->width[FLK_PANEL_HALF];
  size_t one = nn->width[FLK_PANEL_ONE];
  if (left <= half) return FLK_PANEL_HALF;
  return left <= one + half ? FLK_PANEL_ONE : FLK_PANEL_TWO;
}

/* Rows of the next tile when `left` are: as few tiles as can be, and about the
 * same for all, because short ones wait for their sums. More than rows_max are
 * a pair, where that `can_pair`, so the one odd tile there can be is not. */
static inline size_t fli_tile_rows(const flk_nn_table *nn, size_t left,
                                   int can_pair)
{
  size_t single = nn->rows_max;
  if (left <= single) return left;
  size_t most = can_pair && nn->pair_max > 0 ? 2 * nn->pair_max : single;
  size_t n =
      left <= most ? left : fli_divide_up(left, fli_divide_up(left, most));
  if (n <= single) return n;
  if (left % 2 == 0) return n + n % 2;
  return left - single > 2 ? single : single - 2;
}

/* A tile of n rows from a[0] and c[0] on: 1..rows_max, or a pair's. */
static inline void fli_tile_run(const flk_nn_table *nn, flk_tile *tile,
                                size_t n, int panel)
{
  if (n <= nn->rows_max) {
    nn->tile(tile, n, panel);
    return;
  }
  tile->a[1] = tile->a[0] + (ptrdiff_t)(n / 2) * tile->a_row;
  tile->c[1] = tile->c[0] + (ptrdiff_t)(n / 2) * tile->c_row;
  nn->tile_pair(tile, n / 2, panel);
}

#endif
