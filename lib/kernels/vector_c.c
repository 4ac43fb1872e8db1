/* SPDX-License-Identifier: Apache-2.0 */
/* Plain passes over float32: finite check and sums of squares. Inner loops run
 * over one line with a constant count, which compilers vectorise at -O2. */
#include "kernels/kernels.h"

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

static double fold(double acc[FLK_LINE])
{
  for (size_t half = FLK_LINE / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; k++)
      acc[k] += acc[k + half];
  }
  return acc[0];
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
  return fold(acc);
}

void flk_sum_squares_group_c(double *sums, const float *src,
                             const flk_lines *lines)
{
  for (size_t b = 0; b < lines->count; b++) {
    double acc[FLK_LINE] = {0};
    for (size_t j = 0; j < lines->n / FLK_LINE; j++) {
      const float *line = src + j * lines->stride + b * FLK_LINE;
      for (size_t k = 0; k < FLK_LINE; k++)
        acc[k] += (double)line[k] * (double)line[k];
    }
    sums[b] = fold(acc);
  }
}
