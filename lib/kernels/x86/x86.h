/* SPDX-License-Identifier: Apache-2.0 */
/* What the files for x86_64 replace in a table, and whether this machine and
 * its system can run them. */
#ifndef FLK_X86_X86_H
#define FLK_X86_X86_H

#include "kernels/kernels.h"
#include "kernels/robust.h"
#include "kernels/rows.h"

/* AVX2, FMA; AVX-512 F, BW, DQ, VL. */
int flk_has_avx2(void);
int flk_has_avx512(void);

void flk_fill_avx2(flk_table *table);
void flk_fill_avx512(flk_table *table);
void flk_fill_sums_avx2(flk_table *table);
void flk_fill_sums_avx512(flk_table *table);
void flk_fill_fold_avx2(flk_table *table);
void flk_fill_fold_avx512(flk_table *table);
extern const flk_robust flk_robust_avx2;
extern const flk_robust flk_robust_avx512;
extern const flk_rows flk_rows_avx2;
extern const flk_rows flk_rows_avx512;

#endif
