/* SPDX-License-Identifier: Apache-2.0 */
/* First values of rows, and whether values are finite. */
#include "embedding/hash.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/kernels.h"

void fli_row_read(const fli_table *table, uint32_t where, float *values)
{
  const fli_pool *pool = table->pools[fli_where_count(where)];
  const uint8_t *row = fli_pool_row(pool, where & FLI_INDEX_MASK);
  const size_t n = table->chunk_floats;
  memset(values, 0, table->dim * sizeof *values);
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(where >> (FLI_MASK_SHIFT + k) & 1)) continue;
    fli_chunks_decode(table, row, values + k * n, 1);
    row += table->chunk_bytes;
  }
}

int fli_row_is_finite(const fli_table *table, const uint8_t *row, size_t n)
{
  float values[FLI_DIM_MAX];
  const uint32_t n_chunks = (uint32_t)n / table->chunk_bytes;
  const size_t n_values = (size_t)n_chunks * table->chunk_floats;
  fli_chunks_decode(table, row, values, n_chunks);
  return flk_kernels()->find_not_finite(values, n_values) == n_values;
}

int fli_row_bytes_are_finite(const fli_table *table, const uint8_t *bytes,
                             size_t n)
{
  if (table->precision != FL_EMBEDDING_F32)
    return fli_row_is_finite(table, bytes, n);
  for (size_t i = 0; i < n; i += sizeof(float)) {
    if (!isfinite(fli_load_f32(bytes + i))) return 0;
  }
  return 1;
}

/* Sums of 4 uniform numbers of 16 bits, near enough to normal ones: variance
 * 4 / 12, mean 4 x (2^16 - 1) / 2. */
void fli_row_init(const fl_embedding *embedding, const fli_table *table,
                  uint64_t id, uint8_t *row)
{
  float values[FLI_DIM_MAX];
  const float scale = table->init_scale * 1.7320508f / 65536.0f;
  uint64_t name = fli_scatter(embedding->options.seed ^
                              fli_scatter(id ^ (uint64_t)table->index << 56));
  for (uint32_t i = 0; i < table->dim; i++) {
    uint64_t bits = fli_scatter(name + i);
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) +
                  (int32_t)(bits >> 32 & 0xffff) + (int32_t)(bits >> 48);
    values[i] = (float)(sum - 2 * 65535) * scale;
  }
  fli_chunks_encode(table, row, values, table->chunks, name ^ FLI_ODD);
}
