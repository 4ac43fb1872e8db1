/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables, 32 bytes at a time. */
#define ROWS_BYTES 32

#include "kernels/rows_body.h"
#include "kernels/x86/x86.h"

const flk_rows flk_rows_avx2 = ROWS_TABLE;
