/* SPDX-License-Identifier: Apache-2.0 */
/* Lloyd's algorithm for two centroids, several starts. The first start takes a
 * row by chance and the one furthest from it, the others two by chance. */
#include "cohort/cohort.h"

#include <string.h>

enum { ITERATIONS = 20 };
#define WORTHLESS 1e30

typedef struct start {
  float *centroids; /* [2, dim] */
  uint8_t *labels;
  double cost;
} start;

static void draw_centroids(const fli_rows *rows, int is_first,
                           fli_split_rng *rng, float *centroids)
{
  const size_t dim = rows->dim, bytes = dim * sizeof *centroids;
  uint32_t i = fli_split_below(rng, rows->n), j = 0;
  const float *first = rows->values + i * dim;
  if (is_first) {
    float most = -1.0f;
    for (uint32_t k = 0; k < rows->n; k++) {
      float d = fli_distance2(rows->values + k * dim, first, dim);
      if (d <= most) continue;
      most = d;
      j = k;
    }
  } else {
    j = fli_split_below(rng, rows->n);
  }
  memcpy(centroids, first, bytes);
  memcpy(centroids + dim, rows->values + j * dim, bytes);
}

/* Returns how many rows are in half 1; *has_changed: any label. */
static uint32_t label(const fli_rows *rows, const start *s, int *has_changed)
{
  const size_t dim = rows->dim;
  uint32_t ones = 0;
  *has_changed = 0;
  for (uint32_t k = 0; k < rows->n; k++) {
    const float *row = rows->values + k * dim;
    uint8_t half = fli_distance2(row, s->centroids + dim, dim) <
                   fli_distance2(row, s->centroids, dim);
    if (half != s->labels[k]) *has_changed = 1;
    s->labels[k] = half;
    ones += half;
  }
  return ones;
}

static void move_centroids(const fli_rows *rows, start *s, uint32_t ones)
{
  const size_t dim = rows->dim;
  const float counts[2] = {(float)(rows->n - ones), (float)ones};
  memset(s->centroids, 0, 2 * dim * sizeof *s->centroids);
  for (uint32_t k = 0; k < rows->n; k++) {
    float *sum = s->centroids + s->labels[k] * dim;
    const float *row = rows->values + k * dim;
    for (size_t i = 0; i < dim; i++)
      sum[i] += row[i];
  }
  for (unsigned half = 0; half < 2; half++) {
    for (size_t i = 0; i < dim; i++)
      s->centroids[half * dim + i] /= counts[half];
  }
}

static void descend(const fli_rows *rows, start *s)
{
  const size_t dim = rows->dim;
  int has_changed;
  memset(s->labels, 2, rows->n);
  s->cost = WORTHLESS;
  for (int i = 0; i < ITERATIONS; i++) {
    uint32_t ones = label(rows, s, &has_changed);
    if (ones == 0 || ones == rows->n) return;
    if (!has_changed) break;
    move_centroids(rows, s, ones);
  }
  s->cost = 0.0;
  for (uint32_t k = 0; k < rows->n; k++) {
    s->cost += (double)fli_distance2(rows->values + k * dim,
                                     s->centroids + s->labels[k] * dim, dim);
  }
}

size_t fli_halves_scratch(uint32_t n, size_t dim)
{
  return 2 * dim * sizeof(float) + n;
}

void fli_find_halves(const fli_rows *rows, uint32_t starts, fli_split_rng *rng,
                     float *centroids, uint8_t *labels, void *scratch)
{
  const size_t dim = rows->dim;
  start s = {.centroids = scratch};
  s.labels = (uint8_t *)(s.centroids + 2 * dim);
  double best = 0.0;
  for (uint32_t i = 0; i < starts; i++) {
    draw_centroids(rows, i == 0, rng, s.centroids);
    descend(rows, &s);
    if (i > 0 && s.cost >= best) continue;
    best = s.cost;
    memcpy(centroids, s.centroids, 2 * dim * sizeof *centroids);
    if (labels) memcpy(labels, s.labels, rows->n);
  }
}
