/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A controller of criterion SERVER decides nothing: it follows the plans and
 * measures the front module while the model is trained, to which it is
 * attached.
 */
#include "fl_participant/freezing.h"

#include <err.h>
#include <stdlib.h>

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

static fl_status open_controller(struct freezing *freezing, fl_model *model,
                                 uint32_t samples)
{
  fl_freeze_options options;
  fl_freeze_attach_options attach;
  uint32_t n_modules = 0;
  fl_status st = count_modules(model, &n_modules);
  if (st != FL_OK) return st;
  fl_freeze_options_init(&options, sizeof options);
  fl_freeze_attach_options_init(&attach, sizeof attach);
  options.criterion = FL_FREEZE_SERVER;
  options.steps_per_epoch = 1; /* until a task says more */
  options.max_frozen = n_modules - 1;
  attach.cache = freezing->cache;
  attach.n_samples = samples;
  st = fl_freeze_new(&freezing->controller, NULL, n_modules, &options);
  return st == FL_OK ? fl_freeze_attach(freezing->controller, model, &attach)
                     : st;
}

fl_status freezing_begin(struct freezing *freezing, fl_model *model,
                         const fl_train_task *task, uint32_t samples)
{
  fl_status st = FL_OK;
  if (freezing->controller || task->freeze_plan) {
    if (!freezing->controller) st = open_controller(freezing, model, samples);
    if (st == FL_OK) st = fl_freeze_follow(freezing->controller, task, samples);
  } else if (fl_model_first_active(model) != task->first_active) {
    st = fl_model_set_first_active(model, task->first_active);
  }
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
