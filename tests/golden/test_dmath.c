/* SPDX-License-Identifier: Apache-2.0 */
/* The bits of lib/base/dmath.c: {argument, result} pairs in hex, made by the
 * first version of that file and never again. A difference means that peers
 * would disagree: it needs a new version of the algorithm, not new numbers
 * here. How accurate the values are: tests/unit/test_dmath.c. */
#include "check.h"

#include "base/compiler.h"
#include "base/dmath.h"

typedef struct golden_row {
  double x;
  double want;
} golden_row;

static const golden_row exp_rows[] = {
    {-0x1.748p+9, 0x0.0000000000001p-1022},
    {-0x1.722p+9, 0x0.0000000000042p-1022},
    {-0x1.624p+9, 0x0.e6cf6d08897acp-1022},
    {-0x1.9066666666666p+6, 0x1.805628c2e465cp-145},
    {-0x1.4b33333333333p+4, 0x1.195920309b9dap-30},
    {-0x1p+0, 0x1.78b56362cef38p-2},
    {-0x1.62e42fefa39efp-2, 0x1.6a09e667f3bccp-1},
    {-0x1.999999999999ap-4, 0x1.cf46d99d52b3ap-1},
    {-0x1p-40, 0x1.fffffffffep-1},
    {0x1p-30, 0x1.00000004p+0},
    {0x1.999999999999ap-4, 0x1.1aec7b35a00d4p+0},
    {0x1.62e42fefa39efp-2, 0x1.6a09e667f3bccp+0},
    {0x1.62e42fefa39fp-2, 0x1.6a09e667f3bcdp+0},
    {0x1p-1, 0x1.a61298e1e069cp+0},
    {0x1p+0, 0x1.5bf0a8b14576ap+1},
    {0x1.5bf0a8b145769p+1, 0x1.e4efb75e4527ap+3},
    {0x1.499999999999ap+3, 0x1.d09279b49287p+14},
    {0x1.62ccccccccccdp+6, 0x1.f4705bbffae5cp+127},
    {0x1.2c028f5c28f5cp+8, 0x1.c4dd99710479p+432},
    {0x1.62d999999999ap+9, 0x1.d75ae7a50ee14p+1023},
};

static const golden_row cos_pi_rows[] = {
    {0x0p+0, 0x1p+0},
    {0x1p-60, 0x1p+0},
    {0x1.999999999999ap-4, 0x1.e6f0e134454ffp-1},
    {0x1.999999999999ap-3, 0x1.9e3779b97f4a8p-1},
    {0x1p-2, 0x1.6a09e667f3bcdp-1},
    {0x1.0000000000001p-2, 0x1.6a09e667f3bcbp-1},
    {0x1.5555555555555p-2, 0x1p-1},
    {0x1.ffffbce4217d3p-2, 0x1.a5a84d37d3d8fp-19},
    {0x1p-1, 0x0p+0},
    {0x1.0000000000001p-1, -0x1.921fb54442d18p-52},
    {0x1.3333333333333p-1, -0x1.3c6ef372fe94ep-2},
    {0x1.5555555555555p-1, -0x1.ffffffffffffdp-2},
    {0x1.8p-1, -0x1.6a09e667f3bcdp-1},
    {0x1.ccccccccccccdp-1, -0x1.e6f0e134455p-1},
    {0x1.fffffffffffffp-1, -0x1p+0},
    {0x1p+0, -0x1p+0},
};

