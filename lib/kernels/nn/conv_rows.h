/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise kernels of one vector type, for conv_body.h, which defines VEC and
 * NAMED(name). Included once per type: no guard. All work on one vector of
 * channels, `lane` floats behind the first one. */

/* `n` outputs side by side; a constant where it is called. */
static inline __attribute__((always_inline)) void
NAMED(depthwise)(const flk_depthwise *d, size_t at, size_t lane, size_t n)
{
  VEC sum[DEPTHWISE_PIXELS];
  const float *x = d->x + (ptrdiff_t)at * d->x_pixel + lane;
  float *y = d->y + (ptrdiff_t)at * d->y_pixel + lane;
  UNROLL for (size_t i = 0; i < n; i++)
  {
    sum[i] = (VEC){0};
    if (d->is_added) sum[i] = *(const VEC *)(y + (ptrdiff_t)i * d->y_pixel);
  }
  for (size_t t = 0; t < d->n_taps; t++) {
    VEC w = *(const VEC *)(d->weights + d->weight_offsets[t] + lane);
    const float *from = x + d->x_offsets[t];
    UNROLL for (size_t i = 0; i < n; i++)
    {
      sum[i] += w * *(const VEC *)(from + (ptrdiff_t)i * d->x_pixel);
    }
  }
  UNROLL for (size_t i = 0; i < n; i++)
  {
    VEC value = sum[i];
    if (d->bias) value += *(const VEC *)(d->bias + lane);
    /* NaN stays */
    if (d->does_relu) {
      value = (VEC)(~(value < 0.0f) & (__typeof__(value < value))value);
    }
    *(VEC *)(y + (ptrdiff_t)i * d->y_pixel) = value;
  }
}

static __attribute__((noinline)) void
NAMED(depthwise_lanes)(const flk_depthwise *d, size_t lane)
{
  size_t at = 0;
  for (; at + DEPTHWISE_PIXELS <= d->n; at += DEPTHWISE_PIXELS) {
    NAMED(depthwise)(d, at, lane, DEPTHWISE_PIXELS);
  }
  for (; at + 3 <= d->n; at += 3) {
    NAMED(depthwise)(d, at, lane, 3);
  }
  for (; at < d->n; at++) {
    NAMED(depthwise)(d, at, lane, 1);
  }
}

/* Gradients of `n` taps, a constant where it is called. */
static inline __attribute__((always_inline)) void
NAMED(depthwise_sums)(const flk_depthwise *d, size_t tap, size_t lane, size_t n)
{
  VEC sum[DEPTHWISE_TAPS];
  const float *from[DEPTHWISE_TAPS];
  const float *dy = d->dy + lane;
  ptrdiff_t step = 0;
  UNROLL for (size_t t = 0; t < n; t++)
  {
    sum[t] = *(VEC *)(d->sums + d->weight_offsets[tap + t] + lane);
    from[t] = d->x + d->x_offsets[tap + t] + lane;
  }
  for (size_t i = 0; i < d->n; i++) {
    VEC g = *(const VEC *)dy;
    UNROLL for (size_t t = 0; t < n; t++)
    {
      sum[t] += g * *(const VEC *)(from[t] + step);
    }
    dy += d->y_pixel;
    step += d->x_pixel;
  }
  UNROLL for (size_t t = 0; t < n; t++)
  {
    *(VEC *)(d->sums + d->weight_offsets[tap + t] + lane) = sum[t];
  }
}

static __attribute__((noinline)) void
NAMED(depthwise_sums_lanes)(const flk_depthwise *d, size_t lane)
{
  size_t tap = 0;
  for (; tap + DEPTHWISE_TAPS <= d->n_taps; tap += DEPTHWISE_TAPS) {
    NAMED(depthwise_sums)(d, tap, lane, DEPTHWISE_TAPS);
  }
  for (; tap + 3 <= d->n_taps; tap += 3) {
    NAMED(depthwise_sums)(d, tap, lane, 3);
  }
  for (; tap < d->n_taps; tap++) {
    NAMED(depthwise_sums)(d, tap, lane, 1);
  }
}
