/* SPDX-License-Identifier: Apache-2.0 */
/* Utilities in a byte: the upper bits of a float32, exponent and 3 bits of the
 * mantissa, above those of the table's `base`: eighths of an octave, over 32
 * octaves. What is added is rounded to one of the two neighbours by chance, so
 * that many small increments count for what they are. 0 is 0.
 *
 * Decay costs nothing: instead of all utilities becoming gamma times as large,
 * what is added later counts 1 / gamma times as much (table->scale). When the
 * median has come far from where it began, adjust lowers all levels. */
#ifndef FLI_EMBEDDING_UTILITY_H
#define FLI_EMBEDDING_UTILITY_H

#include "embedding/embedding.h"

#include "base/bytes.h"

enum {
  FLI_LEVELS = 256,
  FLI_LEVEL_BITS = 20,
  FLI_LEVEL_MIDDLE = 64,  /* where the median is: 24 octaves from the end */
  FLI_BITS_LEVELS = 2048, /* of float32 that are not negative */
  FLI_BASE_MAX = FLI_BITS_LEVELS - 9 - FLI_LEVELS /* below infinity */
};
#define FLI_UTILITY_MAX 1e37f

static inline float fli_utility_of(uint8_t level, int32_t base)
{
  if (level == 0) return 0.0f;
  return fli_f32_from_bits((uint32_t)(level + base) << FLI_LEVEL_BITS);
}

/* `chance`: 20 random bits. value >= 0, not NaN. */
static inline uint8_t fli_utility_level(float value, int32_t base,
                                        uint32_t chance)
{
  if (!(value < FLI_UTILITY_MAX)) value = FLI_UTILITY_MAX;
  int32_t level =
      (int32_t)((fli_f32_bits(value) + chance) >> FLI_LEVEL_BITS) - base;
  if (level >= FLI_LEVELS) return FLI_LEVELS - 1;
  if (level >= 1 && fli_f32_bits(value) >> FLI_LEVEL_BITS > (uint32_t)base)
    return (uint8_t)level;
  /* Below level 1: that or nothing. */
  float one = fli_utility_of(1, base);
  return value * 0x1p20f > one * (float)chance ? 1 : 0;
}

/* Nearest level, for values that are no sums. */
static inline uint8_t fli_utility_nearest(float value, int32_t base)
{
  return fli_utility_level(value, base, 1u << (FLI_LEVEL_BITS - 1));
}

#endif
