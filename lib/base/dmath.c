/* SPDX-License-Identifier: Apache-2.0 */
/* Elementary functions from + - * / sqrt and floor alone, which IEEE 754 fixes
 * to the last bit. libm's exp and log differ between C libraries and between
 * CPUs of one C library, so that nothing on the wire may depend on them.
 *
 * exp: reduction by ln 2 in two parts (Cody and Waite 1980), Taylor to degree
 * 13. log: series of atanh. cos: Taylor to degree 18 on a quarter of pi. erfc:
 * W. J. Cody, "Rational Chebyshev approximation for the error function", Math.
 * Comp. 23 (1969). probit: M. J. Wichura, algorithm AS 241 (PPND16), Appl.
 * Statist. 37 (1988). */
#include "base/dmath.h"

#include <assert.h>
#include <float.h>
#include <math.h>

#include "base/bytes.h"
#include "base/compiler.h"

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#  error "libfl needs plain double arithmetic (-msse2 -mfpmath=sse)"
#endif

/* ln 2 in two parts; the last 21 bits of the first are 0: k * it is exact. */
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define INV_LN2 0x1.71547652b82fep+0
#define INV_SQRT_PI 0x1.20dd750429b6dp-1
#define INV_SQRT_2PI 0x1.9884533d43651p-2
#define PI 0x1.921fb54442d18p+1
#define SQRT_HALF 0x1.6a09e667f3bcdp-1

enum { EXPONENT_BIAS = 1023, MANTISSA_BITS = 52 };

/* c[0] + c[1] x + ... + c[n-1] x^(n-1) */
static double polynomial(const double *c, size_t n, double x)
{
  double sum = c[n - 1];
  for (size_t i = n - 1; i > 0; i--) {
    sum = sum * x + c[i - 1];
  }
  return sum;
}

/* 2^k of a normal number's range: -1022 <= k <= 1023. */
static double power_of_two(int k)
{
  return fli_f64_from_bits((uint64_t)(k + EXPONENT_BIAS) << MANTISSA_BITS);
}

double fli_exp(double x)
{
  static const double inverse_factorials[] = {1.0,
                                              1.0,
                                              1.0 / 2,
                                              1.0 / 6,
                                              1.0 / 24,
                                              1.0 / 120,
                                              1.0 / 720,
                                              1.0 / 5040,
                                              1.0 / 40320,
                                              1.0 / 362880,
                                              1.0 / 3628800,
                                              1.0 / 39916800,
                                              1.0 / 479001600,
                                              1.0 / 6227020800};
  if (x > 709.8) return HUGE_VAL;
  if (x < -745.2) return 0.0;
  double k = floor(x * INV_LN2 + 0.5);
  double r = (x - k * LN2_HIGH) - k * LN2_LOW;
  double y =
      polynomial(inverse_factorials, FLI_COUNT_OF(inverse_factorials), r);
  /* In two steps: 2^1024 and subnormal results are out of power_of_two. */
  int half = (int)k / 2;
  return y * power_of_two(half) * power_of_two((int)k - half);
}

double fli_ln(double x)
{
  static const double atanh_terms[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,
                                       1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17,
                                       1.0 / 19, 1.0 / 21, 1.0 / 23};
  assert(x > 0);
  if (x > DBL_MAX) return x;
  int exponent = -EXPONENT_BIAS;
  if (x < DBL_MIN) {
    x *= 0x1p54;
    exponent -= 54;
  }
  uint64_t bits = fli_f64_bits(x);
  exponent += (int)(bits >> MANTISSA_BITS);
  uint64_t mantissa = bits & (((uint64_t)1 << MANTISSA_BITS) - 1);
  uint64_t one = (uint64_t)EXPONENT_BIAS << MANTISSA_BITS;
  double m = fli_f64_from_bits(one | mantissa);
  if (m > 2 * SQRT_HALF) {
    m *= 0.5;
    exponent++;
  }
  /* log m = 2 atanh f, |f| <= .172 */
  double f = (m - 1) / (m + 1);
  double s = f * f;
  double tail = s * polynomial(atanh_terms, FLI_COUNT_OF(atanh_terms), s);
  double k = exponent;
  return k * LN2_HIGH + (2 * f + (2 * f * tail + k * LN2_LOW));
}

