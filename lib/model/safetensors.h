/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a safetensors file: what it says of its tensors, checked
 * against itself. */
#ifndef FLI_SAFETENSORS_H
#define FLI_SAFETENSORS_H

#include <fl/model.h>

enum {
  FLI_WEIGHTS_MAX_HEADER = 16 << 20,
  FLI_WEIGHTS_MAX_TENSORS = 1 << 16,
  FLI_WEIGHTS_SCHEMA_HEX = 2 * FL_HASH_BYTES
};
#define FLI_WEIGHTS_METADATA "__metadata__"
#define FLI_WEIGHTS_SCHEMA "libfl_schema"

/* How values are stored. Those below FLI_WEIGHTS_FLOATS can be decoded; of the
 * others only the size is known. */
enum {
  FLI_WEIGHTS_F32 = 0,
  FLI_WEIGHTS_F16 = 1,
  FLI_WEIGHTS_BF16 = 2,
  FLI_WEIGHTS_F64 = 3,
  FLI_WEIGHTS_FLOATS = 4
};
#define FLI_WEIGHTS_NO_TENSOR UINT32_MAX

typedef struct fli_weights_entry {
  const char *name; /* in the header's text, not terminated */
  size_t name_size;
  uint32_t type;   /* index into the table of dtypes */
  uint32_t tensor; /* of the model, or FLI_WEIGHTS_NO_TENSOR */
  uint32_t n_dims;
  uint64_t dims[FL_MAX_DIMS];
  uint64_t count; /* product of dims */
  uint64_t begin; /* of its bytes in the data */
  uint64_t end;
} fli_weights_entry;

typedef struct fli_weights_header {
  fl_context *context;
  fli_weights_entry *entries; /* in order of names */
  size_t n_entries;
  size_t capacity;
  int has_schema;
  uint8_t schema[FL_HASH_BYTES];
} fli_weights_header;

/* Parse the header's text, which is changed and holds the names from now on.
 * Names are unique, sizes agree with shapes and dtypes, and together they tile
 * the data. FL_E_FORMAT, FL_E_RANGE, FL_E_TRUNCATED, FL_E_TOO_LARGE,
 * FL_E_UNSUPPORTED (unknown dtype), FL_E_NOMEM. */
fl_status fli_weights_parse(fli_weights_header *header, fl_context *context,
                            char *text, size_t n);
void fli_weights_free(fli_weights_header *header);
/* The entry of that name, or NULL. In order of names only. */
fli_weights_entry *fli_weights_find(const fli_weights_header *header,
                                    const char *name);
/* From order of names to order in the data. */
void fli_weights_sort_by_place(fli_weights_header *header);

const char *fli_weights_type_name(uint32_t type);
uint32_t fli_weights_type_size(uint32_t type);
/* `n` values of a decodable type. F64 beyond float32 becomes infinite. */
void fli_weights_decode(float *out, const uint8_t *data, size_t n,
                        uint32_t type);

/* For error texts: a name cut to what fits, what is not printable as '?'. */
enum { FLI_WEIGHTS_SHOWN = 80 };
const char *fli_weights_show(char out[FLI_WEIGHTS_SHOWN],
                             const fli_weights_entry *entry);

#endif
