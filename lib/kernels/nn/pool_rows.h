/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling of one vector type, for pool_body.h, which defines VEC, IVEC
 * (as many int32_t), PLACES and PUT_PLACES (as many bytes), and NAMED(name).
 * Included once per type: no guard. All work on one vector of channels, `lane`
 * floats behind the first one, of output i. The number of taps is a constant
 * where it is called, if it is a common one. */

static inline __attribute__((always_inline)) void
NAMED(max_pool)(const flk_pool *p, size_t i, size_t lane, size_t n_taps)
{
  const float *x = p->x + (ptrdiff_t)i * p->x_step + lane;
  VEC best = *(const VEC *)(x + p->offsets[0]);
  IVEC place = p->places[0] - (IVEC){0};
  for (size_t t = 1; t < n_taps; t++) {
    VEC value = *(const VEC *)(x + p->offsets[t]);
    IVEC is_better = (value > best) | (value != value);
    IVEC here = p->places[t] - (IVEC){0};
    best = (VEC)((is_better & (IVEC)value) | (~is_better & (IVEC)best));
    place = (is_better & here) | (~is_better & place);
  }
  if (p->does_relu) {
    IVEC is_off = best <= 0.0f;
    best = (VEC)(~is_off & (IVEC)best);
    place |= is_off & FLK_POOL_OFF;
  }
  *(VEC *)(p->y + i * p->y_pixel + lane) = best;
  PUT_PLACES((void *)(p->chosen + i * p->y_pixel + lane), place);
}

static inline __attribute__((always_inline)) void
NAMED(max_pool_back)(const flk_pool *p, size_t i, size_t lane, size_t n_taps)
{
  float *dx = p->dx + (ptrdiff_t)i * p->x_step + lane;
  size_t at = i * p->y_pixel + lane;
  IVEC dy = (IVEC) * (const VEC *)(p->dy + at);
  IVEC chosen = PLACES((const void *)(p->was_chosen + at));
  for (size_t t = 0; t < n_taps; t++) {
    VEC *to = (VEC *)(dx + p->offsets[t]);
    VEC value = (VEC)((chosen == p->places[t]) & dy);
    if (p->is_added) value += *to;
    *to = value;
  }
}

static inline __attribute__((always_inline)) void
NAMED(sum_pool)(const flk_pool *p, size_t i, size_t lane, size_t n_taps)
{
  const float *x = p->x + (ptrdiff_t)i * p->x_step + lane;
  VEC sum = {0};
  for (size_t t = 0; t < n_taps; t++) {
    sum += *(const VEC *)(x + p->offsets[t]);
  }
  *(VEC *)(p->y + i * p->y_pixel + lane) = sum * p->scale;
}

static inline __attribute__((always_inline)) void
NAMED(sum_pool_back)(const flk_pool *p, size_t i, size_t lane, size_t n_taps)
{
  float *dx = p->dx + (ptrdiff_t)i * p->x_step + lane;
  VEC dy = *(const VEC *)(p->dy + i * p->y_pixel + lane) * p->scale;
  for (size_t t = 0; t < n_taps; t++) {
    VEC *to = (VEC *)(dx + p->offsets[t]);
    VEC value = dy;
    if (p->is_added) value += *to;
    *to = value;
  }
}
