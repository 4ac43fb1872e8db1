/* SPDX-License-Identifier: Apache-2.0 */
/* 3 x 3 convolutions of stride 1 and padding 1 by Winograd's minimal filtering
 * in tiles of 4 x 4 outputs, for wide layers: a quarter of the direct
 * algorithm's multiplications. A. Lavin and S. Gray, "Fast Algorithms for
 * Convolutional Neural Networks", 2016, section 4. With
 *
 *   V = B^T d B,  U = G g G^T,  M = U . V,  Y = A^T M A
 *
 * for each tile, summed over channels in M, the backward pass is the adjoint
 * of each step: dM = A dY A^T; dU += V dM, dg = G^T dU G; dV = U dM and
 * dd = B dV B^T, where tiles overlap. The middle is a matrix product per
 * position (winograd_products.c); as many images, or rows of tiles, go through
 * all steps together as the second cache likes (winograd_plan.c). */
#include "linalg/conv.h"

#include <assert.h>
#include <string.h>

#include "kernels/nn/nn.h"
#include "linalg/conv_panels.h"
#include "linalg/sizes.h"
#include "linalg/winograd.h"

enum {
  POINTS = FLK_WINOGRAD_POINTS,
  POSITIONS = POINTS * POINTS,
  TAPS = 9,
  /* Where it is faster than the direct algorithm, as measured for batches of
   * 64: not with few channels, whose transforms cost as much as they save; not
   * on maps that are all border; and less and less when the transformed
   * weights, four times the plain ones, outgrow the caches. */
  MIN_CHANNELS = 8,
  MIN_PAIRS = 8 * 16, /* of an input channel and an output channel */
  MAX_PAIRS = 128 * 128,
  MIN_SIDE = 3,
  MIN_TILES = 4 /* in each product */
};

typedef void transform(const flk_winograd *strip);

/* One transform of a group's tiles: `strip` has what all strips share. */
typedef struct walk {
  transform *apply;
  flk_winograd strip; /* its images' first pixels */
  size_t image;       /* floats from one image to the next */
  float *tiles;
  size_t channels; /* of tiles, rounded up */
} walk;

static int winograd_accepts(const fli_conv_shape *s)
{
  if (s->kernel_height != 3 || s->kernel_width != 3 || s->stride != 1 ||
      s->padding != 1 || s->groups != 1) {
    return 0;
  }
  if (s->pixel % FLK_WINOGRAD_LANES || s->out_pixel % FLK_WINOGRAD_LANES) {
    return 0;
  }
  if (s->channels < MIN_CHANNELS || s->channels > MAX_PAIRS ||
      s->out_channels < MIN_CHANNELS || s->out_channels > MAX_PAIRS) {
    return 0;
  }
  size_t pairs = s->channels * s->out_channels;
  if (pairs < MIN_PAIRS || pairs > MAX_PAIRS) return 0;
  if (s->height < MIN_SIDE || s->width < MIN_SIDE) return 0;
  fli_winograd_plan plan;
  fli_winograd_plan_init(&plan, s);
  if (plan.group_tiles < plan.across.n_tiles && plan.group_tiles < MIN_TILES) {
    return 0;
  }
  return plan.group_floats + plan.out <= FLI_WINOGRAD_SCRATCH;
}

static void winograd_sizes(fli_conv *conv)
{
  fli_winograd_plan plan;
  fli_winograd_plan_init(&plan, &conv->shape);
  size_t in = conv->shape.channels, out = conv->shape.out_channels;
  conv->n_packed = POSITIONS * fli_winograd_weights_step(in, plan.out);
  conv->n_packed_back = POSITIONS * fli_winograd_weights_step(out, plan.in);
  conv->n_sums = conv->n_packed + plan.out;
  conv->n_scratch = plan.group_floats + plan.out;
}

/* Every panel of transformed weights: `lane` and `step` are the strides of
 * plain weights along columns and rows. */
static void each_panel(size_t rows, size_t columns, ptrdiff_t lane,
                       ptrdiff_t step, const float *weights, float *packed)
{
  const flk_nn_table *nn = flk_nn();
  size_t rounded = fli_round_up(columns, FLK_WINOGRAD_LANES);
  size_t column = 0;
  while (column < rounded) {
    size_t width = nn->width[fli_panel_kind(nn, rounded - column)];
    flk_winograd_weights panel = {
        .lane = lane,
        .step = step,
        .n_rows = rows,
        .columns = fli_min_size(columns - column, width),
        .width = width,
        .position = fli_winograd_weights_step(rows, rounded)};
    nn->winograd_weights(&panel, weights + (ptrdiff_t)column * lane,
                         packed + column * rows);
    column += width;
  }
}

