/* SPDX-License-Identifier: Apache-2.0 */
/* The controller as an observer of a model's training: it sets the first
 * active module and shows itself what it asks for. What cannot be shown, for
 * want of memory or because a module cannot be cut out, is an evaluation less,
 * never a step that fails. */
#include "freeze/attach.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "freeze/freeze.h"

/* ---- what is asked for -------------------------------------------------- */

/* Where the front module's weights lie, looked up when it is another one. */
static void find_front(fli_attachment *a, uint32_t module)
{
  const fl_model *model = a->model;
  uint64_t first = UINT64_MAX;
  uint64_t end = 0;
  if (module == a->front && a->n > 0) return;
  fli_free(a->freeze->context, a->gradient, (size_t)a->n * sizeof *a->gradient);
  a->gradient = NULL;
  a->n = 0;
  a->front = module;
  for (uint32_t i = 0; i < model->n_segments; i++) {
    const fli_segment *segment = &model->segments[i];
    if (segment->module != module) continue;
    if (segment->offset < first) first = segment->offset;
    if (segment->offset + segment->n > end) end = segment->offset + segment->n;
  }
  if (end == 0) return;
  a->first = first;
  a->n = end - first;
}

static void watch_gradient(fli_attachment *a, fli_watch *watch)
{
  a->shown = 0;
  if (!a->gradient && a->n > 0) {
    a->gradient =
        fli_alloc(a->freeze->context, (size_t)a->n, sizeof *a->gradient);
  }
  if (!a->gradient) return;
  watch->first = a->first;
  watch->n = a->n;
}

/* What goes into a module and what comes out. */
static int watch_pair(fli_attachment *a, fli_watch *watch, uint32_t in,
                      uint32_t module)
{
  for (uint32_t i = 0; i < 2; i++) {
    fli_cut cut;
    if (!fli_model_cut(a->model, module + i, &cut) ||
        !fli_taps_add(a, watch, &cut, in + i, a->request.rows)) {
      return 0;
    }
  }
  return 1;
}

static void watch_pairs(fli_attachment *a, fli_watch *watch)
{
  uint32_t wants = a->request.wants;
  /* What is not trained here has nothing to say of whether it has learned. */
  if (a->request.module < a->floor) return;
  if (wants & FL_FREEZE_WANTS_SNAPSHOT && !fli_late_snapshot(a)) return;
  if (!a->late.snapshot ||
      !watch_pair(a, watch, FLI_PAIR_IN, a->request.module)) {
    return;
  }
  if (wants & FL_FREEZE_WANTS_LAST_PAIR) {
    (void)watch_pair(a, watch, FLI_PAIR_LAST_IN, a->request.last);
  }
}

/* The prefix's outputs are to be handed in, or shown to be kept: the first tap.
 */
static void watch_prefix(fli_attachment *a, const fli_batch *batch,
                         fli_watch *watch)
{
  if (!a->cache || a->model->first_active == 0) return;
  fli_kept_begin(a, batch);
  if (!a->cache || !a->is_kept) return;
  watch->loads = fli_taps_add(a, watch, &a->prefix, FLI_NO_ROWS, 0);
}

/* ---- the observer ------------------------------------------------------- */

static int is_as_planned(const fli_attachment *a)
{
  const fl_model *model = a->model;
  uint32_t first = UINT32_MAX; /* with something to train left */
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trainable) continue;
    int is_frozen = tensor->is_frozen || tensor->module < model->first_active;
    if (is_frozen != a->mask[tensor->module]) return 0;
    if (!is_frozen && tensor->module < first) first = tensor->module;
  }
  /* Modules without anything to train may lie before it. */
  return first == model->first_active;
}

/* The model as the plan wants it, whatever has changed: plan, model, or both.
 */
static fl_status set_model(fli_attachment *a)
{
  const fl_freeze *freeze = a->freeze;
  const uint32_t floor = a->floor > freeze->floor ? a->floor : freeze->floor;
  for (uint32_t i = 0; i < freeze->n_modules; i++) {
    a->mask[i] = freeze->state.frozen[i] || i < floor;
  }
  if (is_as_planned(a)) return FL_OK;
  a->is_kept = 0;
  return fl_model_set_frozen(a->model, a->mask, freeze->n_modules);
}

