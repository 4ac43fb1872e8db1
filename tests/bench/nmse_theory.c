/* SPDX-License-Identifier: Apache-2.0 */
/* What the error of one worker on Gaussian data must be. A block of true
 * length l, sent with the norm l' >= l (rounded up to bfloat16), has rotated
 * coordinates N(0, l^2 / B) on a grid that ends at t' = t l' / l standard
 * deviations. Per coordinate, in units of l^2 / B:
 *   dither   (2 t' / g)^2 / 12 + C(t')
 *   others   sum over cells of c(v_j, v_{j+1}) + C(t')
 *   C(t) = 2 ((1 + t^2) Q(t) - t phi(t)),   outside the grid
 *   c(l, u) = integral of (a - l) (u - a) phi(a) da,   stochastic rounding
 * A block of given length lies on a sphere: its coordinates have an excess
 * kurtosis of -6 / (B + 2), and to first order (Edgeworth) C is smaller by
 * t phi(t) / (B + 2): .5 % of it for p = 1/128. Padding takes its share of a
 * tail's error along; of clamping it takes less (what lies in the direction of
 * the vector is never in the padding), so that a padded tail's error is above
 * the prediction: by 17 % of C for p = 1/16 and a tail of 2712. Sizes whose
 * tail is a power of two, or small, show the theory. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/dmath.h"
#include "nmse.h"

enum { LINE = 16, NEIGHBOURS = 31, LEAST_SEEDS = 16 };

static const uint32_t one_in[] = {16, 32, 64, 128, 256, 512, 1024};
static const uint32_t modes[] = {FL_THC_UNIFORM, FL_THC_DITHER, FL_THC_TABLE};

/* The grid values that indices stand for. */
typedef struct grid {
  uint32_t mode;
  uint32_t n;
  uint8_t values[256];
} grid;

static double clamping(double t, double size)
{
  double tail = fli_normal_tail(t), density = fli_normal_pdf(t);
  return 2.0 * ((1.0 + t * t) * tail - t * density) - t * density / (size + 2);
}

/* Phi(u) - Phi(l) without cancellation: by the tails of the nearer side. */
static double between(double l, double u)
{
  if (l >= 0.0) return fli_normal_tail(l) - fli_normal_tail(u);
  if (u <= 0.0) return fli_normal_tail(-u) - fli_normal_tail(-l);
  return 1.0 - fli_normal_tail(-l) - fli_normal_tail(u);
}

static double cell(double l, double u)
{
  double at_l = fli_normal_pdf(l), at_u = fli_normal_pdf(u);
  double i0 = between(l, u);
  double i1 = at_l - at_u;
  double i2 = i0 - (u * at_u - l * at_l);
  return -i2 + (l + u) * i1 - l * u * i0;
}

/* Of one coordinate of a block of `size`. */
static double expected(const grid *levels, double t, double size)
{
  double step = 2.0 * t / (double)levels->values[levels->n - 1];
  double error = clamping(t, size);
  if (levels->mode == FL_THC_DITHER) return step * step / 12.0 + error;
  for (uint32_t i = 1; i < levels->n; i++) {
    error += cell((double)levels->values[i - 1] * step - t,
                  (double)levels->values[i] * step - t);
  }
  return error;
}

/* The full block that a line is part of: docs/design/thc.md, Layout. */
static uint64_t block_of(uint64_t line, uint64_t n_full)
{
  const uint64_t lines = FL_THC_BLOCK / LINE;
  uint64_t hoods = (n_full + NEIGHBOURS - 1) / NEIGHBOURS, first = 0;
  for (uint64_t h = 0;; h++) {
    uint64_t blocks = n_full / hoods + (h < n_full % hoods);
    if (line < blocks * lines) return first + line % blocks;
    line -= blocks * lines;
    first += blocks;
  }
}

/* Squared true length of every block: full ones, then the tail. */
static double *block_squares(const nmse_data *data, uint64_t n_blocks)
{
  uint64_t full = data->n / FL_THC_BLOCK;
  double *squares = nmse_get(n_blocks, sizeof(double));
  for (uint64_t i = 0; i < n_blocks; i++)
    squares[i] = 0.0;
  for (uint64_t i = 0; i < data->n; i++) {
    double x = (double)data->values[i];
    int is_tail = i >= full * FL_THC_BLOCK;
    squares[is_tail ? full : block_of(i / LINE, full)] += x * x;
  }
  return squares;
}

