/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file compress.h
 * Summable compression of model updates. Workers encode; anybody adds the
 * encoded updates as integers (fl_partial), in any order and any tree, without
 * decompressing; whoever holds the sum decodes the mean once.
 *
 * THC: Li et al., "THC: Accelerating Distributed Deep Learning Using Tensor
 * Homomorphic Compression", NSDI 2024: randomised Hadamard rotation with
 * shared signs, one agreed norm per block of 4096, b-bit quantisation on a
 * common integer grid. f32 and bf16 travel as they are and are summed in
 * int64 fixed point, so the order does not matter there either.
 *
 * A round, as its workers see it:
 *   1. fl_compressor_measure: norms of the own update, one per block.
 *   2. agree on the elementwise maximum (fl_norms_merge) -> fl_scale.
 *   3. fl_compressor_encode -> bytes; somebody adds them: fl_partial_add.
 *   4. fl_partial_copy_sum -> bytes; everyone decodes: fl_compressor_decode.
 * Everything here is D0. Measuring, encoding (also with error feedback), adding
 * and decoding work in up to 120 KiB of stack on each thread that takes part.
 */
#ifndef FL_COMPRESS_H
#define FL_COMPRESS_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_compressor fl_compressor;
typedef struct fl_partial fl_partial;

enum { FL_CODEC_F32 = 1, FL_CODEC_BF16 = 2, FL_CODEC_THC = 3 };
enum {
  FL_THC_UNIFORM = 1, /**< stochastic rounding on a uniform grid */
  FL_THC_DITHER = 2,  /**< stratified subtractive dither; needs slots */
  FL_THC_TABLE = 3    /**< stochastic rounding to the values of a table */
};
enum { FL_SEED_BYTES = 32, FL_THC_BLOCK = 4096, FL_MAX_SLOTS = 65535 };
/** Greatest weight of one update in a sum (fl_partial_add_batch). */
enum { FL_MAX_LANE_WEIGHT = 65535 };

typedef struct fl_compressor_options {
  uint32_t struct_size;
  uint32_t codec;    /**< FL_CODEC_*; default THC */
  uint32_t thc_mode; /**< FL_THC_*; default DITHER */
  uint32_t bits;     /**< THC: bits per coordinate, 1..8; default 4 */
  /** THC: largest grid value g. Uniform and dither accept 2^bits - 1 and 0,
   * which means the same. Table: 2^bits - 1 .. 255, or 0 for the last value of
   * `table`, and without one for the best that keeps sums of `workers` updates
   * in the lanes (u8 or u16) that they need for 2^bits - 1 anyway. */
  uint32_t granularity;
  /** THC: half width of the grid in standard deviations (t_p), 0.5..16. 0 =
   * the one with the least error for workers that are independent of each
   * other; a table that is not given is solved together with it. (2.15387
   * leaves 1/32 of N(0, 1) outside, what the THC paper has for its tables.) */
  float clip;
  /** Seed of the rotation's signs; the same for everybody, fixed for the
   * job. */
  uint8_t rotation_seed[FL_SEED_BYTES];
  /** Table with granularity 0: updates that one sum will hold, at most
   * FL_MAX_SLOTS; 0 = 8. It chooses the granularity and limits nothing. */
  uint32_t workers;
  uint32_t n_table; /**< 2^bits; 0 without a table */
  /** Table: the grid value of every index, strictly increasing, the first 0,
   * the last the granularity. NULL = the one with the least error. Borrowed
   * for the call. */
  const uint8_t *table;
} fl_compressor_options;
FL_API fl_status fl_compressor_options_init(fl_compressor_options *options,
                                            size_t size);

/** Make a compressor for vectors that are `n_segments` runs of
 * `segment_sizes[i]` >= 1 float32, one behind the other (see
 * fl_model_copy_segments). FL_E_OPTIONS, FL_E_DIM, FL_E_NOMEM. */
FL_API fl_status fl_compressor_new(fl_compressor **out, fl_context *context,
                                   const fl_compressor_options *options,
                                   const uint64_t *segment_sizes,
                                   uint32_t n_segments);
FL_API void fl_compressor_free(fl_compressor *compressor);
/** Length of the vectors. */
FL_API uint64_t fl_compressor_dim(const fl_compressor *compressor);
/** Number of norms: THC blocks, or segments for f32 and bf16. */
FL_API uint64_t fl_compressor_norm_count(const fl_compressor *compressor);
/** The clip in use (t_p), solved when the option was 0; 0 for f32 and bf16. */
FL_API float fl_compressor_clip(const fl_compressor *compressor);
/** The largest grid value g; 0 for f32 and bf16. A sum of m updates holds
 * values in 0..m g. */
FL_API uint32_t fl_compressor_granularity(const fl_compressor *compressor);
/** Copy the grid values that the 2^bits indices stand for: 0, 1, 2, ... for
 * uniform and dither. FL_E_ARGUMENT (NULL); FL_E_DIM: n is not 2^bits;
 * FL_E_STATE: f32 and bf16 have none. */
FL_API fl_status fl_compressor_copy_table(const fl_compressor *compressor,
                                          uint8_t *table, uint32_t n);