static void winograd_pack(const fli_conv *conv, const float *weights,
                          float *packed)
{
  size_t in = conv->shape.channels, out = conv->shape.out_channels;
  each_panel(in, out, (ptrdiff_t)(TAPS * in), TAPS, weights, packed);
}

static void winograd_pack_back(const fli_conv *conv, const float *weights,
                               float *packed)
{
  size_t in = conv->shape.channels, out = conv->shape.out_channels;
  each_panel(out, in, TAPS, (ptrdiff_t)(TAPS * in), weights, packed);
}

static void winograd_unpack(const fli_conv *conv, const float *sums,
                            float *dweights, float *dbias)
{
  const flk_nn_table *nn = flk_nn();
  size_t in = conv->shape.channels, out = conv->shape.out_channels;
  fli_winograd_plan plan;
  fli_winograd_plan_init(&plan, &conv->shape);
  size_t position = fli_winograd_weights_step(in, plan.out);
  size_t column = 0;
  while (column < plan.out) {
    size_t width = nn->width[fli_panel_kind(nn, plan.out - column)];
    flk_winograd_weights panel = {.lane = (ptrdiff_t)(TAPS * in),
                                  .step = TAPS,
                                  .n_rows = in,
                                  .columns = fli_min_size(out - column, width),
                                  .width = width,
                                  .position = position};
    nn->winograd_weights_back(&panel, sums + column * in,
                              dweights + column * in * TAPS);
    column += width;
  }
  memcpy(dbias, sums + conv->n_packed, out * sizeof *dbias);
}

/* Strips of one row of tiles, the strip's pointers being at its first pixel.
 * `seen`: rows of tiles before it in the group, by point down. */
static void walk_row(const fli_winograd_plan *plan,
                     const fli_winograd_group *group, const walk *pass,
                     flk_winograd *strip, const size_t *seen)
{
  const fli_winograd_cut *across = &group->across;
  for (size_t t = 0; t < across->n_tiles; t += FLK_WINOGRAD_STRIP) {
    size_t n = across->n_tiles - t;
    int is_last = n <= FLK_WINOGRAD_STRIP;
    if (!is_last) n = FLK_WINOGRAD_STRIP;
    strip->rest = is_last ? across->rest : 0;
    strip->n_whole = n - (strip->rest > 0);
    strip->has_left = group->first_tile + t > 0;
    strip->has_right = group->first_tile + t + n < plan->across.n_tiles;
    for (size_t i = 0; i < POINTS; i++) {
      for (size_t j = 0; j < POINTS; j++) {
        size_t tile = seen[i] * across->with_point[j] + t;
        strip->at[i][j] = pass->tiles +
                          fli_winograd_place(group, i, j, pass->channels) +
                          tile * pass->channels;
      }
    }
    pass->apply(strip);
    ptrdiff_t on =
        (ptrdiff_t)(FLK_WINOGRAD_STRIP * FLK_WINOGRAD_TILE) * strip->pixel;
    if (is_last) break;
    if (strip->src) strip->src += on;
    if (strip->dst) strip->dst += on;
    if (strip->mask) strip->mask += on;
  }
}

static void walk_group(const fli_winograd_plan *plan,
                       const fli_winograd_group *group, const walk *pass)
{
  const fli_winograd_cut *down = &plan->down;
  size_t seen[POINTS] = {0};
  size_t image = group->image, row = group->first_row;
  for (size_t r = 0; r < group->n_rows; r++) {
    flk_winograd strip = pass->strip;
    size_t x = group->first_tile * FLK_WINOGRAD_TILE;
    size_t y = row * FLK_WINOGRAD_TILE;
    size_t at = image * pass->image + y * (size_t)pass->strip.row +
                x * (size_t)pass->strip.pixel;
    if (strip.src) strip.src += at;
    if (strip.dst) strip.dst += at;
    if (strip.mask) strip.mask += at;
    strip.step = pass->channels;
    strip.channels = pass->channels;
    strip.rows = row < down->n_whole ? FLK_WINOGRAD_TILE : down->rest;
    strip.has_above = row > 0;
    strip.has_below = row + 1 < down->n_tiles;
    walk_row(plan, group, pass, &strip, seen);
    for (size_t i = 0; i < strip.rows + 2; i++)
      seen[i]++;
    if (++row < down->n_tiles) continue;
    row = 0;
    image++;
  }
}

