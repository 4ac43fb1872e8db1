/* SPDX-License-Identifier: Apache-2.0 */
/* The encoder on demand against fl_compressor_encode and error feedback: the
 * same bytes in any cut, the same hash, losses and counts. */
#include "compress/encoder.h"

#include <criterion/criterion.h>
#include <math.h>

#include "base/compiler.h"
#include "base/context.h"
#include "compress/feedback.h"
#include "compress_fixture.h"

/* Full units and tails, tiny segments, one of zeros, more than a
 * neighbourhood. */
static const uint64_t sizes[] = {1, 4096, 5, 40 * 4096 + 17, 300, 8191, 3};
enum { N_SEGMENTS = FLI_COUNT_OF(sizes), ZEROS = 4 };

static const struct {
  uint32_t codec, mode, bits;
} codecs[] = {{FL_CODEC_F32, 0, 0},
              {FL_CODEC_BF16, 0, 0},
              {FL_CODEC_THC, FL_THC_DITHER, 4},
              {FL_CODEC_THC, FL_THC_UNIFORM, 8},
              {FL_CODEC_THC, FL_THC_TABLE, 4}};

static const uint8_t masks[][N_SEGMENTS] = {
    {1, 1, 1, 1, 1, 1, 1}, {0, 1, 0, 1, 0, 1, 0}, {0, 0, 0, 0, 0, 0, 1}};

typedef struct world {
  cf_round r;
  float *x;
  fl_encode_options options;
} world;

static void open_world(world *w, size_t codec, size_t mask)
{
  fl_compressor_options options;
  cf_options(&options, codecs[codec].codec, codecs[codec].mode,
             codecs[codec].bits);
  cf_open(&w->r, NULL, &options, sizes, N_SEGMENTS, 3);
  w->r.scale.weight_cap = 10;
  w->x = cf_normal(w->r.n, 1 + codec);
  uint64_t at = 0;
  for (size_t s = 0; s < ZEROS; s++)
    at += sizes[s];
  memset(w->x + at, 0, (size_t)sizes[ZEROS] * sizeof(float));
  cf_agree(&w->r, w->x, 4);
  /* Some are longer than what was agreed on. */
  for (uint64_t i = 0; i < w->r.n / 3; i++)
    w->x[i] *= 1.5f;
  cf_must(fl_encode_options_init(&w->options, sizeof w->options));
  w->options.slot = 1;
  w->options.samples = 4;
  w->options.segments = mask > 0 ? masks[mask] : NULL;
  w->options.n_segments = mask > 0 ? N_SEGMENTS : 0;
}

static void close_world(world *w)
{
  cf_close(&w->r);
  free(w->x);
}

static cf_bytes encode_whole(const world *w)
{
  return cf_encode_some(&w->r, w->options.slot, w->options.samples,
                        w->options.segments, w->options.n_segments, w->x);
}

static fli_encoder *encoder_of(const world *w)
{
  fli_encoder *encoder = NULL;
  const fli_floats from = {.x = w->x};
  cf_must(fli_encoder_new(&encoder, w->r.compressor, &w->r.scale, &w->options,
                          &from));
  return encoder;
}

static void expect_range(fli_encoder *encoder, const cf_bytes *whole, size_t at,
                         size_t n)
{
  uint8_t *got = cf_get(n + 1);
  got[n] = 0xa5;
  cf_must(fli_encoder_read(encoder, at, got, n));
  cr_assert_arr_eq(got, whole->data + at, n, "%zu bytes at %zu", n, at);
  cr_assert_eq(got[n], 0xa5, "%zu bytes at %zu", n, at);
  free(got);
}

static void expect_same(size_t codec, size_t mask)
{
  world w;
  fli_rng rng;
  uint8_t hash[FLI_HASH_BYTES], want[FLI_HASH_BYTES];
  fli_hasher hasher;
  open_world(&w, codec, mask);
  const cf_bytes whole = encode_whole(&w);
  fli_encoder *encoder = encoder_of(&w);
  cr_assert_eq(fli_encoder_size(encoder), whole.size);
  expect_range(encoder, &whole, 0, whole.size); /* before any hash */
  fli_hasher_init(&hasher);
  cf_must(fli_encoder_hash(encoder, &hasher, NULL));
  fli_hasher_final(&hasher, hash);
  fli_hash(want, whole.data, whole.size);
  cr_expect_arr_eq(hash, want, sizeof hash);
  for (size_t at = 0; at < whole.size; at += 20000)
    expect_range(encoder, &whole, at,
                 whole.size - at < 20000 ? whole.size - at : 20000);
  fli_rng_init(&rng, 5 + codec, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < 60; i++) {
    const size_t at = (size_t)fli_rng_below(&rng, (uint32_t)whole.size);
    const size_t n =
        1 + (size_t)fli_rng_below(&rng, (uint32_t)(whole.size - at));
    expect_range(encoder, &whole, at, i % 2 ? n : (n < 100 ? n : 100));
  }
  expect_range(encoder, &whole, whole.size - 1, 1);
  expect_range(encoder, &whole, 0, 1);
  fli_encoder_free(encoder);
  free(whole.data);
  close_world(&w);
}

