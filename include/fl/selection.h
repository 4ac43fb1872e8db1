/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file selection.h
 * Who is asked to train in a round, of those who are there
 * (fl_job_options.selection). Beside a draw: rules that go by what the server
 * knows of clients, which is how many samples they claim, the mean training
 * loss that came with their last update, how long that took, and when it was.
 * What is claimed is bounded where it weighs (docs/design/aggregation.md).
 *
 * Determinism: D0; a round's choice follows from the job's seed, its state and
 * who is there, in order of their ids.
 */
#ifndef FL_SELECTION_H
#define FL_SELECTION_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  FL_SELECT_RANDOM = 1, /**< everybody alike */
  /** Power of choice (Cho, Wang, Joshi 2020): of `candidates` clients drawn by
   * samples those with the largest last losses; unknown ones come first. */
  FL_SELECT_CHOICE = 2,
  /** Oort (Lai et al., OSDI 2021): samples times loss, more for those not seen
   * for long, less for slow ones, beside a share that is new. */
  FL_SELECT_OORT = 3,
  FL_SELECT_HOST = 4 /**< fl_selection_options.choose */
};

/** Those who can be asked, in order of id: arrays of `count` values. */
typedef struct fl_selection_round {
  uint32_t struct_size;
  uint32_t count;
  uint32_t wanted; /**< 1..count - 1 */
  uint32_t attempt;
  uint64_t round;
  const char *const *ids;
  /** As claimed, at most 8 x their median. */
  const uint64_t *samples;
  const float *losses;    /**< of the last update; NaN = not known */
  const float *seconds;   /**< it took, at least; NaN = not known */
  const uint32_t *rounds; /**< when they were last asked; 0 = never */
} fl_selection_round;

typedef struct fl_selection_options {
  uint32_t struct_size;
  uint32_t rule;       /**< FL_SELECT_*; default RANDOM */
  uint32_t candidates; /**< CHOICE: d; 0 (default): twice as many as are asked,
                            at least 20 */
  /** OORT: share of new clients in the first round, from round to round times
   * explore_decay (0 < .. <= 1), but not below explore_least. 0..1; defaults
   * .9, .98, .3. */
  float explore;
  float explore_decay;
  float explore_least;
  /** OORT: utilities count up to this quantile of them; > 0..1, default .9. */
  float clip_quantile;
  /** OORT: a client that takes t > T seconds counts (T / t)^2 of what it would.
   * T is that quantile of what is known; > 0..1, default .3. */
  float pace;
  /** OORT: after every so many rounds `pace` grows by pace_step, if these
   * have brought less utility than as many before; 0 = never. Defaults 20,
   * .05 (0..1). */
  uint32_t pacer;
  float pace_step;
  /** HOST: write `wanted` different numbers below `count` to `chosen`. Anything
   * else, or a status other than FL_OK, aborts the round, which is tried
   * again. */
  fl_status (*choose)(void *user, const fl_selection_round *round,
                      uint32_t *chosen);
  void *user;
} fl_selection_options;
FL_API fl_status fl_selection_options_init(fl_selection_options *options,
                                           size_t size);

#ifdef __cplusplus
}
#endif
#endif
