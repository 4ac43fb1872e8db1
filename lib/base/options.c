/* SPDX-License-Identifier: Apache-2.0 */
/* Structs whose first member is uint32_t struct_size, shared by hosts and
 * libraries of different age. The caller's size decides how much of a struct
 * may be touched; what one side does not know of has to be zero or is left at
 * its default. The prefix is accessed by memcpy: the caller's struct is seen
 * here as bytes only. */
#include "base/options.h"

#include <string.h>

#include "base/error.h"

enum { SIZE_FIELD = sizeof(uint32_t), SIZE_MAX_SANE = 64 * 1024 };

static fl_status check_size(size_t size, const char *name)
{
  if (size < SIZE_FIELD || size > SIZE_MAX_SANE) {
    return fli_error(FL_E_OPTIONS,
                     "%s: struct_size, got %zu, want %d..%d (call its _init)",
                     name, size, (int)SIZE_FIELD, (int)SIZE_MAX_SANE);
  }
  return FL_OK;
}

fl_status fli_options_init(void *options, size_t size, const void *defaults,
                           size_t full)
{
  fli_clear_error();
  if (!options) return fli_error(FL_E_OPTIONS, "options: got NULL");
  fl_status st = check_size(size, "options");
  if (st != FL_OK) return st;
  size_t known = size < full ? size : full;
  memcpy(options, defaults, known);
  memset((uint8_t *)options + known, 0, size - known);
  uint32_t prefix = (uint32_t)size;
  memcpy(options, &prefix, SIZE_FIELD);
  return FL_OK;
}

fl_status fli_options_load(void *local, size_t full, const void *src,
                           const char *name)
{
  uint32_t prefix = (uint32_t)full;
  if (src) {
    uint32_t size;
    memcpy(&size, src, SIZE_FIELD);
    fl_status st = check_size(size, name);
    if (st != FL_OK) return st;
    const uint8_t *bytes = src;
    for (size_t i = full; i < size; i++) {
      if (bytes[i] == 0) continue;
      return fli_error(FL_E_OPTIONS,
                       "%s: byte %zu is set, this library knows %zu", name, i,
                       full);
    }
    memcpy(local, src, size < full ? size : full);
  }
  memcpy(local, &prefix, SIZE_FIELD);
  return FL_OK;
}

fl_status fli_options_store(void *dst, const void *src, size_t full,
                            const char *name)
{
  uint32_t size;
  memcpy(&size, dst, SIZE_FIELD);
  fl_status st = check_size(size, name);
  if (st != FL_OK) return st;
  size_t known = size < full ? size : full;
  memcpy(dst, src, known);
  memset((uint8_t *)dst + known, 0, size - known);
  memcpy(dst, &size, SIZE_FIELD);
  return FL_OK;
}