static const golden_row ln_rows[] = {
    {0x0.0000000000001p-1022, -0x1.74385446d71c3p+9},
    {0x0.0000000006p-1022, -0x1.6f2a4f5736e06p+9},
    {0x1p-1022, -0x1.6232bdd7abcd2p+9},
    {0x1.56e1fc2f8f359p-997, -0x1.5963447f87fb5p+9},
    {0x1.b7cdfd9d7bdbbp-34, -0x1.7069e2aa2aa5bp+4},
    {0x1p-6, -0x1.0a2b23f3bab73p+2},
    {0x1.999999999999ap-4, -0x1.26bb1bbb55515p+1},
    {0x1.6a09e667f3bccp-1, -0x1.62e42fefa39f1p-2},
    {0x1.6a09e667f3bcep-1, -0x1.62e42fefa39ebp-2},
    {0x1.fae147ae147aep-1, -0x1.495453e6fd4bcp-7},
    {0x1.fffffffffffffp-1, -0x1p-53},
    {0x1.0000000000001p+0, 0x1p-52},
    {0x1.028f5c28f5c29p+0, 0x1.460d6ccca367dp-7},
    {0x1.6a09e667f3bccp+0, 0x1.62e42fefa39edp-2},
    {0x1.6a09e667f3bcep+0, 0x1.62e42fefa39f3p-2},
    {0x1p+1, 0x1.62e42fefa39efp-1},
    {0x1.8p+1, 0x1.193ea7aad030bp+0},
    {0x1.4p+3, 0x1.26bb1bbb55516p+1},
    {0x1.81cd6c8b43958p+13, 0x1.2d79559791e31p+3},
    {0x1.7e43c8800759cp+996, 0x1.5963447f87fb5p+9},
};

static const golden_row erfc_rows[] = {
    {-0x1.ap+2, 0x1p+1},
    {-0x1.00000431bde83p+2, 0x1.ffffffbdc8af7p+0},
    {-0x1p+2, 0x1.ffffffbdc88bbp+0},
    {-0x1.a666666666666p+1, 0x1.ffffccb33c864p+0},
    {-0x1p+0, 0x1.d7bb3d3a08445p+0},
    {-0x1.ep-2, 0x1.7e1beaa50a3e7p+0},
    {-0x1.df3b645a1cac1p-2, 0x1.7def611fa5608p+0},
    {-0x1.999999999999ap-4, 0x1.1cca5ea24fb33p+0},
    {0x1p-30, 0x1.fffffff6f9145p-1},
    {0x1.999999999999ap-3, 0x1.8df9ed1d36839p-1},
    {0x1.ep-2, 0x1.03c82ab5eb832p-1},
    {0x1.e0000001b7cep-2, 0x1.03c82ab524537p-1},
    {0x1.ccccccccccccdp-1, 0x1.9fee964dd7468p-3},
    {0x1p+0, 0x1.4226162fbddd6p-3},
    {0x1p+1, 0x1.328f5ec350e65p-8},
    {0x1.fffcb923a29c7p+1, 0x1.0915afe52aa9fp-26},
    {0x1p+2, 0x1.08ddd13bd35e7p-26},
    {0x1.0001a36e2eb1cp+2, 0x1.08a5fe027f963p-26},
    {0x1.1p+3, 0x1.caf8458ad2a12p-109},
    {0x1.4p+4, 0x1.b54f244df93dfp-583},
    {0x1.a8p+4, 0x1.3df6725a60cf5p-1019},
    {0x1.b333333333333p+4, 0x0.0000000000002p-1022},
};

static const golden_row pdf_rows[] = {
    {-0x1.3p+5, 0x0.00000845eb885p-1022},
    {-0x1.6p+2, 0x1.ce8ec39250977p-24},
    {-0x1p+0, 0x1.ef8e58e331738p-3},
    {0x1p-20, 0x1.9884533d4298dp-2},
    {0x1p-1, 0x1.6883d022086adp-2},
    {0x1.f5c28f5c28f5cp+0, 0x1.debf8b151adfdp-5},
    {0x1.8p+1, 0x1.227213fd7768ap-8},
    {0x1.4333333333333p+3, 0x1.1066cf5a27fc2p-75},
    {0x1.ep+4, 0x1.6080417588184p-651},
};

static const golden_row tail_rows[] = {
    {-0x1.2p+3, 0x1p+0},
    {-0x1.199999999999ap+1, 0x1.f8e1a5b741785p-1},
    {-0x1p-1, 0x1.62075e232ac77p-1},
    {0x1.47ae147ae147bp-7, 0x1.fbea36d462e24p-2},
    {0x1.51eb851eb851fp-1, 0x1.04bceafcc7722p-2},
    {0x1p+0, 0x1.44ed0bb7cb20ap-3},
    {0x1.13b22a7d5685dp+1, 0x1.0000000000001p-6},
    {0x1.6666666666666p+2, 0x1.7040ebbf2f8cbp-27},
    {0x1.6cccccccccccdp+2, 0x1.9ba7ba68de34dp-28},
    {0x1.8p+3, 0x1.272b3136661dep-109},
    {0x1.28p+5, 0x1.eaccc6bfeadb8p-995},
};

