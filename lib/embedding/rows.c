/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic on rows, with separate multiply and add, in an order that does
 * not depend on anything but the batch. */
#include "embedding/hash.h"

#include "base/bytes.h"

void fli_rows_sum(float *out, const float *const *rows, const float *factors,
                  size_t n, size_t dim)
{
  for (size_t r = 0; r < n; r++) {
    const float *row = rows[r];
    const float factor = factors ? factors[r] : 1.0f;
    for (size_t i = 0; i < dim; i++)
      out[i] += factor * row[i];
  }
}

float fli_chunk_square(const float *x, size_t n)
{
  float sums[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < n; i += 4) {
    for (size_t j = 0; j < 4; j++)
      sums[j] += x[i + j] * x[i + j];
  }
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

void fli_row_step(float *row, const float *gradient, float factor, size_t n)
{
  for (size_t i = 0; i < n; i++)
    row[i] -= factor * gradient[i];
}

/* Sums of 4 uniform numbers of 16 bits, near enough to normal ones: variance
 * 4 / 12, mean 4 x (2^16 - 1) / 2. */
void fli_row_init(const fl_embedding *embedding, const fli_table *table,
                  uint64_t id, float *row)
{
  const float scale = table->init_scale * 1.7320508f / 65536.0f;
  uint64_t name = fli_scatter(embedding->options.seed ^
                              fli_scatter(id ^ (uint64_t)table->index << 56));
  for (uint32_t i = 0; i < table->dim; i++) {
    uint64_t bits = fli_scatter(name + i);
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) +
                  (int32_t)(bits >> 32 & 0xffff) + (int32_t)(bits >> 48);
    row[i] = (float)(sum - 2 * 65535) * scale;
  }
}