/* cos(pi x) and sin(pi x) on 0 <= x <= 1/4. */
static double cos_small(double x)
{
  static const double terms[] = {1.0,
                                 -1.0 / 2,
                                 1.0 / 24,
                                 -1.0 / 720,
                                 1.0 / 40320,
                                 -1.0 / 3628800,
                                 1.0 / 479001600,
                                 -1.0 / 87178291200,
                                 1.0 / 20922789888000};
  const double y = PI * x;
  return polynomial(terms, FLI_COUNT_OF(terms), y * y);
}

static double sin_small(double x)
{
  static const double terms[] = {1.0,
                                 -1.0 / 6,
                                 1.0 / 120,
                                 -1.0 / 5040,
                                 1.0 / 362880,
                                 -1.0 / 39916800,
                                 1.0 / 6227020800,
                                 -1.0 / 1307674368000,
                                 1.0 / 355687428096000};
  const double y = PI * x;
  return y * polynomial(terms, FLI_COUNT_OF(terms), y * y);
}

double fli_cos_pi(double x)
{
  assert(x >= 0.0 && x <= 1.0);
  const double mirrored = x > 0.5 ? 1.0 - x : x;
  const double y =
      mirrored > 0.25 ? sin_small(0.5 - mirrored) : cos_small(mirrored);
  return x > 0.5 ? -y : y;
}

/* exp(-scale * x^2), x >= 0. The rounding of x^2 alone would cost x^2 / 2 ulp;
 * the square of the leading bits of x is exact. */
static double exp_minus_square(double x, double scale)
{
  double lead = floor(x * 16) / 16;
  double rest = (x - lead) * (x + lead);
  return fli_exp(-scale * lead * lead) * fli_exp(-scale * rest);
}

/* erf on |x| <= 0.46875: Cody's first interval. */
static double erf_small(double x)
{
  static const double p[] = {3.20937758913846947e3, 3.77485237685302021e2,
                             1.13864154151050156e2, 3.16112374387056560e0,
                             1.85777706184603153e-1};
  static const double q[] = {2.84423683343917062e3, 1.28261652607737228e3,
                             2.44024637934444173e2, 2.36012909523441209e1, 1.0};
  double s = x * x;
  return x * polynomial(p, FLI_COUNT_OF(p), s) /
         polynomial(q, FLI_COUNT_OF(q), s);
}

/* exp(x^2) erfc(x) on 0.46875 <= x <= 4: the second interval. */
static double erfcx_middle(double x)
{
  static const double p[] = {
      1.23033935479799725e3, 2.05107837782607147e3,  1.71204761263407058e3,
      8.81952221241769090e2, 2.98635138197400131e2,  6.61191906371416295e1,
      8.88314979438837594e0, 5.64188496988670089e-1, 2.15311535474403846e-8};
  static const double q[] = {
      1.23033935480374942e3, 3.43936767414372164e3, 4.36261909014324716e3,
      3.29079923573345963e3, 1.62138957456669019e3, 5.37181101862009858e2,
      1.17693950891312499e2, 1.57449261107098347e1, 1.0};
  return polynomial(p, FLI_COUNT_OF(p), x) / polynomial(q, FLI_COUNT_OF(q), x);
}

/* exp(x^2) erfc(x) on x >= 4: the third interval, in 1 / x^2. */
static double erfcx_large(double x)
{
  static const double p[] = {6.58749161529837803e-4, 1.60837851487422766e-2,
                             1.25781726111229246e-1, 3.60344899949804439e-1,
                             3.05326634961232344e-1, 1.63153871373020978e-2};
  static const double q[] = {2.33520497626869185e-3, 6.05183413124413191e-2,
                             5.27905102951428412e-1, 1.87295284992346725e0,
                             2.56852019228982242e0,  1.0};
  double s = 1 / (x * x);
  double r =
      s * polynomial(p, FLI_COUNT_OF(p), s) / polynomial(q, FLI_COUNT_OF(q), s);
  return (INV_SQRT_PI - r) / x;
}

