/* SPDX-License-Identifier: Apache-2.0 */
/* Random signs and the Walsh-Hadamard transform of one block (thc.md,
 * "Rotation"). Butterflies run from the greatest distance down, and back up in
 * the inverse; taking two distances in one pass (radix 4) does the very same
 * additions in the same order, so it changes no bit. The four least distances
 * stay inside a line, the others combine whole lines. */
#include "kernels/kernels.h"

#include "base/bytes.h"

#define S 0x80000000u

/* Sign bits of four floats. */
static const uint32_t sign_bits[16][4] = {
    {0, 0, 0, 0}, {S, 0, 0, 0}, {0, S, 0, 0}, {S, S, 0, 0},
    {0, 0, S, 0}, {S, 0, S, 0}, {0, S, S, 0}, {S, S, S, 0},
    {0, 0, 0, S}, {S, 0, 0, S}, {0, S, 0, S}, {S, S, 0, S},
    {0, 0, S, S}, {S, 0, S, S}, {0, S, S, S}, {S, S, S, S}};

/* From a table and without a branch: signs cannot be predicted. */
static void apply_signs(float *restrict x, const uint8_t *restrict signs,
                        float scale, size_t n)
{
  const uint32_t plus = fli_f32_bits(scale);
  for (size_t i = 0; i < n; i += 4) {
    const uint32_t *minus = sign_bits[signs[i / 8] >> (i & 4) & 15];
    for (size_t k = 0; k < 4; k++)
      x[i + k] *= fli_f32_from_bits(plus ^ minus[k]);
  }
}

/* Distances p and q between four numbers, p first. */
#define BUTTERFLY4(x0, xp, xq, xpq)   \
  do {                                \
    float a = x0 + xp, b = x0 - xp;   \
    float c = xq + xpq, d = xq - xpq; \
    x0 = a + c;                       \
    xp = b + d;                       \
    xq = a - c;                       \
    xpq = b - d;                      \
  } while (0)

static void line_up(float *x)
{
  for (size_t i = 0; i < FLK_LINE; i += 4)
    BUTTERFLY4(x[i], x[i + 1], x[i + 2], x[i + 3]);
  for (size_t i = 0; i < 4; i++)
    BUTTERFLY4(x[i], x[i + 4], x[i + 8], x[i + 12]);
}

static void line_down(float *x)
{
  for (size_t i = 0; i < 4; i++)
    BUTTERFLY4(x[i], x[i + 8], x[i + 4], x[i + 12]);
  for (size_t i = 0; i < FLK_LINE; i += 4)
    BUTTERFLY4(x[i], x[i + 2], x[i + 1], x[i + 3]);
}

/* Line by line: numbers p and q apart, h floats in a row. */
static void lines4(float *x, size_t p, size_t q, size_t h)
{
  for (float *end = x + h; x < end; x += FLK_LINE) {
    float *restrict x0 = x, *restrict xp = x + p;
    float *restrict xq = x + q, *restrict xpq = x + p + q;
    for (size_t k = 0; k < FLK_LINE; k++)
      BUTTERFLY4(x0[k], xp[k], xq[k], xpq[k]);
  }
}

static void lines2(float *x, size_t h)
{
  for (float *end = x + h; x < end; x += FLK_LINE) {
    float *restrict x0 = x, *restrict xh = x + h;
    for (size_t k = 0; k < FLK_LINE; k++) {
      float a = x0[k] + xh[k], b = x0[k] - xh[k];
      x0[k] = a;
      xh[k] = b;
    }
  }
}

void flk_rotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  apply_signs(x, signs, scale, n);
  size_t h = n / 2;
  for (; h >= 2 * FLK_LINE; h /= 4) {
    for (size_t i = 0; i < n; i += 2 * h)
      lines4(x + i, h, h / 2, h / 2);
  }
  if (h == FLK_LINE) {
    for (size_t i = 0; i < n; i += 2 * h)
      lines2(x + i, h);
  }
  for (size_t i = 0; i < n; i += FLK_LINE)
    line_down(x + i);
}

void flk_unrotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  for (size_t i = 0; i < n; i += FLK_LINE)
    line_up(x + i);
  size_t h = FLK_LINE;
  for (; 4 * h <= n; h *= 4) {
    for (size_t i = 0; i < n; i += 4 * h)
      lines4(x + i, h, 2 * h, h);
  }
  if (h < n) lines2(x, h);
  apply_signs(x, signs, scale, n);
}
