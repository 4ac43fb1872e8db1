/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution: every channel has one kernel of its own, so that
 * vectors go along channels and there are no products of matrices. Canvases
 * and strips are those of the direct algorithm; a pixel's floats behind the
 * channels are computed along, each for itself. */
#include <string.h>

#include "linalg/conv_panels.h"
#include "linalg/conv_plan.h"
#include "linalg/sizes.h"

enum { TAPS_MAX = 64 /* in one call of a kernel */ };

typedef struct depthwise {
  fli_conv_plan plan;
  size_t lanes; /* channels, rounded up */
  size_t taps;  /* of the kernel */
} depthwise;

/* How kernel rows meet rows of a view, as in fli_sweep. */
typedef struct mapping {
  ptrdiff_t up, ahead, turn, down;
  size_t height;  /* rows that there are */
  int is_flipped; /* left to right */
} mapping;

typedef struct tap_list {
  size_t next; /* kernel row to go on with */
  size_t n;
  ptrdiff_t x_offsets[TAPS_MAX];
  ptrdiff_t weight_offsets[TAPS_MAX];
} tap_list;

static int accepts(const fli_conv_shape *s)
{
  return s->groups > 1 && s->groups == s->channels &&
         s->groups == s->out_channels && s->kernel_width <= TAPS_MAX;
}

static void prepare(depthwise *d, const fli_conv_shape *s)
{
  fli_canvas canvases[2];
  size_t lanes = fli_panel_columns(s->channels);
  *d = (depthwise){.lanes = lanes, .taps = s->kernel_height * s->kernel_width};
  fli_canvas_of_x(&canvases[0], s, fli_min_size(lanes, s->pixel));
  fli_canvas_of_dy(&canvases[1], s, lanes);
  canvases[0].lanes = lanes;
  const int views_pixels[2] = {s->pixel >= lanes, 1};
  fli_conv_plan_init(&d->plan, s, canvases, views_pixels);
  d->plan.images = 1;
}

/* A row of dx with all lanes, where its pixels have not as many. */
static size_t row_room(const fli_conv_shape *s, size_t lanes)
{
  return s->pixel < lanes ? s->width * lanes : 0;
}

static void sizes(fli_conv *conv)
{
  depthwise d;
  prepare(&d, &conv->shape);
  conv->n_packed = d.taps * d.lanes;
  conv->n_packed_back = conv->n_packed;
  conv->n_sums = (d.taps + 1) * d.lanes;
  conv->n_scratch = FLI_CONV_ALIGNMENT + d.lanes +
                    row_room(&conv->shape, d.lanes) +
                    fli_conv_plan_room(&d.plan);
}

/* [tap][lane] */
static void pack(const fli_conv *conv, const float *weights, float *packed)
{
  const fli_conv_shape *s = &conv->shape;
  size_t taps = s->kernel_height * s->kernel_width;
  size_t lanes = fli_panel_columns(s->channels);
  for (size_t t = 0; t < taps; t++) {
    for (size_t c = 0; c < lanes; c++) {
      packed[t * lanes + c] = c < s->channels ? weights[c * taps + t] : 0.0f;
    }
  }
}

static void unpack(const fli_conv *conv, const float *sums, float *dweights,
                   float *dbias)
{
  const fli_conv_shape *s = &conv->shape;
  size_t taps = s->kernel_height * s->kernel_width;
  size_t lanes = fli_panel_columns(s->channels);
  for (size_t t = 0; t < taps; t++) {
    for (size_t c = 0; c < s->channels; c++) {
      dweights[c * taps + t] = sums[t * lanes + c];
    }
  }
  memcpy(dbias, sums + taps * lanes, s->channels * sizeof *dbias);
}

/* The taps of kernel rows from `next` on that a row meets in a view, as many as
 * there is room for. */
