/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A controller of criterion SERVER decides nothing: it follows the plans and
 * says in which steps it wants to see the front module's gradient, which the
 * model's gradient hook has at hand.
 */
#include "fl_participant/freezing.h"

#include <stdlib.h>
#include <string.h>

static fl_status read_segments(struct freezing *freezing)
{
  const uint32_t n = fl_model_segment_count(freezing->model);
  freezing->sizes = calloc(n, sizeof *freezing->sizes);
  freezing->modules = calloc(n, sizeof *freezing->modules);
  if (!freezing->sizes || !freezing->modules) return FL_E_NOMEM;
  freezing->n_segments = n;
  fl_status st = fl_model_copy_segments(freezing->model, freezing->sizes, n);
  if (st != FL_OK) return st;
  return fl_model_copy_segment_modules(freezing->model, freezing->modules, n);
}

static fl_status make_controller(struct freezing *freezing,
                                 const fl_train_task *task, uint32_t samples)
{
  fl_freeze_options options;
  uint32_t last = 0;
  fl_status st = read_segments(freezing);
  if (st != FL_OK) return st;
  for (uint32_t s = 0; s < freezing->n_segments; s++)
    if (freezing->modules[s] > last) last = freezing->modules[s];
  fl_freeze_options_init(&options, sizeof options);
  options.criterion = FL_FREEZE_SERVER;
  options.reports =
      task->freeze_reports == FL_FREEZE_GRADNORM ? FL_FREEZE_GRADNORM : 0;
  options.steps_per_epoch =
      (uint64_t)task->epochs *
      ((samples + task->batch_size - 1) / task->batch_size);
  options.max_frozen = last;
  return fl_freeze_new(&freezing->controller, NULL, last + 1, &options);
}

/* The gradient is that of the last `count` weights. */
static const float *part_of(const struct freezing *freezing,
                            const float *gradient, uint64_t count,
                            uint32_t module, uint64_t *n)
{
  const uint64_t front = fl_model_weight_count(freezing->model) - count;
  uint64_t at = 0;
  for (uint32_t s = 0; s < freezing->n_segments; s++) {
    *n = freezing->sizes[s];
    if (freezing->modules[s] == module && at >= front)
      return gradient + (at - front);
    at += *n;
  }
  return NULL;
}

/* What is not shown is an evaluation less, and no reason to stop training. */
static fl_status show(float *gradient, const float *weights, uint64_t count,
                      void *user)
{
  struct freezing *freezing = user;
  fl_freeze_request request;
  uint64_t n = 0;
  (void)weights;
  fl_freeze_request_init(&request, sizeof request);
  fl_status st = fl_freeze_begin_step(freezing->controller,
                                      freezing->learning_rate, &request);
  if (st != FL_OK) return FL_OK;
  if (request.wants & FL_FREEZE_WANTS_GRADIENT) {
    const float *part = part_of(freezing, gradient, count, request.module, &n);
    if (part)
      (void)fl_freeze_push_gradient(freezing->controller, request.module, part,
                                    n);
  }
  (void)fl_freeze_end_step(freezing->controller, 0.0);
  return FL_OK;
}

fl_status freezing_begin(struct freezing *freezing, fl_model *model,
                         const fl_train_task *task, uint32_t samples)
{
  fl_status st = FL_OK;
  freezing->model = model;
  freezing->learning_rate = task->learning_rate;
  if (fl_model_first_active(model) != task->first_active)
    st = fl_model_set_first_active(model, task->first_active);
  if (st != FL_OK || !task->freeze_plan) return st;
  if (!freezing->controller) st = make_controller(freezing, task, samples);
  if (st == FL_OK)
    st = fl_freeze_apply_plan(freezing->controller, task->freeze_plan,
                              task->freeze_plan_size);
  if (st == FL_OK) st = fl_model_set_gradient_hook(model, show, freezing);
  return st;
}

void freezing_end(struct freezing *freezing, fl_train_result *result)
{
  fl_freeze_report report;
  if (!freezing->controller) return;
  (void)fl_model_set_gradient_hook(freezing->model, NULL, NULL);
  fl_freeze_report_init(&report, sizeof report);
  if (fl_freeze_take_report(freezing->controller, &report) != FL_OK) return;
  result->report_module = report.module;
  result->report_value = report.value;
}

void freezing_close(struct freezing *freezing)
{
  fl_freeze_free(freezing->controller);
  free(freezing->sizes);
  free(freezing->modules);
  memset(freezing, 0, sizeof *freezing);
}
