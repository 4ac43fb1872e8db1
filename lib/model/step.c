/* SPDX-License-Identifier: Apache-2.0 */
/* One step of training, whole or in its parts. Where nobody wants to see the
 * whole gradient, the update is made on the way back, tensor by tensor;
 * otherwise gradients are gathered first. A step either happens as a whole or
 * leaves the weights as they were: all that can fail comes before the first of
 * them changes. */
#include <fl/train.h>

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "kernels/nn/nn.h"
#include "model/model.h"

void fli_model_set_observer(fl_model *model, const fli_observer *observer)
{
  model->observer = observer ? *observer : (fli_observer){0};
  model->watch = (fli_watch){0};
  model->is_observed = 0;
  /* What was gathered stays. In the middle of a step the plans do, too: they
   * have room for what nobody watches any more. */
  if (!model->is_shown) fli_workspace_drop_plans(model);
}

fl_status fli_model_check_idle(const fl_model *model)
{
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  if (!model->is_shown) return FL_OK;
  return fli_error(FL_E_STATE, "model: is in the middle of a step: a gradient "
                               "hook may read it only");
}

fl_status fl_model_set_gradient_hook(fl_model *model, fl_gradient_fn hook,
                                     void *user)
{
  fl_status st = FL_OK;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  model->hook = hook;
  model->hook_user = user;
  fli_workspace_forget(model);
out:
  return st;
}

fl_status fl_model_set_optimiser(fl_model *model,
                                 const fl_optimiser_options *options)
{
  fl_status st = FL_OK;
  fli_optimiser made;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  FLI_TRY(fli_optimiser_init(&made, model->context, options,
                             model->first_weight,
                             model->n_weights - model->first_weight));
  fli_optimiser_free(&model->optimiser, model->context);
  model->optimiser = made;
  fli_workspace_forget(model);
out:
  return st;
}

fl_status fl_model_get_optimiser(const fl_model *model,
                                 fl_optimiser_options *options)
{
  fli_clear_error();
  if (!model || !options) {
    return fli_error(FL_E_ARGUMENT, "model or options: is NULL");
  }
  return fli_options_store(options, &model->optimiser.options,
                           sizeof model->optimiser.options,
                           "fl_optimiser_options");
}

fl_status fl_model_get_progress(const fl_model *model, uint64_t *updates,
                                float *rate)
{
  fli_clear_error();
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  if (updates) *updates = model->optimiser.updates;
  if (rate) *rate = fli_optimiser_rate(&model->optimiser);
  return FL_OK;
}

fl_status fli_rate_check(float rate)
{
  if (rate == FL_RATE_SCHEDULED) return FL_OK;
  if (isfinite(rate) && rate >= 0.0f) return FL_OK;
  return fli_error(FL_E_ARGUMENT,
                   "learning rate: is %g, want a finite number >= 0, or "
                   "FL_RATE_SCHEDULED",
                   (double)rate);
}

static float rate_of(const fl_model *model, float rate)
{
  return rate < 0.0f ? fli_optimiser_rate(&model->optimiser) : rate;
}

/* What is not trained has no gradient, whatever a hook writes there: tensors
 * of no layer, and frozen modules among others that are not. */
static void clear_untrained(const fl_model *model)
{
  const fli_workspace *w = &model->workspace;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trainable || tensor->is_trained ||
        tensor->offset < model->first_weight) {
      continue;
    }
    memset(w->gradient + (tensor->offset - model->first_weight), 0,
           (size_t)tensor->shape.count * sizeof *w->gradient);
  }
}

/* To the observer, tensor by tensor as on the way back. */
static void show_tensors(const fl_model *model)
{
  const fli_watch *watch = &model->watch;
  const fli_workspace *w = &model->workspace;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trained || tensor->offset < watch->first ||
        tensor->offset - watch->first >= watch->n) {
      continue;
    }
    model->observer.gradient(model->observer.user, tensor->offset,
                             w->gradient +
                                 (tensor->offset - model->first_weight),
                             tensor->shape.count);
  }
}

/* Those who want to see the gradient: the observer as it is, the hook, which
 * may change it. */
