/* SPDX-License-Identifier: Apache-2.0 */
/* Saves and sets the control bits of the floating-point unit: rounding mode,
 * flush-to-zero, default NaN, trap masks. The sticky exception flags are left
 * alone. C11's fenv.h does not know flush-to-zero, so the register itself is
 * read where there is one (inline assembly on ARM, for want of an intrinsic
 * that gcc and clang share); elsewhere only the rounding mode can differ. */
#include "base/fpguard.h"

#if defined(__SSE2__) || defined(_M_X64)

#  include <xmmintrin.h>

/* MXCSR: DAZ 6, trap masks 7..12, rounding 13..14, FTZ 15. */
#  define CONTROL_BITS 0xffc0u
#  define CONTROL_WANTED 0x1f80u

static uint64_t read_control(void)
{
  return _mm_getcsr();
}

static void write_control(uint64_t value)
{
  _mm_setcsr((unsigned int)value);
}

#elif defined(__aarch64__)

/* FPCR: trap enables 8..12 and 15, FZ16 19, rounding 22..23, FZ 24, DN 25,
 * and AH, NEP, FIZ 0..2. */
#  define CONTROL_BITS 0x03c89f07u
#  define CONTROL_WANTED 0u

static uint64_t read_control(void)
{
  uint64_t value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}

static void write_control(uint64_t value)
{
  __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory");
}

#elif defined(__arm__) && defined(__ARM_FP)

/* FPSCR: trap enables 8..12 and 15, rounding 22..23, FZ 24, DN 25. */
#  define CONTROL_BITS 0x03c09f00u
#  define CONTROL_WANTED 0u

static uint64_t read_control(void)
{
  uint32_t value;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(value));
  return value;
}

static void write_control(uint64_t value)
{
  __asm__ volatile("vmsr fpscr, %0" : : "r"((uint32_t)value) : "memory");
}

#else

#  include <fenv.h>

/* The modes of fenv.h are numbers, not bit fields: compare them whole. */
#  define CONTROL_BITS (~(uint64_t)0)
#  define CONTROL_WANTED ((uint64_t)FE_TONEAREST)

static uint64_t read_control(void)
{
  return (uint64_t)fegetround();
}

static void write_control(uint64_t value)
{
  fesetround((int)value);
}

#endif

static void set_control_bits(uint64_t wanted)
{
  uint64_t now = read_control();
  if (((now ^ wanted) & CONTROL_BITS) == 0) return;
  write_control((now & ~(uint64_t)CONTROL_BITS) |
                (wanted & (uint64_t)CONTROL_BITS));
}

void fli_fpguard_enter(fli_fpguard *guard)
{
  guard->saved = read_control();
  set_control_bits(CONTROL_WANTED);
}

void fli_fpguard_leave(const fli_fpguard *guard)
{
  set_control_bits(guard->saved);
}
