/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling, forward and backward, on images [height][width][pixel] as in
 * conv.h: inputs may have any pixel, outputs a multiple of eight that holds all
 * channels, and what is behind the channels is unspecified. D1; images do not
 * depend on each other. */
#ifndef FLI_POOL_H
#define FLI_POOL_H

#include <fl/base.h>

enum {
  FLI_POOL_WINDOW_MAX = 15, /* places in a window have to fit into a byte */
  FLI_POOL_OFF = 255        /* the maximum was not > 0, and ReLU made it 0 */
};

typedef struct fli_pool {
  size_t height, width, channels, pixel; /* input */
  size_t out_height, out_width, out_pixel;
  size_t window;  /* rows and columns, 1..FLI_POOL_WINDOW_MAX */
  size_t stride;  /* >= 1 */
  size_t padding; /* < window */
} fli_pool;

/* Maxima of n images' windows, without what is padding, then max(0, ...) with
 * does_relu. chosen, like y: the place (row * window + column) of the maximum,
 * the first one of equals, or FLI_POOL_OFF. NaN is greater than all. */
void fli_max_pool(const fli_pool *pool, size_t n, const float *x, int does_relu,
                  float *y, uint8_t *chosen);
/* dx is overwritten. */
void fli_max_pool_back(const fli_pool *pool, size_t n, const float *dy,
                       const uint8_t *chosen, float *dx);

/* Averages over whole windows, in which padding counts as zeros. */
void fli_average_pool(const fli_pool *pool, size_t n, const float *x, float *y);
void fli_average_pool_back(const fli_pool *pool, size_t n, const float *dy,
                           float *dx);

#endif
