/* SPDX-License-Identifier: Apache-2.0 */
/* Floats into fixed point with AVX-512 (DQ), which turns doubles into 64-bit
 * integers itself, rounding as rint does. Lanes are read and written once for
 * up to FLK_FOLD updates. */
#include "kernels/lanes.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>

enum { STEP = 16 /* coordinates */ };

/* Count is a constant where this is called. Returns whether all were in. */
static inline int fold(uint8_t *lanes, const uint8_t *const *src, size_t skip,
                       const flk_floats *floats, size_t n, size_t count)
{
  const __m512d factor = _mm512_set1_pd(floats->factor);
  const __m512 bound = _mm512_set1_ps(floats->bound);
  __mmask16 all_in = 0xffff;
  for (size_t i = 0; i < n; i += STEP) {
    __m512i low = _mm512_loadu_si512(lanes + 8 * i);
    __m512i high = _mm512_loadu_si512(lanes + 8 * i + 64);
    for (size_t k = 0; k < count; k++) {
      const uint8_t *p = src[k] + skip + 4 * i;
      fetch_on(p);
      const __m512 x = _mm512_loadu_ps((const void *)p);
      const __mmask16 in =
          _mm512_cmp_ps_mask(_mm512_abs_ps(x), bound, _CMP_LE_OQ);
      const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
      const __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
      low = _mm512_add_epi64(low, _mm512_maskz_cvtpd_epi64(
                                      (__mmask8)in, _mm512_mul_pd(a, factor)));
      high = _mm512_add_epi64(
          high, _mm512_maskz_cvtpd_epi64((__mmask8)(in >> 8),
                                         _mm512_mul_pd(b, factor)));
      all_in &= in;
    }
    _mm512_storeu_si512(lanes + 8 * i, low);
    _mm512_storeu_si512(lanes + 8 * i + 64, high);
  }
  return all_in == 0xffff;
}

#include "kernels/x86/fold.h"

void flk_fill_fold_avx512(flk_table *table)
{
  table->fixed_fold = fixed_fold;
}
