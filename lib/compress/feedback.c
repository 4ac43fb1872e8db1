/* SPDX-License-Identifier: Apache-2.0 */
/* Error feedback (Seide et al., "1-Bit Stochastic Gradient Descent", 2014;
 * Karimireddy et al., "Error Feedback Fixes SignSGD", 2019; THC, section 5.1):
 * with memory e, update x and weight w a worker encodes p = w x + e, and what
 * decoding its own bytes does not give back of p is the next e.
 *
 * Two vectors do, because they trade places: p is made beside e, and only when
 * all of it is known to be good it becomes what the handle holds; e then stays
 * in the other vector until an encoding needs that for what is lost. A round
 * that comes to nothing can therefore be undone. */
#include "compress/feedback.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/measure.h"

static const fl_feedback_options feedback_defaults = {
    .struct_size = sizeof(fl_feedback_options),
    .decay = 0.5f,
};

/* dst = a * wa + b * wb, each product and the sum rounded. */
typedef struct mixing {
  float *dst;
  const float *a;
  const float *b;
  float wa;
  float wb;
  size_t n;
} mixing;

static void mix_line(float *restrict dst, const float *restrict a,
                     const float *restrict b, const mixing *m)
{
  const float wa = m->wa, wb = m->wb;
  for (size_t i = 0; i < FLK_LINE; i++) {
    float one = a[i] * wa;
    float two = b[i] * wb;
    dst[i] = one + two;
  }
}

static void mix_pieces(void *arg, uint64_t first, uint64_t last)
{
  const mixing *m = arg;
  size_t i = (size_t)first * FLI_UNIT_MAX;
  size_t end = (size_t)last * FLI_UNIT_MAX;
  if (end > m->n) end = m->n;
  for (; i + FLK_LINE <= end; i += FLK_LINE)
    mix_line(m->dst + i, m->a + i, m->b + i, m);
  for (; i < end; i++) {
    float one = m->a[i] * m->wa;
    float two = m->b[i] * m->wb;
    m->dst[i] = one + two;
  }
}

static void mix(const fl_feedback *feedback, mixing *m)
{
  const fl_compressor *compressor = feedback->compressor;
  uint64_t dim = compressor->layout.dim;
  uint64_t pieces = (dim + FLI_UNIT_MAX - 1) / FLI_UNIT_MAX;
  m->n = (size_t)dim;
  fli_for_units(compressor->context, 0, pieces, mix_pieces, m);
}

static void swap_vectors(fl_feedback *feedback)
{
  float *held = feedback->held;
  feedback->held = feedback->other;
  feedback->other = held;
}

/* What the memory is multiplied by under another cap: as the weight of the
 * update that it was last made with would be. */
static float weight_ratio(const fl_feedback *feedback, uint64_t cap)
{
  const uint64_t n = feedback->samples, before = feedback->cap;
  if (cap == before || cap == 0 || before == 0 || n == 0) return 1.0f;
  /* min(n, cap) / cap over min(n, before) / before. */
  const uint64_t more = n < cap ? n : cap, less = n < before ? n : before;
  return (float)(((double)more * (double)before) /
                 ((double)less * (double)cap));
}

static fl_status check_dim(const fl_feedback *feedback, const char *what,
                           uint64_t n)
{
  uint64_t want = feedback->compressor->layout.dim;
  if (n == want) return FL_OK;
  return fli_error(FL_E_DIM, "feedback: %s, got %llu values, want %llu", what,
                   (unsigned long long)n, (unsigned long long)want);
}

static fl_status check_norms(const fl_feedback *feedback, const float *norms,
                             uint64_t n)
{
  uint64_t want = norms ? fl_compressor_norm_count(feedback->compressor) : 0;
  if (n == want) return FL_OK;
  return fli_error(FL_E_DIM, "feedback: norms, got %llu, want %llu",
                   (unsigned long long)n, (unsigned long long)want);
}

