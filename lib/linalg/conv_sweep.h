/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of outputs of a convolution (or of gradients of its inputs, which are
 * another convolution's outputs) by register tiles: some pixels of a row times
 * one panel of channels, summed over the kernel rows that meet the image. */
#ifndef FLI_CONV_SWEEP_H
#define FLI_CONV_SWEEP_H

#include "linalg/conv_canvas.h"

typedef struct fli_sweep {
  const flk_nn_table *kernels;
  fli_conv_view from;
  size_t from_height; /* rows that there are */
  /* Kernel row t of output row r meets row (r up + ahead + t turn) / down,
   * where that is whole. */
  ptrdiff_t up, ahead, turn, down;
  size_t kernel_height;
  size_t depth;        /* floats of a kernel row, contiguous in `from` */
  ptrdiff_t from_step; /* from one output pixel to the next */
  const float *packed; /* fli_panel_pack */
  size_t columns;      /* in panels */
  size_t stored;       /* of them */
  const float *bias;   /* [columns] or NULL */
  int does_relu;
  /* where outputs go; strides in floats */
  float *to;
  ptrdiff_t to_image, to_row, to_pixel;
  size_t to_width;
} fli_sweep;

/* Compute rows begin..end - 1 of all images. */
void fli_sweep_rows(const fli_sweep *sweep, size_t n_images, size_t begin,
                    size_t end);

#endif
