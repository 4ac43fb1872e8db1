/* SPDX-License-Identifier: Apache-2.0 */
/* Memory in huge pages, for handles that read rows all over it: finding the
 * page of a random address costs about as much as reading it. */
#ifndef FLI_HOST_PAGES_H
#define FLI_HOST_PAGES_H

#include <fl/base.h>

typedef struct fli_host_pages fli_host_pages;

/* FL_E_NOMEM. */
fl_status fli_host_pages_new(fli_host_pages **out);
/* All that was allocated has been given back before. */
void fli_host_pages_free(fli_host_pages *pages);
/* As the context's hooks: NULL when there is no memory; any thread. */
void *fli_host_pages_alloc(fli_host_pages *pages, size_t bytes,
                           size_t alignment);
void fli_host_pages_dealloc(fli_host_pages *pages, void *ptr, size_t bytes,
                            size_t alignment);
/* Bytes of address space that the pages have. */
size_t fli_host_pages_bytes(fli_host_pages *pages);

#endif
