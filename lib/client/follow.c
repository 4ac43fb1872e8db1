/* SPDX-License-Identifier: Apache-2.0 */
/* What a task says of freezing, for the controller of a client's trainer. */
#include "client/client.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/options.h"
#include "freeze/freeze.h"

static const uint8_t no_job[FL_HASH_BYTES];

/* Of what the job wants to know, that which clients measure. */
static uint32_t reports_of(const fl_train_task *task)
{
  const uint32_t wanted = task->freeze_reports;
  if (!task->freeze_plan) return 0;
  return wanted == FL_FREEZE_GRADNORM || wanted == FL_FREEZE_PLASTICITY ? wanted
                                                                        : 0;
}

static uint64_t steps_of(const fl_train_task *task, uint64_t samples)
{
  const uint64_t steps =
      samples / task->batch_size + (samples % task->batch_size != 0);
  return steps > FLI_FREEZE_STEPS_MAX / task->epochs ? FLI_FREEZE_STEPS_MAX
                                                     : steps * task->epochs;
}

static fl_status check(const fl_freeze *freeze, const fl_train_task *task,
                       uint64_t samples)
{
  if (freeze->options.criterion != FL_FREEZE_SERVER) {
    return fli_error(FL_E_STATE, "freeze: criterion, got %u, want SERVER",
                     freeze->options.criterion);
  }
  if (samples == 0 || samples > FLI_FREEZE_STEPS_MAX) {
    return fli_error(FL_E_ARGUMENT,
                     "freeze: samples, got %" PRIu64 ", want 1..2^40", samples);
  }
  if (task->batch_size == 0 || task->epochs == 0) {
    return fli_error(FL_E_ARGUMENT,
                     "task: got %u epochs in batches of %u, want 1 or more",
                     task->epochs, task->batch_size);
  }
  if (task->first_active >= freeze->n_modules) {
    return fli_error(FL_E_RANGE, "task: first_active, got %u, want below %u",
                     task->first_active, freeze->n_modules);
  }
  return FL_OK;
}

fl_status fl_freeze_follow(fl_freeze *freeze, const fl_train_task *task,
                           uint64_t samples)
{
  fl_status st = FL_OK;
  fl_train_task full = {0};
  fli_clear_error();
  if (!freeze || !task) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  FLI_TRY(fli_options_load(&full, sizeof full, task, "fl_train_task"));
  FLI_TRY(check(freeze, &full, samples));
  const fli_orders orders = {
      .plan = full.freeze_plan,
      .plan_size = full.freeze_plan_size,
      .job = full.freeze_plan && full.freeze_job ? full.freeze_job : no_job,
      .reports = reports_of(&full),
      .steps = steps_of(&full, samples),
      .floor = full.first_active,
  };
  st = fli_freeze_follow(freeze, &orders);
out:
  return st;
}
