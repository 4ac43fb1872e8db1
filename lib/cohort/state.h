/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of a saved set, shared by state.c and state_load.c. */
#ifndef FLI_COHORT_STATE_H
#define FLI_COHORT_STATE_H

#include "cohort/cohort.h"

enum { FLI_COHORT_STATE_VERSION = 2 };

enum {
  KEY_OPTIONS = 1,
  KEY_RNG = 2,
  KEY_EXPLORATION = 3,
  KEY_EPOCH = 4, /* of the tree */
  KEY_FREE = 5,
  KEY_MEMBERS = 6, /* leaf, other, score, bits, last u32 */
  KEY_IDS = 7,
  KEY_TRIALS = 8,
  KEY_PAIRS = 9,
  KEY_LEAVES = 10,
  KEY_AFFINITIES = 11, /* AUXO: r f64, s f32, times u32 */
  KEY_ASSIGNED = 12,   /* AUXO */
  KEYS_ALWAYS = 10
};

enum {
  LEAF_INDEX = 1,
  LEAF_AGE = 2,
  LEAF_ROUND = 3,
  LEAF_WAIT = 4,
  LEAF_BACK = 5,
  LEAF_SEEDED = 6,
  LEAF_EPOCH = 7, /* AUXO's clock */
  LEAF_HAS_HALVES = 8,
  LEAF_LOSS = 9,
  LEAF_VARIANCE = 10,
  LEAF_AGREEMENT = 11, /* bits, for NaN */
  LEAF_GAP = 12,
  LEAF_VOTES = 13, /* x f32, before + 2 now; oldest first */
  LEAF_ROWS = 14,  /* oldest first */
  LEAF_CENTROIDS = 15,
  LEAF_KEYS_ALWAYS = 14
};

enum {
  MEMBER_BYTES = 8, /* ids too */
  VOTE_BYTES = 5,
  TRIAL_HEAD = 8,
  TRIAL_ENTRY = 6,
  TRIAL_BYTES = TRIAL_HEAD + FLI_COHORT_TRIAL_MOST * TRIAL_ENTRY,
  PAIR_BYTES = 4 + 4 * FLI_COHORT_PAIR,
  AFFINITY_BYTES = 16,
  RESERVE = 1 << 16
};

#endif
