/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, its steps, and how what is decided becomes the plan (Wang et al.,
 * "Egeria: Efficient DNN Training with Knowledge-Guided Layer Freezing",
 * EuroSys 2023, section 4). Criteria only say "now"; that the prefix grows by
 * one module, that freezes keep their distance, and that learning rates thaw,
 * is the same for all of them and stands here. */
#include "freeze/freeze.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"

fl_status fli_freeze_state_init(const fl_freeze *freeze,
                                fli_freeze_state *state)
{
  const size_t n = freeze->n_modules;
  memset(state, 0, sizeof *state);
  state->is_booted = !freeze->criterion->has_bootstrapping ||
                     freeze->options.criterion == FL_FREEZE_SERVER;
  state->window = freeze->options.window;
  state->patience = freeze->options.patience;
  state->frozen = fli_alloc(freeze->context, n, 1);
  if (!state->frozen) return fli_nomem(n);
  if (freeze->options.criterion != FL_FREEZE_CKA) return FL_OK;
  state->importance = fli_alloc(freeze->context, n, sizeof *state->importance);
  if (!state->importance) {
    fli_freeze_state_free(freeze, state);
    return fli_nomem(n * sizeof *state->importance);
  }
  return FL_OK;
}

uint32_t fli_freeze_front(const fl_freeze *freeze, uint32_t from)
{
  while (from < freeze->options.max_frozen && freeze->empty[from])
    from++;
  return from;
}

uint32_t fli_freeze_last(const fl_freeze *freeze)
{
  uint32_t last = freeze->n_modules - 2;
  while (last > 0 && freeze->empty[last])
    last--;
  return last;
}

static void drop_gradient(const fl_freeze *freeze, fli_gradient *gradient)
{
  fli_free(freeze->context, gradient->values,
           (size_t)gradient->n * sizeof *gradient->values);
  *gradient = (fli_gradient){NULL, 0};
}

void fli_freeze_state_free(const fl_freeze *freeze, fli_freeze_state *state)
{
  const size_t n = freeze->n_modules;
  fli_free(freeze->context, state->frozen, n);
  fli_free(freeze->context, state->importance, n * sizeof *state->importance);
  drop_gradient(freeze, &state->gradient);
  state->frozen = NULL;
  state->importance = NULL;
}

uint32_t fli_freeze_allow(const fl_freeze *freeze, uint32_t first_active)
{
  const fl_freeze_options *o = &freeze->options;
  uint32_t best = 0;
  if (o->n_allowed == 0) return first_active;
  for (uint32_t i = 0; i < o->n_allowed && o->allowed[i] <= first_active; i++)
    best = o->allowed[i];
  return best;
}

void fli_freeze_drop_snapshot(fl_freeze *freeze)
{
  freeze->has_snapshot = 0;
  freeze->state.waiting.asked &= ~(uint32_t)FL_FREEZE_WANTS_SNAPSHOT;
}

static void drop_seen(fl_freeze *freeze)
{
  freeze->state.is_pair = 0;
  freeze->state.waiting.asked = 0;
  freeze->has_snapshot = 0;
  drop_gradient(freeze, &freeze->state.gradient);
}

void fli_freeze_drop_seen(fl_freeze *freeze)
{
  fli_freeze_drop_step(freeze);
  drop_seen(freeze);
}

void fli_freeze_forget(fl_freeze *freeze)
{
  fli_freeze_state *state = &freeze->state;
  state->below = 0;
  state->n_values = 0;
  state->n_evaluations = 0;
  state->peak = 0;
  drop_seen(freeze);
  fli_freeze_drop_report(state);
}

/* A prefix cut down to what is allowed is not in the mask any more. */
static uint8_t is_frozen(const fli_freeze_state *state, uint32_t first,
                         const uint8_t *mask, uint32_t i)
{
  return i < first || (mask && i >= state->decided && mask[i]);
}

void fli_freeze_set_plan(fl_freeze *freeze, const uint8_t *mask,
                         uint64_t version, uint32_t reason)
{
  fli_freeze_state *state = &freeze->state;
  state->first_active = fli_freeze_allow(freeze, state->decided);
  for (uint32_t i = 0; i < freeze->n_modules; i++)
    state->frozen[i] = is_frozen(state, state->first_active, mask, i);
  state->version = version;
  state->plan_step = state->step;
  state->reason = reason;
  fli_freeze_drop_snapshot(freeze);
  fl_freeze_event *event =
      fli_freeze_emit(freeze, FL_FREEZE_CHANGED, state->step);
  event->module = state->decided;
}

