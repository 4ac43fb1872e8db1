/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile of nn.h, for files that have defined NN_BYTES (of a vector
 * register), NN_REGISTERS (16 or 32) and NN_HAS_HALF (panels of half a vector
 * too). Included once per instruction set. A tile of R rows and V vectors keeps
 * R x V sums, V vectors of B and one value of A in registers. Sizes are
 * constants of each instance: all but the loop over the depth is unrolled. */
#ifndef FLK_NN_TILE_BODY_H
#define FLK_NN_TILE_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

#define VEC nn_vec
#define NAMED(name) name##_full
#define LOAD_SOME vec_load_some
#define STORE_SOME vec_store_some
#include "kernels/nn/tile_rows.h"
#undef VEC
#undef NAMED
#undef LOAD_SOME
#undef STORE_SOME

#if NN_HAS_HALF
#  define VEC nn_half
#  define NAMED(name) name##_half
#  define LOAD_SOME half_load_some
#  define STORE_SOME half_store_some
#  include "kernels/nn/tile_rows.h"
#  undef VEC
#  undef NAMED
#  undef LOAD_SOME
#  undef STORE_SOME
#endif

static void tile(const flk_tile *t, size_t n_rows, int panel)
{
  switch (panel) {
  case FLK_PANEL_TWO: tile_rows_full(t, n_rows, 2); break;
  case FLK_PANEL_ONE: tile_rows_full(t, n_rows, 1); break;
#if NN_HAS_HALF
  case FLK_PANEL_HALF: tile_rows_half(t, n_rows, 1); break;
#endif
  }
}

#if NN_REGISTERS == 32
static void tile_pair(const flk_tile *t, size_t n_rows, int panel)
{
  switch (panel) {
  case FLK_PANEL_TWO: tile_pairs_full(t, n_rows, 2); break;
  case FLK_PANEL_ONE: tile_pairs_full(t, n_rows, 1); break;
#  if NN_HAS_HALF
  case FLK_PANEL_HALF: tile_pairs_half(t, n_rows, 1); break;
#  endif
  }
}
#endif

static void fill_tiles(flk_nn_table *table)
{
  table->width[FLK_PANEL_HALF] = NN_HAS_HALF ? NN_WIDTH / 2 : 0;
  table->width[FLK_PANEL_ONE] = NN_WIDTH;
  table->width[FLK_PANEL_TWO] = 2 * NN_WIDTH;
  table->rows_max = NN_REGISTERS == 32 ? 7 : 6;
  table->tile = tile;
#if NN_REGISTERS == 32
  table->pair_min = 4;
  table->pair_max = 7;
  table->tile_pair = tile_pair;
#endif
}

#endif
