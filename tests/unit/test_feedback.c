/* SPDX-License-Identifier: Apache-2.0 */
/* Error feedback: what an encoding loses comes with the next one, whatever the
 * codec, the scale and the fate of the update; rounds end, or are undone. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "feedback_fixture.h"

static double length(const float *x, size_t n)
{
  double sum = 0.0;
  for (size_t i = 0; i < n; i++)
    sum += (double)x[i] * (double)x[i];
  return sqrt(sum);
}

/* What one encoding may leave out, of its length: float32 rounds. */
static const double tolerance = 2e-6;

/* |x - sent - lost| must be nothing beside |x|. */
static void expect_complete(const float *x, const float *sent,
                            const float *lost, const char *what, uint32_t kind)
{
  double error = 0.0;
  for (size_t i = 0; i < DIM; i++) {
    double e = (double)x[i] - (double)sent[i] - (double)lost[i];
    error += e * e;
  }
  cr_expect_lt(sqrt(error), tolerance * length(x, DIM), "kind %u, %s: %g of %g",
               kind, what, sqrt(error), length(x, DIM));
}

/* A round of the vector x on the scale as it is; lost + decoded = x. */
static void check_lost(world *w, const uint8_t *mask, const char *what,
                       uint32_t kind)
{
  cf_must(fl_feedback_reset(w->feedback));
  cf_must(fl_feedback_measure(w->feedback, &w->r.scale, 1, w->x, DIM, NULL, 0));
  cf_must(encode_some(w, mask));
  decoded(w);
  cf_must(settle(w, 1));
  expect_complete(w->x, w->got, memory(w), what, kind);
}

Test(feedback, lost_is_what_decoding_does_not_give_back)
{
  static const uint8_t mask[SEGMENTS] = {1, 0, 1};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_agree(&w.r, w.x, 1);
    check_lost(&w, NULL, "plain", kind);
    check_lost(&w, mask, "a segment left out", kind);
    for (uint64_t i = 0; i < w.r.scale.n_norms; i++)
      w.r.norms[i] *= i % 2 ? .25f : 2.f;
    check_lost(&w, NULL, "own norm above the agreed", kind);
    w.r.norms[w.r.scale.n_norms - 1] = 0.f;
    w.r.norms[0] = 0.f;
    check_lost(&w, NULL, "blocks that are not sent", kind);
    if (kinds[kind].codec == FL_CODEC_THC) {
      w.r.scale.is_public = 1;
      check_lost(&w, NULL, "clamped on a public scale", kind);
    }
    close_world(&w);
  }
}

/* Announced norms that are far too small: all that is cut off comes later, also
 * where every coordinate is beyond what an integer holds. */
Test(feedback, nothing_is_lost_beyond_announced_norms)
{
  static const uint32_t modes[] = {3, 5, 2, 6};
  static const float beyond[] = {45, 364, 2912, 23296, 1e9f, 1e30f};
  for (size_t k = 0; k < 4; k++) {
    world w;
    open_world(&w, modes[k]);
    w.r.scale.is_public = 1;
    for (size_t i = 0; i < 6; i++) {
      memset(w.r.norms, 0, (size_t)w.r.scale.n_norms * sizeof(float));
      cf_agree(&w.r, w.x, 1);
      for (uint64_t j = 0; j < w.r.scale.n_norms; j++) {
        uint32_t bits = fli_f32_bits(w.r.norms[j] / beyond[i]);
        w.r.norms[j] = fli_f32_from_bits(bits & 0xffff0000u);
      }
      check_lost(&w, NULL, "announced", modes[k]);
    }
    close_world(&w);
  }
}

/* Rounding must not lean to one side: the first coordinate of a block collects
 * whatever all its coordinates have in common. */
