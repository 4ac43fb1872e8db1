/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file feedback.h
 * What the encodings of one worker have lost, to be sent with its later
 * updates: error feedback (Seide et al. 2014; Karimireddy et al. 2019). A round
 * of a worker that has one:
 *   1. fl_feedback_measure, in place of fl_compressor_measure.
 *   2. fl_feedback_encode, in place of fl_compressor_encode.
 *   3. fl_feedback_settle, when it is known whether the update was counted.
 * Sums and decoding know nothing of it. Two vectors of memory, 8 bytes for
 * every value. Calls take little more while they run, but for fl_feedback_save
 * and fl_feedback_restore, which hold the state as bytes: up to six vectors
 * more.
 *
 * For every function here. Ownership: none moves, but that new and restore give
 * a handle to be freed. Thread-safety: one thread per fl_feedback at a time;
 * compressors are shared freely. Determinism: D0.
 */
#ifndef FL_FEEDBACK_H
#define FL_FEEDBACK_H

#include <fl/base.h>
#include <fl/compress.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_feedback fl_feedback;

typedef struct fl_feedback_options {
  uint32_t struct_size;
  float decay; /**< what part of an update that was not counted is sent with
                    the next one; 0..1, default .5 */
} fl_feedback_options;
FL_API fl_status fl_feedback_options_init(fl_feedback_options *options,
                                          size_t size);
/** Make one that has lost nothing yet. The compressor is kept by reference
 * count. `options` NULL = defaults. FL_E_OPTIONS, FL_E_NOMEM. */
FL_API fl_status fl_feedback_new(fl_feedback **out,
                                 const fl_compressor *compressor,
                                 const fl_feedback_options *options);
FL_API void fl_feedback_free(fl_feedback *feedback);

enum {
  FL_FEEDBACK_IDLE = 0,     /**< measure is next */
  FL_FEEDBACK_MEASURED = 1, /**< encode is next */
  FL_FEEDBACK_ENCODED = 2   /**< settle is next; encode may come again */
};
/** Where the round stands: FL_FEEDBACK_*. */
FL_API uint32_t fl_feedback_phase(const fl_feedback *feedback);

/** Correct the weighted update by what was lost before, and measure that. `x`
 * is not needed afterwards. `norms` may be NULL (with n_norms 0). A memory that
 * was made under another weight cap is brought to this one: multiplied by what
 * the weight of the samples it was last measured with is now, over what it was;
 * as it is when there is no cap before or now. As fl_compressor_measure, and
 * FL_E_STATE when the round before is not settled; FL_E_RANGE: weight cap above
 * 2^40. Nothing is changed on failure. */
FL_API fl_status fl_feedback_measure(fl_feedback *feedback,
                                     const fl_scale *scale, uint64_t samples,
                                     const float *x, uint64_t n, float *norms,
                                     uint64_t n_norms);
/** Measure the corrected update again. FL_E_STATE when there is none; FL_E_DIM;
 * FL_E_NOMEM. */
FL_API fl_status fl_feedback_copy_norms(const fl_feedback *feedback,
                                        float *norms, uint64_t n_norms);
/** Encode the corrected update, as fl_compressor_encode does, and remember what
 * decoding the bytes alone would not give back. May come again, with another
 * scale, until it is settled. The samples are those of the measurement:
 * options->samples must be the same, or 1. FL_E_STATE: not measured;
 * FL_E_CONFLICT: other samples, or another weight cap than that of the
 * measurement. */
FL_API fl_status fl_feedback_encode(fl_feedback *feedback,
                                    const fl_scale *scale,
                                    const fl_encode_options *options,
                                    uint8_t *buffer, size_t capacity,
                                    size_t *needed, fl_encode_report *report);
/** End the round. is_counted 1: what the last encoding lost is sent with the
 * next update; 0: `decay` times the whole corrected update is. `segments`: NULL
 * when that holds for all, else one byte per segment, 0 = this one was not
 * counted, whatever is_counted says. FL_E_STATE: nothing was measured, or
 * is_counted without an encoding; FL_E_DIM: n_segments; FL_E_ARGUMENT:
 * is_counted is neither 0 nor 1. */
FL_API fl_status fl_feedback_settle(fl_feedback *feedback, int32_t is_counted,
                                    const uint8_t *segments,
                                    uint32_t n_segments);
/** Undo the measurement, as if this update had never been: for one that is
 * replaced or measured under another weight cap. `x` is what was measured. What
 * was lost before is back as it was, to the last bit as long as nothing was
 * encoded, else within rounding. FL_E_STATE: nothing was measured; FL_E_DIM;
 * FL_E_NOT_FINITE: this was not the `x` (nothing is changed). */
FL_API fl_status fl_feedback_withdraw(fl_feedback *feedback, const float *x,
                                      uint64_t n);
/** Forget what was lost, and the round. */
FL_API fl_status fl_feedback_reset(fl_feedback *feedback);
/** Copy what was lost before, or in a round the corrected update. FL_E_DIM. */
FL_API fl_status fl_feedback_copy_memory(const fl_feedback *feedback,
                                         float *memory, uint64_t n);
/** Save everything, in any phase. Guarded by a hash. FL_E_IO: the writer
 * failed; FL_E_TOO_LARGE: vectors of 4 GiB and more. */
FL_API fl_status fl_feedback_save(const fl_feedback *feedback,
                                  const fl_writer *writer);
/** Restore. FL_E_SCHEMA: it was another compressor's; FL_E_FORMAT,
 * FL_E_VERSION, FL_E_TRUNCATED, FL_E_TOO_LARGE, FL_E_NOT_FINITE; FL_E_IO: the
 * reader failed. */
FL_API fl_status fl_feedback_restore(fl_feedback **out,
                                     const fl_compressor *compressor,
                                     const fl_feedback_options *options,
                                     const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif
