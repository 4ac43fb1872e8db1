/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in matrix product on the register tiles of kernels/nn: blocks of
 * the depth, in each the panels of one operand, on each panel all tiles of
 * rows. This is the structure of K. Goto and R. van de Geijn, "Anatomy of
 * high-performance matrix multiplication", ACM TOMS 34(3), 2008, but that the
 * operand whose values are broadcast is read where it lies, and that either
 * operand can be the one in panels: panels want memory that is contiguous in
 * the columns, and where that takes a transpose, it should be the smaller
 * matrix. With A in panels the tiles are those of C^T, and go to C by way of a
 * buffer. A few rows times rows (batches of 1) are neither: dots.
 *
 * Every element of C is summed in the same order wherever it stands, and
 * depends on the shape of the product alone. */
#include "linalg/gemm.h"

#include <assert.h>

#include "kernels/nn/nn.h"

enum {
  DEPTH = 256,                        /* of a block, at most */
  PANEL_ROOM = DEPTH * FLK_PANEL_MAX, /* floats: 32 KB */
  ROWS = 192,                         /* of a block of C^T */
  SUMS_ROOM = ROWS * FLK_PANEL_MAX,   /* 24 KB */
  DOTS_ROOM = 512,
  DOTS_ROWS = 16
};

/* A product as tiles see it: `a` is broadcast, `b` is in panels. */
typedef struct sides {
  const float *a;
  ptrdiff_t a_row, a_step;
  const float *b;
  ptrdiff_t b_column, b_step; /* one of them is 1 */
  size_t rows, columns, depth;
} sides;

static size_t min_size(size_t a, size_t b)
{
  return a < b ? a : b;
}

static size_t divide_up(size_t n, size_t by)
{
  return (n + by - 1) / by;
}

static sides sides_of(const fli_gemm *g, int is_swapped)
{
  ptrdiff_t lda = (ptrdiff_t)g->lda, ldb = (ptrdiff_t)g->ldb;
  sides s = {
      .a = g->a,
      .a_row = g->trans_a ? 1 : lda,
      .a_step = g->trans_a ? lda : 1,
      .b = g->b,
      .b_column = g->trans_b ? ldb : 1,
      .b_step = g->trans_b ? 1 : ldb,
      .rows = g->m,
      .columns = g->n,
      .depth = g->k,
  };
  if (!is_swapped) return s;
  return (sides){
      .a = s.b,
      .a_row = s.b_column,
      .a_step = s.b_step,
      .b = s.a,
      .b_column = s.a_row,
      .b_step = s.a_step,
      .rows = g->n,
      .columns = g->m,
      .depth = g->k,
  };
}

/* The kind of panel for the next of `left` columns. */
static int panel_for(const flk_nn_table *nn, size_t left)
{
  size_t one = nn->width[FLK_PANEL_ONE];
  size_t half = nn->width[FLK_PANEL_HALF];
  if (left > one + half) return FLK_PANEL_TWO;
  return left <= half ? FLK_PANEL_HALF : FLK_PANEL_ONE;
}

/* Rows of the next tile when `left` are: about the same for all, because short
 * ones wait for their sums. More than rows_max are a pair. */
static size_t tile_rows(const flk_nn_table *nn, size_t left)
{
  size_t largest = nn->pair_max ? 2 * nn->pair_max : nn->rows_max;
  size_t n = divide_up(left, divide_up(left, largest));
  if (n <= nn->rows_max || n % 2 == 0) return n;
  return n < left ? n + 1 : n / 2 + 1;
}

static void run_tiles(const flk_nn_table *nn, flk_tile tile, size_t rows,
                      int panel)
{
  while (rows > 0) {
    size_t n = tile_rows(nn, rows);
    if (n <= nn->rows_max) {
      nn->tile(&tile, n, panel);
    } else {
      tile.a[1] = tile.a[0] + (ptrdiff_t)(n / 2) * tile.a_row;
      tile.c[1] = tile.c[0] + (ptrdiff_t)(n / 2) * tile.c_row;
      nn->tile_pair(&tile, n / 2, panel);
    }
    tile.a[0] += (ptrdiff_t)n * tile.a_row;
    tile.c[0] += (ptrdiff_t)n * tile.c_row;
    rows -= n;
  }
}

/* Make `tile` read the panel at that place, packed to `room` unless it can be
 * read where it lies. */
