/* SPDX-License-Identifier: Apache-2.0 */
/* Integer lanes: what sums are made of. All additions are of little-endian
 * lanes in bytes, so that a sum in memory is a sum on the wire. Whoever calls
 * has proved that nothing wraps. */
#include "kernels/lanes.h"

void flk_add_u8_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                     size_t n)
{
  add_u8_u8(dst, src, n);
}

void flk_add_u16_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                      size_t n)
{
  add_u16_u8(dst, src, n);
}

void flk_add_u16_u16_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  add_u16_u16(dst, src, n);
}

void flk_add_u32_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                      size_t n)
{
  add_u32_u8(dst, src, n);
}

void flk_add_u32_u16_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  add_u32_u16(dst, src, n);
}

void flk_add_u32_u32_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  add_u32_u32(dst, src, n);
}

void flk_add_i64_i64_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  add_i64_i64(dst, src, n);
}

uint64_t flk_lane_max_c(const uint8_t *lanes, uint32_t width, size_t n)
{
  return max_lane(lanes, width, n);
}
