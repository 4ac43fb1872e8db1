/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling by every table of kernels, against the simplest loops in double. */
#include "linalg/pool.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"

enum { SEED = 3, GUARD = 16, BYTE_OF_GUARD = 0xa5 };

typedef struct fixture {
  fli_pool pool;
  size_t n;
  size_t n_x, n_y; /* floats */
  float *x, *y, *dy, *dx;
  uint8_t *chosen;
  char where[160];
} fixture;

static fli_pool pool_of(fli_pool pool)
{
  if (pool.pixel == 0) pool.pixel = (pool.channels + 7) / 8 * 8;
  if (pool.out_pixel == 0) pool.out_pixel = (pool.channels + 7) / 8 * 8;
  pool.out_height =
      (pool.height + 2 * pool.padding - pool.window) / pool.stride + 1;
  pool.out_width =
      (pool.width + 2 * pool.padding - pool.window) / pool.stride + 1;
  return pool;
}

/* Pixels of random values, NaN behind the channels and behind the end. Few
 * values are different, so that maxima often occur twice. */
static float *new_pixels(fli_rng *rng, size_t n, size_t pixel, size_t channels)
{
  float *values = malloc((n + GUARD) * sizeof *values);
  cr_assert_not_null(values);
  for (size_t i = 0; i < n + GUARD; i++) {
    int is_value = i < n && i % pixel < channels;
    values[i] = NAN;
    if (is_value) values[i] = (float)fli_rng_below(rng, 32) / 8.0f - 2.5f;
  }
  return values;
}

static void new_fixture(fixture *f, const fli_pool *pool, size_t n)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, pool->channels, 0);
  *f = (fixture){.pool = *pool, .n = n};
  f->n_x = n * pool->height * pool->width * pool->pixel;
  f->n_y = n * pool->out_height * pool->out_width * pool->out_pixel;
  f->x = new_pixels(&rng, f->n_x, pool->pixel, pool->channels);
  f->dy = new_pixels(&rng, f->n_y, pool->out_pixel, pool->channels);
  f->y = new_pixels(&rng, f->n_y, pool->out_pixel, 0);
  f->dx = new_pixels(&rng, f->n_x, pool->pixel, 0);
  f->chosen = malloc(f->n_y + GUARD);
  cr_assert_not_null(f->chosen);
  memset(f->chosen, BYTE_OF_GUARD, f->n_y + GUARD);
  (void)snprintf(f->where, sizeof f->where,
                 "%s, seed %d: %zu images %zux%zux%zu (pixel %zu), window %zu "
                 "stride %zu padding %zu",
                 flk_nn()->name, SEED, n, pool->height, pool->width,
                 pool->channels, pool->pixel, pool->window, pool->stride,
                 pool->padding);
}

static void free_fixture(fixture *f)
{
  for (size_t i = 0; i < GUARD; i++) {
    cr_assert(isnan(f->y[f->n_y + i]) && isnan(f->dx[f->n_x + i]), "%s",
              f->where);
    cr_assert(f->chosen[f->n_y + i] == BYTE_OF_GUARD, "%s", f->where);
  }
  free(f->x);
  free(f->y);
  free(f->dy);
  free(f->dx);
  free(f->chosen);
}

/* Where element `place` of output k's window is in x, or SIZE_MAX. */
static size_t place_in_x(const fli_pool *p, size_t k, size_t place)
{
  size_t channel = k % p->out_pixel;
  size_t pixel = k / p->out_pixel;
  size_t image = pixel / p->out_width / p->out_height;
  size_t h = pixel / p->out_width % p->out_height * p->stride;
  size_t w = pixel % p->out_width * p->stride;
  h += place / p->window;
  w += place % p->window;
  if (h < p->padding || h - p->padding >= p->height) return SIZE_MAX;
  if (w < p->padding || w - p->padding >= p->width) return SIZE_MAX;
  h -= p->padding;
  w -= p->padding;
  return ((image * p->height + h) * p->width + w) * p->pixel + channel;
}

