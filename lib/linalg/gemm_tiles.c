/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in matrix product, in one of two ways.
 *
 * Tiles: C in register tiles of kernels/nn. Blocks of the depth; in each the
 * panels of op(B), packed where they have to be transposed or are read often
 * enough; on each panel all tiles of rows, which take op(A) from where it
 * lies. This is the structure of K. Goto and R. van de Geijn, "Anatomy of
 * high-performance matrix multiplication", ACM TOMS 34(3), 2008, less the
 * packing of A, which did not pay at any shape tried.
 *
 * Dots: rows of A times rows of B where both lie along the depth. Nothing is
 * packed, which for up to about a hundred rows of A (batches, single samples)
 * is worth more than what adding up the lanes costs.
 *
 * Every element of C is summed in the same order wherever it stands; the way
 * and the blocks depend on the whole product's shape alone. */
#include "linalg/gemm.h"

#include <assert.h>

#include "linalg/sizes.h"
#include "linalg/tiles.h"

enum {
  DEPTH = 384,                         /* of a block, at most */
  PANELS_ROOM = DEPTH * FLK_PANEL_MAX, /* floats: 48 KB */
  PANELS_MAX = 12,
  ROWS = 512,       /* of a block: its part of A stays in the second cache */
  ROWS_DIRECT = 56, /* up to which packing a panel costs more than it saves */
  DOTS_ROOM = 1 << 17, /* floats of B that stay in the second cache: 512 KB */
  PAGE = 4096,
  LINE = 64
};

typedef struct panel {
  const float *b;
  ptrdiff_t b_step;
  size_t column; /* of the group's */
  size_t columns;
  int kind; /* FLK_PANEL_* */
} panel;

/* Panels side by side, as many as there is room for. */
typedef struct panel_group {
  panel panels[PANELS_MAX];
  size_t n;
  size_t columns;
  _Alignas(LINE) float room[PANELS_ROOM];
} panel_group;

/* Whether memory `step` floats apart shares one set of the first cache, which
 * has fewer lines (8) than the tallest tile has rows. */
static int is_crowded(size_t step)
{
  size_t bytes = step * sizeof(float) % PAGE;
  return bytes < LINE || bytes > PAGE - LINE;
}

static void run_tiles(const flk_nn_table *nn, const panel_group *group,
                      flk_tile tile, size_t rows)
{
  int can_pair = !is_crowded((size_t)tile.a_row);
  float *c = tile.c[0];
  const float *bias = tile.bias;
  while (rows > 0) {
    size_t n = fli_tile_rows(nn, rows, can_pair);
    for (size_t i = 0; i < group->n; i++) {
      const panel *p = &group->panels[i];
      tile.b = p->b;
      tile.b_step = p->b_step;
      tile.columns = p->columns;
      tile.c[0] = c + p->column;
      tile.bias = bias ? bias + p->column : NULL;
      fli_tile_run(nn, &tile, n, p->kind);
    }
    tile.a[0] += (ptrdiff_t)n * tile.a_row;
    c += (ptrdiff_t)n * tile.c_row;
    rows -= n;
  }
}

/* Make `p` the panel of `depth` x p->columns floats of op(B) at b; how much of
 * `room` that takes. */
static size_t make_panel(const flk_nn_table *nn, const fli_gemm *g, panel *p,
                         const float *b, size_t depth, float *room)
{
  size_t width = nn->width[p->kind];
  flk_pack pack = {.src = b,
                   .step = (ptrdiff_t)g->ldb,
                   .depth = depth,
                   .columns = p->columns,
                   .width = width,
                   .dst = room,
                   .ahead = (ptrdiff_t)(g->trans_b ? width * g->ldb : width)};
  p->b = room;
  p->b_step = (ptrdiff_t)width;
  if (g->trans_b) {
    nn->pack_transposed(&pack);
  } else if (g->m > ROWS_DIRECT || p->columns < width || is_crowded(g->ldb)) {
    nn->pack(&pack);
  } else {
    p->b = b;
    p->b_step = (ptrdiff_t)g->ldb;
    return 0;
  }
  return depth * width;
}

/* The columns from `column` on, in the block of the depth that begins at
 * `at`. */
static void make_group(const flk_nn_table *nn, const fli_gemm *g, size_t column,
                       size_t at, size_t depth, panel_group *group)
{
  size_t used = 0;
  group->n = 0;
  group->columns = 0;
  while (group->n < PANELS_MAX && column < g->n) {
    panel *p = &group->panels[group->n];
    p->kind = fli_tile_panel(nn, g->n - column);
    p->columns = fli_min_size(nn->width[p->kind], g->n - column);
    p->column = group->columns;
    if (PANELS_ROOM - used < depth * nn->width[p->kind]) break;
    const float *b =
        g->b + (g->trans_b ? column * g->ldb + at : at * g->ldb + column);
    used += make_panel(nn, g, p, b, depth, group->room + used);
    group->n++;
    group->columns += p->columns;
    column += p->columns;
  }
}