void fli_freeze_publish(fl_freeze *freeze, const uint8_t *mask, uint32_t reason)
{
  fli_freeze_state *state = &freeze->state;
  const uint32_t first = fli_freeze_allow(freeze, state->decided);
  int is_other = first != state->first_active;
  for (uint32_t i = 0; i < freeze->n_modules && !is_other; i++)
    is_other = state->frozen[i] != is_frozen(state, first, mask, i);
  if (is_other) fli_freeze_set_plan(freeze, mask, state->version + 1, reason);
}

static void step_over(fl_freeze *freeze, uint32_t from)
{
  fli_freeze_state *state = &freeze->state;
  const uint32_t criterion = freeze->options.criterion;
  if (criterion == FL_FREEZE_FIXED || criterion == FL_FREEZE_SERVER) return;
  const uint32_t front = fli_freeze_front(freeze, from);
  if (front != state->decided) {
    state->decided = front;
    fli_freeze_forget(freeze);
  }
  /* Later ones show as the next change of the plan. */
  if (state->version > 0) return;
  state->first_active = fli_freeze_allow(freeze, fli_freeze_front(freeze, 0));
  for (uint32_t i = 0; i < freeze->n_modules; i++)
    state->frozen[i] = i < state->first_active;
}

void fli_freeze_step_over(fl_freeze *freeze)
{
  if (memchr(freeze->empty, 1, freeze->n_modules))
    step_over(freeze, freeze->state.decided);
}

void fli_freeze_set_empty(fl_freeze *freeze, const uint8_t *empty)
{
  const fli_freeze_state *state = &freeze->state;
  /* Nothing is frozen but what was empty, which need not be now. */
  const int is_new =
      state->version == 0 && state->decided == fli_freeze_front(freeze, 0);
  for (uint32_t i = 0; i < freeze->n_modules; i++)
    freeze->empty[i] = empty && empty[i];
  step_over(freeze, is_new ? 0 : state->decided);
}

void fli_freeze_consider(fl_freeze *freeze)
{
  fli_freeze_state *state = &freeze->state;
  const fl_freeze_options *o = &freeze->options;
  if (o->criterion == FL_FREEZE_SERVER || state->below < state->patience ||
      state->decided >= o->max_frozen || state->step < o->hold ||
      state->step < state->refreeze_from)
    return;
  if (state->has_frozen && state->step - state->last_freeze < o->gap) return;
  state->decided = fli_freeze_front(freeze, state->decided + 1);
  state->has_frozen = 1;
  state->last_freeze = state->step;
  state->rate_at_freeze = freeze->rate;
  state->lowest_rate = freeze->rate;
  fli_freeze_forget(freeze);
}

static void unfreeze(fl_freeze *freeze, uint32_t reason)
{
  fli_freeze_state *state = &freeze->state;
  state->decided = fli_freeze_front(freeze, 0);
  if (reason == FL_FREEZE_REASON_RATE_FELL)
    state->refreeze_from = state->step + freeze->options.steps_per_epoch;
  if (freeze->options.halves_window) {
    state->window = state->window / 2 > 3 ? state->window / 2 : 3;
    state->patience = state->patience / 2 > 1 ? state->patience / 2 : 1;
  }
  fli_freeze_forget(freeze);
}

/* By the number of the step and its learning rate. */
static void decide(fl_freeze *freeze)
{
  fli_freeze_state *state = &freeze->state;
  if (freeze->criterion->begin) {
    freeze->criterion->begin(freeze);
    return;
  }
  if (freeze->options.criterion == FL_FREEZE_SERVER) return;
  uint32_t reason = fli_freeze_unfreeze_reason(freeze, freeze->rate);
  if (reason != 0) {
    unfreeze(freeze, reason);
  } else {
    reason = FL_FREEZE_REASON_CRITERION;
    if (freeze->rate < state->lowest_rate) state->lowest_rate = freeze->rate;
  }
  fli_freeze_publish(freeze, NULL, reason);
}

