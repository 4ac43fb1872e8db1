/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions by every algorithm and every table of kernels, against the
 * simplest loops in double. */
#include "linalg/conv.h"

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "conv_fixture.h"
#include "kernels/nn/nn.h"

static const char *const names[] = {"direct", "depthwise", "few"};

/* Where something went wrong. */
static char where[256];

static void describe(const fli_conv *conv, size_t n)
{
  const fli_conv_shape *s = &conv->shape;
  (void)snprintf(where, sizeof where,
                 "%s, %s, seed %d: %zu images %zux%zux%zu (pixel %zu) -> "
                 "%zux%zux%zu, kernel %zux%zu stride %zu padding %zu groups "
                 "%zu",
                 flk_nn()->name, conv->algorithm->name, CONV_SEED, n, s->height,
                 s->width, s->channels, s->pixel, s->out_height, s->out_width,
                 s->out_channels, s->kernel_height, s->kernel_width, s->stride,
                 s->padding, s->groups);
}

/* Rounding of some sums in float; `size` is the sum of absolute values. */
static void assert_near(float got, double want, double size, const char *what)
{
  cr_assert(fabs((double)got - want) <= 1e-5 * size + 1e-7,
            "%s: %s: got %.9g, want %.9g", where, what, (double)got, want);
}

static fli_conv_range range_of(const conv_fixture *f)
{
  return (fli_conv_range){.n = f->n, .x = f->x, .scratch = f->scratch};
}

static void check_forward(conv_fixture *f, const conv_sums *sums, int is_full)
{
  const fli_conv_shape *s = &f->conv.shape;
  fli_conv_range range = range_of(f);
  range.y = f->y;
  f->conv.algorithm->forward(&f->conv, f->packed, is_full ? f->bias : NULL,
                             is_full, &range);
  for (size_t i = 0; i < f->n_y; i++) {
    size_t channel = i % s->out_pixel;
    if (channel >= s->out_channels) continue;
    double want = sums->y[i] + (is_full ? (double)f->bias[channel] : 0.0);
    if (is_full && want < 0.0) want = 0.0;
    assert_near(f->y[i], want, sums->y_size[i] + 1.0, "y");
  }
}

static void check_weights(conv_fixture *f, const conv_sums *sums)
{
  const fli_conv_shape *s = &f->conv.shape;
  f->conv.algorithm->unpack(&f->conv, f->sums, f->dweights, f->dbias);
  for (size_t i = 0; i < f->n_weights; i++) {
    assert_near(f->dweights[i], sums->dw[i], sums->dw_size[i], "dweights");
  }
  for (size_t o = 0; o < s->out_channels; o++) {
    double want = 0.0;
    double size = 0.0;
    for (size_t at = o; at < f->n_y; at += s->out_pixel) {
      want += conv_gradient(sums, at);
      size += fabs(conv_gradient(sums, at));
    }
    assert_near(f->dbias[o], want, size, "dbias");
  }
}

static void check_backward(conv_fixture *f, const conv_sums *sums,
                           int wants_sums, int wants_dx)
{
  const fli_conv_shape *s = &f->conv.shape;
  fli_conv_range range = range_of(f);
  range.dy = f->dy;
  range.mask = sums->mask;
  range.sums = wants_sums ? f->sums : NULL;
  range.dx = wants_dx ? f->dx : NULL;
  memset(f->sums, 0, f->conv.n_sums * sizeof *f->sums);
  for (size_t i = 0; i < f->n_x; i++) {
    f->dx[i] = NAN;
  }
  f->conv.algorithm->backward(&f->conv, wants_dx ? f->packed_back : NULL,
                              &range);
  if (wants_sums) check_weights(f, sums);
  for (size_t i = 0; wants_dx && i < f->n_x; i++) {
    if (i % s->pixel >= s->channels) continue;
    assert_near(f->dx[i], sums->dx[i], sums->dx_size[i], "dx");
  }
}