static void check_gradient(const fixture *f, const double *want)
{
  for (size_t i = 0; i < f->n_x; i++) {
    if (i % f->pool.pixel >= f->pool.channels) continue;
    cr_assert(fabs((double)f->dx[i] - want[i]) < 1e-4, "%s: dx %zu: %g, %g",
              f->where, i, (double)f->dx[i], want[i]);
  }
}

static void check_max(fixture *f, int does_relu)
{
  const fli_pool *p = &f->pool;
  double *want = calloc(f->n_x, sizeof *want);
  cr_assert_not_null(want);
  fli_max_pool(p, f->n, f->x, does_relu, f->y, f->chosen);
  fli_max_pool_back(p, f->n, f->dy, f->chosen, f->dx);
  for (size_t k = 0; k < f->n_y; k++) {
    if (k % p->out_pixel >= p->channels) continue;
    size_t best = SIZE_MAX;
    size_t best_place = 0;
    for (size_t place = 0; place < p->window * p->window; place++) {
      size_t at = place_in_x(p, k, place);
      if (at == SIZE_MAX) continue;
      if (best != SIZE_MAX && !(f->x[at] > f->x[best])) continue;
      best = at;
      best_place = place;
    }
    int is_off = does_relu && f->x[best] <= 0.0f;
    cr_assert(f->y[k] == (is_off ? 0.0f : f->x[best]), "%s: y %zu", f->where,
              k);
    cr_assert(f->chosen[k] == (is_off ? FLI_POOL_OFF : best_place),
              "%s: chosen %zu: %d", f->where, k, f->chosen[k]);
    if (!is_off) want[best] += (double)f->dy[k];
  }
  check_gradient(f, want);
  free(want);
}

static void check_average(fixture *f)
{
  const fli_pool *p = &f->pool;
  double size = (double)(p->window * p->window);
  double *want = calloc(f->n_x, sizeof *want);
  cr_assert_not_null(want);
  fli_average_pool(p, f->n, f->x, f->y);
  fli_average_pool_back(p, f->n, f->dy, f->dx);
  for (size_t k = 0; k < f->n_y; k++) {
    double sum = 0.0;
    if (k % p->out_pixel >= p->channels) continue;
    for (size_t place = 0; place < p->window * p->window; place++) {
      size_t at = place_in_x(p, k, place);
      if (at == SIZE_MAX) continue;
      sum += (double)f->x[at];
      want[at] += (double)f->dy[k] / size;
    }
    cr_assert(fabs((double)f->y[k] - sum / size) < 1e-5, "%s: y %zu: %g, %g",
              f->where, k, (double)f->y[k], sum / size);
  }
  check_gradient(f, want);
  free(want);
}

static void check_pool(fli_pool wanted, size_t n)
{
  if (wanted.height + 2 * wanted.padding < wanted.window) return;
  if (wanted.width + 2 * wanted.padding < wanted.window) return;
  fli_pool pool = pool_of(wanted);
  for (size_t t = 0; flk_nn_at(t); t++) {
    fixture f;
    cr_assert(flk_nn_choose(flk_nn_at(t)->name));
    new_fixture(&f, &pool, n);
    check_max(&f, 0);
    check_max(&f, 1);
    check_average(&f);
    free_fixture(&f);
  }
  (void)flk_nn_choose(NULL);
}

Test(pool, windows_strides_and_paddings)
{
  static const size_t windows[] = {1, 2, 3, 5, FLI_POOL_WINDOW_MAX};
  static const size_t maps[][2] = {{1, 1}, {2, 3}, {7, 7}, {14, 12}, {5, 17}};
  for (size_t i = 0; i < FLI_COUNT_OF(windows); i++) {
    for (size_t m = 0; m < FLI_COUNT_OF(maps); m++) {
      for (size_t stride = 1; stride <= 4; stride++) {
        for (size_t padding = 0; padding < windows[i]; padding++) {
          check_pool((fli_pool){.height = maps[m][0],
                                .width = maps[m][1],
                                .channels = 3,
                                .window = windows[i],
                                .stride = stride,
                                .padding = padding},
                     1 + m % 2);
        }
      }
    }
  }
}

