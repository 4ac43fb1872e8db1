/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product: built-in (each table of kernels), front (OpenBLAS when
 * compiled in) and parallel form against three plain loops in double, over odd
 * shapes, transposes, leading dimensions, alpha, beta, bias and ReLU. */
#include "linalg/linalg.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"

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

static fl_status refusing_loop(void *user, uint64_t count, fl_task_fn task,
                               void *arg)
{
  (void)user;
  (void)count;
  (void)task;
  (void)arg;
  return FL_E_IO;
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
      double value = (double)g->alpha * sum;
      if (g->beta != 0.0f) value += (double)g->beta * (double)*c;
      if (g->bias) value += (double)g->bias[j];
      *c = (float)(g->does_relu && value < 0.0 ? 0.0 : value);
    }
  }
}

static void multiply_parallel(const fli_gemm *gemm)
{
  fli_sgemm_parallel(NULL, gemm);
}

typedef struct variant {
  float alpha, beta;
  int has_bias, does_relu;
  size_t pad; /* added to all leading dimensions */
} variant;

static const variant variants[] = {{1.0f, 0.0f, 0, 0, 0},
                                   {-0.5f, 1.0f, 0, 0, 1},
                                   {2.0f, -1.5f, 1, 0, 3},
                                   {1.0f, 0.0f, 1, 1, 0},
                                   {1.5f, 1.0f, 0, 1, 16}};

/* Compare `multiply` with the plain loops on one shape; what lies between and
 * behind the rows must stay untouched. */
static void check_shape(void (*multiply)(const fli_gemm *), fli_gemm g,
                        const variant *v)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, g.m * 1000 + g.n, (uint32_t)g.k);
  size_t rows_a = g.trans_a ? g.k : g.m;
  size_t rows_b = g.trans_b ? g.n : g.k;
  g.alpha = v->alpha;
  g.beta = v->beta;
  g.does_relu = v->does_relu;
  g.lda = (g.trans_a ? g.m : g.k) + v->pad;
  g.ldb = (g.trans_b ? g.k : g.n) + v->pad;
  g.ldc = g.n + v->pad;
  float *a = new_values(&rng, rows_a * g.lda);
  float *b = new_values(&rng, rows_b * g.ldb);
  float *bias = new_values(&rng, g.n);
  float *got = new_values(&rng, g.m * g.ldc);
  float *want = new_values(&rng, g.m * g.ldc);
  memcpy(want, got, (g.m * g.ldc + 1) * sizeof *got);
  g.a = a;
  g.b = b;
  if (v->has_bias) g.bias = bias;
  g.c = want;
  plain_product(&g);
  g.c = got;
  multiply(&g);
  double bound = 4e-7 * (8.0 + (double)g.k);
  for (size_t i = 0; i <= g.m * g.ldc; i++) {
    double most = i % g.ldc < g.n && i < g.m * g.ldc ? bound : 0.0;
    cr_assert(fabs((double)got[i] - (double)want[i]) <= most,
              "seed %d: %s %zux%zux%zu trans %d %d variant %d at %zu: got %g, "
              "want %g",
              SEED, flk_nn()->name, g.m, g.n, g.k, g.trans_a, g.trans_b,
              (int)(v - variants), i, (double)got[i], (double)want[i]);
  }
  free(a);
  free(b);
  free(bias);
  free(got);
  free(want);
}

/* Every table in turn; the best one again at the end. */
static int next_table(size_t *index)
{
  const flk_nn_table *table = flk_nn_at((*index)++);
  cr_assert(flk_nn_choose(table ? table->name : NULL));
  return table != NULL;
}

static void check_all_variants(void (*multiply)(const fli_gemm *), size_t m,
                               size_t n, size_t k)
{
  for (int trans = 0; trans < 4; trans++) {
    for (size_t v = 0; v < FLI_COUNT_OF(variants); v++) {
      fli_gemm shape = {
          .trans_a = trans & 1, .trans_b = trans >> 1, .m = m, .n = n, .k = k};
      check_shape(multiply, shape, &variants[v]);
    }
  }
}

Test(linalg, products_agree_with_plain_loops_around_every_size_of_a_tile)
{
  static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 29};
  static const size_t columns[] = {1,  3,  4,  5,  7,  8,  9,  15, 16,
                                   17, 23, 24, 25, 31, 32, 33, 57};
  static const size_t depths[] = {1, 3, 4, 5, 15, 16, 17, 33};
  for (size_t t = 0; next_table(&t);) {
    for (size_t i = 0; i < FLI_COUNT_OF(rows); i++) {
      for (size_t j = 0; j < FLI_COUNT_OF(columns); j++) {
        size_t k = depths[(i + j + t) % FLI_COUNT_OF(depths)];
        check_all_variants(fli_sgemm_builtin, rows[i], columns[j], k);
      }
    }
  }
}

