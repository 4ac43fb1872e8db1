/* SPDX-License-Identifier: Apache-2.0 */
/* One convolution with all its arrays, and the simplest loops in double to
 * compare with. What lies behind the channels of a pixel is NaN. */
#ifndef CONV_FIXTURE_H
#define CONV_FIXTURE_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "linalg/conv.h"

enum { CONV_SEED = 5, CONV_GUARD = 16 };

typedef struct conv_fixture {
  fli_conv conv;
  size_t n;
  size_t n_x, n_y, n_weights; /* floats */
  float *x, *y, *dy, *mask, *dx;
  float *weights, *bias, *packed, *packed_back, *sums, *dweights, *dbias;
  float *scratch;
} conv_fixture;

/* The shape with output sizes filled in; output pixels are as short as may
 * be. */
static inline fli_conv_shape conv_shape_of(fli_conv_shape shape)
{
  size_t padded_height = shape.height + 2 * shape.padding;
  size_t padded_width = shape.width + 2 * shape.padding;
  if (shape.groups == 0) shape.groups = 1;
  if (shape.pixel == 0) shape.pixel = shape.channels;
  shape.out_height = (padded_height - shape.kernel_height) / shape.stride + 1;
  shape.out_width = (padded_width - shape.kernel_width) / shape.stride + 1;
  if (shape.out_pixel == 0) {
    shape.out_pixel = (shape.out_channels + FLI_CONV_LANES - 1) /
                      FLI_CONV_LANES * FLI_CONV_LANES;
  }
  return shape;
}

static inline int conv_fits(fli_conv_shape shape)
{
  return shape.height + 2 * shape.padding >= shape.kernel_height &&
         shape.width + 2 * shape.padding >= shape.kernel_width;
}

/* n floats, NaN, and more of them behind, that nobody may write. */
static inline float *conv_floats(size_t n)
{
  float *values = malloc((n + CONV_GUARD) * sizeof *values);
  cr_assert_not_null(values);
  for (size_t i = 0; i < n + CONV_GUARD; i++) {
    values[i] = NAN;
  }
  return values;
}

static inline int conv_guard_is_whole(const float *values, size_t n)
{
  for (size_t i = n; i < n + CONV_GUARD; i++) {
    if (!isnan(values[i])) return 0;
  }
  return 1;
}

static inline float *conv_random(fli_rng *rng, size_t n)
{
  float *values = conv_floats(n);
  for (size_t i = 0; i < n; i++) {
    values[i] = 2.0f * fli_rng_f32(rng) - 1.0f;
  }
  return values;
}

static inline float *conv_pixels(fli_rng *rng, size_t n, size_t channels,
                                 size_t pixel)
{
  float *values = conv_floats(n * pixel);
  for (size_t i = 0; i < n; i++) {
    for (size_t c = 0; c < channels; c++) {
      values[i * pixel + c] = 2.0f * fli_rng_f32(rng) - 1.0f;
    }
  }
  return values;
}

static inline void conv_fixture_new(conv_fixture *f, const fli_conv *conv,
                                    size_t n)
{
  const fli_conv_shape *s = &conv->shape;
  size_t x_pixels = n * s->height * s->width;
  size_t y_pixels = n * s->out_height * s->out_width;
  fli_rng rng;
  fli_rng_init(&rng, CONV_SEED, FLI_RNG_TEST, s->channels, (uint32_t)s->width);
  *f = (conv_fixture){.conv = *conv, .n = n};
  f->n_x = x_pixels * s->pixel;
  f->n_y = y_pixels * s->out_pixel;
  f->n_weights = s->out_channels * s->channels / s->groups * s->kernel_height *
                 s->kernel_width;
  f->x = conv_pixels(&rng, x_pixels, s->channels, s->pixel);
  f->dx = conv_floats(f->n_x);
  f->y = conv_floats(f->n_y);
  f->dy = conv_pixels(&rng, y_pixels, s->out_channels, s->out_pixel);
  f->mask = conv_pixels(&rng, y_pixels, s->out_channels, s->out_pixel);
  f->weights = conv_random(&rng, f->n_weights);
  f->bias = conv_random(&rng, s->out_channels);
  f->dweights = conv_floats(f->n_weights);
  f->dbias = conv_floats(s->out_channels);
  f->packed = conv_floats(conv->n_packed);
  f->packed_back = conv_floats(conv->n_packed_back);
  f->sums = conv_floats(conv->n_sums);
  f->scratch = conv_floats(conv->n_scratch);
  memset(f->sums, 0, conv->n_sums * sizeof(float));
  conv->algorithm->pack(conv, f->weights, f->packed);
  conv->algorithm->pack_back(conv, f->weights, f->packed_back);
}

