/* SPDX-License-Identifier: Apache-2.0 */
/* A small job under one of the criteria, for freeze_state and its seeds. */
#ifndef FUZZ_FREEZE_JOB_H
#define FUZZ_FREEZE_JOB_H

#include "fuzz.h"

#include <math.h>

#include <fl/freeze.h>

/* 0..5: the criteria with steps, 6 and 7: with rounds. */
enum { JOB_MODULES = 6, JOB_KINDS = 8, JOB_VALUES = 12 };
/* Where a state has the hash of its options: map of 16 or more, key, bin. */
enum { JOB_HASH_AT = 6 };

static inline fl_freeze *job_make(uint8_t choice)
{
  static const fl_freeze_fixed fixed[] = {{2, 1, 0}, {30, 2, 0}};
  const uint32_t kind = choice % JOB_KINDS;
  fl_freeze *freeze = NULL;
  fl_freeze_options o;
  FUZZ_CHECK(fl_freeze_options_init(&o, sizeof o) == FL_OK);
  o.criterion = kind < 6 ? kind + 1 : kind - 5;
  o.total_steps = 100;
  o.window = 3;
  if (kind < 6) {
    o.steps_per_epoch = 16;
    o.is_pretrained = 1;
    o.pretrained_share = .05f;
    o.gap = 1;
    o.patience = 2;
  }
  if (o.criterion == FL_FREEZE_FIXED) {
    o.fixed = fixed;
    o.n_fixed = 2;
  }
  if (o.criterion == FL_FREEZE_SERVER) o.reports = FL_FREEZE_GRADNORM;
  FUZZ_CHECK(fl_freeze_new(&freeze, NULL, JOB_MODULES, &o) == FL_OK);
  return freeze;
}

static inline void job_show(fl_freeze *freeze, const fl_freeze_request *r)
{
  float x[JOB_VALUES];
  for (uint64_t i = 0; i < JOB_VALUES; i++)
    x[i] = (float)((i * 7 + r->step % 16) % 11) / (float)(1 + r->step % 64);
  if (r->wants & FL_FREEZE_WANTS_GRADIENT) {
    const fl_status st =
        fl_freeze_push_gradient(freeze, r->module, x, JOB_VALUES);
    /* A state may hold a gradient of another length. */
    FUZZ_CHECK(st == FL_OK || st == FL_E_DIM);
  }
  if (r->wants & FL_FREEZE_WANTS_PAIR)
    FUZZ_CHECK(fl_freeze_push_pair(freeze, r->module, x, x + 2, 2, 4) == FL_OK);
  if (r->wants & FL_FREEZE_WANTS_LAST_PAIR)
    FUZZ_CHECK(fl_freeze_push_pair(freeze, r->last, x, x + 2, 2, 4) == FL_OK);
  for (uint32_t m = 0; m < JOB_MODULES && (r->wants & FL_FREEZE_WANTS_FEATURES);
       m++)
    FUZZ_CHECK(fl_freeze_push_features(freeze, m, x, 2, x + m, 2, 3) == FL_OK);
}

/* One step, or one round. */
static inline void job_step(fl_freeze *freeze)
{
  fl_freeze_request request;
  fl_freeze_report report;
  fl_freeze_plan plan;
  FUZZ_CHECK(fl_freeze_request_init(&request, sizeof request) == FL_OK);
  if (fl_freeze_begin_step(freeze, .1f, &request) == FL_OK) {
    job_show(freeze, &request);
    FUZZ_CHECK(fl_freeze_end_step(freeze, 1) == FL_OK);
    return;
  }
  FUZZ_CHECK(fl_freeze_plan_init(&plan, sizeof plan) == FL_OK);
  FUZZ_CHECK(fl_freeze_get_plan(freeze, &plan) == FL_OK);
  FUZZ_CHECK(fl_freeze_report_init(&report, sizeof report) == FL_OK);
  report.module = plan.first_active;
  report.value = 1.0 / (double)(1 + plan.version);
  FUZZ_CHECK(fl_freeze_end_round(freeze, NAN, &report, 1) == FL_OK);
}

#endif
