/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of a convolution's weights by register tiles: some floats of a
 * kernel row (columns times channels) times one panel of outputs' channels,
 * summed over all pixels. */
#ifndef FLI_CONV_SUMS_H
#define FLI_CONV_SUMS_H

#include "linalg/conv_canvas.h"

typedef struct fli_conv_products {
  const flk_nn_table *kernels;
  const fli_conv_shape *shape;
  fli_conv_view x;  /* `at` meets the first output with kernel column 0 */
  fli_conv_view dy; /* `at` is the first output's gradient */
  size_t n_pixels;  /* outputs in a row that count */
  size_t depth;     /* floats of a kernel row, contiguous in x */
  size_t columns;   /* in panels */
  float *sums;      /* like fli_panel_pack's, added to */
} fli_conv_products;

/* Add what rows begin..end - 1 of the outputs of all images give. */
void fli_conv_add_products(const fli_conv_products *products, size_t n_images,
                           size_t begin, size_t end);

#endif
