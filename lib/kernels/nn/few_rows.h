/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of few input channels, of one vector type, for few_body.h,
 * which defines VEC and NAMED(name). Included once per type: no guard. Numbers
 * of kernel rows and of their floats are constants where these are called, so
 * that weights (or sums) stay in registers as far as there are enough. */

/* `n` outputs side by side. */
static inline __attribute__((always_inline)) void
NAMED(few_pixels)(const flk_few *f, const float *x, float *y, const VEC *w,
                  size_t n_taps, size_t run, size_t n)
{
  VEC sum[FEW_PIXELS];
  UNROLL for (size_t i = 0; i < n; i++)
  {
    sum[i] = f->bias ? *(const VEC *)f->bias : (VEC){0};
  }
  UNROLL_FEW for (size_t t = 0; t < n_taps; t++)
  {
    const float *from = x + (ptrdiff_t)(t / run) * f->x_row + t % run;
    UNROLL for (size_t i = 0; i < n; i++)
    {
      sum[i] += (from[(ptrdiff_t)i * f->x_step] - (VEC){0}) * w[t];
    }
  }
  UNROLL for (size_t i = 0; i < n; i++)
  {
    VEC value = sum[i];
    /* NaN stays */
    if (f->does_relu) {
      value = (VEC)(~(value < 0.0f) & (__typeof__(value < value))value);
    }
    *(VEC *)(y + (ptrdiff_t)i * f->y_pixel) = value;
  }
}

static inline __attribute__((always_inline)) void
NAMED(few_outputs)(const flk_few *f, size_t rows, size_t run)
{
  VEC w[FEW_TAPS];
  const size_t most = FEW_AT_ONCE(rows * run);
  UNROLL_FEW for (size_t t = 0; t < rows * run; t++)
  {
    w[t] = *(const VEC *)(f->weights + (ptrdiff_t)t * f->tap);
  }
  for (size_t r = 0; r < f->n_rows; r++) {
    const float *x = f->x + (ptrdiff_t)r * f->x_next;
    float *y = f->y + (ptrdiff_t)r * f->y_row;
    size_t i = 0;
    for (; i + most <= f->n; i += most) {
      NAMED(few_pixels)(f, x, y, w, rows * run, run, most);
      x += (ptrdiff_t)most * f->x_step;
      y += (ptrdiff_t)most * f->y_pixel;
    }
    for (; i + 2 <= f->n; i += 2) {
      NAMED(few_pixels)(f, x, y, w, rows * run, run, 2);
      x += 2 * f->x_step;
      y += 2 * f->y_pixel;
    }
    if (i < f->n) NAMED(few_pixels)(f, x, y, w, rows * run, run, 1);
  }
}

/* Sums of `rows` kernel rows from kernel row `first` on, and of the gradients
 * themselves with the first one. */
static inline __attribute__((always_inline)) void
NAMED(few_some_sums)(const flk_few *f, size_t first, size_t rows, size_t run,
                     int is_masked)
{
  VEC sum[FEW_TAPS];
  VEC total = {0};
  float *sums = f->sums + (ptrdiff_t)(first * run) * f->tap;
  UNROLL_FEW for (size_t t = 0; t < rows * run; t++)
  {
    sum[t] = *(const VEC *)(sums + (ptrdiff_t)t * f->tap);
  }
  for (size_t r = 0; r < f->n_rows; r++) {
    const float *x = f->x + (ptrdiff_t)r * f->x_next;
    const float *dy = f->dy + (ptrdiff_t)r * f->y_row;
    const float *mask = is_masked ? f->mask + (ptrdiff_t)r * f->y_row : dy;
    x += (ptrdiff_t)first * f->x_row;
    for (size_t i = 0; i < f->n; i++) {
      VEC g = *(const VEC *)dy;
      if (is_masked) {
        VEC on = *(const VEC *)mask;
        g = (VEC)((on > 0.0f) & (__typeof__(on > 0.0f))g);
        mask += f->y_pixel;
      }
      total += g;
      UNROLL_FEW for (size_t t = 0; t < rows * run; t++)
      {
        const float *from = x + (ptrdiff_t)(t / run) * f->x_row + t % run;
        sum[t] += (*from - (VEC){0}) * g;
      }
      x += f->x_step;
      dy += f->y_pixel;
    }
  }
  UNROLL_FEW for (size_t t = 0; t < rows * run; t++)
  {
    *(VEC *)(sums + (ptrdiff_t)t * f->tap) = sum[t];
  }
  if (first == 0) *(VEC *)f->totals += total;
}

static inline __attribute__((always_inline)) void
NAMED(few_sums)(const flk_few *f, size_t rows, size_t run)
{
  const size_t most = FEW_ROWS_AT_ONCE(rows, run);
  size_t first = 0;
  for (; first + most <= rows; first += most) {
    if (f->mask) {
      NAMED(few_some_sums)(f, first, most, run, 1);
    } else {
      NAMED(few_some_sums)(f, first, most, run, 0);
    }
  }
  if (rows % most == 0) return;
  if (f->mask) {
    NAMED(few_some_sums)(f, first, rows % most, run, 1);
  } else {
    NAMED(few_some_sums)(f, first, rows % most, run, 0);
  }
}

#define EACH_SHAPE(function, rows, run)                                   \
  static __attribute__((noinline)) void NAMED(function##_##rows##x##run)( \
      const flk_few *f)                                                   \
  {                                                                       \
    NAMED(function)(f, rows, run);                                        \
  }
EACH_SHAPE(few_outputs, 3, 3)
EACH_SHAPE(few_outputs, 3, 9)
EACH_SHAPE(few_outputs, 5, 5)
EACH_SHAPE(few_sums, 3, 3)
EACH_SHAPE(few_sums, 3, 9)
EACH_SHAPE(few_sums, 5, 5)
#undef EACH_SHAPE
