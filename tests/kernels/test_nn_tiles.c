/* SPDX-License-Identifier: Apache-2.0 */
/* Register tiles, packing and dots of every table that this machine can run
 * against loops in double: all numbers of rows, panels and columns, strides,
 * segments and what happens at the store. What lies around every output must
 * stay as it was. */
#include <math.h>
#include <stdlib.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "kernels/nn/nn.h"

enum {
  SEED = 4711,
  N_VALUES = 1 << 14,
  GUARD = 16,
  SEGMENTS = 3,
  DEPTH_MAX = 17,
  C_ROW = FLK_PANEL_MAX + 3,
  C_SIZE = 2 * GUARD + (FLK_ROWS_MAX + 3) * C_ROW
};

static const flk_nn_table *kernels; /* under test */

static float values[N_VALUES];

static void draw(void)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < N_VALUES; i++) {
    values[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
  }
}

/* What happens to a sum, by tiles and dots alike. */
typedef struct finish {
  float alpha, beta;
  int has_bias, does_relu;
} finish;

static const finish finishes[] = {{1.0f, 0.0f, 0, 0},
                                  {1.0f, 1.0f, 0, 0},
                                  {-0.5f, 2.0f, 1, 0},
                                  {1.0f, 0.0f, 1, 1},
                                  {2.0f, -1.0f, 0, 1}};

static float finished(const finish *f, double sum, float old, float bias)
{
  double value = (double)f->alpha * sum;
  if (f->beta != 0.0f) value += (double)f->beta * (double)old;
  if (f->has_bias) value += (double)bias;
  return (float)(f->does_relu && value < 0.0 ? 0.0 : value);
}

static void check_near(float got, float want, double bound)
{
  if (fabs((double)got - (double)want) <= bound) return;
  CHECK_EQ_F64((double)got, (double)want);
}

static void check_all_near(const float *got, const float *want, size_t n,
                           double bound)
{
  for (size_t i = 0; i < n; i++) {
    check_near(got[i], want[i], bound);
  }
}

/* Where row r of C begins; the runs of a pair are a row apart. */
static ptrdiff_t place_of(size_t r, size_t run_rows)
{
  return GUARD + (ptrdiff_t)(r + r / run_rows) * C_ROW;
}

static double tile_sum(const flk_tile *t, size_t r, size_t run_rows, size_t j)
{
  const float *a = t->a[r / run_rows] + (ptrdiff_t)(r % run_rows) * t->a_row;
  double sum = 0.0;
  for (size_t s = 0; s < t->n_segments; s++) {
    ptrdiff_t a_at = t->a_offsets ? t->a_offsets[s] : 0;
    ptrdiff_t b_at =
        t->b_offsets ? t->b_offsets[s] : (ptrdiff_t)(s * t->depth) * t->b_step;
    for (size_t k = 0; k < t->depth; k++) {
      sum += (double)a[a_at + (ptrdiff_t)k * t->a_step] *
             (double)t->b[b_at + (ptrdiff_t)k * t->b_step + (ptrdiff_t)j];
    }
  }
  return sum;
}

/* One tile of n_rows in each of n_runs, whose sums `t` describes. */
static void check_tile(flk_tile t, size_t n_rows, size_t n_runs, int panel,
                       const finish *f)
{
  float got[C_SIZE], want[C_SIZE];
  memcpy(got, values + 100, sizeof got);
  memcpy(want, got, sizeof want);
  t.alpha = f->alpha;
  t.beta = f->beta;
  t.bias = f->has_bias ? values + 50 : NULL;
  t.does_relu = f->does_relu;
  t.c_row = C_ROW;
  t.c[0] = got + place_of(0, n_rows);
  t.c[1] = n_runs == 2 ? got + place_of(n_rows, n_rows) : NULL;
  for (size_t r = 0; r < n_rows * n_runs; r++) {
    float *row = want + place_of(r, n_rows);
    for (size_t j = 0; j < t.columns; j++) {
      row[j] = finished(f, tile_sum(&t, r, n_rows, j), row[j], values[50 + j]);
    }
  }
  if (f->beta == 0.0f) { /* must not be read */
    for (size_t r = 0; r < n_rows * n_runs; r++) {
      for (size_t j = 0; j < t.columns; j++) {
        got[place_of(r, n_rows) + (ptrdiff_t)j] = NAN;
      }
    }
  }
  if (n_runs == 2) {
    kernels->tile_pair(&t, n_rows, panel);
  } else {
    kernels->tile(&t, n_rows, panel);
  }
  check_all_near(got, want, C_SIZE, 1e-5);
}

