/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's convolution against the simplest loops in double, with every
 * table of kernels. Floats behind the channels are NaN everywhere, and what
 * lies behind the arrays is watched. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/nn/nn.h"
#include "linalg/conv.h"

enum { GUARD = 32 };

static const float guard_value = 123456.0f;
static const double tolerance = 2e-5; /* of the largest magnitude */

typedef struct problem {
  size_t height, width, in, out, n;
  size_t extra;    /* floats behind the channels, beyond rounding */
  int is_positive; /* inputs, as behind a ReLU */
} problem;

typedef struct fixture {
  fli_conv conv;
  size_t n, pixels; /* images; pixels in all of them */
  float *x, *y, *dy, *mask, *dx;
  float *weights, *bias, *dweights, *dbias;
  float *packed, *packed_back, *sums, *scratch;
} fixture;

static uint32_t state;

static float draw(void)
{
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static float *make(size_t n)
{
  float *data = malloc((n + GUARD) * sizeof *data);
  cr_assert_not_null(data);
  for (size_t i = 0; i < n; i++)
    data[i] = draw();
  for (size_t i = 0; i < GUARD; i++)
    data[n + i] = guard_value;
  return data;
}

static float *make_image(size_t pixels, size_t channels, size_t pixel)
{
  float *data = make(pixels * pixel);
  for (size_t i = 0; i < pixels; i++) {
    for (size_t c = channels; c < pixel; c++)
      data[i * pixel + c] = NAN;
  }
  return data;
}

static void release(float *data, size_t n)
{
  for (size_t i = 0; i < GUARD; i++)
    cr_assert_eq(data[n + i], guard_value);
  free(data);
}

static size_t pixel_of(size_t channels, size_t extra)
{
  return (channels + 7) / 8 * 8 + extra;
}

static fixture set_up(const problem *p)
{
  fixture f = {.n = p->n, .pixels = p->n * p->height * p->width};
  state = (uint32_t)(p->height * 1000 + p->in * 10 + p->out + p->n);
  f.conv.algorithm = &fli_conv_winograd;
  f.conv.shape = (fli_conv_shape){.height = p->height,
                                  .width = p->width,
                                  .channels = p->in,
                                  .pixel = pixel_of(p->in, p->extra),
                                  .out_height = p->height,
                                  .out_width = p->width,
                                  .out_channels = p->out,
                                  .out_pixel = pixel_of(p->out, p->extra),
                                  .kernel_height = 3,
                                  .kernel_width = 3,
                                  .stride = 1,
                                  .padding = 1,
                                  .groups = 1};
  fli_conv_winograd.sizes(&f.conv);
  const fli_conv_shape *s = &f.conv.shape;
  f.x = make_image(f.pixels, p->in, s->pixel);
  f.dx = make_image(f.pixels, p->in, s->pixel);
  f.y = make_image(f.pixels, p->out, s->out_pixel);
  f.dy = make_image(f.pixels, p->out, s->out_pixel);
  f.mask = make_image(f.pixels, p->out, s->out_pixel);
  f.weights = make(p->in * p->out * 9);
  f.dweights = make(p->in * p->out * 9);
  f.bias = make(p->out);
  f.dbias = make(p->out);
  f.packed = make(f.conv.n_packed);
  f.packed_back = make(f.conv.n_packed_back);
  f.sums = make(f.conv.n_sums);
  f.scratch = make(f.conv.n_scratch);
  memset(f.sums, 0, f.conv.n_sums * sizeof(float));
  for (size_t i = 0; i < f.conv.n_scratch; i++)
    f.scratch[i] = NAN;
  for (size_t i = 0; p->is_positive && i < f.pixels * s->pixel; i++) {
    f.x[i] = fabsf(f.x[i]);
  }
  f.conv.algorithm->pack(&f.conv, f.weights, f.packed);
  f.conv.algorithm->pack_back(&f.conv, f.weights, f.packed_back);
  return f;
}

static void tear_down(fixture *f)
{
  const fli_conv_shape *s = &f->conv.shape;
  release(f->x, f->pixels * s->pixel);
  release(f->dx, f->pixels * s->pixel);
  release(f->y, f->pixels * s->out_pixel);
  release(f->dy, f->pixels * s->out_pixel);
  release(f->mask, f->pixels * s->out_pixel);
  release(f->weights, s->channels * s->out_channels * 9);
  release(f->dweights, s->channels * s->out_channels * 9);
  release(f->bias, s->out_channels);
  release(f->dbias, s->out_channels);
  release(f->packed, f->conv.n_packed);
  release(f->packed_back, f->conv.n_packed_back);
  release(f->sums, f->conv.n_sums);
  release(f->scratch, f->conv.n_scratch);
}

/* Images first..first + n. */
static fli_conv_range range_of(const fixture *f, size_t first, size_t n)
{
  const fli_conv_shape *s = &f->conv.shape;
  size_t in = first * s->height * s->width * s->pixel;
  size_t out = first * s->height * s->width * s->out_pixel;
  return (fli_conv_range){.n = n,
                          .x = f->x + in,
                          .y = f->y + out,
                          .dy = f->dy + out,
                          .mask = f->mask + out,
                          .dx = f->dx + in,
                          .sums = f->sums,
                          .scratch = f->scratch};
}

static void forward(const fixture *f, const float *bias, int does_relu,
                    size_t first, size_t n)
{
  fli_conv_range range = range_of(f, first, n);
  f->conv.algorithm->forward(&f->conv, f->packed, bias, does_relu, &range);
}

static void backward(const fixture *f, size_t first, size_t n)
{
  fli_conv_range range = range_of(f, first, n);
  f->conv.algorithm->backward(&f->conv, f->packed_back, &range);
}

/* ---- the oracle ---- */

typedef struct oracle {
  double *y, *dx, *dweights, *dbias; /* images without gaps */
} oracle;

/* All products of one output pixel of channel o with its 3 x 3 inputs. */
static void visit_pixel(const fixture *f, size_t at, size_t o, double dy,
                        oracle *want)
{
  const fli_conv_shape *s = &f->conv.shape;
  size_t image = at / (s->height * s->width);
  size_t y = at / s->width % s->height, x = at % s->width;
  for (size_t k = 0; k < 9; k++) {
    size_t from_y = y + k / 3, from_x = x + k % 3; /* + 1 */
    if (from_y < 1 || from_y > s->height) continue;
    if (from_x < 1 || from_x > s->width) continue;
    size_t from = (image * s->height + from_y - 1) * s->width + from_x - 1;
    for (size_t i = 0; i < s->channels; i++) {
      size_t weight = (o * s->channels + i) * 9 + k;
      double value = f->x[from * s->pixel + i];
      want->y[at * s->out_channels + o] += value * f->weights[weight];
      want->dx[from * s->channels + i] += dy * f->weights[weight];
      want->dweights[weight] += dy * value;
    }
  }
}

static oracle compute(const fixture *f, int has_mask)
{
  const fli_conv_shape *s = &f->conv.shape;
  oracle want = {.y = calloc(f->pixels * s->out_channels, sizeof(double)),
                 .dx = calloc(f->pixels * s->channels, sizeof(double)),
                 .dweights =
                     calloc(s->channels * s->out_channels * 9, sizeof(double)),
                 .dbias = calloc(s->out_channels, sizeof(double))};
  cr_assert(want.y && want.dx && want.dweights && want.dbias);
  for (size_t at = 0; at < f->pixels; at++) {
    for (size_t o = 0; o < s->out_channels; o++) {
      size_t place = at * s->out_pixel + o;
      double dy = has_mask && !(f->mask[place] > 0.0f) ? 0.0 : f->dy[place];
      want.dbias[o] += dy;
      visit_pixel(f, at, o, dy, &want);
    }
  }
  return want;
}

static void forget(oracle *want)
{
  free(want->y);
  free(want->dx);
  free(want->dweights);
  free(want->dbias);
}

/* Rows of `n` values, `stride` apart in `got`. */
static void expect(const float *got, size_t stride, const double *want,
                   size_t n_rows, size_t n, const char *what)
{
  double largest = 0.0, worst = 0.0;
  for (size_t i = 0; i < n_rows * n; i++) {
    double error = fabs(got[i / n * stride + i % n] - want[i]);
    largest = fmax(largest, fabs(want[i]));
    if (!(error <= worst)) worst = isnan(error) ? INFINITY : error;
  }
  cr_expect(worst <= tolerance * largest, "%s: %g of %g with %s", what, worst,
            largest, flk_nn()->name);
}

static void check_forward(const problem *p)
{
  fixture f = set_up(p);
  const fli_conv_shape *s = &f.conv.shape;
  oracle want = compute(&f, 0);
  forward(&f, NULL, 0, 0, f.n);
  expect(f.y, s->out_pixel, want.y, f.pixels, s->out_channels, "y");
  forward(&f, f.bias, 1, 0, f.n);
  for (size_t i = 0; i < f.pixels * s->out_channels; i++) {
    want.y[i] = fmax(want.y[i] + f.bias[i % s->out_channels], 0.0);
  }
  expect(f.y, s->out_pixel, want.y, f.pixels, s->out_channels, "relu");
  forget(&want);
  tear_down(&f);
}

static void check_backward(const problem *p, int has_mask)
{
  fixture f = set_up(p);
  const fli_conv_shape *s = &f.conv.shape;
  oracle want = compute(&f, has_mask);
  fli_conv_range range = range_of(&f, 0, f.n);
  if (!has_mask) range.mask = NULL;
  f.conv.algorithm->backward(&f.conv, f.packed_back, &range);
  f.conv.algorithm->unpack(&f.conv, f.sums, f.dweights, f.dbias);
  expect(f.dx, s->pixel, want.dx, f.pixels, s->channels, "dx");
  expect(f.dweights, 9, want.dweights, s->channels * s->out_channels, 9, "dw");
  expect(f.dbias, 1, want.dbias, s->out_channels, 1, "dbias");
  forget(&want);
  tear_down(&f);
}

static const problem problems[] = {
    /* maps of every rest, and all positions of borders */
    {1, 1, 16, 16, 3, 0, 0},
    {2, 3, 8, 24, 2, 0, 0},
    {4, 4, 24, 8, 2, 8, 0},
    {5, 6, 16, 32, 1, 0, 1},
    {7, 7, 64, 64, 2, 0, 1},
    {7, 7, 72, 40, 5, 0, 0},
    {15, 13, 17, 23, 2, 0, 0},
    {14, 14, 32, 32, 3, 0, 1},
    {14, 14, 12, 50, 1, 16, 0},
    {28, 28, 16, 16, 1, 0, 1},
    /* more tiles side by side than a strip has */
    {3, 33, 16, 16, 1, 0, 0},
    {2, 67, 16, 9, 2, 0, 0},
    {9, 32, 8, 8, 1, 0, 0},
    /* rows of an image at a time, and not even one row */
    {28, 28, 40, 32, 2, 0, 0},
    {9, 61, 64, 72, 1, 0, 0},
    {6, 234, 40, 16, 1, 0, 0},
};

enum { N_PROBLEMS = sizeof problems / sizeof *problems };

#define FOR_ALL_TABLES                                                     \
  for (size_t table = 0; flk_nn_at(table); table++)                        \
    for (int is_chosen = flk_nn_choose(flk_nn_at(table)->name); is_chosen; \
         is_chosen = 0)

Test(conv_winograd, forward_is_the_convolution)
{
  FOR_ALL_TABLES
  {
    for (size_t i = 0; i < N_PROBLEMS; i++)
      check_forward(&problems[i]);
  }
}

Test(conv_winograd, backward_is_the_gradient)
{
  FOR_ALL_TABLES
  {
    for (size_t i = 0; i < N_PROBLEMS; i++)
      check_backward(&problems[i], 0);
  }
}

Test(conv_winograd, mask_hides_gradients)
{
  FOR_ALL_TABLES
  {
    for (size_t i = 0; i < N_PROBLEMS; i++)
      check_backward(&problems[i], 1);
  }
}

Test(conv_winograd, weights_of_every_number_of_channels_come_back)
{
  FOR_ALL_TABLES
  {
    for (size_t n = 8; n <= 72; n++) {
      problem p = {4, 3, n, 80 - n, 1, 0, 0};
      check_forward(&p);
      check_backward(&p, 1);
    }
  }
}

static int same_channels(const float *a, const float *b, size_t pixels,
                         size_t channels, size_t pixel)
{
  for (size_t i = 0; i < pixels; i++) {
    if (memcmp(a + i * pixel, b + i * pixel, channels * sizeof *a)) return 0;
  }
  return 1;
}

/* Outputs and gradients of inputs have the same bits however images are cut. */
static void check_cuts(const problem *p)
{
  fixture whole = set_up(p);
  const fli_conv_shape *s = &whole.conv.shape;
  forward(&whole, whole.bias, 0, 0, p->n);
  backward(&whole, 0, p->n);
  for (size_t first = 1; first < p->n; first++) {
    fixture f = set_up(p);
    forward(&f, f.bias, 0, first, p->n - first);
    forward(&f, f.bias, 0, 0, first);
    backward(&f, first, p->n - first);
    backward(&f, 0, first);
    cr_expect(
        same_channels(f.y, whole.y, f.pixels, s->out_channels, s->out_pixel));
    cr_expect(same_channels(f.dx, whole.dx, f.pixels, s->channels, s->pixel));
    tear_down(&f);
  }
  tear_down(&whole);
}

Test(conv_winograd, results_do_not_depend_on_ranges)
{
  static const problem cut[] = {{7, 7, 64, 64, 9, 0, 0},
                                {14, 14, 16, 40, 5, 0, 0},
                                {1, 2, 16, 16, 3, 0, 0},
                                {28, 28, 32, 24, 2, 0, 0},
                                {5, 75, 64, 48, 2, 0, 0}};
  FOR_ALL_TABLES
  {
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++)
      check_cuts(&cut[i]);
  }
}