static inline void conv_fixture_free(conv_fixture *f)
{
  float *const all[] = {f->x,           f->y,       f->dy,       f->mask,
                        f->dx,          f->weights, f->bias,     f->packed,
                        f->packed_back, f->sums,    f->dweights, f->dbias,
                        f->scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    free(all[i]);
  }
}

static inline void conv_assert_guards(const conv_fixture *f, const char *what)
{
  cr_assert(conv_guard_is_whole(f->y, f->n_y), "%s: y", what);
  cr_assert(conv_guard_is_whole(f->dx, f->n_x), "%s: dx", what);
  cr_assert(conv_guard_is_whole(f->packed, f->conv.n_packed), "%s: packed",
            what);
  cr_assert(conv_guard_is_whole(f->packed_back, f->conv.n_packed_back),
            "%s: packed_back", what);
  cr_assert(conv_guard_is_whole(f->sums, f->conv.n_sums), "%s: sums", what);
  cr_assert(conv_guard_is_whole(f->scratch, f->conv.n_scratch), "%s: scratch",
            what);
  cr_assert(conv_guard_is_whole(f->dweights, f->n_weights), "%s: dweights",
            what);
}

/* What one connection of a weight contributes to. */
typedef struct conv_link {
  size_t x, y, w; /* places in x, y and the weights */
  size_t out;     /* channel of y */
} conv_link;

/* Call `visit` for every product in the convolution. */
static inline void
conv_visit(const conv_fixture *f,
           void (*visit)(void *context, const conv_link *link), void *context)
{
  const fli_conv_shape *s = &f->conv.shape;
  size_t in = s->channels / s->groups;
  size_t out = s->out_channels / s->groups;
  size_t taps = s->kernel_height * s->kernel_width;
  size_t n_y = f->n * s->out_height * s->out_width * s->out_channels;
  for (size_t k = 0; k < n_y; k++) {
    size_t o = k % s->out_channels;
    size_t pixel = k / s->out_channels;
    size_t column = pixel % s->out_width;
    size_t row = pixel / s->out_width % s->out_height;
    size_t image = pixel / s->out_width / s->out_height;
    for (size_t j = 0; j < in * taps; j++) {
      size_t i = j / taps;
      size_t h = row * s->stride + j % taps / s->kernel_width;
      size_t w = column * s->stride + j % s->kernel_width;
      if (h < s->padding || h - s->padding >= s->height) continue;
      if (w < s->padding || w - s->padding >= s->width) continue;
      size_t x_pixel =
          (image * s->height + h - s->padding) * s->width + w - s->padding;
      conv_link link = {.x = x_pixel * s->pixel + o / out * in + i,
                        .y = pixel * s->out_pixel + o,
                        .w = o * in * taps + j,
                        .out = o};
      visit(context, &link);
    }
  }
}

/* Sums in double, and those of the absolute values, for the bound. */
typedef struct conv_sums {
  const conv_fixture *f;
  const float *mask;
  double *y, *y_size, *dx, *dx_size, *dw, *dw_size;
} conv_sums;

static inline double conv_gradient(const conv_sums *sums, size_t at)
{
  if (sums->mask && !(sums->mask[at] > 0.0f)) return 0.0;
  return (double)sums->f->dy[at];
}

static inline void conv_add_link(void *context, const conv_link *link)
{
  conv_sums *sums = context;
  double x = (double)sums->f->x[link->x];
  double w = (double)sums->f->weights[link->w];
  double dy = conv_gradient(sums, link->y);
  sums->y[link->y] += x * w;
  sums->y_size[link->y] += fabs(x * w);
  sums->dx[link->x] += dy * w;
  sums->dx_size[link->x] += fabs(dy * w);
  sums->dw[link->w] += dy * x;
  sums->dw_size[link->w] += fabs(dy * x);
}

static inline void conv_sums_new(conv_sums *sums, const conv_fixture *f,
                                 const float *mask)
{
  *sums = (conv_sums){.f = f, .mask = mask};
  double **const all[] = {&sums->y,       &sums->y_size, &sums->dx,
                          &sums->dx_size, &sums->dw,     &sums->dw_size};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    size_t n = i < 2 ? f->n_y : i < 4 ? f->n_x : f->n_weights;
    *all[i] = calloc(n, sizeof **all[i]);
    cr_assert_not_null(*all[i]);
  }
  conv_visit(f, conv_add_link, sums);
}

static inline void conv_sums_free(conv_sums *sums)
{
  free(sums->y);
  free(sums->y_size);
  free(sums->dx);
  free(sums->dx_size);
  free(sums->dw);
  free(sums->dw_size);
}

#endif
