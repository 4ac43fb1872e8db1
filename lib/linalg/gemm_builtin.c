/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in matrix product: blocks of A and strips of B are packed into
 * contiguous, zero-padded panels (so that transposes and edges cost nothing in
 * the inner loop), and a register tile of MR x NR sums is kept over the whole
 * depth of a block. This is the structure of K. Goto and R. van de Geijn,
 * "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008,
 * without the outermost level.
 *
 * Plain C with constant trip counts: compilers keep the tile in vector
 * registers (2 x 16 is the shape that gcc and clang both do that for with 16
 * registers of 4 floats). Packing memory is on the stack, 48 KB. Every element
 * of C is summed in the same order wherever it stands. */
#include "linalg/linalg.h"

#include <assert.h>

enum {
  MR = 2,
  NR = 16,
  DEPTH = 256,      /* of a block: k */
  ROOM = 32 * DEPTH /* floats of a packed block of A */
};

static size_t min_size(size_t a, size_t b)
{
  return a < b ? a : b;
}

/* Panels of MR rows, each [depth][MR]. */
static void pack_a(const fli_gemm *gemm, size_t row, size_t rows, size_t at,
                   size_t depth, float *dst)
{
  size_t row_step = gemm->trans_a ? 1 : gemm->lda;
  size_t depth_step = gemm->trans_a ? gemm->lda : 1;
  for (size_t i = 0; i < rows; i += MR) {
    for (size_t r = 0; r < MR; r++) {
      float *panel = dst + i * depth + r;
      if (i + r >= rows) {
        for (size_t p = 0; p < depth; p++) {
          panel[p * MR] = 0.0f;
        }
        continue;
      }
      const float *src = gemm->a + (row + i + r) * row_step + at * depth_step;
      for (size_t p = 0; p < depth; p++) {
        panel[p * MR] = src[p * depth_step];
      }
    }
  }
}

/* One strip of NR columns, [depth][NR]. */
static void pack_b(const fli_gemm *gemm, size_t column, size_t columns,
                   size_t at, size_t depth, float *restrict dst)
{
  size_t column_step = gemm->trans_b ? gemm->ldb : 1;
  size_t depth_step = gemm->trans_b ? 1 : gemm->ldb;
  const float *src = gemm->b + column * column_step + at * depth_step;
  if (columns == NR && !gemm->trans_b) {
    for (size_t p = 0; p < depth; p++) {
      for (size_t j = 0; j < NR; j++) {
        dst[p * NR + j] = src[p * gemm->ldb + j];
      }
    }
    return;
  }
  if (columns == NR) {
    for (size_t p = 0; p < depth; p++) {
      for (size_t j = 0; j < NR; j++) {
        dst[p * NR + j] = src[p + j * gemm->ldb];
      }
    }
    return;
  }
  for (size_t p = 0; p < depth; p++) {
    for (size_t j = 0; j < NR; j++) {
      dst[p * NR + j] =
          j < columns ? src[p * depth_step + j * column_step] : 0.0f;
    }
  }
}

static void multiply_tile(size_t depth, const float *restrict a,
                          const float *restrict b, float *restrict out)
{
  float sum[MR][NR];
  for (size_t i = 0; i < MR; i++) {
    for (size_t j = 0; j < NR; j++) {
      sum[i][j] = 0.0f;
    }
  }
  for (size_t p = 0; p < depth; p++) {
    for (size_t i = 0; i < MR; i++) {
      for (size_t j = 0; j < NR; j++) {
        sum[i][j] += a[i] * b[j];
      }
    }
    a += MR;
    b += NR;
  }
  for (size_t i = 0; i < MR; i++) {
    for (size_t j = 0; j < NR; j++) {
      out[i * NR + j] = sum[i][j];
    }
  }
}

static void store_tile(float *c, size_t ldc, size_t rows, size_t columns,
                       const float *restrict tile, float alpha, float beta)
{
  for (size_t i = 0; i < rows; i++) {
    float *restrict row = c + i * ldc;
    const float *restrict src = tile + i * NR;
    if (beta == 0.0f) {
      for (size_t j = 0; j < columns; j++) {
        row[j] = alpha * src[j];
      }
    } else {
      for (size_t j = 0; j < columns; j++) {
        row[j] = beta * row[j] + alpha * src[j];
      }
    }
  }
}

/* C *= beta, for products without depth. */
static void scale_c(const fli_gemm *gemm)
{
  for (size_t i = 0; i < gemm->m; i++) {
    float *row = gemm->c + i * gemm->ldc;
    for (size_t j = 0; j < gemm->n; j++) {
      row[j] = gemm->beta == 0.0f ? 0.0f : gemm->beta * row[j];
    }
  }
}

/* One packed block of A against all columns. */
static void multiply_block(const fli_gemm *gemm, size_t row, size_t rows,
                           size_t at, size_t depth, const float *packed_a)
{
  float strip[DEPTH * NR];
  float tile[MR * NR];
  float beta = at == 0 ? gemm->beta : 1.0f;
  for (size_t column = 0; column < gemm->n; column += NR) {
    size_t columns = min_size(NR, gemm->n - column);
    pack_b(gemm, column, columns, at, depth, strip);
    for (size_t i = 0; i < rows; i += MR) {
      multiply_tile(depth, packed_a + i * depth, strip, tile);
      store_tile(gemm->c + (row + i) * gemm->ldc + column, gemm->ldc,
                 min_size(MR, rows - i), columns, tile, gemm->alpha, beta);
    }
  }
}

void fli_sgemm_builtin(const fli_gemm *gemm)
{
  float packed_a[ROOM];
  assert(gemm->ldc >= gemm->n);
  if (gemm->k == 0 || gemm->alpha == 0.0f) {
    scale_c(gemm);
    return;
  }
  for (size_t at = 0; at < gemm->k; at += DEPTH) {
    size_t depth = min_size(DEPTH, gemm->k - at);
    /* Shallow blocks hold more rows, so that B is packed less often. */
    size_t step = ROOM / depth / MR * MR;
    for (size_t row = 0; row < gemm->m; row += step) {
      size_t rows = min_size(step, gemm->m - row);
      pack_a(gemm, row, rows, at, depth, packed_a);
      multiply_block(gemm, row, rows, at, depth, packed_a);
    }
  }
}
