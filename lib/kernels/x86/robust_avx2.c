/* SPDX-License-Identifier: Apache-2.0 */
/* Combining updates, 32 bytes at a time. */
#define ROBUST_ROWS 2
#define ROBUST_COLUMNS 2

#include "kernels/robust_body.h"
#include "kernels/x86/x86.h"

const flk_robust flk_robust_avx2 = ROBUST_TABLE;
