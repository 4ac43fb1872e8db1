/* SPDX-License-Identifier: Apache-2.0 */
/* fl_compressor: options, norms, and encode and decode for every shape of
 * vector, extreme values and refused input. */
#include <criterion/criterion.h>

#include <math.h>

#include "compress_fixture.h"

static const struct {
  uint32_t codec;
  uint32_t mode;
  double error;
} kinds[] = {
    {FL_CODEC_F32, 0, 1e-13},
    {FL_CODEC_BF16, 0, 2e-5},
    {FL_CODEC_THC, FL_THC_UNIFORM, 0.08},
    {FL_CODEC_THC, FL_THC_DITHER, 0.04},
    {FL_CODEC_THC, FL_THC_TABLE, 0.08},
};
enum { KINDS = 5 };

static fl_status try_new(const fl_compressor_options *options, uint64_t size)
{
  fl_compressor *compressor = NULL;
  fl_status st = fl_compressor_new(&compressor, NULL, options, &size, 1);
  fl_compressor_free(compressor);
  return st;
}

Test(compressor, options_out_of_range_are_refused)
{
  fl_compressor_options options;
  cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, 4);
  cr_expect_eq(try_new(&options, 10), FL_OK);
  cr_expect_eq(try_new(NULL, 10), FL_OK);
  options.codec = 9;
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  cf_options(&options, FL_CODEC_THC, 4, 4);
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, 0);
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  options.bits = 9;
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  options.bits = 3;
  options.granularity = 7;
  cr_expect_eq(try_new(&options, 10), FL_OK);
  options.granularity = 15;
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, 4);
  options.clip = NAN;
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
  options.clip = 100.0f;
  cr_expect_eq(try_new(&options, 10), FL_E_OPTIONS);
}

Test(compressor, empty_or_impossible_segments_are_refused)
{
  fl_compressor *compressor = NULL;
  uint64_t sizes[2] = {5, 0};
  cr_expect_eq(fl_compressor_new(&compressor, NULL, NULL, sizes, 2), FL_E_DIM);
  cr_expect_eq(fl_compressor_new(&compressor, NULL, NULL, sizes, 0), FL_E_DIM);
  cr_expect_eq(fl_compressor_new(&compressor, NULL, NULL, NULL, 1), FL_E_DIM);
  sizes[1] = UINT64_MAX;
  cr_expect_eq(fl_compressor_new(&compressor, NULL, NULL, sizes, 2), FL_E_DIM);
  sizes[1] = UINT64_C(1) << 62;
  cr_expect_eq(fl_compressor_new(&compressor, NULL, NULL, sizes, 2), FL_E_DIM);
  cr_expect_null(compressor);
  cr_expect_eq(fl_compressor_new(NULL, NULL, NULL, sizes, 1), FL_E_ARGUMENT);
}

Test(compressor, norm_count_follows_blocks_or_segments)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t sizes[4] = {4096, 4097, 3, 8191};
  cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, 4);
  cf_open(&r, NULL, &options, sizes, 4, 1);
  cr_expect_eq(fl_compressor_norm_count(r.compressor), 1 + 2 + 1 + 2);
  cr_expect_eq(fl_compressor_dim(r.compressor), 4096 + 4097 + 3 + 8191);
  cr_expect_eq(fl_compressor_max_update_size(r.compressor),
               128 + (4096 + 4096 + 256 + 256 + 4096 + 4096) / 2);
  cf_close(&r);
  cf_options(&options, FL_CODEC_BF16, 0, 0);
  cf_open(&r, NULL, &options, sizes, 4, 1);
  cr_expect_eq(fl_compressor_norm_count(r.compressor), 4);
  cr_expect_eq(fl_compressor_clip(r.compressor), 0.0f);
  cf_close(&r);
}

/* Encode x alone and decode it; *error is relative, 0 for a zero vector. */
static void round_trip(uint32_t kind, const uint64_t *sizes, uint32_t n,
                       float scale, double *error)
{
  fl_compressor_options options;
  cf_round r;
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
  cf_open(&r, NULL, &options, sizes, n, 1);
  float *x = cf_normal(r.n, 11);
  float *out = cf_get((size_t)r.n * sizeof(float));
  for (uint64_t i = 0; i < r.n; i++)
    x[i] *= scale;
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data, update.size,
                               out, r.n));
  *error = cf_nmse(out, x, r.n);
  free(update.data);
  free(x);
  free(out);
  cf_close(&r);
}

