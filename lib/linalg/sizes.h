/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of the engine's own making, which cannot overflow: those that come from
 * input are base/size.h's. */
#ifndef FLI_LINALG_SIZES_H
#define FLI_LINALG_SIZES_H

#include <stddef.h>

static inline size_t fli_min_size(size_t a, size_t b)
{
  return a < b ? a : b;
}

static inline size_t fli_max_size(size_t a, size_t b)
{
  return a > b ? a : b;
}

static inline size_t fli_divide_up(size_t n, size_t by)
{
  return (n + by - 1) / by;
}

/* `multiple`: a power of two. */
static inline size_t fli_round_up(size_t n, size_t multiple)
{
  return (n + multiple - 1) & ~(multiple - 1);
}

#endif
