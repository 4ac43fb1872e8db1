/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file paged.h
 * A model that is larger than the memory for it: a client (fl_client_options.
 * paged) that keeps the model, copies and steps on their way in, and the
 * trained update in the storage of its context, and has half a megabyte of
 * them in memory at a time, and 2 MB in all (memory_budget). What goes over the
 * wire is what any other client sends, and the model is the same, bit for bit.
 * The trainer reads and writes the flat weights tensor by tensor, step by step:
 *
 *   fl_paged_new(&paged, context, &options)
 *   client_options.paged = paged; fl_client_new or fl_client_restore
 *   NEED_TRAIN, or the train callback: for each minibatch and each tensor
 *     fl_paged_read(task.paged, first, n, weights)   as trained so far
 *     ... train ...
 *     fl_paged_write(task.paged, first, n, weights)
 *   fl_client_submit(client, &result)   with samples and loss alone
 *
 * task.weights is NULL, and so are the weights that an evaluator gets, who
 * finds fl_score.paged: both read from here.
 *
 * The storage holds 3 times the model, 4 while a chain of steps comes in: the
 * model, what replaces it, what was trained. The last stays there after the
 * job, too (the saved state may want to send it), until other training takes
 * its place or fl_paged_remove. One handle per name and storage at a time: two
 * are not noticed, and write over each other.
 *
 * Such a client takes no part in jobs with error feedback (ABORTED), in rounds
 * with SCAFFOLD's controls (declined, FL_CLIENT_STALE says why), probes of
 * cohorts (declined) and embeddings by slices (FL_E_CONFLICT).
 *
 * Thread-safety: one call at a time per handle, and a call is one on its
 * client, too. Determinism: D0.
 */
#ifndef FL_PAGED_H
#define FL_PAGED_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_paged fl_paged;

enum { FL_PAGED_NAME_BYTES = 64 };

typedef struct fl_paged_options {
  uint32_t struct_size;
  uint32_t reserved;
  /** What the names of all its blobs begin with, 1..64 bytes of [a-z0-9._-];
   * required. Copied. */
  const char *name;
  /** The most that the client may hold in memory, bytes, all in all. When a
   * model and a codec need more the client aborts (FL_REJECT_TOO_LARGE, or
   * FL_E_LIMIT of fl_client_restore), and the text says how much: about 2 MB,
   * fl_client_options.max_frame_size, twice the chunk size, and 1/400 of the
   * model, with THC 1/30. 0 = no bound, the default. */
  uint64_t memory_budget;
} fl_paged_options;
FL_API fl_status fl_paged_options_init(fl_paged_options *options, size_t size);

/** Make one, for one client at a time. FL_E_OPTIONS: the name, or the context
 * has no storage; FL_E_NOMEM. */
FL_API fl_status fl_paged_new(fl_paged **out, fl_context *context,
                              const fl_paged_options *options);
/** Free it after its client. The blobs stay: they belong to the saved state. */
FL_API void fl_paged_free(fl_paged *paged);
/** Remove all blobs, of an earlier process, too, when no saved state needs them
 * any more: while no client has it (FL_E_STATE). FL_E_IO: some are left, call
 * again. */
FL_API fl_status fl_paged_remove(fl_paged *paged);

/** Weights of the model; 0 while its description is not there. */
FL_API uint64_t fl_paged_weight_count(const fl_paged *paged);
/** Read n weights of the model held; while training is asked for, as they were
 * trained so far: what fl_paged_write took, the model's elsewhere. FL_E_EMPTY:
 * no model is held; FL_E_RANGE; FL_E_IO. */
FL_API fl_status fl_paged_read(fl_paged *paged, uint64_t first, uint64_t n,
                               float *weights);
/** Give n weights as trained so far, in any order and as often as there are
 * steps; those that are never given have not changed. From NEED_TRAIN, or the
 * callback, on, until fl_client_submit, also one that failed (which is called
 * again, or fl_client_decline): else FL_E_STATE. FL_E_RANGE; FL_E_NOT_FINITE:
 * none is taken; FL_E_IO: give them again. */
FL_API fl_status fl_paged_write(fl_paged *paged, uint64_t first, uint64_t n,
                                const float *weights);

#ifdef __cplusplus
}
#endif
#endif
