/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm of norm.h; included once per instruction set. Short rows, and
 * those of 64, have instances whose loops over the row are unrolled: the row
 * stays in registers. */
#ifndef FLK_NN_LAYER_NORM_BODY_H
#define FLK_NN_LAYER_NORM_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_wide.h"

enum {
  ROW_FLOATS = 64,
  ROW_VECTORS = ROW_FLOATS / NN_WIDTH,
  ROW_RUN = 256 /* rows of one partial sum of gradients */
};

NN_INLINE float rstd_of(float variance, float epsilon)
{
  return 1.0f / scalar_sqrt(variance + epsilon);
}

/* Floats of vector v of a row of n_vectors, whose last one has `last`. */
NN_INLINE size_t part_of(size_t v, size_t n_vectors, size_t last)
{
  return v + 1 < n_vectors ? (size_t)NN_WIDTH : last;
}

NN_INLINE void layer_norm_rows(const flk_layer_norm *given, size_t n_vectors,
                               size_t last)
{
  const flk_layer_norm norm = *given;
  const float share = 1.0f / (float)norm.n;
  for (size_t r = 0; r < norm.rows; r++) {
    const float *x = norm.x + r * norm.n;
    float *y = norm.y + r * norm.n;
    nn_vec row[ROW_VECTORS];
    nn_vec sum = {0};
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      row[v] = vec_get(x + v * NN_WIDTH, part_of(v, n_vectors, last));
      sum += row[v];
    }
    float mean = vec_sum(sum) * share;
    sum = (nn_vec){0};
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      row[v] = vec_keep(row[v] - mean, part_of(v, n_vectors, last));
      sum += row[v] * row[v];
    }
    float rstd = rstd_of(vec_sum(sum) * share, norm.epsilon);
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      size_t count = part_of(v, n_vectors, last);
      vec_put(y + v * NN_WIDTH,
              row[v] * rstd * vec_get(norm.gamma + v * NN_WIDTH, count) +
                  vec_get(norm.beta + v * NN_WIDTH, count),
              count);
    }
    norm.mean[r] = mean;
    norm.rstd[r] = rstd;
  }
}

/* Rows of any length. */
static void layer_norm_long(const flk_layer_norm *norm)
{
  const size_t n = norm->n;
  const float share = 1.0f / (float)n;
  for (size_t r = 0; r < norm->rows; r++) {
    const float *x = norm->x + r * n;
    float *y = norm->y + r * n;
    nn_wide sums[2] = {{0}};
    NN_EACH(n, wide_add(sums, vec_get(x + at, count)));
    float mean = (float)(wide_sum(sums[0] + sums[1]) / (double)n);
    nn_vec sum = {0};
    for (size_t at = 0; at < n; at += NN_WIDTH) {
      nn_vec off = vec_keep(vec_get(x + at, n - at) - mean, n - at);
      sum += off * off;
    }
    float rstd = rstd_of(vec_sum(sum) * share, norm->epsilon);
    for (size_t at = 0; at < n; at += NN_WIDTH) {
      size_t count = n - at;
      vec_put(y + at,
              (vec_get(x + at, count) - mean) * rstd *
                      vec_get(norm->gamma + at, count) +
                  vec_get(norm->beta + at, count),
              count);
    }
    norm->mean[r] = mean;
    norm->rstd[r] = rstd;
  }
}

/* With g = dy gamma and h = (x - mean) rstd:
 * dx = rstd (g - mean(g) - h mean(g h)), dgamma += dy h, dbeta += dy. */
