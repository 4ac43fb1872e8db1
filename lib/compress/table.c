/* SPDX-License-Identifier: Apache-2.0 */
/* The table that rounds with the least expected error (THC, section 4.3 and
 * appendix B; docs/design/thc.md): over all strictly increasing T with T(0) = 0
 * and T(2^bits - 1) = g the sum over cells [l, u] between neighbouring values
 * of the integral of (a - l)(u - a) phi(a), by dynamic programming over
 *   f[j][k] = min over i of f[j-1][i] + c(v_i, v_k)
 * up to the cell in the middle; what is behind it is the mirror image of such
 * a half.
 *
 * Costs are rounded to multiples of 2^-44 and those of mirrored cells are the
 * same number. Sums of them are exact in a double, so that the minimum is a
 * true one, whatever the order of additions, and ties are ties: every table
 * costs what its mirror image costs. Of all best tables the one is taken with
 * the smallest value before the middle cell, then with the smallest behind it;
 * then, going outwards, with the smallest to the left, the largest to the
 * right. */
#include "compress/table.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/dmath.h"
#include "base/error.h"

/* A table's cost is below t^2 <= 2^8, so that sums stay below 2^53 steps. */
#define COST_STEP 0x1p-44

/* Where the best clip of a solved table is, from uniform's for as many bits
 * on: a table that is not uniform has fine cells to spare for the middle. */
#define CLIP_BELOW 0.125
#define CLIP_ABOVE 1.0

enum { WORKERS_DEFAULT = 8, GRANULARITY_FACTOR = 8 };

/* A point of the grid: Phi and phi there. */
typedef struct grid_point {
  double value;
  double below;
  double density;
} grid_point;

/* Value j of a table is at least j and leaves room for those behind it, so it
 * is one of `width` = g - top + 1 values: j + d with d < width. */
typedef struct solver {
  fl_context *context;
  grid_point *points;
  double *costs; /* of cell (i, i + 1 + e): [i * width + e] */
  double *best;  /* f[j][j + d]: [j * width + d], j <= half */
  size_t n_points, n_costs, n_best;
  uint32_t top;  /* 2^bits - 1 */
  uint32_t half; /* cells before the one in the middle */
  uint32_t g;
  uint32_t width;
} solver;

/* Antisymmetric to the last bit: point(g - i) = -point(i). */
static grid_point point_at(double t, uint32_t g, uint32_t i)
{
  double value = t * ((2.0 * (double)i - (double)g) / (double)g);
  grid_point point = {value, fli_normal_tail(-value), fli_normal_pdf(value)};
  return point;
}

/* c(l, u) = -I2 + (l + u) I1 - l u I0, Ik the integral of a^k phi(a). */
static double cell_cost(const grid_point *l, const grid_point *u)
{
  double i0 = u->below - l->below;
  double i1 = l->density - u->density;
  double i2 = i0 - (u->value * u->density - l->value * l->density);
  double cost = (l->value + u->value) * i1 - i2 - l->value * u->value * i0;
  return cost > 0.0 ? cost : 0.0;
}

static void solver_set(solver *s, uint32_t g)
{
  s->g = g;
  s->width = g - s->top + 1;
}

static void solver_free(solver *s)
{
  fli_free(s->context, s->points, s->n_points * sizeof *s->points);
  fli_free(s->context, s->costs, s->n_costs * sizeof *s->costs);
  fli_free(s->context, s->best, s->n_best * sizeof *s->best);
}

/* Room for granularities up to g. */
static fl_status solver_init(solver *s, fl_context *context, uint32_t bits,
                             uint32_t g)
{
  *s = (solver){.context = context,
                .top = (1u << bits) - 1u,
                .half = (1u << (bits - 1)) - 1u};
  solver_set(s, g);
  s->n_points = g + 1;
  s->n_costs = (size_t)g * s->width;
  s->n_best = (size_t)(s->half + 1) * s->width;
  s->points = fli_alloc(context, s->n_points, sizeof *s->points);
  s->costs = fli_alloc(context, s->n_costs, sizeof *s->costs);
  s->best = fli_alloc(context, s->n_best, sizeof *s->best);
  if (s->points && s->costs && s->best) return FL_OK;
  solver_free(s);
  return fli_nomem((s->n_costs + s->n_best) * sizeof *s->best);
}

