/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk payloads, cut into chunks. The receiver holds a prefix of the payload
 * and, where the sender can be told of gaps, a few ranges ahead of it; one hash
 * at the end proves it whole. Whatever is held when a connection ends is of use
 * for the next: the same hash is the same payload. */
#include "wire/transfer.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

/* Chunks ahead of a gap that are kept. */
enum { MOST_AHEAD = 64 };

void fli_incoming_init(fli_incoming *incoming, fl_context *context)
{
  memset(incoming, 0, sizeof *incoming);
  fli_bytes_init(&incoming->data, context);
  fli_bytes_init(&incoming->clamped, context);
}

void fli_incoming_reset(fli_incoming *incoming)
{
  if (incoming->is_lent)
    fli_bytes_init(&incoming->data, incoming->data.context);
  incoming->is_lent = 0;
  fli_bytes_free(&incoming->data);
  fli_bytes_free(&incoming->clamped);
  memset(&incoming->manifest, 0, sizeof incoming->manifest);
  incoming->is_active = 0;
  incoming->held = 0;
  incoming->n_islands = 0;
  incoming->is_status_due = 0;
  incoming->told = 0;
}

void fli_incoming_lend(fli_incoming *incoming, void *memory)
{
  if (incoming->data.data) return;
  incoming->data.data = memory;
  incoming->data.capacity = (size_t)incoming->manifest.total;
  incoming->is_lent = 1;
}

/* 1 when the bytes held are some of this payload, and not all of it. */
static int is_begun(const fli_incoming *incoming, const fli_manifest *manifest)
{
  const fli_manifest *known = &incoming->manifest;
  return incoming->data.size > 0 && known->kind == manifest->kind &&
         known->total == manifest->total && incoming->held < known->total &&
         memcmp(known->hash, manifest->hash, sizeof known->hash) == 0;
}

fl_status fli_incoming_begin(fli_incoming *incoming,
                             const fli_manifest *manifest, uint64_t max_total)
{
  if (manifest->total > max_total || manifest->total > SIZE_MAX)
    return fli_error(FL_E_TOO_LARGE,
                     "transfer: got %" PRIu64 " bytes, want <= %" PRIu64,
                     manifest->total, max_total);
  if (is_begun(incoming, manifest)) {
    fli_bytes_free(&incoming->clamped);
    incoming->is_status_due = incoming->knows_status;
  } else {
    fli_incoming_reset(incoming);
  }
  fl_status status = fli_bytes_append(&incoming->clamped, manifest->clamped,
                                      manifest->clamped_size);
  if (status != FL_OK) return status;
  incoming->manifest = *manifest;
  incoming->manifest.clamped = NULL;
  incoming->manifest.clamped_size = 0;
  incoming->is_active = 1;
  return FL_OK;
}

/* Take what of the chunk is new. */
static fl_status take_chunk(fli_incoming *incoming, const fli_chunk *chunk)
{
  fli_bytes *data = &incoming->data;
  const uint64_t held = incoming->held;
  const uint64_t total = incoming->manifest.total;
  if (chunk->offset > total || chunk->size > total - chunk->offset)
    return fli_error(FL_E_FORMAT,
                     "chunk: ends behind the payload's %" PRIu64 " bytes",
                     total);
  const fli_range range = {chunk->offset, chunk->offset + chunk->size};
  if (range.end <= held) return FL_OK;
  if (range.begin > held) {
    if (!incoming->knows_status)
      return fli_error(FL_E_FORMAT,
                       "chunk: got offset %" PRIu64 ", want <= %" PRIu64,
                       range.begin, held);
    /* Told once of every gap, and again when there is nothing to come. */
    if (incoming->told != held + 1 || range.end == total)
      incoming->is_status_due = 1;
    if (!incoming->note ||
        range.begin - held >
            MOST_AHEAD * (uint64_t)incoming->manifest.chunk_size)
      return FL_OK;
  }
  if (incoming->sink) {
    const fl_status st = incoming->sink->put(incoming, incoming->arg, chunk);
    if (st != FL_OK) return st;
    data->size = (size_t)range.end; /* counts, though nothing is there */
    incoming->held = range.end;
    return FL_OK;
  }
  if (range.end > data->size) {
    const fl_status st =
        fli_bytes_reserve(data, (size_t)(range.end - data->size));
    if (st != FL_OK) return st;
  }
  if (!incoming->note)
    incoming->held = range.end;
  else if (!incoming->note(incoming, range))
    return FL_OK;
  memcpy(data->data + range.begin, chunk->data, chunk->size);
  if (range.end > data->size) data->size = (size_t)range.end;
  return FL_OK;
}

