/* SPDX-License-Identifier: Apache-2.0 */
/* Group norm of norm.h; included once per instruction set. Images are gone
 * through by columns, one vector of channels at a time: sums of channels over
 * all pixels, which are then added up by group. As many groups as fit into
 * RUN_FLOATS channels are dealt with together (or a single larger one). */
#ifndef FLK_NN_GROUP_NORM_BODY_H
#define FLK_NN_GROUP_NORM_BODY_H

#include "kernels/nn/layer_norm_body.h"

enum { RUN_FLOATS = 64, COLUMN_RUN = 1024 };

/* What is summed over the pixels. */
enum { SUM_VALUES, SUM_SQUARES, SUM_PRODUCTS };

/* A run of groups in one image. */
typedef struct group_run {
  const flk_group_norm *norm;
  const flk_norm_gradients *out;
  size_t at;      /* offset of the image's first float of the run */
  size_t channel; /* first one of the run */
  size_t width;   /* channels of the run */
  size_t each;    /* channels of a group */
  double sums[2][RUN_FLOATS];
  float mean[RUN_FLOATS];
  float rstd[RUN_FLOATS];
} group_run;

/* Of `count` columns: the sum of x; of (x - mean)^2; of dy and of
 * dy (x - mean). Four pixels take turns, so that additions need not wait for
 * each other. */
NN_INLINE void add_columns(nn_vec totals[2], const group_run *run,
                           size_t channel, nn_vec mean, int what, size_t count)
{
  const size_t pixels = run->norm->pixels, pixel = run->norm->pixel;
  const float *x = run->norm->x + run->at + channel;
  const float *dy =
      what == SUM_PRODUCTS ? run->norm->dy + run->at + channel : x;
  nn_vec sums[4] = {{0}}, products[4] = {{0}};
  for (size_t p = 0; p < pixels; p += 4) {
    size_t turns = pixels - p < 4 ? pixels - p : 4;
    UNROLL for (size_t t = 0; t < 4; t++)
    {
      if (t >= turns) break;
      nn_vec value = vec_get(x + (p + t) * pixel, count);
      if (what == SUM_VALUES) sums[t] += value;
      if (what == SUM_SQUARES) sums[t] += (value - mean) * (value - mean);
      if (what == SUM_PRODUCTS) {
        nn_vec d = vec_get(dy + (p + t) * pixel, count);
        sums[t] += d;
        products[t] += d * (value - mean);
      }
    }
    if ((p + 4) % COLUMN_RUN != 0 && p + 4 < pixels) continue;
    totals[0] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    totals[1] += (products[0] + products[1]) + (products[2] + products[3]);
    UNROLL for (size_t t = 0; t < 4; t++)
    {
      sums[t] = products[t] = (nn_vec){0};
    }
  }
}

/* Per group to per channel. */
NN_INLINE nn_vec spread(const group_run *run, const float *values,
                        size_t channel, size_t count)
{
  float lanes[NN_WIDTH] = {0};
  for (size_t i = 0; i < NN_WIDTH && i < count; i++) {
    lanes[i] = values[(channel + i) / run->each];
  }
  return *(const nn_vec *)lanes;
}

/* Add columns up by group; with SUM_PRODUCTS weighted by gamma, and they are
 * gradients already. */
NN_INLINE void sum_groups(group_run *run, int what)
{
  const size_t n_groups = run->width / run->each;
  for (size_t g = 0; g < n_groups; g++) {
    run->sums[0][g] = run->sums[1][g] = 0.0;
  }
  for (size_t c = 0; c < run->width; c += NN_WIDTH) {
    size_t count = run->width - c < NN_WIDTH ? run->width - c : NN_WIDTH;
    nn_vec totals[2] = {{0}};
    nn_vec mean = spread(run, run->mean, c, count);
    if (count == NN_WIDTH) {
      add_columns(totals, run, c, mean, what, NN_WIDTH);
    } else {
      add_columns(totals, run, c, mean, what, count);
    }
    if (what == SUM_PRODUCTS) {
      size_t at = run->channel + c;
      totals[1] *= spread(run, run->rstd, c, count);
      if (run->out->dgamma) {
        float *dgamma = run->out->dgamma + at;
        float *dbeta = run->out->dbeta + at;
        vec_put(dgamma, vec_get(dgamma, count) + totals[1], count);
        vec_put(dbeta, vec_get(dbeta, count) + totals[0], count);
      }
      nn_vec gamma = vec_get(run->norm->gamma + at, count);
      totals[0] *= gamma;
      totals[1] *= gamma;
    }
    for (size_t i = 0; i < NN_WIDTH && i < count; i++) {
      run->sums[0][(c + i) / run->each] += (double)totals[0][i];
      run->sums[1][(c + i) / run->each] += (double)totals[1][i];
    }
  }
}