static fl_status observe_begin(void *user, const fli_batch *batch, float rate,
                               fli_watch *watch)
{
  fl_status st = FL_OK;
  fli_attachment *a = user;
  FLI_TRY(fl_freeze_begin_step(a->freeze, rate, &a->request));
  FLI_TRY(set_model(a));
  fli_taps_clear(a);
  find_front(a, a->request.module);
  watch_prefix(a, batch, watch);
  if (a->request.wants & FL_FREEZE_WANTS_GRADIENT) watch_gradient(a, watch);
  if (a->request.wants & FL_FREEZE_WANTS_PAIR) watch_pairs(a, watch);
  if (a->request.wants & FL_FREEZE_WANTS_FEATURES) fli_adapters_watch(a, watch);
out:
  return st;
}

static int observe_load(void *user, const fli_batch *batch, float *values)
{
  return fli_kept_load(user, batch, values);
}

static void observe_tap(void *user, uint32_t index, const fli_batch *batch,
                        const float *values)
{
  fli_attachment *a = user;
  if (index == 0 && a->model->watch.loads) fli_kept_store(a, batch, values);
  fli_taps_take(a, index, batch, values);
}

static void observe_gradient(void *user, uint64_t at, const float *gradient,
                             uint64_t n)
{
  fli_attachment *a = user;
  memcpy(a->gradient + (at - a->first), gradient, (size_t)n * sizeof *gradient);
  a->shown += n;
}

/* Whether what is measured is to be there when the step at hand ends. */
static int is_late_due(const fli_attachment *a)
{
  const uint64_t step = a->request.step;
  return a->request.wants & FL_FREEZE_WANTS_PAIR || step < a->late.step ||
         step - a->late.step >= a->freeze->options.lag;
}

static fl_status observe_end(void *user, double loss)
{
  fli_attachment *a = user;
  uint32_t wants = a->request.wants;
  const int is_late = a->freeze->options.lag > 0;
  if (!a->freeze->is_begun) return FL_OK; /* a plan came meanwhile */
  if (wants & FL_FREEZE_WANTS_GRADIENT && a->shown > 0) {
    (void)fl_freeze_push_gradient(a->freeze, a->request.module, a->gradient,
                                  a->n);
  }
  if (is_late_due(a)) fli_late_settle(a);
  if (wants & FL_FREEZE_WANTS_PAIR && !is_late) {
    fli_late_begin(a);
    fli_late_settle(a);
  }
  if (wants & FL_FREEZE_WANTS_FEATURES) fli_adapters_push(a);
  fl_status st = fl_freeze_end_step(a->freeze, loss);
  if (st == FL_OK && wants & FL_FREEZE_WANTS_PAIR && is_late) {
    fli_late_begin(a);
  }
  fli_taps_clear(a);
  return st;
}

static void free_attachment(fli_attachment *a)
{
  fl_context *context = a->freeze->context;
  fli_late_settle(a);
  a->freeze->attachment = NULL;
  fli_freeze_drop_step(a->freeze);
  fli_freeze_drop_snapshot(a->freeze); /* it was the attachment's */
  fli_free(context, a->gradient, (size_t)a->n * sizeof *a->gradient);
  fli_free(context, a->ids, a->n_ids * sizeof *a->ids);
  fli_taps_free(a);
  fli_free(context, a->mask, a->freeze->n_modules);
  fli_late_free(a);
  fli_free(context, a, sizeof *a);
}

void fli_detach(fli_attachment *a)
{
  fli_model_set_observer(a->model, NULL);
  free_attachment(a);
}

static void observe_gone(void *user)
{
  free_attachment(user);
}

/* ---- attaching ---------------------------------------------------------- */

static const fl_freeze_attach_options attach_defaults = {
    .struct_size = sizeof(fl_freeze_attach_options),
};

