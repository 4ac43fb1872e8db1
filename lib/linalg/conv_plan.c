/* SPDX-License-Identifier: Apache-2.0 */
/* Canvases lie in the scratch one behind the other, x's first. What they have
 * besides pixels of images is zero and stays so, thus is cleared once a call.
 */
#include "linalg/conv_plan.h"

#include <string.h>

#include "linalg/conv_panels.h"
#include "linalg/sizes.h"

/* Floats of the images that are in a canvas together. */
enum { GROUP_ROOM = 12 * 1024 };

/* Strips, and rows that these need in the canvases. */
static void cut(fli_conv_plan *p, size_t *x_rows, size_t *dy_rows)
{
  const fli_conv_shape *s = p->shape;
  size_t kernel = s->kernel_height;
  p->forward_rows = s->out_height;
  p->dx_rows = s->height;
  size_t fits = FLI_CONV_ROOM / fli_canvas_row(&p->x);
  if (fits < s->height) {
    size_t rows = fits > kernel ? (fits - kernel) / s->stride + 1 : 1;
    p->forward_rows = fli_min_size(rows, s->out_height);
  }
  p->sums_rows = p->forward_rows;
  fits = fli_max_size(FLI_CONV_ROOM / fli_canvas_row(&p->dy), 1);
  if (fits < s->out_height) {
    size_t rows = (fits - 1) * s->stride + 1;
    p->sums_rows = fli_min_size(p->sums_rows, fits);
    rows = rows > kernel ? rows - kernel + 1 : 1;
    p->dx_rows = fli_min_size(rows, s->height);
  }
  *x_rows = (p->forward_rows - 1) * s->stride + kernel;
  *x_rows = fli_min_size(*x_rows, s->height);
  *dy_rows = (p->dx_rows + kernel - 2) / s->stride + 1;
  *dy_rows = fli_min_size(fli_max_size(*dy_rows, p->sums_rows), s->out_height);
}

void fli_conv_plan_init(fli_conv_plan *plan, const fli_conv_shape *shape,
                        const fli_canvas canvases[2], const int views_pixels[2])
{
  size_t x_rows;
  size_t dy_rows;
  *plan = (fli_conv_plan){
      .shape = shape, .kernels = flk_nn(), .x = canvases[0], .dy = canvases[1]};
  cut(plan, &x_rows, &dy_rows);
  plan->views_x = views_pixels[0] && shape->padding == 0;
  plan->views_dy = views_pixels[1] && shape->stride == 1 &&
                   shape->kernel_width == shape->padding + 1;
  plan->views_dy_for_sums = shape->groups == 1 || views_pixels[1];
  size_t x_row = fli_canvas_row(&plan->x);
  size_t dy_row = fli_canvas_row(&plan->dy);
  size_t image =
      fli_max_size(shape->height * x_row, shape->out_height * dy_row);
  plan->images = fli_max_size(GROUP_ROOM / image, 1);
  plan->x_room = plan->images * x_rows * x_row + FLK_PANEL_MAX;
  plan->dy_room = plan->images * dy_rows * dy_row + FLK_PANEL_MAX;
  if (plan->views_x) plan->x_room = 0;
}

size_t fli_conv_plan_room(const fli_conv_plan *plan)
{
  return plan->x_room + plan->dy_room;
}

float *fli_conv_align(float *scratch)
{
  size_t behind = (uintptr_t)scratch / sizeof(float) % FLI_CONV_ALIGNMENT;
  return scratch + (behind > 0 ? FLI_CONV_ALIGNMENT - behind : 0);
}

static int views_dy(const fli_conv_plan *plan, const fli_conv_range *range)
{
  if (range->mask) return 0;
  return range->dx ? plan->views_dy : plan->views_dy_for_sums;
}

void fli_conv_plan_begin(const fli_conv_plan *plan, const fli_conv_range *range)
{
  size_t room = plan->x_room;
  if (!range->y && !views_dy(plan, range)) room += plan->dy_room;
  memset(range->scratch, 0, room * sizeof(float));
}

fli_conv_rows fli_conv_strip(size_t i, size_t strip, size_t height)
{
  return (fli_conv_rows){i, fli_min_size(i + strip, height)};
}

