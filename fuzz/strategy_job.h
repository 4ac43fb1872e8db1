/* SPDX-License-Identifier: Apache-2.0 */
/* Small strategies for the target strategy_state and its seeds. */
#ifndef FUZZ_STRATEGY_JOB_H
#define FUZZ_STRATEGY_JOB_H

#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "strategy/strategy.h"

enum { JOB_N = 5, JOB_COUNT = 4, JOB_KINDS = 5 };

/* Of every shape that a state has. */
static inline fl_strategy *job_strategy(uint8_t kind)
{
  static const char *const names[JOB_KINDS] = {"fedavg", "fedavgm", "fedadam",
                                               "scaffold", "median"};
  fl_strategy *strategy = NULL;
  fl_strategy_options options;
  FUZZ_CHECK(fl_strategy_options_named(&options, sizeof options,
                                       names[kind % JOB_KINDS]) == FL_OK);
  if (kind % JOB_KINDS == 4) {
    options.clip = 0.5f;
    options.clip_adapts = 1;
  }
  FUZZ_CHECK(fl_strategy_new(&strategy, NULL, &options, JOB_N) == FL_OK);
  return strategy;
}

static inline fl_status job_step(fl_strategy *strategy, float weights[JOB_N])
{
  static const float updates[JOB_COUNT][JOB_N] = {{1, 2, 3, 4, 5},
                                                  {-1, 0, 1, 0, -1},
                                                  {.5f, .5f, -.5f, 0, 9},
                                                  {0, -3, .25f, 1, 2}};
  const float *rows[JOB_COUNT];
  fl_strategy_round round;
  FUZZ_CHECK(fl_strategy_round_init(&round, sizeof round) == FL_OK);
  for (size_t k = 0; k < JOB_COUNT; k++)
    rows[k] = updates[k];
  round.count = JOB_COUNT;
  round.rows = rows;
  round.control_rows = rows;
  return fl_strategy_step(strategy, &round, weights, JOB_N);
}

#endif
