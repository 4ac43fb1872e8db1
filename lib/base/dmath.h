/* SPDX-License-Identifier: Apache-2.0 */
/* exp, ln, erfc and friends as fixed polynomials in double: the same bits on
 * every machine, which libm does not promise. D0. Relative error below 1e-14
 * (erfc, probit: 1e-12) in the ranges used; arguments must not be NaN. */
#ifndef FLI_DMATH_H
#define FLI_DMATH_H

double fli_exp(double x);
double fli_ln(double x);     /* natural logarithm, x > 0 */
double fli_cos_pi(double x); /* cos(pi x), 0 <= x <= 1 */
double fli_erfc(double x);
double fli_normal_pdf(double x);
double fli_normal_tail(double x); /* Q(x) = P(N(0,1) > x) */
double fli_probit(double p);      /* Phi^-1, 0 < p < 1 */
/* A normal draw from two uniforms in (0,1) would need sin and cos: instead by
 * inversion, fli_probit of the midpoint of one 53-bit uniform. */

#endif
