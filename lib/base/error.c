/* SPDX-License-Identifier: Apache-2.0 */
/* The error text of the calling thread. It lives in a fixed thread-local
 * array, so that setting it never allocates: the text for "out of memory" must
 * not need memory. Longer texts are cut. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

enum { ERROR_TEXT_BYTES = 256 };

static FLI_THREAD_LOCAL char error_text[ERROR_TEXT_BYTES];

fl_status fli_error(fl_status status, const char *format, ...)
{
  va_list args;
  va_start(args, format);
  if (vsnprintf(error_text, sizeof error_text, format, args) < 0) {
    error_text[0] = '\0';
  }
  va_end(args);
  return status;
}

fl_status fli_nomem(size_t bytes)
{
  return fli_error(FL_E_NOMEM, "memory: no %zu bytes to be had", bytes);
}

void fli_clear_error(void)
{
  error_text[0] = '\0';
}

const char *fl_last_error(void)
{
  return error_text;
}
