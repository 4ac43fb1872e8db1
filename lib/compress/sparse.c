/* SPDX-License-Identifier: Apache-2.0 */
/* Rounding to the sparse grid, and its bytes. */
#include "compress/sparse.h"

#include <math.h>

enum { NIBBLE_ZERO = 8, MANTISSA_BITS = 4, MANTISSA = 1 << MANTISSA_BITS };

static int8_t round_one(float x, float chance)
{
  const float low = floorf(x);
  return (int8_t)((int)low + (x - low > chance));
}

uint32_t fli_grid_round(int8_t *codes, const float *values, size_t n,
                        float delta, fli_rng *chance)
{
  uint32_t clamped = 0;
  for (size_t i = 0; i < n; i++) {
    const float x = values[i] / delta;
    /* Drawn for every value: what a row gets depends on nothing but its
     * place. */
    const float u = fli_rng_f32(chance);
    if (x > (float)FLI_GRID_MAX || x < -(float)FLI_GRID_MAX) {
      codes[i] = x > 0 ? FLI_GRID_MAX : -FLI_GRID_MAX;
      clamped++;
    } else {
      codes[i] = round_one(x, u);
    }
  }
  return clamped;
}

void fli_grid_pack(uint8_t *out, const int8_t *codes, size_t n)
{
  for (size_t i = 0; i + 1 < n; i += 2)
    out[i / 2] =
        (uint8_t)((codes[i] + NIBBLE_ZERO) | (codes[i + 1] + NIBBLE_ZERO) << 4);
}

int fli_grid_unpack(int8_t *codes, const uint8_t *in, size_t n)
{
  for (size_t i = 0; i + 1 < n; i += 2) {
    const uint32_t low = in[i / 2] & 15u, high = in[i / 2] >> 4;
    if (low == 0 || high == 0) return 0;
    codes[i] = (int8_t)((int)low - NIBBLE_ZERO);
    codes[i + 1] = (int8_t)((int)high - NIBBLE_ZERO);
  }
  return 1;
}

uint32_t fli_grid_units(uint8_t code)
{
  const uint32_t exponent = code >> MANTISSA_BITS;
  const uint32_t mantissa = code & (MANTISSA - 1u);
  return exponent == 0 ? mantissa : (mantissa + MANTISSA) << (exponent - 1u);
}

/* Points lie 1 apart up to 32 units, then 2, 4, ... of them. */
uint8_t fli_grid_utility(float value, float unit, fli_rng *chance)
{
  float x = value / unit;
  const float u = fli_rng_f32(chance);
  uint32_t exponent = 0;
  if (!(x < (float)FLI_GRID_UTILITY_MAX)) return UINT8_MAX;
  while (x >= (float)(2 * MANTISSA)) {
    x *= 0.5f;
    exponent++;
  }
  const float low = floorf(x);
  uint32_t steps = (uint32_t)low + (x - low > u);
  if (steps == 2 * MANTISSA) {
    steps = MANTISSA;
    exponent++;
  }
  if (steps < MANTISSA) return (uint8_t)steps;
  return (uint8_t)((exponent + 1u) << MANTISSA_BITS | (steps - MANTISSA));
}