Test(compressor, every_length_survives_the_round_trip)
{
  static const uint64_t sizes[] = {1,    15,   16,   17,   255,  256, 257,
                                   1000, 4095, 4096, 4097, 8192, 8292};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
      double error;
      round_trip(kind, &sizes[i], 1, 1.0f, &error);
      /* Short vectors carry the error of the whole padded block. */
      double bound = kinds[kind].error;
      if (sizes[i] < 256) bound *= 5.0;
      cr_expect(error <= bound, "kind %u, %llu floats: error %g", kind,
                (unsigned long long)sizes[i], error);
    }
  }
}

Test(compressor, segments_of_all_kinds_survive_together)
{
  static const uint64_t sizes[] = {300, 1, 4096, 12345, 255, 8192};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    double error;
    round_trip(kind, sizes, 6, 1.0f, &error);
    cr_expect(error <= kinds[kind].error, "kind %u: error %g", kind, error);
  }
}

Test(compressor, size_of_the_values_does_not_matter)
{
  static const float scales[] = {1e-22f, 1e-9f, 1e9f, 1e34f};
  static const uint64_t size = 5000;
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    for (size_t i = 0; i < 4; i++) {
      double error;
      round_trip(kind, &size, 1, scales[i], &error);
      cr_expect(error <= kinds[kind].error, "kind %u, x %g: error %g", kind,
                (double)scales[i], error);
    }
  }
}

Test(compressor, single_value_of_1e38_does_not_overflow)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    float x[300] = {0}, out[300];
    cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 300, 1);
    x[20] = -1e38f;
    cf_agree(&r, x, 1);
    cf_bytes update = cf_encode(&r, 0, x);
    cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                 update.size, out, 300));
    cr_expect(fabs((double)out[20] / -1e38 - 1.0) < 0.2, "kind %u: %g", kind,
              (double)out[20]);
    free(update.data);
    cf_close(&r);
  }
}

Test(compressor, norm_above_the_range_is_refused)
{
  cf_round r;
  float x[300], norms[1] = {-1.0f};
  for (int i = 0; i < 300; i++)
    x[i] = 3e38f;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 300, 1);
  cr_expect_eq(
      fl_compressor_measure(r.compressor, &r.scale, 1, x, 300, norms, 1),
      FL_E_RANGE);
  cr_expect_eq(norms[0], -1.0f);
  cf_close(&r);
}

Test(compressor, zero_vector_sends_nothing_and_decodes_to_zero)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    float *x = cf_get(9000 * sizeof(float));
    float *out = cf_normal(9000, 1);
    cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 9000, 1);
    cf_agree(&r, x, 1);
    cf_bytes update = cf_encode(&r, 0, x);
    cr_expect_eq(update.size, 128);
    cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                 update.size, out, 9000));
    cr_expect_arr_eq(out, x, 9000 * sizeof(float));
    free(update.data);
    free(x);
    free(out);
    cf_close(&r);
  }
}

Test(compressor, zero_block_beside_others_decodes_to_zero)
{
  cf_round r;
  float *x = cf_normal(3 * 4096 + 10, 2);
  float *out = cf_get((3 * 4096 + 10) * sizeof(float));
  for (int i = 3 * 4096; i < 3 * 4096 + 10; i++)
    x[i] = 0.0f;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 3 * 4096 + 10, 1);
  cf_agree(&r, x, 1);
  cr_expect_eq(r.norms[3], 0.0f);
  cf_bytes update = cf_encode(&r, 0, x);
  cr_expect_eq(update.size, 128 + 3 * 4096 / 2);
  cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data, update.size,
                               out, r.n));
  for (int i = 3 * 4096; i < 3 * 4096 + 10; i++)
    cr_expect_eq(out[i], 0.0f);
  free(update.data);
  free(x);
  free(out);
  cf_close(&r);
}

Test(compressor, own_zero_block_is_sent_when_others_have_a_norm)
{
  cf_round r;
  float *x = cf_normal(500, 3), *zero = cf_get(500 * sizeof(float));
  float *out = cf_get(500 * sizeof(float));
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 500, 2);
  cf_agree(&r, x, 1);
  cf_agree(&r, zero, 1);
  cf_bytes update = cf_encode(&r, 1, zero);
  cr_expect_eq(update.size, 128 + 256);
  cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data, update.size,
                               out, 500));
  double square = 0.0;
  for (int i = 0; i < 500; i++)
    square += (double)out[i] * (double)out[i];
  cr_expect(square < 0.01 * 500, "decoded length^2 %g", square);
  free(update.data);
  free(x);
  free(zero);
  free(out);
  cf_close(&r);
}

