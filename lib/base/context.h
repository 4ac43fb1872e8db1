/* SPDX-License-Identifier: Apache-2.0 */
/* What the library does with the host's hooks. Every function takes NULL for
 * the default context. */
#ifndef FLI_CONTEXT_H
#define FLI_CONTEXT_H

#include <fl/base.h>
#include "base/compiler.h"

enum { FLI_ALIGNMENT = 64 };

/* Take / drop a reference; NULL is fine, and ref returns its argument. */
fl_context *fli_context_ref(fl_context *context);
void fli_context_unref(fl_context *context);

/* Zeroed memory for count * size bytes, aligned to FLI_ALIGNMENT; NULL on
 * overflow, above the memory cap, or when there is none. count * size == 0
 * gives a unique pointer. Free with the same count * size. */
void *fli_alloc(fl_context *context, size_t count, size_t size);
void fli_free(fl_context *context, void *ptr, size_t bytes);
/* Grow to new_bytes keeping the content (new bytes zeroed); NULL leaves the
 * old block as it was. ptr may be NULL when old_bytes is 0. */
void *fli_realloc(fl_context *context, void *ptr, size_t old_bytes,
                  size_t new_bytes);
/* Duplicate a string (free with strlen + 1). */
char *fli_strdup(fl_context *context, const char *text);

void fli_log(fl_context *context, uint32_t level, const char *format, ...)
    FLI_PRINTF(3, 4);
/* The host's entropy hook, or NULL: lib/crypto falls back to libsodium. */
fl_status (*fli_context_entropy(fl_context *context,
                                void **user))(void *, void *, size_t);
/* Run task(arg, i) for i in 0..count-1, by the host's threads if it has any.
 * Cut the work by data size, never by the number of threads. */
fl_status fli_parallel_for(fl_context *context, uint64_t count, fl_task_fn task,
                           void *arg);
/* As fli_parallel_for, for work that must not stop halfway: what the hook left
 * out, failing or not, is done by the caller. */
void fli_parallel_all(fl_context *context, uint64_t count, fl_task_fn task,
                      void *arg);
/* Whether the host has a hook for that. */
int fli_context_is_parallel(const fl_context *context);
/* A task that goes on beside its caller. */
typedef struct fli_beside {
  fl_task_fn task;
  void *arg;
  void *job; /* the host's */
  int is_under_way;
} fli_beside;

/* Have task(arg, 0) run on another thread of the host's; 0 when it has none, or
 * will not. `beside` stays where it is until it is finished; none is under way
 * there. The task may use memory of the context that fli_context_alone gives,
 * and nothing else of it. */
int fli_beside_start(fl_context *context, fli_beside *beside, fl_task_fn task,
                     void *arg);
/* Wait for it, if it is under way. */
void fli_beside_finish(fl_context *context, fli_beside *beside);
/* A context with this one's memory and no other hook, for what must not meet
 * its threads. *out is NULL for NULL, and to be dropped with
 * fli_context_unref. FL_E_NOMEM. */
fl_status fli_context_alone(fl_context **out, fl_context *context);
/* NULL when the host has none. */
const fl_storage *fli_context_storage(fl_context *context);

/* Growable array helper: make room for `want` elements of `size` bytes;
 * doubles. *items and *capacity change only on success. */
fl_status fli_grow(fl_context *context, void **items, size_t *capacity,
                   size_t want, size_t size);

#endif
