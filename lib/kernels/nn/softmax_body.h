/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of softmax.h; included once per instruction set. Sums within a
 * row are of vectors over at most SUM_RUN floats, then in double. */
#ifndef FLK_NN_SOFTMAX_BODY_H
#define FLK_NN_SOFTMAX_BODY_H

#include "base/dmath.h"
#include "kernels/nn/nn.h"
#include "kernels/nn/vec_math.h"
#include "kernels/nn/vec_wide.h"

enum { SUM_RUN = 64 * NN_WIDTH };

#define MINUS_INFINITY (-__builtin_inff())

static inline float row_greatest(const float *x, size_t n)
{
  nn_vec greatest = vec_of(MINUS_INFINITY);
  NN_EACH(n, greatest =
                 vec_max(greatest, vec_get_or(x + at, count, MINUS_INFINITY)));
  return vec_greatest(greatest);
}

/* y = e^(x - greatest); their sum. y NULL: only the sum. */
static inline double row_exp(float *y, const float *x, size_t n, float greatest)
{
  double sum = 0.0;
  for (size_t from = 0; from < n; from += SUM_RUN) {
    size_t run = n - from < SUM_RUN ? n - from : SUM_RUN;
    nn_vec part = {0};
    for (size_t at = 0; at < run; at += NN_WIDTH) {
      size_t count = run - at;
      nn_vec e = vec_exp_down(vec_get_or(x + from + at, count, MINUS_INFINITY) -
                              greatest);
      part += e;
      if (y) vec_put(y + from + at, e, count);
    }
    sum += (double)vec_sum(part);
  }
  return sum;
}

/* Rows of at most n_vectors vectors stay in registers. */
NN_INLINE void softmax_rows(float *y, const float *x, size_t rows, size_t n,
                            size_t n_vectors)
{
  const size_t last = n - (n_vectors - 1) * NN_WIDTH;
  for (size_t r = 0; r < rows; r++, x += n, y += n) {
    nn_vec e[4];
    nn_vec greatest = vec_of(MINUS_INFINITY);
    nn_vec sum = {0};
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
      e[v] = vec_get_or(x + v * NN_WIDTH, count, MINUS_INFINITY);
      greatest = vec_max(greatest, e[v]);
    }
    greatest = vec_of(vec_greatest(greatest));
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      e[v] = vec_exp_down(e[v] - greatest);
      sum += e[v];
    }
    sum = vec_of(1.0f / vec_sum(sum));
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
      vec_put(y + v * NN_WIDTH, e[v] * sum, count);
    }
  }
}

static void softmax(float *y, const float *x, size_t rows, size_t n)
{
  if (n == 0) return;
  switch ((n - 1) / NN_WIDTH) {
  case 0: softmax_rows(y, x, rows, n, 1); return;
  case 1: softmax_rows(y, x, rows, n, 2); return;
  case 2: softmax_rows(y, x, rows, n, 3); return;
  case 3: softmax_rows(y, x, rows, n, 4); return;
  }
  for (size_t r = 0; r < rows; r++, x += n, y += n) {
    double sum = row_exp(y, x, n, row_greatest(x, n));
    float factor = (float)(1.0 / sum);
    NN_EACH(n, vec_put(y + at, vec_get(y + at, count) * factor, count));
  }
}

static void softmax_back(float *dx, const float *dy, const float *y,
                         size_t rows, size_t n)
{
  for (size_t r = 0; r < rows; r++, dx += n, dy += n, y += n) {
    nn_vec sum = {0};
    NN_EACH(n, sum += vec_get(y + at, count) * vec_get(dy + at, count));
    nn_vec mean = vec_of(vec_sum(sum));
    NN_EACH(n,
            vec_put(dx + at,
                    vec_get(y + at, count) * (vec_get(dy + at, count) - mean),
                    count));
  }
}

static inline double row_sum(const float *x, size_t n)
{
  nn_wide sum[2] = {{0}};
  NN_EACH(n, wide_add(sum, vec_get(x + at, count)));
  return wide_sum(sum[0] + sum[1]);
}

/* loss = log-sum-exp - (1 - smoothing) x[target] - smoothing mean(x), less the
 * logarithm of a sum that `product` is multiplied with. */
static double cross_entropy_row(const flk_cross_entropy *loss, size_t r,
                                float *gradient, double *product)
{
  const float *x = loss->logits + r * loss->n;
  const int32_t target = loss->targets[r];
  size_t n = loss->n;
  double smoothing = (double)loss->smoothing;
  float greatest = row_greatest(x, n);
  double share = smoothing / (double)n;
  double value = (double)greatest - (1.0 - smoothing) * (double)x[target];
  if (smoothing > 0.0) value -= share * row_sum(x, n);
  double sum = row_exp(gradient, x, n, greatest);
  *product *= sum;
  if (!gradient) return value;
  float factor = (float)((double)loss->factor / sum);
  float less = (float)((double)loss->factor * share);
  NN_EACH(n, vec_put(gradient + at,
                     vec_get(gradient + at, count) * factor - less, count));
  gradient[target] -= loss->factor * (1.0f - loss->smoothing);
  return value;
}