void fli_freeze_drop_step(fl_freeze *freeze)
{
  freeze->is_begun = 0;
  freeze->is_first = 0;
  freeze->wants = 0;
  freeze->has_change = 0;
  freeze->asked = 0;
  freeze->shown = (fli_pairs){-1, -1};
  for (uint32_t i = 0; freeze->features && i < freeze->n_modules; i++)
    freeze->features[i] = -1;
  drop_gradient(freeze, &freeze->first);
}

static void begin(fl_freeze *freeze)
{
  const fli_criterion *criterion = freeze->criterion;
  fli_freeze_drop_step(freeze);
  decide(freeze);
  /* What is not trained here has nothing to say of whether it has learned. */
  if (freeze->state.is_booted && criterion->wants &&
      freeze->state.decided >= freeze->floor)
    freeze->wants = criterion->wants(freeze);
  freeze->is_first =
      (freeze->wants & FL_FREEZE_WANTS_GRADIENT) && !freeze->state.is_pair;
  if ((freeze->wants & FL_FREEZE_WANTS_PAIR) &&
      (!freeze->has_snapshot ||
       freeze->state.since_snapshot >= freeze->options.refresh))
    freeze->wants |= FL_FREEZE_WANTS_SNAPSHOT;
  freeze->asked = freeze->wants | freeze->state.waiting.asked;
  freeze->is_begun = 1;
}

static void merge_pairs(fli_pairs *into, const fli_pairs *pairs)
{
  if (pairs->front >= 0) into->front = pairs->front;
  if (pairs->last >= 0) into->last = pairs->last;
}

void fli_freeze_show_pairs(fl_freeze *freeze, uint64_t step,
                           const fli_pairs *pairs)
{
  fli_waiting *waiting = &freeze->state.waiting;
  if (step == freeze->state.step) {
    if (freeze->is_begun && (freeze->wants & FL_FREEZE_WANTS_PAIR))
      merge_pairs(&freeze->shown, pairs);
  } else if (waiting->asked != 0 && waiting->step == step) {
    merge_pairs(&waiting->shown, pairs);
  }
}

/* Without a pair there is no sign that the snapshot was made: it stays due. */
static void count_pair(fl_freeze *freeze, uint32_t asked)
{
  uint32_t *since = &freeze->state.since_snapshot;
  const int has_shown = freeze->shown.front >= 0 || freeze->shown.last >= 0;
  if ((asked & FL_FREEZE_WANTS_SNAPSHOT) && has_shown) {
    freeze->has_snapshot = 1;
    *since = 0;
  }
  if (*since < freeze->options.refresh) ++*since;
}

/* What the step that ends has shown waits with what steps before have, until
 * its time has come: `shown` is then all of it, and until then nothing. */
static void gather_pairs(fl_freeze *freeze)
{
  static const uint32_t kinds = FL_FREEZE_WANTS_PAIR |
                                FL_FREEZE_WANTS_LAST_PAIR |
                                FL_FREEZE_WANTS_SNAPSHOT;
  fli_freeze_state *state = &freeze->state;
  fli_waiting *waiting = &state->waiting;
  fli_pairs shown = freeze->shown;
  freeze->shown = (fli_pairs){-1, -1};
  if (freeze->wants & FL_FREEZE_WANTS_PAIR)
    *waiting = (fli_waiting){freeze->wants & kinds, state->step, {-1, -1}};
  if (waiting->asked == 0) return;
  merge_pairs(&waiting->shown, &shown);
  if (state->step < waiting->step + freeze->options.lag) return;
  freeze->shown = waiting->shown;
  count_pair(freeze, waiting->asked);
  waiting->asked = 0;
}

static void end(fl_freeze *freeze, double loss)
{
  fli_freeze_state *state = &freeze->state;
  const fli_criterion *criterion = freeze->criterion;
  const uint64_t step = state->step;
  fli_evaluation evaluation;
  freeze->is_begun = 0;
  gather_pairs(freeze);
  state->step++;
  state->seen_version = state->version;
  state->is_pair = freeze->is_first;
  drop_gradient(freeze, &state->gradient);
  state->gradient = freeze->first;
  freeze->first = (fli_gradient){NULL, 0};
  fli_freeze_boot(freeze, loss);
  if (!criterion->take || !criterion->take(freeze, &evaluation)) return;
  fli_freeze_report_evaluation(freeze, evaluation.raw);
  fli_freeze_emit_evaluation(freeze, &evaluation, step);
  fli_freeze_consider(freeze);
}