Test(feedback, what_is_lost_is_not_biased)
{
  for (uint32_t kind = 2; kind < KINDS; kind++) {
    world w;
    double sum = 0.0;
    open_world(&w, kind);
    for (uint32_t round = 0; round < 40; round++) {
      free(w.x);
      w.x = cf_normal(DIM, 500 + round);
      w.r.scale.noise_seed[0] = (uint8_t)round;
      memset(w.r.norms, 0, (size_t)w.r.scale.n_norms * sizeof(float));
      cf_agree(&w.r, w.x, 1);
      check_lost(&w, NULL, "unbiased", kind);
      for (size_t b = 0; b < 3; b++) {
        size_t i = 300 + 4096 * b;
        sum += (double)w.x[i] - (double)w.got[i] - (double)w.memory[i];
      }
    }
    cr_expect_lt(fabs(sum) / 120.0, 1e-6, "kind %u: %g", kind, sum / 120.0);
    close_world(&w);
  }
}

Test(feedback, first_round_encodes_as_without_it)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_must(measure(&w));
    float *norms = cf_get((size_t)w.r.scale.n_norms * sizeof(float));
    cf_must(fl_compressor_measure(w.r.compressor, &w.r.scale, 1, w.x, DIM,
                                  norms, w.r.scale.n_norms));
    cr_expect_arr_eq(norms, w.r.norms,
                     (size_t)w.r.scale.n_norms * sizeof(float));
    cf_must(encode(&w));
    cf_bytes want = cf_encode(&w.r, 2, w.x);
    cr_expect(cf_equal(want, (cf_bytes){w.bytes, w.size}), "kind %u", kind);
    free(want.data);
    free(norms);
    close_world(&w);
  }
}

Test(feedback, next_round_sends_what_was_lost)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_must(measure(&w));
    cf_must(encode(&w));
    cf_must(settle(&w, 1));
    float *corrected = cf_get(DIM * sizeof(float));
    float *norms = cf_get((size_t)w.r.scale.n_norms * sizeof(float));
    memory(&w);
    for (size_t i = 0; i < DIM; i++)
      corrected[i] = w.x[i] + w.memory[i];
    cf_must(measure(&w));
    cr_expect_arr_eq(memory(&w), corrected, DIM * sizeof(float));
    cf_must(fl_compressor_measure(w.r.compressor, &w.r.scale, 1, corrected, DIM,
                                  norms, w.r.scale.n_norms));
    cr_expect_arr_eq(norms, w.r.norms,
                     (size_t)w.r.scale.n_norms * sizeof(float));
    cf_must(encode(&w));
    cf_bytes want = cf_encode(&w.r, 2, corrected);
    cr_expect(cf_equal(want, (cf_bytes){w.bytes, w.size}), "kind %u", kind);
    free(want.data);
    free(corrected);
    free(norms);
    close_world(&w);
  }
}

Test(feedback, update_not_counted_is_kept_by_its_decay)
{
  world w;
  open_decay(&w, 3, .25f);
  cf_must(measure(&w));
  cf_must(settle(&w, 0));
  memory(&w);
  for (size_t i = 0; i < DIM; i++)
    cr_assert_eq(w.memory[i], w.x[i] * .25f);
  cf_must(measure(&w));
  cf_must(encode(&w));
  cf_must(settle(&w, 0));
  memory(&w);
  for (size_t i = 0; i < DIM; i++)
    cr_assert_eq(w.memory[i], (w.x[i] + w.x[i] * .25f) * .25f);
  close_world(&w);
}

Test(feedback, segments_are_settled_one_by_one)
{
  static const uint8_t counted[SEGMENTS] = {0, 1, 0};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_must(measure(&w));
    cf_must(encode(&w));
    decoded(&w);
    cr_expect_eq(fl_feedback_settle(w.feedback, 1, counted, SEGMENTS - 1),
                 FL_E_DIM);
    cf_must(fl_feedback_settle(w.feedback, 1, counted, SEGMENTS));
    memory(&w);
    for (size_t i = 0; i < DIM; i++) {
      if (i >= 300 && i < DIM - 4096) {
        cr_assert_float_eq(w.memory[i], w.x[i] - w.got[i], 1e-3);
      } else {
        cr_assert_eq(w.memory[i], w.x[i] * .5f);
      }
    }
    close_world(&w);
  }
}

