/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of images with zeros around them. Column j of an image goes to column
 * lead + j step of its copy; of a convolution's inputs the lead is the padding.
 * A gradient's canvas is the one that a convolution with stride 1 and the
 * flipped kernel reads to give dx: there the lead is kernel - 1 - padding,
 * which is negative where outer outputs have seen nothing but padding. */
#include "linalg/conv_canvas.h"

#include "linalg/conv_panels.h"
#include "linalg/sizes.h"

/* Which columns of the images have a place. */
static void place(fli_canvas *canvas, ptrdiff_t lead)
{
  size_t step = canvas->step;
  size_t before = lead < 0 ? (size_t)-lead : 0;
  size_t ahead = lead < 0 ? 0 : (size_t)lead;
  canvas->begin = fli_divide_up(before, step);
  canvas->first = ahead + canvas->begin * step - before;
  canvas->end = canvas->begin;
  if (canvas->first < canvas->columns) {
    canvas->end += fli_divide_up(canvas->columns - canvas->first, step);
  }
  if (canvas->end > canvas->width) canvas->end = canvas->width;
  if (canvas->begin > canvas->end) canvas->begin = canvas->end;
}

void fli_canvas_of_x(fli_canvas *canvas, const fli_conv_shape *shape,
                     size_t channels)
{
  *canvas = (fli_canvas){.height = shape->height,
                         .width = shape->width,
                         .pixel = shape->pixel,
                         .channels = channels,
                         .lanes = channels,
                         .step = 1};
  canvas->columns =
      (shape->out_width - 1) * shape->stride + shape->kernel_width;
  place(canvas, (ptrdiff_t)shape->padding);
}

void fli_canvas_of_dy(fli_canvas *canvas, const fli_conv_shape *shape,
                      size_t channels)
{
  *canvas = (fli_canvas){.height = shape->out_height,
                         .width = shape->out_width,
                         .pixel = shape->out_pixel,
                         .channels = channels,
                         .lanes = channels,
                         .step = shape->stride};
  canvas->columns = shape->width + shape->kernel_width - 1;
  place(canvas, (ptrdiff_t)shape->kernel_width - 1 - (ptrdiff_t)shape->padding);
}

size_t fli_canvas_row(const fli_canvas *canvas)
{
  return canvas->columns * canvas->lanes;
}

fli_conv_view fli_canvas_view(const fli_canvas *canvas, const float *images)
{
  size_t row = canvas->width * canvas->pixel;
  return (fli_conv_view){.at = images,
                         .image = (ptrdiff_t)(canvas->height * row),
                         .row = (ptrdiff_t)row,
                         .pixel = (ptrdiff_t)canvas->pixel};
}

fli_conv_view fli_canvas_copy(const fli_canvas *canvas,
                              const flk_nn_table *kernels,
                              const fli_canvas_source *source, float *copy)
{
  size_t row = fli_canvas_row(canvas);
  flk_pixels pixels = {.src_pixel = canvas->pixel,
                       .dst_pixel = canvas->step * canvas->lanes,
                       .channels = canvas->channels,
                       .n = canvas->end - canvas->begin};
  float *dst = copy + canvas->first * canvas->lanes;
  for (size_t i = 0; i < source->n && pixels.n > 0; i++) {
    size_t at = (i * canvas->height + source->first_row) * canvas->width;
    for (size_t r = 0; r < source->n_rows; r++) {
      size_t from = (at + r * canvas->width + canvas->begin) * canvas->pixel;
      pixels.src = source->images + from;
      pixels.mask = source->mask ? source->mask + from : NULL;
      pixels.dst = dst + (i * source->n_rows + r) * row;
      kernels->copy_pixels(&pixels);
      if (source->sums) {
        flk_pixels copied = {.src = pixels.dst,
                             .src_pixel = pixels.dst_pixel,
                             .dst = source->sums,
                             .channels = fli_panel_columns(canvas->lanes),
                             .n = pixels.n};
        kernels->sum_pixels(&copied);
      }
    }
  }
  return (fli_conv_view){.at = copy,
                         .image = (ptrdiff_t)(source->n_rows * row),
                         .row = (ptrdiff_t)row,
                         .pixel = (ptrdiff_t)canvas->lanes,
                         .first_row = source->first_row};
}
