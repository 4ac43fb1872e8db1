/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy of the fixed functions against the C library's long double ones.
 * Their bits are held fast by tests/golden/test_dmath.c. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "base/bytes.h"
#include "base/dmath.h"
#include "base/rng.h"

enum { DRAWS = 50000, SEED = 77 };

#define SQRT_2 1.41421356237309504880168872420969808L
#define SQRT_2PI 2.50662827463100050241576528481104525L

typedef double (*function)(double x);
typedef long double (*long_function)(long double x);

static long double true_pdf(long double x)
{
  return expl(-x * x / 2) / SQRT_2PI;
}

static long double true_tail(long double x)
{
  return erfcl(x / SQRT_2) / 2;
}

static double draw(fli_rng *rng, double low, double high)
{
  return low + (high - low) * fli_rng_f64(rng);
}

/* Largest relative error on [low, high] stays below `bound`. */
static void check_accuracy(function f, long_function oracle, double low,
                           double high, double bound)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < DRAWS; i++) {
    double x = draw(&rng, low, high);
    long double want = oracle(x);
    long double off = fabsl(f(x) - want);
    cr_assert(off <= bound * fabsl(want), "x = %a: got %a, want %La, seed %d",
              x, f(x), want, SEED);
  }
}

Test(dmath, exp_is_accurate_over_its_range)
{
  check_accuracy(fli_exp, expl, -708, 709, 1e-15);
  check_accuracy(fli_exp, expl, -1, 1, 1e-15);
}

static long double true_cos_pi(long double x)
{
  return cosl(3.14159265358979323846264338327950288L * x);
}

Test(dmath, cos_pi_is_accurate_over_its_range)
{
  check_accuracy(fli_cos_pi, true_cos_pi, 0, 0.25, 1e-15);
  check_accuracy(fli_cos_pi, true_cos_pi, 0.25, 0.499, 1e-13);
  check_accuracy(fli_cos_pi, true_cos_pi, 0.501, 1, 1e-13);
  cr_assert_eq(fli_cos_pi(0), 1);
  cr_assert_eq(fli_cos_pi(0.5), 0);
  cr_assert_eq(fli_cos_pi(1), -1);
}

Test(dmath, exp_at_its_ends)
{
  cr_assert_eq(fli_exp(0), 1);
  cr_assert_eq(fli_exp(-0.0), 1);
  cr_assert_eq(fli_exp(1000), HUGE_VAL);
  cr_assert_eq(fli_exp(HUGE_VAL), HUGE_VAL);
  cr_assert_eq(fli_exp(-1000), 0);
  cr_assert_eq(fli_exp(-HUGE_VAL), 0);
  cr_assert_gt(fli_exp(-745), 0);
  cr_assert_lt(fli_exp(-740), DBL_MIN);
}

Test(dmath, ln_is_accurate_near_one_and_far_from_it)
{
  check_accuracy(fli_ln, logl, 0.999, 1.001, 1e-15);
  check_accuracy(fli_ln, logl, 0.1, 10, 1e-15);
  check_accuracy(fli_ln, logl, 1e-12, 1e-9, 1e-15);
  check_accuracy(fli_ln, logl, 1e200, 1e308, 1e-15);
}

Test(dmath, ln_at_its_ends)
{
  cr_assert_eq(fli_ln(1), 0);
  cr_assert_eq(fli_ln(HUGE_VAL), HUGE_VAL);
  cr_assert_float_eq(fli_ln(DBL_MAX), log(DBL_MAX), 1e-12);
  cr_assert_float_eq(fli_ln(fli_f64_from_bits(1)), -744.4400719213812, 1e-12);
}

Test(dmath, ln_undoes_exp)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 1, 0);
  for (int i = 0; i < DRAWS; i++) {
    double x = draw(&rng, -700, 700);
    cr_assert_float_eq(fli_ln(fli_exp(x)), x, 1e-12, "x = %a", x);
  }
}

Test(dmath, erfc_is_accurate_into_the_tail)
{
  check_accuracy(fli_erfc, erfcl, -6, 26, 5e-15);
  check_accuracy(fli_erfc, erfcl, -0.5, 0.5, 1e-15);
}

Test(dmath, erfc_at_its_ends)
{
  cr_assert_eq(fli_erfc(0), 1);
  cr_assert_eq(fli_erfc(-40), 2);
  cr_assert_eq(fli_erfc(40), 0);
  cr_assert_eq(fli_erfc(HUGE_VAL), 0);
  cr_assert_eq(fli_erfc(-HUGE_VAL), 2);
}

Test(dmath, erfc_falls_without_steps_where_its_intervals_meet)
{
  const double joints[] = {-4, -0.46875, 0.46875, 4};
  for (size_t i = 0; i < sizeof joints / sizeof joints[0]; i++) {
    double below = nextafter(joints[i], -10);
    double above = nextafter(joints[i], 10);
    cr_assert_float_eq(fli_erfc(below) / fli_erfc(above), 1, 1e-13);
  }
}

Test(dmath, normal_density_and_tail_are_accurate)
{
  check_accuracy(fli_normal_pdf, true_pdf, -30, 30, 2e-15);
  check_accuracy(fli_normal_tail, true_tail, -8, 8, 1e-13);
  check_accuracy(fli_normal_tail, true_tail, 8, 36, 1e-12);
  cr_assert_eq(fli_normal_pdf(50), 0);
  cr_assert_eq(fli_normal_tail(0), 0.5);
}

/* The error of z is that of its tail over the density: oracle without an
 * inverse. The smaller tail is used, so that nothing cancels. */
Test(dmath, probit_inverts_the_tail)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 2, 0);
  for (int i = 0; i < DRAWS; i++) {
    double p = i % 2 ? draw(&rng, 0, 0.5) : fli_exp(draw(&rng, -690, -0.7));
    double z = fli_probit(p);
    cr_assert_leq(z, 0);
    long double off = (true_tail(-(long double)z) - p) / true_pdf(z);
    cr_assert(fabsl(off) <= 1e-14L * fmaxl(1, -z), "p = %a: z = %a, seed %d", p,
              z, SEED);
  }
}

Test(dmath, probit_is_odd_about_one_half)
{
  cr_assert_eq(fli_probit(0.5), 0);
  for (int i = 1; i < 512; i++) {
    double p = i / 1024.0; /* 1 - p is exact */
    cr_assert_eq(fli_probit(p), -fli_probit(1 - p));
  }
}

/* Table values of the truncation point t_p, Phi(t_p) = 1 - p / 2. */
Test(dmath, probit_gives_the_truncation_points)
{
  cr_assert_float_eq(fli_probit(1 - 1.0 / 64), 2.153874694061456, 1e-12);
  cr_assert_float_eq(fli_probit(0.975), 1.959963984540054, 1e-12);
}