/* Strides, segments and ends of one tile's size. */
static void check_tiles(size_t n_rows, size_t n_runs, int panel)
{
  static const ptrdiff_t a_offsets[SEGMENTS] = {40, 0, 300};
  static const ptrdiff_t b_offsets[SEGMENTS] = {1000, 33, 0};
  static const size_t depths[] = {1, 2, DEPTH_MAX};
  const size_t width = kernels->width[panel];
  const size_t columns[] = {1, width / 2, width - 1, width};
  for (size_t i = 0; i < 4 * FLI_COUNT_OF(depths); i++) {
    int has_offsets = (int)(i & 1), is_transposed = (int)(i >> 1 & 1);
    flk_tile t = {.a = {values + 7, values + 2000},
                  .a_row = is_transposed ? 1 : 61,
                  .a_step = is_transposed ? 23 : 1,
                  .b = values + 5000,
                  .b_step = (ptrdiff_t)(is_transposed ? width : 41),
                  .n_segments = has_offsets ? SEGMENTS : 1,
                  .depth = depths[i / 4],
                  .a_offsets = has_offsets ? a_offsets : NULL,
                  /* or on from where the last segment ended */
                  .b_offsets =
                      has_offsets && !is_transposed ? b_offsets : NULL};
    for (size_t c = 0; c < FLI_COUNT_OF(columns); c++) {
      t.columns = columns[c];
      for (size_t f = 0; f < FLI_COUNT_OF(finishes); f++) {
        check_tile(t, n_rows, n_runs, panel, &finishes[f]);
      }
    }
  }
}

static void tiles_of_all_sizes_agree_with_plain_loops(void)
{
  for (int panel = FLK_PANEL_HALF; panel <= FLK_PANEL_TWO; panel++) {
    if (kernels->width[panel] == 0) continue;
    CHECK(kernels->width[panel] <= FLK_PANEL_MAX);
    for (size_t n = 1; n <= kernels->rows_max; n++) {
      check_tiles(n, 1, panel);
    }
    for (size_t n = kernels->pair_min; n > 0 && n <= kernels->pair_max; n++) {
      check_tiles(n, 2, panel);
    }
  }
}

static void tiles_keep_nan_through_relu(void)
{
  float a[4] = {1.0f, NAN, -1.0f, 0.0f}, b[FLK_PANEL_MAX], c[4][FLK_PANEL_MAX];
  for (int j = 0; j < FLK_PANEL_MAX; j++) {
    b[j] = -1.0f;
  }
  for (int edge = 0; edge < 2; edge++) {
    flk_tile t = {.a = {a, NULL},
                  .a_row = 1,
                  .a_step = 1,
                  .b = b,
                  .n_segments = 1,
                  .depth = 1,
                  .c = {c[0], NULL},
                  .c_row = FLK_PANEL_MAX,
                  .columns = kernels->width[FLK_PANEL_ONE] - (size_t)edge,
                  .alpha = 1.0f,
                  .does_relu = 1};
    kernels->tile(&t, 4, FLK_PANEL_ONE);
    for (size_t j = 0; j < t.columns; j++) {
      CHECK_EQ_F64(c[0][j], 0.0);
      CHECK(isnan(c[1][j]));
      CHECK_EQ_F64(c[2][j], 1.0);
      CHECK(c[3][j] == 0.0f);
    }
  }
}

/* `is_transposed`: pack_transposed. Reads nothing behind the source: those
 * bytes are not there. */
static void check_pack(size_t depth, size_t columns, size_t width,
                       int is_transposed, int has_next)
{
  const size_t step = (is_transposed ? depth : columns) + 2;
  const size_t n = is_transposed ? (columns - 1) * step + depth
                                 : (depth - 1) * step + columns;
  float *src = malloc(n * sizeof *src);
  float *dst = malloc((depth * width + 1) * sizeof *dst);
  if (!src || !dst) exit(1);
  memcpy(src, values, n * sizeof *src);
  dst[depth * width] = -7.0f;
  flk_pack p = {.src = src,
                .step = (ptrdiff_t)step,
                .depth = depth,
                .columns = columns,
                .width = width,
                .dst = dst,
                .ahead = has_next ? 64 : 0};
  if (is_transposed) {
    kernels->pack_transposed(&p);
  } else {
    kernels->pack(&p);
  }
  for (size_t k = 0; k < depth; k++) {
    for (size_t j = 0; j < columns; j++) {
      float want = src[is_transposed ? j * step + k : k * step + j];
      CHECK_EQ_F64(dst[k * width + j], want);
    }
  }
  CHECK_EQ_F64(dst[depth * width], -7.0);
  free(src);
  free(dst);
}