Test(encoder, bytes_in_any_cut_are_those_of_the_whole)
{
  for (size_t codec = 0; codec < FLI_COUNT_OF(codecs); codec++)
    for (size_t mask = 0; mask < FLI_COUNT_OF(masks); mask++)
      expect_same(codec, mask);
}

Test(encoder, an_update_without_segments_is_a_header)
{
  static const uint8_t none[N_SEGMENTS];
  world w;
  open_world(&w, 0, 0);
  w.options.segments = none;
  w.options.n_segments = N_SEGMENTS;
  const cf_bytes whole = encode_whole(&w);
  fli_encoder *encoder = encoder_of(&w);
  cr_assert_eq(fli_encoder_size(encoder), whole.size);
  expect_range(encoder, &whole, 0, whole.size);
  expect_range(encoder, &whole, 7, whole.size - 7);
  fli_encoder_free(encoder);
  free(whole.data);
  close_world(&w);
}

Test(encoder, clamped_counts_are_those_of_the_report)
{
  world w;
  fl_encode_report report;
  fli_hasher hasher;
  open_world(&w, 2, 0);
  w.r.scale.is_public = 1;
  const size_t n = (size_t)w.r.scale.n_norms;
  uint16_t *want = cf_get(2 * n), *got = cf_get(2 * n);
  cf_must(fl_encode_report_init(&report, sizeof report));
  report.block_clamped = want;
  report.n_block_clamped = n;
  size_t size = (size_t)fl_compressor_max_update_size(w.r.compressor);
  uint8_t *bytes = cf_get(size);
  cf_must(fl_compressor_encode(w.r.compressor, &w.r.scale, &w.options, w.x,
                               w.r.n, bytes, size, &size, &report));
  cr_assert_gt(report.clamped, 0u);
  fli_encoder *encoder = encoder_of(&w);
  fli_hasher_init(&hasher);
  cf_must(fli_encoder_hash(encoder, &hasher, got));
  cr_expect_arr_eq(got, want, 2 * n);
  memset(got, 0, 2 * n);
  cf_must(fli_encoder_read(encoder, 0, bytes, size));
  for (size_t i = 0; i < n; i++)
    cr_expect_eq(got[i], 0);
  fli_encoder_free(encoder);
  free(bytes);
  free(want);
  free(got);
  close_world(&w);
}

static fl_feedback *measured(const world *w)
{
  fl_feedback *feedback = NULL;
  fl_feedback_options options;
  cf_must(fl_feedback_options_init(&options, sizeof options));
  cf_must(fl_feedback_new(&feedback, w->r.compressor, &options));
  cf_must(fl_feedback_measure(feedback, &w->r.scale, 4, w->x, w->r.n, NULL, 0));
  return feedback;
}

/* What the next rounds see of it. */
static float *lost_by(fl_feedback *feedback, uint64_t n)
{
  float *memory = cf_get((size_t)n * sizeof(float));
  cf_must(fl_feedback_settle(feedback, 1, NULL, 0));
  cf_must(fl_feedback_copy_memory(feedback, memory, n));
  fl_feedback_free(feedback);
  return memory;
}

static void expect_same_losses(size_t codec, size_t mask)
{
  world w;
  fli_hasher hasher;
  fli_encoder *encoder = NULL;
  open_world(&w, codec, mask);
  fl_feedback *one = measured(&w), *other = measured(&w);
  size_t size = (size_t)fl_compressor_max_update_size(w.r.compressor);
  cf_bytes whole = {.data = cf_get(size)};
  cf_must(fl_feedback_encode(one, &w.r.scale, &w.options, whole.data, size,
                             &whole.size, NULL));
  cf_must(fli_feedback_encoder(other, &w.r.scale, &w.options, &encoder));
  cr_expect_eq(fl_feedback_phase(other), (uint32_t)FL_FEEDBACK_MEASURED);
  fli_hasher_init(&hasher);
  cf_must(fli_encoder_hash(encoder, &hasher, NULL));
  fli_feedback_encoded(other);
  cr_assert_eq(fli_encoder_size(encoder), whole.size);
  expect_range(encoder, &whole, 0, whole.size);
  expect_range(encoder, &whole, whole.size / 2, whole.size / 3);
  fli_encoder_free(encoder);
  float *want = lost_by(one, w.r.n), *got = lost_by(other, w.r.n);
  cr_expect_arr_eq(got, want, (size_t)w.r.n * sizeof(float));
  free(want);
  free(got);
  free(whole.data);
  close_world(&w);
}

Test(encoder, losses_are_those_of_error_feedback)
{
  for (size_t codec = 0; codec < FLI_COUNT_OF(codecs); codec++)
    for (size_t mask = 0; mask < FLI_COUNT_OF(masks); mask++)
      expect_same_losses(codec, mask);
}

