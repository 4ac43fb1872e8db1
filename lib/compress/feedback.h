/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of error feedback, and its state for those who save it within their
 * own. */
#ifndef FLI_FEEDBACK_H
#define FLI_FEEDBACK_H

#include <fl/feedback.h>
#include "compress/encoder.h"
#include "wire/writer.h"

struct fl_feedback {
  fl_compressor *compressor; /* reference */
  float decay;
  uint32_t phase;   /* FL_FEEDBACK_* */
  uint64_t samples; /* of the measurement; 0 = never */
  uint64_t cap;     /* weight cap that `held` is weighted under */
  /* MEASURED: those of `other`. */
  uint64_t before_samples;
  uint64_t before_cap;
  float *held; /* IDLE: the memory; else the corrected update */
  /* MEASURED: the memory as it was before; ENCODED: what was lost. */
  float *other;
};

/* Of one of the vectors. */
static inline size_t fli_feedback_bytes(const fl_feedback *feedback)
{
  return (size_t)feedback->compressor->layout.dim * sizeof(float);
}

/* As fl_feedback_encode, for what was measured with these samples and under
 * this scale's weight cap; valid until the round ends. Its bytes are to be
 * hashed, then fli_feedback_encoded be called. */
fl_status fli_feedback_encoder(fl_feedback *feedback, const fl_scale *scale,
                               const fl_encode_options *options,
                               fli_encoder **out);
void fli_feedback_encoded(fl_feedback *feedback);
/* A handle without content. FL_E_OPTIONS: decay. */
fl_status fli_feedback_make(fl_feedback **out, const fl_compressor *compressor,
                            float decay);
/* As the public ones do, for those who keep to the phases. */
fl_status fli_feedback_measure(fl_feedback *feedback, uint64_t samples,
                               uint64_t cap, const float *x, float *norms);
void fli_feedback_settle(fl_feedback *feedback, int is_counted,
                         const uint8_t *segments);
/* The state without its envelope. */
fl_status fli_feedback_write(const fl_feedback *feedback, fli_bytes *out);
/* Into a handle just made; unspecified on failure. FL_E_SCHEMA, FL_E_FORMAT,
 * FL_E_TRUNCATED, FL_E_RANGE, FL_E_NOT_FINITE. */
fl_status fli_feedback_read(fl_feedback *feedback, const uint8_t *data,
                            size_t n);

#endif