static void set_costs(solver *s, double t)
{
  uint32_t g = s->g;
  for (uint32_t i = 0; i <= g; i++)
    s->points[i] = point_at(t, g, i);
  for (uint32_t i = 0; i < g; i++) {
    for (uint32_t e = 0; e < s->width && i + 1 + e <= g - i; e++) {
      uint32_t k = i + 1 + e;
      double cost = cell_cost(&s->points[i], &s->points[k]);
      double rounded = floor(cost / COST_STEP + 0.5);
      s->costs[i * s->width + e] = rounded;
      s->costs[(g - k) * s->width + e] = rounded;
    }
  }
}

/* to[e] = min(to[e], base + from[e]) */
static void relax(double *restrict to, const double *restrict from, double base,
                  uint32_t n)
{
  for (uint32_t e = 0; e < n; e++) {
    double sum = base + from[e];
    to[e] = sum < to[e] ? sum : to[e];
  }
}

static void solve_levels(solver *s)
{
  uint32_t width = s->width;
  s->best[0] = 0.0;
  for (uint32_t d = 1; d < width; d++)
    s->best[d] = HUGE_VAL;
  for (uint32_t j = 1; j <= s->half; j++) {
    const double *before = s->best + (size_t)(j - 1) * width;
    double *level = s->best + (size_t)j * width;
    for (uint32_t d = 0; d < width; d++)
      level[d] = HUGE_VAL;
    for (uint32_t d = 0; d < width; d++)
      relax(level + d, s->costs + (size_t)(j - 1 + d) * width, before[d],
            width - d);
  }
}

/* Least cost of a whole table in steps; its middle cell begins at *low and
 * ends *high before g. */
static double join_halves(const solver *s, uint32_t *low, uint32_t *high)
{
  uint32_t half = s->half, width = s->width;
  const double *level = s->best + (size_t)half * width;
  double least = HUGE_VAL;
  for (uint32_t d = 0; d < width; d++) {
    const double *cells = s->costs + (size_t)(half + d) * width;
    for (uint32_t e = 0; e < width - d; e++) {
      uint32_t rest = width - 1 - d - e;
      double cost = level[d] + cells[e] + level[rest];
      if (cost >= least) continue;
      least = cost;
      *low = half + d;
      *high = half + rest;
    }
  }
  return least;
}

/* values[0..half] of the half that ends at value k. */
static void trace(const solver *s, uint32_t k, uint8_t *values)
{
  values[s->half] = (uint8_t)k;
  for (uint32_t j = s->half; j > 0; j--) {
    const double *before = s->best + (size_t)(j - 1) * s->width;
    double want = s->best[(size_t)j * s->width + (k - j)];
    uint32_t i = j - 1;
    while (before[i - (j - 1)] + s->costs[(size_t)i * s->width + (k - i - 1)] !=
           want)
      i++;
    assert(i < k);
    k = i;
    values[j - 1] = (uint8_t)k;
  }
}

double fli_table_cost(const uint8_t *values, uint32_t bits, double t)
{
  uint32_t top = (1u << bits) - 1u;
  double sum = 0.0;
  grid_point low = point_at(t, values[top], 0);
  for (uint32_t j = 1; j <= top; j++) {
    grid_point high = point_at(t, values[top], values[j]);
    sum += cell_cost(&low, &high);
    low = high;
  }
  return sum;
}

/* The least cost for a clip, and the table that has it unless `values` is
 * NULL. */