fl_status fli_incoming_chunk(fli_incoming *incoming, const fli_chunk *chunk,
                             int *is_complete)
{
  *is_complete = 0;
  if (!incoming->is_active || chunk->transfer != incoming->manifest.transfer)
    return FL_E_EMPTY;
  fl_status status = take_chunk(incoming, chunk);
  if (status == FL_OK && incoming->held == incoming->manifest.total) {
    uint8_t hash[FLI_HASH_BYTES];
    if (incoming->sink)
      status = incoming->sink->hash(incoming, incoming->arg, hash);
    else
      fli_hash(hash, incoming->data.data, incoming->data.size);
    if (status != FL_OK) return status;
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

fl_status fli_outgoing_begin_hashed(fli_outgoing *outgoing, fli_bytes *out,
                                    fli_manifest *manifest, const uint8_t *data,
                                    size_t n, uint32_t chunk_size)
{
  const fl_status status =
      fli_outgoing_begin_read(outgoing, out, manifest, n, chunk_size);
  if (status != FL_OK) return status;
  outgoing->read = NULL;
  outgoing->data = data;
  return FL_OK;
}

fl_status fli_outgoing_begin_read(fli_outgoing *outgoing, fli_bytes *out,
                                  fli_manifest *manifest, size_t n,
                                  uint32_t chunk_size)
{
  /* Whatever goes wrong: none of the payload before is read any more. */
  outgoing->is_active = 0;
  outgoing->total = 0;
  manifest->transfer = outgoing->transfer + 1;
  manifest->total = n;
  assert(manifest->total >= 1 && manifest->total <= FLI_TRANSFER_MAX);
  assert(chunk_size >= FLI_CHUNK_MIN && chunk_size <= FLI_CHUNK_MAX);
  manifest->chunk_size = chunk_size;
  fl_status status = fli_write_manifest(out, manifest);
  if (status != FL_OK) return status;
  outgoing->total = n;
  outgoing->limit = n;
  outgoing->offset = 0;
  outgoing->transfer = manifest->transfer;
  outgoing->chunk_size = chunk_size;
  outgoing->is_active = 1;
  return FL_OK;
}

fl_status fli_outgoing_next(fli_outgoing *outgoing, fli_bytes *out)
{
  assert(outgoing->is_active);
  uint64_t left = outgoing->limit - outgoing->offset;
  size_t n = left < outgoing->chunk_size ? (size_t)left : outgoing->chunk_size;
  const size_t before = out->size;
  fli_chunk chunk = {
      .transfer = outgoing->transfer, .offset = outgoing->offset, .size = n};
  if (!outgoing->read) chunk.data = outgoing->data + outgoing->offset;
  fl_status status = fli_write_chunk(out, &chunk);
  if (status == FL_OK && outgoing->read)
    status = outgoing->read(outgoing->arg, outgoing->offset,
                            out->data + out->size - n, n);
  if (status != FL_OK) out->size = before;
  if (status != FL_OK) return status;
  outgoing->offset += n;
  outgoing->is_active = outgoing->offset < outgoing->limit;
  return FL_OK;
}

void fli_outgoing_resend(fli_outgoing *outgoing, const fli_missing *missing)
{
  if ((!outgoing->data && !outgoing->read) ||
      missing->transfer != outgoing->transfer ||
      missing->ranges_size < FLI_RANGE_BYTES)
    return;
  const uint64_t begin = fli_load_u64(missing->ranges);
  const uint64_t end = fli_load_u64(missing->ranges + 8);
  if (begin >= end || end > outgoing->total) return;
  outgoing->offset = begin;
  outgoing->limit = end;
  outgoing->is_active = 1;
}

fl_status fli_incoming_write_status(fli_incoming *incoming, fli_bytes *out)
{
  uint8_t range[FLI_RANGE_BYTES];
  const fli_missing missing = {incoming->manifest.transfer, range,
                               sizeof range};
  incoming->is_status_due = 0;
  incoming->told = incoming->held + 1;
  fli_store_u64(range, incoming->held);
  fli_store_u64(range + 8, incoming->manifest.total);
  return fli_write_missing(out, &missing);
}