static void set_panel(const flk_nn_table *nn, const sides *s, size_t column,
                      size_t at, int panel, flk_tile *tile, float *room)
{
  size_t width = nn->width[panel];
  const float *src =
      s->b + (ptrdiff_t)column * s->b_column + (ptrdiff_t)at * s->b_step;
  tile->b = room;
  tile->b_step = (ptrdiff_t)width;
  flk_pack pack = {.src = src,
                   .step = s->b_step,
                   .depth = tile->depth,
                   .columns = tile->columns,
                   .width = width,
                   .dst = room};
  if (s->b_step == 1 && s->b_column != 1) {
    pack.step = s->b_column;
    nn->pack_transposed(&pack);
  } else if (tile->columns < width || s->rows > 14) {
    nn->pack(&pack);
  } else {
    tile->b = src;
    tile->b_step = s->b_step;
  }
}

/* Depth of blocks: as equal as can be, whole quads for transposes. */
static size_t block_depth(size_t depth)
{
  size_t each = divide_up(depth, divide_up(depth, DEPTH));
  return min_size(divide_up(each, 4) * 4, depth);
}

static void multiply(const flk_nn_table *nn, const fli_gemm *g)
{
  _Alignas(64) float room[PANEL_ROOM];
  sides s = sides_of(g, 0);
  size_t step = block_depth(s.depth);
  for (size_t at = 0; at < s.depth; at += step) {
    int is_last = s.depth - at <= step;
    flk_tile tile = {.a_row = s.a_row,
                     .a_step = s.a_step,
                     .n_segments = 1,
                     .depth = min_size(step, s.depth - at),
                     .c_row = (ptrdiff_t)g->ldc,
                     .alpha = g->alpha,
                     .beta = at == 0 ? g->beta : 1.0f,
                     .does_relu = is_last && g->does_relu};
    for (size_t column = 0; column < s.columns; column += tile.columns) {
      int panel = panel_for(nn, s.columns - column);
      tile.columns = min_size(s.columns - column, nn->width[panel]);
      tile.a[0] = s.a + (ptrdiff_t)at * s.a_step;
      tile.c[0] = g->c + column;
      tile.bias = is_last && g->bias ? g->bias + column : NULL;
      set_panel(nn, &s, column, at, panel, &tile, room);
      run_tiles(nn, tile, s.rows, panel);
    }
  }
}

/* Columns of C^T, `rows` of them from `row` on. */
static void multiply_swapped_block(const flk_nn_table *nn, const fli_gemm *g,
                                   size_t row, size_t rows, float *room)
{
  _Alignas(64) float sums[SUMS_ROOM];
  sides s = sides_of(g, 1);
  size_t step = block_depth(s.depth);
  for (size_t column = 0, columns; column < s.columns; column += columns) {
    int panel = panel_for(nn, s.columns - column);
    size_t width = nn->width[panel];
    columns = min_size(s.columns - column, width);
    for (size_t at = 0; at < s.depth; at += step) {
      flk_tile tile = {
          .a = {s.a + (ptrdiff_t)row * s.a_row + (ptrdiff_t)at * s.a_step},
          .a_row = s.a_row,
          .a_step = s.a_step,
          .n_segments = 1,
          .depth = min_size(step, s.depth - at),
          .c = {sums},
          .c_row = (ptrdiff_t)width,
          .columns = columns,
          .alpha = 1.0f,
          .beta = at == 0 ? 0.0f : 1.0f};
      set_panel(nn, &s, column, at, panel, &tile, room);
      tile.columns = width;
      run_tiles(nn, tile, rows, panel);
    }
    nn->store_transposed(&(flk_store){
        .sums = sums,
        .sums_step = width,
        .c = g->c + column * g->ldc + row,
        .c_row = (ptrdiff_t)g->ldc,
        .rows = columns,
        .columns = rows,
        .alpha = g->alpha,
        .beta = g->beta,
        .bias = g->bias ? g->bias + row : NULL,
        .does_relu = g->does_relu,
    });
  }
}

static void multiply_swapped(const flk_nn_table *nn, const fli_gemm *g)
{
  _Alignas(64) float room[PANEL_ROOM];
  size_t step = divide_up(g->n, divide_up(g->n, ROWS));
  for (size_t row = 0; row < g->n; row += step) {
    multiply_swapped_block(nn, g, row, min_size(step, g->n - row), room);
  }
}