typedef struct counted {
  const float *x;
  uint32_t measured[N_SEGMENTS];
} counted;

static fl_status fetch_all(void *arg, fli_encoding *encoding, uint64_t unit,
                           uint64_t *last)
{
  const counted *from = arg;
  (void)unit;
  (void)last;
  encoding->x = from->x;
  encoding->x_first = 0;
  encoding->x_end = UINT64_MAX;
  return FL_OK;
}

static fl_status count_measure(void *arg, fli_encoding *encoding,
                               double *squares, uint32_t segment)
{
  counted *from = arg;
  from->measured[segment]++;
  encoding->x = from->x;
  return fli_encoding_measure(encoding, squares, segment);
}

/* STATUS may ask for any ranges in any order. */
Test(encoder, a_segment_is_measured_once_however_it_is_read)
{
  for (size_t codec = 0; codec < 2; codec++) {
    world w;
    fli_encoder *encoder = NULL;
    open_world(&w, codec, 0);
    counted from = {.x = w.x};
    const fli_floats floats = {
        .fetch = fetch_all, .measure = count_measure, .arg = &from};
    const cf_bytes whole = encode_whole(&w);
    cf_must(fli_encoder_new(&encoder, w.r.compressor, &w.r.scale, &w.options,
                            &floats));
    for (int i = 0; i < 10; i++) {
      expect_range(encoder, &whole, whole.size - 1, 1);
      expect_range(encoder, &whole, whole.size / 2, 9);
      expect_range(encoder, &whole, 200, 5000);
    }
    expect_range(encoder, &whole, 0, whole.size);
    for (size_t s = 0; s < N_SEGMENTS; s++)
      cr_expect_eq(from.measured[s], s == ZEROS ? 0u : 1u, "segment %zu: %u", s,
                   from.measured[s]);
    fli_encoder_free(encoder);
    free(whole.data);
    close_world(&w);
  }
}

Test(encoder, what_is_not_finite_is_named)
{
  world w;
  fli_hasher hasher;
  uint8_t bytes[64];
  for (size_t codec = 0; codec < FLI_COUNT_OF(codecs); codec++) {
    open_world(&w, codec, 0);
    w.x[5000] = (float)INFINITY;
    fli_encoder *encoder = encoder_of(&w);
    fli_hasher_init(&hasher);
    cr_expect_eq(fli_encoder_hash(encoder, &hasher, NULL), FL_E_NOT_FINITE);
    cr_expect_not_null(strstr(fl_last_error(), "5000"));
    /* Again when it is mended: nothing of the failure stays. */
    w.x[5000] = 1.0f;
    cf_must(fli_encoder_hash(encoder, &hasher, NULL));
    cf_must(fli_encoder_read(encoder, fli_encoder_size(encoder) - sizeof bytes,
                             bytes, sizeof bytes));
    fli_encoder_free(encoder);
    close_world(&w);
  }
}

Test(encoder, refuses_what_encode_refuses)
{
  world w;
  fli_encoder *encoder = NULL;
  open_world(&w, 0, 0);
  const fli_floats from = {.x = w.x};
  fl_encode_options bad = w.options;
  bad.slot = w.r.scale.slots;
  cr_expect_eq(
      fli_encoder_new(&encoder, w.r.compressor, &w.r.scale, &bad, &from),
      FL_E_ARGUMENT);
  fl_scale scale = w.r.scale;
  scale.n_norms--;
  cr_expect_eq(
      fli_encoder_new(&encoder, w.r.compressor, &scale, &w.options, &from),
      FL_E_DIM);
  cr_expect_null(encoder);
  fli_encoder_free(NULL);
  close_world(&w);
}

/* Far less than the update is held. */
Test(encoder, memory_does_not_grow_with_the_vector)
{
  fl_compressor_options options;
  fl_context *context = NULL;
  cf_round r;
  fli_hasher hasher;
  uint64_t before = 0, peak = 0;
  const uint64_t n = 1 << 21;
  fli_encoder *encoder = NULL;
  fl_encode_options encode;
  cf_must(fl_context_new(&context, NULL));
  cf_options(&options, FL_CODEC_F32, 0, 0);
  cf_open(&r, context, &options, &n, 1, 1);
  float *x = cf_normal(n, 3);
  cf_agree(&r, x, 1);
  cf_must(fl_context_get_memory(context, &before, NULL));
  cf_must(fl_encode_options_init(&encode, sizeof encode));
  const fli_floats from = {.x = x};
  cf_must(fli_encoder_new(&encoder, r.compressor, &r.scale, &encode, &from));
  fli_hasher_init(&hasher);
  cf_must(fli_encoder_hash(encoder, &hasher, NULL));
  cf_must(fl_context_get_memory(context, NULL, &peak));
  cr_expect_lt(peak - before, 320u << 10);
  fli_encoder_free(encoder);
  cf_close(&r);
  free(x);
  fl_context_free(context);
}