static walk input_walk(const fli_winograd_plan *plan, float *tiles)
{
  const fli_conv_shape *s = plan->shape;
  size_t row = s->width * s->pixel;
  return (walk){.strip = {.row = (ptrdiff_t)row, .pixel = (ptrdiff_t)s->pixel},
                .image = s->height * row,
                .tiles = tiles,
                .channels = plan->in};
}

static walk output_walk(const fli_winograd_plan *plan, float *tiles)
{
  const fli_conv_shape *s = plan->shape;
  size_t row = s->out_width * s->out_pixel;
  return (walk){
      .strip = {.row = (ptrdiff_t)row, .pixel = (ptrdiff_t)s->out_pixel},
      .image = s->out_height * row,
      .tiles = tiles,
      .channels = plan->out};
}

static size_t tiles_floats(const fli_winograd_group *group, size_t channels)
{
  return group->n_all * channels + (size_t)POSITIONS * FLI_WINOGRAD_GAP;
}

static void winograd_forward(const fli_conv *conv, const float *packed,
                             const float *bias, int does_relu,
                             const fli_conv_range *range)
{
  const flk_nn_table *nn = flk_nn();
  fli_winograd_plan plan;
  fli_winograd_plan_init(&plan, &conv->shape);
  float *bias_room = range->scratch;
  float *tiles = bias_room + plan.out;
  if (bias) {
    memset(bias_room, 0, plan.out * sizeof *bias_room);
    memcpy(bias_room, bias, conv->shape.out_channels * sizeof *bias);
  }
  fli_winograd_group group = {0};
  while (fli_winograd_next_group(&plan, range->n, &group)) {
    float *products = tiles + tiles_floats(&group, plan.in);
    walk data = input_walk(&plan, tiles);
    data.apply = nn->winograd_data;
    data.strip.src = range->x;
    walk_group(&plan, &group, &data);
    fli_winograd_product product = {.a = tiles,
                                    .a_channels = plan.in,
                                    .depth = conv->shape.channels,
                                    .b = packed,
                                    .c = products,
                                    .c_channels = plan.out};
    fli_winograd_multiply(&group, &product);
    walk result = output_walk(&plan, products);
    result.apply = nn->winograd_result;
    result.strip.dst = range->y;
    result.strip.bias = bias ? bias_room : NULL;
    result.strip.does_relu = does_relu;
    walk_group(&plan, &group, &result);
  }
}

static void add_sums(const fli_conv *conv, const fli_winograd_plan *plan,
                     const fli_winograd_group *group,
                     const fli_conv_range *range, float *tiles,
                     const float *gradients)
{
  walk data = input_walk(plan, tiles);
  data.apply = flk_nn()->winograd_data;
  data.strip.src = range->x;
  walk_group(plan, group, &data);
  fli_winograd_add_gradients(plan, group, tiles, gradients, range->sums);
  fli_winograd_add_bias(plan, group, gradients, range->sums + conv->n_packed);
}

static void winograd_backward(const fli_conv *conv, const float *packed_back,
                              const fli_conv_range *range)
{
  const flk_nn_table *nn = flk_nn();
  fli_winograd_plan plan;
  fli_winograd_plan_init(&plan, &conv->shape);
  fli_winograd_group group = {0};
  while (fli_winograd_next_group(&plan, range->n, &group)) {
    float *tiles = range->scratch;
    float *gradients = tiles + tiles_floats(&group, plan.in);
    walk result = output_walk(&plan, gradients);
    result.apply = nn->winograd_result_back;
    result.strip.src = range->dy;
    result.strip.mask = range->mask;
    walk_group(&plan, &group, &result);
    if (range->sums) add_sums(conv, &plan, &group, range, tiles, gradients);
    if (!range->dx) continue;
    fli_winograd_product product = {.a = gradients,
                                    .a_channels = plan.out,
                                    .depth = conv->shape.out_channels,
                                    .b = packed_back,
                                    .c = tiles,
                                    .c_channels = plan.in};
    fli_winograd_multiply(&group, &product);
    walk data = input_walk(&plan, tiles);
    data.apply = nn->winograd_data_back;
    data.strip.dst = range->dx;
    walk_group(&plan, &group, &data);
  }
}

const fli_conv_algorithm fli_conv_winograd = {
    .name = "winograd",
    .accepts = winograd_accepts,
    .sizes = winograd_sizes,
    .pack = winograd_pack,
    .pack_back = winograd_pack_back,
    .forward = winograd_forward,
    .backward = winograd_backward,
    .unpack = winograd_unpack,
};
