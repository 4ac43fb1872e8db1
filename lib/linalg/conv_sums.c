/* SPDX-License-Identifier: Apache-2.0 */
/* For each kernel row the rows of outputs that meet an image's row are the
 * segments of one sum, over all images at hand, so that sums are loaded and
 * stored seldom. Short kernel rows go in pairs through tiles of two runs, as
 * far as both meet a row; long ones are cut into runs, and these are paired. */
#include "linalg/conv_sums.h"

#include "linalg/conv_panels.h"
#include "linalg/sizes.h"

enum { SEGMENTS_MAX = 64 };

typedef struct rows {
  size_t begin, end;
} rows;

typedef struct walk {
  const fli_conv_products *job;
  flk_tile tile;
  size_t kernel_row;
  size_t n_runs; /* kernel rows at a time: 1 or 2 */
  ptrdiff_t a_offsets[SEGMENTS_MAX];
  ptrdiff_t b_offsets[SEGMENTS_MAX];
} walk;

/* Which of the outputs' rows meet an image's row with that kernel row. */
static rows rows_of(const fli_conv_shape *shape, size_t kernel_row, rows all)
{
  size_t stride = shape->stride;
  size_t padding = shape->padding;
  size_t last = shape->height - 1 + padding;
  rows met = all;
  if (padding > kernel_row) {
    size_t first = fli_divide_up(padding - kernel_row, stride);
    if (first > met.begin) met.begin = first;
  }
  size_t end = last < kernel_row ? 0 : (last - kernel_row) / stride + 1;
  if (end < met.end) met.end = end;
  if (met.begin > met.end) met.begin = met.end;
  return met;
}

/* Runs of one kernel row, paired where their lengths are equal. */
static void multiply_runs(walk *w, float *sums, int kind)
{
  const flk_nn_table *kernels = w->job->kernels;
  const float *a = w->tile.a[0];
  size_t most = kernels->rows_max;
  size_t depth = w->job->depth;
  size_t n_runs = fli_divide_up(depth, most);
  if (n_runs % 2 == 1 && n_runs > 1 && depth / (n_runs + 1) >= most - 1) {
    n_runs++;
  }
  size_t longer = depth % n_runs;
  flk_tile *tile = &w->tile;
  for (size_t run = 0; run < n_runs;) {
    size_t n = depth / n_runs + (run < longer);
    size_t left = run < longer ? longer - run : n_runs - run;
    tile->a[0] = a;
    tile->c[0] = sums;
    if (left >= 2 && n >= kernels->pair_min && n <= kernels->pair_max) {
      tile->a[1] = a + n;
      tile->c[1] = sums + (ptrdiff_t)n * tile->c_row;
      kernels->tile_pair(tile, n, kind);
      n *= 2;
      run += 2;
    } else {
      kernels->tile(tile, n, kind);
      run++;
    }
    a += n;
    sums += (ptrdiff_t)n * tile->c_row;
  }
}

/* All columns, over the segments noted. */
static void multiply(walk *w)
{
  const fli_conv_products *job = w->job;
  flk_tile *tile = &w->tile;
  const float *a = job->x.at;
  if (tile->n_segments == 0) return;
  for (size_t column = 0; column < job->columns;) {
    int kind = fli_panel_kind(job->kernels, job->columns - column);
    size_t width = job->kernels->width[kind];
    float *sums = job->sums + column * job->depth * job->shape->kernel_height +
                  w->kernel_row * job->depth * width;
    tile->a[0] = a;
    tile->b = job->dy.at + column;
    tile->c_row = (ptrdiff_t)width;
    tile->columns = width;
    if (w->n_runs == 2) {
      tile->a[1] = a + job->x.row;
      tile->c[0] = sums;
      tile->c[1] = sums + job->depth * width;
      job->kernels->tile_pair(tile, job->depth, kind);
    } else {
      multiply_runs(w, sums, kind);
    }
    column += width;
  }
  tile->n_segments = 0;
}

/* One kernel row, or two, over some rows of all images. */
static void multiply_rows(walk *w, size_t n_images, rows met)
{
  const fli_conv_products *job = w->job;
  ptrdiff_t ahead = (ptrdiff_t)w->kernel_row - (ptrdiff_t)job->shape->padding -
                    (ptrdiff_t)job->x.first_row;
  for (size_t i = 0; i < n_images; i++) {
    for (size_t r = met.begin; r < met.end; r++) {
      size_t n = w->tile.n_segments++;
      ptrdiff_t image = (ptrdiff_t)i;
      ptrdiff_t x_row = (ptrdiff_t)(r * job->shape->stride) + ahead;
      ptrdiff_t dy_row = (ptrdiff_t)r - (ptrdiff_t)job->dy.first_row;
      w->a_offsets[n] = image * job->x.image + x_row * job->x.row;
      w->b_offsets[n] = image * job->dy.image + dy_row * job->dy.row;
      if (n + 1 == SEGMENTS_MAX) multiply(w);
    }
  }
  multiply(w);
}

void fli_conv_add_products(const fli_conv_products *products, size_t n_images,
                           size_t begin, size_t end)
{
  const fli_conv_shape *shape = products->shape;
  const flk_nn_table *kernels = products->kernels;
  size_t depth = products->depth;
  int goes_in_pairs = depth >= kernels->pair_min && depth <= kernels->pair_max;
  rows all = {begin, end};
  walk w = {.job = products};
  w.tile.a_row = 1;
  w.tile.a_step = (ptrdiff_t)shape->stride * products->x.pixel;
  w.tile.b_step = products->dy.pixel;
  w.tile.depth = products->n_pixels;
  w.tile.a_offsets = w.a_offsets;
  w.tile.b_offsets = w.b_offsets;
  w.tile.alpha = 1.0f;
  w.tile.beta = 1.0f;
  if (products->n_pixels == 0) return;
  for (size_t t = 0; t < shape->kernel_height;) {
    rows met = rows_of(shape, t, all);
    w.kernel_row = t++;
    w.n_runs = 1;
    if (!goes_in_pairs || t == shape->kernel_height) {
      multiply_rows(&w, n_images, met);
      continue;
    }
    /* The next kernel row begins and ends earlier. */
    rows next = rows_of(shape, t++, all);
    size_t last = fli_max_size(met.begin, next.end);
    size_t first = fli_min_size(met.begin, next.end);
    multiply_rows(&w, n_images, (rows){last, met.end});
    w.n_runs = 2;
    multiply_rows(&w, n_images, (rows){met.begin, last});
    w.n_runs = 1;
    w.kernel_row++;
    multiply_rows(&w, n_images, (rows){next.begin, first});
  }
}