fli_conv_rows fli_conv_rows_of_x(const fli_conv_shape *shape,
                                 fli_conv_rows rows)
{
  size_t padding = shape->padding;
  size_t first = rows.begin * shape->stride;
  size_t end = (rows.end - 1) * shape->stride + shape->kernel_height;
  first = first > padding ? fli_min_size(first - padding, shape->height) : 0;
  end = end > padding ? fli_min_size(end - padding, shape->height) : 0;
  return (fli_conv_rows){first, fli_max_size(first, end)};
}

fli_conv_rows fli_conv_rows_of_y(const fli_conv_shape *shape,
                                 fli_conv_rows rows)
{
  size_t first = rows.begin + shape->padding;
  size_t end = (rows.end - 1 + shape->padding) / shape->stride + 1;
  size_t kernel = shape->kernel_height;
  first = first < kernel ? 0 : (first - kernel) / shape->stride + 1;
  first = fli_min_size(first, shape->out_height);
  end = fli_min_size(end, shape->out_height);
  return (fli_conv_rows){first, fli_max_size(first, end)};
}

fli_conv_view fli_conv_read_x(const fli_conv_plan *plan,
                              const fli_conv_range *range, fli_conv_rows rows)
{
  if (plan->views_x) return fli_canvas_view(&plan->x, range->x);
  fli_conv_rows met = fli_conv_rows_of_x(plan->shape, rows);
  return fli_canvas_copy(&plan->x, plan->kernels,
                         &(fli_canvas_source){.images = range->x,
                                              .n = range->n,
                                              .first_row = met.begin,
                                              .n_rows = met.end - met.begin},
                         range->scratch);
}

static fli_conv_view read_dy(const fli_conv_plan *plan,
                             const fli_conv_range *range, fli_conv_rows rows,
                             float *totals)
{
  if (views_dy(plan, range)) return fli_canvas_view(&plan->dy, range->dy);
  return fli_canvas_copy(&plan->dy, plan->kernels,
                         &(fli_canvas_source){.images = range->dy,
                                              .mask = range->mask,
                                              .n = range->n,
                                              .first_row = rows.begin,
                                              .n_rows = rows.end - rows.begin,
                                              .sums = totals},
                         range->scratch + plan->x_room);
}

fli_conv_view fli_conv_read_dy(const fli_conv_plan *plan,
                               const fli_conv_range *range, fli_conv_rows rows)
{
  return read_dy(plan, range, rows, NULL);
}

/* Sum where gradients were before they were copied. */
static void sum_rows(const fli_conv_plan *plan, const fli_conv_range *range,
                     fli_conv_rows rows, float *totals)
{
  const fli_conv_shape *s = plan->shape;
  size_t channels = fli_panel_columns(s->out_channels);
  for (size_t i = 0; i < range->n; i++) {
    size_t at = (i * s->out_height + rows.begin) * s->out_width * s->out_pixel;
    flk_pixels pixels = {.src = range->dy + at,
                         .mask = range->mask ? range->mask + at : NULL,
                         .src_pixel = s->out_pixel,
                         .dst = totals,
                         .channels = channels,
                         .n = (rows.end - rows.begin) * s->out_width};
    plan->kernels->sum_pixels(&pixels);
  }
}

fli_conv_view fli_conv_total_dy(const fli_conv_plan *plan,
                                const fli_conv_range *range, fli_conv_rows rows,
                                size_t out, float *totals)
{
  const fli_canvas *canvas = &plan->dy;
  int copies_all = canvas->channels >= plan->shape->out_channels &&
                   canvas->end - canvas->begin == canvas->width;
  if (copies_all && !views_dy(plan, range)) {
    return read_dy(plan, range, rows, totals);
  }
  if (out == 0) sum_rows(plan, range, rows, totals);
  return read_dy(plan, range, rows, NULL);
}

fli_conv_range fli_conv_take(const fli_conv_plan *plan,
                             const fli_conv_range *range, size_t i, size_t in,
                             size_t out)
{
  const fli_conv_shape *s = plan->shape;
  fli_conv_range some = *range;
  size_t x = i * s->height * s->width * s->pixel + in;
  size_t y = i * s->out_height * s->out_width * s->out_pixel + out;
  some.n = fli_min_size(plan->images, range->n - i);
  if (some.x) some.x += x;
  if (some.y) some.y += y;
  if (some.dy) some.dy += y;
  if (some.mask) some.mask += y;
  if (some.dx) some.dx += x;
  return some;
}
