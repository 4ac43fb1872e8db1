/* SPDX-License-Identifier: Apache-2.0 */
/* The transforms of nn.h's Winograd convolution, for files that have included
 * tile_body.h. S. Winograd, "Arithmetic Complexity of Computations", 1980; as
 * convolutions A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
 * Networks", 2016: Y = A^T [(G g G^T) . (B^T d B)] A.
 *
 * Points of F(4, 3) are 0, infinity, 1, -1, 2, -2, in that order; F(m, 3) has
 * the first m + 2. G is that of F(4, 3) for all; for m < 4, rows of B^T carry
 * the quotient of the points' normalisations, prod (a - b) over the points b
 * that F(m, 3) leaves out.
 *
 * Each kernel goes over channels, a vector at a time; on each it does the one
 * dimension for the whole strip, by way of `room`, then the other. Columns
 * between tiles are so transformed down once, not twice. */
#ifndef FLK_NN_WINOGRAD_BODY_H
#define FLK_NN_WINOGRAD_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

enum {
  TILE = FLK_WINOGRAD_TILE,
  POINTS = FLK_WINOGRAD_POINTS,
  STRIP_COLUMNS = TILE * FLK_WINOGRAD_STRIP + 2
};

#define INLINE static inline __attribute__((always_inline))

/* A function whose last argument is a number of rows or columns, as a
 * constant. */
#define WITH_CONSTANT(size, function, ...)    \
  switch (size) {                             \
  case 1: function(__VA_ARGS__, 1); break;    \
  case 2: function(__VA_ARGS__, 2); break;    \
  case 3: function(__VA_ARGS__, 3); break;    \
  case TILE: function(__VA_ARGS__, 4); break; \
  }

#define VEC nn_vec
#define NAMED(name) name##_full
#include "kernels/nn/winograd_points.h"
#include "kernels/nn/winograd_strip.h"
#include "kernels/nn/winograd_weights.h"
#undef VEC
#undef NAMED

#if NN_HAS_HALF
#  define VEC nn_half
#  define NAMED(name) name##_half
#  include "kernels/nn/winograd_points.h"
#  include "kernels/nn/winograd_strip.h"
#  include "kernels/nn/winograd_weights.h"
#  undef VEC
#  undef NAMED
#  define HALF(statement) statement
#else
#  define HALF(statement)
#endif

/* Every vector of channels; half a one may be left. */
#define ALL_CHANNELS(kernel)                             \
  static void kernel(const flk_winograd *w)              \
  {                                                      \
    size_t c = 0;                                        \
    for (; c + NN_WIDTH <= w->channels; c += NN_WIDTH) { \
      kernel##_full(w, c);                               \
    }                                                    \
    HALF(if (c < w->channels) kernel##_half(w, c));      \
  }

ALL_CHANNELS(winograd_data)
ALL_CHANNELS(winograd_result)
ALL_CHANNELS(winograd_result_back)
ALL_CHANNELS(winograd_data_back)

static void winograd_weights(const flk_winograd_weights *p, const float *plain,
                             float *transformed)
{
  size_t j = 0;
  for (; j + NN_WIDTH <= p->width; j += NN_WIDTH) {
    winograd_weights_full(p, plain, transformed, j);
  }
  HALF(if (j < p->width) winograd_weights_half(p, plain, transformed, j));
}

static void winograd_weights_back(const flk_winograd_weights *p,
                                  const float *transformed, float *plain)
{
  size_t j = 0;
  for (; j + NN_WIDTH <= p->width; j += NN_WIDTH) {
    winograd_weights_back_full(p, transformed, plain, j);
  }
  HALF(if (j < p->width) winograd_weights_back_half(p, transformed, plain, j));
}

#undef ALL_CHANNELS
#undef HALF
#undef WITH_CONSTANT

static void fill_winograd(flk_nn_table *table)
{
  table->winograd_data = winograd_data;
  table->winograd_result = winograd_result;
  table->winograd_result_back = winograd_result_back;
  table->winograd_data_back = winograd_data_back;
  table->winograd_weights = winograd_weights;
  table->winograd_weights_back = winograd_weights_back;
}

#endif
