/* SPDX-License-Identifier: Apache-2.0 */
/* The activation cache in memory: what comes back, when it does not, and what
 * is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "cache_blob.h"
#include "cache/cache.h"

enum { SAMPLES = 20, VALUES = 37 };

static fl_cache_options defaults(void)
{
  fl_cache_options options;
  cr_assert_eq(fl_cache_options_init(&options, sizeof options), FL_OK);
  return options;
}

static fl_cache *new_cache(uint32_t dtype)
{
  fl_cache *cache = NULL;
  fl_cache_options options = defaults();
  options.dtype = dtype;
  cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_OK);
  return cache;
}

static fl_cache *begun_cache(uint32_t dtype, uint64_t samples, uint64_t values)
{
  fl_cache *cache = new_cache(dtype);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), samples, values), FL_OK);
  return cache;
}

static fl_cache_status status_of(const fl_cache *cache)
{
  fl_cache_status status;
  cr_assert_eq(fl_cache_status_init(&status, sizeof status), FL_OK);
  cr_assert_eq(fl_cache_get_status(cache, &status), FL_OK);
  return status;
}

static void put_one(fl_cache *cache, uint64_t id, uint64_t version)
{
  float row[VALUES];
  cache_fill(row, VALUES, id, version);
  cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_OK);
}

Test(cache, a_call_with_one_row_missing_is_a_miss)
{
  const uint64_t ids[] = {2, 5, 7};
  float rows[3 * VALUES];
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  put_one(cache, 2, 0);
  put_one(cache, 7, 0);
  cr_assert_eq(fl_cache_has(cache, ids, 3), 0);
  cr_assert_eq(fl_cache_get(cache, ids, 3, rows), FL_E_EMPTY);
  cr_assert_not_null(strstr(fl_last_error(), "sample 5"));
  put_one(cache, 5, 0);
  cr_assert_eq(fl_cache_has(cache, ids, 3), 1);
  cr_assert_eq(fl_cache_get(cache, ids, 3, rows), FL_OK);
  fl_cache_status status = status_of(cache);
  cr_assert_eq(status.hits, 3);
  cr_assert_eq(status.misses, 3);
  cr_assert_eq(status.rows, 3);
  fl_cache_free(cache);
}

Test(cache, tag_or_shape_of_another_prefix_forgets_everything)
{
  const uint64_t id = 4;
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  put_one(cache, id, 0);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 1);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(2), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  put_one(cache, id, 0);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES + 1, VALUES), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  put_one(cache, id, 0);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES + 1, VALUES - 1),
               FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  fl_cache_free(cache);
}

Test(cache, last_of_a_sample_counts)
{
  const uint64_t ids[] = {3, 3};
  float rows[2 * VALUES], back[VALUES];
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  cache_fill(rows, VALUES, 3, 1);
  cache_fill(rows + VALUES, VALUES, 3, 2);
  cr_assert_eq(fl_cache_put(cache, ids, 2, rows), FL_OK);
  cr_assert_eq(status_of(cache).rows, 1);
  cr_assert_eq(fl_cache_get(cache, ids, 1, back), FL_OK);
  cr_assert_eq(memcmp(back, rows + VALUES, sizeof back), 0);
  fl_cache_free(cache);
}

Test(cache, values_that_are_not_finite_are_not_kept)
{
  const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  const uint64_t ids[] = {0, 1};
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  for (int k = 0; k < 4; k++) {
    for (size_t at = VALUES; at < 2 * VALUES; at++) {
      float rows[2 * VALUES] = {0};
      rows[at] = bad[k];
      cr_assert_eq(fl_cache_put(cache, ids, 2, rows), FL_E_NOT_FINITE);
      cr_assert_not_null(strstr(fl_last_error(), "rows[1] of sample 1"));
    }
  }
  cr_assert_eq(status_of(cache).rows, 0);
  fl_cache_free(cache);
}

Test(cache, ids_out_of_range_change_nothing)
{
  const uint64_t wrong[] = {SAMPLES, SAMPLES + 1, UINT64_MAX, 1u << 31};
  float rows[2 * VALUES] = {0};
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  for (int i = 0; i < 4; i++) {
    const uint64_t ids[] = {0, wrong[i]};
    cr_assert_eq(fl_cache_put(cache, ids, 2, rows), FL_E_RANGE);
    cr_assert_not_null(strstr(fl_last_error(), "ids[1]"));
    cr_assert_eq(fl_cache_get(cache, ids, 2, rows), FL_E_RANGE);
    cr_assert_eq(fl_cache_prefetch(cache, ids, 2), FL_E_RANGE);
    cr_assert_eq(fl_cache_has(cache, ids, 2), 0);
  }
  fl_cache_status status = status_of(cache);
  cr_assert_eq(status.rows + status.hits + status.misses, 0);
  const uint64_t last = SAMPLES - 1;
  put_one(cache, last, 0);
  cr_assert_eq(fl_cache_has(cache, &last, 1), 1);
  fl_cache_free(cache);
}

Test(cache, no_rows_are_all_there)
{
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  cr_assert_eq(fl_cache_put(cache, NULL, 0, NULL), FL_OK);
  cr_assert_eq(fl_cache_get(cache, NULL, 0, NULL), FL_OK);
  cr_assert_eq(fl_cache_prefetch(cache, NULL, 0), FL_OK);
  cr_assert_eq(fl_cache_has(cache, NULL, 0), 1);
  fl_cache_free(cache);
}

Test(cache, cap_is_exact_and_its_text_names_both)
{
  for (uint32_t dtype = FL_CACHE_F32; dtype <= FL_CACHE_I8; dtype++) {
    fl_cache *cache = begun_cache(dtype, SAMPLES, VALUES);
    uint64_t bytes = status_of(cache).bytes;
    char want[64];
    cr_assert_geq(bytes, SAMPLES * fli_row_bytes(dtype, VALUES));
    fl_cache_free(cache);
    for (uint64_t less = 0; less <= 1; less++) {
      fl_cache_options options = defaults();
      options.dtype = dtype;
      options.byte_cap = bytes - less;
      cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_OK);
      cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES),
                   less ? FL_E_LIMIT : FL_OK);
      snprintf(want, sizeof want, "%llu bytes, the cap is %llu",
               (unsigned long long)bytes, (unsigned long long)(bytes - 1));
      cr_assert_eq(strstr(fl_last_error(), want) != NULL, less == 1);
      cr_assert_eq(status_of(cache).is_on, less == 0);
      fl_cache_free(cache);
    }
  }
}

/* What does not fit is off, and on again when it fits. */
Test(cache, failed_begin_is_off)
{
  const uint64_t id = 0;
  float row[VALUES] = {0};
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  put_one(cache, id, 0);
  const uint64_t huge[][2] = {{UINT64_MAX, 1},
                              {1, UINT64_MAX},
                              {UINT64_MAX, UINT64_MAX},
                              {UINT64_C(1) << 32, UINT64_C(1) << 30},
                              {1000000, 1000}};
  for (int i = 0; i < 5; i++) {
    cr_assert_eq(fl_cache_begin(cache, cache_tag(1), huge[i][0], huge[i][1]),
                 FL_E_LIMIT);
    cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_E_STATE);
    cr_assert_eq(fl_cache_get(cache, &id, 1, row), FL_E_STATE);
    cr_assert_eq(fl_cache_prefetch(cache, &id, 1), FL_E_STATE);
    cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
    fl_cache_status status = status_of(cache);
    cr_assert_eq(status.is_on, 0);
    cr_assert_eq(status.rows + status.bytes + status.n_samples, 0);
  }
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  put_one(cache, id, 0);
  fl_cache_free(cache);
}