fl_status fl_freeze_attach_options_init(fl_freeze_attach_options *options,
                                        size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &attach_defaults,
                          sizeof attach_defaults);
}

static fl_status check_modules(const fl_freeze *freeze, const fl_model *model)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < model->n_segments; i++) {
    if (model->segments[i].module >= n) n = model->segments[i].module + 1;
  }
  if (n == freeze->n_modules) return FL_OK;
  return fli_error(FL_E_DIM, "freeze: has %u modules, the model has %u",
                   freeze->n_modules, n);
}

static fl_status check(const fl_freeze *freeze, const fl_model *model)
{
  if (!freeze || !model) {
    return fli_error(FL_E_ARGUMENT, "freeze or model: is NULL");
  }
  if (freeze->attachment || model->observer.begin) {
    return fli_error(FL_E_STATE, "freeze: it or the model is attached already");
  }
  if (model->n_chain == 0) {
    return fli_error(FL_E_STATE, "model: has tensors only, no layers");
  }
  if (freeze->is_aggregator) {
    return fli_error(FL_E_UNSUPPORTED, "freeze: an aggregator's, which has "
                                       "rounds for steps");
  }
  return check_modules(freeze, model);
}

/* Modules without a weight to train, and those that this device does not train:
 * the front steps over them. */
static void tell_what_is_empty(fli_attachment *a)
{
  const fl_model *model = a->model;
  memset(a->mask, 1, a->freeze->n_modules);
  for (uint32_t i = 0; i < model->n_segments; i++) {
    const uint32_t module = model->segments[i].module;
    if (module >= a->floor) a->mask[module] = 0;
  }
  fli_freeze_set_empty(a->freeze, a->mask);
}

fl_status fl_freeze_attach(fl_freeze *freeze, fl_model *model,
                           const fl_freeze_attach_options *options)
{
  fl_status st = FL_OK;
  fl_freeze_attach_options full = attach_defaults;
  fli_clear_error();
  FLI_TRY(check(freeze, model));
  FLI_TRY(fli_model_check_idle(model));
  FLI_TRY(fli_options_load(&full, sizeof full, options,
                           "fl_freeze_attach_options"));
  if (full.first_active >= freeze->n_modules) {
    return fli_error(FL_E_RANGE, "freeze: first_active, got %u, want below %u",
                     full.first_active, freeze->n_modules);
  }
  /* Memory is the controller's, whichever is freed first. */
  fli_attachment *a = fli_alloc(freeze->context, 1, sizeof *a);
  if (!a) return fli_nomem(sizeof *a);
  *a = (fli_attachment){.freeze = freeze,
                        .model = model,
                        .front = UINT32_MAX,
                        .told = UINT32_MAX,
                        .floor = full.first_active,
                        .cache = full.cache,
                        .n_samples = full.n_samples,
                        .request = {.struct_size = sizeof a->request}};
  st = fli_taps_init(a);
  a->mask = fli_alloc(freeze->context, freeze->n_modules, 1);
  if (st == FL_OK && !a->mask) st = fli_nomem(freeze->n_modules);
  if (st != FL_OK) {
    free_attachment(a);
    return st;
  }
  tell_what_is_empty(a);
  freeze->attachment = a;
  fli_freeze_drop_snapshot(freeze); /* there is none of this model yet */
  const fli_observer observer = {.user = a,
                                 .begin = observe_begin,
                                 .load = observe_load,
                                 .tap = observe_tap,
                                 .gradient = observe_gradient,
                                 .end = observe_end,
                                 .gone = observe_gone};
  fli_model_set_observer(model, &observer);
out:
  return st;
}

fl_status fl_freeze_detach(fl_freeze *freeze)
{
  fl_status st = FL_OK;
  fli_clear_error();
  if (!freeze) return fli_error(FL_E_ARGUMENT, "freeze: is NULL");
  if (!freeze->attachment) {
    return fli_error(FL_E_STATE, "freeze: is not attached");
  }
  FLI_TRY(fli_model_check_idle(freeze->attachment->model));
  fli_detach(freeze->attachment);
out:
  return st;
}
