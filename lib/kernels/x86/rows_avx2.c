/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables, 32 bytes at a time. */
#define ROWS_BYTES 32

#include "kernels/rows_body.h"
#include "kernels/x86/x86.h"

void flk_fill_rows_avx2(flk_table *table)
{
  fill_rows(table);
}