/** Find the clip (fl_scale.clip) with the least expected error of a mean over
 * `workers` updates (0 counts as 1).
 *
 * @param coherence  |mean|^2 / mean of |x|^2: 1/workers for updates that are
 *   independent of each other, 1 for equal ones. NaN or <= 0 = not known, taken
 *   as independent.
 * @param spread  How far the agreed norms are above the workers' own:
 *   (sum of agreed^2 / mean over workers of sum of
 *   agreed^2 (own / agreed)^10)^(1/10), sums over norms. NaN or <= 1 = 1. The
 *   clip is divided by it, and at least 0.5, the least that fl_scale takes.
 * @return The clip; with a table its values stay. 0 for NULL, f32 and bf16.
 * Thread-safety: reads only.  Determinism: D0. */
FL_API float fl_compressor_best_clip(const fl_compressor *compressor,
                                     uint32_t workers, double coherence,
                                     double spread);
/** Upper bound in bytes of what encode writes. */
FL_API uint64_t fl_compressor_max_update_size(const fl_compressor *compressor);

/** What all participants of a round agree on. Borrowed for each call. */
typedef struct fl_scale {
  uint32_t struct_size;
  uint32_t slots; /**< slots named in the plan, 1..FL_MAX_SLOTS */
  uint64_t round; /**< any number; sums of different rounds never mix */
  /** Cap on the weight (samples) one update may claim, c_ref. An update is
   * scaled by min(1, samples / weight_cap) before it is encoded. 0 = every
   * update counts the same. */
  uint64_t weight_cap;               /**< <= 2^40 */
  uint8_t noise_seed[FL_SEED_BYTES]; /**< new every round */
  /** Agreed norms, fl_compressor_norm_count values, each from
   * fl_norms_merge. Not needed by fl_compressor_measure. */
  const float *norms;
  uint64_t n_norms;
  float clip; /**< 0 = the compressor's */
  /** 0: norms come from an exchange; a worker above them scales itself down.
   * 1: norms were announced beforehand (THC only); coordinates outside are
   * clamped and counted per block, so that the announcer can adapt. */
  uint32_t is_public;
} fl_scale;
FL_API fl_status fl_scale_init(fl_scale *scale, size_t size);

/** Norm of every block of the weighted update, rounded up to the bf16 grid.
 * `samples` is this worker's weight (used when scale->weight_cap > 0; >= 1).
 * FL_E_NOT_FINITE names the coordinate; FL_E_RANGE: a norm above 2^127. */
FL_API fl_status fl_compressor_measure(const fl_compressor *compressor,
                                       const fl_scale *scale, uint64_t samples,
                                       const float *x, uint64_t n, float *norms,
                                       uint64_t n_norms);
/** Elementwise maximum: into[i] = max(into[i], other[i]).
 * FL_E_RANGE: other holds a value off the bf16 grid or outside 0..2^127
 * (`into` unchanged). */
FL_API fl_status fl_norms_merge(float *into, const float *other, uint64_t n);

typedef struct fl_encode_options {
  uint32_t struct_size;
  uint32_t slot;    /**< this worker's, 0..slots-1, unique in the round */
  uint64_t samples; /**< >= 1; default 1 */
  /** One byte per segment, 0 = leave it out; NULL = all. */
  const uint8_t *segments;
  uint32_t n_segments;
  uint32_t reserved;
} fl_encode_options;
FL_API fl_status fl_encode_options_init(fl_encode_options *options,
                                        size_t size);

typedef struct fl_encode_report {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t clamped;  /**< coordinates outside the grid */
  uint64_t rescaled; /**< blocks scaled down to the agreed norm */
  /** Optional, caller's: clamped coordinates of every block (65535 = that or
   * more), `n_block_clamped` must be fl_compressor_norm_count. */
  uint16_t *block_clamped;
  uint64_t n_block_clamped;
} fl_encode_report;
FL_API fl_status fl_encode_report_init(fl_encode_report *report, size_t size);

/** Encode one update. A block whose own norm is above the agreed one is scaled
 * down to it (see fl_scale.is_public). `options` NULL = defaults; `needed` and
 * `report` may be NULL. FL_E_SIZE sets *needed; FL_E_ARGUMENT (NULL, slot,
 * samples); FL_E_DIM (counts); FL_E_RANGE, FL_E_CONFLICT (the scale's values);
 * FL_E_OPTIONS; FL_E_NOMEM; FL_E_NOT_FINITE names the coordinate, and what is
 * in `buffer` and `block_clamped` is then unspecified. */
FL_API fl_status fl_compressor_encode(const fl_compressor *compressor,
                                      const fl_scale *scale,
                                      const fl_encode_options *options,
                                      const float *x, uint64_t n,
                                      uint8_t *buffer, size_t capacity,
                                      size_t *needed, fl_encode_report *report);

/** Decode the weighted mean from a sum (fl_partial_copy_sum) or from a single
 * encoded update. Segments without contributors come out as zeros. Hostile
 * bytes are fine: FL_E_FORMAT, FL_E_TRUNCATED, FL_E_RANGE, FL_E_STALE (other
 * round or scale), FL_E_SCHEMA (other compressor); `out` is unspecified on
 * failure. */
