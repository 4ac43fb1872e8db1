/* SPDX-License-Identifier: Apache-2.0 */
/* Which tiles an image is cut into and how many of them are worked on at once.
 * n outputs in k tiles take n + 2 k multiplications whatever the tiles' sizes,
 * so there are as few tiles as can be, and the last one is just as large as
 * what is left: 14 = 4 + 4 + 4 + 2 takes 22, not the 24 of 4 tiles of 4. */
#include "linalg/winograd.h"

#include "linalg/sizes.h"

enum {
  POINTS = FLK_WINOGRAD_POINTS,
  TILE = FLK_WINOGRAD_TILE,
  GAPS = 2 * POINTS * POINTS * FLI_WINOGRAD_GAP
};

static fli_winograd_cut cut(size_t n)
{
  fli_winograd_cut c = {.n_whole = n / TILE, .rest = n % TILE};
  c.n_tiles = c.n_whole + (c.rest > 0);
  for (size_t i = 0; i < POINTS; i++) {
    c.with_point[i] = c.n_whole + (c.rest > 0 && i < c.rest + 2);
  }
  return c;
}

static size_t sum_points(const size_t *n)
{
  size_t sum = 0;
  for (size_t i = 0; i < POINTS; i++) {
    sum += n[i];
  }
  return sum;
}

void fli_winograd_plan_init(fli_winograd_plan *plan,
                            const fli_conv_shape *shape)
{
  *plan = (fli_winograd_plan){
      .shape = shape,
      .down = cut(shape->out_height),
      .across = cut(shape->out_width),
      .in = fli_round_up(shape->channels, FLK_WINOGRAD_LANES),
      .out = fli_round_up(shape->out_channels, FLK_WINOGRAD_LANES)};
  size_t room = FLI_WINOGRAD_SCRATCH - GAPS - plan->out; /* and the bias */
  size_t channels = plan->in + plan->out;
  size_t across = sum_points(plan->across.with_point) * channels;
  size_t image = sum_points(plan->down.with_point) * across;
  size_t row = POINTS * across, tile = POINTS * POINTS * channels;
  plan->group_tiles = plan->across.n_tiles;
  if (image <= room) {
    size_t n = room / image;
    plan->group_rows = n * plan->down.n_tiles;
    plan->group_floats = n * image + GAPS;
  } else if (row <= room) {
    plan->group_rows = room / row;
    plan->group_floats = plan->group_rows * row + GAPS;
  } else {
    size_t most = tile <= room ? room / tile : 1;
    size_t n_parts = fli_divide_up(plan->across.n_tiles, most);
    plan->group_rows = 1;
    plan->group_tiles = fli_divide_up(plan->across.n_tiles, n_parts);
    plan->group_floats = plan->group_tiles * tile + GAPS;
  }
}

static void count_tiles(const fli_winograd_plan *plan,
                        fli_winograd_group *group)
{
  size_t n_down = plan->down.n_tiles;
  size_t n_rest = 0;
  for (size_t r = 0; r < group->n_rows && plan->down.rest > 0; r++) {
    n_rest += (group->first_row + r) % n_down == n_down - 1;
  }
  group->n_all = 0;
  for (size_t i = 0; i < POINTS; i++) {
    size_t rows = group->n_rows - (i < plan->down.rest + 2 ? 0 : n_rest);
    for (size_t j = 0; j < POINTS; j++) {
      group->begin[i][j] = group->n_all;
      group->n_tiles[i][j] = rows * group->across.with_point[j];
      group->n_all += group->n_tiles[i][j];
    }
  }
}

/* From the first tile on. */
static void cut_across(const fli_winograd_plan *plan, fli_winograd_group *group)
{
  size_t left = plan->across.n_tiles - group->first_tile;
  if (left > plan->group_tiles) {
    group->across = cut(plan->group_tiles * TILE);
  } else {
    group->across = cut(plan->shape->out_width - group->first_tile * TILE);
  }
}

int fli_winograd_next_group(const fli_winograd_plan *plan, size_t n_images,
                            fli_winograd_group *group)
{
  size_t n_down = plan->down.n_tiles;
  size_t tiles = group->first_tile + group->across.n_tiles;
  if (group->n_rows > 0 && tiles < plan->across.n_tiles) {
    group->first_tile = tiles;
  } else {
    size_t rows = group->first_row + group->n_rows;
    group->image += rows / n_down;
    if (group->image >= n_images) return 0;
    group->first_row = rows % n_down;
    group->first_tile = 0;
    size_t left = n_down - group->first_row;
    if (plan->group_rows >= n_down) left = (n_images - group->image) * n_down;
    group->n_rows = fli_min_size(left, plan->group_rows);
  }
  cut_across(plan, group);
  count_tiles(plan, group);
  return 1;
}
