/* SPDX-License-Identifier: Apache-2.0 */
/* The activation cache ("Egeria", Wang et al., EuroSys 2023, section 4.3):
 * rows that a frozen prefix of layers computes, kept by sample id. A row's bit
 * is set after its bytes were written and taken back before they change; for
 * what a crash makes of that order on the disk, each slot has a checksum or,
 * encrypted, a tag. Either one is seeded with the header, so with everything
 * that rows depend on, and with the id. */
#include "cache/cache.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/size.h"

enum { MIB = 1 << 20, NAME_BYTES_MAX = 128 };

static const fl_cache_options cache_defaults = {
    .struct_size = sizeof(fl_cache_options),
    .dtype = FL_CACHE_F32,
    .byte_cap = (uint64_t)256 * MIB,
};

static const fl_cache_status status_defaults = {
    .struct_size = sizeof(fl_cache_status),
};

/* ---- handle -------------------------------------------------------------- */

static fl_status check_name(const char *name)
{
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
  size_t n = strspn(name, allowed);
  if (name[n] == '\0' && n > 0 && n <= NAME_BYTES_MAX) return FL_OK;
  return fli_error(FL_E_OPTIONS, "cache: name, want [a-z0-9._-]{1,128}");
}

static fl_status check_options(const fl_cache_options *options,
                               const fl_storage *storage)
{
  if (options->dtype < FL_CACHE_F32 || options->dtype > FL_CACHE_I8) {
    return fli_error(FL_E_OPTIONS, "cache: dtype, got %u, want %d..%d",
                     (unsigned)options->dtype, FL_CACHE_F32, FL_CACHE_I8);
  }
  if (!options->name) return FL_OK;
  fl_status st = check_name(options->name);
  if (st != FL_OK) return st;
  if (!storage || !storage->map_write) {
    return fli_error(FL_E_UNSUPPORTED,
                     "cache: name %s, but the context has no storage%s",
                     options->name, storage ? " with map_write" : "");
  }
  return FL_OK;
}

static void use_key(fl_cache *cache, const uint8_t *key)
{
  cache->has_key = 1;
  fli_derive(cache->header_key, key, "fl cache header", 0, 0);
  fli_derive(cache->row_key, key, "fl cache rows", 0, 0);
}

fl_status fl_cache_options_init(fl_cache_options *options, size_t size)
{
  return fli_options_init(options, size, &cache_defaults,
                          sizeof cache_defaults);
}

fl_status fl_cache_new(fl_cache **out, fl_context *context,
                       const fl_cache_options *given)
{
  fl_cache_options options = cache_defaults;
  const fl_storage *storage = fli_context_storage(context);
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "cache: out, got NULL");
  fl_status st =
      fli_options_load(&options, sizeof options, given, "cache options");
  if (st == FL_OK) st = check_options(&options, storage);
  if (st == FL_OK) st = fli_crypto_init();
  if (st != FL_OK) return st;
  fl_cache *cache = fli_alloc(context, 1, sizeof *cache);
  if (!cache) return fli_nomem(sizeof *cache);
  cache->context = fli_context_ref(context);
  cache->dtype = options.dtype;
  cache->byte_cap = options.byte_cap;
  if (options.data_tag)
    memcpy(cache->data_tag, options.data_tag, sizeof cache->data_tag);
  if (options.name) {
    cache->storage = storage;
    cache->name = fli_strdup(context, options.name);
    if (!cache->name) {
      fl_cache_free(cache);
      return fli_nomem(strlen(options.name) + 1);
    }
  }
  if (options.key) use_key(cache, options.key);
  *out = cache;
  return FL_OK;
}

void fl_cache_free(fl_cache *cache)
{
  if (!cache) return;
  fl_context *context = cache->context;
  fli_cache_close(cache);
  if (cache->name) fli_free(context, cache->name, strlen(cache->name) + 1);
  fli_wipe(cache, sizeof *cache);
  fli_free(context, cache, sizeof *cache);
  fli_context_unref(context);
}

/* ---- what rows are of ---------------------------------------------------- */

fl_status fl_cache_begin(fl_cache *cache, const uint8_t *tag,
                         uint64_t n_samples, uint64_t n_values)
{
  fli_cache_layout layout;
  uint8_t header[FLI_CACHE_HEADER];
  fli_clear_error();
  if (!cache || !tag) return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  if (n_samples == 0 || n_values == 0) {
    return fli_error(FL_E_ARGUMENT,
                     "cache: got %" PRIu64 " samples of %" PRIu64
                     " values, want at least 1",
                     n_samples, n_values);
  }
  if (cache->is_wiped) return fli_error(FL_E_STATE, "cache: it was wiped");
  fl_status st = fli_cache_plan(cache, n_samples, n_values, &layout);
  if (st == FL_OK) {
    fli_cache_header(cache, &layout, tag, header);
    if (cache->data && memcmp(header, cache->header, sizeof header) == 0)
      return FL_OK;
  }
  fli_cache_close(cache);
  cache->begun++;
  if (st != FL_OK) return st;
  cache->layout = layout;
  memcpy(cache->header, header, sizeof header);
  return fli_cache_open(cache);
}

