/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels this machine runs. A table for an instruction set has all of a
 * weaker one's functions but those that it does better. Only what may be run
 * is named here: where every processor has an instruction set, the weaker
 * tables (cpu_all.c) are no part of a program that does not ask for them. */
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

static flk_table best;
static atomic_int state;

void flk_fill_shared(flk_table *table)
{
  *table = (flk_table){
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
      .fixed_fold = flk_fixed_fold_c,
      .fixed_load = flk_fixed_load_c,
  };
}

static void fill(void)
{
  flk_fill_shared(&best);
#ifdef FLK_HAVE_NEON
  flk_fill_neon(&best);
#else
  flk_fill_plain(&best);
  flk_fill_portable(&best);
#endif
#ifdef FLK_HAVE_AVX2
  if (!flk_has_avx2()) return;
  flk_fill_avx2(&best);
  flk_fill_sums_avx2(&best);
  flk_fill_fold_avx2(&best);
  if (!flk_has_avx512()) return;
  flk_fill_avx512(&best);
  flk_fill_sums_avx512(&best);
  flk_fill_fold_avx512(&best);
#endif
}

const flk_table *flk_kernels(void)
{
  flk_once(&state, fill);
  return &best;
}
