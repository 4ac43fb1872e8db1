/* SPDX-License-Identifier: Apache-2.0 */
/* Weight files, written from a model and read into one. What is read is put
 * aside first and stored when all of the file has been seen: a torn file must
 * not leave half of somebody's weights. */
#include <fl/weights.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/size.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "wire/json.h"
#include "wire/stream.h"

enum { SIZE_BYTES = 8, ALIGNMENT = 8, CHUNK = 1 << 16, SHAPE_TEXT = 192 };

enum { MAX_NOTES = 64, MAX_NOTE_NAME = 64, MAX_NOTE_TEXT = 1024 };

typedef struct notes {
  const fl_weights_note *items;
  uint32_t n;
} notes;

/* Before a tensor's name, where its values are told of. */
#define TENSOR "weights: tensor "

/* What a load works on. */
typedef struct loading {
  fl_model *model;
  const fl_reader *reader;
  fli_bytes text; /* of the header */
  fli_weights_header header;
  float *values; /* the tensors that are taken, in order of the data */
  size_t n_values;
  uint8_t *chunk;
} loading;

fl_status fl_load_report_init(fl_load_report *report, size_t size)
{
  static const fl_load_report defaults = {0};
  fli_clear_error();
  return fli_options_init(report, size, &defaults, sizeof defaults);
}

/* ---- writing ------------------------------------------------------------- */

FLI_PRINTF(2, 3)
static fl_status append_text(fli_bytes *out, const char *format, ...)
{
  char text[128];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (n < 0 || (size_t)n >= sizeof text) {
    return fli_error(FL_E_INTERNAL, "weights: a line of the header is cut");
  }
  return fli_bytes_append(out, text, (size_t)n);
}

static int is_printable(const char *text, size_t max)
{
  if (!text) return 0;
  size_t n = 0;
  while (n <= max && text[n] >= ' ' && text[n] <= '~')
    n++;
  return n <= max && text[n] == '\0';
}

static fl_status check_notes(const notes *given)
{
  if (given->n > MAX_NOTES || (given->n > 0 && !given->items))
    return fli_error(FL_E_ARGUMENT, "notes: got %u, want <= %d", given->n,
                     MAX_NOTES);
  for (uint32_t i = 0; i < given->n; i++) {
    const fl_weights_note *note = &given->items[i];
    if (!is_printable(note->name, MAX_NOTE_NAME) || !*note->name ||
        !is_printable(note->text, MAX_NOTE_TEXT))
      return fli_error(FL_E_ARGUMENT,
                       "note %u: want printable ASCII, name 1..%d and text "
                       "0..%d bytes",
                       i, MAX_NOTE_NAME, MAX_NOTE_TEXT);
    int is_taken = strcmp(note->name, "format") == 0 ||
                   strcmp(note->name, FLI_WEIGHTS_SCHEMA) == 0;
    for (uint32_t k = 0; k < i; k++)
      is_taken |= strcmp(note->name, given->items[k].name) == 0;
    if (is_taken)
      return fli_error(FL_E_ARGUMENT, "note %s: the name is taken", note->name);
  }
  return FL_OK;
}

static fl_status append_notes(const notes *given, fli_bytes *out)
{
  fl_status st = FL_OK;
  for (uint32_t i = 0; i < given->n; i++) {
    FLI_TRY(append_text(out, ","));
    FLI_TRY(fli_json_quote(out, given->items[i].name));
    FLI_TRY(append_text(out, ":"));
    FLI_TRY(fli_json_quote(out, given->items[i].text));
  }
out:
  return st;
}

static fl_status append_metadata(const fl_model *model, const notes *given,
                                 fli_bytes *out)
{
  fl_status st = FL_OK;
  FLI_TRY(append_text(out, "{\"%s\":{\"format\":\"pt\",\"%s\":\"",
                      FLI_WEIGHTS_METADATA, FLI_WEIGHTS_SCHEMA));
  for (size_t i = 0; i < FL_HASH_BYTES; i++) {
    FLI_TRY(append_text(out, "%02x", model->schema[i]));
  }
  FLI_TRY(append_text(out, "\""));
  FLI_TRY(append_notes(given, out));
  FLI_TRY(append_text(out, "}"));
out:
  return st;
}

