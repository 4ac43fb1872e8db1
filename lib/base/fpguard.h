/* SPDX-License-Identifier: Apache-2.0 */
/* A dlopened -ffast-math library may have switched the host to flush-to-zero
 * or another rounding mode. D0 entry points bracket their work with these. */
#ifndef FLI_FPGUARD_H
#define FLI_FPGUARD_H

#include <stdint.h>

typedef struct fli_fpguard {
  uint64_t saved;
} fli_fpguard;

/* Save the floating-point environment and set round-to-nearest, denormals on.
 * Costs a few cycles when nothing has to change. Between enter and leave call
 * functions of other files: compilers may move arithmetic on local variables
 * across the two. */
void fli_fpguard_enter(fli_fpguard *guard);
void fli_fpguard_leave(const fli_fpguard *guard);

#endif