static fl_status show_gradient(fl_model *model)
{
  const fli_workspace *w = &model->workspace;
  if (model->watch.n > 0) show_tensors(model);
  if (!model->hook) return FL_OK;
  model->is_shown = 1;
  fl_status st = model->hook(w->gradient, model->values + model->first_weight,
                             w->n_gradient, model->hook_user);
  model->is_shown = 0;
  if (st == FL_OK) return FL_OK;
  return fli_error(st < 0 ? st : FL_E_CALLBACK,
                   "step: ended by the gradient hook");
}

/* Factor for the update: clipping. FL_E_NOT_FINITE. */
static fl_status clip(const fl_model *model, float *factor)
{
  const fli_workspace *w = &model->workspace;
  double limit = (double)model->optimiser.options.clip_norm;
  double norm =
      sqrt(flk_nn()->vector.sum_squares(w->gradient, (size_t)w->n_gradient));
  if (!isfinite(norm)) {
    return fli_error(FL_E_NOT_FINITE, "gradient: is not finite");
  }
  *factor = limit > 0.0 && norm > limit ? (float)(limit / norm) : 1.0f;
  return FL_OK;
}

/* The update with what was gathered, which is spent on any return; rows are
 * updated with the last of the batches, of n samples, or not at all (0). */
static fl_status update_gathered(fl_model *model, size_t n, float rate)
{
  fl_status st = FL_OK;
  fli_workspace *w = &model->workspace;
  float factor = 1.0f;
  float share = 1.0f / (float)w->n_batches;
  w->n_batches = 0;
  if (share != 1.0f) {
    flk_nn()->vector.scale(w->gradient, share, w->gradient,
                           (size_t)w->n_gradient);
  }
  st = show_gradient(model);
  clear_untrained(model);
  if (st != FL_OK) return st;
  FLI_TRY(clip(model, &factor));
  rate = rate_of(model, rate);
  if (n > 0) FLI_TRY(fli_rows_update(model, n, rate));
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (!tensor->is_trained) continue;
    fli_optimiser_apply(&model->optimiser, rate, model->values + tensor->offset,
                        w->gradient + (tensor->offset - model->first_weight),
                        factor, tensor->offset, (size_t)tensor->shape.count);
  }
  model->optimiser.updates++;
out:
  return st;
}

/* Add the batch's gradient to what is gathered. */
static void gather(fl_model *model, const fli_batch *batch)
{
  fli_workspace *w = &model->workspace;
  fli_sink sink = {.values = model->values,
                   .whole = w->gradient,
                   .first = model->first_weight,
                   .keep = w->n_batches > 0 ? 1.0f : 0.0f,
                   .model = model};
  fli_backward(model, batch, &sink);
  w->n_batches++;
}

/* The update with the batch's gradient, on the way back. */
static void update_on_the_way(fl_model *model, const fli_batch *batch,
                              float rate)
{
  fli_sink sink = {.values = model->values,
                   .first = model->first_weight,
                   .rate = rate_of(model, rate),
                   .model = model};
  fli_backward(model, batch, &sink);
  model->optimiser.updates++;
}

/* Let the observer begin an update. It may have changed what is trained, for
 * which there must be room again, as much as there was. */
static fl_status begin_update(fl_model *model, const fli_batch *batch,
                              float rate)
{
  const fli_observer *observer = &model->observer;
  size_t room = model->workspace.plans[1].batch;
  if (model->workspace.n_batches > 0) return FL_OK; /* it has begun */
  model->watch = (fli_watch){0};
  model->watched_loss = 0.0;
  model->is_observed = observer->begin != NULL;
  if (!observer->begin) return FL_OK;
  fl_status st = observer->begin(observer->user, batch, rate_of(model, rate),
                                 &model->watch);
  if (st != FL_OK) return st;
  return fli_workspace_reserve(model, room, 1);
}

static fl_status end_update(fl_model *model, uint32_t n_batches)
{
  const fli_observer *observer = &model->observer;
  int is_observed = model->is_observed; /* from its beginning on */
  model->watch = (fli_watch){0};
  model->is_observed = 0;
  if (!observer->end || !is_observed) return FL_OK;
  return observer->end(observer->user, model->watched_loss / n_batches);
}

