/* SPDX-License-Identifier: Apache-2.0 */
/* The floating-point guard against hosts that changed the mode. */
#include <criterion/criterion.h>
#include <fenv.h>
#include <float.h>

#include "base/fpguard.h"

#if defined(__SSE2__)
#  include <xmmintrin.h>
#  define HAVE_FLUSH 1
#endif

/* volatile: the quotient must be made here and now, in the mode that is set;
 * compilers move plain arithmetic across calls that set it. */
static double third(void)
{
  volatile double one = 1;
  volatile double three = 3;
  volatile double quotient = one / three;
  return quotient;
}

Test(fpguard, sets_round_to_nearest_and_restores_the_hosts_mode)
{
  const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST};
  double nearest = third();
  for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
    fli_fpguard guard;
    cr_assert_eq(fesetround(modes[i]), 0);
    double host = third();
    fli_fpguard_enter(&guard);
    double inside = third();
    fli_fpguard_leave(&guard);
    double after = third();
    fesetround(FE_TONEAREST);
    cr_assert_eq(inside, nearest);
    cr_assert_eq(after, host);
  }
}

Test(fpguard, nests)
{
  fli_fpguard outer;
  fli_fpguard inner;
  cr_assert_eq(fesetround(FE_UPWARD), 0);
  double host = third();
  fli_fpguard_enter(&outer);
  fli_fpguard_enter(&inner);
  fli_fpguard_leave(&inner);
  double between = third();
  fli_fpguard_leave(&outer);
  double after = third();
  fesetround(FE_TONEAREST);
  cr_assert_eq(between, third());
  cr_assert_eq(after, host);
}

#ifdef HAVE_FLUSH
static double smallest_half(void)
{
  volatile double least_normal = DBL_MIN;
  volatile double half = 0.5;
  volatile double product = least_normal * half;
  return product;
}

Test(fpguard, turns_denormals_on_and_restores_flush_to_zero)
{
  fli_fpguard guard;
  unsigned int before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);
  double host = smallest_half();
  fli_fpguard_enter(&guard);
  double inside = smallest_half();
  fli_fpguard_leave(&guard);
  double after = smallest_half();
  _mm_setcsr(before);
  cr_assert_eq(host, 0);
  cr_assert_gt(inside, 0);
  cr_assert_eq(after, 0);
}

Test(fpguard, leaves_sticky_flags_and_an_ordinary_mode_alone)
{
  fli_fpguard guard;
  _mm_setcsr(0x1f80u | 0x20u); /* default, "inexact" raised */
  fli_fpguard_enter(&guard);
  cr_assert_eq(_mm_getcsr(), 0x1fa0u);
  fli_fpguard_leave(&guard);
  cr_assert_eq(_mm_getcsr(), 0x1fa0u);
}
#endif
