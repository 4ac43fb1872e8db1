/* SPDX-License-Identifier: Apache-2.0 */
/* Checked size arithmetic, at its edges. */
#include <criterion/criterion.h>

#include "base/size.h"

Test(size, add_up_to_the_maximum)
{
  size_t sum = 0;
  cr_assert(fli_add_size(SIZE_MAX - 1, 1, &sum));
  cr_assert_eq(sum, SIZE_MAX);
  cr_assert(fli_add_size(0, 0, &sum));
  cr_assert_eq(sum, 0);
}

Test(size, add_overflow_leaves_out_alone)
{
  size_t sum = 7;
  cr_assert_not(fli_add_size(SIZE_MAX, 1, &sum));
  cr_assert_not(fli_add_size(SIZE_MAX, SIZE_MAX, &sum));
  cr_assert_eq(sum, 7);
}

Test(size, mul_with_zero_is_zero)
{
  size_t product = 7;
  cr_assert(fli_mul_size(0, SIZE_MAX, &product));
  cr_assert_eq(product, 0);
  cr_assert(fli_mul_size(SIZE_MAX, 0, &product));
  cr_assert_eq(product, 0);
}

Test(size, mul_overflow_leaves_out_alone)
{
  size_t product = 7;
  size_t half = SIZE_MAX / 2 + 1;
  cr_assert_not(fli_mul_size(half, 2, &product));
  cr_assert_not(fli_mul_size(2, half, &product));
  cr_assert_not(fli_mul_size(SIZE_MAX, SIZE_MAX, &product));
  cr_assert_eq(product, 7);
  cr_assert(fli_mul_size(half - 1, 2, &product));
  cr_assert_eq(product, SIZE_MAX - 1);
}

Test(size, u64_edges)
{
  uint64_t value = 7;
  cr_assert(fli_add_u64(UINT64_MAX, 0, &value));
  cr_assert_eq(value, UINT64_MAX);
  cr_assert(fli_mul_u64(UINT64_C(1) << 32, UINT32_MAX, &value));
  cr_assert_eq(value, UINT64_MAX - UINT32_MAX);
  cr_assert_not(fli_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &value));
  cr_assert_not(fli_add_u64(UINT64_MAX, UINT64_MAX, &value));
  cr_assert_eq(value, UINT64_MAX - UINT32_MAX);
}

Test(size, u64_fits_size_when_it_is_small_enough)
{
  size_t value = 0;
  cr_assert(fli_to_size(SIZE_MAX, &value));
  cr_assert_eq(value, SIZE_MAX);
}
