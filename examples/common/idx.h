/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled images in IDX files (the MNIST family), gzipped or plain. */
#ifndef EXAMPLES_IDX_H
#define EXAMPLES_IDX_H

#include <stddef.h>
#include <stdint.h>

#include <fl/idx.h>

struct idx_set {
  fl_dataset data;       /* of all samples, in order */
  const uint8_t *labels; /* n: those of data.y, one byte each */
  uint32_t n;
  uint32_t sample_size; /* rows * columns */
  uint8_t *image_file;  /* what the others point into */
  uint8_t *label_file;
  int32_t *classes;
};

/* Load <dir>/<prefix>-images-idx3-ubyte[.gz] and -labels-idx1-ubyte[.gz];
 * prefix is "train" or "t10k". Returns 0, or -1 with `error` saying
 * "file: what, got X, want Y". Free with idx_free. */
int idx_load(struct idx_set *set, const char *dir, const char *prefix,
             char *error, size_t error_size);
void idx_free(struct idx_set *set);

#endif
