/* SPDX-License-Identifier: Apache-2.0 */
/* Front of the matrix product: who computes it, and in which blocks of C.
 *
 * OpenBLAS, when compiled in, gets large products only, and only when it runs
 * kernels as good as the machine: versions older than the processor fall back
 * to what they know ("Haswell" or "Zen" where there is AVX-512, "Prescott"
 * where there is nothing). It is kept at one thread, because libfl has no
 * threads of its own and an idle pool that spins costs more than small
 * products gain. Newer versions of OpenBLAS set the number of threads for the
 * calling thread alone; older ones know only a number for the whole process.
 * There it is set whenever it is found to be another one, and not set back:
 * putting it back would race with libfl calls of other threads. A host that
 * wants OpenBLAS with several threads for itself builds libfl with
 * -Dblas=none. */
#include "linalg/linalg.h"

#include <string.h>

#include "base/compiler.h"
#include "base/context.h"
#include "linalg/gemm.h"
#include "linalg/sizes.h"

enum {
  BLOCKS = 64,       /* into which a large C is cut, about */
  BLAS_BLOCKS = 16,  /* fewer, because BLAS packs both factors for each */
  BLOCK_ROWS = 48,   /* at least */
  BLOCK_COLUMNS = 32 /* divides those of a block */
};

/* Products of numbers, about 15 us: what a thread should be woken up for. */
static const double block_least = 1.5e6;

/* How C is cut, by the product's size alone. */
typedef struct cut {
  const fli_gemm *gemm;
  fli_gemm_plan plan;
  size_t rows, columns; /* of a block */
  size_t n_across;      /* blocks side by side */
  size_t n;
} cut;

static double size_of(const fli_gemm *g)
{
  return (double)g->m * (double)g->n * (double)g->k;
}

#ifdef FLI_HAVE_OPENBLAS
#  include <cblas.h>
#  include <limits.h>

enum { LARGEST = INT_MAX };

/* Products of numbers beyond which OpenBLAS is the faster one: 2700 cubed. On
 * Zen 4 its Haswell kernels in 16 blocks of C need as long as ours (AVX2) at
 * 2048 cubed and 8 % less at 4096 cubed; its Cooperlake kernels (AVX-512) need
 * as long as ours at 4096 cubed. */
static const double blas_least = 2e10;

static int fits(const fli_gemm *g)
{
  return g->m <= LARGEST && g->n <= LARGEST && g->k <= LARGEST &&
         g->lda <= LARGEST && g->ldb <= LARGEST && g->ldc <= LARGEST;
}

/* Whether OpenBLAS has kernels for the instruction set that ours use. */
static int is_blas_up_to(const flk_nn_table *nn)
{
  static const char *const cores[][2] = {{"avx512", "SkylakeX"},
                                         {"avx512", "Cooperlake"},
                                         {"avx512", "SapphireRapids"},
                                         {"avx2", "Haswell"},
                                         {"avx2", "Zen"}};
  const char *core = openblas_get_corename();
  for (size_t i = 0; i < FLI_COUNT_OF(cores); i++) {
    if (strcmp(nn->name, cores[i][0]) == 0 && strcmp(core, cores[i][1]) == 0) {
      return 1;
    }
  }
  return 0;
}

static void pin_to_one_thread(void)
{
#  ifdef FLI_HAVE_OPENBLAS_LOCAL
  (void)openblas_set_num_threads_local(1);
#  else
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
#  endif
}

/* What BLAS has no words for. */
static void add_bias(const fli_gemm *g)
{
  for (size_t i = 0; i < g->m; i++) {
    float *c = g->c + i * g->ldc;
    for (size_t j = 0; g->bias && j < g->n; j++) {
      c[j] += g->bias[j];
    }
    for (size_t j = 0; g->does_relu && j < g->n; j++) {
      c[j] = c[j] < 0.0f ? 0.0f : c[j];
    }
  }
}

