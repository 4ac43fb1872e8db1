/* SPDX-License-Identifier: Apache-2.0 */
/* Checked size arithmetic: sizes that come from a peer or a file are added and
 * multiplied here only, so that no sum wraps round to a small allocation. */
#include "base/size.h"

int fli_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
  if (b > UINT64_MAX - a) return 0;
  *out = a + b;
  return 1;
}

int fli_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
  if (a != 0 && b > UINT64_MAX / a) return 0;
  *out = a * b;
  return 1;
}

int fli_add_size(size_t a, size_t b, size_t *out)
{
  if (b > SIZE_MAX - a) return 0;
  *out = a + b;
  return 1;
}

int fli_mul_size(size_t a, size_t b, size_t *out)
{
  if (a != 0 && b > SIZE_MAX / a) return 0;
  *out = a * b;
  return 1;
}

int fli_to_size(uint64_t value, size_t *out)
{
#if SIZE_MAX < UINT64_MAX
  if (value > SIZE_MAX) return 0;
#endif
  *out = (size_t)value;
  return 1;
}
