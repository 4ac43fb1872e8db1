/* SPDX-License-Identifier: Apache-2.0 */
/* Rows into the sum of a bag. Runs of rows that have all their chunks are one
 * call of the kernel, which keeps the sum in registers. */
#include "embedding/hash.h"

#include "kernels/rows.h"

static void add_some_chunks(const fli_table *table, float *sum,
                            const float *row, uint32_t mask, float factor)
{
  const flk_rows *kernels = flk_rows_kernels();
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(mask >> k & 1)) continue;
    kernels->add(sum + (size_t)k * table->chunk_floats, &row, &factor, 1,
                 table->chunk_floats);
    row += table->chunk_floats;
  }
}

static void add_decoded(const fli_table *table, float *sum,
                        const uint8_t *bytes, uint32_t mask, float factor)
{
  float row[FLI_DIM_MAX];
  if (mask == 0) return;
  fli_chunks_decode(table, bytes, row, fli_count_of(mask));
  add_some_chunks(table, sum, row, mask, factor);
}

void fli_rows_add(const fli_table *table, float *sum, size_t n,
                  const uint32_t *masks, const uint8_t *const *bytes,
                  const float *weights)
{
  /* They are floats, in tables that have them. */
  const float *rows[FLI_WINDOW];
  const uint32_t whole = (1u << table->chunks) - 1;
  if (table->precision != FL_EMBEDDING_F32) {
    for (size_t i = 0; i < n; i++)
      add_decoded(table, sum, bytes[i], masks[i], weights ? weights[i] : 1.0f);
    return;
  }
  for (size_t i = 0; i < n; i++)
    rows[i] = (const float *)(const void *)bytes[i];
  for (size_t i = 0; i < n;) {
    size_t count = 0;
    while (i + count < n && masks[i + count] == whole)
      count++;
    if (count > 0) {
      flk_rows_kernels()->add(sum, rows + i, weights ? weights + i : NULL,
                              count, table->dim);
      i += count;
      continue;
    }
    add_some_chunks(table, sum, rows[i], masks[i], weights ? weights[i] : 1.0f);
    i++;
  }
}
