/* SPDX-License-Identifier: Apache-2.0 */
/* The products in the middle of Winograd's convolution, one per position, on
 * the register tiles of kernels/nn. What is broadcast is always transformed
 * data or gradients, where they lie. */
#include "linalg/winograd.h"

#include "linalg/conv_panels.h"
#include "linalg/tiles.h"

enum { POINTS = FLK_WINOGRAD_POINTS };

static void run_tiles(const flk_nn_table *nn, flk_tile *tile, size_t rows,
                      int panel)
{
  while (rows > 0) {
    size_t n = fli_tile_rows(nn, rows, 1);
    fli_tile_run(nn, tile, n, panel);
    tile->a[0] += (ptrdiff_t)n * tile->a_row;
    tile->c[0] += (ptrdiff_t)n * tile->c_row;
    rows -= n;
  }
}

void fli_winograd_multiply(const fli_winograd_group *group,
                           const fli_winograd_product *p)
{
  const flk_nn_table *nn = flk_nn();
  size_t b_step = fli_winograd_weights_step(p->depth, p->c_channels);
  for (size_t position = 0; position < POINTS * POINTS; position++) {
    size_t i = position / POINTS, j = position % POINTS;
    const float *a = p->a + fli_winograd_place(group, i, j, p->a_channels);
    const float *b = p->b + position * b_step;
    float *c = p->c + fli_winograd_place(group, i, j, p->c_channels);
    size_t column = 0;
    while (column < p->c_channels) {
      int panel = fli_panel_kind(nn, p->c_channels - column);
      size_t width = nn->width[panel];
      flk_tile tile = {.a = {a},
                       .a_row = (ptrdiff_t)p->a_channels,
                       .a_step = 1,
                       .b = b + column * p->depth,
                       .b_step = (ptrdiff_t)width,
                       .n_segments = 1,
                       .depth = p->depth,
                       .c = {c + column},
                       .c_row = (ptrdiff_t)p->c_channels,
                       .columns = width,
                       .alpha = 1.0f};
      run_tiles(nn, &tile, group->n_tiles[i][j], panel);
      column += width;
    }
  }
}

void fli_winograd_add_gradients(const fli_winograd_plan *plan,
                                const fli_winograd_group *group,
                                const float *data, const float *gradients,
                                float *sums)
{
  const flk_nn_table *nn = flk_nn();
  size_t rows = plan->shape->channels;
  size_t step = fli_winograd_weights_step(rows, plan->out);
  for (size_t position = 0; position < POINTS * POINTS; position++) {
    size_t i = position / POINTS, j = position % POINTS;
    if (group->n_tiles[i][j] == 0) continue;
    const float *a = data + fli_winograd_place(group, i, j, plan->in);
    const float *b = gradients + fli_winograd_place(group, i, j, plan->out);
    size_t column = 0;
    while (column < plan->out) {
      int panel = fli_panel_kind(nn, plan->out - column);
      size_t width = nn->width[panel];
      flk_tile tile = {.a = {a},
                       .a_row = 1,
                       .a_step = (ptrdiff_t)plan->in,
                       .b = b + column,
                       .b_step = (ptrdiff_t)plan->out,
                       .n_segments = 1,
                       .depth = group->n_tiles[i][j],
                       .c = {sums + position * step + column * rows},
                       .c_row = (ptrdiff_t)width,
                       .columns = width,
                       .alpha = 1.0f,
                       .beta = 1.0f};
      run_tiles(nn, &tile, rows, panel);
      column += width;
    }
  }
}

void fli_winograd_add_bias(const fli_winograd_plan *plan,
                           const fli_winograd_group *group,
                           const float *gradients, float *sums)
{
  /* Point 1, down and across: all of A's factors are 1 there. */
  enum { ONE = 2 };
  const flk_nn_table *nn = flk_nn();
  const float one = 1.0f;
  const float *b = gradients + fli_winograd_place(group, ONE, ONE, plan->out);
  size_t column = 0;
  while (column < plan->out) {
    int panel = fli_panel_kind(nn, plan->out - column);
    size_t width = nn->width[panel];
    flk_tile tile = {.a = {&one},
                     .b = b + column,
                     .b_step = (ptrdiff_t)plan->out,
                     .n_segments = 1,
                     .depth = group->n_tiles[ONE][ONE],
                     .c = {sums + column},
                     .columns = width,
                     .alpha = 1.0f,
                     .beta = 1.0f};
    nn->tile(&tile, 1, panel);
    column += width;
  }
}