Test(cache, is_off_before_it_begins)
{
  const uint64_t id = 0;
  float row[1] = {0};
  fl_cache *cache = new_cache(FL_CACHE_F32);
  cr_assert_eq(fl_cache_put(cache, &id, 1, row), FL_E_STATE);
  cr_assert_eq(fl_cache_get(cache, &id, 1, row), FL_E_STATE);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  cr_assert_eq(fl_cache_flush(cache), FL_OK);
  cr_assert_eq(status_of(cache).is_on, 0);
  fl_cache_free(cache);
}

Test(cache, null_and_zero_are_refused)
{
  const uint64_t id = 0;
  float row[VALUES] = {0};
  fl_cache_status status;
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  cr_assert_eq(fl_cache_status_init(&status, sizeof status), FL_OK);
  cr_assert_eq(fl_cache_new(NULL, NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_begin(NULL, cache_tag(1), 1, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_begin(cache, NULL, 1, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), 0, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), 1, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_put(NULL, &id, 1, row), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_put(cache, NULL, 1, row), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_put(cache, &id, 1, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_get(NULL, &id, 1, row), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_get(cache, NULL, 1, row), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_get(cache, &id, 1, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_prefetch(NULL, &id, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_prefetch(cache, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_flush(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_wipe(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_get_status(NULL, &status), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_get_status(cache, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_cache_has(NULL, &id, 1), 0);
  cr_assert_eq(fl_cache_has(cache, NULL, 1), 0);
  fl_cache_free(NULL);
  /* Refused arguments leave it on. */
  put_one(cache, 0, 0);
  fl_cache_free(cache);
}

Test(cache, options_that_cannot_be_are_refused)
{
  char long_name[130];
  memset(long_name, 'a', 129);
  long_name[129] = '\0';
  const char *names[] = {"", "Blob", "a b", "a/b", long_name};
  fl_cache *cache = NULL;
  cache_blob blob = {0};
  fl_context *context = cache_blob_context(&blob);
  fl_cache_options options = defaults();
  for (uint32_t dtype = 0; dtype <= 4; dtype += 4) {
    options.dtype = dtype;
    cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_E_OPTIONS);
  }
  options = defaults();
  for (int i = 0; i < 5; i++) {
    options.name = names[i];
    cr_assert_eq(fl_cache_new(&cache, context, &options), FL_E_OPTIONS);
  }
  options = defaults();
  options.struct_size = 3;
  cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_E_OPTIONS);
  cr_assert_null(cache);
  fl_context_free(context);
}

Test(cache, options_of_an_older_host_leave_the_rest_at_its_default)
{
  fl_cache *cache = NULL;
  fl_cache_options options = defaults();
  options.struct_size = offsetof(fl_cache_options, byte_cap);
  options.dtype = FL_CACHE_F16;
  options.byte_cap = 1;
  cr_assert_eq(fl_cache_new(&cache, NULL, &options), FL_OK);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), 1000, 1000), FL_OK);
  uint64_t bytes = status_of(cache).bytes;
  cr_assert_geq(bytes, 2000000);
  cr_assert_lt(bytes, 2100000);
  fl_cache_free(cache);
}

Test(cache, wiped_cache_stays_off)
{
  const uint64_t id = 0;
  float row[VALUES];
  fl_cache *cache = begun_cache(FL_CACHE_F32, SAMPLES, VALUES);
  put_one(cache, id, 0);
  cr_assert_eq(fl_cache_wipe(cache), FL_OK);
  cr_assert_eq(fl_cache_has(cache, &id, 1), 0);
  cr_assert_eq(fl_cache_get(cache, &id, 1, row), FL_E_STATE);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES),
               FL_E_STATE);
  cr_assert_eq(fl_cache_wipe(cache), FL_OK);
  fl_cache_free(cache);
}

Test(cache, memory_is_the_contexts_and_within_its_bound)
{
  fl_context_options options;
  fl_context *context = NULL;
  fl_cache *cache = NULL;
  uint64_t now = 0;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = 10000;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  cr_assert_eq(fl_cache_new(&cache, context, NULL), FL_OK);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), 10, 200), FL_OK);
  cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
  cr_assert_geq(now, status_of(cache).bytes);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), 100, 200), FL_E_NOMEM);
  cr_assert_eq(status_of(cache).is_on, 0);
  fl_cache_free(cache);
  cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
  cr_assert_eq(now, 0);
  fl_context_free(context);
}

