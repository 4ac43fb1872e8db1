/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels this machine runs. The table of the C functions serves every
 * machine; a table for an instruction set starts as a copy of a weaker one and
 * replaces what it does better. */
#include "kernels/kernels.h"

static const flk_table table_c = {
    .name = "c",
    .find_not_finite = flk_find_not_finite_c,
    .sum_squares = flk_sum_squares_c,
    .gather = flk_gather_c,
    .scatter = flk_scatter_c,
    .rotate = flk_rotate_c,
    .unrotate = flk_unrotate_c,
    .noise = flk_noise_c,
    .quantise = flk_quantise_c,
    .pack = flk_pack_c,
    .unpack = flk_unpack_c,
    .dequantise = flk_dequantise_c,
    .dequantise_dither = flk_dequantise_dither_c,
    .dither_total = flk_dither_total_c,
    .dither_slot = flk_dither_slot_c,
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

const flk_table *flk_kernels_c(void)
{
  return &table_c;
}

const flk_table *flk_kernels(void)
{
  return &table_c;
}