static void check_conv(const fli_conv *conv, size_t n)
{
  conv_fixture f;
  conv_sums sums;
  describe(conv, n);
  conv_fixture_new(&f, conv, n);
  conv_sums_new(&sums, &f, NULL);
  check_forward(&f, &sums, 0);
  check_forward(&f, &sums, 1);
  check_backward(&f, &sums, 1, 1);
  check_backward(&f, &sums, 1, 0);
  check_backward(&f, &sums, 0, 1);
  conv_sums_free(&sums);
  conv_sums_new(&sums, &f, f.mask);
  check_backward(&f, &sums, 1, 1);
  check_backward(&f, &sums, 1, 0);
  check_backward(&f, &sums, 0, 1);
  conv_assert_guards(&f, where);
  conv_sums_free(&sums);
  conv_fixture_free(&f);
}

/* By every algorithm that takes the shape, of every table. */
static void check_shape(fli_conv_shape wanted, size_t n)
{
  fli_conv conv;
  if (!conv_fits(wanted)) return;
  fli_conv_shape shape = conv_shape_of(wanted);
  for (size_t t = 0; flk_nn_at(t); t++) {
    cr_assert(flk_nn_choose(flk_nn_at(t)->name));
    for (size_t i = 0; i < FLI_COUNT_OF(names); i++) {
      if (fli_conv_init_as(&conv, &shape, names[i])) check_conv(&conv, n);
    }
  }
  (void)flk_nn_choose(NULL);
}

Test(conv, kernels_strides_and_paddings)
{
  static const size_t kernels[][2] = {{1, 1}, {3, 3}, {5, 5}, {7, 7},
                                      {1, 3}, {3, 1}, {2, 5}, {4, 2}};
  static const size_t maps[][2] = {{1, 1}, {2, 3}, {7, 7}, {14, 14}, {5, 16}};
  size_t n = 1;
  for (size_t k = 0; k < FLI_COUNT_OF(kernels); k++) {
    for (size_t m = 0; m < FLI_COUNT_OF(maps); m++) {
      for (size_t stride = 1; stride <= 3; stride++) {
        for (size_t padding = 0; padding <= 3; padding++) {
          check_shape((fli_conv_shape){.height = maps[m][0],
                                       .width = maps[m][1],
                                       .channels = 3,
                                       .out_channels = 8,
                                       .kernel_height = kernels[k][0],
                                       .kernel_width = kernels[k][1],
                                       .stride = stride,
                                       .padding = padding},
                      n);
          n = n % 3 + 1;
        }
      }
    }
  }
}

Test(conv, one_channel)
{
  static const size_t maps[][2] = {{1, 1}, {2, 3}, {7, 7}, {14, 9}};
  for (size_t m = 0; m < FLI_COUNT_OF(maps); m++) {
    for (size_t kernel = 3; kernel <= 5; kernel += 2) {
      for (size_t stride = 1; stride <= 3; stride++) {
        for (size_t padding = 0; padding <= 6; padding++) {
          check_shape((fli_conv_shape){.height = maps[m][0],
                                       .width = maps[m][1],
                                       .channels = 1,
                                       .pixel = 1 + padding,
                                       .out_channels = 6 + 5 * padding,
                                       .kernel_height = kernel,
                                       .kernel_width = kernel,
                                       .stride = stride,
                                       .padding = padding},
                      1 + m % 2);
        }
      }
    }
  }
}

Test(conv, numbers_of_channels)
{
  static const size_t channels[] = {1, 3, 6, 8, 16, 17, 33};
  size_t n = 1;
  for (size_t i = 0; i < FLI_COUNT_OF(channels); i++) {
    for (size_t o = 0; o < FLI_COUNT_OF(channels); o++) {
      for (size_t kernel = 1; kernel <= 5; kernel += 2) {
        check_shape((fli_conv_shape){.height = 7,
                                     .width = 6,
                                     .channels = channels[i],
                                     .out_channels = channels[o],
                                     .kernel_height = kernel,
                                     .kernel_width = kernel,
                                     .stride = 1,
                                     .padding = kernel / 2},
                    n);
        n = n % 5 + 1;
      }
    }
  }
}

Test(conv, pixels_longer_than_their_channels)
{
  static const size_t pixels[] = {4, 7, 8, 16, 40};
  for (size_t i = 0; i < FLI_COUNT_OF(pixels); i++) {
    for (size_t kernel = 1; kernel <= 3; kernel++) {
      for (size_t groups = 1; groups <= 4; groups *= 4) {
        check_shape((fli_conv_shape){.height = 5,
                                     .width = 9,
                                     .channels = 4,
                                     .pixel = pixels[i],
                                     .out_channels = 4,
                                     .out_pixel = 8 * (i + 1),
                                     .kernel_height = kernel,
                                     .kernel_width = kernel,
                                     .stride = 1,
                                     .padding = kernel / 2,
                                     .groups = groups},
                    2);
      }
    }
  }
}

