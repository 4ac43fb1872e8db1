/* SPDX-License-Identifier: Apache-2.0 */
/* Direct convolution, for any shape. A kernel row of a pixel's neighbourhood
 * is contiguous in a canvas (conv_canvas.h), so that an output is a sum of few
 * long products. The gradient of inputs is the convolution of the outputs'
 * gradient with the flipped, transposed kernel; that of the weights sums
 * products over pixels. Canvases hold some images where these are small, and
 * strips of rows where one image is too large. Groups are computed one after
 * another, on slices of the channels. */
#include <string.h>

#include "linalg/conv_panels.h"
#include "linalg/conv_plan.h"
#include "linalg/conv_scatter.h"
#include "linalg/conv_sums.h"
#include "linalg/conv_sweep.h"
#include "linalg/sizes.h"

enum {
  /* Pixels in a row of a pointwise convolution, where rows mean nothing:
   * whole tiles of 6 as of 7. */
  POINTWISE_WIDTH = 42
};

typedef struct direct {
  fli_conv_plan plan;
  size_t in, out; /* channels of a group */
  size_t in_columns, out_columns;
  int scatters; /* dx, by conv_scatter.h */
} direct;

/* Sums alone may have what lies behind the channels of dy, each column for
 * itself; so its pixels are copied as they are then. */
static void prepare(direct *d, const fli_conv_shape *s, int wants_dx)
{
  fli_canvas canvases[2];
  *d = (direct){.in = s->channels / s->groups,
                .out = s->out_channels / s->groups};
  d->in_columns = fli_panel_columns(d->in);
  d->out_columns = fli_panel_columns(d->out);
  fli_canvas_of_x(&canvases[0], s, d->in);
  int is_compact = wants_dx || s->groups > 1;
  fli_canvas_of_dy(&canvases[1], s, is_compact ? d->out : d->out_columns);
  const int views_pixels[2] = {
      s->pixel == d->in || s->kernel_width == 1,
      s->groups == 1 && (s->out_pixel == d->out || s->kernel_width == 1)};
  d->scatters = fli_scatter_is_better(s);
  if (d->scatters) fli_scatter_canvas(s, &canvases[1]);
  fli_conv_plan_init(&d->plan, s, canvases, views_pixels);
  if (d->scatters) d->plan.views_dy = 1;
}

/* Floats of a call, the bias aside. */
static size_t room_of(const direct *d)
{
  size_t room = fli_conv_plan_room(&d->plan);
  if (!d->scatters) return room;
  return room + FLI_CONV_ALIGNMENT + fli_scatter_room(d->plan.shape);
}

static fli_panel_weights forward_layout(const fli_conv_shape *s)
{
  ptrdiff_t taps = (ptrdiff_t)(s->kernel_height * s->kernel_width);
  size_t in = s->channels / s->groups;
  return (fli_panel_weights){.kernel_height = s->kernel_height,
                             .kernel_width = s->kernel_width,
                             .n_depth = in,
                             .n_columns = s->out_channels / s->groups,
                             .row = (ptrdiff_t)s->kernel_width,
                             .column = 1,
                             .depth = taps,
                             .panel_column = (ptrdiff_t)in * taps};
}

/* Flipped left to right; kernel rows stay, fli_sweep turns them. */
static fli_panel_weights back_layout(const fli_conv_shape *s)
{
  fli_panel_weights layout = forward_layout(s);
  fli_panel_weights back = layout;
  if (fli_scatter_is_better(s)) return fli_scatter_layout(s);
  back.column = -1;
  back.n_depth = layout.n_columns;
  back.n_columns = layout.n_depth;
  back.depth = layout.panel_column;
  back.panel_column = layout.depth;
  return back;
}

static int accepts(const fli_conv_shape *shape)
{
  return shape->groups >= 1;
}

static int is_pointwise(const fli_conv_shape *s)
{
  return s->kernel_height == 1 && s->kernel_width == 1 && s->stride == 1 &&
         s->padding == 0;
}

