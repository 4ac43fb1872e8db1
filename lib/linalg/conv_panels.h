/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of a convolution in panels of columns, as the register tiles of
 * nn.h read them: [panel][kernel row][kernel column][depth][width]. */
#ifndef FLI_CONV_PANELS_H
#define FLI_CONV_PANELS_H

#include "kernels/nn/nn.h"

/* Where PyTorch's weights have what; strides in floats. */
typedef struct fli_panel_weights {
  size_t kernel_height, kernel_width, n_depth;
  size_t n_columns;
  ptrdiff_t row, column; /* of the kernel */
  ptrdiff_t depth, panel_column;
  /* Unless 0: after so many columns the first one is `next` further. */
  size_t together;
  ptrdiff_t next;
} fli_panel_weights;

/* Columns of panels, rounded up from channels. */
size_t fli_panel_columns(size_t channels);
/* FLK_PANEL_*, for the next one when so many columns are left, in eights. */
int fli_panel_kind(const flk_nn_table *kernels, size_t columns_left);

/* Floats in all panels. */
size_t fli_panel_size(const fli_panel_weights *layout);
/* `weights`: the element that is at kernel row, column, depth and panel column
 * 0. Columns behind n_columns become 0. */
void fli_panel_pack(const fli_panel_weights *layout,
                    const flk_nn_table *kernels, const float *weights,
                    float *packed);
void fli_panel_unpack(const fli_panel_weights *layout,
                      const flk_nn_table *kernels, const float *packed,
                      float *weights);

#endif