Test(conv, groups)
{
  /* channels, out channels, groups */
  static const size_t groups[][3] = {
      {2, 2, 2}, {6, 6, 6}, {8, 8, 8}, {17, 17, 17}, {33, 33, 33}, {24, 24, 24},
      {4, 8, 2}, {6, 3, 3}, {3, 6, 3}, {32, 16, 2},  {18, 34, 2}};
  for (size_t g = 0; g < FLI_COUNT_OF(groups); g++) {
    for (size_t stride = 1; stride <= 2; stride++) {
      for (size_t padding = 0; padding <= 3; padding++) {
        check_shape((fli_conv_shape){.height = 7,
                                     .width = 14,
                                     .channels = groups[g][0],
                                     .out_channels = groups[g][1],
                                     .kernel_height = 3,
                                     .kernel_width = 3,
                                     .stride = stride,
                                     .padding = padding,
                                     .groups = groups[g][2]},
                    2);
      }
    }
  }
}

Test(conv, images_too_large_for_one_canvas)
{
  check_shape((fli_conv_shape){.height = 70,
                               .width = 60,
                               .channels = 8,
                               .out_channels = 16,
                               .kernel_height = 3,
                               .kernel_width = 3,
                               .stride = 1,
                               .padding = 1},
              1);
  check_shape((fli_conv_shape){.height = 65,
                               .width = 62,
                               .channels = 9,
                               .out_channels = 17,
                               .kernel_height = 4,
                               .kernel_width = 3,
                               .stride = 2,
                               .padding = 2},
              2);
  check_shape((fli_conv_shape){.height = 110,
                               .width = 100,
                               .channels = 3,
                               .out_channels = 8,
                               .kernel_height = 3,
                               .kernel_width = 3,
                               .stride = 1,
                               .padding = 1},
              1);
  /* one row is more than a canvas should have */
  check_shape((fli_conv_shape){.height = 3,
                               .width = 3000,
                               .channels = 16,
                               .out_channels = 8,
                               .kernel_height = 2,
                               .kernel_width = 1,
                               .stride = 1,
                               .padding = 1},
              1);
  check_shape((fli_conv_shape){.height = 60,
                               .width = 60,
                               .channels = 12,
                               .out_channels = 12,
                               .kernel_height = 5,
                               .kernel_width = 3,
                               .stride = 1,
                               .padding = 1,
                               .groups = 12},
              1);
}

Test(conv, kernels_of_many_rows)
{
  check_shape((fli_conv_shape){.height = 80,
                               .width = 3,
                               .channels = 2,
                               .out_channels = 2,
                               .kernel_height = 70,
                               .kernel_width = 2,
                               .stride = 1,
                               .padding = 3},
              1);
  check_shape((fli_conv_shape){.height = 20,
                               .width = 20,
                               .channels = 2,
                               .out_channels = 2,
                               .kernel_height = 11,
                               .kernel_width = 11,
                               .stride = 1,
                               .padding = 5,
                               .groups = 2},
              1);
}

Test(conv, sums_over_many_rows)
{
  check_shape((fli_conv_shape){.height = 28,
                               .width = 28,
                               .channels = 1,
                               .out_channels = 6,
                               .kernel_height = 5,
                               .kernel_width = 5,
                               .stride = 1,
                               .padding = 2},
              5);
}

/* Channels of all pixels, bit by bit. */
static void assert_same(const float *a, const float *b, size_t n,
                        const size_t pixel[2], const char *what)
{
  for (size_t i = 0; i < n; i++) {
    if (i % pixel[1] >= pixel[0]) continue;
    cr_assert(memcmp(a + i, b + i, sizeof *a) == 0, "%s: %s %zu", where, what,
              i);
  }
}