static fl_status append_tensor(const fli_tensor *tensor, uint64_t begin,
                               fli_bytes *out)
{
  fl_status st = FL_OK;
  FLI_TRY(append_text(out, ","));
  FLI_TRY(fli_json_quote(out, tensor->name));
  FLI_TRY(append_text(out, ":{\"dtype\":\"F32\",\"shape\":["));
  for (uint32_t i = 0; i < tensor->shape.n_dims; i++) {
    FLI_TRY(append_text(out, "%s%" PRIu64, i > 0 ? "," : "",
                        tensor->shape.dims[i]));
  }
  FLI_TRY(append_text(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                      begin, begin + 4 * tensor->shape.count));
out:
  return st;
}

/* Size and text; the values behind it are aligned. */
static fl_status make_header(const fl_model *model, const notes *given,
                             fli_bytes *out)
{
  static const uint8_t no_size[SIZE_BYTES];
  fl_status st = FL_OK;
  uint64_t at = 0;
  FLI_TRY(fli_bytes_append(out, no_size, SIZE_BYTES));
  FLI_TRY(append_metadata(model, given, out));
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    FLI_TRY(append_tensor(&model->tensors[i], at, out));
    at += 4 * model->tensors[i].shape.count;
  }
  FLI_TRY(append_text(out, "}"));
  while (out->size % ALIGNMENT != 0) {
    FLI_TRY(append_text(out, " "));
  }
  fli_store_u64(out->data, out->size - SIZE_BYTES);
out:
  return st;
}

static fl_status check_writable(const fl_model *model)
{
  fl_status st = FL_OK;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (strcmp(tensor->name, FLI_WEIGHTS_METADATA) == 0) {
      return fli_error(FL_E_CONFLICT,
                       "weights: tensor %s has a name of the format's own",
                       tensor->name);
    }
    FLI_TRY(fli_values_check(fli_tensor_values(model, tensor),
                             tensor->shape.count, TENSOR, tensor->name));
  }
out:
  return st;
}

static fl_status write_values(const fl_writer *writer, const float *values,
                              size_t n, uint8_t *chunk)
{
  while (n > 0) {
    size_t step = n < CHUNK / 4 ? n : CHUNK / 4;
    for (size_t i = 0; i < step; i++) {
      fli_store_f32(chunk + 4 * i, values[i]);
    }
    fl_status status = fli_stream_write(writer, chunk, 4 * step);
    if (status != FL_OK) return status;
    values += step;
    n -= step;
  }
  return FL_OK;
}

fl_status fl_model_save_weights(const fl_model *model, const fl_writer *writer)
{
  return fl_model_save_weights_with(model, NULL, 0, writer);
}

fl_status fl_model_save_weights_with(const fl_model *model,
                                     const fl_weights_note *items,
                                     uint32_t n_notes, const fl_writer *writer)
{
  const notes given = {.items = items, .n = n_notes};
  fl_status st = FL_OK;
  fli_bytes header;
  uint8_t *chunk = NULL;
  fli_clear_error();
  if (!model || !writer || !writer->write) {
    return fli_error(FL_E_ARGUMENT, "save_weights: a pointer is NULL");
  }
  fli_bytes_init(&header, model->context);
  FLI_TRY(check_writable(model));
  FLI_TRY(check_notes(&given));
  FLI_TRY(make_header(model, &given, &header));
  chunk = fli_alloc(model->context, CHUNK, 1);
  if (!chunk) FLI_TRY(fli_nomem(CHUNK));
  FLI_TRY(fli_stream_write(writer, header.data, header.size));
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    FLI_TRY(write_values(writer, fli_tensor_values(model, tensor),
                         (size_t)tensor->shape.count, chunk));
  }
out:
  fli_free(model->context, chunk, CHUNK);
  fli_bytes_free(&header);
  return st;
}

/* ---- reading ------------------------------------------------------------- */

static fl_status read_header(loading *load)
{
  fl_status st = FL_OK;
  uint8_t bytes[SIZE_BYTES];
  FLI_TRY(fli_stream_read(load->reader, bytes, sizeof bytes, "weights"));
  uint64_t size = fli_load_u64(bytes);
  if (size > FLI_WEIGHTS_MAX_HEADER) {
    return fli_error(FL_E_TOO_LARGE,
                     "weights: header, got %" PRIu64 " bytes, want <= %d", size,
                     FLI_WEIGHTS_MAX_HEADER);
  }
  FLI_TRY(fli_stream_append(load->reader, &load->text, (size_t)size,
                            "weights: header"));
  FLI_TRY(fli_weights_parse(&load->header, load->model->context,
                            (char *)load->text.data, load->text.size));
out:
  return st;
}