/* Blocks of the depth end at 384, those of rows at 512; 57 rows and more pack
 * panels; 1024 floats from row to row are a page; 32 x 128 x 784 and the
 * like are dots when B is transposed, 200 rows are not. */
Test(linalg, products_agree_with_plain_loops_around_every_block)
{
  static const size_t shapes[][3] = {
      {2, 16, 383},   {7, 33, 384},   {14, 35, 385},   {3, 40, 769},
      {56, 32, 20},   {57, 32, 20},   {513, 9, 30},    {520, 33, 12},
      {32, 10, 128},  {32, 128, 784}, {200, 20, 100},  {10, 128, 32},
      {20, 24, 1024}, {9, 1024, 20},  {1024, 11, 20},  {1, 100, 784},
      {1, 5000, 40},  {2, 3, 140000}, {100, 1300, 100}};
  for (size_t t = 0; next_table(&t);) {
    for (size_t s = 0; s < FLI_COUNT_OF(shapes); s++) {
      check_all_variants(fli_sgemm_builtin, shapes[s][0], shapes[s][1],
                         shapes[s][2]);
    }
  }
}

Test(linalg, front_and_parallel_form_agree_with_plain_loops)
{
  static const size_t shapes[][3] = {
      {1, 1, 1}, {3, 17, 257}, {24, 32, 8}, {100, 130, 200}, {49, 1600, 60}};
  for (size_t s = 0; s < FLI_COUNT_OF(shapes); s++) {
    check_all_variants(fli_sgemm, shapes[s][0], shapes[s][1], shapes[s][2]);
    check_all_variants(multiply_parallel, shapes[s][0], shapes[s][1],
                       shapes[s][2]);
  }
}

/* A host's loop, backwards; `user` counts what it was given. */
static fl_status backward_loop(void *user, uint64_t count, fl_task_fn task,
                               void *arg)
{
  *(uint64_t *)user += count;
  for (uint64_t i = count; i > 0; i--) {
    task(arg, i - 1);
  }
  return FL_OK;
}

static fl_context *new_context(uint64_t *n_tasks)
{
  fl_context *context = NULL;
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.parallel_for = backward_loop;
  options.user = n_tasks;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  return context;
}

/* How many tasks the product of that shape becomes; the bytes are those of
 * fli_sgemm. */
static uint64_t tasks_of(int trans, size_t m, size_t n, size_t k)
{
  uint64_t n_tasks = 0;
  fl_context *context = new_context(&n_tasks);
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, m, (uint32_t)n);
  float *a = new_values(&rng, m * k), *b = new_values(&rng, k * n);
  float *bias = new_values(&rng, n), *one = new_values(&rng, m * n);
  float *other = malloc((m * n + 1) * sizeof *other);
  cr_assert_not_null(other);
  memcpy(other, one, (m * n + 1) * sizeof *one);
  fli_gemm g = {.trans_a = trans & 1,
                .trans_b = trans >> 1,
                .m = m,
                .n = n,
                .k = k,
                .alpha = 0.5f,
                .a = a,
                .lda = trans & 1 ? m : k,
                .b = b,
                .ldb = trans >> 1 ? k : n,
                .beta = 1.0f,
                .c = one,
                .ldc = n,
                .bias = bias,
                .does_relu = 1};
  fli_sgemm(&g);
  g.c = other;
  fli_sgemm_parallel(context, &g);
  cr_assert(memcmp(one, other, (m * n + 1) * sizeof *one) == 0,
            "%zux%zux%zu trans %d", m, n, k, trans);
  free(a);
  free(b);
  free(bias);
  free(one);
  free(other);
  fl_context_free(context);
  return n_tasks;
}

Test(linalg, parallel_form_cuts_large_products_and_makes_the_same_bytes)
{
  for (int trans = 0; trans < 4; trans++) {
    cr_assert(tasks_of(trans, 20, 30, 40) <= 1);
    cr_assert(tasks_of(trans, 32, 128, 784) > 1);
    cr_assert(tasks_of(trans, 500, 70, 150) > 1);
    cr_assert(tasks_of(trans, 1, 3000, 1500) > 1);
  }
}

/* Where OpenBLAS is compiled in and its kernels fit the machine, it is theirs;
 * the built-in product is the oracle then. */
Test(linalg, products_beyond_the_crossover_agree_with_the_builtin_ones)
{
  enum { M = 2600, N = 2500, K = 3200 };
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 3, 4);
  float *a = new_values(&rng, (size_t)M * K);
  float *b = new_values(&rng, (size_t)K * N);
  float *bias = new_values(&rng, N);
  float *one = new_values(&rng, (size_t)M * N);
  float *other = malloc((size_t)M * N * sizeof *other);
  cr_assert_not_null(other);
  memcpy(other, one, (size_t)M * N * sizeof *one);
  fli_gemm g = {.trans_b = 1,
                .m = M,
                .n = N,
                .k = K,
                .alpha = 0.1f,
                .a = a,
                .lda = K,
                .b = b,
                .ldb = K,
                .beta = 2.0f,
                .c = one,
                .ldc = N,
                .bias = bias,
                .does_relu = 1};
  fli_sgemm(&g);
  g.c = other;
  fli_sgemm_builtin(&g);
  for (size_t i = 0; i < (size_t)M * N; i++) {
    cr_assert(fabs((double)one[i] - (double)other[i]) < 1e-4,
              "at %zu: %g and %g", i, (double)one[i], (double)other[i]);
  }
  free(a);
  free(b);
  free(bias);
  free(one);
  free(other);
}

