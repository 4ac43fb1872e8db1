/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: GFLOP/s of ours and of OpenBLAS where that is linked, on
 * one thread, and the share of what the processor's multiply-add can do, which
 * is measured in the same rounds. Every figure is the median of `--runs`
 * rounds, which take turns; times are the processor's. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"
#include "linalg/linalg.h"
#include "peak.h"

#ifdef FLI_HAVE_OPENBLAS
#  include <cblas.h>
#endif

enum { RUNS_MAX = 101, SIDE_MAX = 2048 };

static const char help[] =
    "usage: bench_gemm [OPTION VALUE]...\n"
    "  --isa NAME    c, avx2, avx512, ..., best (default), all\n"
    "  --shape TEXT  only shapes whose names begin so\n"
    "  --runs N      rounds, 1..101; 11 (default)\n"
    "  --ms N        a figure's time in a round, 1..1000; 4 (default)\n"
    "Shapes are m x n x k of C[m,n] = A[m,k] B[k,n]; nt: B is stored\n"
    "transposed, tn: A is, nn: none. Keys end in the ISA when it is named.\n"
    "  SHAPE_gflops       ours (the product built in)\n"
    "  SHAPE_blas_gflops  OpenBLAS's\n"
    "  SHAPE_vs_blas      ours / OpenBLAS's\n"
    "  SHAPE_share        ours / peak_gflops\n";

typedef struct settings {
  const char *isa;
  const char *shape;
  int runs;
  double seconds;
} settings;

typedef struct shape {
  const char *name;
  int trans_a, trans_b;
  size_t m, n, k;
  float alpha, beta;
} shape;

static const shape shapes[] = {
    {"mlp1_32x128x784_nt", 0, 1, 32, 128, 784, 1.0f, 0.0f},
    {"mlp1_dw_128x784x32_tn", 1, 0, 128, 784, 32, -0.01f, 1.0f},
    {"mlp1_dx_32x784x128_nn", 0, 0, 32, 784, 128, 1.0f, 0.0f},
    {"mlp2_32x10x128_nt", 0, 1, 32, 10, 128, 1.0f, 0.0f},
    {"mlp2_dw_10x128x32_tn", 1, 0, 10, 128, 32, -0.01f, 1.0f},
    {"mlp2_dx_32x128x10_nn", 0, 0, 32, 128, 10, 1.0f, 0.0f},
    {"qkv_1792x192x64_nt", 0, 1, 1792, 192, 64, 1.0f, 0.0f},
    {"qkv_dw_192x64x1792_tn", 1, 0, 192, 64, 1792, 1.0f, 0.0f},
    {"qkv_dx_1792x64x192_nn", 0, 0, 1792, 64, 192, 1.0f, 0.0f},
    {"out_1792x64x64_nt", 0, 1, 1792, 64, 64, 1.0f, 0.0f},
    {"out_dw_64x64x1792_tn", 1, 0, 64, 64, 1792, 1.0f, 0.0f},
    {"out_dx_1792x64x64_nn", 0, 0, 1792, 64, 64, 1.0f, 0.0f},
    {"up_1792x128x64_nt", 0, 1, 1792, 128, 64, 1.0f, 0.0f},
    {"up_dw_128x64x1792_tn", 1, 0, 128, 64, 1792, 1.0f, 0.0f},
    {"up_dx_1792x64x128_nn", 0, 0, 1792, 64, 128, 1.0f, 0.0f},
    {"down_1792x64x128_nt", 0, 1, 1792, 64, 128, 1.0f, 0.0f},
    {"down_dw_64x128x1792_tn", 1, 0, 64, 128, 1792, 1.0f, 0.0f},
    {"down_dx_1792x128x64_nn", 0, 0, 1792, 128, 64, 1.0f, 0.0f},
    {"square_64_nn", 0, 0, 64, 64, 64, 1.0f, 0.0f},
    {"square_128_nn", 0, 0, 128, 128, 128, 1.0f, 0.0f},
    {"square_256_nn", 0, 0, 256, 256, 256, 1.0f, 0.0f},
    {"square_256_nt", 0, 1, 256, 256, 256, 1.0f, 0.0f},
    {"square_256_tn", 1, 0, 256, 256, 256, 1.0f, 0.0f},
    {"square_512_nn", 0, 0, 512, 512, 512, 1.0f, 0.0f},
    {"square_1000_nt", 0, 1, 1000, 1000, 1000, 1.0f, 0.0f},
    {"square_1024_nn", 0, 0, 1024, 1024, 1024, 1.0f, 0.0f},
    {"square_1024_nt", 0, 1, 1024, 1024, 1024, 1.0f, 0.0f},
    {"square_1024_tn", 1, 0, 1024, 1024, 1024, 1.0f, 0.0f},
    {"square_2048_nn", 0, 0, 2048, 2048, 2048, 1.0f, 0.0f},
    {"square_2048_tn", 1, 0, 2048, 2048, 2048, 1.0f, 0.0f},
    {"single_1x128x784_nt", 0, 1, 1, 128, 784, 1.0f, 0.0f},
    {"single_1x10x128_nt", 0, 1, 1, 10, 128, 1.0f, 0.0f},
    {"single_1x784x128_nn", 0, 0, 1, 784, 128, 1.0f, 0.0f},
    {"few_4x128x784_nt", 0, 1, 4, 128, 784, 1.0f, 0.0f},
    {"few_8x128x784_nt", 0, 1, 8, 128, 784, 1.0f, 0.0f},
    {"few_16x128x784_nt", 0, 1, 16, 128, 784, 1.0f, 0.0f},
};

