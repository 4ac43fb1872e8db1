/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of one vector type, for tile_body.h, which defines VEC,
 * NAMED(name), LOAD_SOME and STORE_SOME. Included once per type: no guard. */

static inline __attribute__((always_inline)) void
NAMED(store)(const flk_tile *t, float *at, const float *bias, VEC y)
{
  y *= t->alpha;
  if (t->beta != 0.0f) y += t->beta * *(const VEC *)at;
  if (bias) y += *(const VEC *)bias;
  /* NaN stays */
  if (t->does_relu) y = (VEC)(~(y < 0.0f) & (__typeof__(y < y))y);
  *(VEC *)at = y;
}

/* A row that ends inside the panel. Sums come by value: an array whose address
 * goes to a function does not stay in clang's registers. */
static __attribute__((noinline)) void
NAMED(store_edge)(const flk_tile *t, float *c, VEC low, VEC high)
{
  enum { N = sizeof(VEC) / sizeof(float) };
  for (size_t j = 0; j < t->columns; j += N) {
    size_t n = t->columns - j < N ? t->columns - j : N;
    VEC y = j == 0 ? low : high;
    y *= t->alpha;
    if (t->beta != 0.0f) y += t->beta * LOAD_SOME(c + j, n);
    if (t->bias) y += LOAD_SOME(t->bias + j, n);
    if (t->does_relu) y = (VEC)(~(y < 0.0f) & (__typeof__(y < y))y);
    STORE_SOME(c + j, y, n);
  }
}

/* `n` rows in each of `n_runs` runs; constants where it is called. */
static inline __attribute__((always_inline)) void
NAMED(tile)(const flk_tile *t, size_t n, size_t n_runs, size_t n_vectors)
{
  enum { N = sizeof(VEC) / sizeof(float) };
  VEC low[FLK_ROWS_MAX], high[FLK_ROWS_MAX]; /* of each row */
  ptrdiff_t row = t->a_row * (ptrdiff_t)sizeof(float);
  ptrdiff_t step = t->a_step * (ptrdiff_t)sizeof(float);
  const float *b = t->b;
  UNROLL for (size_t i = 0; i < n * n_runs; i++)
  {
    const float *c = t->c[i / n] + (ptrdiff_t)(i % n) * t->c_row;
    __builtin_prefetch(c, 1);
    if (n_vectors == 2) __builtin_prefetch(c + N, 1);
    low[i] = high[i] = (VEC){0};
  }
  for (size_t s = 0; s < t->n_segments; s++) {
    ptrdiff_t offset = t->a_offsets ? t->a_offsets[s] : 0;
    const char *a0 = (const char *)(t->a[0] + offset);
    const char *a1 = n_runs == 2 ? (const char *)(t->a[1] + offset) : a0;
    if (t->b_offsets) b = t->b + t->b_offsets[s];
    for (size_t k = 0; k < t->depth; k++) {
      VEC first = *(const VEC *)b;
      VEC second = n_vectors == 2 ? *(const VEC *)(b + N) : first;
      UNROLL for (size_t i = 0; i < n * n_runs; i++)
      {
        const char *from = (i < n ? a0 : a1) + (ptrdiff_t)(i % n) * row;
        VEC x = *(const float *)from - (VEC){0};
        low[i] += x * first;
        if (n_vectors == 2) high[i] += x * second;
      }
      a0 += step;
      a1 += step;
      b += t->b_step;
    }
  }
  int is_whole = t->columns == n_vectors * N;
  /* Short depths feel what is asked per vector. */
  if (is_whole && t->beta == 0.0f && !t->bias && !t->does_relu) {
    UNROLL for (size_t i = 0; i < n * n_runs; i++)
    {
      float *c = t->c[i / n] + (ptrdiff_t)(i % n) * t->c_row;
      *(VEC *)c = low[i] * t->alpha;
      if (n_vectors == 2) *(VEC *)(c + N) = high[i] * t->alpha;
    }
    return;
  }
  UNROLL for (size_t i = 0; i < n * n_runs; i++)
  {
    float *c = t->c[i / n] + (ptrdiff_t)(i % n) * t->c_row;
    if (!is_whole) {
      NAMED(store_edge)(t, c, low[i], high[i]);
      continue;
    }
    NAMED(store)(t, c, t->bias, low[i]);
    if (n_vectors == 1) continue;
    NAMED(store)(t, c + N, t->bias ? t->bias + N : NULL, high[i]);
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