Test(conv_winograd, sums_are_added_to)
{
  FOR_ALL_TABLES
  {
    const problem p = {6, 5, 16, 24, 3, 0, 0};
    fixture f = set_up(&p);
    oracle want = compute(&f, 1);
    backward(&f, 0, 1);
    backward(&f, 1, 2);
    f.conv.algorithm->unpack(&f.conv, f.sums, f.dweights, f.dbias);
    expect(f.dweights, 9, want.dweights, 16 * 24, 9, "dw");
    expect(f.dbias, 1, want.dbias, 24, 1, "dbias");
    forget(&want);
    tear_down(&f);
  }
}

Test(conv_winograd, no_images_are_no_gradients)
{
  const problem p = {7, 7, 16, 16, 1, 0, 0};
  fixture f = set_up(&p);
  forward(&f, f.bias, 0, 0, 0);
  backward(&f, 0, 0);
  f.conv.algorithm->unpack(&f.conv, f.sums, f.dweights, f.dbias);
  for (size_t i = 0; i < 16 * 16 * 9; i++) {
    cr_assert_eq(f.dweights[i], 0.0f);
  }
  for (size_t i = 0; i < 16; i++)
    cr_assert_eq(f.dbias[i], 0.0f);
  tear_down(&f);
}

Test(conv_winograd, computes_one_gradient_without_the_other)
{
  FOR_ALL_TABLES
  {
    const problem p = {10, 9, 24, 16, 2, 0, 0};
    fixture f = set_up(&p);
    const fli_conv_shape *s = &f.conv.shape;
    oracle want = compute(&f, 1);
    fli_conv_range range = range_of(&f, 0, f.n);
    range.sums = NULL;
    range.x = NULL;
    f.conv.algorithm->backward(&f.conv, f.packed_back, &range);
    expect(f.dx, s->pixel, want.dx, f.pixels, s->channels, "dx");
    range = range_of(&f, 0, f.n);
    range.dx = NULL;
    f.conv.algorithm->backward(&f.conv, NULL, &range);
    f.conv.algorithm->unpack(&f.conv, f.sums, f.dweights, f.dbias);
    expect(f.dweights, 9, want.dweights, 24 * 16, 9, "dw");
    forget(&want);
    tear_down(&f);
  }
}

