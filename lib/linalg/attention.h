/* SPDX-License-Identifier: Apache-2.0 */
/* Scaled dot-product self-attention of several heads, forward and backward,
 * between the dense layers that make queries, keys and values and that mix what
 * comes out. A sample's input is [tokens][3][heads][head_width] (queries, keys,
 * values: what PyTorch's Linear(d, 3 d) gives), its output [tokens][heads]
 * [head_width]. Any number of tokens, any width. NaN in a query, key or value
 * comes out wherever it is seen. D1; the result does not depend on how samples
 * are cut into ranges. */
#ifndef FLI_ATTENTION_H
#define FLI_ATTENTION_H

#include <fl/base.h>

/* A shape, and what it needs, in floats; all but the last three are set by the
 * caller. */
typedef struct fli_attention {
  size_t tokens;     /* >= 1 */
  size_t heads;      /* >= 1 */
  size_t head_width; /* >= 1 */
  int is_causal;     /* token t sees tokens 0..t only */
  size_t block;      /* tokens at a time; no affair of callers */
  size_t n_kept;     /* of one sample, for backward */
  size_t n_scratch;  /* of a call, whatever the number of samples */
} fli_attention;

/* One range of samples, each array at its first one. */
typedef struct fli_attention_range {
  size_t n; /* samples */
  const float *qkv;
  float *y;    /* forward: output; backward: read again */
  float *kept; /* [n][n_kept]; forward: NULL = no backward will follow */
  const float *dy;
  float *dqkv; /* like qkv; overwritten */
  float *scratch;
} fli_attention_range;

/* Fill in block, n_kept, n_scratch. */
void fli_attention_init(fli_attention *attention);
void fli_attention_forward(const fli_attention *attention,
                           const fli_attention_range *range);
/* With the same table of kernels as forward. */
void fli_attention_backward(const fli_attention *attention,
                            const fli_attention_range *range);

#endif
