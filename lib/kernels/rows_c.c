/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables: short arrays, each somewhere else. */
#include "kernels/kernels.h"

void flk_rows_add_c(float *sum, const float *const *rows, const float *factors,
                    size_t n_rows, size_t n)
{
  for (size_t r = 0; r < n_rows; r++) {
    const float *row = rows[r];
    const float factor = factors ? factors[r] : 1.0f;
    for (size_t i = 0; i < n; i++)
      sum[i] += factor * row[i];
  }
}

void flk_row_step_c(float *row, const float *gradient, float factor, size_t n)
{
  for (size_t i = 0; i < n; i++)
    row[i] -= factor * gradient[i];
}

void flk_chunk_squares_c(float *sums, const float *x, size_t n_chunks, size_t n)
{
  for (size_t k = 0; k < n_chunks; k++) {
    float lanes[4] = {0, 0, 0, 0};
    for (size_t i = 0; i < n; i += 4) {
      for (size_t j = 0; j < 4; j++)
        lanes[j] += x[i + j] * x[i + j];
    }
    sums[k] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    x += n;
  }
}
