/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm and group norm, forward and backward, each table against loops
 * in double. */
#include "nn_check.h"

enum { X, Y, DY, GAMMA, BETA, MEAN, RSTD, DX };

static const double epsilon = 1e-5;
static float dgamma[NN_LONG], dbeta[NN_LONG];
static double want_dgamma[NN_LONG], want_dbeta[NN_LONG];

/* Elements of one mean: `count` runs of `run` floats, `stride` apart; gamma
 * repeats with each run. */
typedef struct set {
  const float *x;
  const float *y;
  const float *dy;
  const float *dx;
  const float *gamma;
  const float *beta;
  float mean; /* as computed */
  float rstd;
  size_t count;
  size_t run;
  size_t stride;
  int does_add;  /* dx was 1 */
  size_t column; /* of gamma's first in its array */
} set;

static double mean_of(const set *s, double *rstd)
{
  double n = (double)(s->count * s->run);
  double sum = 0.0, squares = 0.0;
  for (size_t i = 0; i < s->count * s->run; i++) {
    sum += (double)s->x[i / s->run * s->stride + i % s->run];
  }
  for (size_t i = 0; i < s->count * s->run; i++) {
    double off = (double)s->x[i / s->run * s->stride + i % s->run] - sum / n;
    squares += off * off;
  }
  *rstd = 1.0 / sqrt(squares / n + epsilon);
  return sum / n;
}

/* Everything of one set; gradients of gamma and beta are added to what is
 * wanted. `size`: of x. */
static void check_set(const set *s, double size)
{
  const size_t total = s->count * s->run;
  double rstd;
  double mean = mean_of(s, &rstd);
  double sum = 0.0, product = 0.0;
  NN_NEAR(s->mean, mean, 0, 1e-6 * size, 1e-6);
  NN_NEAR(s->rstd, rstd, 0, 0.0, 1e-5);
  for (size_t i = 0; i < total; i++) {
    size_t at = i / s->run * s->stride + i % s->run;
    double h = ((double)s->x[at] - mean) * rstd;
    double g = (double)s->dy[at] * (double)s->gamma[i % s->run];
    double y = h * (double)s->gamma[i % s->run] + (double)s->beta[i % s->run];
    NN_NEAR(s->y[at], y, i, 2e-6 * (1.0 + size * rstd), 1e-5);
    sum += g / (double)total;
    product += g * h / (double)total;
    want_dgamma[s->column + i % s->run] += (double)s->dy[at] * h;
    want_dbeta[s->column + i % s->run] += (double)s->dy[at];
  }
  for (size_t i = 0; i < total; i++) {
    size_t at = i / s->run * s->stride + i % s->run;
    double h = ((double)s->x[at] - mean) * rstd;
    double g = (double)s->dy[at] * (double)s->gamma[i % s->run];
    double dx = rstd * (g - sum - h * product) + (s->does_add ? 1.0 : 0.0);
    NN_NEAR(s->dx[at], dx, i, 3e-6 * rstd * (1.0 + size * rstd) + 1e-7, 1e-5);
  }
}

static void check_gradients(size_t n, double rows)
{
  for (size_t j = 0; j < n; j++) {
    NN_NEAR(dgamma[j], want_dgamma[j] + 2.0, j, 2e-5 + 1e-6 * rows, 1e-5);
    NN_NEAR(dbeta[j], want_dbeta[j] + 3.0, j, 2e-5 + 1e-6 * rows, 1e-5);
  }
}

/* `n`: of a pixel's or row's floats, `channels` of them are used. */
static void draw(float *a[8], size_t total, size_t channels, size_t means,
                 size_t offset)
{
  const size_t sizes[8] = {total,    total, total, channels,
                           channels, means, means, total};
  for (size_t slot = 0; slot < 8; slot++) {
    a[slot] = nn_new(slot, sizes[slot], (offset + slot) % 9);
  }
  nn_draw(a[X], total, 2.0f, total);
  nn_draw(a[DY], total, 1.0f, total + 1);
  nn_draw(a[GAMMA], channels, 1.5f, channels);
  nn_draw(a[BETA], channels, 1.0f, channels + 1);
  for (size_t i = 0; i < total; i++) {
    a[X][i] += 1.0f;
    a[DX][i] = 1.0f;
  }
  for (size_t j = 0; j < channels; j++) {
    dgamma[j] = 2.0f;
    dbeta[j] = 3.0f;
    want_dgamma[j] = want_dbeta[j] = 0.0;
  }
}

