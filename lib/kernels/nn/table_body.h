/* SPDX-License-Identifier: Apache-2.0 */
/* All families of kernels in one table, for files that have defined NN_NAME,
 * and what vec.h and tile_body.h want. */
#ifndef FLK_NN_TABLE_BODY_H
#define FLK_NN_TABLE_BODY_H

#include "kernels/nn/activation_body.h"
#include "kernels/nn/attention_body.h"
#include "kernels/nn/conv_body.h"
#include "kernels/nn/dropout_body.h"
#include "kernels/nn/few_body.h"
#include "kernels/nn/norm_body.h"
#include "kernels/nn/optimiser_body.h"
#include "kernels/nn/pack_body.h"
#include "kernels/nn/pool_body.h"
#include "kernels/nn/softmax_body.h"
#include "kernels/nn/tile_body.h"
#include "kernels/nn/vector_body.h"
#include "kernels/nn/winograd_body.h"

static void fill_table(flk_nn_table *table)
{
  *table = (flk_nn_table){.name = NN_NAME};
  fill_activations(table);
  fill_attention(table);
  fill_convolutions(table);
  fill_dropout(table);
  fill_few(table);
  fill_norms(table);
  fill_optimisers(table);
  fill_pack(table);
  fill_pools(table);
  fill_softmax(table);
  fill_tiles(table);
  fill_vectors(table);
  fill_winograd(table);
}

#endif
