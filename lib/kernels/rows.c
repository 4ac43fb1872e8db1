/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables in plain C, and which version this machine runs. */
#include "kernels/rows.h"

#include "base/compiler.h"
#include "kernels/once.h"

#ifdef FLK_HAVE_AVX2
#  include "kernels/x86/x86.h"
#endif

enum { TABLES_MAX = 3 };

static flk_rows tables[TABLES_MAX];
static size_t n_tables;
static atomic_int state;

FLI_UNWATCHED
static void add(float *sum, const float *const *rows, const float *factors,
                size_t n_rows, size_t n)
{
  for (size_t r = 0; r < n_rows; r++) {
    const float *row = rows[r];
    const float factor = factors ? factors[r] : 1.0f;
    for (size_t i = 0; i < n; i++)
      sum[i] += factor * row[i];
  }
}

static void step(float *row, const float *gradient, float factor, size_t n)
{
  for (size_t i = 0; i < n; i++)
    row[i] -= factor * gradient[i];
}

static void squares(float *sums, const float *x, size_t n_chunks, size_t n)
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

static void fill(void)
{
  tables[n_tables++] = (flk_rows){.add = add, .step = step, .squares = squares};
#ifdef FLK_HAVE_AVX2
  if (!flk_has_avx2()) return;
  tables[n_tables++] = flk_rows_avx2;
  if (!flk_has_avx512()) return;
  tables[n_tables++] = flk_rows_avx512;
#endif
}

const flk_rows *flk_rows_kernels(void)
{
  flk_once(&state, fill);
  return &tables[n_tables - 1];
}

const flk_rows *flk_rows_at(size_t index)
{
  flk_once(&state, fill);
  return index < n_tables ? &tables[index] : NULL;
}