static void check_guards(void)
{
  for (size_t slot = 0; slot < 8; slot++) {
    nn_check_guards(slot);
  }
}

static void check_layer_norm(size_t rows, size_t n, size_t offset)
{
  const size_t bytes = rows * n * sizeof(float);
  float *a[8];
  draw(a, rows * n, n, rows, offset);
  flk_layer_norm norm = {a[X],    a[Y],    a[DY], a[GAMMA], a[BETA],
                         a[MEAN], a[RSTD], rows,  n,        (float)epsilon};
  flk_norm_gradients out = {a[DX], (int)(n % 2), dgamma, dbeta};
  nn->norm.layer(&norm);
  nn->norm.layer_back(&norm, &out);
  for (size_t r = 0; n > 0 && r < rows; r++) {
    set s = {a[X] + r * n,
             a[Y] + r * n,
             a[DY] + r * n,
             a[DX] + r * n,
             a[GAMMA],
             a[BETA],
             a[MEAN][r],
             a[RSTD][r],
             1,
             n,
             n,
             out.does_add,
             0};
    check_set(&s, 3.0);
  }
  check_gradients(n, (double)rows);
  /* one of the two at a time, and in place */
  static float dx[NN_LONG];
  memcpy(dx, a[DX], bytes);
  out.dx = NULL;
  nn->norm.layer_back(&norm, &out);
  CHECK_EQ_MEM(a[DX], dx, bytes);
  out = (flk_norm_gradients){.dx = a[DY]};
  nn->norm.layer_back(&norm, &out);
  for (size_t i = 0; i < rows * n; i++) {
    NN_NEAR(a[DY][i], (double)dx[i] - (n % 2 ? 1.0 : 0.0), i, 1e-6, 1e-6);
  }
  norm.y = a[X];
  nn->norm.layer(&norm);
  CHECK_EQ_MEM(a[X], a[Y], bytes);
  check_guards();
}

static void layer_norm_of_rows(void)
{
  for (size_t n = 0; n <= 2 * NN_SHORT; n++) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      check_layer_norm(1 + n % 4, n, nn_offsets[o]);
    }
  }
  check_layer_norm(0, 8, 0);
  check_layer_norm(300, 64, 1);
  check_layer_norm(257, 10, 0);
  check_layer_norm(1000, 8, 0);
  check_layer_norm(1, NN_LONG, 0);
  check_layer_norm(2, 6001, 3);
}

static void check_group_norm(const flk_group_norm *shape, size_t offset)
{
  const size_t each = shape->channels / shape->groups;
  const size_t image = shape->pixels * shape->pixel;
  float *a[8];
  draw(a, shape->images * image, shape->channels, shape->images * shape->groups,
       offset);
  flk_group_norm norm = *shape;
  norm.x = a[X];
  norm.y = a[Y];
  norm.dy = a[DY];
  norm.gamma = a[GAMMA];
  norm.beta = a[BETA];
  norm.mean = a[MEAN];
  norm.rstd = a[RSTD];
  norm.epsilon = (float)epsilon;
  flk_norm_gradients out = {a[DX], (int)(shape->pixel % 2), dgamma, dbeta};
  memset(a[Y], 0x5a, shape->images * image * sizeof(float));
  nn->norm.group(&norm);
  nn->norm.group_back(&norm, &out);
  for (size_t k = 0; k < shape->images * shape->groups; k++) {
    size_t channel = k % shape->groups * each;
    size_t at = k / shape->groups * image + channel;
    set s = {a[X] + at,  a[Y] + at,          a[DY] + at,
             a[DX] + at, a[GAMMA] + channel, a[BETA] + channel,
             a[MEAN][k], a[RSTD][k],         shape->pixels,
             each,       shape->pixel,       out.does_add,
             channel};
    check_set(&s, 3.0);
  }
  check_gradients(shape->channels, (double)(shape->images * shape->pixels));
  /* What is behind the channels is as it was. */
  for (size_t i = 0; i < shape->images * image; i++) {
    if (i % shape->pixel < shape->channels) continue;
    CHECK_EQ_F64(a[DX][i], 1.0);
    CHECK_EQ_MEM(&a[Y][i], "\x5a\x5a\x5a\x5a", 4);
  }
  static float dx[NN_LONG];
  memcpy(dx, a[DX], shape->images * image * sizeof *dx);
  out.dx = NULL;
  nn->norm.group_back(&norm, &out);
  CHECK_EQ_MEM(a[DX], dx, shape->images * image * sizeof *dx);
  check_guards();
}