static void panels_hold_their_columns(void)
{
  static const size_t depths[] = {1, 3, 4, 5, 16, 19, 40};
  for (int panel = FLK_PANEL_HALF; panel <= FLK_PANEL_TWO; panel++) {
    const size_t width = kernels->width[panel];
    const size_t unit = kernels->width[FLK_PANEL_ONE];
    for (size_t d = 0; d < FLI_COUNT_OF(depths); d++) {
      for (size_t n = width > unit ? width - unit + 1 : 1; n <= width; n++) {
        for (int flags = 0; flags < 4; flags++) {
          check_pack(depths[d], n, width, flags & 1, flags >> 1);
        }
      }
    }
  }
}

static void check_dots(size_t m, size_t n, size_t depth, const finish *f)
{
  enum { ROW = 80 };
  float got[2 * GUARD + 10 * 24], want[2 * GUARD + 10 * 24];
  const float *x = values + 3, *w = values + 4000, *bias = values + 50;
  memcpy(got, values + 100, sizeof got);
  memcpy(want, got, sizeof want);
  for (size_t i = 0; i < m; i++) {
    for (size_t j = 0; j < n; j++) {
      double sum = 0.0;
      float *c = want + GUARD + i * 24 + j;
      for (size_t k = 0; k < depth; k++) {
        sum += (double)x[i * ROW + k] * (double)w[j * ROW + k];
      }
      *c = finished(f, sum, *c, bias[j]);
      if (f->beta == 0.0f) got[c - want] = NAN;
    }
  }
  kernels->dots(&(flk_dots){.x = x,
                            .x_row = ROW,
                            .w = w,
                            .w_row = ROW,
                            .m = m,
                            .n = n,
                            .depth = depth,
                            .c = got + GUARD,
                            .c_row = 24,
                            .alpha = f->alpha,
                            .beta = f->beta,
                            .bias = f->has_bias ? bias : NULL,
                            .does_relu = f->does_relu});
  check_all_near(got, want, FLI_COUNT_OF(got), 1e-5);
}

static void dots_of_all_sizes_agree_with_plain_loops(void)
{
  static const size_t depths[] = {1, 3, 4, 5, 8, 15, 16, 17, 33, 79};
  for (size_t m = 1; m <= 9; m++) {
    for (size_t n = 1; n <= 21; n++) {
      for (size_t d = 0; d < FLI_COUNT_OF(depths); d++) {
        check_dots(m, n, depths[d],
                   &finishes[(m + n + d) % FLI_COUNT_OF(finishes)]);
      }
    }
  }
}

/* A row's sums have the same bits beside other rows and columns. */
static void dots_do_not_depend_on_their_place(void)
{
  enum { M = 9, N = 13, DEPTH = 75 };
  float x[M * DEPTH], w[N * DEPTH], c[M * N];
  for (size_t i = 0; i < M; i++) {
    memcpy(x + i * DEPTH, values, DEPTH * sizeof *x);
  }
  for (size_t j = 0; j < N; j++) {
    memcpy(w + j * DEPTH, values + 500, DEPTH * sizeof *w);
  }
  for (size_t m = 1; m <= M; m++) {
    kernels->dots(&(flk_dots){.x = x,
                              .x_row = DEPTH,
                              .w = w,
                              .w_row = DEPTH,
                              .m = m,
                              .n = N,
                              .depth = DEPTH,
                              .c = c,
                              .c_row = N,
                              .alpha = 1.0f});
    for (size_t i = 1; i < m * N; i++) {
      CHECK_EQ_F64(c[i], c[0]);
    }
  }
}

static void machine_runs_the_strongest_table_unless_told(void)
{
  size_t n = 0;
  while (flk_nn_at(n)) {
    n++;
  }
  CHECK_EQ_MEM(flk_nn(), flk_nn_at(n - 1), sizeof(flk_nn_table));
  CHECK(flk_nn_choose("c"));
  CHECK_EQ_MEM(flk_nn(), flk_nn_at(0), sizeof(flk_nn_table));
  CHECK(!flk_nn_choose("no such table"));
  CHECK_EQ_MEM(flk_nn(), flk_nn_at(0), sizeof(flk_nn_table));
  CHECK(flk_nn_choose(NULL));
  CHECK_EQ_MEM(flk_nn(), flk_nn_at(n - 1), sizeof(flk_nn_table));
}

int main(void)
{
  draw();
  CHECK_CASE(machine_runs_the_strongest_table_unless_told);
  for (size_t i = 0; flk_nn_at(i); i++) {
    kernels = flk_nn_at(i);
    CHECK_CASE(tiles_of_all_sizes_agree_with_plain_loops);
    CHECK_CASE(tiles_keep_nan_through_relu);
    CHECK_CASE(panels_hold_their_columns);
    CHECK_CASE(dots_of_all_sizes_agree_with_plain_loops);
    CHECK_CASE(dots_do_not_depend_on_their_place);
  }
  return check_report();
}
