/* SPDX-License-Identifier: Apache-2.0 */
/* A blob that an activation cache finds, behind three bytes that choose the
 * cache:
 *
 *   byte 0   bits 0..1: data type, 2: sealed, 3: give the blob the right size,
 *            4: and the right header, 5: and the right checksums
 *   byte 1   samples, byte 2: values of a row
 *
 * Whatever it is, the cache begins with it; what comes back from it is finite
 * and has the right checksum, and nothing does that was not sealed; afterwards
 * the cache takes rows and gives them back as any other. */
#include "fuzz.h"

#include <math.h>

#include "base/bytes.h"
#include "cache_blob.h"
#include "cache/cache.h"

enum { SAMPLES_MAX = 40, VALUES_MAX = 70, CHOICE = 3 };
enum { SEALED = 4, SIZED = 8, HEADED = 16, SUMMED = 32 };

static const uint8_t key[FL_CACHE_KEY_BYTES] =
    "a key of 32 bytes, for tests onl";

typedef struct input {
  uint32_t dtype;
  unsigned flags;
  uint64_t samples;
  uint64_t values;
} input;

static fl_cache *begun_cache(fl_context *context, const input *in)
{
  fl_cache *cache = NULL;
  fl_cache_options options;
  FUZZ_CHECK(fl_cache_options_init(&options, sizeof options) == FL_OK);
  options.dtype = in->dtype;
  options.name = "outputs";
  if (in->flags & SEALED) options.key = key;
  FUZZ_CHECK(fl_cache_new(&cache, context, &options) == FL_OK);
  FUZZ_CHECK(fl_cache_begin(cache, cache_tag(1), in->samples, in->values) ==
             FL_OK);
  return cache;
}

static uint64_t rows_of(const fl_cache *cache)
{
  fl_cache_status status;
  FUZZ_CHECK(fl_cache_status_init(&status, sizeof status) == FL_OK);
  FUZZ_CHECK(fl_cache_get_status(cache, &status) == FL_OK);
  FUZZ_CHECK(status.is_on && status.rows <= status.n_samples);
  return status.rows;
}

/* Checksums that nobody but us would find. */
static void mend_sums(cache_blob *blob, const fli_cache_layout *l,
                      const uint8_t *header)
{
  uint64_t seed = fli_hash_id(header + FLI_CACHE_HEADER - FLI_HASH_BYTES);
  for (uint64_t id = 0; id < l->n_samples; id++) {
    uint8_t *slot = blob->data + l->slots_at + id * l->slot;
    fli_store_u64(slot,
                  fli_row_sum(slot + FLI_CACHE_SUM, (size_t)l->row, seed, id));
  }
}

/* Put the input in the blob's place; whether its header is the right one. */
static int put_blob(cache_blob *blob, const input *in, const uint8_t *data,
                    size_t n)
{
  fl_context *context = cache_blob_context(blob);
  FUZZ_CHECK(context != NULL);
  fl_cache *cache = begun_cache(context, in);
  fli_cache_layout l = cache->layout;
  uint8_t header[FLI_CACHE_HEADER];
  memcpy(header, cache->header, sizeof header);
  fl_cache_free(cache);
  fl_context_free(context);
  if (in->flags & (SIZED | HEADED | SUMMED)) {
    memset(blob->data, 0, (size_t)l.bytes);
    size_t taken = n < l.bytes ? n : (size_t)l.bytes;
    if (taken > 0) memcpy(blob->data, data, taken);
  } else {
    FUZZ_CHECK(cache_blob_write(blob, "", data, n) == FL_OK);
  }
  if (in->flags & (HEADED | SUMMED)) memcpy(blob->data, header, sizeof header);
  if ((in->flags & SUMMED) && !(in->flags & SEALED))
    mend_sums(blob, &l, header);
  return blob->n == l.bytes && memcmp(blob->data, header, sizeof header) == 0;
}

static void read_hostile(fl_cache *cache, const input *in)
{
  static float row[VALUES_MAX];
  for (uint64_t id = 0; id < in->samples; id++) {
    int is_marked = fl_cache_has(cache, &id, 1);
    fl_status st = fl_cache_get(cache, &id, 1, row);
    FUZZ_CHECK(st == FL_OK || st == FL_E_EMPTY);
    FUZZ_CHECK(fl_cache_has(cache, &id, 1) == (st == FL_OK));
    if (st != FL_OK) continue;
    FUZZ_CHECK(is_marked && !(in->flags & SEALED));
    for (uint64_t i = 0; i < in->values; i++)
      FUZZ_CHECK(isfinite(row[i]));
  }
}

static void use(fl_cache *cache, const input *in, int is_full)
{
  static float rows[SAMPLES_MAX * VALUES_MAX], back[SAMPLES_MAX * VALUES_MAX];
  uint64_t ids[SAMPLES_MAX];
  for (uint64_t id = 0; id < in->samples; id++) {
    ids[id] = id;
    cache_fill(rows + id * in->values, in->values, id, 0);
  }
  uint32_t n = (uint32_t)in->samples;
  if (!is_full) FUZZ_CHECK(fl_cache_put(cache, ids, n, rows) == FL_OK);
  FUZZ_CHECK(fl_cache_get(cache, ids, n, back) == FL_OK);
  FUZZ_CHECK(rows_of(cache) == in->samples);
  if (in->dtype == FL_CACHE_I8) return;
  FUZZ_CHECK(memcmp(rows, back, n * (size_t)in->values * sizeof *rows) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n < CHOICE) return 0;
  const input in = {.dtype = data[0] % 4 % 3 + 1,
                    .flags = data[0],
                    .samples = data[1] % SAMPLES_MAX + 1,
                    .values = data[2] % VALUES_MAX + 1};
  cache_blob blob = {0};
  int is_ours = put_blob(&blob, &in, data + CHOICE, n - CHOICE);
  fl_context *context = cache_blob_context(&blob);
  FUZZ_CHECK(context != NULL);
  fl_cache *cache = begun_cache(context, &in);
  FUZZ_CHECK(is_ours || rows_of(cache) == 0);
  read_hostile(cache, &in);
  use(cache, &in, 0);
  fl_cache_free(cache);
  cache = begun_cache(context, &in);
  use(cache, &in, 1);
  fl_cache_free(cache);
  FUZZ_CHECK(blob.mapped == 0);
  fl_context_free(context);
  free(blob.data);
  return 0;
}
