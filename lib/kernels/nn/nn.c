/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the training engine's tables this machine runs. As in cpu.c, only
 * those that may be run are named here. */
#include "kernels/nn/nn.h"

#include "kernels/nn/tables.h"
#include "kernels/nn/use.h"
#include "kernels/once.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif

static flk_nn_table best;
static atomic_int state;
static _Atomic(const flk_nn_table *) used; /* NULL = the best */

static void fill(void)
{
#ifdef FLK_HAVE_NEON
  flk_nn_fill_neon(&best);
#else
#  ifdef FLK_HAVE_AVX2
  if (flk_has_avx2() && flk_has_avx512()) {
    flk_nn_fill_avx512(&best);
    return;
  }
  if (flk_has_avx2()) {
    flk_nn_fill_avx2(&best);
    return;
  }
#  endif
  flk_nn_fill_c(&best);
#endif
}

const flk_nn_table *flk_nn(void)
{
  const flk_nn_table *table = atomic_load_explicit(&used, memory_order_acquire);
  if (table) return table;
  flk_once(&state, fill);
  return &best;
}

void flk_nn_use(const flk_nn_table *table)
{
  atomic_store(&used, table);
}
