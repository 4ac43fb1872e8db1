/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of the activation cache, in memory and in a blob. */
#include "oom.h"

#include "base/context.h"
#include "base/error.h"
#include "cache_blob.h"

enum { SAMPLES = 5, VALUES = 9 };

static const uint8_t key[FL_CACHE_KEY_BYTES] =
    "a key of 32 bytes, for tests onl";

static fl_status use(fl_cache *cache)
{
  const uint64_t ids[] = {0, 3};
  float rows[2 * VALUES], back[2 * VALUES];
  fl_status st = FL_OK;
  cache_fill(rows, VALUES, 0, 0);
  cache_fill(rows + VALUES, VALUES, 3, 0);
  FLI_TRY(fl_cache_put(cache, ids, 2, rows));
  FLI_TRY(fl_cache_get(cache, ids, 2, back));
  CHECK_EQ_MEM(rows, back, sizeof rows);
out:
  return st;
}

/* One that had no memory is off, and nothing else. */
static fl_status begin(fl_cache *cache, uint64_t samples, uint8_t tag)
{
  const uint64_t id = 0;
  fl_cache_status status;
  fl_status st = fl_cache_begin(cache, cache_tag(tag), samples, VALUES);
  if (st == FL_OK) return st;
  CHECK_EQ_U64((uint64_t)fl_cache_has(cache, &id, 1), 0);
  (void)fl_cache_status_init(&status, sizeof status);
  (void)fl_cache_get_status(cache, &status);
  CHECK_EQ_U64(status.is_on, 0);
  return fl_cache_begin(cache, cache_tag(tag), samples, VALUES) == FL_OK
             ? fli_nomem(1) /* the failure was passed already */
             : FL_E_NOMEM;
}

static fl_status use_options(fl_context *context, const char *name)
{
  fl_cache *cache = NULL;
  fl_cache_options options;
  fl_status st = FL_OK;
  FLI_TRY(fl_cache_options_init(&options, sizeof options));
  options.name = name;
  options.key = key;
  options.dtype = FL_CACHE_F16;
  FLI_TRY(fl_cache_new(&cache, context, &options));
  FLI_TRY(begin(cache, SAMPLES, 1));
  FLI_TRY(use(cache));
  FLI_TRY(begin(cache, 2 * SAMPLES, 1));
  FLI_TRY(use(cache));
out:
  fl_cache_free(cache);
  return st;
}

static fl_status in_memory(fl_context *context, void *arg)
{
  (void)arg;
  return use_options(context, NULL);
}

static void cache_in_memory(void)
{
  oom_loop(in_memory, NULL);
}

/* The storage's context has an allocator of its own: this one counts too. */
static void cache_in_a_blob(void)
{
  for (int is_sticky = 0; is_sticky <= 1; is_sticky++) {
    int was_hit = 1;
    for (uint64_t fail_at = 1; was_hit; fail_at++) {
      oom_heap heap = {.is_sticky = is_sticky};
      cache_blob blob = {0};
      fl_storage hooks = cache_blob_hooks(&blob);
      fl_context_options options;
      fl_context *context = NULL;
      CHECK_OK(fl_context_options_init(&options, sizeof options));
      options.user = &heap;
      options.alloc = oom_alloc;
      options.dealloc = oom_dealloc;
      options.storage = &hooks;
      CHECK_OK(fl_context_new(&context, &options));
      heap.fail_at = heap.asked + fail_at;
      fl_status st = use_options(context, "outputs");
      was_hit = heap.was_hit;
      CHECK_STATUS(st, was_hit ? FL_E_NOMEM : FL_OK);
      CHECK_EQ_U64(blob.mapped, 0);
      fl_context_free(context);
      CHECK_EQ_U64(heap.live_blocks, 0);
      free(blob.data);
      /* Handle, name, two scratch rows. */
      if (!was_hit) CHECK_EQ_U64(fail_at, 5);
      if (check_totals.failures > 0) return;
    }
  }
}

int main(void)
{
  CHECK_CASE(cache_in_memory);
  CHECK_CASE(cache_in_a_blob);
  return check_report();
}
