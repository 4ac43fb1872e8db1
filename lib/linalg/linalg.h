/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM front: OpenBLAS behind the build option, a built-in kernel otherwise.
 * Row-major float32. The only user of BLAS. */
#ifndef FLI_LINALG_H
#define FLI_LINALG_H

#include <fl/base.h>

/* C[m,n] = alpha * op(A) op(B) + beta * C; op(A) is [m,k], op(B) is [k,n];
 * trans_x = 1: the matrix is stored transposed. Leading dimensions as in
 * BLAS. beta == 0 does not read C; m, n, k may be 0. C overlaps neither A nor
 * B. */
typedef struct fli_gemm {
  int trans_a;
  int trans_b;
  size_t m, n, k;
  float alpha;
  const float *a;
  size_t lda;
  const float *b;
  size_t ldb;
  float beta;
  float *c;
  size_t ldc;
} fli_gemm;

void fli_sgemm(const fli_gemm *gemm);
/* Always the built-in kernel (also the test's other side). */
void fli_sgemm_builtin(const fli_gemm *gemm);
/* "builtin", or OpenBLAS's core type ("Haswell"), for fl_build_info. Static
 * text, any thread (what openblas_get_config returns is written anew at each
 * call). */
const char *fli_linalg_name(void);

#endif