/* Random calls beside a plain array of what should be there. */
typedef struct oracle {
  float rows[SAMPLES][VALUES];
  int is_there[SAMPLES];
  uint64_t values;
  uint64_t hits, misses;
} oracle;

static void random_ids(fli_rng *rng, uint64_t *ids, uint32_t n)
{
  for (uint32_t i = 0; i < n; i++)
    ids[i] = fli_rng_u64(rng) % SAMPLES;
}

static void random_put(fli_rng *rng, fl_cache *cache, oracle *o)
{
  uint64_t ids[6];
  float rows[6 * VALUES];
  uint32_t n = (uint32_t)(fli_rng_u64(rng) % 7);
  random_ids(rng, ids, n);
  for (uint32_t i = 0; i < n; i++) {
    cache_fill(rows + i * o->values, o->values, ids[i], fli_rng_u64(rng));
    memcpy(o->rows[ids[i]], rows + i * o->values, o->values * sizeof *rows);
    o->is_there[ids[i]] = 1;
  }
  cr_assert_eq(fl_cache_put(cache, ids, n, rows), FL_OK);
}

static void random_get(fli_rng *rng, fl_cache *cache, oracle *o)
{
  uint64_t ids[3];
  float rows[3 * VALUES];
  uint32_t n = (uint32_t)(fli_rng_u64(rng) % 4);
  int want = 1;
  random_ids(rng, ids, n);
  for (uint32_t i = 0; i < n; i++)
    want &= o->is_there[ids[i]];
  cr_assert_eq(fl_cache_has(cache, ids, n), want);
  cr_assert_eq(fl_cache_get(cache, ids, n, rows), want ? FL_OK : FL_E_EMPTY);
  *(want ? &o->hits : &o->misses) += n;
  for (uint32_t i = 0; want && i < n; i++) {
    cr_assert_eq(
        memcmp(rows + i * o->values, o->rows[ids[i]], o->values * sizeof *rows),
        0);
  }
}

