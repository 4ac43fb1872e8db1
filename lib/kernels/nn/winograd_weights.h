/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's transforms of weights, for the vector of a panel's columns that
 * begins at j: see winograd_body.h, which defines VEC and NAMED(name). Included
 * once per type: no guard. */

static void NAMED(winograd_weights)(const flk_winograd_weights *panel,
                                    const float *plain, float *transformed,
                                    size_t j)
{
  enum { N = sizeof(VEC) / sizeof(float), TAPS = 9 };
  size_t n = panel->columns > j ? panel->columns - j : 0;
  if (n > N) n = N;
  float *to = transformed + j;
  VEC taps[TAPS] = {{0}};
  plain += (ptrdiff_t)j * panel->lane;
  for (size_t row = 0; row < panel->n_rows; row++) {
    for (size_t lane = 0; lane < n; lane++) {
      const float *from = plain + (ptrdiff_t)lane * panel->lane;
      UNROLL for (size_t i = 0; i < TAPS; i++)
      {
        ((float *)&taps[i])[lane] = from[i];
      }
    }
    VEC half[3][POINTS];
    UNROLL for (size_t i = 0; i < 3; i++)
    {
      NAMED(weight_points)(taps + i, 3, half[i]);
    }
    UNROLL for (size_t i = 0; i < POINTS; i++)
    {
      VEC whole[POINTS];
      NAMED(weight_points)(&half[0][i], POINTS, whole);
      for (size_t k = 0; k < POINTS; k++) {
        *(VEC *)(to + (i * POINTS + k) * panel->position) = whole[k];
      }
    }
    plain += panel->step;
    to += panel->width;
  }
}

static void NAMED(winograd_weights_back)(const flk_winograd_weights *panel,
                                         const float *transformed, float *plain,
                                         size_t j)
{
  enum { N = sizeof(VEC) / sizeof(float), TAPS = 9 };
  size_t n = panel->columns > j ? panel->columns - j : 0;
  if (n > N) n = N;
  const float *from = transformed + j;
  plain += (ptrdiff_t)j * panel->lane;
  for (size_t row = 0; row < panel->n_rows; row++) {
    VEC half[3][POINTS];
    VEC taps[TAPS];
    UNROLL for (size_t i = 0; i < POINTS; i++)
    {
      VEC whole[POINTS];
      for (size_t k = 0; k < POINTS; k++) {
        whole[k] = *(const VEC *)(from + (i * POINTS + k) * panel->position);
      }
      NAMED(weight_points_back)(whole, &half[0][i], POINTS);
    }
    UNROLL for (size_t i = 0; i < 3; i++)
    {
      NAMED(weight_points_back)(half[i], taps + i, 3);
    }
    for (size_t lane = 0; lane < n; lane++) {
      float *to = plain + (ptrdiff_t)lane * panel->lane;
      UNROLL for (size_t i = 0; i < TAPS; i++)
      {
        to[i] = ((const float *)&taps[i])[lane];
      }
    }
    plain += panel->step;
    from += panel->width;
  }
}