static void sizes(fli_conv *conv)
{
  fli_conv_shape shape = conv->shape;
  fli_panel_weights layout = forward_layout(&shape);
  fli_panel_weights back = back_layout(&shape);
  size_t columns = fli_panel_columns(shape.out_channels);
  size_t room = 0;
  if (is_pointwise(&shape)) {
    shape.width = shape.out_width = POINTWISE_WIDTH;
    shape.height = shape.out_height = FLI_CONV_ROOM;
  }
  for (int wants_dx = 0; wants_dx < 2; wants_dx++) {
    direct d;
    prepare(&d, &shape, wants_dx);
    size_t own = room_of(&d);
    if (own > room) room = own;
  }
  conv->n_packed = shape.groups * fli_panel_size(&layout);
  conv->n_packed_back = shape.groups * fli_panel_size(&back);
  conv->n_sums = conv->n_packed + columns;
  conv->n_scratch = 2 * FLI_CONV_ALIGNMENT + columns + room;
}

static void pack(const fli_conv *conv, const float *weights, float *packed)
{
  fli_panel_weights layout = forward_layout(&conv->shape);
  for (size_t g = 0; g < conv->shape.groups; g++) {
    fli_panel_pack(&layout, flk_nn(), weights, packed);
    packed += fli_panel_size(&layout);
    weights += layout.panel_column * (ptrdiff_t)layout.n_columns;
  }
}

static void pack_back(const fli_conv *conv, const float *weights, float *packed)
{
  fli_panel_weights layout = back_layout(&conv->shape);
  weights += layout.column < 0 ? conv->shape.kernel_width - 1 : 0;
  for (size_t g = 0; g < conv->shape.groups; g++) {
    fli_panel_pack(&layout, flk_nn(), weights, packed);
    packed += fli_panel_size(&layout);
    weights += layout.depth * (ptrdiff_t)layout.n_depth;
  }
}

static void unpack(const fli_conv *conv, const float *sums, float *dweights,
                   float *dbias)
{
  fli_panel_weights layout = forward_layout(&conv->shape);
  for (size_t g = 0; g < conv->shape.groups; g++) {
    fli_panel_unpack(&layout, flk_nn(), sums, dweights);
    sums += fli_panel_size(&layout);
    dweights += layout.panel_column * (ptrdiff_t)layout.n_columns;
  }
  memcpy(dbias, sums, conv->shape.out_channels * sizeof *dbias);
}

/* All pixels of a pointwise convolution as one image of whole rows (`part` 0)
 * and the last row (1); 0 when there is nothing in it. Other shapes are left
 * as they are, and are in part 0. */
static int take_part(int part, fli_conv_shape *s, fli_conv_range *range)
{
  if (!is_pointwise(s)) return part == 0 && range->n > 0;
  size_t pixels = range->n * s->height * s->width;
  size_t rest = pixels % POINTWISE_WIDTH;
  size_t skipped = part == 0 ? 0 : pixels - rest;
  if (range->x) range->x += skipped * s->pixel;
  if (range->dx) range->dx += skipped * s->pixel;
  if (range->y) range->y += skipped * s->out_pixel;
  if (range->dy) range->dy += skipped * s->out_pixel;
  if (range->mask) range->mask += skipped * s->out_pixel;
  range->n = 1;
  s->height = s->out_height = part == 0 ? pixels / POINTWISE_WIDTH : 1;
  s->width = s->out_width = part == 0 ? POINTWISE_WIDTH : rest;
  return s->height > 0 && s->width > 0;
}