static double solve(solver *s, double clip, uint8_t *values)
{
  uint8_t mirrored[FLI_TABLE_MAX / 2];
  uint32_t low = 0, high = 0;
  set_costs(s, clip);
  solve_levels(s);
  double least = join_halves(s, &low, &high) * COST_STEP;
  if (!values) return least;
  trace(s, low, values);
  trace(s, high, mirrored);
  for (uint32_t j = 0; j <= s->half; j++)
    values[s->top - j] = (uint8_t)(s->g - mirrored[j]);
  return least;
}

fl_status fli_table_solve(fl_context *context, uint32_t bits, uint32_t g,
                          double clip, uint8_t *values, double *cost)
{
  solver s;
  assert(bits >= 1 && bits <= 8);
  assert(g >= (1u << bits) - 1u && g <= FLI_GRANULARITY_MAX);
  fl_status st = solver_init(&s, context, bits, g);
  if (st != FL_OK) return st;
  double least = solve(&s, clip, values);
  if (cost) *cost = least;
  solver_free(&s);
  return FL_OK;
}

/* The best granularity in s->top .. most and its table. */
static uint32_t choose(solver *s, uint32_t most, double clip, uint8_t *values)
{
  uint8_t candidate[FLI_TABLE_MAX];
  double least = HUGE_VAL;
  uint32_t best = s->top;
  for (uint32_t g = s->top; g <= most; g++) {
    solver_set(s, g);
    double cost = solve(s, clip, candidate);
    if (cost >= least) continue;
    least = cost;
    best = g;
    memcpy(values, candidate, (size_t)s->top + 1);
  }
  return best;
}

fl_status fli_table_granularity(fl_context *context, uint32_t bits,
                                uint32_t most, double clip, uint32_t *g,
                                uint8_t *values)
{
  solver s;
  fl_status st = solver_init(&s, context, bits, most);
  if (st != FL_OK) return st;
  *g = choose(&s, most, clip, values);
  solver_free(&s);
  return FL_OK;
}

/* Rounding and clamping with the best table for a clip. */
static double error_at(const void *arg, double clip)
{
  solver s = *(const solver *)arg; /* shares the memory */
  return solve(&s, clip, NULL) + fli_clamping_error(clip);
}

static double fit(solver *s, uint32_t g, double *clip)
{
  double uniform = (double)fli_best_clip(FL_THC_UNIFORM, s->top);
  double low = uniform - CLIP_BELOW;
  if (low < (double)FLI_CLIP_MIN) low = (double)FLI_CLIP_MIN;
  solver_set(s, g);
  *clip = fli_clip_search(error_at, s, low, uniform + CLIP_ABOVE);
  return error_at(s, *clip);
}

fl_status fli_table_fit(fl_context *context, uint32_t bits, uint32_t most,
                        uint32_t *g, uint8_t *values)
{
  solver s;
  double clip, uniform_clip;
  fl_status st = solver_init(&s, context, bits, *g > 0 ? *g : most);
  if (st != FL_OK) return st;
  if (*g > 0) {
    (void)fit(&s, *g, &clip);
  } else {
    /* The clip depends little on g: one search over g is enough, with the
     * clip of the finest grid. */
    (void)fit(&s, most, &clip);
    *g = choose(&s, most, clip, values);
    double error = fit(&s, *g, &clip);
    if (fit(&s, s.top, &uniform_clip) <= error) {
      *g = s.top;
      clip = uniform_clip;
    }
  }
  solver_set(&s, *g);
  (void)solve(&s, clip, values);
  solver_free(&s);
  return FL_OK;
}

uint32_t fli_table_most(uint32_t bits, uint32_t workers)
{
  uint64_t top = (1u << bits) - 1u;
  uint64_t most = GRANULARITY_FACTOR * top;
  uint64_t lane = UINT8_MAX;
  if (workers * top > lane) lane = UINT16_MAX;
  if (workers * top > lane) lane = UINT32_MAX;
  if (most > lane / workers) most = lane / workers;
  return (uint32_t)(most < FLI_GRANULARITY_MAX ? most : FLI_GRANULARITY_MAX);
}

