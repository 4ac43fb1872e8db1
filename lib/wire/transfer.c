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
  fli_bytes_free(&incoming->data);
  fli_bytes_free(&incoming->clamped);
  memset(&incoming->manifest, 0, sizeof incoming->manifest);
  incoming->is_active = 0;
  incoming->held = 0;
  incoming->n_islands = 0;
  incoming->is_status_due = 0;
}

/* 1 when the bytes held are some of this payload, and not all of it. */
static int is_begun(const fli_incoming *incoming, const fli_manifest *manifest)
{
  const fli_manifest *known = &incoming->manifest;
  return incoming->data.size > 0 && known->total == manifest->total &&
         incoming->held < known->total &&
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

/* Note that begin..end is held; 0 = there would be too many islands. */
static int add_range(fli_incoming *incoming, fli_range range)
{
  fli_range *islands = incoming->islands;
  uint32_t first = 0, last;
  while (first < incoming->n_islands && islands[first].end < range.begin)
    first++;
  for (last = first; last < incoming->n_islands; last++) {
    if (islands[last].begin > range.end) break;
    if (islands[last].begin < range.begin) range.begin = islands[last].begin;
    if (islands[last].end > range.end) range.end = islands[last].end;
  }
  /* first..last - 1 are part of it now. */
  if (first == last && incoming->n_islands == FLI_MAX_GAPS - 1 &&
      range.begin > incoming->held)
    return 0;
  memmove(islands + first + 1, islands + last,
          (incoming->n_islands - last) * sizeof *islands);
  islands[first] = range;
  incoming->n_islands += 1 + first - last;
  if (islands[0].begin <= incoming->held) {
    if (islands[0].end > incoming->held) incoming->held = islands[0].end;
    incoming->n_islands--;
    memmove(islands, islands + 1, incoming->n_islands * sizeof *islands);
  }
  return 1;
}

/* A chunk behind a gap: 1 when it is to be kept. */
static fl_status check_ahead(fli_incoming *incoming, const fli_chunk *chunk,
                             int *is_kept)
{
  const uint64_t held = incoming->held;
  const uint64_t most = (uint64_t)MOST_AHEAD * incoming->manifest.chunk_size;
  *is_kept = chunk->offset - held <= most;
  if (!incoming->knows_status)
    return fli_error(FL_E_FORMAT,
                     "chunk: got offset %" PRIu64 ", want <= %" PRIu64,
                     chunk->offset, held);
  /* Told once when gaps begin, and again when the rest is there. */
  if (incoming->n_islands == 0 ||
      chunk->offset + chunk->size == incoming->manifest.total)
    incoming->is_status_due = 1;
  return FL_OK;
}

/* Take what of the chunk is new. */
static fl_status take_chunk(fli_incoming *incoming, const fli_chunk *chunk)
{
  fl_status st = FL_OK;
  int is_kept = 1;
  fli_bytes *data = &incoming->data;
  const uint64_t total = incoming->manifest.total;
  if (chunk->offset > total || chunk->size > total - chunk->offset)
    return fli_error(FL_E_FORMAT,
                     "chunk: ends behind the payload's %" PRIu64 " bytes",
                     total);
  const uint64_t end = chunk->offset + chunk->size;
  if (end <= incoming->held) return FL_OK;
  if (chunk->offset > incoming->held) {
    st = check_ahead(incoming, chunk, &is_kept);
    if (st != FL_OK || !is_kept) return st;
  }
  if (end > data->size) {
    st = fli_bytes_reserve(data, (size_t)(end - data->size));
    if (st != FL_OK) return st;
  }
  if (!add_range(incoming, (fli_range){chunk->offset, end})) return FL_OK;
  memcpy(data->data + chunk->offset, chunk->data, chunk->size);
  if (end > data->size) data->size = (size_t)end;
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
  outgoing->limit = n;
  outgoing->n_todo = 0;
  outgoing->offset = 0;
  outgoing->transfer = manifest->transfer;
  outgoing->chunk_size = chunk_size;
  outgoing->is_active = 1;
  return FL_OK;
}

/* What comes next has been sent. */
static void next_range(fli_outgoing *outgoing)
{
  outgoing->is_active = outgoing->n_todo > 0;
  if (!outgoing->is_active) return;
  outgoing->offset = outgoing->todo[0].begin;
  outgoing->limit = outgoing->todo[0].end;
  outgoing->n_todo--;
  memmove(outgoing->todo, outgoing->todo + 1,
          outgoing->n_todo * sizeof *outgoing->todo);
}

fl_status fli_outgoing_next(fli_outgoing *outgoing, fli_bytes *out)
{
  assert(outgoing->is_active);
  uint64_t left = outgoing->limit - outgoing->offset;
  size_t n = left < outgoing->chunk_size ? (size_t)left : outgoing->chunk_size;
  fli_chunk chunk = {outgoing->transfer, outgoing->offset,
                     outgoing->data + outgoing->offset, n};
  fl_status status = fli_write_chunk(out, &chunk);
  if (status != FL_OK) return status;
  outgoing->offset += n;
  if (outgoing->offset < outgoing->limit) return FL_OK;
  next_range(outgoing);
  return FL_OK;
}

void fli_outgoing_resend(fli_outgoing *outgoing, const fli_missing *missing)
{
  const size_t n = missing->ranges_size / FLI_RANGE_BYTES;
  fli_range ranges[FLI_MAX_GAPS];
  uint64_t behind = 0;
  if (!outgoing->data || missing->transfer != outgoing->transfer) return;
  if (n == 0 || n > FLI_MAX_GAPS) return;
  for (size_t i = 0; i < n; i++) {
    ranges[i].begin = fli_load_u64(missing->ranges + i * FLI_RANGE_BYTES);
    ranges[i].end = fli_load_u64(missing->ranges + i * FLI_RANGE_BYTES + 8);
    if (ranges[i].begin < behind || ranges[i].end <= ranges[i].begin) return;
    behind = ranges[i].end;
  }
  if (behind > outgoing->total) return;
  memcpy(outgoing->todo, ranges + 1, (n - 1) * sizeof *ranges);
  outgoing->n_todo = (uint32_t)n - 1;
  outgoing->offset = ranges[0].begin;
  outgoing->limit = ranges[0].end;
  outgoing->is_active = 1;
}

fl_status fli_incoming_write_status(fli_incoming *incoming, fli_bytes *out)
{
  uint8_t ranges[FLI_MAX_GAPS * FLI_RANGE_BYTES];
  uint8_t *at = ranges;
  uint64_t begin = incoming->held;
  incoming->is_status_due = 0;
  for (uint32_t i = 0; i <= incoming->n_islands; i++) {
    const int is_last = i == incoming->n_islands;
    const uint64_t end =
        is_last ? incoming->manifest.total : incoming->islands[i].begin;
    if (begin < end) {
      fli_store_u64(at, begin);
      fli_store_u64(at + 8, end);
      at += FLI_RANGE_BYTES;
    }
    if (!is_last) begin = incoming->islands[i].end;
  }
  const fli_missing missing = {incoming->manifest.transfer, ranges,
                               (size_t)(at - ranges)};
  return fli_write_missing(out, &missing);
}
