/* SPDX-License-Identifier: Apache-2.0 */
/* What convolutions need besides the register tile: copies of pixels, sums
 * over pixels, and depthwise products (nn.h). Included once per instruction
 * set, after tile_body.h. */
#ifndef FLK_NN_CONV_BODY_H
#define FLK_NN_CONV_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

enum {
  DEPTHWISE_PIXELS = 7, /* outputs kept in registers at a time */
  DEPTHWISE_TAPS = 9,   /* taps' gradients kept in registers at a time */
  SUM_LANES = 8
};

/* What every machine has, and what every row of lanes consists of. */
typedef float nn_four __attribute__((vector_size(16), aligned(4), may_alias));
typedef float nn_eight __attribute__((vector_size(32), aligned(4), may_alias));

#define VEC nn_vec
#define NAMED(name) name##_full
#include "kernels/nn/conv_rows.h"
#undef VEC
#undef NAMED

#if NN_HAS_HALF
#  define VEC nn_half
#  define NAMED(name) name##_half
#  include "kernels/nn/conv_rows.h"
#  undef VEC
#  undef NAMED
#endif

/* Lanes come in eights, so that what is left behind whole vectors is one half
 * at most. */
static void depthwise(const flk_depthwise *d)
{
  size_t lane = 0;
  for (; lane + NN_WIDTH <= d->lanes; lane += NN_WIDTH) {
    depthwise_lanes_full(d, lane);
  }
#if NN_HAS_HALF
  if (lane < d->lanes) depthwise_lanes_half(d, lane);
#endif
}

static void depthwise_sums(const flk_depthwise *d)
{
  size_t lane = 0;
  for (; lane + NN_WIDTH <= d->lanes; lane += NN_WIDTH) {
    depthwise_sums_lanes_full(d, lane);
  }
#if NN_HAS_HALF
  if (lane < d->lanes) depthwise_sums_lanes_half(d, lane);
#endif
}

/* `is_masked` is a constant where it is called. */
static inline __attribute__((always_inline)) void
copy_floats(float *dst, const float *src, const float *mask, size_t n,
            int is_masked)
{
  size_t i = 0;
  for (; i + NN_WIDTH <= n; i += NN_WIDTH) {
    nn_vec value = *(const nn_vec *)(src + i);
    if (is_masked) {
      nn_ivec is_on = *(const nn_vec *)(mask + i) > 0.0f;
      value = (nn_vec)(is_on & (nn_ivec)value);
    }
    *(nn_vec *)(dst + i) = value;
  }
  for (; i + 4 <= n; i += 4) {
    nn_four value = *(const nn_four *)(src + i);
    if (is_masked) {
      __typeof__(value > 0.0f) is_on = *(const nn_four *)(mask + i) > 0.0f;
      value = (nn_four)(is_on & (__typeof__(is_on))value);
    }
    *(nn_four *)(dst + i) = value;
  }
  for (; i < n; i++) {
    dst[i] = !is_masked || mask[i] > 0.0f ? src[i] : 0.0f;
  }
}

static inline __attribute__((always_inline)) void copy_each(const flk_pixels *p,
                                                            int is_masked)
{
  if (p->src_pixel == p->channels && p->dst_pixel == p->channels) {
    copy_floats(p->dst, p->src, p->mask, p->n * p->channels, is_masked);
    return;
  }
  for (size_t i = 0; i < p->n; i++) {
    size_t at = i * p->src_pixel;
    copy_floats(p->dst + i * p->dst_pixel, p->src + at,
                is_masked ? p->mask + at : NULL, p->channels, is_masked);
  }
}

static void copy_pixels(const flk_pixels *p)
{
  if (p->mask) {
    copy_each(p, 1);
  } else {
    copy_each(p, 0);
  }
}

/* Eight lanes of all pixels, in four sums that do not wait for each other. */
static inline __attribute__((always_inline)) void
sum_eight(const flk_pixels *p, size_t lane, int is_masked)
{
  nn_eight sum[4] = {{0}};
  const float *src = p->src + lane;
  const float *mask = is_masked ? p->mask + lane : src;
  for (size_t i = 0; i < p->n; i += 4) {
    UNROLL for (size_t k = 0; k < 4; k++)
    {
      if (i + k >= p->n) break;
      nn_eight value = *(const nn_eight *)(src + (i + k) * p->src_pixel);
      if (is_masked) {
        __typeof__(value > 0.0f) is_on =
            *(const nn_eight *)(mask + (i + k) * p->src_pixel) > 0.0f;
        value = (nn_eight)(is_on & (__typeof__(is_on))value);
      }
      sum[k] += value;
    }
  }
  *(nn_eight *)(p->dst + lane) += (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void sum_pixels(const flk_pixels *p)
{
  for (size_t lane = 0; lane < p->channels; lane += SUM_LANES) {
    if (p->mask) {
      sum_eight(p, lane, 1);
    } else {
      sum_eight(p, lane, 0);
    }
  }
}

static void fill_convolutions(flk_nn_table *table)
{
  table->copy_pixels = copy_pixels;
  table->sum_pixels = sum_pixels;
  table->depthwise = depthwise;
  table->depthwise_sums = depthwise_sums;
}

#endif