static void find_taps(const depthwise *d, const mapping *map,
                      const fli_conv_view *view, size_t row, tap_list *found)
{
  const fli_conv_shape *s = d->plan.shape;
  size_t width = s->kernel_width;
  found->n = 0;
  for (; found->next < s->kernel_height; found->next++) {
    size_t t = found->next;
    if (found->n + width > TAPS_MAX) return;
    ptrdiff_t at =
        (ptrdiff_t)row * map->up + map->ahead + (ptrdiff_t)t * map->turn;
    if (at < 0 || at % map->down != 0) continue;
    at /= map->down;
    if (at >= (ptrdiff_t)map->height) continue;
    at = (at - (ptrdiff_t)view->first_row) * view->row;
    for (size_t u = 0; u < width; u++) {
      size_t tap = t * width + (map->is_flipped ? width - 1 - u : u);
      found->x_offsets[found->n] = at + (ptrdiff_t)u * view->pixel;
      found->weight_offsets[found->n] = (ptrdiff_t)(tap * d->lanes);
      found->n++;
    }
  }
}

static mapping map_of_y(const fli_conv_shape *s)
{
  return (mapping){.up = (ptrdiff_t)s->stride,
                   .ahead = -(ptrdiff_t)s->padding,
                   .turn = 1,
                   .down = 1,
                   .height = s->height};
}

static mapping map_of_dx(const fli_conv_shape *s)
{
  return (mapping){.up = 1,
                   .ahead = (ptrdiff_t)s->padding,
                   .turn = -1,
                   .down = (ptrdiff_t)s->stride,
                   .height = s->out_height,
                   .is_flipped = 1};
}

/* One row of y or dx, in passes where the kernel is large. */
static void multiply_row(const depthwise *d, const mapping *map,
                         const fli_conv_view *view, size_t row,
                         flk_depthwise *job)
{
  const float *bias = job->bias;
  int does_relu = job->does_relu;
  tap_list found;
  found.next = 0;
  job->is_added = 0;
  job->x_offsets = found.x_offsets;
  job->weight_offsets = found.weight_offsets;
  do {
    find_taps(d, map, view, row, &found);
    int is_last = found.next == d->plan.shape->kernel_height;
    job->n_taps = found.n;
    job->bias = is_last ? bias : NULL;
    job->does_relu = is_last && does_relu;
    d->plan.kernels->depthwise(job);
    job->is_added = 1;
  } while (found.next < d->plan.shape->kernel_height);
  job->bias = bias;
  job->does_relu = does_relu;
}

static void forward(const fli_conv *conv, const float *packed,
                    const float *bias, int does_relu,
                    const fli_conv_range *range)
{
  const fli_conv_shape *s = &conv->shape;
  mapping map = map_of_y(s);
  depthwise d;
  prepare(&d, s);
  fli_conv_range own = *range;
  float *padded = fli_conv_align(range->scratch);
  own.scratch = padded + d.lanes;
  memset(padded, 0, d.lanes * sizeof *padded);
  if (bias) memcpy(padded, bias, s->channels * sizeof *bias);
  fli_conv_plan_begin(&d.plan, &own);
  flk_depthwise job = {.lanes = d.lanes,
                       .n = s->out_width,
                       .weights = packed,
                       .bias = bias ? padded : NULL,
                       .y_pixel = (ptrdiff_t)s->out_pixel,
                       .does_relu = does_relu};
  for (size_t i = 0; i < range->n; i++) {
    fli_conv_range some = fli_conv_take(&d.plan, &own, i, 0, 0);
    for (size_t r = 0; r < s->out_height; r += d.plan.forward_rows) {
      fli_conv_rows rows =
          fli_conv_strip(r, d.plan.forward_rows, s->out_height);
      fli_conv_view view = fli_conv_read_x(&d.plan, &some, rows);
      job.x = view.at;
      job.x_pixel = (ptrdiff_t)s->stride * view.pixel;
      for (size_t row = rows.begin; row < rows.end; row++) {
        job.y = some.y + row * s->out_width * s->out_pixel;
        multiply_row(&d, &map, &view, row, &job);
      }
    }
  }
}

