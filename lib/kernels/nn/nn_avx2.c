/* SPDX-License-Identifier: Apache-2.0 */
/* The training engine's kernels for one instruction set; meson.build has its
 * flags. */
#define NN_NAME "avx2"
#define NN_BYTES 32
#define NN_REGISTERS 16
#define NN_HAS_HALF 0

#include "kernels/nn/table_body.h"
#include "kernels/nn/tables.h"

void flk_nn_fill_avx2(flk_nn_table *table)
{
  fill_table(table);
}