fl_status fli_step(fl_model *model, const fli_batch *batch, float rate,
                   double *loss)
{
  fl_status st = FL_OK;
  uint32_t n_batches = 1;
  FLI_TRY(begin_update(model, batch, rate));
  FLI_TRY(fli_rows_check_batches(model, model->optimiser.options.accumulate));
  FLI_TRY(fli_forward(model, batch, 1, loss));
  model->watched_loss += *loss;
  if (fli_model_gathers(model)) {
    gather(model, batch);
    n_batches = model->workspace.n_batches;
    if (n_batches < model->optimiser.options.accumulate) return FL_OK;
    FLI_TRY(update_gathered(model, batch->n, rate));
  } else {
    update_on_the_way(model, batch, rate);
  }
  FLI_TRY(end_update(model, n_batches));
out:
  return st;
}

/* A caller's batch, checked. */
static fl_status load_batch(fl_model *model, const fl_dataset *data,
                            fl_dataset *loaded, fli_batch *batch)
{
  fl_status st = FL_OK;
  uint64_t count = 0;
  FLI_TRY(fli_model_check_idle(model));
  FLI_TRY(fli_dataset_load(model, data, 1, loaded, &count));
  if (count > UINT32_MAX) {
    return fli_error(FL_E_ARGUMENT, "data set: want at most 2^32 - 1 samples");
  }
  *batch = (fli_batch){.data = loaded,
                       .order = loaded->indices,
                       .n = (size_t)count,
                       .is_first = 1};
out:
  return st;
}

fl_status fl_model_step(fl_model *model, const fl_dataset *data,
                        float learning_rate, double *loss)
{
  fl_status st = FL_OK;
  fl_dataset loaded;
  fli_batch batch;
  double mean = 0.0;
  fli_clear_error();
  FLI_TRY(fli_rate_check(learning_rate));
  FLI_TRY(load_batch(model, data, &loaded, &batch));
  FLI_TRY(fli_workspace_reserve(model, batch.n, 1));
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = fli_step(model, &batch, learning_rate, &mean);
  fli_fpguard_leave(&guard);
  if (st == FL_OK && loss) *loss = mean;
out:
  return st;
}

/* With room for a gradient: before the observer is told, who may not be told
 * for nothing, and of what it leaves to be trained. */
static fl_status begin_gathering(fl_model *model, const fli_batch *batch)
{
  model->workspace.wants_gradient = 1;
  fl_status st = fli_workspace_reserve(model, batch->n, 1);
  if (st == FL_OK) st = begin_update(model, batch, FL_RATE_SCHEDULED);
  model->workspace.wants_gradient = 0;
  return st;
}

fl_status fl_model_accumulate(fl_model *model, const fl_dataset *data,
                              double *loss)
{
  fl_status st = FL_OK;
  fl_dataset loaded;
  fli_batch batch;
  double mean = 0.0;
  fli_clear_error();
  FLI_TRY(load_batch(model, data, &loaded, &batch));
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = begin_gathering(model, &batch);
  if (st == FL_OK) st = fli_rows_check_batches(model, 0);
  if (st == FL_OK) st = fli_forward(model, &batch, 1, &mean);
  if (st == FL_OK) {
    model->watched_loss += mean;
    gather(model, &batch);
  }
  fli_fpguard_leave(&guard);
  if (st == FL_OK && loss) *loss = mean;
out:
  return st;
}

fl_status fl_model_get_gradient(fl_model *model, float **gradient,
                                uint64_t *count)
{
  fli_clear_error();
  if (!model || !gradient) {
    return fli_error(FL_E_ARGUMENT, "model or gradient: is NULL");
  }
  if (model->workspace.n_batches == 0) {
    return fli_error(FL_E_STATE, "gradient: none since the last update");
  }
  *gradient = model->workspace.gradient;
  if (count) *count = model->workspace.n_gradient;
  return FL_OK;
}

fl_status fl_model_update(fl_model *model, float learning_rate)
{
  fl_status st = FL_OK;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  FLI_TRY(fli_rate_check(learning_rate));
  if (model->workspace.n_batches == 0) {
    return fli_error(FL_E_STATE, "update: no gradient since the last one");
  }
  fli_fpguard guard;
  uint32_t n_batches = model->workspace.n_batches;
  fli_fpguard_enter(&guard);
  st = update_gathered(model, 0, learning_rate);
  if (st == FL_OK) st = end_update(model, n_batches);
  fli_fpguard_leave(&guard);
out:
  return st;
}