double fli_erfc(double x)
{
  double y = fabs(x);
  if (y <= 0.46875) return 1 - erf_small(x);
  double tail = 0;
  if (y <= 4) {
    tail = exp_minus_square(y, 1) * erfcx_middle(y);
  } else if (y < 27.3) { /* beyond, erfc is below the least subnormal */
    tail = exp_minus_square(y, 1) * erfcx_large(y);
  }
  return x < 0 ? 2 - tail : tail;
}

double fli_normal_pdf(double x)
{
  double y = fabs(x);
  if (y > 39) return 0;
  return exp_minus_square(y, 0.5) * INV_SQRT_2PI;
}

double fli_normal_tail(double x)
{
  return 0.5 * fli_erfc(x * SQRT_HALF);
}

/* |p - 1/2| <= 0.425, q = p - 1/2. */
static double probit_middle(double q)
{
  static const double a[] = {3.3871328727963666080e0, 1.3314166789178437745e2,
                             1.9715909503065514427e3, 1.3731693765509461125e4,
                             4.5921953931549871457e4, 6.7265770927008700853e4,
                             3.3430575583588128105e4, 2.5090809287301226727e3};
  static const double b[] = {1.0,
                             4.2313330701600911252e1,
                             6.8718700749205790830e2,
                             5.3941960214247511077e3,
                             2.1213794301586595867e4,
                             3.9307895800092710610e4,
                             2.8729085735721942674e4,
                             5.2264952788528545610e3};
  double r = 0.180625 - q * q;
  return q * polynomial(a, FLI_COUNT_OF(a), r) /
         polynomial(b, FLI_COUNT_OF(b), r);
}

/* Probit's size in the tails; r = sqrt(-log p), p the smaller of p, 1 - p. */
static double probit_tail(double r)
{
  static const double c[] = {
      1.42343711074968357734e0,  4.63033784615654529590e0,
      5.76949722146069140550e0,  3.64784832476320460504e0,
      1.27045825245236838258e0,  2.41780725177450611770e-1,
      2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static const double d[] = {1.0,
                             2.05319162663775882187e0,
                             1.67638483018380384940e0,
                             6.89767334985100004550e-1,
                             1.48103976427480074590e-1,
                             1.51986665636164571966e-2,
                             5.47593808499534494600e-4,
                             1.05075007164441684324e-9};
  static const double e[] = {
      6.65790464350110377720e0,  5.46378491116411436990e0,
      1.78482653991729133580e0,  2.96560571828504891230e-1,
      2.65321895265761230930e-2, 1.24266094738807843860e-3,
      2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static const double f[] = {1.0,
                             5.99832206555887937690e-1,
                             1.36929880922735805310e-1,
                             1.48753612908506148525e-2,
                             7.86869131145613259100e-4,
                             1.84631831751005468180e-5,
                             1.42151175831644588870e-7,
                             2.04426310338993978564e-15};
  if (r <= 5) {
    r -= 1.6;
    return polynomial(c, FLI_COUNT_OF(c), r) /
           polynomial(d, FLI_COUNT_OF(d), r);
  }
  r -= 5;
  return polynomial(e, FLI_COUNT_OF(e), r) / polynomial(f, FLI_COUNT_OF(f), r);
}

double fli_probit(double p)
{
  assert(p > 0 && p < 1);
  double q = p - 0.5;
  if (fabs(q) <= 0.425) return probit_middle(q);
  double smaller = q < 0 ? p : 1 - p;
  double x = probit_tail(sqrt(-fli_ln(smaller)));
  return q < 0 ? -x : x;
}
