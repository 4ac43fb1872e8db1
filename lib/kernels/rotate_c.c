/* SPDX-License-Identifier: Apache-2.0 */
/* Random signs and the Walsh-Hadamard transform of one block (thc.md,
 * "Rotation"). Butterflies run from distance 1 upwards; taking two distances
 * in one pass (radix 4) does the very same additions in the same order, so it
 * changes no bit. The first four distances stay inside a line, the others
 * combine whole lines. */
#include "kernels/kernels.h"

#include "base/bytes.h"

static const uint32_t lane_bit[FLK_LINE] = {
    1u << 0,  1u << 1,  1u << 2,  1u << 3, 1u << 4,  1u << 5,
    1u << 6,  1u << 7,  1u << 8,  1u << 9, 1u << 10, 1u << 11,
    1u << 12, 1u << 13, 1u << 14, 1u << 15};

static void apply_signs(float *x, const uint8_t *signs, float scale, size_t n)
{
  for (size_t i = 0; i < n; i += FLK_LINE) {
    uint32_t bits = fli_load_u16(signs + i / 8);
    for (size_t k = 0; k < FLK_LINE; k++) {
      x[i + k] *= bits & lane_bit[k] ? -scale : scale;
    }
  }
}

/* Distances 1, 2, 4, 8. */
static void transform_line(float *x)
{
  for (size_t i = 0; i < FLK_LINE; i += 4) {
    float a = x[i] + x[i + 1], b = x[i] - x[i + 1];
    float c = x[i + 2] + x[i + 3], d = x[i + 2] - x[i + 3];
    x[i] = a + c;
    x[i + 1] = b + d;
    x[i + 2] = a - c;
    x[i + 3] = b - d;
  }
  for (size_t i = 0; i < 4; i++) {
    float a = x[i] + x[i + 4], b = x[i] - x[i + 4];
    float c = x[i + 8] + x[i + 12], d = x[i + 8] - x[i + 12];
    x[i] = a + c;
    x[i + 4] = b + d;
    x[i + 8] = a - c;
    x[i + 12] = b - d;
  }
}

/* Distances h and 2h, for one line of each of four. */
static inline void butterfly4(float *restrict p0, float *restrict p1,
                              float *restrict p2, float *restrict p3)
{
  for (size_t k = 0; k < FLK_LINE; k++) {
    float a = p0[k] + p1[k], b = p0[k] - p1[k];
    float c = p2[k] + p3[k], d = p2[k] - p3[k];
    p0[k] = a + c;
    p1[k] = b + d;
    p2[k] = a - c;
    p3[k] = b - d;
  }
}

static inline void butterfly2(float *restrict p0, float *restrict p1)
{
  for (size_t k = 0; k < FLK_LINE; k++) {
    float a = p0[k] + p1[k], b = p0[k] - p1[k];
    p0[k] = a;
    p1[k] = b;
  }
}

static void transform(float *x, size_t n)
{
  for (size_t i = 0; i < n; i += FLK_LINE)
    transform_line(x + i);
  size_t h = FLK_LINE;
  for (; 4 * h <= n; h *= 4) {
    for (size_t i = 0; i < n; i += 4 * h) {
      for (size_t j = i; j < i + h; j += FLK_LINE) {
        butterfly4(x + j, x + j + h, x + j + 2 * h, x + j + 3 * h);
      }
    }
  }
  if (h < n) {
    for (size_t j = 0; j < h; j += FLK_LINE)
      butterfly2(x + j, x + j + h);
  }
}

void flk_rotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  apply_signs(x, signs, scale, n);
  transform(x, n);
}

void flk_unrotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  transform(x, n);
  apply_signs(x, signs, scale, n);
}