/* Some images, of one group. */
static void sweep_y(const direct *d, const float *packed, const float *bias,
                    int does_relu, const fli_conv_range *range)
{
  const fli_conv_shape *s = d->plan.shape;
  ptrdiff_t to_row = (ptrdiff_t)(s->out_width * s->out_pixel);
  size_t strip = d->plan.forward_rows;
  fli_sweep sweep = {.kernels = d->plan.kernels,
                     .from_height = s->height,
                     .up = (ptrdiff_t)s->stride,
                     .ahead = -(ptrdiff_t)s->padding,
                     .turn = 1,
                     .down = 1,
                     .kernel_height = s->kernel_height,
                     .depth = s->kernel_width * d->in,
                     .packed = packed,
                     .columns = d->out_columns,
                     .stored = s->groups == 1 ? d->out_columns : d->out,
                     .bias = bias,
                     .does_relu = does_relu,
                     .to = range->y,
                     .to_image = (ptrdiff_t)s->out_height * to_row,
                     .to_row = to_row,
                     .to_pixel = (ptrdiff_t)s->out_pixel,
                     .to_width = s->out_width};
  for (size_t r = 0; r < s->out_height; r += strip) {
    fli_conv_rows rows = fli_conv_strip(r, strip, s->out_height);
    sweep.from = fli_conv_read_x(&d->plan, range, rows);
    sweep.from_step = (ptrdiff_t)s->stride * sweep.from.pixel;
    fli_sweep_rows(&sweep, range->n, rows.begin, rows.end);
  }
}

static void forward_groups(const fli_conv_shape *s, const float *packed,
                           const float *bias, int does_relu,
                           const fli_conv_range *range)
{
  fli_panel_weights layout = forward_layout(s);
  direct d;
  prepare(&d, s, 0);
  fli_conv_plan_begin(&d.plan, range);
  for (size_t g = 0; g < s->groups; g++) {
    for (size_t i = 0; i < range->n; i += d.plan.images) {
      fli_conv_range some =
          fli_conv_take(&d.plan, range, i, g * d.in, g * d.out);
      sweep_y(&d, packed + g * fli_panel_size(&layout),
              bias ? bias + g * d.out : NULL, does_relu, &some);
    }
  }
}

static void forward(const fli_conv *conv, const float *packed,
                    const float *bias, int does_relu,
                    const fli_conv_range *range)
{
  size_t channels = conv->shape.out_channels;
  size_t columns = fli_panel_columns(channels);
  float *padded = fli_conv_align(range->scratch);
  if (bias) {
    memcpy(padded, bias, channels * sizeof *bias);
    memset(padded + channels, 0, (columns - channels) * sizeof *bias);
  }
  for (int part = 0; part < 2; part++) {
    fli_conv_shape shape = conv->shape;
    fli_conv_range own = *range;
    own.scratch = fli_conv_align(padded + columns);
    if (!take_part(part, &shape, &own)) continue;
    forward_groups(&shape, packed, bias ? padded : NULL, does_relu, &own);
  }
}

static void add_sums(const direct *d, const fli_conv_range *range,
                     fli_conv_rows rows, fli_conv_view dy)
{
  const fli_conv_shape *s = d->plan.shape;
  const fli_canvas *canvas = &d->plan.dy;
  fli_conv_products products = {.kernels = d->plan.kernels,
                                .shape = s,
                                .dy = dy,
                                .n_pixels = s->out_width,
                                .depth = s->kernel_width * d->in,
                                .columns = d->out_columns,
                                .sums = range->sums};
  products.x = fli_conv_read_x(&d->plan, range, rows);
  if (dy.at != range->dy) {
    size_t skipped = canvas->begin * s->stride;
    products.x.at += (ptrdiff_t)skipped * products.x.pixel;
    products.dy.at += (ptrdiff_t)canvas->first * dy.pixel;
    products.dy.pixel = (ptrdiff_t)canvas->step * dy.pixel;
    products.n_pixels = canvas->end - canvas->begin;
  }
  fli_conv_add_products(&products, range->n, rows.begin, rows.end);
}

static void sweep_dx(const direct *d, const float *packed,
                     const fli_conv_range *range, fli_conv_rows rows,
                     fli_conv_view dy)
{
  const fli_conv_shape *s = d->plan.shape;
  ptrdiff_t to_row = (ptrdiff_t)(s->width * s->pixel);
  size_t lanes = fli_min_size(d->in_columns, s->pixel);
  fli_sweep sweep = {.kernels = d->plan.kernels,
                     .from = dy,
                     .from_height = s->out_height,
                     .up = 1,
                     .ahead = (ptrdiff_t)s->padding,
                     .turn = -1,
                     .down = (ptrdiff_t)s->stride,
                     .kernel_height = s->kernel_height,
                     .depth = s->kernel_width * d->out,
                     .from_step = dy.pixel,
                     .packed = packed,
                     .columns = d->in_columns,
                     .stored = s->groups == 1 ? lanes : d->in,
                     .to = range->dx,
                     .to_image = (ptrdiff_t)s->height * to_row,
                     .to_row = to_row,
                     .to_pixel = (ptrdiff_t)s->pixel,
                     .to_width = s->width};
  fli_sweep_rows(&sweep, range->n, rows.begin, rows.end);
}

