/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID says what the processor can do, XGETBV which registers the system
 * saves: both must agree before such code may run. */
#include "kernels/x86/x86.h"

#include <cpuid.h>

enum {
  LEAF1_FMA = 1 << 12,
  LEAF1_OSXSAVE = 1 << 27,
  LEAF7_AVX2 = 1 << 5,
  LEAF7_AVX512F = 1 << 16,
  LEAF7_AVX512DQ = 1 << 17,
  LEAF7_AVX512BW = 1 << 30,
  SAVES_YMM = 0x6,
  SAVES_ZMM = 0xe6
};
#define LEAF7_AVX512VL 0x80000000u

/* Bits of leaf 7, EBX; 0 when FMA or the saving of `registers` is missing. */
static uint32_t features(uint32_t registers)
{
  uint32_t a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  if (!(c & LEAF1_OSXSAVE) || !(c & LEAF1_FMA)) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & registers) != registers) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  return b;
}

int flk_has_avx2(void)
{
  return (features(SAVES_YMM) & LEAF7_AVX2) != 0;
}

int flk_has_avx512(void)
{
  const uint32_t all =
      (uint32_t)(LEAF7_AVX2 | LEAF7_AVX512F | LEAF7_AVX512DQ | LEAF7_AVX512BW) |
      LEAF7_AVX512VL;
  return (features(SAVES_ZMM) & all) == all;
}
