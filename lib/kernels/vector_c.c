/* SPDX-License-Identifier: Apache-2.0 */
/* Plain passes over float32: finite check, sum of squares, and the gather and
 * scatter of interleaved lines. Inner loops run over one line with a constant
 * count, which compilers vectorise at -O2. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"

static int is_not_finite(float v)
{
  return (fli_f32_bits(v) & 0x7f800000u) == 0x7f800000u;
}

size_t flk_find_not_finite_c(const float *x, size_t n)
{
  size_t i = 0;
  for (; i + FLK_LINE <= n; i += FLK_LINE) {
    int found = 0;
    for (size_t k = 0; k < FLK_LINE; k++)
      found |= is_not_finite(x[i + k]);
    if (found) break;
  }
  while (i < n && !is_not_finite(x[i]))
    i++;
  return i;
}

double flk_sum_squares_c(const float *x, size_t n)
{
  double acc[FLK_LINE] = {0};
  size_t i = 0;
  for (; i + FLK_LINE <= n; i += FLK_LINE) {
    for (size_t k = 0; k < FLK_LINE; k++) {
      acc[k] += (double)x[i + k] * (double)x[i + k];
    }
  }
  for (size_t k = 0; i + k < n; k++) {
    acc[k] += (double)x[i + k] * (double)x[i + k];
  }
  for (size_t half = FLK_LINE / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; k++)
      acc[k] += acc[k + half];
  }
  return acc[0];
}

void flk_gather_c(float *restrict dst, const flk_lines *group, float *about)
{
  const float weight = group->weight;
  for (size_t b = 0; about && b < group->count; b++)
    about[b] = INFINITY;
  for (size_t j = 0; j < group->lines; j++) {
    for (size_t b = 0; b < group->count; b++) {
      float *restrict to = dst + b * FLK_BLOCK_STRIDE + j * FLK_LINE;
      const float *from = group->src + j * group->stride + b * FLK_LINE;
      for (size_t k = 0; k < FLK_LINE; k++)
        to[k] = from[k] * weight;
    }
  }
}

void flk_scatter_c(float *restrict dst, size_t stride,
                   const float *restrict src, size_t src_stride, size_t rows,
                   size_t count)
{
  for (size_t j = 0; j < rows; j++) {
    memcpy(dst, src, count * FLK_LINE * sizeof(float));
    dst += stride;
    src += src_stride;
  }
}