/* One block of the depth. */
static void multiply_block(const flk_nn_table *nn, const fli_gemm *g, size_t at,
                           size_t depth)
{
  panel_group group;
  int is_last = at + depth == g->k;
  size_t rows = fli_divide_up(g->m, fli_divide_up(g->m, ROWS));
  flk_tile tile = {.a_row = (ptrdiff_t)(g->trans_a ? 1 : g->lda),
                   .a_step = (ptrdiff_t)(g->trans_a ? g->lda : 1),
                   .n_segments = 1,
                   .depth = depth,
                   .c_row = (ptrdiff_t)g->ldc,
                   .alpha = g->alpha,
                   .beta = at == 0 ? g->beta : 1.0f,
                   .does_relu = is_last && g->does_relu};
  for (size_t row = 0; row < g->m; row += rows) {
    const float *a =
        g->a + (g->trans_a ? at * g->lda + row : row * g->lda + at);
    for (size_t column = 0; column < g->n; column += group.columns) {
      make_group(nn, g, column, at, depth, &group);
      tile.a[0] = a;
      tile.c[0] = g->c + row * g->ldc + column;
      tile.bias = is_last && g->bias ? g->bias + column : NULL;
      run_tiles(nn, &group, tile, fli_min_size(rows, g->m - row));
    }
  }
}

static void multiply_tiles(const flk_nn_table *nn, const fli_gemm *g)
{
  /* About equal blocks, of whole quads for transposes. */
  size_t step = fli_divide_up(g->k, fli_divide_up(g->k, DEPTH));
  step = fli_round_up(step, 4);
  for (size_t at = 0; at < g->k; at += step) {
    multiply_block(nn, g, at, fli_min_size(step, g->k - at));
  }
}

static void multiply_dots(const flk_nn_table *nn, const fli_gemm *g)
{
  size_t step = DOTS_ROOM / g->k / 8 * 8;
  if (step == 0) step = 8;
  for (size_t column = 0; column < g->n; column += step) {
    nn->dots(&(flk_dots){.x = g->a,
                         .x_row = (ptrdiff_t)g->lda,
                         .w = g->b + column * g->ldb,
                         .w_row = (ptrdiff_t)g->ldb,
                         .m = g->m,
                         .n = fli_min_size(step, g->n - column),
                         .depth = g->k,
                         .c = g->c + column,
                         .c_row = (ptrdiff_t)g->ldc,
                         .alpha = g->alpha,
                         .beta = g->beta,
                         .bias = g->bias ? g->bias + column : NULL,
                         .does_relu = g->does_relu});
  }
}

/* c = beta c + bias */
static void store_nothing(const fli_gemm *g)
{
  for (size_t i = 0; i < g->m; i++) {
    float *c = g->c + i * g->ldc;
    for (size_t j = 0; j < g->n; j++) {
      float value = g->beta == 0.0f ? 0.0f : g->beta * c[j];
      if (g->bias) value += g->bias[j];
      c[j] = g->does_relu && value < 0.0f ? 0.0f : value;
    }
  }
}

/* Whether dots take less. Both counted in products of a vector and a number,
 * as measured on Zen 4 (AVX2 and AVX-512): transposing a vector takes 8,
 * adding up lanes 2.5, and dots are a twentieth slower, with one row of A
 * twice as slow, because both factors are loaded. */
static int is_for_dots(const flk_nn_table *nn, const fli_gemm *g)
{
  if (g->trans_a || !g->trans_b) return 0;
  double width = (double)nn->width[FLK_PANEL_ONE];
  double k = (double)g->k, m = (double)g->m, n = (double)g->n;
  double lanes = (double)fli_divide_up(g->n, nn->width[FLK_PANEL_ONE]);
  double dots = m * n * ((m < 2.0 ? 2.0 : 1.05) * k / width + 2.5);
  return dots < lanes * k * ((m < 4.0 ? 4.0 : m) + 8.0);
}

fli_gemm_plan fli_gemm_plan_tiles(const fli_gemm *g)
{
  fli_gemm_plan plan = {.nn = flk_nn(), .way = FLI_GEMM_TILES};
  assert(g->ldc >= g->n);
  if (g->k == 0 || g->alpha == 0.0f) {
    plan.way = FLI_GEMM_NOTHING;
  } else if (is_for_dots(plan.nn, g)) {
    plan.way = FLI_GEMM_DOTS;
  }
  return plan;
}

void fli_gemm_run_tiles(const fli_gemm_plan *plan, const fli_gemm *g)
{
  switch (plan->way) {
  case FLI_GEMM_NOTHING: store_nothing(g); break;
  case FLI_GEMM_TILES: multiply_tiles(plan->nn, g); break;
  case FLI_GEMM_DOTS: multiply_dots(plan->nn, g); break;
  }
}
