/* SPDX-License-Identifier: Apache-2.0 */
/* IDX files: two zero bytes, the type of the values, the number of dimensions,
 * the dimensions as big-endian 32-bit numbers, the values in row-major order.
 * A wrong file is the first mistake that people make with such data, so every
 * field says what it should have been. */
#include <fl/idx.h>

#include <inttypes.h>

#include "base/error.h"
#include "base/options.h"
#include "base/size.h"

enum { MAGIC_BYTES = 4, TYPE_U8 = 0x08 };

static const fl_idx no_values = {.struct_size = sizeof(fl_idx)};

fl_status fl_idx_init(fl_idx *idx, size_t size)
{
  fli_clear_error();
  return fli_options_init(idx, size, &no_values, sizeof no_values);
}

static uint32_t load_big_endian(const uint8_t *p)
{
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
         (uint32_t)p[3];
}

/* What the format calls a type, or NULL when it knows none. */
static const char *type_name(uint8_t type)
{
  switch (type) {
  case TYPE_U8: return "unsigned bytes";
  case 0x09: return "signed bytes";
  case 0x0b: return "16-bit integers";
  case 0x0c: return "32-bit integers";
  case 0x0d: return "float32";
  case 0x0e: return "float64";
  default: return NULL;
  }
}

static fl_status ends_early(size_t got, uint64_t want)
{
  return fli_error(FL_E_TRUNCATED,
                   "idx: ends early, got %zu bytes, want %" PRIu64, got, want);
}

static fl_status read_magic(const uint8_t *bytes, size_t n, uint32_t *n_dims)
{
  if (n < MAGIC_BYTES) return ends_early(n, MAGIC_BYTES);
  const char *type = type_name(bytes[2]);
  if (bytes[0] != 0 || bytes[1] != 0 || !type || bytes[3] == 0) {
    return fli_error(FL_E_FORMAT,
                     "idx: magic number, got 0x%08" PRIx32
                     ", want 0x000008 and the number of dimensions",
                     load_big_endian(bytes));
  }
  if (bytes[2] != TYPE_U8) {
    return fli_error(FL_E_UNSUPPORTED,
                     "idx: type, got 0x%02x (%s), want 0x08 "
                     "(unsigned bytes)",
                     bytes[2], type);
  }
  if (bytes[3] > FL_MAX_DIMS) {
    return fli_error(FL_E_TOO_LARGE, "idx: dimensions, got %u, want <= %d",
                     bytes[3], FL_MAX_DIMS);
  }
  *n_dims = bytes[3];
  return FL_OK;
}

static fl_status read_dims(fl_idx *idx, const uint8_t *bytes)
{
  idx->count = 1;
  for (uint32_t i = 0; i < idx->n_dims; i++) {
    idx->dims[i] = load_big_endian(bytes + 4 * i);
    if (idx->dims[i] == 0) {
      return fli_error(FL_E_RANGE, "idx: dimension %u, got 0, want >= 1", i);
    }
    if (!fli_mul_u64(idx->count, idx->dims[i], &idx->count)) {
      return fli_error(FL_E_TOO_LARGE,
                       "idx: dimension %u, got %" PRIu64
                       ", want a product of at most 2^64 - 1",
                       i, idx->dims[i]);
    }
  }
  return FL_OK;
}

fl_status fl_idx_parse(fl_idx *idx, const void *data, size_t n)
{
  fl_status st = FL_OK;
  const uint8_t *bytes = data;
  fl_idx full = no_values;
  uint64_t want = 0;
  fli_clear_error();
  if (!idx || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "idx_parse: a pointer is NULL");
  }
  FLI_TRY(read_magic(bytes, n, &full.n_dims));
  size_t header = MAGIC_BYTES + 4 * (size_t)full.n_dims;
  if (n < header) return ends_early(n, header);
  FLI_TRY(read_dims(&full, bytes + MAGIC_BYTES));
  if (!fli_add_u64(header, full.count, &want) || n < want) {
    return ends_early(n, want ? want : UINT64_MAX);
  }
  if (n > want) {
    return fli_error(FL_E_FORMAT, "idx: goes on, got %zu bytes, want %" PRIu64,
                     n, want);
  }
  full.values = bytes + header;
  FLI_TRY(fli_options_store(idx, &full, sizeof full, "fl_idx"));
out:
  return st;
}

/* The caller's struct, which may be an older one, and whether it has values. */
static fl_status load(fl_idx *loaded, const fl_idx *idx, const char *what)
{
  fl_status st = FL_OK;
  *loaded = no_values;
  FLI_TRY(fli_options_load(loaded, sizeof *loaded, idx, "fl_idx"));
  if (!loaded->values || loaded->n_dims == 0 || loaded->count == 0) {
    st = fli_error(FL_E_EMPTY, "%s: no values, want what fl_idx_parse found",
                   what);
  }
out:
  return st;
}

static fl_status copy_labels(const fl_idx *labels, uint64_t n, int32_t *y,
                             uint64_t y_count)
{
  if (labels->n_dims != 1 || labels->dims[0] != n) {
    return fli_error(FL_E_DIM,
                     "labels: got %" PRIu64 " in %u dimensions, want one for "
                     "each of %" PRIu64 " images",
                     labels->dims[0], labels->n_dims, n);
  }
  if (y_count < n) {
    return fli_error(FL_E_SIZE,
                     "labels: got room for %" PRIu64 ", want %" PRIu64, y_count,
                     n);
  }
  for (uint64_t i = 0; i < n; i++) {
    y[i] = labels->values[i];
  }
  return FL_OK;
}

fl_status fl_dataset_from_idx(fl_dataset *data, const fl_idx *images,
                              const fl_idx *labels, int32_t *y,
                              uint64_t y_count)
{
  fl_status st = FL_OK;
  fl_idx pixels;
  fl_idx classes;
  fl_dataset full = {0};
  fli_clear_error();
  if (!data || !images || !labels != !y) {
    return fli_error(FL_E_ARGUMENT, "dataset_from_idx: a pointer is NULL");
  }
  FLI_TRY(fli_options_load(&full, sizeof full, data, "fl_dataset"));
  FLI_TRY(load(&pixels, images, "images"));
  full = (fl_dataset){
      .x_dtype = FL_DTYPE_U8,
      .x = pixels.values,
      .y = y,
      .n = pixels.dims[0],
      .sample_size = pixels.count / pixels.dims[0],
  };
  if (labels) {
    FLI_TRY(load(&classes, labels, "labels"));
    FLI_TRY(copy_labels(&classes, full.n, y, y_count));
  }
  FLI_TRY(fli_options_store(data, &full, sizeof full, "fl_dataset"));
out:
  return st;
}
