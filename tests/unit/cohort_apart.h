/* SPDX-License-Identifier: Apache-2.0 */
/* Worlds whose cohorts go on apart. */
#ifndef COHORT_APART_H
#define COHORT_APART_H

#include "server/cohorts.h"

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"

static inline const fli_job *front_of(const cw_world *w)
{
  return w->server->jobs[0];
}

static inline void init(cw_world *w, uint32_t codec, uint32_t n)
{
  cw_init(w, codec, n, 2);
  w->job.cohort_pace = FL_COHORT_APART;
}

/* Run until two cohorts were found to stay. */
static inline void find_two(cw_world *w, uint32_t rounds)
{
  init(w, FL_CODEC_THC, 60);
  w->job.rounds = rounds;
  w->job.participants = 12;
  cw_start(w);
  while (w->changes[FL_COHORT_KEPT] == 0 && !w->is_finished)
    cw_run(w, w->finished + 1);
  cr_assert_eq(w->changes[FL_COHORT_KEPT], 1u);
  cr_assert(!w->is_finished);
}

#endif
