/* SPDX-License-Identifier: Apache-2.0 */
/* Floats into fixed point with AVX2, which has no conversion from doubles to
 * 64-bit integers. A double plus 1.5 2^52 has the integer nearest to it in its
 * low bits, as long as that has 51 of them. So v = x factor, below 2^62, is cut
 * in two: h = rint(v / 2^26) and v - h 2^26, which is exact, since v has 24
 * bits that are not zero; rounding the second alone rounds v as rint does, for
 * h 2^26 is even. The constants are taken away once for all updates. */
#include "kernels/lanes.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>

enum { STEP = 8 /* coordinates */, SPLIT = 26 };

#define MAGIC 0x1.8p52
#define MAGIC_BITS UINT64_C(0x4338000000000000)

/* round(v), plus (MAGIC_BITS << SPLIT) + MAGIC_BITS. */
static inline __m256i convert(__m256d v)
{
  const __m256d magic = _mm256_set1_pd(MAGIC);
  const __m256d high =
      _mm256_add_pd(_mm256_mul_pd(v, _mm256_set1_pd(0x1p-26)), magic);
  const __m256d whole =
      _mm256_mul_pd(_mm256_sub_pd(high, magic), _mm256_set1_pd(0x1p26));
  const __m256d low = _mm256_add_pd(_mm256_sub_pd(v, whole), magic);
  return _mm256_add_epi64(_mm256_slli_epi64(_mm256_castpd_si256(high), SPLIT),
                          _mm256_castpd_si256(low));
}

static inline __m256i load(const uint8_t *p)
{
  return _mm256_loadu_si256((const void *)p);
}

/* Count is a constant where this is called. Returns whether all were in. */
static inline int fold(uint8_t *lanes, const uint8_t *const *src, size_t skip,
                       const flk_floats *floats, size_t n, size_t count)
{
  const __m256d factor = _mm256_set1_pd(floats->factor);
  const __m256 bound = _mm256_set1_ps(floats->bound);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const uint64_t each = (MAGIC_BITS << SPLIT) + MAGIC_BITS;
  const __m256i excess = _mm256_set1_epi64x((long long)(each * count));
  __m256 all_in = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  for (size_t i = 0; i < n; i += STEP) {
    __m256i low = _mm256_sub_epi64(load(lanes + 8 * i), excess);
    __m256i high = _mm256_sub_epi64(load(lanes + 8 * i + 32), excess);
    for (size_t k = 0; k < count; k++) {
      const uint8_t *p = src[k] + skip + 4 * i;
      fetch_on(p);
      __m256 x = _mm256_loadu_ps((const void *)p);
      const __m256 in =
          _mm256_cmp_ps(_mm256_andnot_ps(sign, x), bound, _CMP_LE_OQ);
      x = _mm256_and_ps(x, in);
      all_in = _mm256_and_ps(all_in, in);
      const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
      const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
      low = _mm256_add_epi64(low, convert(_mm256_mul_pd(a, factor)));
      high = _mm256_add_epi64(high, convert(_mm256_mul_pd(b, factor)));
    }
    _mm256_storeu_si256((void *)(lanes + 8 * i), low);
    _mm256_storeu_si256((void *)(lanes + 8 * i + 32), high);
  }
  return _mm256_movemask_ps(all_in) == 0xff;
}

#include "kernels/x86/fold.h"

void flk_fill_fold_avx2(flk_table *table)
{
  table->fixed_fold = fixed_fold;
}
