/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file slices.h
 * One embedding table for many devices: each asks for the rows of its own ids,
 * trains them in a store of its own, and sends back what has changed, a few
 * bits per value. The server adds that up by id, divides by the number of
 * clients that touched the id, and adjusts its store once a round.
 *
 *   server                                  client
 *   fl_slice_server_copy_plan        -->    fl_slice_client_begin
 *   fl_slice_server_answer           <-->   fl_slice_client_request, _take
 *                                           ... training on its store ...
 *   fl_slice_server_add              <--    fl_slice_client_update
 *   fl_slice_server_step
 *
 * Bytes go by any way. With fl_server and fl_client there is nothing to call
 * but fl_server_attach_slices and fl_client_attach_slices: rows come before
 * NEED_TRAIN and go with the update of the dense model.
 *
 * Thread-safety: one call at a time per handle, and a call is one on its store,
 * too. Determinism: plans, answers, updates and sums are functions of the store
 * and of what was given (D0 from the store's bits on); a step does not depend
 * on the order in which updates came.
 */
#ifndef FL_SLICES_H
#define FL_SLICES_H

#include <fl/embedding.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- server -------------------------------------------------------------- */

typedef struct fl_slice_server fl_slice_server;

typedef struct fl_slice_server_options {
  uint32_t struct_size;
  /** What fewer clients have touched in a round is dropped: for privacy, and
   * against made-up ids. 1..65535, default 1. */
  uint32_t min_clients;
  float first_delta;   /**< distance of the grid's points in the first round;
                            later 3/7 of the RMS of what came; default .01 */
  float first_utility; /**< unit of utilities in the first round: 5e5 of it is
                            the most that can be said; default 1e-7 */
  /** Of the store's optimiser: what clients found is the gradient. Default 0:
   * 1 with SGD, so that the rows become the mean, .05 with ROW_ADAGRAD. */
  float rate;
  uint32_t precision;   /**< of values in slices: FL_EMBEDDING_F32 (default) or
                             BF16 */
  uint64_t seed;        /**< of what clients round by chance */
  uint64_t max_ids;     /**< of one client, all tables; default 65536 */
  uint64_t max_sum_ids; /**< of all clients of a round; default 2^20 */
} fl_slice_server_options;
FL_API fl_status fl_slice_server_options_init(fl_slice_server_options *options,
                                              size_t size);

/** Serve the tables that `embedding` has now. FL_E_OPTIONS; FL_E_EMPTY: it has
 * none; FL_E_ENTROPY. `options` NULL = defaults. Ownership: the caller frees
 * it, before the embedding. */
FL_API fl_status fl_slice_server_new(fl_slice_server **out, fl_context *context,
                                     fl_embedding *embedding,
                                     const fl_slice_server_options *options);
FL_API void fl_slice_server_free(fl_slice_server *server);
/** Rounds that were stepped: the layout that plans name. */
FL_API uint64_t fl_slice_server_layout(const fl_slice_server *server);
/** Copy what clients of this round have to know: layout, thresholds, grids;
 * below 4 KiB. (data, capacity, &needed) as everywhere; FL_E_SIZE. */
FL_API fl_status fl_slice_server_copy_plan(const fl_slice_server *server,
                                           uint8_t *data, size_t capacity,
                                           size_t *needed);
/** Append the answer to a request: the live chunks of its ids. The store does
 * not change. FL_E_STALE: of another layout; FL_E_FORMAT, FL_E_TRUNCATED,
 * FL_E_VERSION, FL_E_RANGE, FL_E_NOT_FOUND (table), FL_E_TOO_LARGE: hostile. */
FL_API fl_status fl_slice_server_answer(const fl_slice_server *server,
                                        const uint8_t *request, size_t n,
                                        fl_buffer *answer);
/** Count one client's update: all of it or nothing. FL_E_STALE, FL_E_FORMAT,
 * FL_E_TRUNCATED, FL_E_VERSION, FL_E_RANGE, FL_E_NOT_FOUND, FL_E_TOO_LARGE
 * (more ids than max_ids); FL_E_LIMIT: more than max_sum_ids of all clients, or
 * 65535 updates. That a client is counted once is the caller's part. */
FL_API fl_status fl_slice_server_add(fl_slice_server *server,
                                     const uint8_t *update, size_t n);
/** Forget what was added: the round was given up. */
FL_API void fl_slice_server_drop(fl_slice_server *server);

/** What a round came to. */
typedef struct fl_slice_report {
  uint32_t struct_size;
  uint32_t clients;  /**< updates */
  uint64_t ids;      /**< different ones, all tables */
  uint64_t dropped;  /**< of them: fewer than min_clients had touched them */
  uint64_t clamped;  /**< values beyond the grid, as clients say */
  uint64_t values;   /**< that came */
  uint64_t adjusted; /**< chunks evicted and grown */
} fl_slice_report;
FL_API fl_status fl_slice_report_init(fl_slice_report *report, size_t size);
/** End a round: the rows take their step, the store is adjusted, the grids of
 * the next round are chosen. `report` may be NULL. FL_E_NOMEM: it can be called
 * again; nothing is lost. */
FL_API fl_status fl_slice_server_step(fl_slice_server *server,
                                      fl_slice_report *report);

/** The report of the last step, by whom ever it was taken; zeros before. */
FL_API fl_status fl_slice_server_get_report(const fl_slice_server *server,
                                            fl_slice_report *report);

/** Save what was added, layout and grids. The store is not in it: it is saved
 * by fl_embedding_save, after each step. */
FL_API fl_status fl_slice_server_save(const fl_slice_server *server,
                                      const fl_writer *writer);
/** Go on from there, with the store as it was then. FL_E_STALE: it has taken
 * other steps; FL_E_SCHEMA: other tables; FL_E_FORMAT and the other codes of
 * damaged states. Unchanged on failure. */
FL_API fl_status fl_slice_server_load(fl_slice_server *server,
                                      const fl_reader *reader);

/* ---- client -------------------------------------------------------------- */

typedef struct fl_slice_client fl_slice_client;

typedef struct fl_slice_client_options {
  uint32_t struct_size;
  /** 1: ask for made-up ids, too, up to the next power of two of each table's.
   * They are the same in every round, or what stays would be the own ones.
   * Updates name touched ids all the same. */
  uint32_t has_decoys;
  /** Made-up ids are 0..decoy_range-1; 0, the default, is any 64 bits. Want
   * what real ids look like, and twice as many at least as are asked for. */
  uint64_t decoy_range;
  /** 16 bytes that choose them, to be kept by the host and the same in every
   * session; NULL = from the context's entropy: for one session. */
  const uint8_t *secret;
  uint64_t max_ids; /**< 1..2^24, decoys included; default 65536 */
} fl_slice_client_options;
FL_API fl_status fl_slice_client_options_init(fl_slice_client_options *options,
                                              size_t size);

/** Keep slices in `embedding`, whose tables are of the server's shapes: the
 * device's own store, in its own byte budget, a cache of the server's. With the
 * server's seed an id that nobody has trained begins with the same values here
 * and there. Ownership: the caller frees it, before the embedding. FL_E_STATE:
 * another client has that store. */
FL_API fl_status fl_slice_client_new(fl_slice_client **out, fl_context *context,
                                     fl_embedding *embedding,
                                     const fl_slice_client_options *options);
FL_API void fl_slice_client_free(fl_slice_client *client);
/** Say which ids of a table this device has, in any order, once or more often.
 * From the next round on. FL_E_NOT_FOUND; FL_E_LIMIT: more than max_ids. */
FL_API fl_status fl_slice_client_set_ids(fl_slice_client *client,
                                         uint32_t table, const uint64_t *ids,
                                         uint64_t n);
/** A round begins. FL_E_SCHEMA: the server's tables have other shapes;
 * FL_E_FORMAT and the other codes of hostile bytes. The round before is over,
 * finished or not. */
FL_API fl_status fl_slice_client_begin(fl_slice_client *client,
                                       const uint8_t *plan, size_t n);
/** Append the next request. Give the answer to _take before asking again; until
 * then it is the same one. FL_E_EMPTY: all is there, training may begin. */
FL_API fl_status fl_slice_client_request(fl_slice_client *client,
                                         fl_buffer *request);
/** Take rows into the store. Ids that the server has no row of are dropped from
 * it, and begin anew when they are trained. When the budget is too small, rows
 * of other rounds go, then there are zeros. FL_E_STALE: not the answer that is
 * waited for; FL_E_FORMAT, FL_E_TRUNCATED, FL_E_VERSION, FL_E_RANGE,
 * FL_E_NOT_FINITE. */
FL_API fl_status fl_slice_client_take(fl_slice_client *client,
                                      const uint8_t *answer, size_t n);
/** Append what training has changed since, rounded by chance, `seed` being this
 * client's of this round. It is over then; adjusts of the store in between do
 * no harm. FL_E_STATE: no round, or not all answers are there; FL_E_NOT_FINITE:
 * a row. Unchanged on failure. */
FL_API fl_status fl_slice_client_update(fl_slice_client *client, uint64_t seed,
                                        fl_buffer *update);

typedef struct fl_slice_client_status {
  uint32_t struct_size;
  uint32_t is_ready; /**< all answers are there, training may begin */
  uint64_t layout;
  uint64_t ids;     /**< own ones */
  uint64_t decoys;  /**< asked for beside them */
  uint64_t rows;    /**< that the server had, of own ones, in this round */
  uint64_t no_room; /**< of them, not in the store: its budget is too small */
  uint64_t touched; /**< ids that were trained so far in this round, or in the
                         one that has ended */
  uint64_t clamped; /**< values beyond the grid in the last update */
} fl_slice_client_status;
FL_API fl_status fl_slice_client_status_init(fl_slice_client_status *status,
                                             size_t size);
FL_API fl_status fl_slice_client_get_status(const fl_slice_client *client,
                                            fl_slice_client_status *status);
/** A table's threshold of the server's last adjust: chunks below were not worth
 * their bytes. 0: nothing is pruned, or no plan has come. */
FL_API float fl_slice_client_threshold(const fl_slice_client *client,
                                       uint32_t table);

#ifdef __cplusplus
}
#endif
#endif