static fl_status check_ids(const fl_cache *cache, const uint64_t *ids,
                           uint32_t n)
{
  if (!cache->data) return fli_error(FL_E_STATE, "cache: it is off");
  for (uint32_t i = 0; i < n; i++) {
    if (ids[i] < cache->layout.n_samples) continue;
    return fli_error(FL_E_RANGE,
                     "cache: ids[%u], got %" PRIu64 ", want < %" PRIu64,
                     (unsigned)i, ids[i], cache->layout.n_samples);
  }
  return FL_OK;
}

/* ---- slots --------------------------------------------------------------- */

static uint8_t *slot_of(const fl_cache *cache, uint64_t id)
{
  return cache->data + cache->layout.slots_at + id * cache->layout.slot;
}

static int is_set(const fl_cache *cache, uint64_t id)
{
  return cache->data[FLI_CACHE_HEADER + id / 8] >> id % 8 & 1;
}

static void set_bit(fl_cache *cache, uint64_t id, int is_there)
{
  if (is_set(cache, id) == is_there) return;
  cache->data[FLI_CACHE_HEADER + id / 8] ^= (uint8_t)(1u << id % 8);
  if (is_there) {
    cache->rows++;
  } else {
    cache->rows--;
  }
}

static uint64_t sum_of(const fl_cache *cache, uint64_t id, const uint8_t *row)
{
  const uint8_t *hash = cache->header + FLI_CACHE_HEADER - FLI_HASH_BYTES;
  return fli_row_sum(row, (size_t)cache->layout.row, fli_hash_id(hash), id);
}

/* A slot is authenticated together with the header's hash and its id. */
enum { SEAL_CONTEXT = FLI_HASH_BYTES + 8 };

static fli_seal seal_of(const fl_cache *cache, uint64_t id, const uint8_t *slot,
                        uint8_t context[SEAL_CONTEXT])
{
  memcpy(context, cache->header + FLI_CACHE_HEADER - FLI_HASH_BYTES,
         FLI_HASH_BYTES);
  fli_store_u64(context + FLI_HASH_BYTES, id);
  return (fli_seal){cache->row_key, slot, context, SEAL_CONTEXT};
}

static fl_status write_sealed(fl_cache *cache, uint64_t id, const float *x)
{
  uint8_t context[SEAL_CONTEXT];
  uint8_t *slot = slot_of(cache, id);
  const void *row = x;
  fl_status st = fli_random_bytes(cache->context, slot, FLI_NONCE_BYTES);
  if (st != FL_OK) return st;
  if (cache->scratch) {
    fli_row_encode(cache->dtype, cache->scratch, x,
                   (size_t)cache->layout.n_values);
    row = cache->scratch;
  }
  fli_seal seal = seal_of(cache, id, slot, context);
  fli_seal_bytes(&seal, slot + FLI_NONCE_BYTES, slot + FLI_CACHE_SEALED, row,
                 (size_t)cache->layout.row);
  return FL_OK;
}

static fl_status write_row(fl_cache *cache, uint64_t id, const float *x)
{
  fl_status st = FL_OK;
  uint8_t *slot = slot_of(cache, id);
  set_bit(cache, id, 0);
  if (cache->has_key) {
    st = write_sealed(cache, id, x);
  } else {
    fli_row_encode(cache->dtype, slot + FLI_CACHE_SUM, x,
                   (size_t)cache->layout.n_values);
    fli_store_u64(slot, sum_of(cache, id, slot + FLI_CACHE_SUM));
  }
  if (st == FL_OK) set_bit(cache, id, 1);
  return st;
}

static int read_sealed(fl_cache *cache, uint64_t id, float *x)
{
  uint8_t context[SEAL_CONTEXT];
  const uint8_t *slot = slot_of(cache, id);
  size_t n = (size_t)cache->layout.n_values;
  fli_seal seal = seal_of(cache, id, slot, context);
  void *row = cache->scratch ? (void *)cache->scratch : (void *)x;
  if (!fli_unseal_bytes(&seal, slot + FLI_NONCE_BYTES, row,
                        slot + FLI_CACHE_SEALED, (size_t)cache->layout.row)) {
    return 0;
  }
  if (!cache->scratch) return fli_rows_are_finite(x, n);
  return fli_row_decode(cache->dtype, x, cache->scratch, n);
}

/* 1, or 0 when it is not there or not what was written. */
static int read_row(fl_cache *cache, uint64_t id, float *x)
{
  if (cache->has_key) return read_sealed(cache, id, x);
  const uint8_t *slot = slot_of(cache, id);
  const uint8_t *row = slot + FLI_CACHE_SUM;
  if (fli_load_u64(slot) != sum_of(cache, id, row)) return 0;
  return fli_row_decode(cache->dtype, x, row, (size_t)cache->layout.n_values);
}

