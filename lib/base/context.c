/* SPDX-License-Identifier: Apache-2.0 */
/* The host's hooks and what the library does with them: memory that is
 * counted and capped, log lines, clock, parallel loops. A context is shared by
 * all handles made with it, by a reference count; the counters are atomic
 * because handles of different threads share them. Without a context the
 * defaults work, uncounted. */
#include "base/context.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/size.h"

enum { LOG_LINE_BYTES = 512, GROW_FIRST = 8 };

struct fl_context {
  atomic_uint references;
  _Atomic uint64_t bytes_now;
  _Atomic uint64_t bytes_peak;
  fl_context *whole; /* whose memory this one's is, a reference; or NULL */
  int has_storage;
  fl_storage storage;
  fl_context_options hooks;
};

static const fl_context_options context_defaults = {
    .struct_size = sizeof(fl_context_options),
    .log_level = FL_LOG_WARNING,
};

/* bytes > 0; hooks without an allocator mean the C library's. */
static void *raw_alloc(const fl_context_options *hooks, size_t bytes)
{
  if (hooks->alloc) return hooks->alloc(hooks->user, bytes, FLI_ALIGNMENT);
  /* aligned_alloc of C11 wants a multiple of the alignment. */
  size_t mask = FLI_ALIGNMENT - 1;
  if (bytes > PTRDIFF_MAX - mask) return NULL;
  return aligned_alloc(FLI_ALIGNMENT, (bytes + mask) & ~mask);
}

static void raw_free(const fl_context_options *hooks, void *ptr, size_t bytes)
{
  if (hooks->dealloc) {
    hooks->dealloc(hooks->user, ptr, bytes, FLI_ALIGNMENT);
  } else {
    free(ptr);
  }
}

static const fl_context_options *hooks_of(const fl_context *context)
{
  return context ? &context->hooks : &context_defaults;
}

/* Whose counters count. */
static fl_context *account_of(fl_context *context)
{
  return context && context->whole ? context->whole : context;
}

static int charge(fl_context *context, size_t bytes)
{
  context = account_of(context);
  if (!context) return 1;
  uint64_t cap = context->hooks.memory_cap;
  uint64_t now = atomic_load(&context->bytes_now);
  uint64_t then;
  do {
    if (!fli_add_u64(now, bytes, &then)) return 0;
    if (cap != 0 && then > cap) return 0;
  } while (!atomic_compare_exchange_weak(&context->bytes_now, &now, then));
  return 1;
}

static void refund(fl_context *context, size_t bytes)
{
  context = account_of(context);
  if (context) atomic_fetch_sub(&context->bytes_now, bytes);
}

/* The peak counts what was really held, so it is raised after the allocation
 * has succeeded. */
static void note_peak(fl_context *context)
{
  context = account_of(context);
  if (!context) return;
  uint64_t now = atomic_load(&context->bytes_now);
  uint64_t peak = atomic_load(&context->bytes_peak);
  while (now > peak &&
         !atomic_compare_exchange_weak(&context->bytes_peak, &peak, now)) {
  }
}

/* A block of 0 bytes is a block of 1, so that its address is unique and
 * hooks never see size 0. */
static size_t block_size(size_t bytes)
{
  return bytes ? bytes : 1;
}

void *fli_alloc(fl_context *context, size_t count, size_t size)
{
  size_t bytes;
  if (!fli_mul_size(count, size, &bytes)) return NULL;
  bytes = block_size(bytes);
  if (!charge(context, bytes)) return NULL;
  void *ptr = raw_alloc(hooks_of(context), bytes);
  if (!ptr) {
    refund(context, bytes);
    return NULL;
  }
  note_peak(context);
  memset(ptr, 0, bytes);
  return ptr;
}

void fli_free(fl_context *context, void *ptr, size_t bytes)
{
  if (!ptr) return;
  bytes = block_size(bytes);
  raw_free(hooks_of(context), ptr, bytes);
  refund(context, bytes);
}

void *fli_realloc(fl_context *context, void *ptr, size_t old_bytes,
                  size_t new_bytes)
{
  void *grown = fli_alloc(context, new_bytes, 1);
  if (!grown) return NULL;
  if (ptr) {
    memcpy(grown, ptr, old_bytes < new_bytes ? old_bytes : new_bytes);
    fli_free(context, ptr, old_bytes);
  }
  return grown;
}

char *fli_strdup(fl_context *context, const char *text)
{
  size_t bytes = strlen(text) + 1;
  char *copy = fli_alloc(context, bytes, 1);
  if (copy) memcpy(copy, text, bytes);
  return copy;
}

