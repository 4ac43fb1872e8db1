/* SPDX-License-Identifier: Apache-2.0 */
/* The cancel flag: one lock-free atomic, so that raising it is safe from a
 * signal handler. It is shared between threads and outlives contexts, hence
 * the C library's allocator. */
#include <fl/base.h>

#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "needed in signal handlers");

struct fl_cancel {
  atomic_int is_requested;
};

fl_status fl_cancel_new(fl_cancel **out)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "cancel: out, got NULL");
  fl_cancel *cancel = malloc(sizeof *cancel);
  if (!cancel) return fli_nomem(sizeof *cancel);
  atomic_init(&cancel->is_requested, 0);
  *out = cancel;
  return FL_OK;
}

void fl_cancel_free(fl_cancel *cancel)
{
  free(cancel);
}

void fl_cancel_request(fl_cancel *cancel)
{
  if (cancel) atomic_store(&cancel->is_requested, 1);
}

void fl_cancel_reset(fl_cancel *cancel)
{
  if (cancel) atomic_store(&cancel->is_requested, 0);
}

int32_t fl_cancel_is_requested(const fl_cancel *cancel)
{
  return cancel ? atomic_load(&cancel->is_requested) : 0;
}