static const golden_row probit_rows[] = {
    {0x1.56e1fc2f8f359p-997, -0x1.286074064c26ep+5},
    {0x1.4484bfeebc2ap-100, -0x1.6ed94a4dacdc9p+3},
    {0x1.c965971ea9c5cp-37, -0x1.aaba25670981fp+2},
    {0x1.ec94ca210599ep-37, -0x1.aa07c04a264fbp+2},
    {0x1.0624dd2f1a9fcp-10, -0x1.8b8cbb720447p+1},
    {0x1.e4f765fd8adacp-8, -0x1.37f75cd4f1012p+1},
    {0x1.3333333333333p-4, -0x1.7085226d3e523p+0},
    {0x1.333335e2650f8p-4, -0x1.7085213dd4bfp+0},
    {0x1.999999999999ap-4, -0x1.4813c36e26d34p+0},
    {0x1p-2, -0x1.5956b87528a49p-1},
    {0x1.f5c28f5c28f5cp-2, -0x1.9aba9f4786911p-6},
    {0x1p-1, 0x0p+0},
    {0x1.051eb851eb852p-1, 0x1.9aba9f4786911p-6},
    {0x1.8p-1, 0x1.5956b87528a49p-1},
    {0x1.d99999999999ap-1, 0x1.7085226d3e524p+0},
    {0x1.d9999cf497ecfp-1, 0x1.70852e475e818p+0},
    {0x1.f333333333333p-1, 0x1.f5c0331eeff82p+0},
    {0x1.f8p-1, 0x1.13b22a7d5685cp+1},
    {0x1.fcp-1, 0x1.357292e7715f5p+1},
    {0x1.ffffde7210be9p-1, 0x1.30381a97985f1p+2},
    {0x1.fffffffffffffp-1, 0x1.06b48528cea51p+3},
};

static void check_rows(double (*f)(double), const golden_row *rows, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    double got = f(rows[i].x);
    if (memcmp(&got, &rows[i].want, sizeof got) != 0) {
      fprintf(stderr, "at %a:\n", rows[i].x);
    }
    CHECK_EQ_F64(got, rows[i].want);
  }
}

static void exp_keeps_its_bits(void)
{
  check_rows(fli_exp, exp_rows, FLI_COUNT_OF(exp_rows));
}

static void cos_pi_keeps_its_bits(void)
{
  check_rows(fli_cos_pi, cos_pi_rows, FLI_COUNT_OF(cos_pi_rows));
}

static void ln_keeps_its_bits(void)
{
  check_rows(fli_ln, ln_rows, FLI_COUNT_OF(ln_rows));
}

static void erfc_keeps_its_bits(void)
{
  check_rows(fli_erfc, erfc_rows, FLI_COUNT_OF(erfc_rows));
}

static void normal_pdf_keeps_its_bits(void)
{
  check_rows(fli_normal_pdf, pdf_rows, FLI_COUNT_OF(pdf_rows));
}

static void normal_tail_keeps_its_bits(void)
{
  check_rows(fli_normal_tail, tail_rows, FLI_COUNT_OF(tail_rows));
}

static void probit_keeps_its_bits(void)
{
  check_rows(fli_probit, probit_rows, FLI_COUNT_OF(probit_rows));
}

int main(void)
{
  CHECK_CASE(exp_keeps_its_bits);
  CHECK_CASE(cos_pi_keeps_its_bits);
  CHECK_CASE(ln_keeps_its_bits);
  CHECK_CASE(erfc_keeps_its_bits);
  CHECK_CASE(normal_pdf_keeps_its_bits);
  CHECK_CASE(normal_tail_keeps_its_bits);
  CHECK_CASE(probit_keeps_its_bits);
  return check_report();
}
