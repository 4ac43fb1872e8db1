/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled images in IDX files (the MNIST family), gzipped or plain. */
#ifndef EXAMPLES_IDX_H
#define EXAMPLES_IDX_H

#include <stddef.h>
#include <stdint.h>

struct idx_set {
  uint8_t *pixels;  /* n * sample_size, one byte each */
  uint8_t *labels;  /* n */
  int32_t *classes; /* n: the labels again, as fl_dataset wants them */
  uint32_t n;
  uint32_t sample_size; /* rows * columns */
};

/* Load <dir>/<prefix>-images-idx3-ubyte[.gz] and -labels-idx1-ubyte[.gz];
 * prefix is "train" or "t10k". Returns 0, or -1 with `error` saying
 * "file: what, got X, want Y". Free with idx_free. */
int idx_load(struct idx_set *set, const char *dir, const char *prefix,
             char *error, size_t error_size);
void idx_free(struct idx_set *set);

#endif
