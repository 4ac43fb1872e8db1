/* SPDX-License-Identifier: Apache-2.0 */
/* The block of an activation cache: its layout, its header, and where it comes
 * from. Nothing of a blob is parsed. The one header that this cache would write
 * is computed, over everything that rows depend on, and a blob has it or is
 * empty; its hash seeds each slot's checksum (or is what an encrypted slot is
 * authenticated with), so that slots of another time do not pass either. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/size.h"
#include "cache/cache.h"

enum {
  VERSION = 1,
  VERSION_AT = 8,
  ORDER_AT = 12,
  DTYPE_AT = 16,
  SEALED_AT = 20,
  SAMPLES_AT = 24,
  VALUES_AT = 32,
  SLOT_AT = 40,
  SLOTS_AT = 48,
  BYTES_AT = 56,
  TAG_AT = 64,
  DATA_TAG_AT = TAG_AT + FL_HASH_BYTES,
  HASH_AT = FLI_CACHE_HEADER - FLI_HASH_BYTES,
  BITMAP_ROUND = 64,
  SLOT_ROUND = 8
};

static const char magic[] = "FLCACHE"; /* 8 bytes */
/* As a number of the machine: another byte order is another header. */
static const uint32_t byte_order = 0x01020304;

static int round_up(uint64_t value, uint64_t to, uint64_t *out)
{
  if (!fli_add_u64(value, to - 1, &value)) return 0;
  *out = value - value % to;
  return 1;
}

/* 0 when a number does not fit. */
static int lay_out(fli_cache_layout *l, uint32_t dtype)
{
  uint64_t slots;
  if (l->n_values > UINT64_MAX / 8) return 0;
  l->row = fli_row_bytes(dtype, l->n_values);
  return fli_add_u64(l->row, l->head, &l->slot) &&
         round_up(l->slot, SLOT_ROUND, &l->slot) &&
         round_up(l->n_samples / 8 + 1, BITMAP_ROUND, &l->slots_at) &&
         fli_add_u64(l->slots_at, FLI_CACHE_HEADER, &l->slots_at) &&
         fli_mul_u64(l->slot, l->n_samples, &slots) &&
         fli_add_u64(l->slots_at, slots, &l->bytes);
}

fl_status fli_cache_plan(const fl_cache *cache, uint64_t n_samples,
                         uint64_t n_values, fli_cache_layout *out)
{
  fli_cache_layout l = {.n_samples = n_samples, .n_values = n_values};
  size_t bytes;
  l.head = cache->has_key ? FLI_CACHE_SEALED : FLI_CACHE_SUM;
  if (!lay_out(&l, cache->dtype)) l.bytes = UINT64_MAX;
  if (l.bytes > cache->byte_cap || !fli_to_size(l.bytes, &bytes)) {
    return fli_error(FL_E_LIMIT,
                     "cache: %" PRIu64 " rows of %" PRIu64
                     " values, want %" PRIu64 " bytes, the cap is %" PRIu64,
                     n_samples, n_values, l.bytes, cache->byte_cap);
  }
  *out = l;
  return FL_OK;
}

void fli_cache_header(const fl_cache *cache, const fli_cache_layout *layout,
                      const uint8_t *tag, uint8_t header[FLI_CACHE_HEADER])
{
  memset(header, 0, FLI_CACHE_HEADER);
  memcpy(header, magic, sizeof magic);
  fli_store_u32(header + VERSION_AT, VERSION);
  memcpy(header + ORDER_AT, &byte_order, sizeof byte_order);
  fli_store_u32(header + DTYPE_AT, cache->dtype);
  fli_store_u32(header + SEALED_AT, cache->has_key ? 1 : 0);
  fli_store_u64(header + SAMPLES_AT, layout->n_samples);
  fli_store_u64(header + VALUES_AT, layout->n_values);
  fli_store_u64(header + SLOT_AT, layout->slot);
  fli_store_u64(header + SLOTS_AT, layout->slots_at);
  fli_store_u64(header + BYTES_AT, layout->bytes);
  memcpy(header + TAG_AT, tag, FL_HASH_BYTES);
  memcpy(header + DATA_TAG_AT, cache->data_tag, FL_HASH_BYTES);
  fli_hash_keyed(header + HASH_AT, cache->header_key,
                 cache->has_key ? FLI_KEY_BYTES : 0, header, HASH_AT);
}

