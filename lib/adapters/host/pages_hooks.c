/* SPDX-License-Identifier: Apache-2.0 */
/* Memory in huge pages as a library of its own, which needs no other: hooks for
 * hosts that are not written in C, and make contexts by themselves. */
#include "adapters/host/pages.h"

FL_API fl_status fl_pages_new(fli_host_pages **out);
FL_API void fl_pages_free(fli_host_pages *pages);
/* fl_context_options.alloc and dealloc; `user`: the pages. */
FL_API void *fl_pages_alloc(void *user, size_t bytes, size_t alignment);
FL_API void fl_pages_dealloc(void *user, void *ptr, size_t bytes,
                             size_t alignment);
/* Bytes of address space that they have. */
FL_API size_t fl_pages_bytes(fli_host_pages *pages);

fl_status fl_pages_new(fli_host_pages **out)
{
  return fli_host_pages_new(out);
}

void fl_pages_free(fli_host_pages *pages)
{
  fli_host_pages_free(pages);
}

void *fl_pages_alloc(void *user, size_t bytes, size_t alignment)
{
  return fli_host_pages_alloc(user, bytes, alignment);
}

void fl_pages_dealloc(void *user, void *ptr, size_t bytes, size_t alignment)
{
  fli_host_pages_dealloc(user, ptr, bytes, alignment);
}

size_t fl_pages_bytes(fli_host_pages *pages)
{
  return fli_host_pages_bytes(pages);
}