static void show_shape(char out[SHAPE_TEXT], uint32_t n_dims,
                       const uint64_t *dims)
{
  size_t n = 0;
  out[0] = '\0';
  for (uint32_t i = 0; i < n_dims; i++) {
    int used = snprintf(out + n, SHAPE_TEXT - n, "%s%" PRIu64,
                        i > 0 ? ", " : "", dims[i]);
    if (used < 0 || (size_t)used >= SHAPE_TEXT - n) return;
    n += (size_t)used;
  }
}

/* What the file says of a tensor against what it is. */
static fl_status check_entry(const fli_tensor *tensor,
                             const fli_weights_entry *entry)
{
  const fli_shape *shape = &tensor->shape;
  if (entry->type >= FLI_WEIGHTS_FLOATS) {
    return fli_error(FL_E_UNSUPPORTED,
                     "weights: tensor %s: dtype, got %s, want F32, F16, BF16 "
                     "or F64",
                     tensor->name, fli_weights_type_name(entry->type));
  }
  if (entry->n_dims != shape->n_dims ||
      memcmp(entry->dims, shape->dims, shape->n_dims * sizeof *shape->dims)) {
    char got[SHAPE_TEXT];
    char want[SHAPE_TEXT];
    show_shape(got, entry->n_dims, entry->dims);
    show_shape(want, shape->n_dims, shape->dims);
    return fli_error(FL_E_DIM, "weights: tensor %s: shape, got [%s], want [%s]",
                     tensor->name, got, want);
  }
  return FL_OK;
}

/* Find each tensor's entry, and count. */
static fl_status match(loading *load, uint32_t flags, fl_load_report *report)
{
  fl_status st = FL_OK;
  fl_model *model = load->model;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    fli_weights_entry *entry = fli_weights_find(&load->header, tensor->name);
    if (entry) {
      FLI_TRY(check_entry(tensor, entry));
      entry->tensor = i;
      report->n_loaded++;
      report->n_converted += entry->type != FLI_WEIGHTS_F32;
    } else if (flags & FL_LOAD_ALLOW_MISSING) {
      report->n_missing++;
    } else {
      return fli_error(FL_E_SCHEMA, "weights: tensor %s is not in the file",
                       tensor->name);
    }
  }
  for (size_t i = 0; i < load->header.n_entries; i++) {
    const fli_weights_entry *entry = &load->header.entries[i];
    if (entry->tensor != FLI_WEIGHTS_NO_TENSOR) continue;
    if (!(flags & FL_LOAD_ALLOW_EXTRA)) {
      char shown[FLI_WEIGHTS_SHOWN];
      return fli_error(FL_E_SCHEMA,
                       "weights: tensor %s of the file is none of the model's",
                       fli_weights_show(shown, entry));
    }
    report->n_extra++;
  }
  if (report->n_loaded == 0) {
    st = fli_error(FL_E_SCHEMA, "weights: no tensor of the file is one of the "
                                "model's");
  }
out:
  return st;
}

static void compare_schema(const loading *load, fl_load_report *report)
{
  const fli_weights_header *header = &load->header;
  report->schema = FL_LOAD_SCHEMA_NONE;
  if (!header->has_schema) return;
  report->schema =
      memcmp(header->schema, load->model->schema, FL_HASH_BYTES) == 0
          ? FL_LOAD_SCHEMA_SAME
          : FL_LOAD_SCHEMA_OTHER;
}

/* By now the sizes are the model's own, not the file's word. */
static fl_status make_room(loading *load)
{
  fl_context *context = load->model->context;
  for (size_t i = 0; i < load->header.n_entries; i++) {
    const fli_weights_entry *entry = &load->header.entries[i];
    if (entry->tensor == FLI_WEIGHTS_NO_TENSOR) continue;
    load->n_values += (size_t)entry->count;
  }
  load->values = fli_alloc(context, load->n_values, sizeof *load->values);
  if (!load->values) return fli_nomem(load->n_values * sizeof *load->values);
  load->chunk = fli_alloc(context, CHUNK, 1);
  return load->chunk ? FL_OK : fli_nomem(CHUNK);
}