static void add_sums(const depthwise *d, const fli_conv_range *range,
                     fli_conv_rows rows, fli_conv_view dy)
{
  const fli_conv_shape *s = d->plan.shape;
  const fli_canvas *canvas = &d->plan.dy;
  mapping map = map_of_y(s);
  tap_list found;
  fli_conv_view x = fli_conv_read_x(&d->plan, range, rows);
  flk_depthwise job = {.lanes = d->lanes,
                       .n = s->out_width,
                       .x_offsets = found.x_offsets,
                       .weight_offsets = found.weight_offsets,
                       .x = x.at,
                       .x_pixel = (ptrdiff_t)s->stride * x.pixel,
                       .y_pixel = dy.pixel,
                       .sums = range->sums};
  if (dy.at != range->dy) {
    job.x += (ptrdiff_t)(canvas->begin * s->stride) * x.pixel;
    job.y_pixel = (ptrdiff_t)s->stride * dy.pixel;
    job.n = canvas->end - canvas->begin;
    dy.at += (ptrdiff_t)canvas->first * dy.pixel;
  }
  for (size_t row = rows.begin; row < rows.end; row++) {
    job.dy = dy.at + ((ptrdiff_t)row - (ptrdiff_t)dy.first_row) * dy.row;
    found.next = 0;
    while (found.next < s->kernel_height) {
      find_taps(d, &map, &x, row, &found);
      job.n_taps = found.n;
      d->plan.kernels->depthwise_sums(&job);
    }
  }
}

static void multiply_dx(const depthwise *d, const float *packed,
                        const fli_conv_range *range, fli_conv_rows rows,
                        const fli_conv_view *dy)
{
  const fli_conv_shape *s = d->plan.shape;
  mapping map = map_of_dx(s);
  int goes_by_copy = s->pixel < d->lanes;
  float *copy = range->scratch + fli_conv_plan_room(&d->plan);
  flk_depthwise job = {.lanes = d->lanes,
                       .n = s->width,
                       .x = dy->at,
                       .x_pixel = dy->pixel,
                       .weights = packed,
                       .y = copy,
                       .y_pixel = (ptrdiff_t)d->lanes};
  if (!goes_by_copy) job.y_pixel = (ptrdiff_t)s->pixel;
  for (size_t row = rows.begin; row < rows.end; row++) {
    float *dx = range->dx + row * s->width * s->pixel;
    if (!goes_by_copy) job.y = dx;
    multiply_row(d, &map, dy, row, &job);
    if (!goes_by_copy) continue;
    d->plan.kernels->copy_pixels(&(flk_pixels){.src = copy,
                                               .src_pixel = d->lanes,
                                               .dst = dx,
                                               .dst_pixel = s->pixel,
                                               .channels = s->channels,
                                               .n = s->width});
  }
}

static void backward_image(const depthwise *d, const float *packed,
                           const fli_conv_range *range)
{
  const fli_conv_plan *plan = &d->plan;
  const fli_conv_shape *s = plan->shape;
  fli_conv_view dy = {0};
  int is_there = range->sums && plan->sums_rows == s->out_height;
  for (size_t r = 0; range->sums && r < s->out_height; r += plan->sums_rows) {
    fli_conv_rows rows = fli_conv_strip(r, plan->sums_rows, s->out_height);
    float *totals = range->sums + d->taps * d->lanes;
    dy = fli_conv_total_dy(plan, range, rows, 0, totals);
    add_sums(d, range, rows, dy);
  }
  for (size_t r = 0; range->dx && r < s->height; r += plan->dx_rows) {
    fli_conv_rows rows = fli_conv_strip(r, plan->dx_rows, s->height);
    if (!is_there) {
      dy = fli_conv_read_dy(plan, range, fli_conv_rows_of_y(s, rows));
    }
    multiply_dx(d, packed, range, rows, &dy);
  }
}

static void backward(const fli_conv *conv, const float *packed_back,
                     const fli_conv_range *range)
{
  const fli_conv_shape *s = &conv->shape;
  depthwise d;
  fli_conv_range own = *range;
  own.y = NULL;
  own.scratch = fli_conv_align(range->scratch);
  prepare(&d, s);
  fli_conv_plan_begin(&d.plan, &own);
  for (size_t i = 0; i < range->n; i++) {
    fli_conv_range some = fli_conv_take(&d.plan, &own, i, 0, 0);
    backward_image(&d, packed_back, &some);
  }
}

const fli_conv_algorithm fli_conv_depthwise = {.name = "depthwise",
                                               .accepts = accepts,
                                               .sizes = sizes,
                                               .pack = pack,
                                               .pack_back = pack,
                                               .forward = forward,
                                               .backward = backward,
                                               .unpack = unpack};
