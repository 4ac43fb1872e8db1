/* SPDX-License-Identifier: Apache-2.0 */
/* Combining many updates: weighted sums, order statistics of every coordinate,
 * inner products of all pairs. A table of its own, for clients have no use for
 * it. D0, as everything in kernels.h: multiply and add stay apart.
 *
 * Order statistics work on a strip of FLK_STRIP coordinates: row k of `keys`
 * has those of update k, as integers in the order of the floats (-0 before
 * 0). */
#ifndef FLK_ROBUST_H
#define FLK_ROBUST_H

#include <stddef.h>
#include <stdint.h>

enum {
  FLK_STRIP = 32,
  FLK_DOT_LANES = 16,
  FLK_DOT_MOST = 4 /* rows and columns of a block of products */
};

/* n values from rows[k] + at on, times factors[k] unless factors is NULL. */
typedef struct flk_strip {
  const float *const *rows;
  const float *factors;
  size_t n_rows;
  size_t at;
  size_t n; /* 1..FLK_STRIP; other lanes get zeros */
} flk_strip;

/* Order two rows: the smaller keys go to row `low`. */
typedef struct flk_exchange {
  uint16_t low, high;
} flk_exchange;

typedef struct flk_robust {
  /* sum += factors[k] (rows[k] + at), in double, in the order of k; n values.
   * Rows whose factor is 0 are not read. */
  void (*add)(double *sum, const float *const *rows, const double *factors,
              size_t n_rows, size_t at, size_t n);
  void (*load)(int32_t *keys, const flk_strip *strip);
  void (*exchange)(int32_t *keys, const flk_exchange *exchanges, size_t n);
  /* out[i] = the key of column i that has `rank` smaller or equal ones before
   * it when sorted. */
  void (*select)(int32_t *out, const int32_t *keys, size_t n_rows, size_t rank);
  /* out[i] = sum of the values of n_rows rows, in double, in their order. */
  void (*sum)(double *out, const int32_t *keys, size_t n_rows);
  /* sums[r FLK_DOT_MOST + c] = rows[r] . columns[c] in float32: lane k of 16
   * adds the products of values k, 16 + k, ...; lanes are folded k += k + 8, 4,
   * 2, 1. n a multiple of 16. */
  void (*dots)(float *sums, const float *const *rows,
               const float *const *columns, size_t n);
  size_t dot_rows; /* of a block; what `dots` reads and writes */
  size_t dot_columns;
} flk_robust;

static inline int32_t flk_key_of_bits(uint32_t bits)
{
  return (int32_t)(bits ^ ((0u - (bits >> 31)) >> 1));
}

/* The best table for this machine. Thread-safe, static. */
const flk_robust *flk_robust_kernels(void);
/* Tables that this machine can run, from weak to strong; 0 is what every
 * machine runs; NULL behind the last. */
const flk_robust *flk_robust_at(size_t index);

#endif
