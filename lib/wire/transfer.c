/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk payloads, cut into chunks. The receiver accepts exactly the next bytes
 * or ones it has already, so what it holds is always a prefix of the payload
 * and one hash at the end proves it whole. */
#include "wire/transfer.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"

void fli_incoming_init(fli_incoming *incoming, fl_context *context)
{
  memset(incoming, 0, sizeof *incoming);
  fli_bytes_init(&incoming->data, context);
  fli_bytes_init(&incoming->clamped, context);
}

void fli_incoming_reset(fli_incoming *incoming)
{
  fli_bytes_free(&incoming->data);
  fli_bytes_free(&incoming->clamped);
  memset(&incoming->manifest, 0, sizeof incoming->manifest);
  incoming->is_active = 0;
}

fl_status fli_incoming_begin(fli_incoming *incoming,
                             const fli_manifest *manifest, uint64_t max_total)
{
  if (manifest->total > max_total || manifest->total > SIZE_MAX)
    return fli_error(FL_E_TOO_LARGE,
                     "transfer: got %" PRIu64 " bytes, want <= %" PRIu64,
                     manifest->total, max_total);
  fli_incoming_reset(incoming);
  fl_status status = fli_bytes_append(&incoming->clamped, manifest->clamped,
                                      manifest->clamped_size);
  if (status != FL_OK) return status;
  incoming->manifest = *manifest;
  incoming->manifest.clamped = NULL;
  incoming->manifest.clamped_size = 0;
  incoming->is_active = 1;
  return FL_OK;
}

/* Append what of the chunk is new. */
static fl_status take_chunk(fli_incoming *incoming, const fli_chunk *chunk)
{
  uint64_t held = incoming->data.size;
  uint64_t total = incoming->manifest.total;
  if (chunk->offset > held)
    return fli_error(FL_E_FORMAT,
                     "chunk: got offset %" PRIu64 ", want <= %" PRIu64,
                     chunk->offset, held);
  if (chunk->size > total - chunk->offset)
    return fli_error(FL_E_FORMAT,
                     "chunk: ends behind the payload's %" PRIu64 " bytes",
                     total);
  uint64_t known = held - chunk->offset;
  if (known >= chunk->size) return FL_OK;
  return fli_bytes_append(&incoming->data, chunk->data + known,
                          chunk->size - (size_t)known);
}

fl_status fli_incoming_chunk(fli_incoming *incoming, const fli_chunk *chunk,
                             int *is_complete)
{
  *is_complete = 0;
  if (!incoming->is_active || chunk->transfer != incoming->manifest.transfer)
    return FL_E_EMPTY;
  fl_status status = take_chunk(incoming, chunk);
  if (status == FL_OK && incoming->data.size == incoming->manifest.total) {
    uint8_t hash[FLI_HASH_BYTES];
    fli_hash(hash, incoming->data.data, incoming->data.size);
    if (memcmp(hash, incoming->manifest.hash, sizeof hash) == 0) {
      incoming->is_active = 0;
      *is_complete = 1;
    } else {
      status = fli_error(FL_E_FORMAT, "transfer: hash does not match");
    }
  }
  if (status == FL_E_FORMAT) fli_incoming_reset(incoming);
  return status;
}

fl_status fli_outgoing_begin(fli_outgoing *outgoing, fli_bytes *out,
                             fli_manifest *manifest, const uint8_t *data,
                             size_t n, uint32_t chunk_size)
{
  fli_hash(manifest->hash, data, n);
  return fli_outgoing_begin_hashed(outgoing, out, manifest, data, n,
                                   chunk_size);
}

fl_status fli_outgoing_begin_hashed(fli_outgoing *outgoing, fli_bytes *out,
                                    fli_manifest *manifest, const uint8_t *data,
                                    size_t n, uint32_t chunk_size)
{
  manifest->transfer = outgoing->transfer + 1;
  manifest->total = n;
  assert(manifest->total >= 1 && manifest->total <= FLI_TRANSFER_MAX);
  assert(chunk_size >= FLI_CHUNK_MIN && chunk_size <= FLI_CHUNK_MAX);
  manifest->chunk_size = chunk_size;
  fl_status status = fli_write_manifest(out, manifest);
  if (status != FL_OK) return status;
  outgoing->data = data;
  outgoing->total = n;
  outgoing->offset = 0;
  outgoing->transfer = manifest->transfer;
  outgoing->chunk_size = chunk_size;
  outgoing->is_active = 1;
  return FL_OK;
}

fl_status fli_outgoing_next(fli_outgoing *outgoing, fli_bytes *out)
{
  assert(outgoing->is_active);
  uint64_t left = outgoing->total - outgoing->offset;
  size_t n = left < outgoing->chunk_size ? (size_t)left : outgoing->chunk_size;
  fli_chunk chunk = {outgoing->transfer, outgoing->offset,
                     outgoing->data + outgoing->offset, n};
  fl_status status = fli_write_chunk(out, &chunk);
  if (status != FL_OK) return status;
  outgoing->offset += n;
  outgoing->is_active = outgoing->offset < outgoing->total;
  return FL_OK;
}