static void group_norm_of_images(void)
{
  /* channels, groups, floats of a pixel */
  static const size_t shapes[][3] = {
      {1, 1, 1},   {1, 1, 8},   {8, 1, 8},    {8, 8, 8},    {8, 4, 8},
      {6, 3, 8},   {10, 5, 16}, {16, 4, 16},  {30, 2, 33},  {32, 8, 32},
      {64, 1, 64}, {64, 8, 64}, {65, 13, 72}, {72, 24, 72}, {100, 1, 101},
      {96, 2, 96}, {96, 96, 96}};
  static const size_t pixels[] = {1, 2, 3, 4, 5, 49};
  for (size_t i = 0; i < FLI_COUNT_OF(shapes); i++) {
    for (size_t k = 0; k < FLI_COUNT_OF(pixels); k++) {
      flk_group_norm shape = {.images = 1 + k % 3,
                              .pixels = pixels[k],
                              .channels = shapes[i][0],
                              .groups = shapes[i][1],
                              .pixel = shapes[i][2]};
      check_group_norm(&shape, k);
    }
  }
  flk_group_norm large = {
      .images = 1, .pixels = 2500, .channels = 7, .groups = 1, .pixel = 8};
  check_group_norm(&large, 0);
  large.images = large.pixels = 0;
  check_group_norm(&large, 0);
}

/* A mean far from 0 does not cost the variance. */
static void means_far_away_keep_the_variance(void)
{
  static const size_t lengths[] = {8, 10, 64, 100};
  for (size_t k = 0; k < FLI_COUNT_OF(lengths); k++) {
    size_t n = lengths[k];
    float x[100], y[100], ones[100], zeros[100] = {0}, mean, rstd;
    for (size_t i = 0; i < n; i++) {
      x[i] = 4096.0f + (float)(i % 2);
      ones[i] = 1.0f;
    }
    flk_layer_norm norm = {.x = x,
                           .y = y,
                           .gamma = ones,
                           .beta = zeros,
                           .mean = &mean,
                           .rstd = &rstd,
                           .rows = 1,
                           .n = n,
                           .epsilon = 1e-12f};
    nn->norm.layer(&norm);
    NN_NEAR(mean, 4096.5, n, 0.0, 1e-7);
    NN_NEAR(rstd, 2.0, n, 0.0, 1e-5);
    flk_group_norm group = {.x = x,
                            .y = y,
                            .gamma = ones,
                            .beta = zeros,
                            .mean = &mean,
                            .rstd = &rstd,
                            .images = 1,
                            .pixels = n / 2,
                            .pixel = 2,
                            .channels = 2,
                            .groups = 1,
                            .epsilon = 1e-12f};
    nn->norm.group(&group);
    NN_NEAR(mean, 4096.5, n, 0.0, 1e-7);
    NN_NEAR(rstd, 2.0, n, 0.0, 1e-5);
  }
}

static void nan_stays_in_its_row(void)
{
  enum { N = 10 };
  float x[3 * N], y[3 * N], ones[N], mean[3], rstd[3];
  nn_draw(x, 3 * N, 1.0f, 1);
  for (size_t i = 0; i < N; i++) {
    ones[i] = 1.0f;
  }
  x[N + 9] = NAN;
  flk_layer_norm norm = {.x = x,
                         .y = y,
                         .gamma = ones,
                         .beta = ones,
                         .mean = mean,
                         .rstd = rstd,
                         .rows = 3,
                         .n = N,
                         .epsilon = 1e-5f};
  nn->norm.layer(&norm);
  for (size_t i = 0; i < 3 * N; i++) {
    CHECK_EQ_U64(isnan(y[i]), i / N == 1);
  }
}

int main(void)
{
  NN_CASE(layer_norm_of_rows);
  NN_CASE(group_norm_of_images);
  NN_CASE(means_far_away_keep_the_variance);
  NN_CASE(nan_stays_in_its_row);
  return check_report();
}