static uint64_t bitmap_bytes(const fl_cache *cache)
{
  return cache->layout.slots_at - FLI_CACHE_HEADER;
}

/* Bits behind the last sample are not looked at. */
static uint64_t count_rows(const fl_cache *cache)
{
  const uint8_t *bitmap = cache->data + FLI_CACHE_HEADER;
  uint64_t n = cache->layout.n_samples, count = 0;
  for (uint64_t i = 0; i <= n / 8; i++) {
    unsigned byte = bitmap[i];
    if (i == n / 8) byte &= (1u << n % 8) - 1;
    for (; byte; byte &= byte - 1) {
      count++;
    }
  }
  return count;
}

static void begin_empty(fl_cache *cache)
{
  memset(cache->data, 0, FLI_CACHE_HEADER);
  memset(cache->data + FLI_CACHE_HEADER, 0, (size_t)bitmap_bytes(cache));
  memcpy(cache->data, cache->header, FLI_CACHE_HEADER);
  cache->rows = 0;
}

static fl_status map_blob(fl_cache *cache)
{
  const fl_storage *storage = cache->storage;
  uint64_t bytes = cache->layout.bytes;
  void *data = NULL;
  int32_t is_new = 0;
  fl_status st =
      storage->map_write(storage->user, cache->name, bytes, &data, &is_new);
  if (st == FL_OK && !data) st = FL_E_INTERNAL;
  if (st != FL_OK) {
    return fli_error(st == FL_E_NOMEM ? FL_E_NOMEM : FL_E_IO,
                     "cache: blob %s of %" PRIu64 " bytes, map_write said %s",
                     cache->name, bytes, fl_status_name(st));
  }
  cache->data = data;
  if (!is_new && memcmp(data, cache->header, FLI_CACHE_HEADER) == 0) {
    cache->rows = count_rows(cache);
  } else {
    begin_empty(cache);
  }
  return FL_OK;
}

static fl_status take_memory(fl_cache *cache)
{
  size_t bytes = (size_t)cache->layout.bytes;
  cache->data = fli_alloc(cache->context, bytes, 1);
  if (!cache->data) return fli_nomem(bytes);
  begin_empty(cache);
  return FL_OK;
}

/* Sealing wants the row's bytes in one piece that is not the blob's. */
static fl_status take_scratch(fl_cache *cache)
{
  size_t bytes = (size_t)cache->layout.row;
  if (!cache->has_key || cache->dtype == FL_CACHE_F32) return FL_OK;
  cache->scratch = fli_alloc(cache->context, bytes, 1);
  return cache->scratch ? FL_OK : fli_nomem(bytes);
}

static void drop_scratch(fl_cache *cache)
{
  if (!cache->scratch) return;
  fli_wipe(cache->scratch, (size_t)cache->layout.row);
  fli_free(cache->context, cache->scratch, (size_t)cache->layout.row);
  cache->scratch = NULL;
}

fl_status fli_cache_open(fl_cache *cache)
{
  assert(!cache->data && !cache->scratch);
  fl_status st = take_scratch(cache);
  if (st == FL_OK) {
    st = cache->storage ? map_blob(cache) : take_memory(cache);
  }
  if (st != FL_OK) drop_scratch(cache);
  return st;
}

void fli_cache_close(fl_cache *cache)
{
  drop_scratch(cache);
  if (cache->data && cache->storage) {
    cache->storage->unmap_write(cache->storage->user, cache->data,
                                cache->layout.bytes);
  } else if (cache->data) {
    fli_free(cache->context, cache->data, (size_t)cache->layout.bytes);
  }
  cache->data = NULL;
  cache->rows = 0;
}

fl_status fli_cache_destroy(fl_cache *cache)
{
  if (cache->data) fli_wipe(cache->data, (size_t)cache->layout.bytes);
  fli_cache_close(cache);
  if (!cache->storage) return FL_OK;
  const fl_storage *storage = cache->storage;
  fl_status st = storage->remove(storage->user, cache->name);
  if (st == FL_OK || st == FL_E_NOT_FOUND) return FL_OK;
  return fli_error(FL_E_IO, "cache: blob %s, remove said %s", cache->name,
                   fl_status_name(st));
}
