/* SPDX-License-Identifier: Apache-2.0 */
/* A strip's transforms for one vector of channels, the first of which is c: see
 * winograd_body.h, which defines VEC and NAMED(name). Included once per type:
 * no guard. `room` has, by points down, the strip's columns; for inputs also
 * the one before and the one behind it. */

INLINE VEC NAMED(at)(const float *from)
{
  return *(const VEC *)from;
}

INLINE size_t NAMED(columns)(const flk_winograd *w)
{
  return TILE * w->n_whole + w->rest;
}

/* ---- inputs to points ---- */

INLINE void NAMED(data_columns)(const flk_winograd *w, size_t c,
                                VEC (*room)[STRIP_COLUMNS], size_t m)
{
  const ptrdiff_t row = w->row, pixel = w->pixel;
  const int has_above = w->has_above, has_below = w->has_below;
  size_t n = NAMED(columns)(w) + 2;
  UNROLL for (size_t i = 0; i < m + 2; i++)
  {
    room[i][0] = room[i][n - 1] = (VEC){0};
  }
  size_t begin = !w->has_left, end = n - !w->has_right;
  const float *from = w->src + ((ptrdiff_t)begin - 1) * pixel + c;
  for (size_t x = begin; x < end; x++, from += pixel) {
    VEC d[POINTS], p[POINTS];
    d[0] = has_above ? NAMED(at)(from - row) : (VEC){0};
    UNROLL for (size_t i = 0; i < m; i++)
    {
      d[i + 1] = NAMED(at)(from + (ptrdiff_t)i * row);
    }
    d[m + 1] = has_below ? NAMED(at)(from + (ptrdiff_t)m * row) : (VEC){0};
    UNROLL for (size_t i = 0; i < m; i++)
    {
      __builtin_prefetch(from + (ptrdiff_t)(i + m + 1) * row);
    }
    NAMED(data_points)(d, p, m);
    UNROLL for (size_t i = 0; i < m + 2; i++) room[i][x] = p[i];
  }
}

INLINE void NAMED(data_tile)(const flk_winograd *w, const VEC *columns,
                             float *const *at, size_t place, size_t m)
{
  VEC d[POINTS], p[POINTS];
  UNROLL for (size_t j = 0; j < m + 2; j++) d[j] = columns[j];
  NAMED(data_points)(d, p, m);
  UNROLL for (size_t j = 0; j < m + 2; j++) * (VEC *)(at[j] + place) = p[j];
}

static void NAMED(winograd_data)(const flk_winograd *w, size_t c)
{
  _Alignas(64) VEC room[POINTS][STRIP_COLUMNS];
  WITH_CONSTANT(w->rows, NAMED(data_columns), w, c, room)
  for (size_t i = 0; i < w->rows + 2; i++) {
    float *at[POINTS];
    UNROLL for (size_t j = 0; j < POINTS; j++) at[j] = w->at[i][j] + c;
    const VEC *columns = room[i];
    size_t place = 0;
    for (size_t t = 0; t < w->n_whole; t++) {
      NAMED(data_tile)(w, columns, at, place, TILE);
      columns += TILE;
      place += w->step;
    }
    WITH_CONSTANT(w->rest, NAMED(data_tile), w, columns, at, place)
  }
}

/* ---- points to gradients of inputs ---- */

/* The first two columns of a tile are the last ones of the tile before, whose
 * part of them is in `carried`. */
INLINE void NAMED(data_tile_back)(VEC *columns, float *const *at, size_t place,
                                  VEC *carried, size_t m)
{
  VEC p[POINTS], d[POINTS];
  UNROLL for (size_t j = 0; j < m + 2; j++) p[j] = NAMED(at)(at[j] + place);
  NAMED(data_points_back)(p, d, m);
  d[0] += carried[0];
  d[1] += carried[1];
  UNROLL for (size_t j = 0; j < m; j++) columns[j] = d[j];
  carried[0] = d[m];
  carried[1] = d[m + 1];
}

INLINE void NAMED(add_or_store)(float *to, VEC value, int adds)
{
  if (adds) value += NAMED(at)(to);
  *(VEC *)to = value;
}

INLINE void NAMED(data_columns_back)(const flk_winograd *w, size_t c,
                                     VEC (*room)[STRIP_COLUMNS], size_t m)
{
  const ptrdiff_t row = w->row, pixel = w->pixel;
  const int has_above = w->has_above, has_below = w->has_below;
  size_t begin = !w->has_left;
  size_t end = NAMED(columns)(w) + 2 - !w->has_right;
  size_t begun = w->has_left ? 2 : 0; /* columns, by the strip to the left */
  float *to = w->dst + ((ptrdiff_t)begin - 1) * pixel + c;
  for (size_t x = begin; x < end; x++, to += pixel) {
    int adds = x < begun;
    VEC p[POINTS], d[POINTS];
    UNROLL for (size_t i = 0; i < m + 2; i++) p[i] = room[i][x];
    NAMED(data_points_back)(p, d, m);
    UNROLL for (size_t i = 0; i < m; i++)
    {
      __builtin_prefetch(to + (ptrdiff_t)(i + m + 1) * row, 1);
    }
    if (has_above) NAMED(add_or_store)(to - row, d[0], 1);
    NAMED(add_or_store)(to, d[1], has_above || adds);
    UNROLL for (size_t i = 1; i < m; i++)
    {
      NAMED(add_or_store)(to + (ptrdiff_t)i * row, d[i + 1], adds);
    }
    if (!has_below) continue;
    NAMED(add_or_store)(to + (ptrdiff_t)m * row, d[m + 1], adds);
  }
}

