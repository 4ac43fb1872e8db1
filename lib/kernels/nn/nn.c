/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the training engine's tables this machine runs. */
#include "kernels/nn/nn.h"

#include <stdatomic.h>
#include <string.h>

#include "kernels/nn/tables.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif

enum { TABLES_MAX = 3 };

/* Filled by the first call that finds `state` 0; others wait for it. */
static flk_nn_table tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state;       /* 0 untouched, 1 being filled, 2 ready */
static _Atomic(size_t) chosen; /* index + 1; 0 = the best */

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

static void prepare(void)
{
  int was = 0;
  if (atomic_load_explicit(&state, memory_order_acquire) == 2) return;
  if (atomic_compare_exchange_strong(&state, &was, 1)) {
    fill();
    atomic_store_explicit(&state, 2, memory_order_release);
    return;
  }
  while (atomic_load_explicit(&state, memory_order_acquire) != 2) {
  }
}

const flk_nn_table *flk_nn_at(size_t index)
{
  prepare();
  return index < n_tables ? &tables[index] : NULL;
}

const flk_nn_table *flk_nn(void)
{
  prepare();
  size_t index = atomic_load_explicit(&chosen, memory_order_relaxed);
  return &tables[(index > 0 ? index : n_tables) - 1];
}

int flk_nn_choose(const char *name)
{
  prepare();
  if (!name) atomic_store(&chosen, 0);
  for (size_t i = 0; name && i < n_tables; i++) {
    if (strcmp(tables[i].name, name) != 0) continue;
    atomic_store(&chosen, i + 1);
    return 1;
  }
  return !name;
}
