/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A controller of criterion SERVER decides nothing: it follows the plans and
 * measures the front module while the model is trained, to which it is
 * attached. It is made anew when plans come that it cannot follow: those of
 * another job, or of one that was begun afresh.
 */
#include "fl_participant/freezing.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

static fl_status count_modules(const fl_model *model, uint32_t *n_modules)
{
  const uint32_t n = fl_model_segment_count(model);
  uint32_t *modules = calloc(n, sizeof *modules);
  if (!modules) return FL_E_NOMEM;
  const fl_status st = fl_model_copy_segment_modules(model, modules, n);
  for (uint32_t s = 0; st == FL_OK && s < n; s++)
    if (modules[s] >= *n_modules) *n_modules = modules[s] + 1;
  free(modules);
  return st;
}

/* Of what the job wants to know, that which we can measure. */
static uint32_t reports_of(const fl_train_task *task)
{
  const uint32_t wanted = task->freeze_reports;
  return wanted == FL_FREEZE_GRADNORM || wanted == FL_FREEZE_PLASTICITY ? wanted
                                                                        : 0;
}

static fl_status make_controller(struct freezing *freezing,
                                 const fl_model *model,
                                 const fl_train_task *task, uint32_t samples)
{
  fl_freeze_options options;
  uint32_t n_modules = 0;
  fl_status st = count_modules(model, &n_modules);
  if (st != FL_OK) return st;
  freezing_close(freezing);
  fl_freeze_options_init(&options, sizeof options);
  options.criterion = FL_FREEZE_SERVER;
  options.reports = reports_of(task);
  options.steps_per_epoch =
      (uint64_t)task->epochs *
      ((samples + task->batch_size - 1) / task->batch_size);
  options.max_frozen = n_modules - 1;
  options.job = task->freeze_job;
  st = fl_freeze_new(&freezing->controller, NULL, n_modules, &options);
  if (st != FL_OK) return st;
  freezing->reports = options.reports;
  if (task->freeze_job)
    memcpy(freezing->job, task->freeze_job, sizeof freezing->job);
  return FL_OK;
}

static int is_for(const struct freezing *freezing, const fl_train_task *task)
{
  return freezing->controller && freezing->reports == reports_of(task) &&
         task->freeze_job &&
         memcmp(freezing->job, task->freeze_job, sizeof freezing->job) == 0;
}

static fl_status follow(struct freezing *freezing, const fl_model *model,
                        const fl_train_task *task, uint32_t samples)
{
  fl_status st = FL_E_CONFLICT;
  if (is_for(freezing, task))
    st = fl_freeze_apply_plan(freezing->controller, task->freeze_plan,
                              task->freeze_plan_size);
  if (st != FL_E_CONFLICT && st != FL_E_STALE) return st;
  st = make_controller(freezing, model, task, samples);
  return st == FL_OK
             ? fl_freeze_apply_plan(freezing->controller, task->freeze_plan,
                                    task->freeze_plan_size)
             : st;
}

/* The model trains what the plan says, seen by the controller; or, as far as
 * this client can afford less, only that, and the front module is not for us
 * to report of. */
static fl_status attach(struct freezing *freezing, fl_model *model,
                        const fl_train_task *task, uint32_t samples)
{
  fl_freeze_plan plan;
  fl_freeze_attach_options options;
  fl_freeze_plan_init(&plan, sizeof plan);
  fl_freeze_attach_options_init(&options, sizeof options);
  options.cache = freezing->cache;
  options.n_samples = samples;
  fl_status st = fl_freeze_get_plan(freezing->controller, &plan);
  const int is_whole = plan.first_active == task->first_active;
  if (st != FL_OK || is_whole == freezing->is_attached) return st;
  st = is_whole ? fl_freeze_attach(freezing->controller, model, &options)
                : fl_freeze_detach(freezing->controller);
  if (st == FL_OK) freezing->is_attached = is_whole;
  return st;
}

fl_status freezing_begin(struct freezing *freezing, fl_model *model,
                         const fl_train_task *task, uint32_t samples)
{
  fl_status st = FL_OK;
  if (!task->freeze_plan)
    freezing_close(freezing);
  else
    st = follow(freezing, model, task, samples);
  if (st == FL_OK && freezing->controller)
    st = attach(freezing, model, task, samples);
  if (st == FL_OK && fl_model_first_active(model) != task->first_active)
    st = fl_model_set_first_active(model, task->first_active);
  return st;
}

void freezing_end(struct freezing *freezing, fl_train_result *result)
{
  fl_freeze_report report;
  fl_freeze_event event;
  if (!freezing->controller) return;
  fl_freeze_report_init(&report, sizeof report);
  fl_freeze_event_init(&event, sizeof event);
  while (fl_freeze_poll(freezing->controller, &event) == FL_OK)
    if (event.kind == FL_FREEZE_CACHE_OFF) warnx("no cache: %s", event.text);
  if (fl_freeze_take_report(freezing->controller, &report) != FL_OK) return;
  result->report_module = report.module;
  result->report_value = report.value;
}

void freezing_close(struct freezing *freezing)
{
  fl_freeze_free(freezing->controller);
  *freezing = (struct freezing){.cache = freezing->cache};
}
