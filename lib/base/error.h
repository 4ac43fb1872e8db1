/* SPDX-License-Identifier: Apache-2.0 */
/* Thread-local error text. A public function that can fail begins with
 * fli_clear_error(); whoever knows the cause sets the text once with
 * fli_error(); callers only pass the status up. */
#ifndef FLI_ERROR_H
#define FLI_ERROR_H

#include <fl/base.h>
#include "base/compiler.h"

/* Set the text ("thing: what, got X, want Y") and return `status`. */
fl_status fli_error(fl_status status, const char *format, ...) FLI_PRINTF(2, 3);
/* FL_E_NOMEM with a text that names the bytes asked for. */
fl_status fli_nomem(size_t bytes);
void fli_clear_error(void);

/* Evaluate a call; on failure jump to the one cleanup label `out`.
 * Needs `fl_status st` in scope. */
#define FLI_TRY(call)          \
  do {                         \
    st = (call);               \
    if (st != FL_OK) goto out; \
  } while (0)

#endif
