/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the training engine's kernels share: arrays at any offset
 * with guards around them, numbers, and comparison with a result in double. */
#ifndef NN_CHECK_H
#define NN_CHECK_H

#include <math.h>
#include <stdlib.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "kernels/nn/nn.h"

enum {
  NN_ARRAYS = 8,
  NN_SHORT = 70,   /* all lengths up to this one ... */
  NN_LONG = 20011, /* ... and this one */
  NN_GUARD = 64,
  NN_OFFSETS = 3
};

typedef struct nn_array {
  float memory[NN_LONG + 3 * NN_GUARD];
  float *at;
  size_t n;
} nn_array;

static _Alignas(64) nn_array nn_arrays[NN_ARRAYS];
static const flk_nn_table *nn; /* the table that is tested */

static const size_t nn_offsets[NN_OFFSETS] = {0, 1, 7};

/* The length that follows n: 0, 1, ..., NN_SHORT, NN_LONG; then more. */
static inline size_t nn_next(size_t n)
{
  return n < NN_SHORT ? n + 1 : n < NN_LONG ? NN_LONG : NN_LONG + 1;
}

/* n floats with guards around them, `offset` floats behind a line of 64
 * bytes. */
static inline float *nn_new(size_t slot, size_t n, size_t offset)
{
  nn_array *a = &nn_arrays[slot];
  memset(a->memory, 0x5a, sizeof a->memory);
  a->at =
      a->memory + NN_GUARD - (size_t)((uintptr_t)a->memory % 64 / 4) + offset;
  a->n = n;
  return a->at;
}

/* Nothing was written around the array. */
static inline void nn_check_guards(size_t slot)
{
  nn_array *a = &nn_arrays[slot];
  size_t before = (size_t)(a->at - a->memory) * sizeof(float);
  const unsigned char *bytes = (const unsigned char *)a->memory;
  size_t bad = 0;
  for (size_t i = 0; i < sizeof a->memory; i++) {
    if (i == before) i += a->n * sizeof(float);
    bad += bytes[i] != 0x5a;
  }
  CHECK_EQ_U64(bad, 0);
}

/* Numbers around 0, of size 1 or `size`. */
static inline void nn_draw(float *x, size_t n, float size, uint64_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < n; i++) {
    x[i] = size * (2.0f * fli_rng_f32(&rng) - 1.0f);
  }
}

/* got within absolute + relative |want| of want; NaN and infinities are to be
 * what is wanted. */
static inline void nn_near_at(float got, double want, const double *tolerance,
                              const char *text, const char *file, int line,
                              size_t i)
{
  double bound = tolerance[0] + tolerance[1] * fabs(want);
  if (isnan(want) && isnan(got)) return;
  if ((double)got == want || (float)want == got) return;
  if (isfinite(want) && fabs((double)got - want) <= bound) return;
  check_fail(file, line);
  fprintf(stderr, "%s: %s[%zu]: got %.9g, want %.12g\n", nn->name, text, i,
          (double)got, want);
}

#define NN_NEAR(got, want, i, absolute, relative)                           \
  nn_near_at((got), (want), (const double[]){(absolute), (relative)}, #got, \
             __FILE__, __LINE__, (i))

/* Run a case with every table. */
#define NN_CASE(name)                                      \
  do {                                                     \
    for (size_t t = 0; (nn = flk_nn_at(t)) != NULL; t++) { \
      name();                                              \
    }                                                      \
    check_end_case(#name);                                 \
  } while (0)

#endif