Test(feedback, only_the_last_encoding_is_settled)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_must(measure(&w));
    cf_must(encode(&w));
    for (uint64_t i = 0; i < w.r.scale.n_norms; i++)
      w.r.norms[i] *= 4.f;
    memset(w.r.scale.noise_seed, 77, FL_SEED_BYTES);
    w.r.scale.slots = 7;
    cf_must(encode(&w));
    decoded(&w);
    cf_must(settle(&w, 1));
    expect_complete(w.x, w.got, memory(&w), "the second scale", kind);
    close_world(&w);
  }
}

/* Nothing is ever lost or sent twice: over rounds of any fate (decay 1), what
 * was sent and counted, and what is held, add up to what went in. */
Test(feedback, sent_and_held_add_up_to_what_went_in)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_decay(&w, kind, 1.f);
    double *in = cf_get(DIM * sizeof(double));
    double *out = cf_get(DIM * sizeof(double));
    double total = 0.0, error = 0.0;
    for (uint32_t round = 0; round < 20; round++) {
      free(w.x);
      w.x = cf_normal(DIM, 100 + round);
      w.r.scale.round = round;
      w.r.scale.noise_seed[0] = (uint8_t)round;
      cf_must(measure(&w));
      cf_must(encode(&w));
      int is_counted = round % 3 != 1;
      decoded(&w);
      for (size_t i = 0; i < DIM; i++) {
        in[i] += (double)w.x[i];
        out[i] += is_counted ? (double)w.got[i] : 0.0;
      }
      cf_must(settle(&w, is_counted));
    }
    memory(&w);
    for (size_t i = 0; i < DIM; i++) {
      double e = in[i] - out[i] - (double)w.memory[i];
      error += e * e;
      total += in[i] * in[i];
    }
    cr_expect_lt(sqrt(error), tolerance * sqrt(total), "kind %u: %g of %g",
                 kind, sqrt(error), sqrt(total));
    free(in);
    free(out);
    close_world(&w);
  }
}

/* An update of n samples has weight n / cap, and so has what it lost: in
 * samples, the sum stays what it was when the cap changes. */
Test(feedback, memory_follows_the_weight_cap)
{
  static const uint64_t caps[] = {40, 10, 80, 80};
  world w;
  open_decay(&w, 3, 1.f);
  w.samples = 5;
  w.r.scale.weight_cap = 40;
  cf_must(measure(&w));
  cf_must(settle(&w, 0));
  double want = (double)w.x[7] * 5.0;
  for (size_t i = 1; i < 4; i++) {
    w.r.scale.weight_cap = caps[i];
    cf_must(measure(&w));
    cf_must(settle(&w, 0));
    want += (double)w.x[7] * 5.0;
    cr_expect_float_eq((double)memory(&w)[7] * (double)caps[i], want, 1e-4,
                       "cap %zu", i);
  }
  close_world(&w);
}

/* With more samples than either cap the weight is 1 under both. */
Test(feedback, memory_follows_the_weight_and_not_the_cap_alone)
{
  static const struct {
    uint64_t samples, before, after;
    float ratio;
  } rows[] = {{50, 10, 20, 1.f},  {50, 20, 10, 1.f}, {50, 100, 25, 2.f},
              {50, 25, 100, .5f}, {10, 40, 20, 2.f}, {50, 0, 100, 1.f}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    world w;
    open_decay(&w, 3, 1.f);
    float *before = cf_get(DIM * sizeof(float));
    w.samples = rows[i].samples;
    w.r.scale.weight_cap = rows[i].before;
    cf_must(measure(&w));
    cf_must(settle(&w, 0));
    memcpy(before, memory(&w), DIM * sizeof(float));
    memset(w.x, 0, DIM * sizeof(float));
    /* One that is taken back leaves no trace in the weight, either. */
    w.samples = 1;
    cf_must(measure(&w));
    cf_must(fl_feedback_withdraw(w.feedback, w.x, DIM));
    w.r.scale.weight_cap = rows[i].after;
    cf_must(measure(&w));
    memory(&w);
    for (size_t k = 0; k < DIM; k++)
      cr_assert_eq(w.memory[k], before[k] * rows[i].ratio, "row %zu", i);
    free(before);
    close_world(&w);
  }
}

