/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian lanes for kernel files. Compilers turn the memcpy forms into
 * vector loads and stores; the byte-wise forms of base/bytes.h they leave as
 * they are, which costs a factor of ten in these loops. Hence a second set of
 * names for the same thing, for kernels alone. */
#ifndef FLK_LANE_BYTES_H
#define FLK_LANE_BYTES_H

#include <string.h>

#include "base/bytes.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#  define FLK_NATIVE_LANES 1
#else
#  define FLK_NATIVE_LANES 0
#endif

static inline uint16_t flk_load_u16(const uint8_t *p)
{
#if FLK_NATIVE_LANES
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  return fli_load_u16(p);
#endif
}

static inline uint32_t flk_load_u32(const uint8_t *p)
{
#if FLK_NATIVE_LANES
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  return fli_load_u32(p);
#endif
}

static inline uint64_t flk_load_u64(const uint8_t *p)
{
#if FLK_NATIVE_LANES
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return v;
#else
  return fli_load_u64(p);
#endif
}

static inline void flk_store_u16(uint8_t *p, uint16_t v)
{
#if FLK_NATIVE_LANES
  memcpy(p, &v, sizeof v);
#else
  fli_store_u16(p, v);
#endif
}

static inline void flk_store_u32(uint8_t *p, uint32_t v)
{
#if FLK_NATIVE_LANES
  memcpy(p, &v, sizeof v);
#else
  fli_store_u32(p, v);
#endif
}

static inline void flk_store_u64(uint8_t *p, uint64_t v)
{
#if FLK_NATIVE_LANES
  memcpy(p, &v, sizeof v);
#else
  fli_store_u64(p, v);
#endif
}

#endif