Test(pool, numbers_of_channels_and_lengths_of_pixels)
{
  static const size_t channels[] = {1, 3, 6, 7, 8, 9, 16, 17, 24, 33};
  for (size_t c = 0; c < FLI_COUNT_OF(channels); c++) {
    for (size_t window = 2; window <= 3; window++) {
      fli_pool pool = {.height = 6,
                       .width = 8,
                       .channels = channels[c],
                       .window = window,
                       .stride = 2,
                       .padding = window - 2};
      check_pool(pool, 3);
      pool.pixel = channels[c];
      check_pool(pool, 2);
      pool.pixel = channels[c] + 3;
      pool.out_pixel = channels[c] / 8 * 8 + 16;
      check_pool(pool, 1);
    }
  }
}

Test(pool, no_images_touch_nothing)
{
  fli_pool pool = pool_of((fli_pool){
      .height = 4, .width = 4, .channels = 8, .window = 2, .stride = 2});
  fixture f;
  new_fixture(&f, &pool, 1);
  fli_max_pool(&pool, 0, f.x, 1, f.y, f.chosen);
  fli_max_pool_back(&pool, 0, f.dy, f.chosen, f.dx);
  fli_average_pool(&pool, 0, f.x, f.y);
  fli_average_pool_back(&pool, 0, f.dy, f.dx);
  for (size_t i = 0; i < f.n_y; i++) {
    cr_assert(isnan(f.y[i]) && f.chosen[i] == BYTE_OF_GUARD);
  }
  for (size_t i = 0; i < f.n_x; i++) {
    cr_assert(isnan(f.dx[i]));
  }
  free_fixture(&f);
}

Test(pool, nan_is_the_maximum_with_and_without_relu)
{
  fli_pool pool = pool_of((fli_pool){
      .height = 4, .width = 4, .channels = 1, .window = 2, .stride = 2});
  for (size_t t = 0; flk_nn_at(t); t++) {
    cr_assert(flk_nn_choose(flk_nn_at(t)->name));
    for (size_t place = 0; place < 4; place++) {
      for (int does_relu = 0; does_relu < 2; does_relu++) {
        fixture f;
        new_fixture(&f, &pool, 1);
        f.x[place_in_x(&pool, 8, place)] = NAN;
        fli_max_pool(&pool, 1, f.x, does_relu, f.y, f.chosen);
        fli_max_pool_back(&pool, 1, f.dy, f.chosen, f.dx);
        cr_assert(isnan(f.y[8]) && f.chosen[8] == place);
        cr_assert(!isnan(f.y[0]) && !isnan(f.y[16]) && !isnan(f.y[24]));
        cr_assert(f.dx[place_in_x(&pool, 8, place)] == f.dy[8]);
        free_fixture(&f);
      }
    }
  }
  (void)flk_nn_choose(NULL);
}

Test(pool, infinite_values_are_pooled)
{
  fli_pool pool = pool_of((fli_pool){
      .height = 2, .width = 2, .channels = 8, .window = 2, .stride = 2});
  fixture f;
  new_fixture(&f, &pool, 1);
  for (size_t i = 0; i < f.n_x; i++) {
    f.x[i] = -INFINITY;
  }
  fli_max_pool(&pool, 1, f.x, 0, f.y, f.chosen);
  cr_assert(f.y[0] == -INFINITY && f.chosen[0] == 0);
  fli_max_pool(&pool, 1, f.x, 1, f.y, f.chosen);
  cr_assert(f.y[0] == 0.0f && f.chosen[0] == FLI_POOL_OFF);
  f.x[3 * 8] = INFINITY;
  fli_max_pool(&pool, 1, f.x, 1, f.y, f.chosen);
  cr_assert(f.y[0] == INFINITY && f.chosen[0] == 3);
  free_fixture(&f);
}
