/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables: short arrays, each somewhere else. A table of its
 * own, for programs without embeddings have no use for it. D0, as everything
 * in kernels.h: multiply and add stay apart. n is a multiple of 4. */
#ifndef FLK_ROWS_H
#define FLK_ROWS_H

#include <stddef.h>

typedef struct flk_rows {
  /* sum += factors[r] rows[r], in the order of r; factors NULL: all 1. Not
   * watched by ThreadSanitizer: lookups read rows that may be written. */
  void (*add)(float *sum, const float *const *rows, const float *factors,
              size_t n_rows, size_t n);
  /* row -= factor gradient */
  void (*step)(float *row, const float *gradient, float factor, size_t n);
  /* sums[k] = sum of squares of n values from x[k n] on, in 4 lanes that are
   * folded 0 + 2, 1 + 3. In float32: may be infinite. */
  void (*squares)(float *sums, const float *x, size_t n_chunks, size_t n);
} flk_rows;

/* The best table for this machine. Thread-safe, static. */
const flk_rows *flk_rows_kernels(void);
/* Tables that this machine can run, from weak to strong: 0 is the plain C
 * version, which is the specification; NULL behind the last. */
const flk_rows *flk_rows_at(size_t index);

#endif
