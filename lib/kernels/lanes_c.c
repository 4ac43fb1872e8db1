/* SPDX-License-Identifier: Apache-2.0 */
/* Integer lanes: what sums are made of. All additions are of little-endian
 * lanes in bytes, so that a sum in memory is a sum on the wire. Whoever calls
 * has proved that nothing wraps. */
#include "kernels/kernels.h"

#include "kernels/lane_bytes.h"

void flk_add_u8_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                     size_t n)
{
  for (size_t i = 0; i < n; i++)
    dst[i] = (uint8_t)(dst[i] + src[i]);
}

void flk_add_u16_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                      size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 2 * i;
    flk_store_u16(p, (uint16_t)(flk_load_u16(p) + src[i]));
  }
}

void flk_add_u16_u16_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 2 * i;
    flk_store_u16(p, (uint16_t)(flk_load_u16(p) + flk_load_u16(src + 2 * i)));
  }
}

void flk_add_u32_u8_c(uint8_t *restrict dst, const uint8_t *restrict src,
                      size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + src[i]);
  }
}

void flk_add_u32_u16_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + flk_load_u16(src + 2 * i));
  }
}

void flk_add_u32_u32_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + flk_load_u32(src + 4 * i));
  }
}

void flk_add_i64_i64_c(uint8_t *restrict dst, const uint8_t *restrict src,
                       size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 8 * i;
    flk_store_u64(p, flk_load_u64(p) + flk_load_u64(src + 8 * i));
  }
}

static uint64_t max_i64(const uint8_t *lanes, size_t n)
{
  uint64_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint64_t v = flk_load_u64(lanes + 8 * i);
    uint64_t magnitude = v >> 63 ? 0u - v : v;
    max = magnitude > max ? magnitude : max;
  }
  return max;
}

uint64_t flk_lane_max_c(const uint8_t *lanes, uint32_t width, size_t n)
{
  if (width == FLK_I64) return max_i64(lanes, n);
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t v = width == FLK_U8    ? lanes[i]
                 : width == FLK_U16 ? flk_load_u16(lanes + 2 * i)
                                    : flk_load_u32(lanes + 4 * i);
    max = v > max ? v : max;
  }
  return max;
}
