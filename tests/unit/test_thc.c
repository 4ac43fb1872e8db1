/* SPDX-License-Identifier: Apache-2.0 */
/* What THC promises about its error, and the dither's arithmetic against a
 * plain double-precision oracle. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "compress/compressor.h"
#include "compress_fixture.h"

enum { DIM = 1 << 18 };

/* Error of n workers that hold the same vector. */
static double error_of(uint32_t mode, double p, uint32_t workers)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = DIM;
  cf_options(&options, FL_CODEC_THC, mode, 4);
  options.clip = (float)-fli_probit(p / 2);
  cf_open(&r, NULL, &options, &n, 1, workers);
  float *x = cf_normal(n, 5);
  float *out = cf_get(n * sizeof(float));
  cf_agree(&r, x, 1);
  fl_partial *partial = cf_partial(&r);
  for (uint32_t slot = 0; slot < workers; slot++) {
    cf_bytes update = cf_encode(&r, slot, x);
    cf_must(fl_partial_add(partial, update.data, update.size));
    free(update.data);
  }
  cf_must(fl_partial_decode(partial, out, n));
  double error = cf_nmse(out, x, n);
  fl_partial_free(partial);
  free(x);
  free(out);
  cf_close(&r);
  return error;
}

/* Expected: rounding error of one worker, divided by `shrink`, and the error
 * of clamping, which equal workers share. */
static void expect_error(uint32_t mode, double p, uint32_t workers,
                         double rounding, double tolerance)
{
  double t = -fli_probit(p / 2);
  double clamping =
      2.0 * ((1.0 + t * t) * fli_normal_tail(t) - t * fli_normal_pdf(t));
  double want = rounding + clamping;
  double got = error_of(mode, p, workers);
  cr_expect(fabs(got / want - 1.0) < tolerance,
            "mode %u, %u workers: got %g, want %g", mode, workers, got, want);
}

Test(thc, uniform_error_falls_with_the_number_of_workers)
{
  static const uint32_t workers[] = {1, 4, 10};
  for (size_t i = 0; i < 3; i++) {
    expect_error(FL_THC_UNIFORM, 1.0 / 32, workers[i], 0.013319 / workers[i],
                 0.04);
  }
}

Test(thc, dither_error_of_one_worker_is_a_twelfth_of_a_cell)
{
  double t = -fli_probit(1.0 / 182), cell = 2.0 * t / 15.0;
  expect_error(FL_THC_DITHER, 1.0 / 91, 1, cell * cell / 12.0, 0.04);
}

Test(thc, dither_error_falls_with_the_square_of_equal_workers)
{
  double t = -fli_probit(1.0 / 2048), cell = 2.0 * t / 15.0;
  expect_error(FL_THC_DITHER, 1.0 / 1024, 4, cell * cell / 12.0 / 16.0, 0.05);
  expect_error(FL_THC_DITHER, 1.0 / 1024, 10, cell * cell / 12.0 / 100.0, 0.15);
}

Test(thc, more_bits_mean_less_error)
{
  double last = 10.0;
  for (uint32_t bits = 1; bits <= 8; bits++) {
    fl_compressor_options options;
    cf_round r;
    uint64_t n = 20000;
    cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, bits);
    cf_open(&r, NULL, &options, &n, 1, 1);
    float *x = cf_normal(n, 6);
    float *out = cf_get(n * sizeof(float));
    cf_agree(&r, x, 1);
    cf_bytes update = cf_encode(&r, 0, x);
    cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                 update.size, out, n));
    double error = cf_nmse(out, x, n);
    cr_expect(error < 0.75 * last, "%u bits: %g after %g", bits, error, last);
    last = error;
    free(update.data);
    free(x);
    free(out);
    cf_close(&r);
  }
  cr_expect(last < 1e-4, "8 bits: %g", last);
}

/* One update, decoded. */
static double error_of_one(uint32_t mode, uint32_t bits, const float *x,
                           uint64_t n)
{
  fl_compressor_options options;
  cf_round r;
  cf_options(&options, FL_CODEC_THC, mode, bits);
  cf_open(&r, NULL, &options, &n, 1, 1);
  float *out = cf_get(n * sizeof(float));
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data, update.size,
                               out, n));
  double error = cf_nmse(out, x, n);
  free(update.data);
  free(out);
  cf_close(&r);
  return error;
}

Test(thc, table_of_the_defaults_measures_no_worse_than_uniform)
{
  uint64_t n = 32 * FL_THC_BLOCK;
  float *x = cf_normal(n, 8);
  for (uint32_t bits = 1; bits <= 8; bits++) {
    double uniform = error_of_one(FL_THC_UNIFORM, bits, x, n);
    double table = error_of_one(FL_THC_TABLE, bits, x, n);
    /* 2^17 coordinates: half a percent of chance. */
    cr_expect(table <= 1.01 * uniform, "%u bits: table %g, uniform %g", bits,
              table, uniform);
  }
  free(x);
}

Test(thc, best_clip_of_four_dithered_bits_leaves_one_in_86_outside)
{
  float clip = fli_best_clip(FL_THC_DITHER, 15);
  double p = 2.0 * fli_normal_tail((double)clip);
  cr_expect(p > 1.0 / 87 && p < 1.0 / 85, "clip %g, p 1/%g", (double)clip,
            1.0 / p);
}

