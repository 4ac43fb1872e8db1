/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors headers: {"name": {"dtype": "F32", "shape": [2, 3],
 * "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "text", ...}}. The
 * format wants offsets that cover the data exactly, in whatever order the names
 * stand; nothing else could be read from a stream that cannot seek. Every
 * number is taken exactly (double would lose those from 2^53 on) and compared
 * with what follows from the others before anybody acts on it. */
#include "model/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/size.h"
#include "wire/json.h"

typedef struct dtype {
  char name[12];
  uint32_t size;
} dtype;

static const dtype dtypes[] = {
    [FLI_WEIGHTS_F32] = {"F32", 4},
    [FLI_WEIGHTS_F16] = {"F16", 2},
    [FLI_WEIGHTS_BF16] = {"BF16", 2},
    [FLI_WEIGHTS_F64] = {"F64", 8},
    {"BOOL", 1},
    {"U8", 1},
    {"I8", 1},
    {"F8_E5M2", 1},
    {"F8_E4M3", 1},
    {"F8_E8M0", 1},
    {"I16", 2},
    {"U16", 2},
    {"I32", 4},
    {"U32", 4},
    {"I64", 8},
    {"U64", 8},
    {"C64", 8},
};

/* Fields of an entry, as bits of those that were there. */
enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4, HAS_ALL = 7 };

const char *fli_weights_type_name(uint32_t type)
{
  return dtypes[type].name;
}

uint32_t fli_weights_type_size(uint32_t type)
{
  return dtypes[type].size;
}

const char *fli_weights_show(char out[FLI_WEIGHTS_SHOWN],
                             const fli_weights_entry *entry)
{
  size_t n = entry->name_size;
  if (n > FLI_WEIGHTS_SHOWN - 1) n = FLI_WEIGHTS_SHOWN - 1;
  for (size_t i = 0; i < n; i++) {
    char c = entry->name[i];
    out[i] = (char)(c < 0x20 || c > 0x7e ? '?' : c);
  }
  out[n] = '\0';
  return out;
}

static int is_text(const char *text, size_t n, const char *want)
{
  return text && n == strlen(want) && memcmp(text, want, n) == 0;
}

static fl_status read_dtype(fli_json *json, fli_weights_entry *entry)
{
  char shown[FLI_WEIGHTS_SHOWN];
  size_t n;
  const char *name = fli_json_string(json, &n);
  if (!name) return fli_json_status(json);
  for (uint32_t i = 0; i < FLI_COUNT_OF(dtypes); i++) {
    if (is_text(name, n, dtypes[i].name)) {
      entry->type = i;
      return FL_OK;
    }
  }
  return fli_error(FL_E_UNSUPPORTED, "weights: tensor %s: dtype is unknown",
                   fli_weights_show(shown, entry));
}

static fl_status read_shape(fli_json *json, fli_weights_entry *entry)
{
  char shown[FLI_WEIGHTS_SHOWN];
  entry->count = 1;
  fli_json_array(json);
  while (fli_json_next(json)) {
    uint64_t dim = fli_json_u64(json);
    if (fli_json_status(json) != FL_OK) break;
    if (entry->n_dims == FL_MAX_DIMS) {
      return fli_error(FL_E_TOO_LARGE,
                       "weights: tensor %s: shape, want <= %d dimensions",
                       fli_weights_show(shown, entry), FL_MAX_DIMS);
    }
    entry->dims[entry->n_dims++] = dim;
    if (!fli_mul_u64(entry->count, dim, &entry->count)) {
      return fli_error(FL_E_RANGE,
                       "weights: tensor %s: shape, its product is above "
                       "2^64 - 1",
                       fli_weights_show(shown, entry));
    }
  }
  return fli_json_status(json);
}

static fl_status read_offsets(fli_json *json, fli_weights_entry *entry)
{
  char shown[FLI_WEIGHTS_SHOWN];
  uint64_t values[2] = {0};
  size_t n = 0;
  fli_json_array(json);
  while (n <= 2 && fli_json_next(json)) {
    uint64_t value = fli_json_u64(json);
    if (n < 2) values[n] = value;
    n++;
  }
  if (fli_json_status(json) != FL_OK) return fli_json_status(json);
  entry->begin = values[0];
  entry->end = values[1];
  if (n == 2 && entry->begin <= entry->end) return FL_OK;
  return fli_error(FL_E_FORMAT,
                   "weights: tensor %s: data_offsets, want [begin, end]",
                   fli_weights_show(shown, entry));
}

static fl_status read_field(fli_json *json, fli_weights_entry *entry,
                            unsigned *found)
{
  char shown[FLI_WEIGHTS_SHOWN];
  size_t n;
  const char *key = fli_json_string(json, &n);
  unsigned field = is_text(key, n, "dtype")          ? HAS_DTYPE
                   : is_text(key, n, "shape")        ? HAS_SHAPE
                   : is_text(key, n, "data_offsets") ? HAS_OFFSETS
                                                     : 0;
  if (!key) return fli_json_status(json);
  if (field == 0 || (*found & field)) {
    return fli_error(FL_E_FORMAT, "weights: tensor %s: a field %s",
                     fli_weights_show(shown, entry),
                     field ? "stands twice" : "is unknown");
  }
  *found |= field;
  if (field == HAS_DTYPE) return read_dtype(json, entry);
  if (field == HAS_SHAPE) return read_shape(json, entry);
  return read_offsets(json, entry);
}

/* The value of a tensor's name. */
static fl_status read_entry(fli_json *json, fli_weights_entry *entry)
{
  fl_status st = FL_OK;
  char shown[FLI_WEIGHTS_SHOWN];
  unsigned found = 0;
  uint64_t bytes = 0;
  fli_json_object(json);
  while (fli_json_next(json)) {
    FLI_TRY(read_field(json, entry, &found));
  }
  FLI_TRY(fli_json_status(json));
  if (found != HAS_ALL) {
    return fli_error(FL_E_FORMAT,
                     "weights: tensor %s: want dtype, shape and data_offsets",
                     fli_weights_show(shown, entry));
  }
  if (!fli_mul_u64(entry->count, dtypes[entry->type].size, &bytes) ||
      entry->end - entry->begin != bytes) {
    st = fli_error(FL_E_FORMAT,
                   "weights: tensor %s: data_offsets, got %" PRIu64
                   " bytes, want %" PRIu64 " of %s",
                   fli_weights_show(shown, entry), entry->end - entry->begin,
                   entry->count, dtypes[entry->type].name);
  }
out:
  return st;
}

static fl_status add_entry(fli_weights_header *header, fli_json *json,
                           const char *name, size_t name_size)
{
  fl_status st = FL_OK;
  fli_weights_entry entry = {
      .name = name, .name_size = name_size, .tensor = FLI_WEIGHTS_NO_TENSOR};
  if (header->n_entries == FLI_WEIGHTS_MAX_TENSORS) {
    return fli_error(FL_E_TOO_LARGE, "weights: want <= %d tensors",
                     FLI_WEIGHTS_MAX_TENSORS);
  }
  FLI_TRY(read_entry(json, &entry));
  FLI_TRY(fli_grow(header->context, (void **)&header->entries,
                   &header->capacity, header->n_entries + 1, sizeof entry));
  header->entries[header->n_entries++] = entry;
out:
  return st;
}

static int hex_digit(char c)
{
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static fl_status read_schema(fli_weights_header *header, const char *hex,
                             size_t n)
{
  int is_good = hex && n == FLI_WEIGHTS_SCHEMA_HEX && !header->has_schema;
  for (size_t i = 0; is_good && i < FL_HASH_BYTES; i++) {
    int high = hex_digit(hex[2 * i]);
    int low = hex_digit(hex[2 * i + 1]);
    is_good = high >= 0 && low >= 0;
    if (is_good) header->schema[i] = (uint8_t)(high << 4 | low);
  }
  if (!is_good) {
    return fli_error(FL_E_FORMAT,
                     "weights: metadata %s, want %d hexadecimal digits, once",
                     FLI_WEIGHTS_SCHEMA, FLI_WEIGHTS_SCHEMA_HEX);
  }
  header->has_schema = 1;
  return FL_OK;
}

/* Texts by name; those that are not ours are anybody's. */
static fl_status read_metadata(fli_weights_header *header, fli_json *json)
{
  fl_status st = FL_OK;
  fli_json_object(json);
  while (fli_json_next(json)) {
    size_t n = 0;
    size_t key_size = 0;
    const char *key = fli_json_string(json, &key_size);
    const char *value = fli_json_string(json, &n);
    FLI_TRY(fli_json_status(json));
    if (is_text(key, key_size, FLI_WEIGHTS_SCHEMA)) {
      FLI_TRY(read_schema(header, value, n));
    }
  }
  st = fli_json_status(json);
out:
  return st;
}

static fl_status read_all(fli_weights_header *header, fli_json *json)
{
  fl_status st = FL_OK;
  int has_metadata = 0;
  fli_json_object(json);
  while (fli_json_next(json)) {
    size_t n;
    const char *name = fli_json_string(json, &n);
    FLI_TRY(fli_json_status(json));
    if (!is_text(name, n, FLI_WEIGHTS_METADATA)) {
      FLI_TRY(add_entry(header, json, name, n));
    } else if (has_metadata) {
      return fli_error(FL_E_FORMAT, "weights: %s stands twice",
                       FLI_WEIGHTS_METADATA);
    } else {
      has_metadata = 1;
      FLI_TRY(read_metadata(header, json));
    }
  }
  FLI_TRY(fli_json_finish(json));
out:
  return st;
}

static int compare_text(const char *a, size_t n_a, const char *b, size_t n_b)
{
  int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
  return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_names(const void *a, const void *b)
{
  const fli_weights_entry *x = a;
  const fli_weights_entry *y = b;
  return compare_text(x->name, x->name_size, y->name, y->name_size);
}

/* Empty tensors come before the one that begins where they are. */
static int compare_places(const void *a, const void *b)
{
  const fli_weights_entry *x = a;
  const fli_weights_entry *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

void fli_weights_sort_by_place(fli_weights_header *header)
{
  if (header->n_entries > 0) {
    qsort(header->entries, header->n_entries, sizeof *header->entries,
          compare_places);
  }
}

static fl_status check_places(fli_weights_header *header)
{
  char shown[FLI_WEIGHTS_SHOWN];
  uint64_t at = 0;
  fli_weights_sort_by_place(header);
  for (size_t i = 0; i < header->n_entries; i++) {
    const fli_weights_entry *entry = &header->entries[i];
    if (entry->begin != at) {
      return fli_error(FL_E_FORMAT,
                       "weights: tensor %s: data_offsets, it begins at "
                       "%" PRIu64 ", want %" PRIu64,
                       fli_weights_show(shown, entry), entry->begin, at);
    }
    at = entry->end;
  }
  return FL_OK;
}

static fl_status check_names(fli_weights_header *header)
{
  char shown[FLI_WEIGHTS_SHOWN];
  if (header->n_entries == 0) return FL_OK;
  qsort(header->entries, header->n_entries, sizeof *header->entries,
        compare_names);
  for (size_t i = 1; i < header->n_entries; i++) {
    const fli_weights_entry *entry = &header->entries[i];
    if (compare_names(entry - 1, entry) == 0) {
      return fli_error(FL_E_FORMAT, "weights: tensor %s stands twice",
                       fli_weights_show(shown, entry));
    }
  }
  return FL_OK;
}

fli_weights_entry *fli_weights_find(const fli_weights_header *header,
                                    const char *name)
{
  size_t n = strlen(name);
  size_t low = 0;
  size_t high = header->n_entries;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    fli_weights_entry *entry = &header->entries[middle];
    int order = compare_text(name, n, entry->name, entry->name_size);
    if (order == 0) return entry;
    if (order < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return NULL;
}

fl_status fli_weights_parse(fli_weights_header *header, fl_context *context,
                            char *text, size_t n)
{
  fl_status st = FL_OK;
  fli_json json = {0};
  *header = (fli_weights_header){.context = context};
  if (n == 0 || text[0] != '{') {
    return fli_error(FL_E_FORMAT, "weights: the header does not begin with {");
  }
  FLI_TRY(fli_json_open(&json, context, text, n, "weights"));
  FLI_TRY(read_all(header, &json));
  FLI_TRY(check_places(header));
  FLI_TRY(check_names(header));
out:
  fli_json_close(&json);
  if (st != FL_OK) fli_weights_free(header);
  return st;
}

void fli_weights_free(fli_weights_header *header)
{
  fli_free(header->context, header->entries,
           header->capacity * sizeof *header->entries);
  *header = (fli_weights_header){0};
}

void fli_weights_decode(float *out, const uint8_t *data, size_t n,
                        uint32_t type)
{
  for (size_t i = 0; i < n; i++) {
    switch (type) {
    case FLI_WEIGHTS_F16:
      out[i] = fli_f32_from_f16(fli_load_u16(data + 2 * i));
      break;
    case FLI_WEIGHTS_BF16:
      out[i] = fli_f32_from_bf16(fli_load_u16(data + 2 * i));
      break;
    case FLI_WEIGHTS_F64:
      out[i] = (float)fli_f64_from_bits(fli_load_u64(data + 8 * i));
      break;
    default: out[i] = fli_load_f32(data + 4 * i); break;
    }
  }
}