/* What is not huge disappears below the cells, and stays finite. */
Test(compressor, one_huge_coordinate_among_small_ones_is_kept)
{
  static const uint64_t sizes[] = {1, 4095, 4096, 4097};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    for (size_t i = 0; i < 4; i++) {
      cf_round r;
      uint64_t at = sizes[i] / 2;
      float *x = cf_normal(sizes[i], 6);
      float *out = cf_get((size_t)sizes[i] * sizeof(float));
      cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, sizes[i], 1);
      x[at] = 1e30f;
      cf_agree(&r, x, 1);
      cf_bytes update = cf_encode(&r, 0, x);
      cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                   update.size, out, sizes[i]));
      cr_expect(fabs((double)out[at] / 1e30 - 1.0) < 0.2, "kind %u, %llu: %g",
                kind, (unsigned long long)sizes[i], (double)out[at]);
      cr_expect(cf_nmse(out, x, sizes[i]) < 0.2);
      free(update.data);
      free(x);
      free(out);
      cf_close(&r);
    }
  }
}

Test(compressor, denormals_of_f32_survive_and_are_zero_for_thc)
{
  cf_round r;
  float x[20], out[20];
  for (int i = 0; i < 20; i++)
    x[i] = (float)(i + 1) * 0x1p-140f;
  cf_open_simple(&r, FL_CODEC_F32, 0, 20, 1);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data, update.size,
                               out, 20));
  cr_expect_arr_eq(out, x, sizeof x);
  free(update.data);
  cf_close(&r);
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 20, 1);
  cf_agree(&r, x, 1);
  cr_expect(r.norms[0] > 0.0f);
  update = cf_encode(&r, 0, x);
  cr_expect_eq(update.size, 128);
  free(update.data);
  cf_close(&r);
}

Test(compressor, not_finite_values_are_refused_by_coordinate)
{
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    for (int b = 0; b < 3; b++) {
      cf_round r;
      float *x = cf_normal(9000, 4), norms[3];
      uint8_t buffer[9000 * 4 + 128];
      size_t needed;
      cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 9000, 1);
      cf_agree(&r, x, 1);
      x[8517] = bad[b];
      cr_expect_eq(fl_compressor_measure(r.compressor, &r.scale, 1, x, 9000,
                                         norms, r.scale.n_norms),
                   FL_E_NOT_FINITE);
      cr_expect_eq(fl_compressor_encode(r.compressor, &r.scale, NULL, x, 9000,
                                        buffer, sizeof buffer, &needed, NULL),
                   FL_E_NOT_FINITE);
      cr_expect_not_null(strstr(fl_last_error(), "8517"));
      free(x);
      cf_close(&r);
    }
  }
}

Test(compressor, encode_checks_its_arguments)
{
  cf_round r;
  float *x = cf_normal(100, 4);
  uint8_t buffer[200];
  size_t needed = 0;
  fl_encode_options options;
  fl_encode_report report;
  uint16_t clamped[2];
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 100, 4);
  cf_agree(&r, x, 1);
  cf_must(fl_encode_options_init(&options, sizeof options));
  cf_must(fl_encode_report_init(&report, sizeof report));
#define TRY_ENCODE(n, capacity)                                        \
  fl_compressor_encode(r.compressor, &r.scale, &options, x, n, buffer, \
                       capacity, &needed, &report)
  cr_expect_eq(TRY_ENCODE(99, sizeof buffer), FL_E_DIM);
  cr_expect_eq(TRY_ENCODE(100, 200), FL_E_SIZE);
  cr_expect_eq(needed, 128 + 128);
  options.slot = 4;
  cr_expect_eq(TRY_ENCODE(100, sizeof buffer), FL_E_ARGUMENT);
  options.slot = 0;
  options.samples = 0;
  cr_expect_eq(TRY_ENCODE(100, sizeof buffer), FL_E_ARGUMENT);
  options.samples = 1;
  options.segments = buffer;
  options.n_segments = 2;
  cr_expect_eq(TRY_ENCODE(100, sizeof buffer), FL_E_DIM);
  options.segments = NULL;
  report.block_clamped = clamped;
  report.n_block_clamped = 2;
  cr_expect_eq(TRY_ENCODE(100, sizeof buffer), FL_E_DIM);
  cr_expect_eq(
      fl_compressor_encode(NULL, &r.scale, NULL, x, 100, buffer, 1, NULL, NULL),
      FL_E_ARGUMENT);
  cr_expect_eq(fl_compressor_encode(r.compressor, NULL, NULL, x, 100, buffer, 1,
                                    NULL, NULL),
               FL_E_ARGUMENT);
