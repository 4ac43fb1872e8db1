/* SPDX-License-Identifier: Apache-2.0 */
/* Training by plain SGD. Without an observer of gradients the update is fused
 * into the way back: the sink of the gradients is the weights themselves,
 * scaled by -rate. A step either happens as a whole or leaves the weights as
 * they were: all that can fail comes before the way back. */
#include "model/model.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/rng.h"

/* One fit from its begin to its end. */
typedef struct fit_run {
  fl_model *model;
  fl_dataset data;
  fl_fit_options options;
  uint64_t count; /* samples of an epoch */
  uint64_t steps; /* of the whole fit */
  uint32_t *order;
  fl_fit_result result;
  double epoch_loss; /* sum over samples */
  uint64_t epoch_samples;
  double report_loss; /* sum over steps since the last report */
  uint64_t report_steps;
} fit_run;

static const fl_fit_options fit_defaults = {
    .struct_size = sizeof(fl_fit_options),
    .epochs = 1,
    .batch_size = 32,
    .shuffle = 1,
    .learning_rate = 0.05f,
    .progress_every = 100,
};

fl_status fl_fit_options_init(fl_fit_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &fit_defaults, sizeof fit_defaults);
}

fl_status fl_fit_result_init(fl_fit_result *result, size_t size)
{
  static const fl_fit_result defaults = {0};
  fli_clear_error();
  return fli_options_init(result, size, &defaults, sizeof defaults);
}

void fli_model_set_observer(fl_model *model, const fli_observer *observer)
{
  model->observer = observer ? *observer : (fli_observer){0};
}

/* The observer's turn with the whole gradient, then the update. */
static fl_status observed_update(fl_model *model, const fli_batch *batch,
                                 float rate)
{
  const fli_observer *observer = &model->observer;
  float *gradient = model->workspace.gradient;
  size_t n = (size_t)model->n_weights;
  memset(gradient, 0, n * sizeof *gradient);
  fli_backward(model, batch, (fli_sink){.target = gradient, .scale = 1.0f});
  for (uint32_t i = 0; i < model->n_segments; i++) {
    const fli_segment *segment = &model->segments[i];
    fl_status st =
        observer->gradient(observer->user, segment->module, segment->offset,
                           gradient + segment->offset, segment->n);
    if (st != FL_OK) return st;
  }
  for (size_t i = 0; i < n; i++) {
    model->values[i] -= rate * gradient[i];
  }
  return FL_OK;
}

/* The workspace has room already. */
static fl_status train_step(fl_model *model, const fli_batch *batch, float rate,
                            double *loss)
{
  fl_status st = FL_OK;
  const fli_observer *observer = &model->observer;
  if (observer->begin) FLI_TRY(observer->begin(observer->user, batch));
  FLI_TRY(fli_forward(model, batch, 1, loss));
  if (observer->gradient) {
    FLI_TRY(observed_update(model, batch, rate));
  } else {
    fli_backward(
        model, batch,
        (fli_sink){.target = model->values, .scale = -rate, .keep = 1.0f});
  }
  if (observer->end) FLI_TRY(observer->end(observer->user, *loss));
out:
  return st;
}

static fl_status check_rate(float rate)
{
  if (isfinite(rate) && rate >= 0.0f) return FL_OK;
  return fli_error(FL_E_ARGUMENT,
                   "learning rate: is %g, want a finite number >= 0",
                   (double)rate);
}

fl_status fl_model_step(fl_model *model, const fl_dataset *data,
                        float learning_rate, double *loss)
{
  fl_status st = FL_OK;
  fl_dataset loaded;
  fli_batch batch = {.data = &loaded};
  uint64_t count = 0;
  double mean = 0.0;
  fli_clear_error();
  FLI_TRY(check_rate(learning_rate));
  FLI_TRY(fli_dataset_load(model, data, 1, &loaded, &count));
  if (count > UINT32_MAX) {
    return fli_error(FL_E_ARGUMENT, "data set: want at most 2^32 - 1 samples");
  }
  batch.order = loaded.indices;
  batch.n = (size_t)count;
  FLI_TRY(fli_workspace_reserve(model, batch.n, 1));
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = train_step(model, &batch, learning_rate, &mean);
  fli_fpguard_leave(&guard);
  if (st == FL_OK && loss) *loss = mean;
out:
  return st;
}

static fl_status check_options(const fl_fit_options *options)
{
  if (options->epochs == 0 || options->batch_size == 0 ||
      options->progress_every == 0 || options->shuffle > 1) {
    return fli_error(FL_E_OPTIONS,
                     "fit: epochs, batch_size and progress_every must be >= "
                     "1, shuffle 0 or 1");
  }
  return check_rate(options->learning_rate);
}

