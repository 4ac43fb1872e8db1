/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a saved controller: one msgpack map in a container
 * (wire/container.h). Vectors are little-endian, float64 but for the gradient's
 * float32. */
#ifndef FLI_FREEZE_STATE_KEYS_H
#define FLI_FREEZE_STATE_KEYS_H

enum {
  KEY_OPTIONS = 1, /* hash of what decides */
  KEY_STEP = 2,
  KEY_DECIDED = 3,
  KEY_FIRST_ACTIVE = 4,
  KEY_VERSION = 5,
  KEY_SEEN_VERSION = 6,
  KEY_PLAN_STEP = 7,
  KEY_REASON = 8,
  KEY_FROZEN = 9, /* a byte a module */
  KEY_IS_BOOTED = 10,
  KEY_N_LOSSES = 11,
  KEY_LOSSES = 12, /* first, window, mean before */
  KEY_HAS_FROZEN = 13,
  KEY_RATES = 14, /* at the last freeze, lowest since */
  KEY_LAST_FREEZE = 15,
  KEY_REFREEZE_FROM = 16,
  KEY_WINDOW = 17,
  KEY_PATIENCE = 18,
  KEY_BELOW = 19,
  KEY_N_EVALUATIONS = 20,
  KEY_PEAK = 21, /* one value */
  KEY_VALUES = 22,
  KEY_OTHERS = 23,
  KEY_IS_PAIR = 24,
  KEY_SINCE_SNAPSHOT = 25,
  KEY_N_REPORTED = 26,
  KEY_REPORTED = 27, /* one value */
  KEY_RECENT = 28,
  KEYS_ALWAYS = 28,
  KEY_GRADIENT = 29, /* when one is held */
  KEY_SUMS = 30,     /* CKA: a value a module */
  KEY_COUNTS = 31,   /* CKA: a u64 a module */
  KEY_ASKED = 32,    /* when pairs wait: which of them, */
  KEY_SHOWN = 33     /* P of the front module and the last one; -1 = none */
};

#endif
