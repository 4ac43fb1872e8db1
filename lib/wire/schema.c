/* SPDX-License-Identifier: Apache-2.0 */
/* The engine behind the tables of messages.c. Parsing fills the struct with
 * the values that stand for "absent", reads the map key by key, and at the end
 * looks for required keys that did not come. Writing walks the same table. */
#include "wire/schema.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"

static fli_field_kind kind_of(const fli_field *field)
{
  return (fli_field_kind)(field->kind & ~FLI_FIELD_OPTIONAL);
}

static int is_optional(const fli_field *field)
{
  return (field->kind & FLI_FIELD_OPTIONAL) != 0;
}

static void *member(void *message, size_t offset)
{
  return (char *)message + offset;
}

static const void *const_member(const void *message, size_t offset)
{
  return (const char *)message + offset;
}

static void read_view(fli_msg_reader *reader, const fli_field *field,
                      void *message)
{
  size_t n;
  const uint8_t *data = fli_reader_bin(reader, &n);
  if (!data) return;
  if (n < field->lo || n > field->hi) {
    reader->status =
        fli_error(FL_E_RANGE, "%s: got %zu bytes, want %u..%" PRIu64,
                  field->name, n, field->lo, field->hi);
    return;
  }
  if (kind_of(field) == FLI_FIELD_U16S && n % 2 != 0) {
    reader->status =
        fli_error(FL_E_FORMAT, "%s: got %zu bytes, want pairs", field->name, n);
    return;
  }
  memcpy(member(message, field->offset), &data, sizeof data);
  if (kind_of(field) != FLI_FIELD_KEY)
    memcpy(member(message, field->size), &n, sizeof n);
}

static void read_text(fli_msg_reader *reader, const fli_field *field,
                      char *text)
{
  fli_reader_str_copy(reader, text, field->size, field->name);
  if (fli_reader_status(reader) == FL_OK && !is_optional(field) && !text[0])
    reader->status = fli_error(FL_E_FORMAT, "%s: is empty", field->name);
}

static void read_f32(fli_msg_reader *reader, const fli_field *field,
                     float *value)
{
  *value = fli_reader_f32(reader);
  if (fli_reader_status(reader) == FL_OK && *value < 0)
    reader->status = fli_error(FL_E_RANGE, "%s: got %g, want >= 0", field->name,
                               (double)*value);
}

static void read_f64(fli_msg_reader *reader, const fli_field *field,
                     double *value)
{
  *value = fli_reader_f64(reader);
  if (fli_reader_status(reader) == FL_OK && !isfinite(*value))
    reader->status =
        fli_error(FL_E_NOT_FINITE, "%s: is not finite", field->name);
}

static void read_field(fli_msg_reader *reader, const fli_field *field,
                       void *message)
{
  void *at = member(message, field->offset);
  switch (kind_of(field)) {
  case FLI_FIELD_U32:
    *(uint32_t *)at =
        (uint32_t)fli_reader_u64_in(reader, field->lo, field->hi, field->name);
    break;
  case FLI_FIELD_U64:
    *(uint64_t *)at =
        fli_reader_u64_in(reader, field->lo, field->hi, field->name);
    break;
  case FLI_FIELD_F32: read_f32(reader, field, at); break;
  case FLI_FIELD_F64: read_f64(reader, field, at); break;
  case FLI_FIELD_ANY: *(double *)at = fli_reader_f64(reader); break;
  case FLI_FIELD_TEXT: read_text(reader, field, at); break;
  case FLI_FIELD_ARRAY:
    fli_reader_bin_exact(reader, at, field->size, field->name);
    break;
  case FLI_FIELD_KEY:
  case FLI_FIELD_VIEW:
  case FLI_FIELD_U16S: read_view(reader, field, message); break;
  }
  if (field->flag_offset) *(int *)member(message, field->flag_offset) = 1;
}

static const fli_field *find_field(const fli_schema *schema, uint32_t key)
{
  for (size_t i = 0; i < schema->n_fields; i++)
    if (schema->fields[i].key == key) return &schema->fields[i];
  return NULL;
}

static void set_absent(const fli_schema *schema, void *message)
{
  memset(message, 0, schema->message_size);
  for (size_t i = 0; i < schema->n_fields; i++) {
    const fli_field *field = &schema->fields[i];
    if (kind_of(field) == FLI_FIELD_F64)
      *(double *)member(message, field->offset) = (double)NAN;
  }
}

/* 1 when a field is there and the one before it, which has the same flag, is
 * not, or the other way round. */
static int is_half(const fli_schema *schema, size_t i, uint32_t seen)
{
  if (i == 0 || !schema->fields[i].flag_offset) return 0;
  const fli_field *a = &schema->fields[i - 1], *b = &schema->fields[i];
  return a->flag_offset == b->flag_offset &&
         (seen >> a->key & 1) != (seen >> b->key & 1);
}

