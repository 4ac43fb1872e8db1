/* SPDX-License-Identifier: Apache-2.0 */
/* The training engine's kernels for one instruction set; meson.build has its
 * flags. */
#define NN_NAME "c"
#define NN_BYTES 16
#define NN_REGISTERS 16
#define NN_HAS_HALF 0

#include "kernels/nn/table_body.h"
#include "kernels/nn/tables.h"

void flk_nn_fill_c(flk_nn_table *table)
{
  fill_table(table);
}
