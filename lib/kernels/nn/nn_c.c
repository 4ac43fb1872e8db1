/* SPDX-License-Identifier: Apache-2.0 */
/* The training engine's kernels for one instruction set; meson.build has its
 * flags. */
#define NN_BYTES 16
#define NN_REGISTERS 16
#define NN_HAS_HALF 0

#include "kernels/nn/activation_body.h"
#include "kernels/nn/dropout_body.h"
#include "kernels/nn/norm_body.h"
#include "kernels/nn/optimiser_body.h"
#include "kernels/nn/softmax_body.h"
#include "kernels/nn/tables.h"
#include "kernels/nn/tile_body.h"
#include "kernels/nn/vector_body.h"

void flk_nn_fill_c(flk_nn_table *table)
{
  *table = (flk_nn_table){.name = "c"};
  fill_tiles(table);
  fill_activations(table);
  fill_vectors(table);
  fill_softmax(table);
  fill_norms(table);
  fill_dropout(table);
  fill_optimisers(table);
}
