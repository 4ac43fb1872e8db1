/* SPDX-License-Identifier: Apache-2.0 */
/* Checked size arithmetic: each returns 0 and leaves *out alone on overflow,
 * else 1. */
#ifndef FLI_SIZE_H
#define FLI_SIZE_H

#include <stddef.h>
#include <stdint.h>
#include "base/compiler.h"

FLI_NODISCARD int fli_add_size(size_t a, size_t b, size_t *out);
FLI_NODISCARD int fli_mul_size(size_t a, size_t b, size_t *out);
FLI_NODISCARD int fli_add_u64(uint64_t a, uint64_t b, uint64_t *out);
FLI_NODISCARD int fli_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
/* u64 -> size_t, 0 when it does not fit (32-bit hosts). */
FLI_NODISCARD int fli_to_size(uint64_t value, size_t *out);

#endif
