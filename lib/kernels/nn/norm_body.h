/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of norm.h; included once per instruction set. */
#ifndef FLK_NN_NORM_BODY_H
#define FLK_NN_NORM_BODY_H

#include "kernels/nn/group_norm_body.h"
#include "kernels/nn/layer_norm_body.h"

static void fill_norms(flk_nn_table *table)
{
  table->norm = (flk_norm_kernels){.layer = layer_norm,
                                   .layer_back = layer_norm_back,
                                   .group = group_norm,
                                   .group_back = group_norm_back};
}

#endif
