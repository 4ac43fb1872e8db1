/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of one or three input channels, as first layers are, by kernels
 * that keep the whole panel of weights (or of its gradient) in registers. The
 * canvas has zeros above and below too, so that all outputs have all taps, and
 * the gradient's mask needs no copy. First layers want no gradient of their
 * inputs; where it is wanted, it is the direct algorithm's. */
#include <string.h>

#include "linalg/conv_panels.h"
#include "linalg/conv_plan.h"

typedef struct few {
  const fli_conv_shape *shape;
  const flk_nn_table *kernels;
  fli_canvas canvas;
  size_t columns, taps;
  size_t strip; /* rows of outputs at a time */
} few;

static int accepts(const fli_conv_shape *s)
{
  size_t run = s->kernel_width * s->channels;
  if (s->groups != 1) return 0;
  if (s->kernel_height == 3) return run == 3 || run == 9;
  return s->kernel_height == 5 && run == 5;
}

static size_t canvas_rows(const fli_conv_shape *s, size_t rows)
{
  return (rows - 1) * s->stride + s->kernel_height;
}

static void prepare(few *f, const fli_conv_shape *s)
{
  *f = (few){.shape = s, .kernels = flk_nn()};
  fli_canvas_of_x(&f->canvas, s, s->channels);
  f->columns = fli_panel_columns(s->out_channels);
  f->taps = s->kernel_height * s->kernel_width * s->channels;
  size_t fits = FLI_CONV_ROOM / fli_canvas_row(&f->canvas);
  f->strip = 1;
  if (fits > s->kernel_height) {
    f->strip = (fits - s->kernel_height) / s->stride + 1;
  }
  if (f->strip > s->out_height) f->strip = s->out_height;
}

static void sizes(fli_conv *conv)
{
  fli_conv direct = *conv;
  few f;
  prepare(&f, &conv->shape);
  fli_conv_direct.sizes(&direct);
  conv->n_packed = f.taps * f.columns;
  conv->n_packed_back = direct.n_packed_back;
  conv->n_sums = (f.taps + 1) * f.columns;
  conv->n_scratch =
      2 * FLI_CONV_ALIGNMENT + f.columns +
      canvas_rows(&conv->shape, f.strip) * fli_canvas_row(&f.canvas);
  if (conv->n_scratch < direct.n_scratch) conv->n_scratch = direct.n_scratch;
}

/* Where the weight of kernel row, column and channel (tap) is in [out]'s. */
static size_t place(const fli_conv_shape *s, size_t tap)
{
  size_t channel = tap % s->channels;
  return channel * s->kernel_height * s->kernel_width + tap / s->channels;
}

/* [kernel row][kernel column][channel][column] */
static void pack(const fli_conv *conv, const float *weights, float *packed)
{
  const fli_conv_shape *s = &conv->shape;
  few f;
  prepare(&f, s);
  memset(packed, 0, conv->n_packed * sizeof *packed);
  for (size_t t = 0; t < f.taps; t++) {
    for (size_t o = 0; o < s->out_channels; o++) {
      packed[t * f.columns + o] = weights[o * f.taps + place(s, t)];
    }
  }
}

static void unpack(const fli_conv *conv, const float *sums, float *dweights,
                   float *dbias)
{
  const fli_conv_shape *s = &conv->shape;
  few f;
  prepare(&f, s);
  for (size_t t = 0; t < f.taps; t++) {
    for (size_t o = 0; o < s->out_channels; o++) {
      dweights[o * f.taps + place(s, t)] = sums[t * f.columns + o];
    }
  }
  memcpy(dbias, sums + f.taps * f.columns, s->out_channels * sizeof *dbias);
}

/* Copy what rows of outputs meet, zeros where there is no image. */
static void read_rows(const few *f, const float *image, fli_conv_rows rows,
                      float *copy)
{
  const fli_conv_shape *s = f->shape;
  size_t row = fli_canvas_row(&f->canvas);
  size_t first = rows.begin * s->stride; /* counted with the padding */
  size_t end = first + canvas_rows(s, rows.end - rows.begin);
  fli_conv_rows met = fli_conv_rows_of_x(s, rows);
  size_t above = met.begin + s->padding - first;
  size_t below = end - (met.end + s->padding);
  if (met.begin == met.end) {
    above = end - first;
    below = 0;
  }
  size_t n = end - first - above - below;
  memset(copy, 0, above * row * sizeof *copy);
  memset(copy + (above + n) * row, 0, below * row * sizeof *copy);
  (void)fli_canvas_copy(
      &f->canvas, f->kernels,
      &(fli_canvas_source){
          .images = image, .n = 1, .first_row = met.begin, .n_rows = n},
      copy + above * row);
}

