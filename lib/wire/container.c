/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope of saved states. The hash covers header and payload, so a file
 * cut short by a full disk, or one of another program, is told apart from a
 * state before any of it is parsed. It is no protection against somebody who
 * writes the file on purpose: payloads still go through the bounded reader. */
#include "wire/container.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/crypto.h"

enum { HEADER_BYTES = 20, READ_STEP = 1 << 16 };

static const uint8_t magic[4] = {'F', 'L', 'S', '1'};

/* fl_buffer streams run out of memory; all else is the stream's own affair. A
 * host's stream leaves no text, or that of another call. */
static fl_status stream_failed(fl_status status, const char *what)
{
  return fli_error(status == FL_E_NOMEM ? FL_E_NOMEM : FL_E_IO,
                   "stream: %s gave status %" PRId32, what, status);
}

static fl_status write_all(const fl_writer *writer, const void *data, size_t n)
{
  if (n == 0) return FL_OK;
  fl_status status = writer->write(writer->user, data, n);
  return status == FL_OK ? FL_OK : stream_failed(status, "write");
}

static fl_status read_all(const fl_reader *reader, uint8_t *out, size_t n)
{
  size_t done = 0;
  while (done < n) {
    size_t got = 0;
    fl_status status = reader->read(reader->user, out + done, n - done, &got);
    if (status != FL_OK) return stream_failed(status, "read");
    if (got > n - done)
      return fli_error(FL_E_IO, "stream: read gave %zu bytes, want <= %zu", got,
                       n - done);
    if (got == 0)
      return fli_error(FL_E_TRUNCATED, "state: ends %zu bytes too early",
                       n - done);
    done += got;
  }
  return FL_OK;
}

static fl_status check_header(const uint8_t *header, uint32_t kind,
                              uint32_t version_max, uint64_t max_size)
{
  uint32_t got_kind = fli_load_u32(header + 4);
  uint32_t version = fli_load_u32(header + 8);
  uint64_t size = fli_load_u64(header + 12);
  if (memcmp(header, magic, sizeof magic) != 0)
    return fli_error(FL_E_FORMAT, "state: does not begin with FLS1");
  if (got_kind != kind)
    return fli_error(FL_E_FORMAT, "state kind: got %" PRIu32 ", want %" PRIu32,
                     got_kind, kind);
  if (version < 1 || version > version_max)
    return fli_error(FL_E_VERSION,
                     "state version: got %" PRIu32 ", want 1..%" PRIu32,
                     version, version_max);
  if (size > max_size || size > SIZE_MAX)
    return fli_error(FL_E_TOO_LARGE,
                     "state: got %" PRIu64 " bytes, want <= %" PRIu64, size,
                     max_size);
  return FL_OK;
}

static void hash_state(uint8_t out[FLI_HASH_BYTES], const uint8_t *header,
                       const fli_bytes *payload)
{
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, header, HEADER_BYTES);
  if (payload->size > 0)
    fli_hasher_update(&hasher, payload->data, payload->size);
  fli_hasher_final(&hasher, out);
}

/* In steps, so that a header's lie about the size costs no memory. */
static fl_status read_payload(const fl_reader *reader, size_t size,
                              fli_bytes *payload)
{
  while (payload->size < size) {
    size_t left = size - payload->size;
    size_t n = left < READ_STEP ? left : READ_STEP;
    fl_status status = fli_bytes_reserve(payload, n);
    if (status == FL_OK)
      status = read_all(reader, payload->data + payload->size, n);
    if (status != FL_OK) return status;
    payload->size += n;
  }
  return FL_OK;
}

fl_status fli_container_write(const fl_writer *writer, uint32_t kind,
                              uint32_t version, const fli_bytes *payload)
{
  fl_status st = FL_OK;
  uint8_t header[HEADER_BYTES];
  uint8_t hash[FLI_HASH_BYTES];
  memcpy(header, magic, sizeof magic);
  fli_store_u32(header + 4, kind);
  fli_store_u32(header + 8, version);
  fli_store_u64(header + 12, payload->size);
  hash_state(hash, header, payload);
  FLI_TRY(write_all(writer, header, sizeof header));
  FLI_TRY(write_all(writer, payload->data, payload->size));
  FLI_TRY(write_all(writer, hash, sizeof hash));
out:
  return st;
}

fl_status fli_container_read(const fl_reader *reader, uint32_t kind,
                             uint32_t version_max, uint64_t max_size,
                             uint32_t *version, fli_bytes *payload)
{
  fl_status st = FL_OK;
  uint8_t header[HEADER_BYTES];
  uint8_t want[FLI_HASH_BYTES];
  uint8_t got[FLI_HASH_BYTES];
  fli_bytes bytes;
  fli_bytes_init(&bytes, payload->context);
  FLI_TRY(read_all(reader, header, sizeof header));
  FLI_TRY(check_header(header, kind, version_max, max_size));
  FLI_TRY(read_payload(reader, (size_t)fli_load_u64(header + 12), &bytes));
  FLI_TRY(read_all(reader, got, sizeof got));
  hash_state(want, header, &bytes);
  if (memcmp(got, want, sizeof want) != 0)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: hash does not match"));
  *version = fli_load_u32(header + 8);
  fli_bytes_free(payload);
  *payload = bytes;
  return FL_OK;
out:
  fli_bytes_free(&bytes);
  return st;
}
