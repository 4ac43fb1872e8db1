/* SPDX-License-Identifier: Apache-2.0 */
/* Out of memory, everywhere: run a scenario again and again, with its 1st,
 * 2nd, 3rd ... allocation failing, until it gets through without meeting the
 * failure. Twice: failing once only (the next allocation works again) and
 * failing from there on. Each run has to report FL_E_NOMEM with a text, and to
 * give back every byte, counted by the allocator and by the context.
 *
 *   static fl_status scenario(fl_context *context, void *arg)
 *   {
 *     make handles with `context`, use them, free them; return the first
 *     status that is not FL_OK
 *   }
 *   static void case_name(void) { oom_loop(scenario, NULL); }
 */
#ifndef OOM_H
#define OOM_H

#include <stdlib.h>

#include "check.h"

enum { OOM_RUNS_MAX = 100000 };

typedef fl_status (*oom_scenario)(fl_context *context, void *arg);

typedef struct oom_heap {
  uint64_t asked;   /* allocations so far */
  uint64_t fail_at; /* number of the one to fail, from 1; 0 = none */
  int is_sticky;    /* and all after it */
  int was_hit;
  uint64_t live_bytes;
  uint64_t live_blocks;
} oom_heap;

static inline void *oom_alloc(void *user, size_t size, size_t alignment)
{
  oom_heap *heap = user;
  heap->asked++;
  if (heap->fail_at != 0 &&
      (heap->asked == heap->fail_at ||
       (heap->is_sticky && heap->asked > heap->fail_at))) {
    heap->was_hit = 1;
    return NULL;
  }
  size_t rounded = (size + alignment - 1) / alignment * alignment;
  void *ptr = aligned_alloc(alignment, rounded);
  if (!ptr) return NULL;
  memset(ptr, 0xa5, rounded);
  heap->live_bytes += size;
  heap->live_blocks++;
  return ptr;
}

static inline void oom_dealloc(void *user, void *ptr, size_t size,
                               size_t alignment)
{
  oom_heap *heap = user;
  (void)alignment;
  heap->live_bytes -= size;
  heap->live_blocks--;
  free(ptr);
}

/* A context whose memory comes from `heap`. */
static inline fl_status oom_context(fl_context **out, oom_heap *heap)
{
  fl_context_options options;
  fl_status st = fl_context_options_init(&options, sizeof options);
  if (st != FL_OK) return st;
  options.user = heap;
  options.alloc = oom_alloc;
  options.dealloc = oom_dealloc;
  return fl_context_new(out, &options);
}

/* One run with allocation `fail_at` of the scenario failing (0 = none);
 * returns whether the failure was met. */
static inline int oom_run(oom_scenario scenario, void *arg, uint64_t fail_at,
                          int is_sticky)
{
  oom_heap heap = {.is_sticky = is_sticky};
  fl_context *context = NULL;
  CHECK_OK(oom_context(&context, &heap));
  if (!context) return 0;
  if (fail_at != 0) heap.fail_at = heap.asked + fail_at;
  fl_status st = scenario(context, arg);
  uint64_t bytes = 0;
  CHECK_STATUS(st, heap.was_hit ? FL_E_NOMEM : FL_OK);
  if (heap.was_hit) CHECK(strlen(fl_last_error()) > 0);
  CHECK_OK(fl_context_get_memory(context, &bytes, NULL));
  CHECK_EQ_U64(bytes, 0);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  CHECK_EQ_U64(heap.live_bytes, 0);
  if (check_totals.failures > 0) {
    fprintf(stderr, "with allocation %" PRIu64 " failing%s\n", fail_at,
            is_sticky ? " and all after it" : "");
  }
  return heap.was_hit;
}

/* The whole loop; stops at the first run that breaks a rule. */
static inline void oom_loop(oom_scenario scenario, void *arg)
{
  for (int is_sticky = 0; is_sticky <= 1; is_sticky++) {
    uint64_t fail_at = 1;
    while (oom_run(scenario, arg, fail_at, is_sticky)) {
      if (check_totals.failures > 0) return;
      fail_at++;
      CHECK(fail_at < OOM_RUNS_MAX);
    }
    /* A scenario that never allocates tests nothing. */
    CHECK(fail_at > 1);
  }
}

#endif
