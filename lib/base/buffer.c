/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in memory behind fl_writer and fl_reader. Grows by doubling; a failed
 * append leaves the content as it was. */
#include <fl/base.h>

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"

struct fl_buffer {
  fl_context *context;
  uint8_t *data;
  size_t size;
  size_t capacity;
  size_t read_at; /* <= size */
};

static fl_status buffer_write(void *user, const void *buf, size_t n)
{
  return fl_buffer_append(user, buf, n);
}

static fl_status buffer_read(void *user, void *buf, size_t n, size_t *got)
{
  fl_buffer *buffer = user;
  size_t left = buffer->size - buffer->read_at;
  size_t count = n < left ? n : left;
  if (count > 0) memcpy(buf, buffer->data + buffer->read_at, count);
  buffer->read_at += count;
  *got = count;
  return FL_OK;
}

fl_status fl_buffer_new(fl_buffer **out, fl_context *context)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "buffer: out, got NULL");
  fl_buffer *buffer = fli_alloc(context, 1, sizeof *buffer);
  if (!buffer) return fli_nomem(sizeof *buffer);
  buffer->context = fli_context_ref(context);
  *out = buffer;
  return FL_OK;
}

void fl_buffer_free(fl_buffer *buffer)
{
  if (!buffer) return;
  fl_context *context = buffer->context;
  fli_free(context, buffer->data, buffer->capacity);
  fli_free(context, buffer, sizeof *buffer);
  fli_context_unref(context);
}

fl_status fl_buffer_append(fl_buffer *buffer, const void *data, size_t n)
{
  fli_clear_error();
  if (!buffer || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "buffer: buffer or data, got NULL");
  }
  if (n == 0) return FL_OK;
  size_t size;
  if (!fli_add_size(buffer->size, n, &size)) return fli_nomem(n);
  void *bytes = buffer->data;
  fl_status st = fli_grow(buffer->context, &bytes, &buffer->capacity, size, 1);
  if (st != FL_OK) return st;
  buffer->data = bytes;
  memcpy(buffer->data + buffer->size, data, n);
  buffer->size = size;
  return FL_OK;
}

void fl_buffer_clear(fl_buffer *buffer)
{
  if (!buffer) return;
  buffer->size = 0;
  buffer->read_at = 0;
}

fl_status fl_buffer_get(const fl_buffer *buffer, const uint8_t **data,
                        size_t *n)
{
  fli_clear_error();
  if (!buffer || !data || !n) {
    return fli_error(FL_E_ARGUMENT, "buffer: an argument, got NULL");
  }
  *data = buffer->data;
  *n = buffer->size;
  return FL_OK;
}

fl_status fl_buffer_as_writer(fl_buffer *buffer, fl_writer *writer)
{
  fli_clear_error();
  if (!buffer || !writer) {
    return fli_error(FL_E_ARGUMENT, "buffer: buffer or writer, got NULL");
  }
  *writer = (fl_writer){.write = buffer_write, .user = buffer};
  return FL_OK;
}

fl_status fl_buffer_as_reader(fl_buffer *buffer, fl_reader *reader)
{
  fli_clear_error();
  if (!buffer || !reader) {
    return fli_error(FL_E_ARGUMENT, "buffer: buffer or reader, got NULL");
  }
  buffer->read_at = 0;
  *reader = (fl_reader){.read = buffer_read, .user = buffer};
  return FL_OK;
}
