/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fault.h"

#include <stdarg.h>
#include <stdio.h>

int fault_say(const struct fault *fault, const char *format, ...)
{
  int used = snprintf(fault->error, fault->error_size, "%s: ", fault->path);
  if (used < 0 || (size_t)used >= fault->error_size) return -1;
  va_list args;
  va_start(args, format);
  (void)vsnprintf(fault->error + used, fault->error_size - (size_t)used, format,
                  args);
  va_end(args);
  return -1;
}