Test(feedback, weight_cap_out_of_range_changes_nothing)
{
  world w;
  open_world(&w, 3);
  w.r.scale.weight_cap = (UINT64_C(1) << 40) + 1;
  cr_expect_eq(measure(&w), FL_E_RANGE);
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
  w.r.scale.weight_cap--;
  cf_must(measure(&w));
  cf_must(encode(&w));
  close_world(&w);
}

Test(feedback, encodes_with_the_samples_and_the_cap_of_the_measurement)
{
  world w;
  fl_encode_options options;
  uint32_t slot;
  uint64_t samples;
  open_world(&w, 3);
  w.samples = 5;
  w.r.scale.weight_cap = 40;
  cf_must(measure(&w));
  cf_must(encode(&w));
  fl_partial *partial = cf_partial(&w.r);
  cf_must(fl_partial_peek(partial, w.bytes, w.size, &slot, &samples));
  cr_expect_eq(slot, 2);
  cr_expect_eq(samples, 5);
  fl_partial_free(partial);
  decoded(&w); /* the mean of one update has its weight taken out */
  cr_expect_lt(cf_nmse(w.got, w.x, DIM), .03);
  cf_must(fl_encode_options_init(&options, sizeof options));
  options.samples = 6;
  cr_expect_eq(fl_feedback_encode(w.feedback, &w.r.scale, &options, w.bytes,
                                  w.size, &w.size, NULL),
               FL_E_CONFLICT);
  w.r.scale.weight_cap = 41;
  cr_expect_eq(encode(&w), FL_E_CONFLICT);
  close_world(&w);
}

Test(feedback, calls_out_of_turn_are_refused)
{
  world w;
  open_world(&w, 3);
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
  cr_expect_eq(encode(&w), FL_E_STATE);
  cr_expect_eq(settle(&w, 1), FL_E_STATE);
  cr_expect_eq(settle(&w, 0), FL_E_STATE);
  cr_expect_eq(fl_feedback_withdraw(w.feedback, w.x, DIM), FL_E_STATE);
  cr_expect_eq(fl_feedback_copy_norms(w.feedback, w.r.norms, w.r.scale.n_norms),
               FL_E_STATE);
  cf_must(measure(&w));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_MEASURED);
  cr_expect_eq(measure(&w), FL_E_STATE);
  cr_expect_eq(settle(&w, 1), FL_E_STATE);
  cf_must(encode(&w));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_ENCODED);
  cr_expect_eq(measure(&w), FL_E_STATE);
  cf_must(encode(&w));
  cf_must(settle(&w, 1));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
  cr_expect_eq(settle(&w, 1), FL_E_STATE);
  cf_must(measure(&w));
  cf_must(fl_feedback_reset(w.feedback));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
  cr_expect_eq(length(memory(&w), DIM), 0.0);
  close_world(&w);
}

Test(feedback, asking_for_the_size_changes_nothing)
{
  world w;
  size_t needed = 0;
  uint8_t one = 0;
  open_world(&w, 3);
  cf_must(measure(&w));
  cf_must(
      fl_feedback_encode(w.feedback, &w.r.scale, NULL, NULL, 0, &needed, NULL));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_MEASURED);
  cr_expect_eq(
      fl_feedback_encode(w.feedback, &w.r.scale, NULL, &one, 1, &needed, NULL),
      FL_E_SIZE);
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_MEASURED);
  cf_must(encode(&w));
  cr_expect_eq(w.size, needed);
  close_world(&w);
}

