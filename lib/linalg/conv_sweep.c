/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of a row are as even as can be. Where the instruction set has
 * tiles of two runs, runs wait for another one of their length that meets the
 * same kernel rows: the next one of the row, or the same one of the next
 * image. Every output is summed in the same order in any tile. */
#include "linalg/conv_sweep.h"

#include "linalg/conv_panels.h"
#include "linalg/sizes.h"

enum { SEGMENTS_MAX = 32 /* kernel rows in one tile */ };

typedef struct walk {
  const fli_sweep *sweep;
  flk_tile tile;
  int kind;
  size_t waiting; /* length of the run in a[0], c[0]; 0 = none */
  ptrdiff_t a_offsets[SEGMENTS_MAX];
  ptrdiff_t b_offsets[SEGMENTS_MAX];
} walk;

/* Rows that meet no kernel row are sums of nothing: zeros times zeros. */
static const float zeros[FLK_PANEL_MAX];

static void flush(walk *w)
{
  if (w->waiting == 0) return;
  w->sweep->kernels->tile(&w->tile, w->waiting, w->kind);
  w->waiting = 0;
}

static void add_run(walk *w, const float *a, float *c, size_t n)
{
  const flk_nn_table *kernels = w->sweep->kernels;
  if (w->waiting == n && n >= kernels->pair_min && n <= kernels->pair_max) {
    w->tile.a[1] = a;
    w->tile.c[1] = c;
    kernels->tile_pair(&w->tile, n, w->kind);
    w->waiting = 0;
    return;
  }
  flush(w);
  w->tile.a[0] = a;
  w->tile.c[0] = c;
  w->waiting = n;
  if (kernels->pair_max == 0) flush(w);
}

/* All runs of one row of all images. */
static void add_row(walk *w, size_t n_images, size_t row, ptrdiff_t column)
{
  const fli_sweep *s = w->sweep;
  size_t most = s->kernels->rows_max;
  size_t n_runs = fli_divide_up(s->to_width, most);
  size_t length = s->to_width / n_runs;
  size_t longer = s->to_width % n_runs; /* runs, the first ones, by 1 */
  int pairs_in_row = longer % 2 == 0 && n_runs % 2 == 0;
  size_t outer = pairs_in_row ? n_images : n_runs;
  size_t inner = pairs_in_row ? n_runs : n_images;
  int is_empty = w->tile.a_row == 0;
  for (size_t i = 0; i < outer; i++) {
    for (size_t j = 0; j < inner; j++) {
      ptrdiff_t image = (ptrdiff_t)(pairs_in_row ? i : j);
      size_t run = pairs_in_row ? j : i;
      size_t n = length + (run < longer);
      ptrdiff_t at = (ptrdiff_t)(run * length + fli_min_size(run, longer));
      const float *a = s->from.at + image * s->from.image + at * s->from_step;
      float *c = s->to + image * s->to_image + (ptrdiff_t)row * s->to_row +
                 at * s->to_pixel + column;
      add_run(w, is_empty ? zeros : a, c, n);
    }
  }
  flush(w);
}

/* Note which rows kernel rows from *t on meet, as many as there is room for;
 * their number. */
static size_t find_segments(walk *w, size_t row, ptrdiff_t width, size_t *t)
{
  const fli_sweep *s = w->sweep;
  size_t n = 0;
  for (; *t < s->kernel_height && n < SEGMENTS_MAX; (*t)++) {
    ptrdiff_t tap = (ptrdiff_t)*t;
    ptrdiff_t at = (ptrdiff_t)row * s->up + s->ahead + tap * s->turn;
    if (at < 0) continue;
    if (s->down != 1 && at % s->down != 0) continue;
    if (s->down != 1) at /= s->down;
    if (at >= (ptrdiff_t)s->from_height) continue;
    w->a_offsets[n] = (at - (ptrdiff_t)s->from.first_row) * s->from.row;
    w->b_offsets[n] = tap * (ptrdiff_t)s->depth * width;
    n++;
  }
  return n;
}

/* One row of one panel, in passes where the kernel is very high. */
static void sweep_row(walk *w, size_t n_images, size_t row, size_t column)
{
  const fli_sweep *s = w->sweep;
  ptrdiff_t width = (ptrdiff_t)s->kernels->width[w->kind];
  size_t t = 0;
  flk_tile *tile = &w->tile;
  tile->beta = 0.0f;
  do {
    size_t n = find_segments(w, row, width, &t);
    int is_last = t == s->kernel_height;
    tile->n_segments = n > 0 ? n : 1;
    tile->a_row = n > 0 ? s->from_step : 0;
    tile->a_step = n > 0;
    tile->depth = n > 0 ? s->depth : 1;
    tile->b = n > 0 ? s->packed + column * s->depth * s->kernel_height : zeros;
    tile->a_offsets = n > 0 ? w->a_offsets : NULL;
    tile->b_offsets = n > 0 ? w->b_offsets : NULL;
    tile->bias = is_last && s->bias ? s->bias + column : NULL;
    tile->does_relu = is_last && s->does_relu;
    add_row(w, n_images, row, (ptrdiff_t)column);
    tile->beta = 1.0f;
  } while (t < s->kernel_height);
}

void fli_sweep_rows(const fli_sweep *sweep, size_t n_images, size_t begin,
                    size_t end)
{
  walk w = {.sweep = sweep};
  const size_t *widths = sweep->kernels->width;
  w.tile.alpha = 1.0f;
  w.tile.c_row = sweep->to_pixel;
  for (size_t column = 0; column < sweep->columns;) {
    w.kind = fli_panel_kind(sweep->kernels, sweep->columns - column);
    size_t width = widths[w.kind];
    size_t left = sweep->stored - column;
    w.tile.b_step = (ptrdiff_t)width;
    w.tile.columns = fli_min_size(left, width);
    for (size_t row = begin; row < end; row++) {
      sweep_row(&w, n_images, row, column);
    }
    column += width;
  }
}