Test(linalg, parallel_form_does_what_a_failing_hook_leaves_out)
{
  fl_context *context = NULL;
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.parallel_for = refusing_loop;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  static float values[300 * 300], c[300 * 300], want[300 * 300];
  fli_gemm g = {.m = 300,
                .n = 300,
                .k = 300,
                .alpha = 1.0f,
                .a = values,
                .lda = 300,
                .b = values,
                .ldb = 300,
                .c = c,
                .ldc = 300};
  for (size_t i = 0; i < (size_t)300 * 300; i++) {
    values[i] = (float)(i % 7);
  }
  fli_sgemm_parallel(context, &g);
  g.c = want;
  fli_sgemm(&g);
  cr_assert_arr_eq(c, want, sizeof c);
  cr_assert_str_eq(fl_last_error(), "");
  fl_context_free(context);
}

Test(linalg, nan_stays_in_its_row_and_through_relu)
{
  static const size_t ms[] = {2, 9, 70};
  static float a[70 * 40], b[40 * 35], c[70 * 35];
  for (size_t t = 0; next_table(&t);) {
    for (size_t s = 0; s < FLI_COUNT_OF(ms) * 2; s++) {
      size_t m = ms[s / 2];
      fli_rng rng;
      fli_rng_init(&rng, SEED, FLI_RNG_TEST, s, 1);
      fill(&rng, a, FLI_COUNT_OF(a));
      fill(&rng, b, FLI_COUNT_OF(b));
      a[1 * 40 + 39] = NAN;
      fli_gemm g = {.trans_b = s & 1,
                    .m = m,
                    .n = 35,
                    .k = 40,
                    .alpha = 1.0f,
                    .a = a,
                    .lda = 40,
                    .b = b,
                    .ldb = s & 1 ? 40 : 35,
                    .c = c,
                    .ldc = 35,
                    .does_relu = 1};
      fli_sgemm_builtin(&g);
      for (size_t i = 0; i < m * 35; i++) {
        cr_assert_eq(isnan(c[i]) != 0, i / 35 == 1, "%zu rows, at %zu", m, i);
        cr_assert(i / 35 == 1 || c[i] >= 0.0f);
      }
    }
  }
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

Test(linalg, product_without_depth_still_has_bias_and_relu)
{
  const float bias[3] = {1.0f, -4.0f, NAN};
  const float unused[1] = {NAN};
  for (int has_depth = 0; has_depth < 2; has_depth++) {
    float c[3] = {2.0f, 2.0f, 2.0f};
    /* alpha 0 does not read A and B either */
    fli_sgemm(&(fli_gemm){.m = 1,
                          .n = 3,
                          .k = has_depth ? 1000 : 0,
                          .alpha = has_depth ? 0.0f : 1.0f,
                          .a = unused,
                          .lda = 1000,
                          .b = unused,
                          .ldb = 3,
                          .beta = 0.5f,
                          .c = c,
                          .ldc = 3,
                          .bias = bias,
                          .does_relu = 1});
    cr_assert(c[0] == 2.0f && c[1] == 0.0f && isnan(c[2]));
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
  enum { N = 87, K = 500 };
  static float a[N * K];
  static float a_transposed[K * N];
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
  for (size_t i = 0; i < (size_t)N * K; i++) {
    a_transposed[i] = a[i / N];
  }
  for (size_t t = 0; next_table(&t);) {
    /* dots, and tiles of A transposed as well */
    for (size_t m = N; m > 13; m -= 13) {
      fli_gemm g = {.trans_b = 1,
                    .m = m,
                    .n = N,
                    .k = K,
                    .alpha = 1.0f,
                    .a = a,
                    .lda = K,
                    .b = b,
                    .ldb = K,
                    .c = c,
                    .ldc = N};
      fli_sgemm_builtin(&g);
      for (size_t i = 1; i < m * N; i++) {
        cr_assert(memcmp(&c[i], &c[0], sizeof *c) == 0, "%zu rows, at %zu", m,
                  i);
      }
      g.trans_a = 1;
      g.a = a_transposed;
      g.lda = N;
      fli_sgemm_builtin(&g);
      for (size_t i = 1; i < m * N; i++) {
        cr_assert(memcmp(&c[i], &c[0], sizeof *c) == 0, "%zu rows, at %zu", m,
                  i);
      }
    }
  }
}

Test(linalg, name_is_never_empty)
{
  cr_assert(strlen(fli_linalg_name()) > 0);
}
