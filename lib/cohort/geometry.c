/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the cohorts' geometry. Sums of floats are made in 16 lanes that
 * are folded in one order, so that every vector unit gives the same bits. */
#include "cohort/cohort.h"

#include <assert.h>
#include <math.h>

#include "base/compiler.h"

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define TINY 1e-12f

uint64_t fli_split_next(fli_split_rng *rng)
{
  uint64_t z = rng->state += GOLDEN;
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

uint32_t fli_split_below(fli_split_rng *rng, uint32_t n)
{
  return (uint32_t)((fli_split_next(rng) >> 32) * n >> 32);
}

double fli_split_unit(fli_split_rng *rng)
{
  return (double)(fli_split_next(rng) >> 40) * 0x1p-24;
}

static float fold(const float lanes[FLI_COHORT_LANES])
{
  float sums[FLI_COHORT_LANES];
  for (unsigned i = 0; i < FLI_COHORT_LANES; i++)
    sums[i] = lanes[i];
  for (unsigned half = FLI_COHORT_LANES / 2; half > 0; half /= 2) {
    for (unsigned i = 0; i < half; i++)
      sums[i] += sums[i + half];
  }
  return sums[0];
}

float fli_dot(const float *a, const float *b, size_t n)
{
  float lanes[FLI_COHORT_LANES] = {0};
  size_t i = 0;
  for (; i + FLI_COHORT_LANES <= n; i += FLI_COHORT_LANES) {
    for (unsigned lane = 0; lane < FLI_COHORT_LANES; lane++)
      lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (unsigned lane = 0; i < n; i++, lane++)
    lanes[lane] += a[i] * b[i];
  return fold(lanes);
}

float fli_distance2(const float *a, const float *b, size_t n)
{
  float lanes[FLI_COHORT_LANES] = {0};
  size_t i = 0;
  for (; i + FLI_COHORT_LANES <= n; i += FLI_COHORT_LANES) {
    for (unsigned lane = 0; lane < FLI_COHORT_LANES; lane++) {
      float difference = a[i + lane] - b[i + lane];
      lanes[lane] += difference * difference;
    }
  }
  for (unsigned lane = 0; i < n; i++, lane++)
    lanes[lane] += (a[i] - b[i]) * (a[i] - b[i]);
  return fold(lanes);
}

void fli_centre_rows(float *rows, uint32_t n, size_t dim, float *mean)
{
  for (size_t i = 0; i < dim; i++)
    mean[i] = 0.0f;
  for (uint32_t k = 0; k < n; k++) {
    for (size_t i = 0; i < dim; i++)
      mean[i] += rows[k * dim + i];
  }
  for (size_t i = 0; i < dim; i++)
    mean[i] /= (float)n;
  for (uint32_t k = 0; k < n; k++) {
    float *row = rows + k * dim;
    for (size_t i = 0; i < dim; i++)
      row[i] -= mean[i];
    float scale = 1.0f / (sqrtf(fli_dot(row, row, dim)) + TINY);
    for (size_t i = 0; i < dim; i++)
      row[i] *= scale;
  }
}

/* Level l of 16 stands for 2 l - 15 times a scale, which unit length takes
 * away. */
void fli_unpack_sketch(float *out, const uint8_t *sketch, size_t dim)
{
  enum { LOW = 15 };
  int32_t squares = 0;
  assert(dim % 2 == 0 && dim <= 4096);
  for (size_t i = 0; i < dim / 2; i++) {
    int32_t low = 2 * (int32_t)(sketch[i] & LOW) - LOW;
    int32_t high = 2 * (int32_t)(sketch[i] >> 4) - LOW;
    squares += low * low + high * high;
    out[2 * i] = (float)low;
    out[2 * i + 1] = (float)high;
  }
  float scale = 1.0f / sqrtf((float)squares);
  for (size_t i = 0; i < dim; i++)
    out[i] *= scale;
}

/* At most a few hundred, once per round. */
static void sort(double *values, uint32_t n)
{
  for (uint32_t gap = n / 2; gap > 0; gap /= 2) {
    for (uint32_t i = gap; i < n; i++) {
      double value = values[i];
      uint32_t k = i;
      for (; k >= gap && values[k - gap] > value; k -= gap)
        values[k] = values[k - gap];
      values[k] = value;
    }
  }
}

double fli_median_of(double *values, uint32_t n)
{
  assert(n > 0);
  sort(values, n);
  return n % 2 ? values[n / 2] : .5 * (values[n / 2 - 1] + values[n / 2]);
}

double fli_gap_of(const double *values, uint32_t n)
{
  double sums[2] = {0}, within = 0.0, total = 0.0;
  uint32_t counts[2] = {0};
  for (uint32_t i = 0; i < n; i++) {
    int side = values[i] > 0.0;
    sums[side] += values[i];
    counts[side]++;
  }
  if (counts[0] == 0 || counts[1] == 0) return 0.0;
  double mean = (sums[0] + sums[1]) / n;
  for (uint32_t i = 0; i < n; i++) {
    int side = values[i] > 0.0;
    double from_side = values[i] - sums[side] / counts[side];
    within += from_side * from_side;
    total += (values[i] - mean) * (values[i] - mean);
  }
  return 1.0 - within / (total + 1e-12);
}