/* Coordinates of a block, with padding; *kept of them are the vector's. */
static double block_size(uint64_t n, uint64_t block, double *kept)
{
  uint64_t tail = n % FL_THC_BLOCK, padded = 256;
  if (block < n / FL_THC_BLOCK) return *kept = FL_THC_BLOCK;
  while (padded < tail)
    padded *= 2;
  *kept = (double)tail;
  return (double)padded;
}

static double predict(const nmse_data *data, const fl_compressor *compressor,
                      const grid *levels)
{
  uint64_t n_blocks = fl_compressor_norm_count(compressor);
  double *squares = block_squares(data, n_blocks);
  float *norms = nmse_get(n_blocks, sizeof(float));
  double t = (double)fl_compressor_clip(compressor);
  double error = 0.0, total = 0.0;
  fl_scale scale;
  nmse_require(fl_scale_init(&scale, sizeof scale));
  nmse_require(fl_compressor_measure(compressor, &scale, 1, data->values,
                                     data->n, norms, n_blocks));
  for (uint64_t i = 0; i < n_blocks; i++) {
    double sent = t * (double)norms[i] / sqrt(squares[i]);
    double kept, size = block_size(data->n, i, &kept);
    error += squares[i] * expected(levels, sent, size) * kept / size;
    total += squares[i];
  }
  free(norms);
  free(squares);
  return error / total;
}

/* Errors of rounds until their mean is known to .3 %, and what they should be.
 * Rotation and noise are new in every round; norms and tables stay. */
static nmse_figure measure(const nmse_data *data, nmse_scheme scheme,
                           uint32_t bits, uint32_t seeds, double *predicted)
{
  nmse_figure figure = {0};
  nmse_task task;
  grid levels = {.mode = scheme.mode, .n = 1u << bits};
  fl_compressor *first = nmse_scheme_open(&scheme, bits, data->n, 0);
  nmse_require(fl_compressor_copy_table(first, levels.values, levels.n));
  *predicted = predict(data, first, &levels);
  nmse_task_open(&task, data, first, 1);
  fl_compressor_free(first);
  if (scheme.mode == FL_THC_TABLE) scheme.table = levels.values;
  while (figure.n < seeds) {
    fl_compressor *compressor =
        nmse_scheme_open(&scheme, bits, data->n, figure.n);
    task.compressor = compressor;
    nmse_figure_add(&figure, nmse_task_error(&task, 0.0f, figure.n));
    fl_compressor_free(compressor);
    if (figure.n >= LEAST_SEEDS &&
        nmse_figure_error(&figure) < 0.003 * figure.mean) {
      break;
    }
  }
  nmse_task_close(&task);
  return figure;
}

/* 1 when the theory is off by more than 1 % and three standard errors. */
static uint32_t compare(const nmse_data *data, const nmse_scheme *scheme,
                        uint32_t bits, uint32_t seeds)
{
  char name[NMSE_NAME];
  double predicted = 0.0;
  nmse_scheme_name(scheme, bits, name);
  nmse_progress(name);
  nmse_figure figure = measure(data, *scheme, bits, seeds, &predicted);
  nmse_progress(NULL);
  printf("theory_%s_measured %.6g\n", name, figure.mean);
  printf("theory_%s_se %.4g\n", name, nmse_figure_error(&figure));
  printf("theory_%s_predicted %.6g\n", name, predicted);
  printf("theory_%s_ratio %.4f\n", name, figure.mean / predicted);
  printf("theory_%s_seeds %u\n", name, figure.n);
  return fabs(figure.mean - predicted) >
         0.01 * predicted + 3.0 * nmse_figure_error(&figure);
}

uint32_t nmse_theory(uint64_t n, uint32_t bits, uint32_t seeds)
{
  uint32_t off = 0;
  nmse_data data = {.rows = 1, .n = n};
  data.values = nmse_get(n, sizeof(float));
  nmse_draw(&data, NMSE_GAUSS, 1);
  for (size_t m = 0; m < sizeof modes / sizeof modes[0]; m++) {
    for (size_t i = 0; i < sizeof one_in / sizeof one_in[0]; i++) {
      nmse_scheme scheme = {
          .codec = FL_CODEC_THC, .mode = modes[m], .one_in = one_in[i]};
      if (modes[m] == FL_THC_TABLE && bits <= 4) scheme.granularity = 30;
      off += compare(&data, &scheme, bits, seeds);
    }
  }
  free(data.values);
  return off;
}
