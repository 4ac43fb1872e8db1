/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of outputs are cut where windows reach over an image's edge: the kernels
 * get a list of the window's places that are inside, equal for all outputs of a
 * call. */
#include "linalg/pool.h"

#include <assert.h>
#include <string.h>

#include "kernels/nn/nn.h"
#include "linalg/conv_panels.h"
#include "linalg/sizes.h"

enum { TAPS_MAX = FLI_POOL_WINDOW_MAX * FLI_POOL_WINDOW_MAX };

typedef void (*row_kernel)(const flk_pool *row);

/* A pass over images: what the kernel reads and writes, at the first image. */
typedef struct pass {
  const fli_pool *pool;
  row_kernel kernel;
  flk_pool row;
  ptrdiff_t offsets[TAPS_MAX];
  uint8_t places[TAPS_MAX];
} pass;

/* Places of a window that begins at row and column - padding of an image. */
static void find_taps(pass *p, size_t row, size_t column)
{
  const fli_pool *pool = p->pool;
  size_t n = 0;
  for (size_t t = 0; t < pool->window; t++) {
    size_t h = row + t;
    if (h < pool->padding || h - pool->padding >= pool->height) continue;
    for (size_t u = 0; u < pool->window; u++) {
      size_t w = column + u;
      if (w < pool->padding || w - pool->padding >= pool->width) continue;
      size_t at = (h - pool->padding) * pool->width + w - pool->padding;
      p->offsets[n] = (ptrdiff_t)(at * pool->pixel);
      p->places[n] = (uint8_t)(t * pool->window + u);
      n++;
    }
  }
  p->row.n_taps = n;
}

/* How many outputs from `column` on see as much of the image: all whose windows
 * are inside, or one. */
static size_t count_alike(const fli_pool *pool, size_t column)
{
  size_t begin = column * pool->stride;
  size_t last = pool->width + pool->padding;
  if (begin < pool->padding || begin + pool->window > last) return 1;
  size_t n = (last - pool->window - begin) / pool->stride + 1;
  size_t left = pool->out_width - column;
  return fli_min_size(n, left);
}

/* One row of outputs; row.y and so on are where it begins. */
static void do_row(pass *p, size_t r, flk_pool row)
{
  const fli_pool *pool = p->pool;
  for (size_t column = 0; column < pool->out_width;) {
    size_t n = count_alike(pool, column);
    find_taps(p, r * pool->stride, column * pool->stride);
    row.n = n;
    row.n_taps = p->row.n_taps;
    p->kernel(&row);
    column += n;
    size_t step = n * row.y_pixel;
    if (row.y) row.y += step;
    if (row.dy) row.dy += step;
    if (row.chosen) row.chosen += step;
    if (row.was_chosen) row.was_chosen += step;
  }
}

static void do_images(pass *p, size_t n)
{
  const fli_pool *pool = p->pool;
  flk_pool row = p->row;
  size_t lanes = fli_panel_columns(pool->channels);
  size_t x_image = pool->height * pool->width * pool->pixel;
  size_t y_row = pool->out_width * pool->out_pixel;
  assert(pool->window >= 1 && pool->window <= FLI_POOL_WINDOW_MAX);
  assert(pool->padding < pool->window && pool->out_pixel >= lanes);
  row.lanes = pool->pixel < lanes ? pool->channels : lanes;
  row.offsets = p->offsets;
  row.places = p->places;
  row.x_step = (ptrdiff_t)(pool->stride * pool->pixel);
  row.y_pixel = pool->out_pixel;
  for (size_t i = 0; i < n; i++) {
    if (row.dx && row.is_added) memset(row.dx, 0, x_image * sizeof *row.dx);
    for (size_t r = 0; r < pool->out_height; r++) {
      do_row(p, r, row);
      if (row.y) row.y += y_row;
      if (row.dy) row.dy += y_row;
      if (row.chosen) row.chosen += y_row;
      if (row.was_chosen) row.was_chosen += y_row;
    }
    if (row.x) row.x += x_image;
    if (row.dx) row.dx += x_image;
  }
}

/* Every pixel of the input is in one window and no more. */
static int windows_tile(const fli_pool *pool)
{
  return pool->stride == pool->window && pool->padding == 0 &&
         pool->height == pool->out_height * pool->window &&
         pool->width == pool->out_width * pool->window;
}

static float scale_of(const fli_pool *pool)
{
  return 1.0f / (float)(pool->window * pool->window);
}

void fli_max_pool(const fli_pool *pool, size_t n, const float *x, int does_relu,
                  float *y, uint8_t *chosen)
{
  pass p = {.pool = pool, .kernel = flk_nn()->max_pool};
  p.row = (flk_pool){.x = x, .y = y, .chosen = chosen, .does_relu = does_relu};
  do_images(&p, n);
}

void fli_max_pool_back(const fli_pool *pool, size_t n, const float *dy,
                       const uint8_t *chosen, float *dx)
{
  pass p = {.pool = pool, .kernel = flk_nn()->max_pool_back};
  p.row = (flk_pool){.dy = dy,
                     .was_chosen = chosen,
                     .dx = dx,
                     .is_added = !windows_tile(pool)};
  do_images(&p, n);
}

void fli_average_pool(const fli_pool *pool, size_t n, const float *x, float *y)
{
  pass p = {.pool = pool, .kernel = flk_nn()->sum_pool};
  p.row = (flk_pool){.x = x, .y = y, .scale = scale_of(pool)};
  do_images(&p, n);
}

void fli_average_pool_back(const fli_pool *pool, size_t n, const float *dy,
                           float *dx)
{
  pass p = {.pool = pool, .kernel = flk_nn()->sum_pool_back};
  p.row = (flk_pool){.dy = dy,
                     .dx = dx,
                     .scale = scale_of(pool),
                     .is_added = !windows_tile(pool)};
  do_images(&p, n);
}
