/* SPDX-License-Identifier: Apache-2.0 */
/* The one table that names what is compiled in, and the library's version and
 * build facts. It stands above all modules. */
#include <fl/fl.h>

#include <stdatomic.h>
#include <stdio.h>

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

enum { INFO_BYTES = 256, INFO_NONE = 0, INFO_IN_WORK, INFO_READY };

int32_t fl_feature(uint32_t feature)
{
  switch (feature) {
#ifdef FLI_HAVE_OPENBLAS
  case FL_FEATURE_BLAS: return 1;
#endif
  case FL_FEATURE_MODEL:
  case FL_FEATURE_THC:
  case FL_FEATURE_CLIENT:
  case FL_FEATURE_SERVER: return 1;
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

/* Only OpenBLAS knows its core type, and only at run time: so the text is made
 * by the first caller. Others that come meanwhile wait for one snprintf. */
const char *fl_build_info(void)
{
  static char info[INFO_BYTES];
  static atomic_int state = INFO_NONE;
  int expected = INFO_NONE;
  if (atomic_compare_exchange_strong(&state, &expected, INFO_IN_WORK)) {
    snprintf(info, sizeof info, "libfl %s, %s, kernels c, linalg %s",
             VERSION_TEXT, COMPILER_TEXT, fli_linalg_name());
    atomic_store(&state, INFO_READY);
  }
  while (atomic_load(&state) != INFO_READY) {
  }
  return info;
}