static float *scatter_scratch(const direct *d, const fli_conv_range *range)
{
  return fli_conv_align(range->scratch + fli_conv_plan_room(&d->plan));
}

static void compute_dx(const direct *d, const float *packed,
                       const fli_conv_range *range, fli_conv_rows rows,
                       fli_conv_view dy)
{
  if (!d->scatters) {
    sweep_dx(d, packed, range, rows, dy);
    return;
  }
  fli_scatter scatter = {.kernels = d->plan.kernels,
                         .shape = d->plan.shape,
                         .packed = packed,
                         .dy = dy,
                         .dx = range->dx,
                         .scratch = scatter_scratch(d, range)};
  fli_scatter_rows(&scatter, range->n, rows);
}

/* Some images, of the group whose outputs begin at channel `out`. */
static void backward_images(const direct *d, const float *packed, size_t out,
                            const fli_conv_range *range)
{
  const fli_conv_plan *plan = &d->plan;
  const fli_conv_shape *s = plan->shape;
  fli_conv_view dy = {0};
  int is_there = range->sums && plan->sums_rows == s->out_height;
  for (size_t r = 0; range->sums && r < s->out_height; r += plan->sums_rows) {
    fli_conv_rows rows = fli_conv_strip(r, plan->sums_rows, s->out_height);
    fli_panel_weights layout = forward_layout(s);
    size_t groups = s->groups - out / d->out;
    float *totals = range->sums + groups * fli_panel_size(&layout);
    dy = fli_conv_total_dy(plan, range, rows, out, totals);
    add_sums(d, range, rows, dy);
  }
  for (size_t r = 0; range->dx && r < s->height; r += plan->dx_rows) {
    fli_conv_rows rows = fli_conv_strip(r, plan->dx_rows, s->height);
    if (!is_there) {
      dy = fli_conv_read_dy(plan, range, fli_conv_rows_of_y(s, rows));
    }
    compute_dx(d, packed, range, rows, dy);
  }
}

static void backward_groups(const fli_conv_shape *s, const float *packed,
                            const fli_conv_range *range)
{
  fli_panel_weights layout = forward_layout(s);
  fli_panel_weights back = back_layout(s);
  direct d;
  prepare(&d, s, range->dx != NULL);
  fli_conv_plan_begin(&d.plan, range);
  if (range->dx && d.scatters) {
    memset(scatter_scratch(&d, range), 0, fli_scatter_room(s) * sizeof(float));
  }
  for (size_t g = 0; g < s->groups; g++) {
    for (size_t i = 0; i < range->n; i += d.plan.images) {
      fli_conv_range some =
          fli_conv_take(&d.plan, range, i, g * d.in, g * d.out);
      if (some.sums) some.sums += g * fli_panel_size(&layout);
      backward_images(&d, packed, g * d.out, &some);
    }
    if (packed) packed += fli_panel_size(&back);
  }
}

static void backward(const fli_conv *conv, const float *packed_back,
                     const fli_conv_range *range)
{
  const fli_conv_shape *s = &conv->shape;
  for (int part = 0; part < 2; part++) {
    fli_conv_shape shape = *s;
    fli_conv_range own = *range;
    own.y = NULL;
    own.scratch = fli_conv_align(range->scratch);
    if (!take_part(part, &shape, &own)) continue;
    backward_groups(&shape, packed_back, &own);
  }
}

const fli_conv_algorithm fli_conv_direct = {.name = "direct",
                                            .accepts = accepts,
                                            .sizes = sizes,
                                            .pack = pack,
                                            .pack_back = pack_back,
                                            .forward = forward,
                                            .backward = backward,
                                            .unpack = unpack};