/* What all strips have in common. */
static flk_few rows_of(const few *f, const float *canvas)
{
  const fli_conv_shape *s = f->shape;
  ptrdiff_t row = (ptrdiff_t)fli_canvas_row(&f->canvas);
  return (flk_few){.lanes = f->columns,
                   .n = s->out_width,
                   .kernel_rows = s->kernel_height,
                   .run = s->kernel_width * s->channels,
                   .x = canvas,
                   .x_next = (ptrdiff_t)s->stride * row,
                   .x_step = (ptrdiff_t)(s->stride * s->channels),
                   .x_row = row,
                   .y_row = (ptrdiff_t)(s->out_width * s->out_pixel),
                   .y_pixel = (ptrdiff_t)s->out_pixel,
                   .tap = (ptrdiff_t)f->columns};
}

/* All strips of all images, one after the other, of y or dy. */
static void walk(const few *f, const fli_conv_range *range, flk_few rows,
                 float *canvas)
{
  const fli_conv_shape *s = f->shape;
  size_t image = s->height * s->width * s->pixel;
  size_t room = canvas_rows(s, f->strip) * fli_canvas_row(&f->canvas);
  memset(canvas, 0, room * sizeof *canvas);
  for (size_t i = 0; i < range->n; i++) {
    for (size_t r = 0; r < s->out_height; r += f->strip) {
      fli_conv_rows strip = fli_conv_strip(r, f->strip, s->out_height);
      size_t at = (i * s->out_height + r) * s->out_width * s->out_pixel;
      read_rows(f, range->x + i * image, strip, canvas);
      rows.n_rows = strip.end - strip.begin;
      if (rows.sums) {
        rows.dy = range->dy + at;
        rows.mask = range->mask ? range->mask + at : NULL;
        f->kernels->few_sums(&rows);
      } else {
        rows.y = range->y + at;
        f->kernels->few_outputs(&rows);
      }
    }
  }
}

static void forward(const fli_conv *conv, const float *packed,
                    const float *bias, int does_relu,
                    const fli_conv_range *range)
{
  size_t channels = conv->shape.out_channels;
  float *padded = fli_conv_align(range->scratch);
  few f;
  prepare(&f, &conv->shape);
  float *canvas = fli_conv_align(padded + f.columns);
  flk_few rows = rows_of(&f, canvas);
  if (bias) {
    memcpy(padded, bias, channels * sizeof *bias);
    memset(padded + channels, 0, (f.columns - channels) * sizeof *bias);
    rows.bias = padded;
  }
  rows.weights = packed;
  rows.does_relu = does_relu;
  walk(&f, range, rows, canvas);
}

static void backward(const fli_conv *conv, const float *packed_back,
                     const fli_conv_range *range)
{
  if (range->sums) {
    few f;
    prepare(&f, &conv->shape);
    float *canvas = fli_conv_align(range->scratch);
    flk_few rows = rows_of(&f, canvas);
    rows.sums = range->sums;
    rows.totals = range->sums + f.taps * f.columns;
    walk(&f, range, rows, canvas);
  }
  if (range->dx) {
    fli_conv_range rest = *range;
    rest.sums = NULL;
    fli_conv_direct.backward(conv, packed_back, &rest);
  }
}

static void pack_back(const fli_conv *conv, const float *weights, float *packed)
{
  fli_conv_direct.pack_back(conv, weights, packed);
}

const fli_conv_algorithm fli_conv_few = {.name = "few",
                                         .accepts = accepts,
                                         .sizes = sizes,
                                         .pack = pack,
                                         .pack_back = pack_back,
                                         .forward = forward,
                                         .backward = backward,
                                         .unpack = unpack};