static void random_begin(fli_rng *rng, fl_cache *cache, oracle *o, uint8_t *tag)
{
  uint8_t new_tag = fli_rng_u64(rng) % 3 ? *tag : (uint8_t)(*tag + 1);
  uint64_t values =
      fli_rng_u64(rng) % 3 ? o->values : 1 + fli_rng_u64(rng) % VALUES;
  if (new_tag != *tag || values != o->values)
    memset(o->is_there, 0, sizeof o->is_there);
  *tag = new_tag;
  o->values = values;
  cr_assert_eq(fl_cache_begin(cache, cache_tag(new_tag), SAMPLES, values),
               FL_OK);
}

Test(cache, does_what_a_plain_array_does)
{
  const uint32_t dtypes[] = {FL_CACHE_F32, FL_CACHE_F16};
  for (uint64_t seed = 0; seed < 40; seed++) {
    fli_rng rng;
    oracle o = {.values = VALUES};
    uint8_t tag = 1;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    fl_cache *cache = begun_cache(dtypes[seed % 2], SAMPLES, VALUES);
    for (int step = 0; step < 500; step++) {
      uint64_t what = fli_rng_u64(&rng) % 40;
      if (what == 0)
        random_begin(&rng, cache, &o, &tag);
      else if (what % 2)
        random_put(&rng, cache, &o);
      else
        random_get(&rng, cache, &o);
      uint64_t rows = 0;
      for (int i = 0; i < SAMPLES; i++)
        rows += (uint64_t)o.is_there[i];
      fl_cache_status status = status_of(cache);
      cr_assert_eq(status.rows, rows, "seed %d", (int)seed);
      cr_assert_eq(status.hits, o.hits, "seed %d", (int)seed);
      cr_assert_eq(status.misses, o.misses, "seed %d", (int)seed);
    }
    fl_cache_free(cache);
  }
}
