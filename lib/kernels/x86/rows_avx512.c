/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables, 64 bytes at a time. */
#define ROWS_BYTES 64

#include "kernels/rows_body.h"
#include "kernels/x86/x86.h"

const flk_rows flk_rows_avx512 = ROWS_TABLE;