fl_status fli_feedback_make(fl_feedback **out, const fl_compressor *compressor,
                            float decay)
{
  if (!(decay >= 0.0f && decay <= 1.0f)) {
    return fli_error(FL_E_OPTIONS, "decay: got %g, want 0..1", (double)decay);
  }
  fl_context *context = compressor->context;
  size_t n = (size_t)compressor->layout.dim;
  fl_feedback *feedback = fli_alloc(context, 1, sizeof *feedback);
  if (!feedback) return fli_nomem(sizeof *feedback);
  feedback->compressor = fli_compressor_ref(compressor);
  feedback->decay = decay;
  feedback->held = fli_alloc(context, n, sizeof(float));
  feedback->other = fli_alloc(context, n, sizeof(float));
  if (!feedback->held || !feedback->other) {
    fl_feedback_free(feedback);
    return fli_nomem(n * sizeof(float));
  }
  *out = feedback;
  return FL_OK;
}

fl_status fl_feedback_options_init(fl_feedback_options *options, size_t size)
{
  return fli_options_init(options, size, &feedback_defaults,
                          sizeof feedback_defaults);
}

fl_status fl_feedback_new(fl_feedback **out, const fl_compressor *compressor,
                          const fl_feedback_options *options)
{
  fli_clear_error();
  if (!out || !compressor) {
    return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  }
  fl_feedback_options loaded = feedback_defaults;
  fl_status st =
      fli_options_load(&loaded, sizeof loaded, options, "feedback options");
  if (st != FL_OK) return st;
  return fli_feedback_make(out, compressor, loaded.decay);
}

void fl_feedback_free(fl_feedback *feedback)
{
  if (!feedback) return;
  fl_compressor *compressor = feedback->compressor;
  fli_free(compressor->context, feedback->held, fli_feedback_bytes(feedback));
  fli_free(compressor->context, feedback->other, fli_feedback_bytes(feedback));
  fli_free(compressor->context, feedback, sizeof *feedback);
  fl_compressor_free(compressor);
}

uint32_t fl_feedback_phase(const fl_feedback *feedback)
{
  return feedback ? feedback->phase : FL_FEEDBACK_IDLE;
}

fl_status fl_feedback_measure(fl_feedback *feedback, const fl_scale *scale,
                              uint64_t samples, const float *x, uint64_t n,
                              float *norms, uint64_t n_norms)
{
  fl_status st = FL_OK;
  fl_scale local;
  fli_clear_error();
  if (!feedback || !x) return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  FLI_TRY(fli_scale_load(&local, scale));
  if (samples == 0) {
    return fli_error(FL_E_ARGUMENT, "feedback: samples, got 0, want >= 1");
  }
  if (local.weight_cap > FLI_WEIGHT_MAX) {
    return fli_error(FL_E_RANGE, "feedback: weight cap, got %llu, want <= 2^40",
                     (unsigned long long)local.weight_cap);
  }
  FLI_TRY(check_dim(feedback, "update", n));
  FLI_TRY(check_norms(feedback, norms, n_norms));
  if (feedback->phase != FL_FEEDBACK_IDLE) {
    return fli_error(FL_E_STATE, "feedback: the round before is not settled");
  }
  st = fli_feedback_measure(feedback, samples, local.weight_cap, x, norms);
out:
  return st;
}

fl_status fli_feedback_measure(fl_feedback *feedback, uint64_t samples,
                               uint64_t cap, const float *x, float *norms)
{
  mixing m = {.dst = feedback->other,
              .a = x,
              .b = feedback->held,
              .wa = fli_update_weight(samples, cap),
              .wb = weight_ratio(feedback, cap)};
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  mix(feedback, &m);
  fli_fpguard_leave(&guard);
  const fl_status st =
      fli_measure(feedback->compressor, feedback->other, 1.0f, norms);
  if (st != FL_OK) return st;
  swap_vectors(feedback);
  feedback->phase = FL_FEEDBACK_MEASURED;
  feedback->before_samples = feedback->samples;
  feedback->before_cap = feedback->cap;
  feedback->samples = samples;
  feedback->cap = cap;
  return FL_OK;
}

