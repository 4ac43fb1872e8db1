/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embedding tables: every version against plain C, byte for byte. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/rows.h"

enum { VALUES = 512 };

static const flk_rows *kernels, *plain;
static float values[VALUES];

/* All lengths that rows may have up to 160, against the C functions. */
static void rows_add_in_the_order_of_rows(void)
{
  enum { ROWS = 5, LONG = 160 };
  float got[LONG], want[LONG], factors[ROWS] = {1, -0.5f, 3, 0.1f, 1e-3f};
  const float *rows[ROWS];
  for (size_t n = 4; n <= LONG; n += 4) {
    for (size_t n_rows = 0; n_rows <= ROWS; n_rows++) {
      for (size_t r = 0; r < n_rows; r++)
        rows[r] = values + 1 + 7 * r;
      for (int has_factors = 0; has_factors < 2; has_factors++) {
        memcpy(got, values + 50, sizeof got);
        memcpy(want, got, sizeof got);
        const float *f = has_factors ? factors : NULL;
        kernels->add(got, rows, f, n_rows, n);
        plain->add(want, rows, f, n_rows, n);
        CHECK_EQ_MEM(got, want, sizeof got);
      }
    }
  }
}

static void row_steps_are_not_fused(void)
{
  enum { LONG = 160 };
  float got[LONG], want[LONG];
  for (size_t n = 4; n <= LONG; n += 4) {
    memcpy(got, values + 3, sizeof got);
    memcpy(want, got, sizeof got);
    kernels->step(got, values + 40, 0.1f, n);
    plain->step(want, values + 40, 0.1f, n);
    CHECK_EQ_MEM(got, want, sizeof got);
  }
}

static void squares_of_chunks_have_four_lanes(void)
{
  for (size_t n = 4; n <= 64; n += 4) {
    float got[5] = {0}, want[5] = {0};
    kernels->squares(got, values + 1, 4, n);
    plain->squares(want, values + 1, 4, n);
    CHECK_EQ_MEM(got, want, sizeof got);
  }
  const float x[8] = {1, 2, 3, 4, 0x1p70f, 0, 0, 0};
  float sums[2];
  kernels->squares(sums, x, 2, 4);
  CHECK_EQ_F64(sums[0], 30.0);
  CHECK(isinf(sums[1]));
}

int main(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 9, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < VALUES; i++)
    values[i] = (float)(4.0 * fli_rng_f64(&rng) - 2.0);
  plain = flk_rows_at(0);
  for (size_t i = 0; flk_rows_at(i); i++) {
    kernels = flk_rows_at(i);
    CHECK_CASE(rows_add_in_the_order_of_rows);
    CHECK_CASE(row_steps_are_not_fused);
    CHECK_CASE(squares_of_chunks_have_four_lanes);
  }
  CHECK(flk_rows_kernels() == kernels);
  return check_report();
}