fl_status fli_grow(fl_context *context, void **items, size_t *capacity,
                   size_t want, size_t size)
{
  if (want <= *capacity) return FL_OK;
  size_t count = *capacity ? *capacity : GROW_FIRST;
  while (count < want) {
    if (!fli_mul_size(count, 2, &count)) count = want;
  }
  size_t bytes;
  if (!fli_mul_size(count, size, &bytes)) return fli_nomem(SIZE_MAX);
  void *grown = fli_realloc(context, *items, *capacity * size, bytes);
  if (!grown) return fli_nomem(bytes);
  *items = grown;
  *capacity = count;
  return FL_OK;
}

void fli_log(fl_context *context, uint32_t level, const char *format, ...)
{
  if (!context || !context->hooks.log) return;
  if (level > context->hooks.log_level) return;
  char line[LOG_LINE_BYTES];
  va_list args;
  va_start(args, format);
  int written = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (written < 0) return;
  /* Names in a message may be a peer's: they must not begin a new line. */
  for (char *c = line; *c != '\0'; c++) {
    if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
  }
  context->hooks.log(context->hooks.user, level, line);
}

fl_status (*fli_context_entropy(fl_context *context,
                                void **user))(void *, void *, size_t)
{
  const fl_context_options *hooks = hooks_of(context);
  *user = hooks->user;
  return hooks->entropy;
}

typedef struct guarded_loop {
  fl_task_fn task;
  void *arg;
} guarded_loop;

/* The host's threads may have any floating-point mode: each item is guarded,
 * as the calling thread already is by the function it came from. */
static void run_guarded(void *arg, uint64_t index)
{
  const guarded_loop *loop = arg;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  loop->task(loop->arg, index);
  fli_fpguard_leave(&guard);
}

fl_status fli_parallel_for(fl_context *context, uint64_t count, fl_task_fn task,
                           void *arg)
{
  const fl_context_options *hooks = hooks_of(context);
  if (!hooks->parallel_for || count <= 1) {
    for (uint64_t i = 0; i < count; i++) {
      task(arg, i);
    }
    return FL_OK;
  }
  guarded_loop loop = {.task = task, .arg = arg};
  fl_status st = hooks->parallel_for(hooks->user, count, run_guarded, &loop);
  if (st == FL_OK) return FL_OK;
  return fli_error(FL_E_CALLBACK, "parallel_for: the host's hook said %s",
                   fl_status_name(st));
}

/* Task number i does items i, i + n_shares ... */
enum { SHARES_MAX = 256 };
typedef struct shares {
  fl_task_fn task;
  void *arg;
  uint64_t count;
  uint64_t n_shares;
  uint8_t is_done[SHARES_MAX];
} shares;

static void run_share(void *arg, uint64_t index)
{
  shares *s = arg;
  for (uint64_t i = index; i < s->count; i += s->n_shares) {
    s->task(s->arg, i);
  }
  s->is_done[index] = 1;
}

void fli_parallel_all(fl_context *context, uint64_t count, fl_task_fn task,
                      void *arg)
{
  shares s = {.task = task, .arg = arg, .count = count};
  s.n_shares = count < SHARES_MAX ? count : SHARES_MAX;
  if (fli_parallel_for(context, s.n_shares, run_share, &s) != FL_OK) {
    fli_log(context, FL_LOG_WARNING, "%s", fl_last_error());
    fli_clear_error();
  }
  for (uint64_t i = 0; i < s.n_shares; i++) {
    if (!s.is_done[i]) run_share(&s, i);
  }
}

int fli_context_is_parallel(const fl_context *context)
{
  return hooks_of(context)->parallel_for != NULL;
}

static void run_beside(void *arg, uint64_t index)
{
  const fli_beside *beside = arg;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  beside->task(beside->arg, index);
  fli_fpguard_leave(&guard);
}

int fli_beside_start(fl_context *context, fli_beside *beside, fl_task_fn task,
                     void *arg)
{
  const fl_context_options *hooks = hooks_of(context);
  *beside = (fli_beside){.task = task, .arg = arg};
  if (!hooks->start) return 0;
  fl_status st = hooks->start(hooks->user, run_beside, beside, &beside->job);
  if (st != FL_OK) {
    fli_log(context, FL_LOG_INFO, "start: the host's hook said %s",
            fl_status_name(st));
    return 0;
  }
  beside->is_under_way = 1;
  return 1;
}