fl_status fl_feedback_copy_norms(const fl_feedback *feedback, float *norms,
                                 uint64_t n_norms)
{
  fli_clear_error();
  if (!feedback || !norms) {
    return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  }
  fl_status st = check_norms(feedback, norms, n_norms);
  if (st != FL_OK) return st;
  if (feedback->phase == FL_FEEDBACK_IDLE) {
    return fli_error(FL_E_STATE, "feedback: nothing was measured");
  }
  return fli_measure(feedback->compressor, feedback->held, 1.0f, norms);
}

/* The caller's options with the samples of the measurement. */
static fl_status load_options(const fl_feedback *feedback,
                              const fl_encode_options *given,
                              fl_encode_options *options)
{
  fl_status st = fl_encode_options_init(options, sizeof *options);
  if (st != FL_OK) return st;
  st = fli_options_load(options, sizeof *options, given, "encode options");
  if (st != FL_OK) return st;
  if (options->samples != 1 && options->samples != feedback->samples) {
    return fli_error(FL_E_CONFLICT, "feedback: samples, got %llu, want %llu",
                     (unsigned long long)options->samples,
                     (unsigned long long)feedback->samples);
  }
  options->samples = feedback->samples;
  return FL_OK;
}

/* The round's options, when it may be encoded. */
static fl_status begin_encoding(const fl_feedback *feedback,
                                const fl_scale *scale,
                                const fl_encode_options *given,
                                fl_encode_options *options)
{
  fl_scale local;
  if (feedback->phase == FL_FEEDBACK_IDLE) {
    return fli_error(FL_E_STATE, "feedback: nothing was measured");
  }
  fl_status st = fli_scale_load(&local, scale);
  if (st == FL_OK) st = load_options(feedback, given, options);
  if (st == FL_OK && local.weight_cap != feedback->cap) {
    st = fli_error(FL_E_CONFLICT, "feedback: weight cap, got %llu, want %llu",
                   (unsigned long long)local.weight_cap,
                   (unsigned long long)feedback->cap);
  }
  return st;
}

fl_status fl_feedback_encode(fl_feedback *feedback, const fl_scale *scale,
                             const fl_encode_options *given, uint8_t *buffer,
                             size_t capacity, size_t *needed,
                             fl_encode_report *report)
{
  fl_status st = FL_OK;
  fl_encode_options options;
  fli_clear_error();
  if (!feedback) return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  FLI_TRY(begin_encoding(feedback, scale, given, &options));
  const fli_floats from = {.x = feedback->held, .lost = feedback->other};
  const fli_encoded_bytes to = {
      .buffer = buffer, .capacity = capacity, .needed = needed};
  FLI_TRY(
      fli_encode(feedback->compressor, scale, &options, &from, &to, report));
  /* Without a buffer it was only asked how much there is. */
  if (buffer) feedback->phase = FL_FEEDBACK_ENCODED;
out:
  return st;
}

fl_status fli_feedback_encoder(fl_feedback *feedback, const fl_scale *scale,
                               const fl_encode_options *options,
                               fli_encoder **out)
{
  const fli_floats from = {.x = feedback->held, .lost = feedback->other};
  return fli_encoder_new(out, feedback->compressor, scale, options, &from);
}

void fli_feedback_encoded(fl_feedback *feedback)
{
  feedback->phase = FL_FEEDBACK_ENCODED;
}

/* One segment of a round that ends. */
static void settle_segment(fl_feedback *feedback, const fli_segment *segment,
                           int is_counted)
{
  float *held = feedback->held + segment->offset;
  size_t n = (size_t)segment->n;
  if (is_counted) {
    memcpy(held, feedback->other + segment->offset, n * sizeof(float));
  } else {
    for (size_t i = 0; i < n; i++)
      held[i] *= feedback->decay;
  }
}

