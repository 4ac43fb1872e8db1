/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of updates and sums, and the place of every unit in a payload. */
#include "compress/update.h"

#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/error.h"

enum { FORMAT_VERSION = 2, PAYLOAD_ALIGNMENT = 64 };

/* Offsets in the preamble. */
enum {
  AT_MAGIC = 0,
  AT_VERSION = 4,
  AT_CODEC = 6,
  AT_MODE = 7,
  AT_BITS = 8,
  AT_PUBLIC = 9,
  AT_GRANULARITY = 10,
  AT_SLOTS = 12,
  AT_SEGMENTS = 16,
  AT_RESERVED = 20,
  AT_ROUND = 24,
  AT_COMPRESSOR = 32,
  AT_SCALE = 40,
  AT_PAYLOAD = 48
};

/* Offsets in an update's header, behind the preamble. */
enum { AT_SLOT = 56, AT_SLOT_RESERVED = 60, AT_SAMPLES = 64 };

void fli_preamble_write(const fli_agreed *agreed, uint32_t magic,
                        uint64_t payload, uint8_t out[FLI_PREAMBLE_BYTES])
{
  const fl_compressor *compressor = agreed->compressor;
  fli_store_u32(out + AT_MAGIC, magic);
  fli_store_u16(out + AT_VERSION, FORMAT_VERSION);
  out[AT_CODEC] = (uint8_t)compressor->codec->id;
  out[AT_MODE] = (uint8_t)compressor->mode;
  out[AT_BITS] = (uint8_t)compressor->bits;
  out[AT_PUBLIC] = (uint8_t)agreed->is_public;
  fli_store_u16(out + AT_GRANULARITY, (uint16_t)compressor->granularity);
  fli_store_u32(out + AT_SLOTS, agreed->slots);
  fli_store_u32(out + AT_SEGMENTS, compressor->layout.n_segments);
  fli_store_u32(out + AT_RESERVED, 0);
  fli_store_u64(out + AT_ROUND, agreed->round);
  fli_store_u64(out + AT_COMPRESSOR, compressor->id);
  fli_store_u64(out + AT_SCALE, agreed->id);
  fli_store_u64(out + AT_PAYLOAD, payload);
}

/* What a header has to say, in the order in which it is checked: is it one at
 * all, of our compressor, of our round. */
static const struct {
  uint8_t at;
  uint8_t size;
  uint8_t is_hex;
  fl_status status;
  const char *name;
} fields[] = {
    {AT_MAGIC, 4, 1, FL_E_FORMAT, "magic"},
    {AT_VERSION, 2, 0, FL_E_VERSION, "format version"},
    {AT_RESERVED, 4, 0, FL_E_FORMAT, "reserved bytes"},
    {AT_CODEC, 1, 0, FL_E_SCHEMA, "codec"},
    {AT_MODE, 1, 0, FL_E_SCHEMA, "mode"},
    {AT_BITS, 1, 0, FL_E_SCHEMA, "bits"},
    {AT_GRANULARITY, 2, 0, FL_E_SCHEMA, "granularity"},
    {AT_SEGMENTS, 4, 0, FL_E_SCHEMA, "segments"},
    {AT_COMPRESSOR, 8, 1, FL_E_SCHEMA, "compressor"},
    {AT_ROUND, 8, 0, FL_E_STALE, "round"},
    {AT_SLOTS, 4, 0, FL_E_STALE, "slots"},
    {AT_PUBLIC, 1, 0, FL_E_STALE, "is_public"},
    {AT_SCALE, 8, 1, FL_E_STALE, "scale"},
};

static unsigned long long load(const uint8_t *data, uint32_t size)
{
  uint8_t all[8] = {0};
  memcpy(all, data, size);
  return fli_load_u64(all);
}

fl_status fli_preamble_read(const fli_agreed *agreed, uint32_t magic,
                            const uint8_t *data, size_t n, uint64_t *payload)
{
  uint8_t want[FLI_PREAMBLE_BYTES];
  if (n < FLI_PREAMBLE_BYTES) {
    return fli_error(FL_E_TRUNCATED, "header: got %zu bytes, want >= %d", n,
                     (int)FLI_PREAMBLE_BYTES);
  }
  fli_preamble_write(agreed, magic, 0, want);
  for (size_t i = 0; i < FLI_COUNT_OF(fields); i++) {
    uint32_t at = fields[i].at, size = fields[i].size;
    if (memcmp(data + at, want + at, size) == 0) continue;
    return fli_error(fields[i].status,
                     fields[i].is_hex ? "header: %s, got %llx, want %llx"
                                      : "header: %s, got %llu, want %llu",
                     fields[i].name, load(data + at, size),
                     load(want + at, size));
  }
  *payload = fli_load_u64(data + AT_PAYLOAD);
  return FL_OK;
}