NN_INLINE void apply_columns(const group_run *run, size_t c, size_t count)
{
  const size_t pixels = run->norm->pixels, pixel = run->norm->pixel;
  const size_t at = run->channel + c;
  const float *x = run->norm->x + run->at + c;
  float *y = run->norm->y + run->at + c;
  nn_vec mean = spread(run, run->mean, c, count);
  nn_vec factor =
      spread(run, run->rstd, c, count) * vec_get(run->norm->gamma + at, count);
  nn_vec beta = vec_get(run->norm->beta + at, count);
  for (size_t p = 0; p < pixels; p++) {
    vec_put(y + p * pixel,
            (vec_get(x + p * pixel, count) - mean) * factor + beta, count);
  }
}

/* dx = rstd (g - mean(g) - h mean(g h)), g = dy gamma, h = (x - mean) rstd; the
 * two means are in run->sums. */
NN_INLINE void apply_back(const group_run *run, size_t c, size_t count)
{
  const size_t pixels = run->norm->pixels, pixel = run->norm->pixel;
  const float *x = run->norm->x + run->at + c;
  const float *dy = run->norm->dy + run->at + c;
  float *dx = run->out->dx + run->at + c;
  float lanes[2][NN_WIDTH] = {{0}};
  for (size_t i = 0; i < NN_WIDTH && i < count; i++) {
    lanes[0][i] = (float)run->sums[0][(c + i) / run->each];
    lanes[1][i] = (float)run->sums[1][(c + i) / run->each];
  }
  nn_vec mean = spread(run, run->mean, c, count);
  nn_vec rstd = spread(run, run->rstd, c, count);
  nn_vec factor = rstd * vec_get(run->norm->gamma + run->channel + c, count);
  nn_vec shift = rstd * *(const nn_vec *)lanes[0];
  nn_vec slope = rstd * rstd * *(const nn_vec *)lanes[1];
  for (size_t p = 0; p < pixels; p++) {
    size_t i = p * pixel;
    nn_vec d = vec_get(dy + i, count) * factor - shift -
               (vec_get(x + i, count) - mean) * slope;
    if (run->out->does_add) d += vec_get(dx + i, count);
    vec_put(dx + i, d, count);
  }
}

static void group_norm_run(group_run *run, float *mean, float *rstd)
{
  const size_t n_groups = run->width / run->each;
  const double share = 1.0 / ((double)run->each * (double)run->norm->pixels);
  memset(run->mean, 0, sizeof run->mean);
  sum_groups(run, SUM_VALUES);
  for (size_t g = 0; g < n_groups; g++) {
    run->mean[g] = mean[g] = (float)(run->sums[0][g] * share);
  }
  sum_groups(run, SUM_SQUARES);
  for (size_t g = 0; g < n_groups; g++) {
    float variance = (float)(run->sums[0][g] * share);
    run->rstd[g] = rstd[g] = rstd_of(variance, run->norm->epsilon);
  }
  size_t c = 0;
  for (; c + NN_WIDTH <= run->width; c += NN_WIDTH) {
    apply_columns(run, c, NN_WIDTH);
  }
  if (c < run->width) apply_columns(run, c, run->width - c);
}

static void group_norm_back_run(group_run *run, float *mean, float *rstd)
{
  const size_t n_groups = run->width / run->each;
  const double share = 1.0 / ((double)run->each * (double)run->norm->pixels);
  memcpy(run->mean, mean, n_groups * sizeof *mean);
  memcpy(run->rstd, rstd, n_groups * sizeof *rstd);
  sum_groups(run, SUM_PRODUCTS);
  if (!run->out->dx) return;
  for (size_t g = 0; g < n_groups; g++) {
    run->sums[0][g] *= share;
    run->sums[1][g] *= share;
  }
  size_t c = 0;
  for (; c + NN_WIDTH <= run->width; c += NN_WIDTH) {
    apply_back(run, c, NN_WIDTH);
  }
  if (c < run->width) apply_back(run, c, run->width - c);
}

NN_INLINE void
each_group_run(const flk_group_norm *norm, const flk_norm_gradients *out,
               void (*task)(group_run *run, float *mean, float *rstd))
{
  if (norm->pixels == 0 || norm->channels == 0) return;
  group_run run = {.norm = norm, .out = out};
  run.each = norm->channels / norm->groups;
  const size_t many = run.each < RUN_FLOATS ? RUN_FLOATS / run.each : 1;
  for (size_t i = 0; i < norm->images; i++) {
    for (size_t g = 0; g < norm->groups; g += many) {
      size_t n_groups = norm->groups - g < many ? norm->groups - g : many;
      run.channel = g * run.each;
      run.width = n_groups * run.each;
      run.at = i * norm->pixels * norm->pixel + run.channel;
      task(&run, norm->mean + i * norm->groups + g,
           norm->rstd + i * norm->groups + g);
    }
  }
}

static void group_norm(const flk_group_norm *norm)
{
  each_group_run(norm, NULL, group_norm_run);
}

static void group_norm_back(const flk_group_norm *norm,
                            const flk_norm_gradients *out)
{
  each_group_run(norm, out, group_norm_back_run);
}

#endif