void fli_table_entries(uint32_t *entries, const uint8_t *values, uint32_t bits)
{
  uint32_t top = (1u << bits) - 1u;
  for (uint32_t j = 0; j < top; j++) {
    uint32_t gap = (uint32_t)values[j + 1] - values[j];
    for (uint32_t c = values[j]; c < values[j + 1]; c++)
      entries[c] = gap << 24 | (uint32_t)values[j] << 16 | j;
  }
  entries[values[top]] = 1u << 24 | (uint32_t)values[top] << 16 | top;
}

/* A table that was given: sets the granularity. */
static fl_status check_table(const fl_compressor_options *options, uint32_t *g)
{
  const uint8_t *table = options->table;
  uint32_t n = 1u << options->bits;
  if (options->n_table != n)
    return fli_error(FL_E_OPTIONS, "n_table: got %u, want %u", options->n_table,
                     n);
  if (table[0] != 0)
    return fli_error(FL_E_OPTIONS, "table[0]: got %u, want 0", table[0]);
  for (uint32_t j = 1; j < n; j++) {
    if (table[j] > table[j - 1]) continue;
    return fli_error(FL_E_OPTIONS, "table[%u]: got %u, want > %u", j, table[j],
                     table[j - 1]);
  }
  if (options->granularity != 0 && options->granularity != table[n - 1])
    return fli_error(FL_E_OPTIONS,
                     "granularity: got %u, want 0 or the table's last, %u",
                     options->granularity, table[n - 1]);
  *g = table[n - 1];
  return FL_OK;
}

/* A table that is to be solved, and its granularity. */
fl_status fli_table_choose(fl_compressor *compressor,
                           const fl_compressor_options *options)
{
  fl_context *context = compressor->context;
  uint32_t bits = options->bits, g = options->granularity;
  uint32_t top = (1u << bits) - 1u;
  uint32_t workers = options->workers > 0 ? options->workers : WORKERS_DEFAULT;
  uint32_t most = fli_table_most(bits, workers);
  double clip = (double)compressor->clip;
  if (options->n_table != 0)
    return fli_error(FL_E_OPTIONS, "table: got NULL, want %u values",
                     options->n_table);
  if (g != 0 && (g < top || g > FLI_GRANULARITY_MAX))
    return fli_error(FL_E_OPTIONS, "granularity: got %u, want 0 or %u..%d", g,
                     top, FLI_GRANULARITY_MAX);
  compressor->granularity = g;
  if (clip == 0.0)
    return fli_table_fit(context, bits, most, &compressor->granularity,
                         compressor->values);
  if (g == 0)
    return fli_table_granularity(context, bits, most, clip,
                                 &compressor->granularity, compressor->values);
  return fli_table_solve(context, bits, g, clip, compressor->values, NULL);
}

fl_status fli_table_configure(fl_compressor *compressor,
                              const fl_compressor_options *options)
{
  uint32_t n = 1u << options->bits;
  fl_status st = FL_OK;
  compressor->values = fli_alloc(compressor->context, n, 1);
  if (!compressor->values) return fli_nomem(n);
  size_t n_entries = FLI_TABLE_ENTRIES;
  compressor->entries =
      fli_alloc(compressor->context, n_entries, sizeof *compressor->entries);
  if (!compressor->entries)
    return fli_nomem(n_entries * sizeof *compressor->entries);
  if (options->table) {
    st = check_table(options, &compressor->granularity);
    if (st == FL_OK) memcpy(compressor->values, options->table, n);
  } else if (compressor->chooser) {
    st = compressor->chooser->table(compressor, options);
  } else {
    st = fli_error(FL_E_OPTIONS, "table: got NULL, want what was agreed on");
  }
  if (st != FL_OK) return st;
  fli_table_entries(compressor->entries, compressor->values, options->bits);
  return FL_OK;
}
