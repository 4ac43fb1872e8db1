/* SPDX-License-Identifier: Apache-2.0 */
/* The one table that names what is compiled in, and the library's version and
 * build facts. It stands above all modules. */
#include <fl/fl.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/nn/nn.h"
#include "linalg/linalg.h"

#define TEXT_OF_(number) #number
#define TEXT_OF(number) TEXT_OF_(number)
#define VERSION_TEXT        \
  TEXT_OF(FL_VERSION_MAJOR) \
  "." TEXT_OF(FL_VERSION_MINOR) "." TEXT_OF(FL_VERSION_PATCH)

#if defined(__clang__)
#  define COMPILER_TEXT "clang " __clang_version__
#elif defined(__GNUC__)
#  define COMPILER_TEXT "gcc " __VERSION__
#else
#  define COMPILER_TEXT "unknown compiler"
#endif

#ifdef FLI_HAVE_OPENBLAS
#  define LINALG_TEXT ", linalg OpenBLAS "
#else
#  define LINALG_TEXT ", linalg "
#endif
#define INFO_TEXT "libfl " VERSION_TEXT ", " COMPILER_TEXT ", kernels "

enum { INFO_BYTES = 256 };

int32_t fl_feature(uint32_t feature)
{
  switch (feature) {
#ifdef FLI_HAVE_OPENBLAS
  case FL_FEATURE_BLAS: return 1;
#endif
  case FL_FEATURE_MODEL:
  case FL_FEATURE_THC:
  case FL_FEATURE_CLIENT:
  case FL_FEATURE_SERVER:
  case FL_FEATURE_FREEZE:
  case FL_FEATURE_COHORT:
  case FL_FEATURE_EMBEDDING: return 1;
  default: return 0;
  }
}

uint32_t fl_version_number(void)
{
  return FL_VERSION_NUMBER;
}

const char *fl_version_string(void)
{
  return VERSION_TEXT;
}

/* Which kernels run, ours and OpenBLAS's, is known at run time only. Nobody
 * waits for anybody: callers that come before the first text is there make one
 * each, all the same, and the first to publish its own wins. It stays until the
 * process ends. */
const char *fl_build_info(void)
{
  static _Atomic(char *) published;
  char *first = atomic_load(&published);
  if (first) return first;
  char *info = malloc(INFO_BYTES);
  if (!info) return INFO_TEXT "(out of memory)";
  snprintf(info, INFO_BYTES, "%s%s%s%s", INFO_TEXT, flk_nn()->name, LINALG_TEXT,
           fli_linalg_name());
  if (atomic_compare_exchange_strong(&published, &first, info)) return info;
  free(info);
  return first;
}
