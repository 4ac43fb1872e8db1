/* SPDX-License-Identifier: Apache-2.0 */
/* What nn.c collects: one function per instruction set's file. */
#ifndef FLK_NN_TABLES_H
#define FLK_NN_TABLES_H

#include "kernels/nn/nn.h"

void flk_nn_fill_c(flk_nn_table *table);
void flk_nn_fill_avx2(flk_nn_table *table);
void flk_nn_fill_avx512(flk_nn_table *table);
void flk_nn_fill_neon(flk_nn_table *table);

#endif
