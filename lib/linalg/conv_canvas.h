/* SPDX-License-Identifier: Apache-2.0 */
/* Images as the products of a convolution read them: as they came, or copied
 * with zeros left and right (and between their columns, for gradients of
 * strided convolutions), without the floats behind the channels. There are no
 * zeros above and below: rows that are not there are left out of the sums. */
#ifndef FLI_CONV_CANVAS_H
#define FLI_CONV_CANVAS_H

#include "kernels/nn/nn.h"
#include "linalg/conv.h"

/* What is read. Strides in floats. */
typedef struct fli_conv_view {
  const float *at; /* first image, row `first_row` */
  ptrdiff_t image, row, pixel;
  size_t first_row;
} fli_conv_view;

typedef struct fli_canvas {
  size_t height, width, pixel; /* of the images */
  size_t channels;             /* copied, of a pixel */
  size_t lanes;                /* floats of a pixel of the copy */
  size_t columns;              /* pixels of a row of the copy */
  size_t step;                 /* the copy's columns per column of an image */
  size_t begin, end;           /* columns of an image that have a place, */
  size_t first;                /* beginning here */
} fli_canvas;

typedef struct fli_canvas_source {
  const float *images;
  const float *mask; /* see fli_conv_range, or NULL */
  size_t n;          /* images */
  size_t first_row, n_rows;
  float *sums; /* [lanes, in eights]: added to by all pixels copied; or NULL */
} fli_canvas_source;

/* Of inputs, and of outputs' gradients, for `channels` of the pixels. */
void fli_canvas_of_x(fli_canvas *canvas, const fli_conv_shape *shape,
                     size_t channels);
void fli_canvas_of_dy(fli_canvas *canvas, const fli_conv_shape *shape,
                      size_t channels);
/* Floats of a row of the copy. */
size_t fli_canvas_row(const fli_canvas *canvas);
/* View rows of images as they are. */
fli_conv_view fli_canvas_view(const fli_canvas *canvas, const float *images);
/* Copy rows of images; what lies around them in `copy` is zero already. With
 * sums, up to seven floats behind a pixel's lanes are read. */
fli_conv_view fli_canvas_copy(const fli_canvas *canvas,
                              const flk_nn_table *kernels,
                              const fli_canvas_source *source, float *copy);

#endif
