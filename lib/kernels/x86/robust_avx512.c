/* SPDX-License-Identifier: Apache-2.0 */
/* Combining updates, 64 bytes at a time. */
#define ROBUST_ROWS 4
#define ROBUST_COLUMNS 4

#include "kernels/robust_body.h"
#include "kernels/x86/x86.h"

const flk_robust flk_robust_avx512 = ROBUST_TABLE;
