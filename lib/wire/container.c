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
#include "wire/stream.h"

enum { HEADER_BYTES = 20 };

static const uint8_t magic[4] = {'F', 'L', 'S', '1'};

fl_status fli_container_check_first(uint32_t version, uint32_t version_first,
                                    uint32_t version_max)
{
  if (version >= version_first && version <= version_max) return FL_OK;
  return fli_error(FL_E_VERSION,
                   "state version: got %" PRIu32 ", want %" PRIu32 "..%" PRIu32,
                   version, version_first, version_max);
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
  FLI_TRY(fli_stream_write(writer, header, sizeof header));
  FLI_TRY(fli_stream_write(writer, payload->data, payload->size));
  FLI_TRY(fli_stream_write(writer, hash, sizeof hash));
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
  FLI_TRY(fli_stream_read(reader, header, sizeof header, "state"));
  FLI_TRY(check_header(header, kind, version_max, max_size));
  FLI_TRY(fli_stream_append(reader, &bytes, (size_t)fli_load_u64(header + 12),
                            "state"));
  FLI_TRY(fli_stream_read(reader, got, sizeof got, "state"));
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
