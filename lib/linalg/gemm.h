/* SPDX-License-Identifier: Apache-2.0 */
/* How a product is computed: decided once for the whole of it, so that parts
 * of C can be computed apart with the same bytes. */
#ifndef FLI_LINALG_GEMM_H
#define FLI_LINALG_GEMM_H

#include "kernels/nn/nn.h"
#include "linalg/linalg.h"

enum {
  FLI_GEMM_NOTHING, /* there is no depth */
  FLI_GEMM_TILES,
  FLI_GEMM_DOTS, /* rows of A times rows of B */
  FLI_GEMM_BLAS  /* gemm.c only */
};

typedef struct fli_gemm_plan {
  const flk_nn_table *nn;
  int way;
} fli_gemm_plan;

fli_gemm_plan fli_gemm_plan_tiles(const fli_gemm *gemm);
/* `gemm` is the planned one, or any block of its C with what belongs to it. */
void fli_gemm_run_tiles(const fli_gemm_plan *plan, const fli_gemm *gemm);

#endif