static void check_keys(fli_msg_reader *reader, const fli_schema *schema,
                       uint32_t seen)
{
  uint32_t together = seen & schema->together;
  if (fli_reader_status(reader) != FL_OK) return;
  for (size_t i = 0; i < schema->n_fields; i++) {
    const fli_field *field = &schema->fields[i];
    if (is_half(schema, i, seen)) {
      reader->status =
          fli_error(FL_E_FORMAT, "%s: one of two keys is missing", field->name);
      return;
    }
    if (is_optional(field) || (seen >> field->key & 1)) continue;
    reader->status = fli_error(FL_E_FORMAT, "%s: is missing", field->name);
    return;
  }
  if (together != 0 && together != schema->together)
    reader->status =
        fli_error(FL_E_FORMAT,
                  "%s: got keys 0x%" PRIx32 ", want all or none of 0x%" PRIx32,
                  schema->name, together, schema->together);
}

fl_status fli_schema_parse(const fli_schema *schema, void *message,
                           const uint8_t *body, size_t n)
{
  fli_msg_reader reader;
  uint32_t seen = 0;
  uint32_t key;
  set_absent(schema, message);
  fli_reader_init(&reader, body, n);
  fli_fields fields = fli_fields_begin(&reader);
  while (fli_fields_next(&fields, &key)) {
    const fli_field *field = find_field(schema, key);
    if (!field) {
      fli_fields_unknown(&fields);
      continue;
    }
    read_field(&reader, field, message);
    seen |= UINT32_C(1) << key;
  }
  fli_reader_finish(&reader);
  check_keys(&reader, schema, seen);
  if (fli_reader_status(&reader) == FL_OK && schema->check)
    schema->check(&reader, message);
  return fli_reader_status(&reader);
}

static int is_there(const fli_field *field, const void *message)
{
  const void *at = const_member(message, field->offset);
  const void *view;
  if (!is_optional(field)) return 1;
  if (field->flag_offset)
    return *(const int *)const_member(message, field->flag_offset) != 0;
  switch (kind_of(field)) {
  case FLI_FIELD_U32: return *(const uint32_t *)at > 0;
  case FLI_FIELD_F32: return *(const float *)at > 0;
  case FLI_FIELD_F64: return !isnan(*(const double *)at);
  case FLI_FIELD_TEXT: return *(const char *)at != '\0';
  case FLI_FIELD_KEY:
  case FLI_FIELD_VIEW:
  case FLI_FIELD_U16S: memcpy(&view, at, sizeof view); return view != NULL;
  default: return 1; /* U64, ANY and ARRAY have no value for "absent" */
  }
}

static void write_field(fli_msg_writer *writer, const fli_field *field,
                        const void *message)
{
  const void *at = const_member(message, field->offset);
  const uint8_t *view;
  size_t n = field->size;
  switch (kind_of(field)) {
  case FLI_FIELD_U32:
    fli_field_u64(writer, field->key, *(const uint32_t *)at);
    break;
  case FLI_FIELD_U64:
    fli_field_u64(writer, field->key, *(const uint64_t *)at);
    break;
  case FLI_FIELD_F32:
    fli_field_f32(writer, field->key, *(const float *)at);
    break;
  case FLI_FIELD_F64:
  case FLI_FIELD_ANY:
    fli_field_f64(writer, field->key, *(const double *)at);
    break;
  case FLI_FIELD_TEXT: fli_field_str(writer, field->key, at); break;
  case FLI_FIELD_ARRAY: fli_field_bin(writer, field->key, at, n); break;
  case FLI_FIELD_KEY:
  case FLI_FIELD_VIEW:
  case FLI_FIELD_U16S:
    memcpy(&view, at, sizeof view);
    if (kind_of(field) == FLI_FIELD_KEY) {
      n = (size_t)field->hi;
    } else {
      memcpy(&n, const_member(message, field->size), sizeof n);
    }
    fli_field_bin(writer, field->key, view, n);
    break;
  }
}

fl_status fli_schema_write(const fli_schema *schema, uint8_t type,
                           fli_bytes *out, const void *message)
{
  fl_status begun;
  uint32_t n = 0;
  size_t begin = fli_frame_begin(out, type, &begun);
  if (begun != FL_OK) return fli_frame_end(out, begin, begun);
  for (size_t i = 0; i < schema->n_fields; i++)
    n += (uint32_t)is_there(&schema->fields[i], message);
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, n);
  for (size_t i = 0; i < schema->n_fields; i++)
    if (is_there(&schema->fields[i], message))
      write_field(&writer, &schema->fields[i], message);
  return fli_frame_end(out, begin, fli_writer_status(&writer));
}