fl_status fl_feedback_settle(fl_feedback *feedback, int32_t is_counted,
                             const uint8_t *segments, uint32_t n_segments)
{
  fli_clear_error();
  if (!feedback) return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  const fli_layout *layout = &feedback->compressor->layout;
  if (is_counted != 0 && is_counted != 1) {
    return fli_error(FL_E_ARGUMENT, "feedback: is_counted, got %d, want 0, 1",
                     is_counted);
  }
  if (segments && n_segments != layout->n_segments) {
    return fli_error(FL_E_DIM, "feedback: segments, got %u, want %u",
                     n_segments, layout->n_segments);
  }
  if (feedback->phase == FL_FEEDBACK_IDLE ||
      (is_counted && feedback->phase != FL_FEEDBACK_ENCODED)) {
    return fli_error(FL_E_STATE, "feedback: nothing was %s",
                     is_counted ? "encoded" : "measured");
  }
  fli_feedback_settle(feedback, is_counted, segments);
  return FL_OK;
}

void fli_feedback_settle(fl_feedback *feedback, int is_counted,
                         const uint8_t *segments)
{
  const fli_layout *layout = &feedback->compressor->layout;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  if (is_counted && !segments) {
    swap_vectors(feedback);
  } else {
    for (uint32_t s = 0; s < layout->n_segments; s++)
      settle_segment(feedback, &layout->segments[s],
                     is_counted && segments[s] != 0);
  }
  fli_fpguard_leave(&guard);
  feedback->phase = FL_FEEDBACK_IDLE;
}

/* Put held - w x in the place of what was lost. */
static fl_status take_out(fl_feedback *feedback, const float *x)
{
  size_t n = (size_t)feedback->compressor->layout.dim;
  float weight = fli_update_weight(feedback->samples, feedback->cap);
  for (size_t i = 0; i < n; i++) {
    float part = x[i] * weight;
    if (isfinite(feedback->held[i] - part)) continue;
    return fli_error(FL_E_NOT_FINITE,
                     "feedback: coordinate %zu, got %g, which was not measured",
                     i, (double)x[i]);
  }
  mixing m = {.dst = feedback->other,
              .a = x,
              .b = feedback->held,
              .wa = -weight,
              .wb = 1.0f};
  mix(feedback, &m);
  return FL_OK;
}

fl_status fl_feedback_withdraw(fl_feedback *feedback, const float *x,
                               uint64_t n)
{
  fli_clear_error();
  if (!feedback || !x) return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  fl_status st = check_dim(feedback, "update", n);
  if (st != FL_OK) return st;
  if (feedback->phase == FL_FEEDBACK_IDLE) {
    return fli_error(FL_E_STATE, "feedback: nothing was measured");
  }
  if (feedback->phase == FL_FEEDBACK_MEASURED) {
    feedback->samples = feedback->before_samples;
    feedback->cap = feedback->before_cap;
  } else {
    fli_fpguard guard;
    fli_fpguard_enter(&guard);
    st = take_out(feedback, x);
    fli_fpguard_leave(&guard);
    if (st != FL_OK) return st;
  }
  swap_vectors(feedback);
  feedback->phase = FL_FEEDBACK_IDLE;
  return FL_OK;
}

fl_status fl_feedback_reset(fl_feedback *feedback)
{
  fli_clear_error();
  if (!feedback) return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  memset(feedback->held, 0, fli_feedback_bytes(feedback));
  feedback->phase = FL_FEEDBACK_IDLE;
  return FL_OK;
}

fl_status fl_feedback_copy_memory(const fl_feedback *feedback, float *memory,
                                  uint64_t n)
{
  fli_clear_error();
  if (!feedback || !memory) {
    return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  }
  fl_status st = check_dim(feedback, "memory", n);
  if (st == FL_OK) memcpy(memory, feedback->held, fli_feedback_bytes(feedback));
  return st;
}