Test(feedback, withdrawn_update_leaves_no_trace)
{
  world w;
  open_world(&w, 3);
  w.samples = 3;
  w.r.scale.weight_cap = 7;
  cf_must(measure(&w));
  cf_must(encode(&w));
  cf_must(settle(&w, 1));
  float *before = cf_get(DIM * sizeof(float));
  memcpy(before, memory(&w), DIM * sizeof(float));
  w.r.scale.weight_cap = 14;
  cf_must(measure(&w));
  cf_must(fl_feedback_withdraw(w.feedback, w.x, DIM));
  cr_expect_arr_eq(memory(&w), before, DIM * sizeof(float));
  w.r.scale.weight_cap = 7;
  cf_must(measure(&w));
  cf_must(encode(&w));
  cf_must(fl_feedback_withdraw(w.feedback, w.x, DIM));
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
  memory(&w);
  for (size_t i = 0; i < DIM; i++)
    cr_assert_float_eq(w.memory[i], before[i], 1e-6);
  free(before);
  close_world(&w);
}

Test(feedback, withdrawing_what_was_not_measured_changes_nothing)
{
  world w;
  open_world(&w, 3);
  cf_must(measure(&w));
  cf_must(encode(&w));
  cr_expect_eq(fl_feedback_withdraw(w.feedback, w.x, DIM - 1), FL_E_DIM);
  w.x[5] = INFINITY;
  cr_expect_eq(fl_feedback_withdraw(w.feedback, w.x, DIM), FL_E_NOT_FINITE);
  cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_ENCODED);
  w.x[5] = memory(&w)[5];
  decoded(&w);
  cf_must(settle(&w, 1));
  expect_complete(w.x, w.got, memory(&w), "after a refusal", 3);
  close_world(&w);
}

Test(feedback, unusable_update_leaves_the_memory_alone)
{
  static const struct {
    float value;
    fl_status status;
  } bad[] = {{NAN, FL_E_NOT_FINITE},
             {-INFINITY, FL_E_NOT_FINITE},
             {0x1.8p127f, FL_E_RANGE}};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    open_world(&w, kind);
    cf_must(measure(&w));
    cf_must(settle(&w, 0));
    float *before = cf_get(DIM * sizeof(float));
    memcpy(before, memory(&w), DIM * sizeof(float));
    for (size_t i = 0; i < 3; i++) {
      float good = w.x[DIM - 1];
      w.x[DIM - 1] = bad[i].value;
      cr_expect_eq(measure(&w), bad[i].status, "kind %u, %zu", kind, i);
      w.x[DIM - 1] = good;
      cr_expect_eq(fl_feedback_phase(w.feedback), FL_FEEDBACK_IDLE);
      cr_expect_arr_eq(memory(&w), before, DIM * sizeof(float));
    }
    free(before);
    close_world(&w);
  }
}

Test(feedback, arguments_are_checked)
{
  world w;
  fl_feedback *other = NULL;
  fl_feedback_options options;
  open_world(&w, 3);
  fl_feedback *f = w.feedback;
  const fl_scale *scale = &w.r.scale;
  cf_must(fl_feedback_options_init(&options, sizeof options));
  cr_expect_eq(options.decay, .5f);
  options.decay = 1.5f;
  cr_expect_eq(fl_feedback_new(&other, w.r.compressor, &options), FL_E_OPTIONS);
  options.decay = NAN;
  cr_expect_eq(fl_feedback_new(&other, w.r.compressor, &options), FL_E_OPTIONS);
  cr_expect_eq(fl_feedback_new(NULL, w.r.compressor, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_new(&other, NULL, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_measure(f, NULL, 1, w.x, DIM, NULL, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_measure(f, scale, 0, w.x, DIM, NULL, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_measure(f, scale, 1, NULL, DIM, NULL, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_measure(f, scale, 1, w.x, DIM - 1, NULL, 0),
               FL_E_DIM);
  cr_expect_eq(fl_feedback_measure(f, scale, 1, w.x, DIM, w.r.norms, 1),
               FL_E_DIM);
  cr_expect_eq(fl_feedback_measure(f, scale, 1, w.x, DIM, NULL, 1), FL_E_DIM);
  cr_expect_eq(fl_feedback_copy_memory(f, w.memory, 1), FL_E_DIM);
  cr_expect_eq(fl_feedback_copy_memory(f, NULL, DIM), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_settle(f, 2, NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_settle(NULL, 1, NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_reset(NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_feedback_phase(NULL), FL_FEEDBACK_IDLE);
  fl_feedback_free(NULL);
  close_world(&w);
}