/* The order of an epoch depends on seed and epoch alone, not on the epochs
 * before it. */
static void set_order(fit_run *run, uint32_t epoch)
{
  for (uint64_t i = 0; i < run->count; i++) {
    run->order[i] = run->data.indices ? run->data.indices[i] : (uint32_t)i;
  }
  if (!run->options.shuffle) return;
  fli_rng rng;
  fli_rng_init(&rng, run->options.seed, FLI_RNG_SHUFFLE, epoch, 0);
  fli_rng_shuffle(&rng, run->order, (uint32_t)run->count);
}

static fl_status report(fit_run *run, uint32_t epoch)
{
  const fl_fit_options *options = &run->options;
  int is_due = run->report_steps == options->progress_every ||
               run->result.steps == run->steps;
  if (!options->progress || !is_due || run->report_steps == 0) return FL_OK;
  fl_fit_progress progress = {
      .struct_size = sizeof progress,
      .epoch = epoch,
      .step = run->result.steps,
      .steps = run->steps,
      .loss = run->report_loss / (double)run->report_steps,
  };
  run->report_loss = 0.0;
  run->report_steps = 0;
  fl_status st = options->progress(&progress, options->user);
  if (st == FL_OK) return st;
  return fli_error(st < 0 ? st : FL_E_CALLBACK,
                   "fit: stopped by the progress callback");
}

static fl_status fit_epoch(fit_run *run, uint32_t epoch)
{
  fl_status st = FL_OK;
  run->epoch_loss = 0.0;
  run->epoch_samples = 0;
  set_order(run, epoch);
  for (uint64_t first = 0; first < run->count;) {
    uint64_t left = run->count - first;
    size_t n =
        left < run->options.batch_size ? (size_t)left : run->options.batch_size;
    fli_batch batch = {
        .data = &run->data, .order = run->order, .first = first, .n = n};
    double loss = 0.0;
    if (fl_cancel_is_requested(run->options.cancel)) {
      return fli_error(FL_E_CANCELLED, "fit: cancelled by the host");
    }
    FLI_TRY(train_step(run->model, &batch, run->options.learning_rate, &loss));
    first += n;
    run->result.steps++;
    run->result.samples += n;
    run->epoch_loss += loss * (double)n;
    run->epoch_samples += n;
    run->report_loss += loss;
    run->report_steps++;
    FLI_TRY(report(run, epoch));
  }
out:
  return st;
}

static fl_status fit_all(fit_run *run)
{
  fl_status st = FL_OK;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  for (uint32_t epoch = 0; epoch < run->options.epochs; epoch++) {
    FLI_TRY(fit_epoch(run, epoch));
  }
out:
  fli_fpguard_leave(&guard);
  run->result.mean_loss = run->epoch_samples > 0
                              ? run->epoch_loss / (double)run->epoch_samples
                              : 0.0;
  return st;
}

fl_status fl_model_fit(fl_model *model, const fl_dataset *data,
                       const fl_fit_options *options, fl_fit_result *result)
{
  fl_status st = FL_OK;
  fit_run run = {.model = model, .options = fit_defaults};
  fli_clear_error();
  FLI_TRY(fli_options_load(&run.options, sizeof run.options, options,
                           "fl_fit_options"));
  FLI_TRY(check_options(&run.options));
  if (result) {
    FLI_TRY(fli_options_load(&run.result, sizeof run.result, result,
                             "fl_fit_result"));
    run.result = (fl_fit_result){0};
  }
  FLI_TRY(fli_dataset_load(model, data, 1, &run.data, &run.count));
  if (run.count > UINT32_MAX) {
    return fli_error(FL_E_ARGUMENT, "data set: want at most 2^32 - 1 samples");
  }
  uint64_t batch = run.options.batch_size;
  run.steps = (run.count + batch - 1) / batch * run.options.epochs;
  run.order = fli_alloc(model->context, (size_t)run.count, sizeof *run.order);
  if (!run.order) return fli_nomem((size_t)run.count * sizeof *run.order);
  st = fli_workspace_reserve(
      model, (size_t)(batch < run.count ? batch : run.count), 1);
  if (st == FL_OK) st = fit_all(&run);
  if (result && (st == FL_OK || st == FL_E_CANCELLED)) {
    fl_status stored = fli_options_store(result, &run.result, sizeof run.result,
                                         "fl_fit_result");
    if (st == FL_OK) st = stored;
  }
  fli_free(model->context, run.order, (size_t)run.count * sizeof *run.order);
out:
  return st;
}