static fl_status make(fl_freeze **out, fl_context *context, uint32_t n_modules,
                      const fl_freeze_options *options)
{
  fl_status st = FL_OK;
  fl_freeze *freeze = fli_alloc(context, 1, sizeof *freeze);
  if (!freeze) return fli_nomem(sizeof *freeze);
  freeze->context = fli_context_ref(context);
  freeze->n_modules = n_modules;
  freeze->last_threshold = -1;
  FLI_TRY(fli_freeze_take_options(freeze, options));
  FLI_TRY(fli_freeze_state_init(freeze, &freeze->state));
  freeze->mask = fli_alloc(context, n_modules, 1);
  if (!freeze->mask) FLI_TRY(fli_nomem(n_modules));
  freeze->empty = fli_alloc(context, n_modules, 1);
  if (!freeze->empty) FLI_TRY(fli_nomem(n_modules));
  if (freeze->options.criterion == FL_FREEZE_CKA) {
    const size_t size = n_modules * sizeof *freeze->features;
    freeze->features = fli_alloc(context, size, 1);
    if (!freeze->features) FLI_TRY(fli_nomem(size));
  }
  *out = freeze;
  return FL_OK;
out:
  fl_freeze_free(freeze);
  return st;
}

fl_status fl_freeze_new(fl_freeze **out, fl_context *context,
                        uint32_t n_modules, const fl_freeze_options *options)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  return make(out, context, n_modules, options);
}

void fl_freeze_free(fl_freeze *freeze)
{
  if (!freeze) return;
  fl_context *context = freeze->context;
  if (freeze->attachment) fli_detach(freeze->attachment);
  drop_gradient(freeze, &freeze->first);
  fli_freeze_state_free(freeze, &freeze->state);
  fli_free(context, freeze->mask, freeze->n_modules);
  fli_free(context, freeze->empty, freeze->n_modules);
  fli_free(context, freeze->features,
           freeze->n_modules * sizeof *freeze->features);
  fli_freeze_drop_options(freeze);
  fli_free(context, freeze, sizeof *freeze);
  fli_context_unref(context);
}

fl_status fl_freeze_request_init(fl_freeze_request *request, size_t size)
{
  static const fl_freeze_request defaults = {0};
  return fli_options_init(request, size, &defaults, sizeof defaults);
}

fl_status fl_freeze_begin_step(fl_freeze *freeze, float learning_rate,
                               fl_freeze_request *request)
{
  fli_clear_error();
  if (!freeze || !request) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  if (!isfinite(learning_rate)) {
    return fli_error(FL_E_NOT_FINITE, "freeze: learning rate is not finite");
  }
  if (learning_rate < 0) {
    return fli_error(FL_E_ARGUMENT, "freeze: learning rate, got %g, want >= 0",
                     (double)learning_rate);
  }
  if (freeze->is_aggregator) {
    return fli_error(FL_E_STATE, "freeze: has rounds, not steps");
  }
  fl_freeze_request told = {0};
  /* Before anything happens: the request's size may be wrong. */
  fl_status st = fli_options_store(request, &told, sizeof told, "request");
  if (st != FL_OK) return st;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  freeze->rate = (double)learning_rate;
  begin(freeze);
  fli_fpguard_leave(&guard);
  told.wants = freeze->wants;
  told.first_active = freeze->state.first_active;
  if (told.first_active < freeze->floor) told.first_active = freeze->floor;
  told.has_changed = freeze->state.version != freeze->state.seen_version;
  told.module = freeze->state.decided;
  told.last = fli_freeze_last(freeze);
  told.rows = freeze->options.rows;
  told.step = freeze->state.step;
  return fli_options_store(request, &told, sizeof told, "request");
}

fl_status fl_freeze_end_step(fl_freeze *freeze, double loss)
{
  fli_clear_error();
  if (!freeze) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  if (!freeze->is_begun) {
    return fli_error(FL_E_STATE, "freeze: no step was begun");
  }
  if (!isfinite(loss)) {
    return fli_error(FL_E_NOT_FINITE, "freeze: loss, got %g, want a number",
                     loss);
  }
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  end(freeze, loss);
  fli_fpguard_leave(&guard);
  return FL_OK;
}
