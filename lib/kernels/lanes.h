/* SPDX-License-Identifier: Apache-2.0 */
/* Loops over integer lanes, for files of every instruction set to compile with
 * their own flags: compilers turn them into vector code. Lanes are
 * little-endian bytes at any alignment. */
#ifndef FLK_LANES_H
#define FLK_LANES_H

#include "kernels/kernels.h"
#include "kernels/lane_bytes.h"

/* An update that is added to lanes is a stream beside many others. Processors
 * follow few, and none over the end of a page; so what comes some lines on is
 * asked for. A hint, also behind the end. */
enum { FLK_FETCHED = 384 /* bytes on */ };

static inline void fetch_on(const void *p)
{
#if defined(__GNUC__)
  __builtin_prefetch((const void *)((uintptr_t)p + FLK_FETCHED), 0, 3);
#else
  (void)p;
#endif
}

static inline void add_u8_u8(uint8_t *restrict dst, const uint8_t *restrict src,
                             size_t n)
{
  for (size_t i = 0; i < n; i++)
    dst[i] = (uint8_t)(dst[i] + src[i]);
}

static inline void add_u16_u8(uint8_t *restrict dst,
                              const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 2 * i;
    flk_store_u16(p, (uint16_t)(flk_load_u16(p) + src[i]));
  }
}

static inline void add_u16_u16(uint8_t *restrict dst,
                               const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 2 * i;
    flk_store_u16(p, (uint16_t)(flk_load_u16(p) + flk_load_u16(src + 2 * i)));
  }
}

static inline void add_u32_u8(uint8_t *restrict dst,
                              const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + src[i]);
  }
}

static inline void add_u32_u16(uint8_t *restrict dst,
                               const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + flk_load_u16(src + 2 * i));
  }
}

static inline void add_u32_u32(uint8_t *restrict dst,
                               const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 4 * i;
    flk_store_u32(p, flk_load_u32(p) + flk_load_u32(src + 4 * i));
  }
}

static inline void add_i64_i64(uint8_t *restrict dst,
                               const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = dst + 8 * i;
    flk_store_u64(p, flk_load_u64(p) + flk_load_u64(src + 8 * i));
  }
}

static inline uint32_t max_u8(const uint8_t *lanes, size_t n)
{
  uint8_t max = 0;
  for (size_t i = 0; i < n; i++)
    max = lanes[i] > max ? lanes[i] : max;
  return max;
}

static inline uint32_t max_u16(const uint8_t *lanes, size_t n)
{
  uint16_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint16_t v = flk_load_u16(lanes + 2 * i);
    max = v > max ? v : max;
  }
  return max;
}

static inline uint32_t max_u32(const uint8_t *lanes, size_t n)
{
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t v = flk_load_u32(lanes + 4 * i);
    max = v > max ? v : max;
  }
  return max;
}

static inline uint64_t max_i64(const uint8_t *lanes, size_t n)
{
  uint64_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint64_t v = flk_load_u64(lanes + 8 * i);
    uint64_t magnitude = v >> 63 ? 0u - v : v;
    max = magnitude > max ? magnitude : max;
  }
  return max;
}

static inline uint64_t max_lane(const uint8_t *lanes, uint32_t width, size_t n)
{
  return width == FLK_U8    ? max_u8(lanes, n)
         : width == FLK_U16 ? max_u16(lanes, n)
         : width == FLK_U32 ? max_u32(lanes, n)
                            : max_i64(lanes, n);
}

#endif
