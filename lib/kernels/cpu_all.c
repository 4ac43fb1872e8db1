/* SPDX-License-Identifier: Apache-2.0 */
/* All tables that this machine can run, for tests and benchmarks. */
#include "kernels/kernels.h"

#include "kernels/fill.h"
#include "kernels/once.h"
#include "kernels/portable.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif
#ifdef FLK_HAVE_NEON
#  include "kernels/arm/arm.h"
#endif

enum { TABLES_MAX = 4 };

static flk_table tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state;

/* The next table, like the one before it. */
static flk_table *next(void)
{
  flk_table *table = &tables[n_tables++];
  *table = table[-1];
  return table;
}

static void fill(void)
{
  n_tables = 1;
  flk_fill_shared(&tables[0]);
  flk_fill_plain(&tables[0]);
  flk_fill_portable(next());
#ifdef FLK_HAVE_AVX2
  if (!flk_has_avx2()) return;
  flk_table *table = next();
  flk_fill_avx2(table);
  flk_fill_sums_avx2(table);
  flk_fill_fold_avx2(table);
  if (!flk_has_avx512()) return;
  table = next();
  flk_fill_avx512(table);
  flk_fill_sums_avx512(table);
  flk_fill_fold_avx512(table);
#endif
#ifdef FLK_HAVE_NEON
  flk_fill_neon(next());
#endif
}

const flk_table *flk_kernels_at(size_t index)
{
  flk_once(&state, fill);
  return index < n_tables ? &tables[index] : NULL;
}
