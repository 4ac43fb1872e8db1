/* SPDX-License-Identifier: Apache-2.0 */
/* What both files of sums for x86_64 put into a table. They bring `fields` and
 * include this behind it. */
#include "kernels/x86/sums.h"

static void add_packed(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                       size_t n)
{
  sum_packed(lanes, width, packed, n, fields);
}

static void accumulate_u8_u8(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u8_u8(dst, src, n);
}

static void accumulate_u16_u8(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u16_u8(dst, src, n);
}

static void accumulate_u16_u16(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u16_u16(dst, src, n);
}

static void accumulate_u32_u8(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u32_u8(dst, src, n);
}

static void accumulate_u32_u16(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u32_u16(dst, src, n);
}

static void accumulate_u32_u32(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_u32_u32(dst, src, n);
}

static void accumulate_i64_i64(uint8_t *dst, const uint8_t *src, size_t n)
{
  add_i64_i64(dst, src, n);
}

static uint64_t lane_max(const uint8_t *lanes, uint32_t width, size_t n)
{
  return max_lane(lanes, width, n);
}

static void fill_sums(flk_table *table)
{
  table->add_packed = add_packed;
  table->accumulate[FLK_U8][FLK_U8] = accumulate_u8_u8;
  table->accumulate[FLK_U16][FLK_U8] = accumulate_u16_u8;
  table->accumulate[FLK_U16][FLK_U16] = accumulate_u16_u16;
  table->accumulate[FLK_U32][FLK_U8] = accumulate_u32_u8;
  table->accumulate[FLK_U32][FLK_U16] = accumulate_u32_u16;
  table->accumulate[FLK_U32][FLK_U32] = accumulate_u32_u32;
  table->accumulate[FLK_I64][FLK_I64] = accumulate_i64_i64;
  table->lane_max = lane_max;
}