/* The same for rows of at most n_vectors vectors, which stay in registers. */
NN_INLINE double cross_entropy_short(const flk_cross_entropy *loss, size_t r,
                                     float *gradient, double *product,
                                     size_t n_vectors)
{
  const float *x = loss->logits + r * loss->n;
  const int32_t target = loss->targets[r];
  const size_t last = loss->n - (n_vectors - 1) * NN_WIDTH;
  const double share = (double)loss->smoothing / (double)loss->n;
  nn_vec e[2];
  nn_vec greatest = vec_of(MINUS_INFINITY);
  nn_vec sum = {0};
  double value = ((double)loss->smoothing - 1.0) * (double)x[target];
  if (share > 0.0) value -= share * row_sum(x, loss->n);
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
    e[v] = vec_get_or(x + v * NN_WIDTH, count, MINUS_INFINITY);
    greatest = vec_max(greatest, e[v]);
  }
  const float top = vec_greatest(greatest);
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    e[v] = vec_exp_down(e[v] - top);
    sum += e[v];
  }
  const float total = vec_sum(sum);
  *product *= (double)total;
  value += (double)top;
  if (!gradient) return value;
  const float factor = loss->factor / total;
  const float less = loss->factor * (float)share;
  const float hot = loss->factor * (1.0f - loss->smoothing);
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    size_t count = v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
    nn_ivec is_target = vec_lanes() == target - (int32_t)(v * NN_WIDTH);
    nn_vec wanted = vec_of(less) + (nn_vec)(is_target & (nn_ivec)vec_of(hot));
    vec_put(gradient + v * NN_WIDTH, e[v] * factor - wanted, count);
  }
  return value;
}

/* A sum is 1..n, below 2^31: the product of those of LOG_RUN rows is finite,
 * and its logarithm is what theirs add up to. */
static double cross_entropy(const flk_cross_entropy *loss)
{
  enum { LOG_RUN = 32 };
  double sum = 0.0;
  double product = 1.0;
  for (size_t r = 0; loss->n > 0 && r < loss->rows; r++) {
    float *gradient = loss->gradient ? loss->gradient + r * loss->n : NULL;
    if (loss->targets[r] == loss->ignore) {
      if (gradient) memset(gradient, 0, loss->n * sizeof *gradient);
    } else if (loss->n <= NN_WIDTH) {
      sum += cross_entropy_short(loss, r, gradient, &product, 1);
    } else if (loss->n <= 2 * NN_WIDTH) {
      sum += cross_entropy_short(loss, r, gradient, &product, 2);
    } else {
      sum += cross_entropy_row(loss, r, gradient, &product);
    }
    if (r % LOG_RUN != LOG_RUN - 1) continue;
    sum += product > 0.0 ? fli_ln(product) : product;
    product = 1.0;
  }
  return sum + (product > 0.0 ? fli_ln(product) : product);
}

static double squared_error(const flk_loss *given)
{
  const flk_loss loss = *given;
  const float factor = 2.0f * loss.factor;
  nn_wide sum[2] = {{0}};
  for (size_t at = 0; at < loss.n; at += NN_WIDTH) {
    size_t count = loss.n - at;
    nn_vec off = vec_get(loss.x + at, count) - vec_get(loss.target + at, count);
    wide_add_squares(sum, off);
    if (loss.gradient) vec_put(loss.gradient + at, off * factor, count);
  }
  return wide_sum(sum[0] + sum[1]);
}

/* ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), and the gradient's sigmoid from
 * the same e^-|x|. */
static double binary_cross_entropy(const flk_loss *given)
{
  const flk_loss loss = *given;
  nn_wide sum[2] = {{0}};
  for (size_t at = 0; at < loss.n; at += NN_WIDTH) {
    size_t count = loss.n - at;
    nn_vec x = vec_get(loss.x + at, count);
    nn_vec target = vec_get(loss.target + at, count);
    nn_vec e = vec_exp_down((nn_vec)((nn_ivec)x | INT32_MIN));
    nn_vec above = (nn_vec)(~(x < 0.0f) & (nn_ivec)x);
    /* One division for 1 / (1 + e) and e / (2 + e). */
    nn_vec inverse = 1.0f / ((e + 1.0f) * (e + 2.0f));
    nn_vec value = above - x * target + vec_log_1p(e * (e + 1.0f) * inverse);
    wide_add(sum, vec_keep(value, count));
    nn_vec s = vec_select(x < 0.0f, e, vec_of(1.0f)) * (e + 2.0f) * inverse;
    if (loss.gradient) {
      vec_put(loss.gradient + at, (s - target) * loss.factor, count);
    }
  }
  return wide_sum(sum[0] + sum[1]);
}

static void fill_softmax(flk_nn_table *table)
{
  table->softmax =
      (flk_softmax_kernels){.forward = softmax,
                            .backward = softmax_back,
                            .cross_entropy = cross_entropy,
                            .squared_error = squared_error,
                            .binary_cross_entropy = binary_cross_entropy};
}

#endif