Test(thc, offsets_are_a_permutation_of_equal_steps)
{
  static const uint32_t counts[] = {1, 2, 3, 5, 8, 100, 65535};
  for (size_t i = 0; i < 7; i++) {
    uint32_t n = counts[i];
    uint16_t *offsets = cf_get(n * sizeof(uint16_t));
    uint8_t *seen = cf_get(65536);
    fli_dither_offsets(offsets, n);
    for (uint32_t s = 0; s < n; s++)
      seen[offsets[s]]++;
    for (uint32_t s = 0; s < n; s++) {
      cr_expect_eq(seen[(UINT64_C(65536) * s) / n], 1, "n %u, step %u", n, s);
    }
    free(offsets);
    free(seen);
  }
}

Test(thc, early_slots_are_spread_over_the_cell)
{
  uint16_t offsets[8];
  static const uint16_t want[8] = {0,    32768, 16384, 49152,
                                   8192, 40960, 24576, 57344};
  fli_dither_offsets(offsets, 8);
  cr_expect_arr_eq(offsets, want, sizeof want);
}

/* The dither of a coordinate, from the documented stream alone. */
static void dither_of_block(const fl_scale *scale, uint16_t noise[256])
{
  uint8_t key[32], stream[128];
  uint16_t x[2][16], step[2][16];
  fli_derive(key, scale->noise_seed, "thc dither", 0, 0);
  fli_chacha20(stream, sizeof stream, key, 0, 0);
  for (int k = 0; k < 16; k++) {
    uint64_t z = fli_load_u64(stream + 8 * k);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z = z ^ (z >> 31);
    x[0][k] = (uint16_t)(z >> 32);
    x[1][k] = (uint16_t)(z >> 48);
    step[0][k] = (uint16_t)(z | 1);
    step[1][k] = (uint16_t)(z >> 16 | 1);
  }
  for (int line = 0; line < 16; line++) {
    for (int k = 0; k < 16; k++) {
      uint16_t *at = &x[line % 2][k];
      *at = (uint16_t)(*at * 25173u + step[line % 2][k]);
      noise[16 * line + k] = *at;
    }
  }
}

/* Decode in double: mean of (q_s - U_s) + 1/2, the rotation undone by its
 * definition, H[i][j] = (-1)^(bits that i and j share). */
static void oracle(const cf_round *r, const uint8_t *const *payloads,
                   const uint32_t *slots, uint32_t count, double *out)
{
  uint16_t noise[256];
  uint8_t key[32], signs[64];
  double y[256];
  double clip = (double)fl_compressor_clip(r->compressor);
  uint16_t *offsets = cf_get(r->scale.slots * sizeof(uint16_t));
  dither_of_block(&r->scale, noise);
  fli_dither_offsets(offsets, r->scale.slots);
  uint8_t seed[FL_SEED_BYTES];
  memset(seed, 7, sizeof seed);
  fli_derive(key, seed, "thc signs", 0, 0);
  fli_chacha20(signs, sizeof signs, key, 0, 0);
  for (int i = 0; i < 256; i++) {
    double sum = 0.0;
    for (uint32_t w = 0; w < count; w++) {
      uint32_t q = (uint32_t)payloads[w][i / 2] >> (i % 2 * 4) & 15u;
      uint32_t u = (noise[i] + offsets[slots[w]]) & 0xffffu;
      sum += (double)q - (double)u / 65536.0;
    }
    y[i] = (sum / count + 0.5) * 2.0 * clip / 15.0 - clip;
  }
  for (int i = 0; i < 256; i++) {
    double sum = 0.0;
    for (int j = 0; j < 256; j++) {
      sum += __builtin_parity((unsigned)(i & j)) ? -y[j] : y[j];
    }
    sum *= (double)r->norms[0] / 256.0;
    out[i] = signs[i / 8] >> (i % 8) & 1 ? -sum : sum;
  }
  free(offsets);
}

static void compare_with_oracle(uint32_t n_slots, const uint32_t *slots,
                                uint32_t count)
{
  cf_round r;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 256, n_slots);
  cf_bytes updates[16];
  const uint8_t *payloads[16];
  float out[256];
  double want[256];
  float *x = cf_normal(256, 8);
  cf_agree(&r, x, 1);
  fl_partial *partial = cf_partial(&r);
  for (uint32_t w = 0; w < count; w++) {
    for (int i = 0; i < 256; i++)
      x[i] *= 0.9f;
    updates[w] = cf_encode(&r, slots[w], x);
    payloads[w] = updates[w].data + updates[w].size - 128;
    cf_must(fl_partial_add(partial, updates[w].data, updates[w].size));
  }
  cf_must(fl_partial_decode(partial, out, 256));
  oracle(&r, payloads, slots, count, want);
  for (int i = 0; i < 256; i++) {
    cr_expect(fabs((double)out[i] - want[i]) < 2e-5,
              "%u of %u, coordinate %d: got %g, want %g", count, n_slots, i,
              (double)out[i], want[i]);
  }
  for (uint32_t w = 0; w < count; w++)
    free(updates[w].data);
  fl_partial_free(partial);
  free(x);
  cf_close(&r);
}

Test(thc, dither_decodes_like_the_oracle_whatever_slots_are_missing)
{
  static const uint32_t slots[] = {0, 1, 2, 3, 4, 5, 6};
  static const uint32_t some[] = {6, 1, 3};
  compare_with_oracle(7, slots, 7);
  compare_with_oracle(7, slots, 6);
  compare_with_oracle(7, slots, 4);
  compare_with_oracle(7, some, 3);
  compare_with_oracle(7, some, 1);
  compare_with_oracle(1, slots, 1);
}

Test(thc, dither_of_many_slots_stays_exact)
{
  static const uint32_t some[] = {65534, 0, 40000};
  compare_with_oracle(65535, some, 3);
}
