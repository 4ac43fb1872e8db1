/* SPDX-License-Identifier: Apache-2.0 */
/* What slices want to know of a store's rows. */
#include "embedding/slice_rows.h"

#include "embedding/hash.h"
#include "embedding/utility.h"

void fli_embedding_tell(const fl_embedding *embedding, const fli_table *table)
{
  const fli_watch *watch = embedding->watch;
  const fli_batch *batch = &table->batch;
  const float scale = 1.0f / table->scale;
  for (size_t u = 0; u < batch->n_unique; u++) {
    float increments[FLI_CHUNKS_MAX] = {0};
    for (uint32_t k = 0; k < table->chunks; k++)
      increments[k] = batch->increments[u * table->chunks + k] * scale;
    watch->touched(watch->user, table->index, batch->ids[batch->firsts[u]],
                   increments);
  }
}

void fli_embedding_first(const fl_embedding *embedding, const fli_table *table,
                         uint64_t id, float *values)
{
  _Alignas(float) uint8_t row[FLI_DIM_MAX * sizeof(float) + 64];
  fli_row_init(embedding, table, id, row);
  fli_chunks_decode(table, row, values, table->chunks);
}

float fli_embedding_threshold(const fli_table *table)
{
  if (table->base == 0 || table->admit_level == 0) return 0.0f;
  return fli_utility_of(table->admit_level, table->base) / table->scale;
}