static fl_status put_rows(fl_cache *cache, const uint64_t *ids, uint32_t n,
                          const float *rows)
{
  size_t n_values = (size_t)cache->layout.n_values;
  for (uint32_t i = 0; i < n; i++) {
    if (fli_rows_are_finite(rows + i * n_values, n_values)) continue;
    return fli_error(FL_E_NOT_FINITE, "cache: rows[%u] of sample %" PRIu64,
                     (unsigned)i, ids[i]);
  }
  for (uint32_t i = 0; i < n; i++) {
    fl_status st = write_row(cache, ids[i], rows + i * n_values);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

/* The first id that is not there; n when all are. Bits first: they are the
 * usual reason. */
static uint32_t get_rows(fl_cache *cache, const uint64_t *ids, uint32_t n,
                         float *rows)
{
  size_t n_values = (size_t)cache->layout.n_values;
  for (uint32_t i = 0; i < n; i++) {
    if (!is_set(cache, ids[i])) return i;
  }
  for (uint32_t i = 0; i < n; i++) {
    if (read_row(cache, ids[i], rows + i * n_values)) continue;
    set_bit(cache, ids[i], 0);
    return i;
  }
  return n;
}

fl_status fl_cache_put(fl_cache *cache, const uint64_t *ids, uint32_t n,
                       const float *rows)
{
  fli_clear_error();
  if (!cache || (n > 0 && (!ids || !rows)))
    return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  fl_status st = check_ids(cache, ids, n);
  if (st != FL_OK) return st;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = put_rows(cache, ids, n, rows);
  fli_fpguard_leave(&guard);
  return st;
}

fl_status fl_cache_get(fl_cache *cache, const uint64_t *ids, uint32_t n,
                       float *rows)
{
  fli_clear_error();
  if (!cache || (n > 0 && (!ids || !rows)))
    return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  fl_status st = check_ids(cache, ids, n);
  if (st != FL_OK) return st;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  uint32_t missing = get_rows(cache, ids, n, rows);
  fli_fpguard_leave(&guard);
  if (missing < n) {
    cache->misses += n;
    return fli_error(FL_E_EMPTY, "cache: sample %" PRIu64 " is not there",
                     ids[missing]);
  }
  cache->hits += n;
  return FL_OK;
}

int32_t fl_cache_has(const fl_cache *cache, const uint64_t *ids, uint32_t n)
{
  if (!cache || !cache->data || (n > 0 && !ids)) return 0;
  for (uint32_t i = 0; i < n; i++) {
    if (ids[i] >= cache->layout.n_samples || !is_set(cache, ids[i])) return 0;
  }
  return 1;
}

/* Samples in a row are one piece. */
fl_status fl_cache_prefetch(const fl_cache *cache, const uint64_t *ids,
                            uint32_t n)
{
  fli_clear_error();
  if (!cache || (n > 0 && !ids))
    return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  fl_status st = check_ids(cache, ids, n);
  if (st != FL_OK || !cache->storage || !cache->storage->advise) return st;
  const fl_storage *storage = cache->storage;
  uint64_t slot = cache->layout.slot;
  for (uint32_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && ids[end] == ids[end - 1] + 1;) {
      end++;
    }
    storage->advise(storage->user, cache->data,
                    cache->layout.slots_at + ids[i] * slot, (end - i) * slot);
  }
  return FL_OK;
}

fl_status fl_cache_flush(fl_cache *cache)
{
  fli_clear_error();
  if (!cache) return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  if (!cache->data || !cache->storage) return FL_OK;
  fl_status st = cache->storage->sync(cache->storage->user);
  if (st == FL_OK) return FL_OK;
  return fli_error(FL_E_IO, "cache: blob %s, sync said %s", cache->name,
                   fl_status_name(st));
}

fl_status fl_cache_wipe(fl_cache *cache)
{
  fli_clear_error();
  if (!cache) return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  cache->is_wiped = 1;
  fli_wipe(cache->row_key, sizeof cache->row_key);
  fli_wipe(cache->header_key, sizeof cache->header_key);
  return fli_cache_destroy(cache);
}

fl_status fl_cache_status_init(fl_cache_status *status, size_t size)
{
  return fli_options_init(status, size, &status_defaults,
                          sizeof status_defaults);
}

fl_status fl_cache_get_status(const fl_cache *cache, fl_cache_status *status)
{
  fli_clear_error();
  if (!cache || !status) return fli_error(FL_E_ARGUMENT, "cache: got NULL");
  fl_cache_status now = {
      .struct_size = sizeof now, .hits = cache->hits, .misses = cache->misses};
  if (cache->data) {
    now.is_on = 1;
    now.n_samples = cache->layout.n_samples;
    now.n_values = cache->layout.n_values;
    now.rows = cache->rows;
    now.bytes = cache->layout.bytes;
  }
  return fli_options_store(status, &now, sizeof now, "cache status");
}
