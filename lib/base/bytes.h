/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian loads and stores at any alignment; bf16 and f16. */
#ifndef FLI_BYTES_H
#define FLI_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t fli_load_u16(const uint8_t *p)
{
  return (uint16_t)(p[0] | (uint16_t)(p[1] << 8));
}

static inline uint32_t fli_load_u32(const uint8_t *p)
{
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
}

static inline uint64_t fli_load_u64(const uint8_t *p)
{
  return (uint64_t)fli_load_u32(p) | (uint64_t)fli_load_u32(p + 4) << 32;
}

static inline void fli_store_u16(uint8_t *p, uint16_t v)
{
  p[0] = (uint8_t)v;
  p[1] = (uint8_t)(v >> 8);
}

static inline void fli_store_u32(uint8_t *p, uint32_t v)
{
  fli_store_u16(p, (uint16_t)v);
  fli_store_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void fli_store_u64(uint8_t *p, uint64_t v)
{
  fli_store_u32(p, (uint32_t)v);
  fli_store_u32(p + 4, (uint32_t)(v >> 32));
}

static inline uint32_t fli_f32_bits(float v)
{
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

static inline float fli_f32_from_bits(uint32_t bits)
{
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

static inline float fli_load_f32(const uint8_t *p)
{
  return fli_f32_from_bits(fli_load_u32(p));
}

static inline void fli_store_f32(uint8_t *p, float v)
{
  fli_store_u32(p, fli_f32_bits(v));
}

static inline uint64_t fli_f64_bits(double v)
{
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

static inline double fli_f64_from_bits(uint64_t bits)
{
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

/* bf16, round to nearest even; NaN is not expected here. */
static inline uint16_t fli_bf16_from_f32(float v)
{
  uint32_t bits = fli_f32_bits(v);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* bf16 of a non-negative finite value, rounded up. */
static inline uint16_t fli_bf16_from_f32_up(float v)
{
  return (uint16_t)((fli_f32_bits(v) + 0xffffu) >> 16);
}

static inline float fli_f32_from_bf16(uint16_t v)
{
  return fli_f32_from_bits((uint32_t)v << 16);
}

/* IEEE binary16, exact. */
static inline float fli_f32_from_f16(uint16_t v)
{
  uint32_t sign = (uint32_t)(v & 0x8000u) << 16;
  uint32_t exponent = (v >> 10) & 31u;
  uint32_t mantissa = v & 0x3ffu;
  if (exponent == 0) { /* zero, or mantissa 2^-24 */
    uint32_t bits = fli_f32_bits((float)mantissa * 0x1p-24f);
    return fli_f32_from_bits(sign | bits);
  }
  exponent = exponent == 31 ? 255 : exponent + 112;
  return fli_f32_from_bits(sign | exponent << 23 | mantissa << 13);
}

#endif