static void NAMED(winograd_data_back)(const flk_winograd *w, size_t c)
{
  _Alignas(64) VEC room[POINTS][STRIP_COLUMNS];
  for (size_t i = 0; i < w->rows + 2; i++) {
    float *at[POINTS];
    UNROLL for (size_t j = 0; j < POINTS; j++) at[j] = w->at[i][j] + c;
    VEC *columns = room[i];
    VEC carried[2] = {{0}, {0}};
    size_t place = 0;
    for (size_t t = 0; t < w->n_whole; t++) {
      NAMED(data_tile_back)(columns, at, place, carried, TILE);
      columns += TILE;
      place += w->step;
    }
    WITH_CONSTANT(w->rest, NAMED(data_tile_back), columns, at, place, carried)
    columns += w->rest;
    columns[0] = carried[0];
    columns[1] = carried[1];
  }
  WITH_CONSTANT(w->rows, NAMED(data_columns_back), w, c, room)
}

/* ---- points to outputs ---- */

INLINE void NAMED(result_tile)(VEC *columns, float *const *at, size_t place,
                               size_t m)
{
  VEC p[POINTS], y[TILE];
  UNROLL for (size_t j = 0; j < m + 2; j++) p[j] = NAMED(at)(at[j] + place);
  NAMED(result_points)(p, y, m);
  UNROLL for (size_t j = 0; j < m; j++) columns[j] = y[j];
}

INLINE void NAMED(result_columns)(const flk_winograd *w, size_t c,
                                  VEC (*room)[STRIP_COLUMNS], size_t m)
{
  const ptrdiff_t row = w->row, pixel = w->pixel;
  const int does_relu = w->does_relu;
  size_t n = NAMED(columns)(w);
  float *to = w->dst + c;
  VEC bias = w->bias ? NAMED(at)(w->bias + c) : (VEC){0};
  for (size_t x = 0; x < n; x++) {
    VEC p[POINTS], y[TILE];
    UNROLL for (size_t i = 0; i < m + 2; i++) p[i] = room[i][x];
    NAMED(result_points)(p, y, m);
    UNROLL for (size_t i = 0; i < m; i++)
    {
      y[i] += bias;
      /* NaN stays */
      if (does_relu) {
        y[i] = (VEC)(~(y[i] < 0.0f) & (__typeof__(bias < bias))y[i]);
      }
      *(VEC *)(to + (ptrdiff_t)i * row) = y[i];
      __builtin_prefetch(to + (ptrdiff_t)(i + m) * row, 1);
    }
    to += pixel;
  }
}

static void NAMED(winograd_result)(const flk_winograd *w, size_t c)
{
  _Alignas(64) VEC room[POINTS][STRIP_COLUMNS];
  for (size_t i = 0; i < w->rows + 2; i++) {
    float *at[POINTS];
    UNROLL for (size_t j = 0; j < POINTS; j++) at[j] = w->at[i][j] + c;
    VEC *columns = room[i];
    size_t place = 0;
    for (size_t t = 0; t < w->n_whole; t++) {
      NAMED(result_tile)(columns, at, place, TILE);
      columns += TILE;
      place += w->step;
    }
    WITH_CONSTANT(w->rest, NAMED(result_tile), columns, at, place)
  }
  WITH_CONSTANT(w->rows, NAMED(result_columns), w, c, room)
}

/* ---- gradients of outputs to points ---- */

INLINE void NAMED(result_columns_back)(const flk_winograd *w, size_t c,
                                       VEC (*room)[STRIP_COLUMNS], size_t m)
{
  const ptrdiff_t row = w->row, pixel = w->pixel;
  size_t n = NAMED(columns)(w);
  const float *from = w->src + c;
  const float *mask = w->mask ? w->mask + c : NULL;
  for (size_t x = 0; x < n; x++) {
    VEC y[TILE], p[POINTS];
    UNROLL for (size_t i = 0; i < m; i++)
    {
      y[i] = NAMED(at)(from + (ptrdiff_t)i * row);
      __builtin_prefetch(from + (ptrdiff_t)(i + m) * row);
      if (mask) {
        VEC shown = NAMED(at)(mask + (ptrdiff_t)i * row);
        __builtin_prefetch(mask + (ptrdiff_t)(i + m) * row);
        y[i] = (VEC)((shown > 0.0f) & (__typeof__(shown < shown))y[i]);
      }
    }
    NAMED(result_points_back)(y, p, m);
    UNROLL for (size_t i = 0; i < m + 2; i++) room[i][x] = p[i];
    from += pixel;
    if (mask) mask += pixel;
  }
}

INLINE void NAMED(result_tile_back)(const VEC *columns, float *const *at,
                                    size_t place, size_t m)
{
  VEC y[TILE], p[POINTS];
  UNROLL for (size_t j = 0; j < m; j++) y[j] = columns[j];
  NAMED(result_points_back)(y, p, m);
  UNROLL for (size_t j = 0; j < m + 2; j++) * (VEC *)(at[j] + place) = p[j];
}

static void NAMED(winograd_result_back)(const flk_winograd *w, size_t c)
{
  _Alignas(64) VEC room[POINTS][STRIP_COLUMNS];
  WITH_CONSTANT(w->rows, NAMED(result_columns_back), w, c, room)
  for (size_t i = 0; i < w->rows + 2; i++) {
    float *at[POINTS];
    UNROLL for (size_t j = 0; j < POINTS; j++) at[j] = w->at[i][j] + c;
    const VEC *columns = room[i];
    size_t place = 0;
    for (size_t t = 0; t < w->n_whole; t++) {
      NAMED(result_tile_back)(columns, at, place, TILE);
      columns += TILE;
      place += w->step;
    }
    WITH_CONSTANT(w->rest, NAMED(result_tile_back), columns, at, place)
  }
}
