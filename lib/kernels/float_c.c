/* SPDX-License-Identifier: Apache-2.0 */
/* The float codecs' loops: float32 and bfloat16 as bytes, and sums in int64
 * fixed point, whose order does not matter. A float32 times a power of two is
 * exact in double, so each value is rounded once. */
#include "kernels/kernels.h"

#include <math.h>

#include "kernels/lane_bytes.h"

void flk_scale_clamp_c(float *restrict dst, const float *restrict src, size_t n,
                       double factor, float bound)
{
  for (size_t i = 0; i < n; i++) {
    double v = (double)src[i] * factor;
    v = v > (double)bound ? (double)bound : v;
    v = v < -(double)bound ? -(double)bound : v;
    dst[i] = (float)v;
  }
}

void flk_f32_store_c(uint8_t *restrict dst, const float *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    flk_store_u32(dst + 4 * i, fli_f32_bits(src[i]));
  }
}

void flk_f32_load_c(float *restrict dst, const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    dst[i] = fli_f32_from_bits(flk_load_u32(src + 4 * i));
  }
}

void flk_bf16_store_c(uint8_t *restrict dst, const float *restrict src,
                      size_t n)
{
  for (size_t i = 0; i < n; i++) {
    flk_store_u16(dst + 2 * i, fli_bf16_from_f32(src[i]));
  }
}

void flk_bf16_load_c(float *restrict dst, const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    dst[i] = fli_f32_from_bf16(flk_load_u16(src + 2 * i));
  }
}

float flk_abs_max_c(const float *x, size_t n)
{
  /* Magnitudes order like their bit patterns, NaN above infinity. */
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = fli_f32_bits(x[i]) & 0x7fffffffu;
    max = bits > max ? bits : max;
  }
  return fli_f32_from_bits(max > 0x7f800000u ? 0x7f800000u : max);
}

static uint32_t fold_one(uint8_t *restrict lanes, const uint8_t *restrict src,
                         size_t n, double factor, float bound)
{
  uint32_t n_out = 0;
  for (size_t i = 0; i < n; i++) {
    uint8_t *p = lanes + 8 * i;
    const float x = fli_f32_from_bits(flk_load_u32(src + 4 * i));
    const uint32_t is_in = fabsf(x) <= bound; /* NaN is not */
    const double v = is_in ? (double)x * factor : 0.0;
    flk_store_u64(p, flk_load_u64(p) + (uint64_t)(int64_t)rint(v));
    n_out += 1 - is_in;
  }
  return n_out;
}

int flk_fixed_fold_c(uint8_t *lanes, const flk_floats *floats, size_t n)
{
  uint32_t n_out = 0;
  for (size_t k = 0; k < floats->count; k++) {
    n_out += fold_one(lanes, floats->src[k] + floats->skip, n, floats->factor,
                      floats->bound);
  }
  return n_out > 0;
}

void flk_fixed_load_c(float *restrict dst, const uint8_t *restrict lanes,
                      size_t n, double factor)
{
  for (size_t i = 0; i < n; i++) {
    dst[i] = (float)((double)(int64_t)flk_load_u64(lanes + 8 * i) * factor);
  }
}
