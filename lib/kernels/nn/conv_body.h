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

/* The value where the mask is > 0, else 0; `is_masked` is a constant where it
 * is called, as below. */
#define MASKED(type, value, mask) \
  ((type)((*(const type *)(mask) > 0.0f) & (__typeof__((value) > 0.0f))(value)))

static inline __attribute__((always_inline)) void
copy_four(float *dst, const float *src, const float *mask, int is_masked)
{
  nn_four value = *(const nn_four *)src;
  if (is_masked) value = MASKED(nn_four, value, mask);
  *(nn_four *)dst = value;
}

static inline __attribute__((always_inline)) void
copy_floats(float *dst, const float *src, const float *mask, size_t n,
            int is_masked)
{
  size_t i = 0;
  for (; i + NN_WIDTH <= n; i += NN_WIDTH) {
    nn_vec value = *(const nn_vec *)(src + i);
    if (is_masked) value = MASKED(nn_vec, value, mask + i);
    *(nn_vec *)(dst + i) = value;
  }
  for (; i + 4 <= n; i += 4) {
    copy_four(dst + i, src + i, mask + i, is_masked);
  }
  if (i == n) return;
  if (n >= 4) {
    /* once more what is copied already, rather than float by float */
    copy_four(dst + n - 4, src + n - 4, mask + n - 4, is_masked);
    return;
  }
  for (; i < n; i++) {
    float value = src[i];
    dst[i] = is_masked && !(mask[i] > 0.0f) ? 0.0f : value;
  }
}

static inline __attribute__((always_inline)) void copy_each(const flk_pixels *p,
                                                            int is_masked)
{
  if (p->src_pixel == p->channels && p->dst_pixel == p->channels) {
    copy_floats(p->dst, p->src, is_masked ? p->mask : p->src,
                p->n * p->channels, is_masked);
    return;
  }
  for (size_t i = 0; i < p->n; i++) {
    size_t at = i * p->src_pixel;
    copy_floats(p->dst + i * p->dst_pixel, p->src + at,
                (is_masked ? p->mask : p->src) + at, p->channels, is_masked);
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

/* By pointer: returning vectors is an ABI of its own without AVX. */
static inline __attribute__((always_inline)) void
add_eight(nn_eight *sum, const flk_pixels *p, size_t i, size_t lane,
          int is_masked)
{
  size_t at = i * p->src_pixel + lane;
  nn_eight value = *(const nn_eight *)(p->src + at);
  *sum += is_masked ? MASKED(nn_eight, value, p->mask + at) : value;
}

/* Eight lanes of all pixels, in four sums that do not wait for each other. */
static inline __attribute__((always_inline)) void
sum_eight(const flk_pixels *p, size_t lane, int is_masked)
{
  nn_eight sum[4] = {{0}};
  size_t i = 0;
  for (; i + 4 <= p->n; i += 4) {
    UNROLL for (size_t k = 0; k < 4; k++)
    {
      add_eight(&sum[k], p, i + k, lane, is_masked);
    }
  }
  for (; i < p->n; i++) {
    add_eight(&sum[0], p, i, lane, is_masked);
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
