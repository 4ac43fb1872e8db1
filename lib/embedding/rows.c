/* SPDX-License-Identifier: Apache-2.0 */
/* First values of rows. */
#include "embedding/hash.h"

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