/* Of this thread: OpenBLAS's idle threads spin for a while after start. */
static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef FLI_HAVE_OPENBLAS
static void blas(const fli_gemm *g)
{
  cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
              g->trans_b ? CblasTrans : CblasNoTrans, (int)g->m, (int)g->n,
              (int)g->k, g->alpha, g->a, (int)g->lda, g->b, (int)g->ldb,
              g->beta, g->c, (int)g->ldc);
}
#endif

/* GFLOP/s over about `seconds`. */
static double gflops(void (*multiply)(const fli_gemm *), const fli_gemm *g,
                     double seconds)
{
  double begin = now(), end;
  size_t n = 0, step = 1;
  do {
    for (size_t i = 0; i < step; i++) {
      multiply(g);
    }
    n += step;
    step *= 2;
    end = now();
  } while (end - begin < seconds);
  return 2e-9 * (double)n * (double)g->m * (double)g->n * (double)g->k /
         (end - begin);
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n)
{
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

static void run_shape(const settings *s, const shape *which, fli_gemm g,
                      const char *suffix)
{
  static double ours[RUNS_MAX], peak[RUNS_MAX];
#ifdef FLI_HAVE_OPENBLAS
  static double theirs[RUNS_MAX];
#endif
  const char *name = which->name;
  g.trans_a = which->trans_a;
  g.trans_b = which->trans_b;
  g.m = which->m;
  g.n = which->n;
  g.k = which->k;
  g.lda = g.trans_a ? g.m : g.k;
  g.ldb = g.trans_b ? g.k : g.n;
  g.ldc = g.n;
  g.alpha = which->alpha;
  g.beta = which->beta;
  for (int r = 0; r < s->runs; r++) {
    peak[r] = peak_gflops(flk_nn()->name, now);
    ours[r] = gflops(fli_sgemm_builtin, &g, s->seconds);
#ifdef FLI_HAVE_OPENBLAS
    theirs[r] = gflops(blas, &g, s->seconds);
#endif
  }
  double our = median(ours, s->runs);
  printf("%s_gflops%s %.1f\n", name, suffix, our);
#ifdef FLI_HAVE_OPENBLAS
  double their = median(theirs, s->runs);
  printf("%s_blas_gflops%s %.1f\n", name, suffix, their);
  printf("%s_vs_blas%s %.2f\n", name, suffix, our / their);
#endif
  printf("%s_share%s %.3f\n", name, suffix, our / median(peak, s->runs));
  fflush(stdout);
}

static int run_isa(const settings *s, const fli_gemm *g, const char *isa)
{
  char suffix[32] = "";
  double peak[RUNS_MAX];
  if (!flk_nn_choose(isa)) return 0;
  if (isa) snprintf(suffix, sizeof suffix, "_%s", isa);
  for (int r = 0; r < s->runs; r++) {
    peak[r] = peak_gflops(flk_nn()->name, now);
  }
  printf("isa%s %s\n", suffix, flk_nn()->name);
  printf("peak_gflops%s %.1f\n", suffix, median(peak, s->runs));
  for (size_t i = 0; i < FLI_COUNT_OF(shapes); i++) {
    if (strncmp(shapes[i].name, s->shape, strlen(s->shape)) != 0) continue;
    run_shape(s, &shapes[i], *g, suffix);
  }
  return 1;
}

static int run_all(const settings *s, const fli_gemm *g)
{
  if (strcmp(s->isa, "best") == 0) return run_isa(s, g, NULL);
  if (strcmp(s->isa, "all") != 0) return run_isa(s, g, s->isa);
  for (size_t i = 0; flk_nn_at(i); i++) {
    (void)run_isa(s, g, flk_nn_at(i)->name);
  }
  return 1;
}

static int parse(int argc, char **argv, settings *s)
{
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (strcmp(name, "--isa") == 0) {
      s->isa = value;
    } else if (strcmp(name, "--shape") == 0) {
      s->shape = value;
    } else if (strcmp(name, "--runs") == 0) {
      s->runs = atoi(value);
    } else if (strcmp(name, "--ms") == 0) {
      s->seconds = 1e-3 * atof(value);
    } else {
      return 0;
    }
  }
  return argc % 2 == 1 && s->runs >= 1 && s->runs <= RUNS_MAX &&
         s->seconds >= 1e-3 && s->seconds <= 1.0;
}

static float *new_matrix(fli_rng *rng)
{
  size_t n = (size_t)SIDE_MAX * SIDE_MAX;
  float *values = aligned_alloc(64, n * sizeof *values);
  if (!values) exit(1);
  for (size_t i = 0; i < n; i++) {
    values[i] = fli_rng_f32(rng) - 0.5f;
  }
  return values;
}

int main(int argc, char **argv)
{
  settings s = {.isa = "best", .shape = "", .runs = 11, .seconds = 4e-3};
  if (argc == 2 && strcmp(argv[1], "--help") == 0) {
    fputs(help, stdout);
    return 0;
  }
  if (!parse(argc, argv, &s)) {
    fputs(help, stderr);
    return 1;
  }
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  float *a = new_matrix(&rng), *b = new_matrix(&rng), *c = new_matrix(&rng);
#ifdef FLI_HAVE_OPENBLAS
  openblas_set_num_threads(1);
  printf("blas %s\n", openblas_get_corename());
#endif
  int is_known = run_all(&s, &(fli_gemm){.a = a, .b = b, .c = c});
  if (!is_known) fprintf(stderr, "no such ISA here: %s\n", s.isa);
  free(a);
  free(b);
  free(c);
  return !is_known;
}