FL_API fl_status fl_compressor_decode(const fl_compressor *compressor,
                                      const fl_scale *scale,
                                      const uint8_t *data, size_t n, float *out,
                                      uint64_t n_out);

/* ---- sums
 * -------------------------------------------------------------------- */

/** Start an empty sum for one round. Compressor and scale are copied or kept
 * by reference count; the caller may free his. FL_E_RANGE, FL_E_DIM,
 * FL_E_CONFLICT: the scale's values. */
FL_API fl_status fl_partial_new(fl_partial **out,
                                const fl_compressor *compressor,
                                const fl_scale *scale);
FL_API void fl_partial_free(fl_partial *partial);
/** Add one encoded update. FL_E_DUPLICATE: its slot is in the sum;
 * FL_E_STALE, FL_E_SCHEMA, FL_E_FORMAT, FL_E_TRUNCATED, FL_E_RANGE. On any
 * failure the sum is as it was. Lanes widen by themselves and never wrap. */
FL_API fl_status fl_partial_add(fl_partial *partial, const uint8_t *data,
                                size_t n);
/** Add many encoded updates at once: the sum is read and written once for all
 * of them, which is what adding costs, and is the same as if they had been
 * added one by one, in any order. A bad update is left out and does not stop
 * the others.
 *
 * With THC's uniform and table modes an update of lane weight w counts as if w
 * workers had sent it: asynchronous servers give a late one less than a fresh
 * one. The mean is then the one weighted by w (and samples, as always).
 *
 * @param data     Encoded updates; not kept after return.
 * @param sizes    Their bytes.
 * @param weights  1..FL_MAX_LANE_WEIGHT of each; NULL: all 1.
 * @param count    How many there are; 0 does nothing.
 * @param results  What became of each; may be NULL. As fl_partial_add, and
 *                 FL_E_ARGUMENT (its data is NULL), FL_E_CONFLICT (a weight
 *                 other than 1 with dither, f32 or bf16), FL_E_RANGE (a weight
 *                 of 0 or above the maximum, or no lane holds the sum: weights
 *                 times granularity stay below 2^30).
 * @return FL_OK, however many updates were bad (fl_last_error tells of the
 *         last one); FL_E_ARGUMENT, FL_E_NOMEM: the sum is as it was, every
 *         result is this status.
 * Ownership: none moves.  Thread-safety: one thread per fl_partial.
 * Determinism: D0. */
FL_API fl_status fl_partial_add_batch(fl_partial *partial,
                                      const uint8_t *const *data,
                                      const size_t *sizes,
                                      const uint32_t *weights, uint32_t count,
                                      fl_status *results);
/** Read slot and samples from an encoded update without adding it, after
 * the same checks of header and length. Any pointer may be NULL. */
FL_API fl_status fl_partial_peek(const fl_partial *partial, const uint8_t *data,
                                 size_t n, uint32_t *slot, uint64_t *samples);
/** Add another sum of the same round. FL_E_DUPLICATE: they share a slot;
 * FL_E_RANGE: no lane holds both. */
FL_API fl_status fl_partial_merge(fl_partial *partial, const fl_partial *other);
/** Add a sum that came as bytes (hostile bytes are fine). */
FL_API fl_status fl_partial_merge_bytes(fl_partial *partial,
                                        const uint8_t *data, size_t n);
/** Add a sum that came as bytes from an edge of a hierarchy, which adds up the
 * updates of the slots first_slot .. first_slot + n_slots - 1 and speaks for
 * nobody else. Hostile bytes are fine. The sum is as it was unless FL_OK:
 * FL_E_CONFLICT: it holds a slot of others (named); FL_E_DUPLICATE: the edge
 * was counted before, or one of its updates came another way; FL_E_STALE:
 * another round or scale; else as fl_partial_merge_bytes. */
FL_API fl_status fl_partial_merge_edge(fl_partial *partial, const uint8_t *data,
                                       size_t n, uint32_t first_slot,
                                       uint32_t n_slots);
/** Number of updates in the sum. */
FL_API uint32_t fl_partial_count(const fl_partial *partial);
/** 1 when the slot's update is in the sum. */
FL_API int32_t fl_partial_has_slot(const fl_partial *partial, uint32_t slot);
/** Sum of lane weights of the updates in it: their number, unless
 * fl_partial_add_batch was given others. */
FL_API uint64_t fl_partial_weight(const fl_partial *partial);
/** Sum of lane weight * min(samples, weight_cap) over the updates in it; of
 * lane weights alone when weight_cap is 0. */
FL_API uint64_t fl_partial_samples(const fl_partial *partial);
/** Write the sum: the message for hierarchies and, with THC, the download.
 * The same updates give the same bytes in whatever order and tree they were
 * added. */
FL_API fl_status fl_partial_copy_sum(const fl_partial *partial, uint8_t *buffer,
                                     size_t capacity, size_t *needed);
/** Decode the weighted mean. FL_E_EMPTY when nothing was added. */
FL_API fl_status fl_partial_decode(const fl_partial *partial, float *out,
                                   uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
