/* SPDX-License-Identifier: Apache-2.0 */
/* The activation cache in a blob: what outlives a handle, what of a damaged or
 * foreign blob is believed (nothing), encryption, and storages that fail. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/rng.h"
#include "cache_blob.h"
#include "cache/cache.h"

enum { SAMPLES = 12, VALUES = 21, KEY = FL_CACHE_KEY_BYTES };

static const uint8_t key[KEY] = "a key of 32 bytes, for tests onl";
static cache_blob blob;
static fl_context *context;

static void open_blob(void)
{
  context = cache_blob_context(&blob);
  cr_assert_not_null(context);
}

static void close_blob(void)
{
  cr_assert_eq(blob.mapped, 0);
  fl_context_free(context);
  free(blob.data);
}

typedef struct setting {
  uint32_t dtype;
  const uint8_t *key;
  const uint8_t *data_tag;
} setting;

static const setting settings[] = {
    {FL_CACHE_F32, NULL, NULL}, {FL_CACHE_F16, NULL, NULL},
    {FL_CACHE_I8, NULL, NULL},  {FL_CACHE_F32, key, NULL},
    {FL_CACHE_F16, key, NULL},  {FL_CACHE_I8, key, NULL},
};

enum { SETTINGS = sizeof settings / sizeof settings[0] };

static const setting plain = {FL_CACHE_F32, NULL, NULL};
static const setting sealed = {FL_CACHE_F32, key, NULL};

static fl_cache *new_cache(const setting *s)
{
  fl_cache *cache = NULL;
  fl_cache_options options;
  cr_assert_eq(fl_cache_options_init(&options, sizeof options), FL_OK);
  options.dtype = s->dtype;
  options.key = s->key;
  options.data_tag = s->data_tag;
  options.name = "outputs";
  cr_assert_eq(fl_cache_new(&cache, context, &options), FL_OK);
  return cache;
}

static fl_cache *begun_cache(const setting *s)
{
  fl_cache *cache = new_cache(s);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  return cache;
}

static void put_all(fl_cache *cache)
{
  for (uint64_t id = 0; id < SAMPLES; id++) {
    float row[VALUES];
    cache_fill(row, VALUES, id, 0);
    cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_OK);
  }
}

static void leave_full(const setting *s)
{
  fl_cache *cache = begun_cache(s);
  put_all(cache);
  fl_cache_free(cache);
}

static uint64_t rows_of(const fl_cache *cache)
{
  fl_cache_status status;
  cr_assert_eq(fl_cache_status_init(&status, sizeof status), FL_OK);
  cr_assert_eq(fl_cache_get_status(cache, &status), FL_OK);
  return status.rows;
}

/* How many rows come back; what does is what was put, within the bound. */
static uint64_t good_rows(fl_cache *cache, const setting *s)
{
  uint64_t count = 0;
  for (uint64_t id = 0; id < SAMPLES; id++) {
    float row[VALUES], want[VALUES];
    fl_status st = fl_cache_get(cache, &id, 1, row);
    if (st != FL_OK) cr_assert_eq(st, FL_E_EMPTY);
    if (st != FL_OK) continue;
    count++;
    cache_fill(want, VALUES, id, 0);
    for (int i = 0; i < VALUES; i++) {
      float off = row[i] > want[i] ? row[i] - want[i] : want[i] - row[i];
      cr_assert_leq(off, s->dtype == FL_CACHE_I8 ? 8.0f / 253 : 0.0f);
    }
  }
  return count;
}

/* What is there for a new handle. */
static uint64_t found(const setting *s)
{
  fl_cache *cache = begun_cache(s);
  uint64_t count = good_rows(cache, s);
  fl_cache_free(cache);
  return count;
}

Test(cache_blob, rows_outlive_the_handle, .init = open_blob, .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    leave_full(&settings[i]);
    cr_assert_eq(found(&settings[i]), SAMPLES, "setting %zu", i);
    cr_assert_eq(found(&settings[i]), SAMPLES);
    fl_cache *cache = begun_cache(&settings[i]);
    cr_assert_eq(rows_of(cache), SAMPLES);
    fl_cache_free(cache);
  }
}

Test(cache_blob, handle_that_never_began_changes_nothing, .init = open_blob,
     .fini = close_blob)
{
  leave_full(&plain);
  fl_cache_free(new_cache(&plain));
  cr_assert_eq(found(&plain), SAMPLES);
}

Test(cache_blob, rows_of_other_settings_are_not_there, .init = open_blob,
     .fini = close_blob)
{
  static const uint8_t other_key[KEY] = "a key of 32 bytes, for tests onL";
  const setting others[] = {{FL_CACHE_F16, NULL, NULL},
                            {FL_CACHE_F32, key, NULL},
                            {FL_CACHE_F32, other_key, NULL},
                            {FL_CACHE_F32, NULL, cache_tag(9)}};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    leave_full(i == 2 ? &sealed : &plain);
    cr_assert_eq(found(&others[i]), 0, "setting %zu", i);
  }
}

Test(cache_blob, rows_of_another_tag_or_shape_are_not_there, .init = open_blob,
     .fini = close_blob)
{
  const uint64_t shapes[][2] = {
      {SAMPLES, VALUES}, {SAMPLES + 1, VALUES}, {SAMPLES, VALUES + 1}};
  for (uint8_t i = 0; i < 3; i++) {
    leave_full(&plain);
    fl_cache *cache = new_cache(&plain);
    cr_assert_eq(
        fl_cache_begin(cache, cache_tag(i ? 1 : 2), shapes[i][0], shapes[i][1]),
        FL_OK);
    cr_assert_eq(rows_of(cache), 0);
    fl_cache_free(cache);
    cr_assert_eq(found(&plain), 0);
  }
}

/* As a crash during a copy, or a full disk, leaves it. */
Test(cache_blob, truncated_blob_counts_as_empty, .init = open_blob,
     .fini = close_blob)
{
  leave_full(&plain);
  uint64_t n = blob.n;
  uint8_t *whole = malloc((size_t)n);
  cr_assert_not_null(whole);
  memcpy(whole, blob.data, (size_t)n);
  for (uint64_t cut = 0; cut < n; cut += cut < 400 ? 1 : 37) {
    cache_blob_write(&blob, "", whole, (size_t)cut);
    cr_assert_eq(found(&plain), 0, "%d bytes", (int)cut);
    cr_assert_eq(blob.n, n);
  }
  cache_blob_write(&blob, "", whole, (size_t)n);
  cr_assert_eq(found(&plain), SAMPLES);
  free(whole);
}

Test(cache_blob, foreign_blob_of_the_right_size_counts_as_empty,
     .init = open_blob, .fini = close_blob)
{
  leave_full(&plain);
  memset(blob.data, 0xff, (size_t)blob.n);
  cr_assert_eq(found(&plain), 0);
  memset(blob.data, 0, (size_t)blob.n);
  cr_assert_eq(found(&plain), 0);
  leave_full(&plain);
  cr_assert_eq(found(&plain), SAMPLES);
}

Test(cache_blob, header_with_any_bit_flipped_counts_as_empty, .init = open_blob,
     .fini = close_blob)
{
  for (size_t bit = 0; bit < 8 * FLI_CACHE_HEADER; bit++) {
    leave_full(&plain);
    blob.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    cr_assert_eq(found(&plain), 0, "bit %zu", bit);
  }
}

/* Any flipped bit behind the bitmap costs its row, and no other. */
Test(cache_blob, row_with_a_bit_flipped_is_missing, .init = open_blob,
     .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    leave_full(&settings[i]);
    fl_cache *cache = begun_cache(&settings[i]);
    fli_cache_layout l = cache->layout;
    fl_cache_free(cache);
    for (uint64_t at = 0; at < l.head + l.row; at++) {
      uint64_t id = at % SAMPLES;
      uint8_t *byte = blob.data + l.slots_at + id * l.slot + at;
      *byte ^= (uint8_t)(1u << at % 8);
      cache = begun_cache(&settings[i]);
      cr_assert_eq(fl_cache_has(cache, &id, 1), 1);
      cr_assert_eq(good_rows(cache, &settings[i]), SAMPLES - 1);
      cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
      cr_assert_eq(rows_of(cache), SAMPLES - 1);
      put_all(cache);
      cr_assert_eq(good_rows(cache, &settings[i]), SAMPLES);
      fl_cache_free(cache);
    }
  }
}

Test(cache_blob, slots_that_trade_places_are_missing, .init = open_blob,
     .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    uint8_t kept[1024];
    leave_full(&settings[i]);
    fl_cache *cache = begun_cache(&settings[i]);
    uint64_t slot = cache->layout.slot;
    uint8_t *first = cache->data + cache->layout.slots_at;
    memcpy(kept, first, slot);
    memcpy(first, first + slot, slot);
    memcpy(first + slot, kept, slot);
    cr_assert_eq(good_rows(cache, &settings[i]), SAMPLES - 2);
    fl_cache_free(cache);
  }
}

/* A crash of the machine may lose the header of a new tag, or a row, and keep
 * the bits: rows of the time before must not pass for new ones. */
Test(cache_blob, slots_of_another_tag_do_not_pass_under_new_bits,
     .init = open_blob, .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    leave_full(&settings[i]);
    fl_cache *cache = new_cache(&settings[i]);
    cr_assert_eq(fl_cache_begin(cache, cache_tag(2), SAMPLES, VALUES), FL_OK);
    memset(cache->data + FLI_CACHE_HEADER, 0xff, SAMPLES / 8 + 1);
    fl_cache_free(cache);
    cache = new_cache(&settings[i]);
    cr_assert_eq(fl_cache_begin(cache, cache_tag(2), SAMPLES, VALUES), FL_OK);
    /* Bits behind the last sample are none. */
    cr_assert_eq(rows_of(cache), SAMPLES);
    cr_assert_eq(good_rows(cache, &settings[i]), 0);
    cr_assert_eq(rows_of(cache), 0);
    fl_cache_free(cache);
  }
}

Test(cache_blob, bits_over_slots_never_written_bring_nothing, .init = open_blob,
     .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    fl_cache *cache = begun_cache(&settings[i]);
    memset(cache->data + FLI_CACHE_HEADER, 0xff,
           (size_t)(cache->layout.slots_at - FLI_CACHE_HEADER));
    fl_cache_free(cache);
    cr_assert_eq(found(&settings[i]), 0);
  }
}

static int blob_holds(const void *bytes, size_t n)
{
  for (uint64_t at = 0; at + n <= blob.n; at++) {
    if (memcmp(blob.data + at, bytes, n) == 0) return 1;
  }
  return 0;
}

Test(cache_blob, encrypted_rows_are_not_in_the_blob, .init = open_blob,
     .fini = close_blob)
{
  for (size_t i = 0; i < SETTINGS; i++) {
    const uint64_t id = 3;
    float row[VALUES];
    uint8_t bytes[FLI_CACHE_SCALE + 4 * VALUES];
    cache_fill(row, VALUES, id, 0);
    fli_row_encode(settings[i].dtype, bytes, row, VALUES);
    leave_full(&settings[i]);
    for (size_t at = FLI_CACHE_SCALE; at < FLI_CACHE_SCALE + 13; at += 4) {
      cr_assert_eq(blob_holds(bytes + at, 8), settings[i].key == NULL,
                   "setting %zu", i);
    }
    if (settings[i].key) cr_assert_eq(blob_holds(key, 8), 0);
  }
}

Test(cache_blob, same_row_is_never_sealed_to_the_same_bytes, .init = open_blob,
     .fini = close_blob)
{
  uint8_t before[4 * VALUES];
  leave_full(&sealed);
  fl_cache *cache = begun_cache(&sealed);
  const uint8_t *slot = cache->data + cache->layout.slots_at;
  memcpy(before, slot + FLI_CACHE_SEALED, sizeof before);
  put_all(cache);
  cr_assert_neq(memcmp(before, slot + FLI_CACHE_SEALED, sizeof before), 0);
  cr_assert_eq(good_rows(cache, &sealed), SAMPLES);
  fl_cache_free(cache);
}

/* The tag of everything is there, the rows are not. */
Test(cache_blob, row_of_another_key_under_the_right_header_is_missing,
     .init = open_blob, .fini = close_blob)
{
  leave_full(&sealed);
  fl_cache *cache = begun_cache(&sealed);
  cache->row_key[0] ^= 1;
  cr_assert_eq(good_rows(cache, &sealed), 0);
  fl_cache_free(cache);
}

static fl_status no_entropy(void *user, void *buf, size_t n)
{
  (void)user, (void)buf, (void)n;
  return FL_E_IO;
}

Test(cache_blob, without_entropy_nothing_is_sealed)
{
  const uint64_t id = 1;
  float row[VALUES] = {0};
  fl_context_options options;
  fl_cache_options of_cache;
  fl_cache *cache = NULL;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_cache_options_init(&of_cache, sizeof of_cache), FL_OK);
  options.entropy = no_entropy;
  of_cache.key = key;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  cr_assert_eq(fl_cache_new(&cache, context, &of_cache), FL_OK);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_E_ENTROPY);
  cr_assert_eq(rows_of(cache), 0);
  fl_cache_free(cache);
  fl_context_free(context);
}

Test(cache_blob, storage_that_cannot_map_turns_it_off, .init = open_blob,
     .fini = close_blob)
{
  const uint64_t id = 0;
  float row[VALUES] = {0};
  const fl_status says[][2] = {
      {FL_E_IO, FL_E_IO}, {FL_E_NOMEM, FL_E_NOMEM}, {FL_E_ARGUMENT, FL_E_IO}};
  for (int i = 0; i < 3; i++) {
    fl_cache *cache = begun_cache(&plain);
    put_all(cache);
    blob.map_status = says[i][0];
    cr_assert_eq(fl_cache_begin(cache, cache_tag(2), SAMPLES, VALUES),
                 says[i][1]);
    cr_assert_not_null(strstr(fl_last_error(), "outputs"));
    cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_E_STATE);
    cr_assert_eq(fl_cache_get(cache, &id, 1, row), FL_E_STATE);
    blob.map_status = FL_OK;
    cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
    cr_assert_eq(good_rows(cache, &plain), SAMPLES);
    fl_cache_free(cache);
  }
}

static void without_map_write(fl_storage *hooks)
{
  hooks->map_write = NULL;
  hooks->unmap_write = NULL;
}

Test(cache_blob, name_wants_a_storage_that_maps)
{
  fl_storage hooks = cache_blob_hooks(&blob);
  fl_context_options options;
  fl_cache_options of_cache;
  fl_cache *cache = NULL;
  cr_assert_eq(fl_cache_options_init(&of_cache, sizeof of_cache), FL_OK);
  of_cache.name = "outputs";
  cr_assert_eq(fl_cache_new(&cache, NULL, &of_cache), FL_E_UNSUPPORTED);
  cr_assert_not_null(strstr(fl_last_error(), "no storage"));
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  without_map_write(&hooks);
  options.storage = &hooks;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  cr_assert_eq(fl_cache_new(&cache, context, &of_cache), FL_E_UNSUPPORTED);
  cr_assert_not_null(strstr(fl_last_error(), "with map_write"));
  cr_assert_null(cache);
  of_cache.name = NULL;
  cr_assert_eq(fl_cache_new(&cache, context, &of_cache), FL_OK);
  fl_cache_free(cache);
  fl_context_free(context);
}

Test(cache_blob, wiped_cache_leaves_no_blob_and_no_key, .init = open_blob,
     .fini = close_blob)
{
  static const uint8_t zeros[FLI_KEY_BYTES];
  fl_cache *cache = begun_cache(&sealed);
  put_all(cache);
  cr_assert_neq(memcmp(cache->row_key, zeros, sizeof zeros), 0);
  cr_assert_eq(fl_cache_wipe(cache), FL_OK);
  cr_assert_null(blob.data);
  cr_assert_eq(memcmp(cache->row_key, zeros, sizeof zeros), 0);
  cr_assert_eq(memcmp(cache->header_key, zeros, sizeof zeros), 0);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES),
               FL_E_STATE);
  fl_cache_free(cache);
  /* One that never began does it, too. */
  leave_full(&plain);
  cache = new_cache(&plain);
  cr_assert_eq(fl_cache_wipe(cache), FL_OK);
  cr_assert_null(blob.data);
  fl_cache_free(cache);
}

Test(cache_blob, blob_that_cannot_be_removed_is_overwritten, .init = open_blob,
     .fini = close_blob)
{
  fl_cache *cache = begun_cache(&plain);
  put_all(cache);
  blob.remove_status = FL_E_IO;
  cr_assert_eq(fl_cache_wipe(cache), FL_E_IO);
  cr_assert_not_null(strstr(fl_last_error(), "outputs"));
  fl_cache_free(cache);
  for (uint64_t i = 0; i < blob.n; i++)
    cr_assert_eq(blob.data[i], 0);
}

Test(cache_blob, flush_asks_the_storage, .init = open_blob, .fini = close_blob)
{
  fl_cache *cache = begun_cache(&plain);
  cr_assert_eq(fl_cache_flush(cache), FL_OK);
  cr_assert_eq(blob.syncs, 1);
  blob.sync_status = FL_E_NOMEM;
  cr_assert_eq(fl_cache_flush(cache), FL_E_IO);
  fl_cache_free(cache);
}

Test(cache_blob, prefetch_joins_samples_that_follow_each_other,
     .init = open_blob, .fini = close_blob)
{
  const uint64_t ids[] = {3, 4, 5, 9, 1, 2};
  fl_cache *cache = begun_cache(&plain);
  uint64_t slot = cache->layout.slot;
  cr_assert_eq(fl_cache_prefetch(cache, ids, 6), FL_OK);
  cr_assert_eq(blob.advices, 3);
  cr_assert_eq(blob.advised, 6 * slot);
  cr_assert_eq(blob.last_offset, cache->layout.slots_at + slot);
  const uint64_t last = SAMPLES - 1;
  cr_assert_eq(fl_cache_prefetch(cache, &last, 1), FL_OK);
  fl_cache_free(cache);
}

/* Handles come and go and bytes of slots flip: what comes back is right (see
 * good_rows), and a byte costs its row. */
Test(cache_blob, whatever_happens_to_slots_rows_are_right_or_missing,
     .init = open_blob, .fini = close_blob)
{
  for (uint64_t seed = 0; seed < 60; seed++) {
    fli_rng rng;
    const setting *s = &settings[seed % SETTINGS];
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    leave_full(s);
    for (uint64_t there = SAMPLES, i = 0; i < 10; i++) {
      uint64_t flips = fli_rng_u64(&rng) % 4;
      uint64_t slots_at = FLI_CACHE_HEADER + 64;
      for (uint64_t f = 0; f < flips; f++) {
        uint64_t at = slots_at + fli_rng_u64(&rng) % (blob.n - slots_at);
        blob.data[at] ^= (uint8_t)(1 + fli_rng_u64(&rng) % 255);
      }
      uint64_t now = found(s);
      cr_assert_leq(now, there, "seed %d", (int)seed);
      cr_assert_geq(now + flips, there, "seed %d", (int)seed);
      there = now;
    }
  }
}
