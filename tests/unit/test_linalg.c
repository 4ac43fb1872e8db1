/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product: built-in kernel and front (OpenBLAS when compiled in)
 * against three plain loops in double, over odd shapes, transposes, leading
 * dimensions, alpha and beta. */
#include "linalg/linalg.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"

enum { SEED = 11 };

static void fill(fli_rng *rng, float *values, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    values[i] = 2.0f * fli_rng_f32(rng) - 1.0f;
  }
}

static float *new_values(fli_rng *rng, size_t n)
{
  float *values = malloc((n + 1) * sizeof *values);
  cr_assert_not_null(values);
  fill(rng, values, n);
  return values;
}

static void plain_product(const fli_gemm *g)
{
  for (size_t i = 0; i < g->m; i++) {
    for (size_t j = 0; j < g->n; j++) {
      double sum = 0.0;
      for (size_t p = 0; p < g->k; p++) {
        double a =
            (double)(g->trans_a ? g->a[p * g->lda + i] : g->a[i * g->lda + p]);
        double b =
            (double)(g->trans_b ? g->b[j * g->ldb + p] : g->b[p * g->ldb + j]);
        sum += a * b;
      }
      float *c = &g->c[i * g->ldc + j];
      double old = g->beta == 0.0f ? 0.0 : (double)(g->beta * *c);
      *c = (float)(old + (double)g->alpha * sum);
    }
  }
}

/* Compare `multiply` with the plain loops on one shape; `pad` is added to all
 * leading dimensions, and what lies between the rows must stay untouched. */
static void check_shape(void (*multiply)(const fli_gemm *), fli_gemm shape,
                        size_t pad)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, shape.m * 1000 + shape.n,
               (uint32_t)shape.k);
  size_t rows_a = shape.trans_a ? shape.k : shape.m;
  size_t rows_b = shape.trans_b ? shape.n : shape.k;
  fli_gemm g = shape;
  g.lda = (shape.trans_a ? shape.m : shape.k) + pad;
  g.ldb = (shape.trans_b ? shape.k : shape.n) + pad;
  g.ldc = shape.n + pad;
  float *a = new_values(&rng, rows_a * g.lda);
  float *b = new_values(&rng, rows_b * g.ldb);
  float *got = new_values(&rng, g.m * g.ldc);
  float *want = new_values(&rng, g.m * g.ldc);
  memcpy(want, got, g.m * g.ldc * sizeof *got);
  g.a = a;
  g.b = b;
  g.c = want;
  plain_product(&g);
  g.c = got;
  multiply(&g);
  double bound = 1e-6 * (4.0 + (double)g.k);
  for (size_t i = 0; i < g.m * g.ldc; i++) {
    cr_assert(fabs((double)got[i] - (double)want[i]) <= bound,
              "seed %d: %zux%zux%zu trans %d %d alpha %g beta %g at %zu: got "
              "%g, want %g",
              SEED, g.m, g.n, g.k, g.trans_a, g.trans_b, (double)g.alpha,
              (double)g.beta, i, (double)got[i], (double)want[i]);
  }
  free(a);
  free(b);
  free(got);
  free(want);
}

static void check_all_shapes(void (*multiply)(const fli_gemm *))
{
  static const size_t shapes[][3] = {
      {1, 1, 1},      {1, 16, 4},  {2, 16, 256}, {3, 17, 257},
      {23, 15, 31},   {24, 32, 8}, {25, 33, 7},  {32, 10, 128},
      {32, 128, 300}, {5, 1, 513}, {1, 40, 3},   {49, 16, 600},
  };
  static const float scales[][2] = {{1.0f, 0.0f}, {-0.5f, 1.0f}, {2.0f, -1.5f}};
  for (size_t s = 0; s < FLI_COUNT_OF(shapes); s++) {
    for (int trans = 0; trans < 4; trans++) {
      for (size_t f = 0; f < FLI_COUNT_OF(scales); f++) {
        fli_gemm shape = {.trans_a = trans & 1,
                          .trans_b = trans >> 1,
                          .m = shapes[s][0],
                          .n = shapes[s][1],
                          .k = shapes[s][2],
                          .alpha = scales[f][0],
                          .beta = scales[f][1]};
        check_shape(multiply, shape, f);
      }
    }
  }
}