/* y and dx of all images at once, and image by image. */
static void check_cuts(const fli_conv *conv, size_t n)
{
  const fli_conv_shape *s = &conv->shape;
  conv_fixture f;
  describe(conv, n);
  conv_fixture_new(&f, conv, n);
  float *y = conv_floats(f.n_y);
  float *dx = conv_floats(f.n_x);
  fli_conv_range range = range_of(&f);
  range.y = f.y;
  conv->algorithm->forward(conv, f.packed, f.bias, 1, &range);
  range.dy = f.dy;
  range.mask = f.mask;
  range.dx = f.dx;
  conv->algorithm->backward(conv, f.packed_back, &range);
  for (size_t i = 0; i < n; i++) {
    fli_conv_range one = {.n = 1, .scratch = f.scratch};
    one.x = f.x + i * f.n_x / n;
    one.y = y + i * f.n_y / n;
    conv->algorithm->forward(conv, f.packed, f.bias, 1, &one);
    one.dy = f.dy + i * f.n_y / n;
    one.mask = f.mask + i * f.n_y / n;
    one.dx = dx + i * f.n_x / n;
    conv->algorithm->backward(conv, f.packed_back, &one);
  }
  assert_same(f.y, y, f.n_y, (size_t[]){s->out_channels, s->out_pixel}, "y");
  assert_same(f.dx, dx, f.n_x, (size_t[]){s->channels, s->pixel}, "dx");
  free(y);
  free(dx);
  conv_fixture_free(&f);
}

Test(conv, results_do_not_depend_on_how_images_are_cut_into_ranges)
{
  static const size_t sizes[][2] = {{7, 3}, {14, 3}, {10, 5}, {13, 1}, {3, 2}};
  static const size_t channels[][3] = {
      {16, 32, 1}, {3, 17, 1}, {1, 6, 1}, {6, 12, 2}, {9, 9, 9}};
  fli_conv conv;
  for (size_t t = 0; flk_nn_at(t); t++) {
    cr_assert(flk_nn_choose(flk_nn_at(t)->name));
    for (size_t i = 0; i < FLI_COUNT_OF(sizes); i++) {
      for (size_t c = 0; c < FLI_COUNT_OF(channels); c++) {
        fli_conv_shape shape =
            conv_shape_of((fli_conv_shape){.height = sizes[i][0],
                                           .width = sizes[i][0],
                                           .channels = channels[c][0],
                                           .out_channels = channels[c][1],
                                           .kernel_height = sizes[i][1],
                                           .kernel_width = sizes[i][1],
                                           .stride = 1,
                                           .padding = sizes[i][1] / 2,
                                           .groups = channels[c][2]});
        fli_conv_init(&conv, &shape);
        check_cuts(&conv, 5);
      }
    }
  }
  (void)flk_nn_choose(NULL);
}

Test(conv, sums_are_added_to)
{
  fli_conv conv;
  fli_conv_shape shape = conv_shape_of((fli_conv_shape){.height = 6,
                                                        .width = 6,
                                                        .channels = 5,
                                                        .out_channels = 8,
                                                        .kernel_height = 3,
                                                        .kernel_width = 3,
                                                        .stride = 1,
                                                        .padding = 1});
  conv_fixture f;
  conv_sums sums;
  fli_conv_init(&conv, &shape);
  describe(&conv, 4);
  conv_fixture_new(&f, &conv, 4);
  conv_sums_new(&sums, &f, NULL);
  for (size_t i = 0; i < 4; i++) {
    fli_conv_range one = {.n = 1, .sums = f.sums, .scratch = f.scratch};
    one.x = f.x + i * f.n_x / 4;
    one.dy = f.dy + i * f.n_y / 4;
    conv.algorithm->backward(&conv, NULL, &one);
  }
  check_weights(&f, &sums);
  conv_sums_free(&sums);
  conv_fixture_free(&f);
}