NN_INLINE void layer_norm_back_run(const flk_layer_norm *norm,
                                   const flk_norm_gradients *out, size_t from,
                                   size_t to, size_t n_vectors, size_t last)
{
  const size_t n = norm->n;
  const float share = 1.0f / (float)n;
  nn_vec dgamma[ROW_VECTORS], dbeta[ROW_VECTORS], gamma[ROW_VECTORS];
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    dgamma[v] = dbeta[v] = (nn_vec){0};
    gamma[v] = vec_get(norm->gamma + v * NN_WIDTH, part_of(v, n_vectors, last));
  }
  for (size_t r = from; r < to; r++) {
    nn_vec g[ROW_VECTORS], h[ROW_VECTORS];
    nn_vec sum = {0}, product = {0};
    const float mean = norm->mean[r], rstd = norm->rstd[r];
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      size_t count = part_of(v, n_vectors, last);
      size_t at = r * n + v * NN_WIDTH;
      nn_vec dy = vec_get(norm->dy + at, count);
      h[v] = (vec_get(norm->x + at, count) - mean) * rstd;
      g[v] = dy * gamma[v];
      dgamma[v] += dy * h[v];
      dbeta[v] += dy;
      sum += g[v];
      product += g[v] * h[v];
    }
    if (!out->dx) continue;
    float mean_g = vec_sum(sum) * share;
    float mean_gh = vec_sum(product) * share;
    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
      size_t count = part_of(v, n_vectors, last);
      float *dx = out->dx + r * n + v * NN_WIDTH;
      nn_vec d = (g[v] - mean_g - h[v] * mean_gh) * rstd;
      if (out->does_add) d += vec_get(dx, count);
      vec_put(dx, d, count);
    }
  }
  if (!out->dgamma) return;
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    size_t count = part_of(v, n_vectors, last);
    float *to_gamma = out->dgamma + v * NN_WIDTH;
    float *to_beta = out->dbeta + v * NN_WIDTH;
    vec_put(to_gamma, vec_get(to_gamma, count) + dgamma[v], count);
    vec_put(to_beta, vec_get(to_beta, count) + dbeta[v], count);
  }
}

NN_INLINE void layer_norm_back_rows(const flk_layer_norm *given,
                                    const flk_norm_gradients *given_out,
                                    size_t n_vectors, size_t last)
{
  const flk_layer_norm norm = *given;
  const flk_norm_gradients out = *given_out;
  for (size_t from = 0; from < norm.rows; from += ROW_RUN) {
    size_t to = norm.rows - from < ROW_RUN ? norm.rows : from + ROW_RUN;
    layer_norm_back_run(&norm, &out, from, to, n_vectors, last);
  }
}

static void layer_norm_back_long(const flk_layer_norm *norm,
                                 const flk_norm_gradients *out)
{
  const size_t n = norm->n;
  const float share = 1.0f / (float)n;
  for (size_t r = 0; r < norm->rows; r++) {
    const float *x = norm->x + r * n;
    const float *dy = norm->dy + r * n;
    const float mean = norm->mean[r], rstd = norm->rstd[r];
    nn_vec sum = {0}, product = {0};
    for (size_t at = 0; at < n; at += NN_WIDTH) {
      size_t count = n - at;
      nn_vec d = vec_get(dy + at, count);
      nn_vec h = (vec_get(x + at, count) - mean) * rstd;
      nn_vec g = d * vec_get(norm->gamma + at, count);
      sum += g;
      product += g * h;
      if (!out->dgamma) continue;
      float *dgamma = out->dgamma + at;
      float *dbeta = out->dbeta + at;
      vec_put(dgamma, vec_get(dgamma, count) + d * h, count);
      vec_put(dbeta, vec_get(dbeta, count) + d, count);
    }
    if (!out->dx) continue;
    const float mean_g = vec_sum(sum) * share;
    const float mean_gh = vec_sum(product) * share;
    for (size_t at = 0; at < n; at += NN_WIDTH) {
      size_t count = n - at;
      float *dx = out->dx + r * n + at;
      nn_vec h = (vec_get(x + at, count) - mean) * rstd;
      nn_vec g = vec_get(dy + at, count) * vec_get(norm->gamma + at, count);
      nn_vec d = (g - mean_g - h * mean_gh) * rstd;
      if (out->does_add) d += vec_get(dx, count);
      vec_put(dx, d, count);
    }
  }
}

static void layer_norm(const flk_layer_norm *norm)
{
  const size_t n = norm->n;
  if (n == ROW_FLOATS) {
    layer_norm_rows(norm, ROW_VECTORS, NN_WIDTH);
  } else if (n > 0 && n <= NN_WIDTH) {
    layer_norm_rows(norm, 1, n);
  } else if (n > 0 && n <= 2 * NN_WIDTH) {
    layer_norm_rows(norm, 2, n - NN_WIDTH);
  } else if (n > 0) {
    layer_norm_long(norm);
  }
}

static void layer_norm_back(const flk_layer_norm *norm,
                            const flk_norm_gradients *out)
{
  const size_t n = norm->n;
  if (n == ROW_FLOATS) {
    layer_norm_back_rows(norm, out, ROW_VECTORS, NN_WIDTH);
  } else if (n > 0 && n <= NN_WIDTH) {
    layer_norm_back_rows(norm, out, 1, n);
  } else if (n > 0 && n <= 2 * NN_WIDTH) {
    layer_norm_back_rows(norm, out, 2, n - NN_WIDTH);
  } else if (n > 0) {
    layer_norm_back_long(norm, out);
  }
}

#endif