Test(conv_winograd, relu_keeps_nan)
{
  FOR_ALL_TABLES
  {
    const problem p = {4, 4, 16, 16, 1, 0, 0};
    fixture f = set_up(&p);
    f.x[0] = NAN;
    forward(&f, f.bias, 1, 0, 1);
    cr_expect(isnan(f.y[0]));
    tear_down(&f);
  }
}

Test(conv_winograd, takes_only_what_it_can_do)
{
  const problem p = {14, 14, 32, 32, 1, 0, 0};
  fixture f = set_up(&p);
  const fli_conv_shape good = f.conv.shape;
  int (*accepts)(const fli_conv_shape *) = fli_conv_winograd.accepts;
  cr_expect(accepts(&good));
  fli_conv_shape s = good;
  s.kernel_height = 5;
  cr_expect_not(accepts(&s));
  s = good;
  s.kernel_width = 1;
  cr_expect_not(accepts(&s));
  s = good;
  s.stride = 2;
  s.out_height = s.out_width = 7;
  cr_expect_not(accepts(&s));
  s = good;
  s.padding = 0;
  s.out_height = s.out_width = 12;
  cr_expect_not(accepts(&s));
  s = good;
  s.groups = 2;
  cr_expect_not(accepts(&s));
  s = good;
  s.pixel = 33;
  cr_expect_not(accepts(&s));
  s = good;
  s.out_pixel = 36;
  cr_expect_not(accepts(&s));
  tear_down(&f);
}

