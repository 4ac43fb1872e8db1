/* SPDX-License-Identifier: Apache-2.0 */
/* Option structs of the adapters, which use libfl by its public functions only
 * and so cannot call base/options.h. The same rules, without a text for
 * fl_last_error: a shorter struct is an older host's, a longer one has to be
 * zero behind what we know, and one that no _init has set is refused. */
#ifndef FLI_ADAPTERS_OPTIONS_H
#define FLI_ADAPTERS_OPTIONS_H

#include <fl/base.h>

#include <string.h>

/* As in the core: a larger struct_size was never set by an _init. */
enum { FLI_ADAPTER_STRUCT_MAX = 64 * 1024 };

/* Fill `options`, of `size` bytes, with `n` bytes of defaults. Both begin with
 * struct_size. */
static inline fl_status fli_adapter_options_init(void *options, size_t size,
                                                 const void *defaults, size_t n)
{
  const uint32_t own = (uint32_t)size;
  if (!options || size < sizeof own || size > FLI_ADAPTER_STRUCT_MAX)
    return FL_E_OPTIONS;
  memset(options, 0, size);
  memcpy(options, defaults, size < n ? size : n);
  memcpy(options, &own, sizeof own);
  return FL_OK;
}

/* Lay what was given over `local`, which has `n` bytes of defaults; NULL =
 * nothing was. */
static inline fl_status fli_adapter_options_load(void *local, size_t n,
                                                 const void *given)
{
  uint32_t size;
  if (!given) return FL_OK;
  memcpy(&size, given, sizeof size);
  if (size < sizeof size || size > FLI_ADAPTER_STRUCT_MAX) return FL_E_OPTIONS;
  const unsigned char *bytes = given;
  for (size_t i = n; i < size; i++) {
    if (bytes[i] != 0) return FL_E_OPTIONS;
  }
  memcpy(local, given, size < n ? size : n);
  return FL_OK;
}

#endif
