/* SPDX-License-Identifier: Apache-2.0 */
/* Two IDX files, images and labels; the first two bytes say where one ends and
 * the other begins. What is accepted lies within the file, is described by the
 * very header that it came with, and makes a data set whose samples and labels
 * can all be read. */
#include "fuzz.h"

#include <fl/idx.h>

static void put_big_endian(uint8_t *out, uint64_t value)
{
  for (int i = 0; i < 4; i++)
    out[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* 1 when the bytes are an IDX file. */
static int parse(fl_idx *idx, const uint8_t *data, size_t n)
{
  FUZZ_CHECK(fl_idx_init(idx, sizeof *idx) == FL_OK);
  if (fl_idx_parse(idx, data, n) != FL_OK) {
    FUZZ_CHECK(idx->values == NULL && idx->count == 0);
    FUZZ_CHECK(strlen(fl_last_error()) > 0);
    return 0;
  }
  uint8_t header[4 + 4 * FL_MAX_DIMS] = {0, 0, 8, (uint8_t)idx->n_dims};
  size_t size = 4 + 4 * (size_t)idx->n_dims;
  uint64_t count = 1;
  FUZZ_CHECK(idx->n_dims >= 1 && idx->n_dims <= FL_MAX_DIMS);
  for (uint32_t i = 0; i < idx->n_dims; i++) {
    put_big_endian(header + 4 + 4 * i, idx->dims[i]);
    count *= idx->dims[i];
  }
  FUZZ_CHECK(memcmp(header, data, size) == 0);
  FUZZ_CHECK(idx->values == data + size && idx->count == count);
  FUZZ_CHECK(size + count == n);
  return 1;
}

static void make_data_set(const fl_idx *images, const fl_idx *labels)
{
  fl_dataset data;
  size_t n = (size_t)images->dims[0];
  int32_t *y = malloc(n * sizeof *y);
  FUZZ_CHECK(y != NULL);
  FUZZ_CHECK(fl_dataset_init(&data, sizeof data) == FL_OK);
  fl_status st = fl_dataset_from_idx(&data, images, labels, y, n);
  if (st == FL_OK) {
    size_t sample = (size_t)(images->count / n);
    const uint8_t *x = data.x;
    FUZZ_CHECK(data.n == n && labels->count == n);
    for (size_t i = 0; i < n; i++) {
      FUZZ_CHECK(data.y[i] == labels->values[i]);
      FUZZ_CHECK(x[i * sample] == images->values[i * sample]);
    }
    FUZZ_CHECK(fl_dataset_from_idx(&data, images, labels, y, n - 1) ==
               FL_E_SIZE);
  } else {
    FUZZ_CHECK(st == FL_E_DIM && data.x == NULL && data.n == 0);
  }
  free(y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_idx images, labels;
  if (n < 2) return 0;
  size_t first = (size_t)data[0] << 8 | data[1];
  data += 2;
  n -= 2;
  if (first > n) first = n;
  uint8_t *a = fuzz_exact_copy(data, first);
  uint8_t *b = fuzz_exact_copy(data + first, n - first);
  int has_images = parse(&images, a, first);
  int has_labels = parse(&labels, b, n - first);
  if (has_images && has_labels) make_data_set(&images, &labels);
  free(a);
  free(b);
  return 0;
}
