/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels this machine runs. The plain C functions are the
 * specification; "c" serves every machine; a table for an instruction set
 * starts as a copy of a weaker one and replaces what it does better. */
#include "kernels/kernels.h"

#include <stdatomic.h>

#include "kernels/portable.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif
#ifdef FLK_HAVE_NEON
#  include "kernels/arm/arm.h"
#endif

static const flk_table table_plain = {
    .name = "plain",
    .find_not_finite = flk_find_not_finite_c,
    .sum_squares = flk_sum_squares_c,
    .sum_squares_group = flk_sum_squares_group_c,
    .rotate_in = flk_rotate_in_c,
    .encode = flk_encode_c,
    .decode = flk_decode_c,
    .rotate_out = flk_rotate_out_c,
    .add_packed = flk_add_packed_c,
    .accumulate =
        {
            {flk_add_u8_u8_c, NULL, NULL, NULL},
            {flk_add_u16_u8_c, flk_add_u16_u16_c, NULL, NULL},
            {flk_add_u32_u8_c, flk_add_u32_u16_c, flk_add_u32_u32_c, NULL},
            {NULL, NULL, NULL, flk_add_i64_i64_c},
        },
    .lane_max = flk_lane_max_c,
    .scale_clamp = flk_scale_clamp_c,
    .f32_store = flk_f32_store_c,
    .f32_load = flk_f32_load_c,
    .bf16_store = flk_bf16_store_c,
    .bf16_load = flk_bf16_load_c,
    .abs_max = flk_abs_max_c,
    .fixed_add = flk_fixed_add_c,
    .fixed_load = flk_fixed_load_c,
};

enum { TABLES_MAX = 4 };

/* Filled by the first call that finds `state` 0; others wait for it. */
static flk_table tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state; /* 0 untouched, 1 being filled, 2 ready */

static void fill(void)
{
  tables[0] = table_plain;
  tables[1] = table_plain;
  flk_fill_portable(&tables[1]);
  n_tables = 2;
#ifdef FLK_HAVE_AVX2
  if (flk_has_avx2()) {
    tables[n_tables] = tables[n_tables - 1];
    flk_fill_avx2(&tables[n_tables]);
    flk_fill_sums_avx2(&tables[n_tables++]);
  }
  if (n_tables == 3 && flk_has_avx512()) {
    tables[n_tables] = tables[n_tables - 1];
    flk_fill_avx512(&tables[n_tables]);
    flk_fill_sums_avx512(&tables[n_tables++]);
  }
#endif
#ifdef FLK_HAVE_NEON
  tables[n_tables] = tables[n_tables - 1];
  flk_fill_neon(&tables[n_tables++]);
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

const flk_table *flk_kernels_at(size_t index)
{
  prepare();
  return index < n_tables ? &tables[index] : NULL;
}

const flk_table *flk_kernels(void)
{
  prepare();
  return &tables[n_tables - 1];
}
