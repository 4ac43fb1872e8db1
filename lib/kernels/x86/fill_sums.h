/* SPDX-License-Identifier: Apache-2.0 */
/* What both files of sums for x86_64 put into a table. They bring `sum_all` and
 * `sum_in_words`, in which width and tables are constants where they are
 * called, and include this behind them. */
#include "kernels/x86/sums.h"

static void fields(uint8_t *lanes, uint32_t width, const sum_fields *group,
                   size_t n)
{
  if (group->bits < 4) {
    flk_sum_few_bits_avx2(lanes, width, group, n);
  } else if (group->kind == SUM_WORDS && width == FLK_U16) {
    sum_in_words(lanes, FLK_U16, group, n);
  } else if (group->kind == SUM_WORDS) {
    sum_in_words(lanes, FLK_U32, group, n);
  } else if (width == FLK_U8 && group->tables) {
    sum_all(lanes, FLK_U8, group, n, 1);
  } else if (width == FLK_U8) {
    sum_all(lanes, FLK_U8, group, n, 0);
  } else if (width == FLK_U16 && group->tables) {
    sum_all(lanes, FLK_U16, group, n, 1);
  } else if (width == FLK_U16) {
    sum_all(lanes, FLK_U16, group, n, 0);
  } else {
    sum_all(lanes, FLK_U32, group, n, group->tables != NULL);
  }
}

static void add_packed(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                       size_t n)
{
  sum_packed(lanes, width, packed, n, fields);
}

/* The loops of lanes.h, compiled with this file's flags. */
static void fill_sums(flk_table *table)
{
  table->add_packed = add_packed;
  table->accumulate[FLK_U8][FLK_U8] = add_u8_u8;
  table->accumulate[FLK_U16][FLK_U8] = add_u16_u8;
  table->accumulate[FLK_U16][FLK_U16] = add_u16_u16;
  table->accumulate[FLK_U32][FLK_U8] = add_u32_u8;
  table->accumulate[FLK_U32][FLK_U16] = add_u32_u16;
  table->accumulate[FLK_U32][FLK_U32] = add_u32_u32;
  table->accumulate[FLK_I64][FLK_I64] = add_i64_i64;
  table->lane_max = max_lane;
}
