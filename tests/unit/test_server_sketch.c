/* SPDX-License-Identifier: Apache-2.0 */
/* Sketches from the values of THC updates keep angles, as those of float
 * updates do. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "compress/partial.h"
#include "server/cohorts.h"

enum { FIRST = 40000, SECOND = 9000, N = FIRST + SECOND, DIM = 512 };

#define MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())

typedef struct workshop {
  fl_compressor *compressor;
  fl_partial *partial;
  fl_scale scale;
  float *norms;
} workshop;

/* The scale is agreed for updates of such lengths, eight times over. */
static void open_workshop(workshop *w, uint32_t mode, const float *longest)
{
  const uint64_t segments[2] = {FIRST, SECOND};
  fl_compressor_options options;
  MUST(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = mode;
  MUST(fl_compressor_new(&w->compressor, NULL, &options, segments, 2));
  const uint64_t n = fl_compressor_norm_count(w->compressor);
  w->norms = calloc((size_t)n, sizeof *w->norms);
  cr_assert_not_null(w->norms);
  MUST(fl_scale_init(&w->scale, sizeof w->scale));
  w->scale.slots = 8;
  w->scale.round = 1;
  MUST(fl_compressor_measure(w->compressor, &w->scale, 1, longest, N, w->norms,
                             n));
  w->scale.norms = w->norms;
  w->scale.n_norms = n;
  MUST(fl_partial_new(&w->partial, w->compressor, &w->scale));
}

static void close_workshop(workshop *w)
{
  fl_partial_free(w->partial);
  fl_compressor_free(w->compressor);
  free(w->norms);
}

static fl_status sketch(const workshop *w, uint32_t slot, const float *update,
                        uint8_t *out)
{
  fl_encode_options options;
  fli_bytes bytes;
  const size_t size = (size_t)fl_compressor_max_update_size(w->compressor);
  fli_bytes_init(&bytes, NULL);
  MUST(fli_bytes_reserve(&bytes, size));
  MUST(fl_encode_options_init(&options, sizeof options));
  options.slot = slot;
  MUST(fl_compressor_encode(w->compressor, &w->scale, &options, update, N,
                            bytes.data, size, &bytes.size, NULL));
  const fl_status st = fli_lane_sketch(&w->partial->agreed, &bytes, DIM, out);
  fli_bytes_free(&bytes);
  return st;
}

static double level(const uint8_t *sketch, uint32_t j)
{
  const uint32_t bits = j % 2 ? sketch[j / 2] >> 4 : sketch[j / 2] & 15;
  return 2.0 * bits - 15.0;
}

static double cosine(const uint8_t *a, const uint8_t *b)
{
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (uint32_t j = 0; j < DIM; j++) {
    ab += level(a, j) * level(b, j);
    aa += level(a, j) * level(a, j);
    bb += level(b, j) * level(b, j);
  }
  return ab / sqrt(aa * bb);
}

static void fill(float *x, uint32_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < N; i++)
    x[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
}

/* b = share a + what is left of another direction. */
static void angles_are_kept(uint32_t mode)
{
  static float a[N], b[N], other[N];
  static const float shares[] = {1.0f, .8f, .5f, 0.0f, -.7f};
  uint8_t of_a[DIM / 2], of_b[DIM / 2];
  workshop w;
  fill(a, 1);
  fill(other, 2);
  open_workshop(&w, mode, a);
  MUST(sketch(&w, 0, a, of_a));
  for (size_t k = 0; k < sizeof shares / sizeof *shares; k++) {
    const float rest = sqrtf(1.0f - shares[k] * shares[k]);
    for (size_t i = 0; i < N; i++)
      b[i] = shares[k] * a[i] + rest * other[i];
    MUST(sketch(&w, 3, b, of_b));
    const double got = cosine(of_a, of_b);
    cr_assert(fabs(got - (double)shares[k]) < .15, "mode %u: got %g, want %g",
              mode, got, (double)shares[k]);
  }
  close_workshop(&w);
}

Test(server_sketch, angles_are_about_kept_in_every_mode)
{
  angles_are_kept(FL_THC_UNIFORM);
  angles_are_kept(FL_THC_DITHER);
  angles_are_kept(FL_THC_TABLE);
}

/* As in a small last layer, where much of an update's length may be. */
Test(server_sketch, angles_are_kept_when_one_block_has_all_of_the_length)
{
  static float a[N], b[N], other[N];
  uint8_t of_a[DIM / 2], of_b[DIM / 2];
  for (uint32_t seed = 1; seed <= 8; seed++) {
    workshop w;
    fill(a, 2 * seed);
    fill(other, 2 * seed + 1);
    for (size_t i = 0; i < N; i++) {
      if (i < FIRST || i >= FIRST + 900) a[i] = other[i] = 0.0f;
      b[i] = .6f * a[i] + .8f * other[i];
    }
    open_workshop(&w, FL_THC_DITHER, a);
    MUST(sketch(&w, 0, a, of_a));
    MUST(sketch(&w, 3, b, of_b));
    const double got = cosine(of_a, of_b);
    cr_assert(fabs(got - .6) < .15, "seed %u: got %g, want .6", seed, got);
    close_workshop(&w);
  }
}

/* Lengths whose sum is none are no direction, and no undefined number. */
Test(server_sketch, norms_near_the_largest_float_are_survived)
{
  static float a[N];
  uint8_t out[DIM / 2];
  workshop w;
  for (size_t i = 0; i < N; i++)
    a[i] = i % 2 ? 0x1p121f : -0x1p121f;
  open_workshop(&w, FL_THC_UNIFORM, a);
  const fl_status st = sketch(&w, 0, a, out);
  cr_assert(st == FL_OK || st == FL_E_RANGE, "%s", fl_last_error());
  close_workshop(&w);
}

/* Nothing of the payload is read that is not there; zeros have no direction. */
Test(server_sketch, update_of_zeros_has_none)
{
  static float zeros[N], a[N];
  uint8_t out[DIM / 2];
  workshop w;
  open_workshop(&w, FL_THC_UNIFORM, zeros);
  fill(a, 1);
  cr_assert_eq(sketch(&w, 0, zeros, out), FL_E_RANGE);
  close_workshop(&w);
}

Test(server_sketch, cut_update_is_refused)
{
  static float a[N];
  uint8_t out[DIM / 2];
  workshop w;
  fli_bytes bytes;
  fl_encode_options options;
  fill(a, 1);
  open_workshop(&w, FL_THC_UNIFORM, a);
  const size_t size = (size_t)fl_compressor_max_update_size(w.compressor);
  fli_bytes_init(&bytes, NULL);
  MUST(fli_bytes_reserve(&bytes, size));
  MUST(fl_encode_options_init(&options, sizeof options));
  MUST(fl_compressor_encode(w.compressor, &w.scale, &options, a, N, bytes.data,
                            size, &bytes.size, NULL));
  MUST(fli_lane_sketch(&w.partial->agreed, &bytes, DIM, out));
  bytes.size--;
  cr_assert_neq(fli_lane_sketch(&w.partial->agreed, &bytes, DIM, out), FL_OK);
  fli_bytes_free(&bytes);
  close_workshop(&w);
}
