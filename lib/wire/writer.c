/* SPDX-License-Identifier: Apache-2.0 */
/* Growable bytes, and the msgpack writer over msgpack-c's packer. The packer is
 * made anew on the stack for each value: it is two pointers without state, and
 * so nothing of msgpack-c leaks into writer.h. */
#include "wire/writer.h"

#include <assert.h>
#include <msgpack.h>
#include <string.h>

#include "base/context.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/size.h"

static int append_packed(void *user, const char *data, size_t n)
{
  fli_msg_writer *writer = user;
  if (writer->status == FL_OK)
    writer->status = fli_bytes_append(writer->bytes, data, n);
  return writer->status == FL_OK ? 0 : -1;
}

static msgpack_packer packer(fli_msg_writer *writer)
{
  msgpack_packer pk;
  msgpack_packer_init(&pk, writer, append_packed);
  return pk;
}

void fli_bytes_init(fli_bytes *bytes, fl_context *context)
{
  memset(bytes, 0, sizeof *bytes);
  bytes->context = context;
}

void fli_bytes_clear(fli_bytes *bytes)
{
  bytes->size = 0;
}

void fli_bytes_free(fli_bytes *bytes)
{
  fli_free(bytes->context, bytes->data, bytes->capacity);
  fli_bytes_init(bytes, bytes->context);
}

fl_status fli_bytes_reserve(fli_bytes *bytes, size_t more)
{
  size_t want;
  void *data = bytes->data;
  if (!fli_add_size(bytes->size, more, &want)) return fli_nomem(SIZE_MAX);
  if (want <= bytes->capacity) return FL_OK;
  fl_status status = fli_grow(bytes->context, &data, &bytes->capacity, want, 1);
  bytes->data = data;
  return status;
}

fl_status fli_bytes_append(fli_bytes *bytes, const void *data, size_t n)
{
  if (n == 0) return FL_OK;
  fl_status status = fli_bytes_reserve(bytes, n);
  if (status != FL_OK) return status;
  memcpy(bytes->data + bytes->size, data, n);
  bytes->size += n;
  return FL_OK;
}

void fli_bytes_consume(fli_bytes *bytes, size_t n)
{
  assert(n <= bytes->size);
  bytes->size -= n;
  if (bytes->size > 0) memmove(bytes->data, bytes->data + n, bytes->size);
}

void fli_writer_init(fli_msg_writer *writer, fli_bytes *bytes)
{
  writer->bytes = bytes;
  writer->status = FL_OK;
}

/* Calls between the failure and this one may have cleared its text. */
fl_status fli_writer_status(const fli_msg_writer *writer)
{
  if (writer->status != FL_OK && fl_last_error()[0] == '\0')
    return fli_error(writer->status, "memory: none left for a message");
  return writer->status;
}

void fli_writer_map(fli_msg_writer *writer, uint32_t n)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_map(&pk, n);
}

void fli_writer_array(fli_msg_writer *writer, uint32_t n)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_array(&pk, n);
}

void fli_writer_u64(fli_msg_writer *writer, uint64_t value)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_uint64(&pk, value);
}

void fli_writer_i64(fli_msg_writer *writer, int64_t value)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_int64(&pk, value);
}

void fli_writer_f32(fli_msg_writer *writer, float value)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_float(&pk, value);
}

void fli_writer_f64(fli_msg_writer *writer, double value)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_double(&pk, value);
}

void fli_writer_bool(fli_msg_writer *writer, int32_t value)
{
  msgpack_packer pk = packer(writer);
  if (value) {
    msgpack_pack_true(&pk);
  } else {
    msgpack_pack_false(&pk);
  }
}

void fli_writer_str(fli_msg_writer *writer, const char *text)
{
  msgpack_packer pk = packer(writer);
  msgpack_pack_str_with_body(&pk, text, strlen(text));
}

void fli_writer_bin(fli_msg_writer *writer, const void *data, size_t n)
{
  msgpack_packer pk = packer(writer);
  assert(n <= UINT32_MAX);
  msgpack_pack_bin(&pk, n);
  if (n > 0) msgpack_pack_bin_body(&pk, data, n);
}

void fli_field_u64(fli_msg_writer *writer, uint32_t key, uint64_t value)
{
  fli_writer_u64(writer, key);
  fli_writer_u64(writer, value);
}

void fli_field_f32(fli_msg_writer *writer, uint32_t key, float value)
{
  fli_writer_u64(writer, key);
  fli_writer_f32(writer, value);
}

void fli_field_f64(fli_msg_writer *writer, uint32_t key, double value)
{
  fli_writer_u64(writer, key);
  fli_writer_f64(writer, value);
}

void fli_field_str(fli_msg_writer *writer, uint32_t key, const char *text)
{
  fli_writer_u64(writer, key);
  fli_writer_str(writer, text);
}

void fli_field_bin(fli_msg_writer *writer, uint32_t key, const void *data,
                   size_t n)
{
  fli_writer_u64(writer, key);
  fli_writer_bin(writer, data, n);
}

void fli_field_floats(fli_msg_writer *writer, uint32_t key, const float *values,
                      size_t n)
{
  enum { AT_ONCE = 256 };
  uint8_t bytes[4 * AT_ONCE];
  msgpack_packer pk = packer(writer);
  assert(n <= UINT32_MAX / 4);
  fli_writer_u64(writer, key);
  msgpack_pack_bin(&pk, 4 * n);
  for (size_t at = 0; at < n; at += AT_ONCE) {
    size_t count = n - at < AT_ONCE ? n - at : AT_ONCE;
    for (size_t i = 0; i < count; i++) {
      fli_store_f32(bytes + 4 * i, values[at + i]);
    }
    msgpack_pack_bin_body(&pk, bytes, 4 * count);
  }
}
