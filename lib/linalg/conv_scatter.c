/* SPDX-License-Identifier: Apache-2.0 */
/* A row of dx is made of products[output column][kernel column][channel], each
 * a sum over the outputs' channels and over the kernel rows that meet the row.
 * Input column j takes products of output column o and kernel column u where
 * o stride - padding + u = j: a depthwise convolution whose weights are 1. Few
 * channels fill their vectors better that way, because those of all kernel
 * columns stand side by side, and nothing is multiplied by the zeros that
 * padding or strides put between the outputs. */
#include "linalg/conv_scatter.h"

#include <string.h>

#include "linalg/conv_sweep.h"

enum {
  TAPS_MAX = 32,
  ROOM = 8 * 1024, /* floats of a row's products */
  SLACK = 8        /* what vectors of the last channels read behind the end */
};

/* Output columns that input columns meet, from `before` ahead of the first one
 * to `after` behind the last one; products there are 0. */
typedef struct products {
  size_t before, after, pitch, size;
} products;

static products products_of(const fli_conv_shape *s)
{
  products p = {0};
  size_t last = (s->width - 1 + s->padding) / s->stride;
  if (s->kernel_width > s->padding + 1) {
    p.before = (s->kernel_width - 2 - s->padding) / s->stride + 1;
  }
  if (last >= s->out_width) p.after = last - s->out_width + 1;
  p.pitch = fli_panel_columns(s->kernel_width * s->channels);
  p.size = (p.before + s->out_width + p.after) * p.pitch + SLACK;
  return p;
}

int fli_scatter_is_better(const fli_conv_shape *s)
{
  size_t ours = s->out_width * fli_panel_columns(s->kernel_width * s->channels);
  size_t plain = s->width * s->kernel_width * fli_panel_columns(s->channels);
  return s->groups == 1 && s->kernel_width <= TAPS_MAX && ours <= ROOM &&
         5 * ours < 4 * plain;
}

void fli_scatter_canvas(const fli_conv_shape *s, fli_canvas *canvas)
{
  *canvas = (fli_canvas){.height = s->out_height,
                         .width = s->out_width,
                         .pixel = s->out_pixel,
                         .channels = fli_panel_columns(s->out_channels),
                         .lanes = fli_panel_columns(s->out_channels),
                         .columns = s->out_width,
                         .step = 1,
                         .end = s->out_width};
}

/* Columns are [kernel column][channel]. */
fli_panel_weights fli_scatter_layout(const fli_conv_shape *s)
{
  ptrdiff_t taps = (ptrdiff_t)(s->kernel_height * s->kernel_width);
  return (fli_panel_weights){.kernel_height = s->kernel_height,
                             .kernel_width = 1,
                             .n_depth = s->out_channels,
                             .n_columns = s->kernel_width * s->channels,
                             .row = (ptrdiff_t)s->kernel_width,
                             .depth = taps * (ptrdiff_t)s->channels,
                             .panel_column = taps,
                             .together = s->channels,
                             .next = 1};
}

static int goes_by_copy(const fli_conv_shape *s)
{
  return s->pixel < fli_panel_columns(s->channels);
}

size_t fli_scatter_room(const fli_conv_shape *s)
{
  size_t lanes = fli_panel_columns(s->channels);
  size_t copy = goes_by_copy(s) ? s->width * lanes : 0;
  return products_of(s).size + lanes + copy;
}

/* One row of dx from its products; `ones` are weights. */
static void gather(const fli_scatter *scatter, const float *sums,
                   const float *ones, size_t pixel, float *dx)
{
  const fli_conv_shape *s = scatter->shape;
  products p = products_of(s);
  ptrdiff_t x_offsets[TAPS_MAX];
  const ptrdiff_t weight_offsets[TAPS_MAX] = {0};
  flk_depthwise job = {.lanes = fli_panel_columns(s->channels),
                       .x_offsets = x_offsets,
                       .weight_offsets = weight_offsets,
                       .x = sums,
                       .x_pixel = (ptrdiff_t)p.pitch,
                       .y_pixel = (ptrdiff_t)(s->stride * pixel),
                       .weights = ones};
  /* Columns that are a stride apart have the same taps. */
  for (size_t j = 0; j < s->stride && j < s->width; j++) {
    job.n_taps = 0;
    for (size_t u = 0; u < s->kernel_width; u++) {
      size_t at = j + s->padding + p.before * s->stride;
      if (at < u || (at - u) % s->stride != 0) continue;
      size_t offset = (at - u) / s->stride * p.pitch + u * s->channels;
      x_offsets[job.n_taps++] = (ptrdiff_t)offset;
    }
    job.n = (s->width - j - 1) / s->stride + 1;
    job.y = dx + j * pixel;
    scatter->kernels->depthwise(&job);
  }
}

void fli_scatter_rows(const fli_scatter *scatter, size_t n, fli_conv_rows rows)
{
  const fli_conv_shape *s = scatter->shape;
  products p = products_of(s);
  size_t lanes = fli_panel_columns(s->channels);
  float *sums = scatter->scratch;
  float *ones = sums + p.size;
  float *copy = ones + lanes;
  fli_sweep sweep = {.kernels = scatter->kernels,
                     .from = scatter->dy,
                     .from_height = s->out_height,
                     .up = 1,
                     .ahead = (ptrdiff_t)s->padding,
                     .turn = -1,
                     .down = (ptrdiff_t)s->stride,
                     .kernel_height = s->kernel_height,
                     .depth = s->out_channels,
                     .from_step = scatter->dy.pixel,
                     .packed = scatter->packed,
                     .columns = p.pitch,
                     .stored = p.pitch,
                     .to = sums + p.before * p.pitch,
                     .to_pixel = (ptrdiff_t)p.pitch,
                     .to_width = s->out_width};
  for (size_t c = 0; c < lanes; c++) {
    ones[c] = 1.0f;
  }
  for (size_t i = 0; i < n; i++) {
    for (size_t r = rows.begin; r < rows.end; r++) {
      float *dx = scatter->dx + (i * s->height + r) * s->width * s->pixel;
      fli_sweep_rows(&sweep, 1, r, r + 1);
      if (!goes_by_copy(s)) {
        gather(scatter, sums, ones, s->pixel, dx);
        continue;
      }
      gather(scatter, sums, ones, lanes, copy);
      scatter->kernels->copy_pixels(&(flk_pixels){.src = copy,
                                                  .src_pixel = lanes,
                                                  .dst = dx,
                                                  .dst_pixel = s->pixel,
                                                  .channels = s->channels,
                                                  .n = s->width});
    }
    sweep.from.at += sweep.from.image;
  }
}