/* Bytes of one tensor; `values` NULL: skip them. */
static fl_status read_entry(loading *load, const fli_weights_entry *entry,
                            float *values)
{
  uint64_t left = entry->end - entry->begin;
  uint32_t size = fli_weights_type_size(entry->type);
  while (left > 0) {
    size_t step = left < CHUNK ? (size_t)left : CHUNK;
    fl_status status =
        fli_stream_read(load->reader, load->chunk, step, "weights: data");
    if (status != FL_OK) return status;
    left -= step;
    if (!values) continue;
    fli_fpguard guard;
    fli_fpguard_enter(&guard);
    fli_weights_decode(values, load->chunk, step / size, entry->type);
    fli_fpguard_leave(&guard);
    values += step / size;
  }
  return FL_OK;
}

static fl_status read_data(loading *load)
{
  fl_status st = FL_OK;
  float *values = load->values;
  fli_weights_sort_by_place(&load->header);
  for (size_t i = 0; i < load->header.n_entries; i++) {
    const fli_weights_entry *entry = &load->header.entries[i];
    if (entry->tensor == FLI_WEIGHTS_NO_TENSOR) {
      FLI_TRY(read_entry(load, entry, NULL));
      continue;
    }
    FLI_TRY(read_entry(load, entry, values));
    FLI_TRY(fli_values_check(values, entry->count, TENSOR,
                             load->model->tensors[entry->tensor].name));
    values += entry->count;
  }
  FLI_TRY(fli_stream_end(load->reader, "weights"));
out:
  return st;
}

/* Nothing can fail here. */
static void store(const loading *load, const fl_load_report *report)
{
  fl_model *model = load->model;
  const float *values = load->values;
  model->n_writes++;
  if (report->is_loaded) memset(report->is_loaded, 0, model->n_tensors);
  for (size_t i = 0; i < load->header.n_entries; i++) {
    const fli_weights_entry *entry = &load->header.entries[i];
    if (entry->tensor == FLI_WEIGHTS_NO_TENSOR) continue;
    const fli_tensor *tensor = &model->tensors[entry->tensor];
    memcpy(fli_tensor_values(model, tensor), values,
           (size_t)entry->count * sizeof *values);
    values += entry->count;
    if (report->is_loaded) report->is_loaded[entry->tensor] = 1;
  }
}

static fl_status check_call(const fl_model *model, const fl_reader *reader,
                            uint32_t flags)
{
  const uint32_t known = FL_LOAD_ALLOW_MISSING | FL_LOAD_ALLOW_EXTRA;
  if (!model || !reader || !reader->read) {
    return fli_error(FL_E_ARGUMENT, "load_weights: a pointer is NULL");
  }
  if (flags & ~known) {
    return fli_error(FL_E_ARGUMENT, "load_weights: flags, got %u, want 0..%u",
                     flags, known);
  }
  return FL_OK;
}

static fl_status load_report(const fl_model *model, const fl_load_report *src,
                             fl_load_report *report)
{
  fl_status st = FL_OK;
  *report = (fl_load_report){.struct_size = sizeof *report};
  if (src) {
    FLI_TRY(fli_options_load(report, sizeof *report, src, "fl_load_report"));
  }
  report->n_loaded = report->n_missing = 0;
  report->n_extra = report->n_converted = 0;
  if (report->is_loaded && report->capacity < model->n_tensors) {
    st = fli_error(FL_E_SIZE, "report: got room for %u tensors, want %u",
                   report->capacity, model->n_tensors);
  }
out:
  return st;
}

fl_status fl_model_load_weights(fl_model *model, const fl_reader *reader,
                                uint32_t flags, fl_load_report *report)
{
  fl_status st = FL_OK;
  fl_load_report full;
  fli_clear_error();
  FLI_TRY(check_call(model, reader, flags));
  FLI_TRY(load_report(model, report, &full));
  loading load = {.model = model, .reader = reader};
  fli_bytes_init(&load.text, model->context);
  st = read_header(&load);
  if (st == FL_OK) st = match(&load, flags, &full);
  if (st == FL_OK) st = make_room(&load);
  if (st == FL_OK) st = read_data(&load);
  if (st == FL_OK && report) {
    compare_schema(&load, &full);
    st = fli_options_store(report, &full, sizeof full, "fl_load_report");
  }
  if (st == FL_OK) store(&load, &full);
  fli_free(model->context, load.chunk, CHUNK);
  fli_free(model->context, load.values, load.n_values * sizeof *load.values);
  fli_weights_free(&load.header);
  fli_bytes_free(&load.text);
out:
  return st;
}