Test(conv, no_images_touch_nothing)
{
  fli_conv conv;
  static const size_t kernels[] = {1, 3};
  for (size_t i = 0; i < FLI_COUNT_OF(kernels); i++) {
    fli_conv_shape shape =
        conv_shape_of((fli_conv_shape){.height = 4,
                                       .width = 4,
                                       .channels = 2,
                                       .out_channels = 3,
                                       .kernel_height = kernels[i],
                                       .kernel_width = kernels[i],
                                       .stride = 1});
    conv_fixture f;
    fli_conv_init(&conv, &shape);
    conv_fixture_new(&f, &conv, 1);
    fli_conv_range range = range_of(&f);
    range.n = 0;
    range.y = f.y;
    conv.algorithm->forward(&conv, f.packed, f.bias, 1, &range);
    range.dy = f.dy;
    range.dx = f.dx;
    range.sums = f.sums;
    conv.algorithm->backward(&conv, f.packed_back, &range);
    for (size_t k = 0; k < f.n_y; k++) {
      cr_assert(isnan(f.y[k]));
    }
    for (size_t k = 0; k < f.n_x; k++) {
      cr_assert(isnan(f.dx[k]));
    }
    for (size_t k = 0; k < conv.n_sums; k++) {
      cr_assert(f.sums[k] == 0.0f);
    }
    conv_fixture_free(&f);
  }
}

Test(conv, nan_in_the_input_stays_where_it_is_seen)
{
  fli_conv conv;
  fli_conv_shape shape = conv_shape_of((fli_conv_shape){.height = 5,
                                                        .width = 5,
                                                        .channels = 2,
                                                        .out_channels = 2,
                                                        .kernel_height = 3,
                                                        .kernel_width = 3,
                                                        .stride = 1,
                                                        .padding = 1});
  conv_fixture f;
  fli_conv_init(&conv, &shape);
  conv_fixture_new(&f, &conv, 1);
  f.x[0] = NAN;
  fli_conv_range range = range_of(&f);
  range.y = f.y;
  conv.algorithm->forward(&conv, f.packed, f.bias, 1, &range);
  for (size_t i = 0; i < 25; i++) {
    int is_near = i % 5 <= 1 && i / 5 <= 1;
    cr_assert(!isnan(f.y[i * 8]) == !is_near, "pixel %zu", i);
  }
  conv_fixture_free(&f);
}

Test(conv, common_shapes_need_a_quarter_of_a_megabyte_at_most)
{
  /* size, channels, out channels, kernel, padding */
  static const size_t shapes[][5] = {
      {28, 1, 6, 5, 2},   {14, 6, 16, 5, 0},    {28, 16, 16, 3, 1},
      {14, 32, 32, 3, 1}, {7, 64, 64, 3, 1},    {32, 64, 64, 3, 1},
      {56, 64, 64, 3, 1}, {14, 256, 256, 3, 1}, {112, 3, 32, 7, 3},
      {14, 64, 64, 1, 0}, {7, 512, 512, 3, 1}};
  fli_conv conv;
  for (size_t i = 0; i < FLI_COUNT_OF(shapes); i++) {
    fli_conv_shape shape =
        conv_shape_of((fli_conv_shape){.height = shapes[i][0],
                                       .width = shapes[i][0],
                                       .channels = shapes[i][1],
                                       .out_channels = shapes[i][2],
                                       .kernel_height = shapes[i][3],
                                       .kernel_width = shapes[i][3],
                                       .stride = 1,
                                       .padding = shapes[i][4]});
    cr_assert(fli_conv_init_as(&conv, &shape, "direct"));
    cr_assert_leq(conv.n_scratch * sizeof(float), 256 * 1024, "shape %zu: %zu",
                  i, conv.n_scratch);
  }
}

Test(conv, algorithms_are_chosen_by_shape_and_by_name)
{
  fli_conv conv;
  fli_conv_shape shape = conv_shape_of((fli_conv_shape){.height = 4,
                                                        .width = 4,
                                                        .channels = 8,
                                                        .out_channels = 8,
                                                        .kernel_height = 3,
                                                        .kernel_width = 3,
                                                        .stride = 1});
  fli_conv_init(&conv, &shape);
  cr_assert(conv.algorithm == &fli_conv_direct);
  cr_assert(!fli_conv_init_as(&conv, &shape, "depthwise"));
  cr_assert(!fli_conv_init_as(&conv, &shape, "no such"));
  cr_assert(!fli_conv_init_as(&conv, &shape, "few"));
  shape.channels = 1;
  fli_conv_init(&conv, &shape);
  cr_assert(conv.algorithm == &fli_conv_few);
  shape.channels = shape.groups = 8;
  fli_conv_init(&conv, &shape);
  cr_assert(conv.algorithm == &fli_conv_depthwise);
  cr_assert(fli_conv_init_as(&conv, &shape, "direct"));
  cr_assert(conv.algorithm == &fli_conv_direct);
}
