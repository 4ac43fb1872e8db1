/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of one vector type, for tile_body.h, which defines VEC and
 * NAMED(name). Included once per type: no guard. */

static inline __attribute__((always_inline)) void
NAMED(store)(const flk_tile *t, float *at, const float *bias, const VEC *sums,
             size_t n_vectors)
{
  enum { N = sizeof(VEC) / sizeof(float) };
  UNROLL for (size_t v = 0; v < n_vectors; v++)
  {
    VEC y = sums[v];
    if (t->alpha != 1.0f) y *= t->alpha;
    if (t->beta != 0.0f) y += t->beta * *(const VEC *)(at + v * N);
    if (bias) y += *(const VEC *)(bias + v * N);
    /* NaN stays */
    if (t->does_relu) y = (VEC)(~(y < 0.0f) & (__typeof__(y < y))y);
    *(VEC *)(at + v * N) = y;
  }
}

/* A row that ends inside the panel goes by way of a whole one. */
static __attribute__((noinline)) void NAMED(store_edge)(const flk_tile *t,
                                                        float *c,
                                                        const VEC *sums,
                                                        size_t n_vectors)
{
  enum { N = sizeof(VEC) / sizeof(float) };
  float row[2 * N] = {0};
  float bias[2 * N] = {0};
  for (size_t j = 0; j < t->columns; j++) {
    if (t->beta != 0.0f) row[j] = c[j];
    if (t->bias) bias[j] = t->bias[j];
  }
  NAMED(store)(t, row, bias, sums, n_vectors);
  for (size_t j = 0; j < t->columns; j++) {
    c[j] = row[j];
  }
}

/* `n` rows in each of `n_runs` runs; constants where it is called. */
static inline __attribute__((always_inline)) void
NAMED(tile)(const flk_tile *t, size_t n, size_t n_runs, size_t n_vectors)
{
  enum { N = sizeof(VEC) / sizeof(float) };
  VEC sum[FLK_ROWS_MAX][2];
  ptrdiff_t row = t->a_row * (ptrdiff_t)sizeof(float);
  ptrdiff_t step = t->a_step * (ptrdiff_t)sizeof(float);
  const float *b = t->b;
  UNROLL for (size_t i = 0; i < n * n_runs; i++)
  {
    UNROLL for (size_t v = 0; v < n_vectors; v++) sum[i][v] = (VEC){0};
  }
  for (size_t s = 0; s < t->n_segments; s++) {
    ptrdiff_t offset = t->a_offsets ? t->a_offsets[s] : 0;
    const char *a0 = (const char *)(t->a[0] + offset);
    const char *a1 = n_runs == 2 ? (const char *)(t->a[1] + offset) : a0;
    if (t->b_offsets) b = t->b + t->b_offsets[s];
    for (size_t k = 0; k < t->depth; k++) {
      VEC w[2];
      UNROLL for (size_t v = 0; v < n_vectors; v++)
      {
        w[v] = *(const VEC *)(b + v * N);
      }
      UNROLL for (size_t i = 0; i < n * n_runs; i++)
      {
        const char *from = (i < n ? a0 : a1) + (ptrdiff_t)(i % n) * row;
        VEC x = *(const float *)from - (VEC){0};
        UNROLL for (size_t v = 0; v < n_vectors; v++) sum[i][v] += x * w[v];
      }
      a0 += step;
      a1 += step;
      b += t->b_step;
    }
  }
  int is_whole = t->columns == n_vectors * N;
  UNROLL for (size_t i = 0; i < n * n_runs; i++)
  {
    float *c = t->c[i / n] + (ptrdiff_t)(i % n) * t->c_row;
    if (is_whole) {
      NAMED(store)(t, c, t->bias, sum[i], n_vectors);
    } else {
      NAMED(store_edge)(t, c, sum[i], n_vectors);
    }
  }
}

#define ONE_RUN(n)                   \
  case n:                            \
    NAMED(tile)(t, n, 1, n_vectors); \
    break
#define TWO_RUNS(n) \
  case n: NAMED(tile)(t, n, 2, n_vectors); break

static inline __attribute__((always_inline)) void
NAMED(tile_rows)(const flk_tile *t, size_t n_rows, size_t n_vectors)
{
  switch (n_rows) {
    ONE_RUN(1);
    ONE_RUN(2);
    ONE_RUN(3);
    ONE_RUN(4);
    ONE_RUN(5);
    ONE_RUN(6);
#if NN_REGISTERS == 32
    ONE_RUN(7);
#endif
  }
}

#if NN_REGISTERS == 32
static inline __attribute__((always_inline)) void
NAMED(tile_pairs)(const flk_tile *t, size_t n_rows, size_t n_vectors)
{
  switch (n_rows) {
    TWO_RUNS(4);
    TWO_RUNS(5);
    TWO_RUNS(6);
    TWO_RUNS(7);
  }
}
#endif

#undef ONE_RUN
#undef TWO_RUNS