#undef TRY_ENCODE
  free(x);
  cf_close(&r);
}

static fl_status try_scale(const cf_round *r)
{
  size_t needed;
  return fl_compressor_encode(r->compressor, &r->scale, NULL, NULL, r->n, NULL,
                              0, &needed, NULL);
}

Test(compressor, absurd_scales_are_refused)
{
  static const float bad[] = {-1.0f, NAN, INFINITY, 1.001f, 0x1.8p127f};
  cf_round r;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 100, 4);
  cr_expect_eq(try_scale(&r), FL_OK);
  for (int i = 0; i < 5; i++) {
    r.norms[0] = bad[i];
    cr_expect_eq(try_scale(&r), FL_E_RANGE, "norm %g", (double)bad[i]);
  }
  r.norms[0] = 1.0f;
  r.scale.slots = 0;
  cr_expect_eq(try_scale(&r), FL_E_RANGE);
  r.scale.slots = FL_MAX_SLOTS + 1;
  cr_expect_eq(try_scale(&r), FL_E_RANGE);
  r.scale.slots = 4;
  r.scale.weight_cap = UINT64_MAX;
  cr_expect_eq(try_scale(&r), FL_E_RANGE);
  r.scale.weight_cap = 0;
  r.scale.clip = NAN;
  cr_expect_eq(try_scale(&r), FL_E_RANGE);
  r.scale.clip = 0.0f;
  r.scale.is_public = 2;
  cr_expect_eq(try_scale(&r), FL_E_RANGE);
  r.scale.is_public = 0;
  r.scale.n_norms = 2;
  cr_expect_eq(try_scale(&r), FL_E_DIM);
  r.scale.n_norms = 1;
  r.scale.norms = NULL;
  cr_expect_eq(try_scale(&r), FL_E_DIM);
  cf_close(&r);
}

/* Also those that no norm is rounded to, the sign of 0 included. */
Test(compressor, hostile_norms_are_named)
{
  static const float bad[] = {1e38f,    -1e38f,    NAN,        -0.0f,
                              INFINITY, -INFINITY, -0x1p-133f, 0x1p-140f};
  static const uint64_t sizes[] = {20, 300};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    fl_compressor_options options;
    cf_round r;
    cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
    cf_open(&r, NULL, &options, sizes, 2, 3);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
      fl_partial *partial = NULL;
      float out[320], into[2] = {1.0f, 1.0f};
      static const char want[] = "norm 1: got";
      uint8_t bytes[128] = {0};
      r.norms[1] = bad[i];
      cr_expect_eq(try_scale(&r), FL_E_RANGE, "norm %g", (double)bad[i]);
      cr_expect_not_null(strstr(fl_last_error(), want));
      cr_expect_eq(fl_partial_new(&partial, r.compressor, &r.scale),
                   FL_E_RANGE);
      cr_expect_not_null(strstr(fl_last_error(), want));
      cr_expect_eq(fl_compressor_decode(r.compressor, &r.scale, bytes,
                                        sizeof bytes, out, 320),
                   FL_E_RANGE);
      cr_expect_not_null(strstr(fl_last_error(), want));
      cr_expect_eq(fl_norms_merge(into, r.norms, 2), FL_E_RANGE);
      cr_expect_eq(into[1], 1.0f);
    }
    cf_close(&r);
  }
}

/* Rounding up to the grid has room up to 2^127. */
Test(compressor, greatest_and_smallest_norms_are_accepted)
{
  static const float good[] = {0.0f, 0x1p-133f, 0x1p-80f, 0x1.fep126f,
                               0x1p127f};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    float *x = cf_normal(300, 4), *out = cf_get(300 * sizeof(float));
    cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 300, 3);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
      r.norms[0] = good[i];
      cf_bytes update = cf_encode(&r, 2, x);
      cf_must(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                   update.size, out, 300));
      for (int k = 0; k < 300; k++)
        cr_expect(isfinite(out[k]), "kind %u, norm %g", kind, (double)good[i]);
      free(update.data);
    }
    free(x);
    free(out);
    cf_close(&r);
  }
}

