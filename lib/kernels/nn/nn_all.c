/* SPDX-License-Identifier: Apache-2.0 */
/* All of the training engine's tables that this machine can run, for tests and
 * benchmarks. */
#include "kernels/nn/nn.h"

#include <string.h>

#include "kernels/nn/tables.h"
#include "kernels/nn/use.h"
#include "kernels/once.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif

enum { TABLES_MAX = 3 };

static flk_nn_table tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state;

static void fill(void)
{
  flk_nn_fill_c(&tables[n_tables++]);
#ifdef FLK_HAVE_AVX2
  if (flk_has_avx2()) flk_nn_fill_avx2(&tables[n_tables++]);
  if (n_tables == 2 && flk_has_avx512()) {
    flk_nn_fill_avx512(&tables[n_tables++]);
  }
#endif
#ifdef FLK_HAVE_NEON
  flk_nn_fill_neon(&tables[n_tables++]);
#endif
}

const flk_nn_table *flk_nn_at(size_t index)
{
  flk_once(&state, fill);
  return index < n_tables ? &tables[index] : NULL;
}

int flk_nn_choose(const char *name)
{
  if (!name) flk_nn_use(NULL);
  for (size_t i = 0; name && flk_nn_at(i); i++) {
    if (strcmp(flk_nn_at(i)->name, name) != 0) continue;
    flk_nn_use(flk_nn_at(i));
    return 1;
  }
  return !name;
}
