/* SPDX-License-Identifier: Apache-2.0 */
/* One controller for all rounds of a client. What another job wants, or one
 * that was begun afresh, is made aside and taken over when its plan is good:
 * the handle stays, and with it the model that it is attached to. */
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "freeze/attach.h"
#include "freeze/freeze.h"

static int is_for(const fl_freeze *freeze, const fli_orders *orders)
{
  const fl_freeze_options *o = &freeze->options;
  return o->reports == orders->reports && o->steps_per_epoch == orders->steps &&
         memcmp(freeze->job, orders->job, sizeof freeze->job) == 0;
}

static fl_status obey(fl_freeze *freeze, const fli_orders *orders)
{
  if (orders->plan)
    return fl_freeze_apply_plan(freeze, orders->plan, orders->plan_size);
  return freeze->state.version == 0 && freeze->state.first_active == 0
             ? FL_OK
             : FL_E_STALE;
}

static fl_status make(fl_freeze **out, const fl_freeze *freeze,
                      const fli_orders *orders)
{
  const fl_freeze_options *held = &freeze->options;
  fl_freeze_options options;
  fl_status st = fl_freeze_options_init(&options, sizeof options);
  if (st != FL_OK) return st;
  options.criterion = FL_FREEZE_SERVER;
  options.reports = orders->reports;
  options.steps_per_epoch = orders->steps;
  options.job = orders->job;
  options.preset = held->preset;
  options.max_frozen = held->max_frozen;
  options.rows = held->rows;
  options.refresh = held->refresh;
  options.n_allowed = held->n_allowed;
  options.allowed = held->allowed;
  return fl_freeze_new(out, freeze->context, freeze->n_modules, &options);
}

/* `fresh` is left with what is to be freed. What is attached, and events, stay.
 */
static void take_over(fl_freeze *freeze, fl_freeze *fresh)
{
  if (freeze->attachment) fli_late_drop(freeze->attachment);
  fli_freeze_drop_step(freeze);
  fli_freeze_state_free(freeze, &freeze->state);
  fli_freeze_drop_options(freeze);
  freeze->state = fresh->state;
  fresh->state = (fli_freeze_state){0};
  freeze->options = fresh->options;
  freeze->options.job = freeze->job;
  freeze->criterion = fresh->criterion;
  freeze->allowed = fresh->allowed;
  freeze->fixed = NULL;
  fresh->allowed = NULL;
  fresh->options.n_allowed = 0;
  memcpy(freeze->job, fresh->job, sizeof freeze->job);
  memcpy(freeze->options_hash, fresh->options_hash,
         sizeof freeze->options_hash);
  freeze->has_snapshot = 0;
}

fl_status fli_freeze_follow(fl_freeze *freeze, const fli_orders *orders)
{
  fl_status st = FL_E_STALE;
  fl_freeze *fresh = NULL;
  const uint32_t before = freeze->state.first_active;
  if (is_for(freeze, orders)) st = obey(freeze, orders);
  if (st == FL_E_STALE) {
    FLI_TRY(make(&fresh, freeze, orders));
    FLI_TRY(obey(fresh, orders));
    take_over(freeze, fresh);
    if (freeze->state.first_active != before)
      (void)fli_freeze_emit(freeze, FL_FREEZE_CHANGED, 0);
    st = FL_OK;
  }
  FLI_TRY(st);
  freeze->floor = orders->floor;
out:
  fl_freeze_free(fresh);
  return st;
}
