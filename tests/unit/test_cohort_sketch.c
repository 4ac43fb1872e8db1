/* SPDX-License-Identifier: Apache-2.0 */
/* Sketches of updates: against the formula in double, and what has none. */
#include "cohort_fixture.h"

enum { N = 5003, DIM = 64 };

static fl_sketcher *sketcher_of(uint64_t seed)
{
  fl_sketcher *sketcher = NULL;
  PEOPLE_MUST(fl_sketcher_new(&sketcher, NULL, seed, N, DIM));
  return sketcher;
}

static void draw(float *update, uint64_t seed)
{
  for (uint32_t i = 0; i < N; i++)
    update[i] = (float)people_uniform(&seed);
}

static fl_status write(fl_sketcher *sketcher, const float *update,
                       uint8_t *sketch)
{
  size_t n = 0;
  return fl_sketcher_write(sketcher, update, N, sketch, DIM / 2, &n);
}

Test(cohort_sketch, is_its_formula)
{
  float update[N];
  double sums[DIM] = {0}, most = 0.0;
  uint8_t sketch[DIM / 2];
  uint64_t state = 8012;
  fl_sketcher *sketcher = sketcher_of(state);
  uint32_t other = 0;
  draw(update, 3);
  for (uint32_t i = 0; i < N; i++) {
    uint32_t z = (uint32_t)(people_next(&state) >> 32);
    sums[(z >> 1) % DIM] += z & 1 ? (double)update[i] : -(double)update[i];
  }
  for (uint32_t j = 0; j < DIM; j++)
    most = fmax(most, fabs(sums[j]));
  PEOPLE_MUST(write(sketcher, update, sketch));
  for (uint32_t j = 0; j < DIM; j++) {
    double exact = (sums[j] + most) / (2.0 * most) * 15.0;
    double got = sketch[j / 2] >> j % 2 * 4 & 15;
    cr_assert_leq(fabs(got - exact), .5 + 1e-4);
    other += got != rint(exact);
  }
  cr_assert_leq(other, 1);
  fl_sketcher_free(sketcher);
}

Test(cohort_sketch, scale_does_not_matter)
{
  float update[N];
  uint8_t a[DIM / 2], b[DIM / 2];
  fl_sketcher *sketcher = sketcher_of(1);
  draw(update, 4);
  PEOPLE_MUST(write(sketcher, update, a));
  for (uint32_t i = 0; i < N; i++)
    update[i] *= 0x1p-20f;
  PEOPLE_MUST(write(sketcher, update, b));
  cr_assert_arr_eq(a, b, sizeof a);
  fl_sketcher_free(sketcher);
}

Test(cohort_sketch, angles_are_about_kept)
{
  float x[N], y[N];
  double dot = 0.0, exact = 0.0, xx = 0.0, yy = 0.0, a = 0.0, b = 0.0;
  uint8_t sketches[2][DIM / 2];
  fl_sketcher *sketcher = sketcher_of(2);
  draw(x, 5);
  draw(y, 6);
  for (uint32_t i = 0; i < N; i++) {
    y[i] = .8f * x[i] + .6f * y[i];
    exact += (double)x[i] * (double)y[i];
    xx += (double)x[i] * (double)x[i];
    yy += (double)y[i] * (double)y[i];
  }
  PEOPLE_MUST(write(sketcher, x, sketches[0]));
  PEOPLE_MUST(write(sketcher, y, sketches[1]));
  for (uint32_t j = 0; j < DIM; j++) {
    double u = 2.0 * (sketches[0][j / 2] >> j % 2 * 4 & 15) - 15.0;
    double v = 2.0 * (sketches[1][j / 2] >> j % 2 * 4 & 15) - 15.0;
    dot += u * v;
    a += u * u;
    b += v * v;
  }
  cr_assert_float_eq(dot / sqrt(a * b), exact / sqrt(xx * yy), .15);
  fl_sketcher_free(sketcher);
}

Test(cohort_sketch, updates_without_one_are_refused)
{
  float update[N] = {0};
  uint8_t sketch[DIM / 2], before[DIM / 2];
  size_t n = 0;
  fl_sketcher *sketcher = sketcher_of(1);
  memset(sketch, 0x5a, sizeof sketch);
  memcpy(before, sketch, sizeof before);
  IS(write(sketcher, update, sketch), FL_E_RANGE);
  update[7] = NAN;
  IS(write(sketcher, update, sketch), FL_E_NOT_FINITE);
  update[7] = -INFINITY;
  IS(write(sketcher, update, sketch), FL_E_NOT_FINITE);
  for (uint32_t i = 0; i < N; i++)
    update[i] = 3e38f;
  IS(write(sketcher, update, sketch), FL_E_NOT_FINITE);
  draw(update, 1);
  IS(fl_sketcher_write(sketcher, update, N - 1, sketch, DIM / 2, &n), FL_E_DIM);
  IS(fl_sketcher_write(sketcher, update, N, sketch, DIM / 2 - 1, &n),
     FL_E_SIZE);
  cr_assert_eq(n, DIM / 2);
  IS(fl_sketcher_write(sketcher, NULL, N, sketch, DIM / 2, &n), FL_E_ARGUMENT);
  IS(fl_sketcher_write(sketcher, update, N, sketch, DIM / 2, NULL),
     FL_E_ARGUMENT);
  cr_assert_arr_eq(sketch, before, sizeof before);
  PEOPLE_MUST(fl_sketcher_write(sketcher, NULL, N, NULL, 0, &n));
  fl_sketcher_free(sketcher);
}

Test(cohort_sketch, sizes_are_checked)
{
  fl_sketcher *sketcher = NULL;
  IS(fl_sketcher_new(&sketcher, NULL, 1, 0, DIM), FL_E_ARGUMENT);
  IS(fl_sketcher_new(NULL, NULL, 1, N, DIM), FL_E_ARGUMENT);
  IS(fl_sketcher_new(&sketcher, NULL, 1, N, 0), FL_E_OPTIONS);
  IS(fl_sketcher_new(&sketcher, NULL, 1, N, 40), FL_E_OPTIONS);
  IS(fl_sketcher_new(&sketcher, NULL, 1, N, 8192), FL_E_OPTIONS);
  IS(fl_sketcher_new(&sketcher, NULL, 1, UINT64_MAX, DIM), FL_E_NOMEM);
  cr_assert_null(sketcher);
  fl_sketcher_free(NULL);
}
