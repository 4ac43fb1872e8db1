/* SPDX-License-Identifier: Apache-2.0 */
/* The training engine's kernels for one instruction set; meson.build has its
 * flags. */
#define NN_BYTES 16
#define NN_REGISTERS 16
#define NN_HAS_HALF 0

#include "kernels/nn/tables.h"
#include "kernels/nn/tile_body.h"
#include "kernels/nn/conv_body.h"
#include "kernels/nn/pool_body.h"

void flk_nn_fill_c(flk_nn_table *table)
{
  *table = (flk_nn_table){.name = "c"};
  fill_tiles(table);
  fill_convolutions(table);
  fill_pools(table);
}
