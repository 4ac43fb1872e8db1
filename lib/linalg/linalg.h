/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product, row-major float32: built-in, and OpenBLAS where that is
 * compiled in and better. The only user of BLAS. D1. */
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
  const float *bias; /* [n], added to every row; or NULL */
  int does_relu;     /* store max(0, value) at last; NaN stays */
} fli_gemm;

void fli_sgemm(const fli_gemm *gemm);
/* The same bytes, by the host's threads when the product is worth it, and by
 * the caller when they fail. */
void fli_sgemm_parallel(fl_context *context, const fli_gemm *gemm);
/* Always the built-in product (for tests and benchmarks). */
void fli_sgemm_builtin(const fli_gemm *gemm);
/* "builtin", or OpenBLAS's core type ("Haswell"), for fl_build_info. Static
 * text, any thread (what openblas_get_config returns is written anew at each
 * call). */
const char *fli_linalg_name(void);

#endif
