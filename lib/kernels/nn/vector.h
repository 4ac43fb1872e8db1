/* SPDX-License-Identifier: Apache-2.0 */
/* Sums and other things done to whole arrays (vector_body.h). Any n; outputs
 * may be inputs where they begin at the same place. */
#ifndef FLK_NN_VECTOR_H
#define FLK_NN_VECTOR_H

#include <stddef.h>
#include <stdint.h>

typedef struct flk_vector_kernels {
  /* y = a + b */
  void (*add)(float *y, const float *a, const float *b, size_t n);
  /* y += factor x */
  void (*axpy)(float *y, float factor, const float *x, size_t n);
  /* y = factor x */
  void (*scale)(float *y, float factor, const float *x, size_t n);
  /* y = x factor + shift */
  void (*from_u8)(float *y, const uint8_t *x, size_t n, float factor,
                  float shift);
  void (*from_f32)(float *y, const float *x, size_t n, float factor,
                   float shift);
  /* sums[i] = (does_add: +=) the sum of x[r][i] over the rows. Partial sums
   * are of at most 256 rows. */
  void (*column_sums)(float *sums, const float *x, size_t rows, size_t n,
                      int does_add);
  /* The sum of x^2, of exact squares in double. */
  double (*sum_squares)(const float *x, size_t n);
  /* y[r] = table[ids[r]], rows of n; ids are the caller's to check. */
  void (*gather)(float *y, const float *table, const int32_t *ids, size_t rows,
                 size_t n);
  /* table[ids[r]] += x[r], in the order of r. */
  void (*scatter_add)(float *table, const float *x, const int32_t *ids,
                      size_t rows, size_t n);
} flk_vector_kernels;

#endif
