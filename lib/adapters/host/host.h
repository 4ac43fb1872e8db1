/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of libfl-host share of an fl_host. */
#ifndef FLI_HOST_H
#define FLI_HOST_H

#include <fl/host.h>

#include "adapters/host/pages.h"
#include "adapters/host/pool.h"
#include "adapters/host/storage.h"

struct fl_host {
  fl_context *context;
  fli_host_pool *pool;       /* NULL with one thread */
  fli_host_pages *pages;     /* NULL: the C library's */
  fli_host_storage *storage; /* NULL without a folder */
  fl_storage hooks;          /* of `storage` */
};

#endif