/* Whether it takes images of one size with that many channels. */
static int takes(size_t height, size_t width, size_t in, size_t out)
{
  fli_conv conv = {.shape = {.height = height,
                             .width = width,
                             .channels = in,
                             .pixel = pixel_of(in, 0),
                             .out_height = height,
                             .out_width = width,
                             .out_channels = out,
                             .out_pixel = pixel_of(out, 0),
                             .kernel_height = 3,
                             .kernel_width = 3,
                             .stride = 1,
                             .padding = 1,
                             .groups = 1}};
  if (!fli_conv_winograd.accepts(&conv.shape)) return 0;
  fli_conv_winograd.sizes(&conv);
  cr_expect(conv.n_scratch * sizeof(float) <= 256 * 1024);
  return 1;
}

Test(conv_winograd, takes_only_what_is_faster_and_fits_256_kb_of_scratch)
{
  cr_expect(takes(28, 28, 16, 16));
  cr_expect(takes(7, 7, 64, 64));
  cr_expect(takes(3, 3, 128, 128));
  cr_expect(takes(14, 14, 8, 16));
  cr_expect(takes(224, 224, 16, 16));
  cr_expect_not(takes(14, 14, 8, 8));
  cr_expect_not(takes(14, 14, 7, 64));
  cr_expect_not(takes(14, 14, 64, 7));
  cr_expect_not(takes(14, 14, 1, 64));
  cr_expect_not(takes(2, 14, 64, 64));
  cr_expect_not(takes(14, 2, 64, 64));
  cr_expect_not(takes(7, 7, 128, 136));
  cr_expect_not(takes(14, 14, SIZE_MAX / 16, 64));
  cr_expect(takes(14, 512, 128, 128));
  cr_expect_not(takes(14, 512, 512, 8));
}