Test(compressor, public_scale_is_for_thc_only)
{
  cf_round r;
  cf_open_simple(&r, FL_CODEC_F32, 0, 100, 4);
  r.scale.is_public = 1;
  cr_expect_eq(try_scale(&r), FL_E_CONFLICT);
  cf_close(&r);
}

Test(compressor, merge_takes_the_maximum_or_nothing)
{
  float into[3] = {1.0f, 2.0f, 0.0f};
  float other[3] = {1.5f, 1.0f, 0.5f};
  static const float want[3] = {1.5f, 2.0f, 0.5f};
  cr_expect_eq(fl_norms_merge(into, other, 3), FL_OK);
  cr_expect_arr_eq(into, want, sizeof want);
  other[0] = 9.0f;
  other[2] = -1.0f;
  cr_expect_eq(fl_norms_merge(into, other, 3), FL_E_RANGE);
  cr_expect_arr_eq(into, want, sizeof want);
  cr_expect_eq(fl_norms_merge(NULL, other, 3), FL_E_ARGUMENT);
}

Test(compressor, norms_are_rounded_up_to_bf16)
{
  cf_round r;
  float x[1] = {1.0f + 0x1p-20f}, norm;
  cf_open_simple(&r, FL_CODEC_F32, 0, 1, 1);
  cf_must(fl_compressor_measure(r.compressor, &r.scale, 1, x, 1, &norm, 1));
  cr_expect_eq(norm, 1.0f + 0x1p-7f);
  x[0] = -1.5f;
  cf_must(fl_compressor_measure(r.compressor, &r.scale, 1, x, 1, &norm, 1));
  cr_expect_eq(norm, 1.5f);
  cf_close(&r);
}

Test(compressor, update_above_the_agreed_norm_is_scaled_down)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    float *x = cf_normal(4096, 5), *out = cf_get(4096 * sizeof(float));
    cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 4096, 1);
    cf_agree(&r, x, 1);
    fl_encode_report report;
    cf_must(fl_encode_report_init(&report, sizeof report));
    size_t size = (size_t)fl_compressor_max_update_size(r.compressor);
    uint8_t *buffer = cf_get(size);
    for (int i = 0; i < 4096; i++)
      x[i] *= 4.0f;
    cf_must(fl_compressor_encode(r.compressor, &r.scale, NULL, x, 4096, buffer,
                                 size, &size, &report));
    cr_expect_eq(report.rescaled, 1, "kind %u", kind);
    cf_must(
        fl_compressor_decode(r.compressor, &r.scale, buffer, size, out, 4096));
    for (int i = 0; i < 4096; i++)
      x[i] /= 4.0f;
    double error = cf_nmse(out, x, 4096);
    cr_expect(error < kinds[kind].error + 1e-4, "kind %u: %g", kind, error);
    free(buffer);
    free(x);
    free(out);
    cf_close(&r);
  }
}

Test(compressor, public_scale_clamps_and_counts_per_block)
{
  cf_round r;
  float *x = cf_normal(2 * 4096, 5);
  uint16_t per_block[2];
  fl_encode_report report;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 2 * 4096, 1);
  r.scale.is_public = 1;
  r.norms[0] = 64.0f;
  r.norms[1] = 0x1p-70f;
  cf_must(fl_encode_report_init(&report, sizeof report));
  report.block_clamped = per_block;
  report.n_block_clamped = 2;
  size_t size = (size_t)fl_compressor_max_update_size(r.compressor);
  uint8_t *buffer = cf_get(size);
  cf_must(fl_compressor_encode(r.compressor, &r.scale, NULL, x, r.n, buffer,
                               size, &size, &report));
  cr_expect(per_block[0] > 15 && per_block[0] < 90, "got %u", per_block[0]);
  cr_expect_eq(per_block[1], 4096);
  cr_expect_eq(report.clamped, (uint64_t)per_block[0] + per_block[1]);
  free(buffer);
  free(x);
  cf_close(&r);
}

Test(compressor, older_hosts_with_short_structs_are_served)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cf_must(fl_compressor_options_init(&options, 8));
  options.codec = FL_CODEC_F32;
  cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  cr_expect_eq(fl_compressor_max_update_size(compressor), 128 + 40);
  fl_compressor_free(compressor);
}
