/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of numpy's .npy files, as far as they hold a matrix of float32 in C
 * order (format version 1, `numpy.save` of a two-dimensional array). */
#ifndef BENCH_NPY_H
#define BENCH_NPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { NPY_MAX_ROWS = 65535, NPY_MAX_HEADER = 4096 };

typedef struct npy_matrix {
  uint32_t rows;
  uint64_t columns;
  float *values; /* row after row; npy_free gives it back */
} npy_matrix;

/* Read one matrix that takes the whole rest of the file. Returns 0, or -1 with
 * what is wrong in `error`; nothing is kept then. Sizes are compared with the
 * file's before memory is asked for. */
int npy_read(npy_matrix *matrix, FILE *file, char *error, size_t error_size);
void npy_free(npy_matrix *matrix);

#endif