fl_status fli_check_length(const char *what, size_t got, size_t want)
{
  if (got == want) return FL_OK;
  return fli_error(got < want ? FL_E_TRUNCATED : FL_E_FORMAT,
                   "%s: got %zu bytes, want %zu", what, got, want);
}

/* Never overflows: the layout refused vectors whose coordinates at 64 bytes
 * each fit no memory. */
size_t fli_payload_size(const fli_agreed *agreed, uint64_t count)
{
  return (size_t)(count * agreed->compressor->bits / 8);
}

size_t fli_payload_offset(const fli_agreed *agreed, const fli_unit *unit)
{
  const fli_layout *layout = &agreed->compressor->layout;
  uint64_t first = layout->segments[unit->segment].first_unit;
  uint64_t before = agreed->starts[unit->index] - agreed->starts[first];
  return fli_payload_size(agreed, before);
}

static size_t masked_payload(const fli_agreed *agreed, const uint8_t *mask)
{
  size_t total = 0;
  for (uint32_t s = 0; s < agreed->compressor->layout.n_segments; s++) {
    if (mask && !mask[s]) continue;
    total += fli_payload_size(agreed, fli_agreed_count(agreed, s));
  }
  return total;
}

size_t fli_update_front(uint32_t n_segments)
{
  size_t used = (size_t)FLI_UPDATE_HEADER + n_segments;
  return (used + PAYLOAD_ALIGNMENT - 1) / PAYLOAD_ALIGNMENT * PAYLOAD_ALIGNMENT;
}

size_t fli_update_size(const fli_agreed *agreed, const uint8_t *mask)
{
  return fli_update_front(agreed->compressor->layout.n_segments) +
         masked_payload(agreed, mask);
}

size_t fli_update_write(const fli_agreed *agreed, uint32_t slot,
                        uint64_t samples, const uint8_t *mask, uint8_t *out)
{
  uint32_t n_segments = agreed->compressor->layout.n_segments;
  fli_preamble_write(agreed, FLI_UPDATE_MAGIC, masked_payload(agreed, mask),
                     out);
  fli_store_u32(out + AT_SLOT, slot);
  fli_store_u32(out + AT_SLOT_RESERVED, 0);
  fli_store_u64(out + AT_SAMPLES, samples);
  for (uint32_t s = 0; s < n_segments; s++) {
    out[FLI_UPDATE_HEADER + s] = !mask || mask[s] != 0;
  }
  size_t front = fli_update_front(n_segments);
  size_t used = FLI_UPDATE_HEADER + n_segments;
  memset(out + used, 0, front - used);
  return front;
}

/* A segment is there or not; zeros follow. */
static fl_status check_mask(const uint8_t *mask, uint32_t n)
{
  size_t end = fli_update_front(n) - FLI_UPDATE_HEADER;
  for (size_t i = n; i < end; i++) {
    if (mask[i] != 0) {
      return fli_error(FL_E_FORMAT, "update: padding of the mask is set");
    }
  }
  for (uint32_t s = 0; s < n; s++) {
    if (mask[s] <= 1) continue;
    return fli_error(FL_E_FORMAT, "update: mask of segment %u, got %u", s,
                     mask[s]);
  }
  return FL_OK;
}

fl_status fli_update_read(const fli_agreed *agreed, const uint8_t *data,
                          size_t n, fli_update *update)
{
  fl_status st = FL_OK;
  uint64_t payload;
  size_t front = fli_update_front(agreed->compressor->layout.n_segments);
  FLI_TRY(fli_preamble_read(agreed, FLI_UPDATE_MAGIC, data, n, &payload));
  if (n < front) return fli_check_length("update", n, front);
  update->slot = fli_load_u32(data + AT_SLOT);
  update->samples = fli_load_u64(data + AT_SAMPLES);
  update->mask = data + FLI_UPDATE_HEADER;
  update->payload = data + front;
  if (update->slot >= agreed->slots) {
    return fli_error(FL_E_RANGE, "update: slot, got %u, want < %u",
                     update->slot, agreed->slots);
  }
  if (update->samples == 0) {
    return fli_error(FL_E_RANGE, "update: samples, got 0, want >= 1");
  }
  if (fli_load_u32(data + AT_SLOT_RESERVED) != 0) {
    return fli_error(FL_E_FORMAT, "update: reserved bytes are set");
  }
  FLI_TRY(check_mask(update->mask, agreed->compressor->layout.n_segments));
  size_t want = masked_payload(agreed, update->mask);
  if (payload != want) {
    return fli_error(FL_E_FORMAT, "update: payload, got %llu, want %zu",
                     (unsigned long long)payload, want);
  }
  FLI_TRY(fli_check_length("update", n, front + want));
out:
  return st;
}