void fli_beside_finish(fl_context *context, fli_beside *beside)
{
  const fl_context_options *hooks = hooks_of(context);
  if (!beside->is_under_way) return;
  hooks->finish(hooks->user, beside->job);
  beside->is_under_way = 0;
}

const fl_storage *fli_context_storage(fl_context *context)
{
  return context && context->has_storage ? &context->storage : NULL;
}

fl_context *fli_context_ref(fl_context *context)
{
  if (context) {
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
  }
  return context;
}

void fli_context_unref(fl_context *context)
{
  if (!context) return;
  if (atomic_fetch_sub(&context->references, 1) > 1) return;
  fl_context_options hooks = context->hooks;
  fl_context *whole = context->whole;
  raw_free(&hooks, context, sizeof *context);
  fli_context_unref(whole);
}

static fl_context *make(const fl_context_options *hooks)
{
  fl_context *context = raw_alloc(hooks, sizeof *context);
  if (!context) return NULL;
  memset(context, 0, sizeof *context);
  atomic_init(&context->references, 1);
  atomic_init(&context->bytes_now, 0);
  atomic_init(&context->bytes_peak, 0);
  context->hooks = *hooks;
  context->hooks.storage = NULL;
  return context;
}

fl_status fli_context_alone(fl_context **out, fl_context *context)
{
  *out = NULL;
  if (!context) return FL_OK;
  fl_context_options hooks = context_defaults;
  hooks.user = context->hooks.user;
  hooks.alloc = context->hooks.alloc;
  hooks.dealloc = context->hooks.dealloc;
  fl_context *alone = make(&hooks);
  if (!alone) return fli_nomem(sizeof *alone);
  alone->whole = fli_context_ref(account_of(context));
  *out = alone;
  return FL_OK;
}

static fl_status check_hooks(const fl_context_options *hooks)
{
  if (!hooks->alloc != !hooks->dealloc) {
    return fli_error(FL_E_OPTIONS,
                     "context: alloc and dealloc, got one of them");
  }
  if (!hooks->start != !hooks->finish) {
    return fli_error(FL_E_OPTIONS, "context: start and finish, got one of "
                                   "them");
  }
  if (hooks->log_level < FL_LOG_ERROR || hooks->log_level > FL_LOG_DEBUG) {
    return fli_error(FL_E_OPTIONS, "context: log_level, got %u, want %d..%d",
                     (unsigned)hooks->log_level, FL_LOG_ERROR, FL_LOG_DEBUG);
  }
  return FL_OK;
}

static fl_status load_storage(fl_storage *storage, const fl_storage *src)
{
  memset(storage, 0, sizeof *storage);
  fl_status st = fli_options_load(storage, sizeof *storage, src, "storage");
  if (st != FL_OK) return st;
  if (!storage->size || !storage->read || !storage->write || !storage->remove ||
      !storage->sync) {
    return fli_error(FL_E_OPTIONS, "storage: size, read, write, remove and "
                                   "sync are needed, got NULL");
  }
  if (!storage->map != !storage->unmap) {
    return fli_error(FL_E_OPTIONS, "storage: map and unmap, got one of them");
  }
  if (!storage->map_write != !storage->unmap_write) {
    return fli_error(FL_E_OPTIONS,
                     "storage: map_write and unmap_write, got one of them");
  }
  return FL_OK;
}

fl_status fl_context_options_init(fl_context_options *options, size_t size)
{
  return fli_options_init(options, size, &context_defaults,
                          sizeof context_defaults);
}

fl_status fl_context_new(fl_context **out, const fl_context_options *options)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "context: out, got NULL");
  fl_context_options hooks = context_defaults;
  fl_status st = fli_options_load(&hooks, sizeof hooks, options, "context");
  if (st == FL_OK) st = check_hooks(&hooks);
  fl_storage storage = {0};
  if (st == FL_OK && hooks.storage) st = load_storage(&storage, hooks.storage);
  if (st != FL_OK) return st;
  fl_context *context = make(&hooks);
  if (!context) return fli_nomem(sizeof *context);
  context->has_storage = hooks.storage != NULL;
  context->storage = storage;
  *out = context;
  return FL_OK;
}

void fl_context_free(fl_context *context)
{
  fli_context_unref(context);
}

fl_status fl_context_get_memory(const fl_context *context, uint64_t *bytes_now,
                                uint64_t *bytes_peak)
{
  fli_clear_error();
  if (!context) return fli_error(FL_E_ARGUMENT, "context: got NULL");
  if (bytes_now) *bytes_now = atomic_load(&context->bytes_now);
  if (bytes_peak) *bytes_peak = atomic_load(&context->bytes_peak);
  return FL_OK;
}