static void run_blas(const fli_gemm *g)
{
  pin_to_one_thread();
  cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
              g->trans_b ? CblasTrans : CblasNoTrans, (int)g->m, (int)g->n,
              (int)g->k, g->alpha, g->a, (int)g->lda, g->b, (int)g->ldb,
              g->beta, g->c, (int)g->ldc);
  add_bias(g);
}

static int is_for_blas(const fli_gemm *g, const flk_nn_table *nn)
{
  return g->alpha != 0.0f && fits(g) && size_of(g) >= blas_least &&
         is_blas_up_to(nn);
}

const char *fli_linalg_name(void)
{
  return openblas_get_corename();
}
#else
static void run_blas(const fli_gemm *g)
{
  (void)g;
}

static int is_for_blas(const fli_gemm *g, const flk_nn_table *nn)
{
  (void)g;
  (void)nn;
  return 0;
}

const char *fli_linalg_name(void)
{
  return "builtin";
}
#endif

static size_t half_of(size_t n, size_t unit)
{
  size_t units = fli_divide_up(n, unit);
  return fli_divide_up(units, 2) * unit;
}

static cut cut_of(const fli_gemm *g)
{
  cut c = {.gemm = g, .rows = g->m, .columns = g->n};
  c.plan = fli_gemm_plan_tiles(g);
  if (is_for_blas(g, c.plan.nn)) c.plan.way = FLI_GEMM_BLAS;
  int is_blas = c.plan.way == FLI_GEMM_BLAS;
  double most = size_of(g) / (is_blas ? BLAS_BLOCKS : BLOCKS);
  if (most < block_least) most = block_least;
  while ((double)c.rows * (double)c.columns * (double)g->k > most) {
    int can_rows = c.rows >= 2 * BLOCK_ROWS;
    int can_columns = c.columns >= 2 * BLOCK_COLUMNS;
    if (can_rows && (c.rows >= c.columns || !can_columns)) {
      c.rows = half_of(c.rows, 1);
    } else if (can_columns) {
      c.columns = half_of(c.columns, BLOCK_COLUMNS);
    } else {
      break;
    }
  }
  c.n_across = fli_divide_up(g->n, c.columns);
  c.n = fli_divide_up(g->m, c.rows) * c.n_across;
  return c;
}

static void run_block(void *arg, uint64_t index)
{
  const cut *c = arg;
  size_t row = (size_t)index / c->n_across * c->rows;
  size_t column = (size_t)index % c->n_across * c->columns;
  fli_gemm g = *c->gemm;
  g.m = fli_min_size(c->rows, g.m - row);
  g.n = fli_min_size(c->columns, g.n - column);
  g.a += g.trans_a ? row : row * g.lda;
  g.b += g.trans_b ? column * g.ldb : column;
  g.c += row * g.ldc + column;
  if (g.bias) g.bias += column;
  if (c->plan.way == FLI_GEMM_BLAS) {
    run_blas(&g);
  } else {
    fli_gemm_run_tiles(&c->plan, &g);
  }
}

void fli_sgemm_builtin(const fli_gemm *gemm)
{
  if (gemm->m == 0 || gemm->n == 0) return;
  fli_gemm_plan plan = fli_gemm_plan_tiles(gemm);
  fli_gemm_run_tiles(&plan, gemm);
}

void fli_sgemm(const fli_gemm *gemm)
{
  if (gemm->m == 0 || gemm->n == 0) return;
  if (!is_for_blas(gemm, flk_nn())) {
    fli_sgemm_builtin(gemm);
    return;
  }
  /* BLAS may sum otherwise in other blocks, so they are those of threads. */
  cut c = cut_of(gemm);
  for (size_t i = 0; i < c.n; i++) {
    run_block(&c, i);
  }
}

void fli_sgemm_parallel(fl_context *context, const fli_gemm *gemm)
{
  if (gemm->m == 0 || gemm->n == 0) return;
  if (!fli_context_is_parallel(context)) {
    fli_sgemm(gemm); /* to the same bits, and factors are packed once */
    return;
  }
  cut c = cut_of(gemm);
  fli_parallel_all(context, c.n, run_block, &c);
}
