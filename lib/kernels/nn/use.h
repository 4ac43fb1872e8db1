/* SPDX-License-Identifier: Apache-2.0 */
/* How nn_all.c makes nn.c give another table. */
#ifndef FLK_NN_USE_H
#define FLK_NN_USE_H

#include "kernels/nn/nn.h"

/* NULL: the best one again. */
void flk_nn_use(const flk_nn_table *table);

#endif
