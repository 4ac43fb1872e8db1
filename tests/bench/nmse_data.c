/* SPDX-License-Identifier: Apache-2.0 */
/* Data sets of nmse_thc, drawn by inversion from counter-based numbers: the
 * same on every machine. tests/bench/rivals.py draws from the same
 * distributions. */
#include <math.h>

#include "base/dmath.h"
#include "base/rng.h"
#include "nmse.h"

static const char *const names[] = {"gauss",    "gauss_indep", "lognormal",
                                    "student3", "sparse",      "vectors"};

const char *nmse_kind_name(nmse_kind kind)
{
  return names[kind];
}

uint32_t nmse_kind_rows(nmse_kind kind, uint32_t workers)
{
  return kind == NMSE_GAUSS_INDEP ? workers : 1;
}

const float *nmse_row(const nmse_data *data, uint32_t worker)
{
  uint64_t row = ((uint64_t)data->first + worker) % data->rows;
  return data->values + row * data->n;
}

/* In (0, 1), never 0 or 1. */
static double uniform(fli_rng *rng)
{
  return fli_rng_f64(rng) * (1.0 - 0x1p-53) + 0x1p-54;
}

static double normal(fli_rng *rng)
{
  return fli_probit(uniform(rng));
}

static double student3(fli_rng *rng)
{
  double z = normal(rng), chi = 0.0;
  for (int i = 0; i < 3; i++) {
    double k = normal(rng);
    chi += k * k;
  }
  return z / sqrt(chi / 3.0);
}

static double draw(nmse_kind kind, fli_rng *rng)
{
  switch (kind) {
  case NMSE_LOGNORMAL: {
    double sign = fli_rng_u32(rng) & 1 ? -1.0 : 1.0;
    return sign * fli_exp(normal(rng));
  }
  case NMSE_STUDENT3: return student3(rng);
  case NMSE_SPARSE: return uniform(rng) < 0.01 ? normal(rng) : 0.0;
  default: return normal(rng);
  }
}

void nmse_draw(nmse_data *data, nmse_kind kind, uint64_t seed)
{
  for (uint32_t row = 0; row < data->rows; row++) {
    float *values = data->values + row * data->n;
    fli_rng rng;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, row, (uint32_t)kind);
    for (uint64_t i = 0; i < data->n; i++)
      values[i] = (float)draw(kind, &rng);
  }
}
