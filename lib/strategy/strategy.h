/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of lib/strategy share. A step goes
 *
 *   updates -> factors (shares.c, distances.c, geometric.c) -> their weighted
 *   sum (combine.c), or one coordinate after the other (order.c)
 *   -> D -> step (optimise.c) -> gate, commit (strategy.c).
 *
 * Until the commit, all that has changed is in fli_pending. */
#ifndef FLI_STRATEGY_H
#define FLI_STRATEGY_H

#include <fl/strategy.h>
#include "kernels/robust.h"
#include "wire/writer.h"

enum {
  FLI_STRATEGY_STATE_VERSION = 1,
  /* Coordinates that are looked at together; a part of what results are, for
   * sums of squares and products go piece by piece. */
  FLI_TILE = 1024,
  /* Updates that are summed together. */
  FLI_GROUP = 64
};

struct fl_strategy {
  fl_context *context;
  fl_strategy_options options; /* no zeros that stand for defaults */
  uint64_t n;
  float *momentum; /* m; NULL unless the optimiser has one */
  float *second;   /* v */
  float *control;  /* SCAFFOLD's c */
  double *factors; /* of the last step; NULL: none */
  uint32_t n_factors;
  uint64_t steps;
  double clip;      /* bound of the next round; 0 = none */
  double gate_loss; /* NaN: not known */
  double length;
  uint32_t count;
  uint32_t clipped;
  uint32_t chosen;
};

/* What a step will have changed. */
typedef struct fli_pending {
  float *step; /* what is to be added to the weights; first D */
  float *momentum, *second, *control;
  double *factors;
  uint32_t count;
  uint32_t clipped;
  uint32_t chosen;
  double clip;
  double gate_loss;
  double length;
} fli_pending;

/* FL_E_OPTIONS, FL_E_CONFLICT. Read a host's struct, fill in defaults. */
fl_status fli_strategy_options_load(fl_strategy_options *local,
                                    const fl_strategy_options *options);

/* Make a step from separate updates, or (round NULL) from a mean; `weights`
 * are those that it will be added to. What is in `pending` is freed by commit
 * or drop, one of which follows, unless this fails. */
fl_status fli_strategy_propose(fl_strategy *strategy,
                               const fl_strategy_round *round,
                               const float *mean, const float *weights,
                               fli_pending *pending);
/* Ask the gate, if there is one. FL_E_LIMIT. */
fl_status fli_strategy_judge(const fl_strategy *strategy, fli_pending *pending,
                             const float *candidate);
/* Cannot fail. */
void fli_strategy_commit(fl_strategy *strategy, fli_pending *pending);
void fli_strategy_drop(const fl_strategy *strategy, fli_pending *pending);

/* State as one msgpack map. */
fl_status fli_strategy_write(const fl_strategy *strategy, fli_bytes *out);
fl_status fli_strategy_read(fl_strategy *strategy, const uint8_t *data,
                            size_t size);

/* ---- updates.c ---- */

/* Pieces of updates: rows[k] has values of update first + k. */
typedef struct fli_updates {
  fl_context *context;
  const fl_strategy_round *round;
  int of_controls;
  int is_unchecked;      /* NaN and infinities pass: sums show them */
  const double *factors; /* where 0, updates are not read; NULL: read all */
  float *buffer;
  const float **rows;
  uint32_t capacity; /* rows at once */
  size_t n_buffer;   /* floats */
} fli_updates;

/* Room for `capacity` rows at once; `has_buffer`: also for the values of those
 * that lie in memory. FL_E_NOMEM. */
fl_status fli_updates_open(fli_updates *updates, fl_context *context,
                           const fl_strategy_round *round, uint32_t capacity,
                           int has_buffer);
void fli_updates_close(fli_updates *updates);
/* n values from `at` on of `count` updates, with a buffer FLI_TILE at most.
 * FL_E_CALLBACK, FL_E_NOT_FINITE. */
fl_status fli_updates_read(fli_updates *updates, uint32_t first, uint32_t count,
                           uint64_t at, uint64_t n);
/* A host's status as ours. */
fl_status fli_host_status(fl_status status, const char *what);
/* FL_E_NOT_FINITE that names `what`. */
fl_status fli_expect_finite(const float *x, uint64_t n, const char *what);

/* ---- rules ---- */

/* FL_E_ARGUMENT, FL_E_EMPTY, FL_E_RANGE. */
fl_status fli_round_check(const fl_strategy *strategy,
                          const fl_strategy_round *round);
/* |D_k|^2 of every update. */
fl_status fli_squares(const fl_strategy *strategy,
                      const fl_strategy_round *round, double *squares);
/* What shorter ones are multiplied with, and where the bound goes. */
void fli_clip_factors(const fl_strategy *strategy, const double *squares,
                      double *clips, fli_pending *pending);
/* Factors of the rules that do not look into the updates; of others their
 * shares. `squares` (after clipping) are FAIR's. */
void fli_shares(const fl_strategy *strategy, const fl_strategy_round *round,
                const double *squares, double *factors);
/* out = sum of factors[k] D_k, or of controls. */
fl_status fli_weighted_sum(const fl_strategy *strategy,
                           const fl_strategy_round *round,
                           const double *factors, int of_controls, float *out);
/* KRUM, MULTI_KRUM: factors. `clips` NULL = ones, here and below. */
fl_status fli_choose_krum(const fl_strategy *strategy,
                          const fl_strategy_round *round, const double *clips,
                          fli_pending *pending);
/* GEOMETRIC_MEDIAN: factors, which begin as the shares. */
fl_status fli_choose_geometric(const fl_strategy *strategy,
                               const fl_strategy_round *round,
                               const double *clips, fli_pending *pending);
/* MEDIAN, TRIMMED_MEAN. */
fl_status fli_combine_order(const fl_strategy *strategy,
                            const fl_strategy_round *round, const double *clips,
                            float *out);
/* pending->step: updates to D. */
fl_status fli_combine(const fl_strategy *strategy,
                      const fl_strategy_round *round, fli_pending *pending);
/* pending->step: D to what is added. */
fl_status fli_optimise(const fl_strategy *strategy, const float *weights,
                       fli_pending *pending);

/* ---- network.c ---- */

/* Sort n <= FLI_NETWORK_MAX rows as far as those of [first, last) are what they
 * are in order, or, with is_set, as a set. */
enum { FLI_NETWORK_MAX = 1024 };
typedef struct fli_network {
  flk_exchange *exchanges;
  size_t n;
  size_t capacity;
} fli_network;
fl_status fli_network_make(fli_network *network, fl_context *context,
                           uint32_t n, uint32_t first, uint32_t last);
void fli_network_free(fli_network *network, fl_context *context);

#endif
