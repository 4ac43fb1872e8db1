/* SPDX-License-Identifier: Apache-2.0 */
/* Front of the matrix product. With OpenBLAS compiled in, products go there;
 * it is kept at one thread, because libfl has no threads of its own and an
 * idle pool that spins costs more than small products gain.
 *
 * Newer versions of OpenBLAS set the number of threads for the calling thread
 * alone; older ones know only a number for the whole process. There it is set
 * whenever it is found to be another one, and not set back: putting it back
 * would race with libfl calls of other threads. A host that wants OpenBLAS
 * with several threads for itself builds libfl with -Dblas=none. */
#include "linalg/linalg.h"

#ifdef FLI_HAVE_OPENBLAS
#  include <cblas.h>
#  include <limits.h>

enum { LARGEST = INT_MAX };

static int fits(const fli_gemm *gemm)
{
  return gemm->m <= LARGEST && gemm->n <= LARGEST && gemm->k <= LARGEST &&
         gemm->lda <= LARGEST && gemm->ldb <= LARGEST && gemm->ldc <= LARGEST;
}

static void pin_to_one_thread(void)
{
#  ifdef FLI_HAVE_OPENBLAS_LOCAL
  (void)openblas_set_num_threads_local(1);
#  else
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
#  endif
}

void fli_sgemm(const fli_gemm *gemm)
{
  if (!fits(gemm)) {
    fli_sgemm_builtin(gemm);
    return;
  }
  if (gemm->m == 0 || gemm->n == 0) return;
  pin_to_one_thread();
  cblas_sgemm(CblasRowMajor, gemm->trans_a ? CblasTrans : CblasNoTrans,
              gemm->trans_b ? CblasTrans : CblasNoTrans, (int)gemm->m,
              (int)gemm->n, (int)gemm->k, gemm->alpha, gemm->a, (int)gemm->lda,
              gemm->b, (int)gemm->ldb, gemm->beta, gemm->c, (int)gemm->ldc);
}

const char *fli_linalg_name(void)
{
  return openblas_get_corename();
}
#else
void fli_sgemm(const fli_gemm *gemm)
{
  fli_sgemm_builtin(gemm);
}

const char *fli_linalg_name(void)
{
  return "builtin";
}
#endif