/* c = beta c + alpha y + bias */
static void store_plain(const fli_gemm *g, size_t row, size_t column,
                        const float *y, size_t n)
{
  float *c = g->c + row * g->ldc + column;
  for (size_t j = 0; j < n; j++) {
    float value = g->alpha * y[j];
    if (g->beta != 0.0f) value += g->beta * c[j];
    if (g->bias) value += g->bias[column + j];
    c[j] = g->does_relu && value < 0.0f ? 0.0f : value;
  }
}

static void multiply_dots(const flk_nn_table *nn, const fli_gemm *g)
{
  float y[DOTS_ROOM];
  size_t step = min_size(DOTS_ROOM / g->m, g->n);
  for (size_t column = 0; column < g->n; column += step) {
    size_t n = min_size(step, g->n - column);
    nn->dots(&(flk_dots){.x = g->a,
                         .x_row = (ptrdiff_t)g->lda,
                         .w = g->b + column * g->ldb,
                         .w_row = (ptrdiff_t)g->ldb,
                         .m = g->m,
                         .n = n,
                         .depth = g->k,
                         .y = y,
                         .y_row = n});
    for (size_t i = 0; i < g->m; i++) {
      store_plain(g, i, column, y + i * n, n);
    }
  }
}

/* Without depth. */
static void store_nothing(const fli_gemm *g)
{
  const float zeros[DOTS_ROOM] = {0};
  fli_gemm h = *g;
  h.alpha = 0.0f;
  for (size_t i = 0; i < g->m; i++) {
    for (size_t j = 0; j < g->n; j += DOTS_ROOM) {
      store_plain(&h, i, j, zeros, min_size(DOTS_ROOM, g->n - j));
    }
  }
}

/* Vectors that `columns` take in panels. */
static double lanes_of(const flk_nn_table *nn, size_t columns)
{
  size_t one = nn->width[FLK_PANEL_ONE];
  size_t unit = nn->width[FLK_PANEL_HALF] ? one / 2 : one;
  return (double)(divide_up(columns, unit) * unit) / (double)one;
}

/* What a way takes, in products of a vector and a number. */
static double cost_of(const flk_nn_table *nn, const fli_gemm *g, int way)
{
  double k = (double)g->k;
  if (way == FLI_GEMM_DOTS) {
    int can = !g->trans_a && g->trans_b && g->m <= DOTS_ROWS;
    double sums = (double)g->m * (double)g->n;
    double width = (double)nn->width[FLK_PANEL_ONE];
    return can ? sums * (1.5 * k / width + 12.0) : 1e300;
  }
  sides s = sides_of(g, way == FLI_GEMM_TILES_SWAPPED);
  double rows = (double)(s.rows < 4 ? 4 : s.rows);
  double lanes = lanes_of(nn, s.columns);
  double packing = s.b_column == 1 ? (s.rows > 14 ? 2.0 : 0.0) : 4.0;
  double storing = 1.0;
  if (way == FLI_GEMM_TILES_SWAPPED) {
    packing *= (double)divide_up(s.rows, ROWS);
    storing = 6.0;
  }
  return lanes * (k * (rows + packing) + rows * storing);
}

fli_gemm_plan fli_gemm_plan_tiles(const fli_gemm *g)
{
  fli_gemm_plan plan = {.nn = flk_nn()};
  if (g->k == 0 || g->alpha == 0.0f) {
    plan.way = FLI_GEMM_NOTHING;
    return plan;
  }
  double least = 1e300;
  for (int way = FLI_GEMM_TILES; way <= FLI_GEMM_DOTS; way++) {
    double cost = cost_of(plan.nn, g, way);
    if (cost >= least) continue;
    least = cost;
    plan.way = way;
  }
  return plan;
}

void fli_gemm_run_tiles(const fli_gemm_plan *plan, const fli_gemm *g)
{
  switch (plan->way) {
  case FLI_GEMM_NOTHING: store_nothing(g); break;
  case FLI_GEMM_TILES: multiply(plan->nn, g); break;
  case FLI_GEMM_TILES_SWAPPED: multiply_swapped(plan->nn, g); break;
  case FLI_GEMM_DOTS: multiply_dots(plan->nn, g); break;
  }
}
