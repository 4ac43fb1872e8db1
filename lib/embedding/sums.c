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
  fli_chunks_decode(table, bytes, row, fli_count_of(mask));
  add_some_chunks(table, sum, row, mask, factor);
}

void fli_row_add(const fli_table *table, float *sum, const float *row,
                 uint32_t mask, float factor)
{
  if (mask == 0) return;
  if (table->precision != FL_EMBEDDING_F32) {
    add_decoded(table, sum, (const uint8_t *)row, mask, factor);
  } else {
    add_some_chunks(table, sum, row, mask, factor);
  }
}

void fli_rows_add(const fli_table *table, float *sum, const fli_window *window,
                  size_t i, size_t n, const float *weights)
{
  const uint32_t whole = (1u << table->chunks) - 1;
  const int has_floats = table->precision == FL_EMBEDDING_F32;
  for (size_t at = 0; at < n;) {
    const float *w = weights ? weights + at : NULL;
    size_t count = window->are_whole && has_floats ? n : 0;
    while (has_floats && at + count < n &&
           window->masks[i + at + count] == whole)
      count++;
    if (count > 0) {
      flk_rows_kernels()->add(sum, window->rows + i + at, w, count, table->dim);
      at += count;
      continue;
    }
    fli_row_add(table, sum, window->rows[i + at], window->masks[i + at],
                w ? *w : 1.0f);
    at++;
  }
}