Test(linalg, builtin_product_agrees_with_plain_loops)
{
  check_all_shapes(fli_sgemm_builtin);
}

Test(linalg, front_agrees_with_plain_loops)
{
  check_all_shapes(fli_sgemm);
}

Test(linalg, beta_zero_does_not_read_the_result)
{
  void (*const multiply[])(const fli_gemm *) = {fli_sgemm, fli_sgemm_builtin};
  const float a[4] = {1, 2, 3, 4};
  const float b[4] = {1, 0, 0, 1};
  for (size_t i = 0; i < 2; i++) {
    float c[4] = {NAN, NAN, NAN, NAN};
    multiply[i](&(fli_gemm){.m = 2,
                            .n = 2,
                            .k = 2,
                            .alpha = 1.0f,
                            .a = a,
                            .lda = 2,
                            .b = b,
                            .ldb = 2,
                            .c = c,
                            .ldc = 2});
    cr_assert_arr_eq(c, a, sizeof c);
  }
}

Test(linalg, product_without_depth_scales_the_result)
{
  void (*const multiply[])(const fli_gemm *) = {fli_sgemm, fli_sgemm_builtin};
  const float unused[1] = {0};
  for (size_t i = 0; i < 2; i++) {
    float c[2] = {3.0f, -5.0f};
    fli_gemm gemm = {.m = 1,
                     .n = 2,
                     .k = 0,
                     .alpha = 1.0f,
                     .a = unused,
                     .lda = 1,
                     .b = unused,
                     .ldb = 2,
                     .beta = 0.5f,
                     .c = c,
                     .ldc = 2};
    multiply[i](&gemm);
    cr_assert_float_eq(c[0], 1.5f, 0.0);
    cr_assert_float_eq(c[1], -2.5f, 0.0);
    gemm.beta = 0.0f;
    multiply[i](&gemm);
    cr_assert(c[0] == 0.0f && c[1] == 0.0f);
  }
}

Test(linalg, empty_product_touches_nothing)
{
  float c[1] = {7.0f};
  const float unused[1] = {0};
  fli_gemm gemm = {.m = 0,
                   .n = 1,
                   .k = 1,
                   .alpha = 1.0f,
                   .a = unused,
                   .lda = 1,
                   .b = unused,
                   .ldb = 1,
                   .c = c,
                   .ldc = 1};
  fli_sgemm(&gemm);
  fli_sgemm_builtin(&gemm);
  cr_assert(c[0] == 7.0f);
}

Test(linalg, builtin_result_does_not_depend_on_the_place_in_the_matrix)
{
  enum { N = 40, K = 300 };
  static float a[N * K];
  static float b[N * K];
  static float c[N * N];
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 1, 2);
  fill(&rng, a, K);
  fill(&rng, b, K);
  for (size_t i = 1; i < N; i++) {
    memcpy(a + i * K, a, K * sizeof *a);
    memcpy(b + i * K, b, K * sizeof *b);
  }
  fli_sgemm_builtin(&(fli_gemm){.trans_b = 1,
                                .m = N,
                                .n = N,
                                .k = K,
                                .alpha = 1.0f,
                                .a = a,
                                .lda = K,
                                .b = b,
                                .ldb = K,
                                .c = c,
                                .ldc = N});
  for (size_t i = 1; i < (size_t)N * N; i++) {
    cr_assert(memcmp(&c[i], &c[0], sizeof *c) == 0, "element %zu", i);
  }
}

Test(linalg, name_is_never_empty)
{
  cr_assert(strlen(fli_linalg_name()) > 0);
}
