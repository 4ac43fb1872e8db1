/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for combining updates as every machine runs them, and which version
 * this machine runs. */
#include "kernels/robust.h"

#include "kernels/once.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif

/* Of 16 registers of 16 bytes, or 32 (NEON). */
#define ROBUST_ROWS 1
#define ROBUST_COLUMNS 2
#include "kernels/robust_body.h"

enum { TABLES_MAX = 3 };

static flk_robust tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state;

static void fill(void)
{
  tables[n_tables++] = (flk_robust)ROBUST_TABLE;
#ifdef FLK_HAVE_AVX2
  if (!flk_has_avx2()) return;
  tables[n_tables++] = flk_robust_avx2;
  if (!flk_has_avx512()) return;
  tables[n_tables++] = flk_robust_avx512;
#endif
}

const flk_robust *flk_robust_kernels(void)
{
  flk_once(&state, fill);
  return &tables[n_tables - 1];
}

const flk_robust *flk_robust_at(size_t index)
{
  flk_once(&state, fill);
  return index < n_tables ? &tables[index] : NULL;
}
