/* SPDX-License-Identifier: Apache-2.0 */
/* How a call cuts its images: some at a time where they are small, strips of
 * rows where one is too large for the scratch, and what of them is copied. */
#ifndef FLI_CONV_PLAN_H
#define FLI_CONV_PLAN_H

#include "linalg/conv_canvas.h"

typedef struct fli_conv_rows {
  size_t begin, end;
} fli_conv_rows;

typedef struct fli_conv_plan {
  const fli_conv_shape *shape;
  const flk_nn_table *kernels;
  fli_canvas x, dy;
  size_t images; /* at a time */
  /* Rows of a strip: of y, of dy for the weights' gradient, of dx. */
  size_t forward_rows, sums_rows, dx_rows;
  size_t x_room, dy_room; /* floats of the copies */
  int views_x;            /* x is read as it is, */
  int views_dy;           /* dy would be if nothing was masked, */
  int views_dy_for_sums;  /* or if no dx was wanted either */
} fli_conv_plan;

enum {
  /* In floats. Of a canvas, unless the lowest strip needs more: */
  FLI_CONV_ROOM = 28 * 1024,
  /* what a plan's beginning may lie behind the scratch's: */
  FLI_CONV_ALIGNMENT = 16
};

/* Plan for a shape and canvases. views_...: whether a product can read the
 * pixels of images in place of those of a copy. */
void fli_conv_plan_init(fli_conv_plan *plan, const fli_conv_shape *shape,
                        const fli_canvas canvases[2],
                        const int views_pixels[2]);
/* Floats of both copies. */
size_t fli_conv_plan_room(const fli_conv_plan *plan);
/* The first place for whole vectors. */
float *fli_conv_align(float *scratch);
/* Clear the copies that a call will use. */
void fli_conv_plan_begin(const fli_conv_plan *plan,
                         const fli_conv_range *range);

/* Strip number i of `strip` rows each, of `height` rows. */
fli_conv_rows fli_conv_strip(size_t i, size_t strip, size_t height);
/* Rows of inputs that some rows of outputs meet. */
fli_conv_rows fli_conv_rows_of_x(const fli_conv_shape *shape,
                                 fli_conv_rows rows);
/* Rows of outputs that some rows of inputs meet. */
fli_conv_rows fli_conv_rows_of_y(const fli_conv_shape *shape,
                                 fli_conv_rows rows);
/* Read what rows of outputs meet in x, or rows of dy, of all images of the
 * range, which begins with the images at hand. */
fli_conv_view fli_conv_read_x(const fli_conv_plan *plan,
                              const fli_conv_range *range, fli_conv_rows rows);
fli_conv_view fli_conv_read_dy(const fli_conv_plan *plan,
                               const fli_conv_range *range, fli_conv_rows rows);
/* The same for the weights' gradient, and add up dy's pixels in `totals`, [out
 * channels, in eights] of all groups; `out` is the first one at hand. */
fli_conv_view fli_conv_total_dy(const fli_conv_plan *plan,
                                const fli_conv_range *range, fli_conv_rows rows,
                                size_t out, float *totals);
/* The range's images from i on, at most so many as a plan takes at a time, and
 * of these the channels from in and out on. */
fli_conv_range fli_conv_take(const fli_conv_plan *plan,
                             const fli_conv_range *range, size_t i, size_t in,
                             size_t out);

#endif
