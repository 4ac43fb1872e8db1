/* SPDX-License-Identifier: Apache-2.0 */
/* Fitting: epochs of batches from a data set or from the host's callback, each
 * batch one step (step.c). A fit can be stopped between any two steps and taken
 * up again: the model knows where it was, and what comes next depends on
 * seed, epoch and step alone. */
#include <fl/train.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "base/rng.h"
#include "model/model.h"

/* One fit from its begin to its end. */
typedef struct fit_run {
  fl_model *model;
  fl_dataset data;
  fl_fit_options options;
  fl_batch_fn next; /* NULL: batches of `data` */
  void *next_user;
  uint64_t count; /* samples of an epoch */
  uint64_t steps; /* of the whole fit; 0 = nobody knows */
  uint64_t done;  /* of them, those before this call included */
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
    .learning_rate = FL_RATE_SCHEDULED,
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

static fl_status check_options(const fl_fit_options *options)
{
  if (options->epochs == 0 || options->batch_size == 0 ||
      options->progress_every == 0 || options->shuffle > 1 ||
      options->resume > 1) {
    return fli_error(FL_E_OPTIONS,
                     "fit: epochs, batch_size and progress_every must be >= "
                     "1, shuffle and resume 0 or 1");
  }
  return fli_rate_check(options->learning_rate);
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
               (run->steps > 0 && run->done == run->steps);
  if (!options->progress || !is_due || run->report_steps == 0) return FL_OK;
  fl_fit_progress progress = {
      .struct_size = sizeof progress,
      .epoch = epoch,
      .step = run->done,
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

/* The next batch of the data set; n = 0 at the end of the epoch. */
static void own_batch(const fit_run *run, fli_batch *batch)
{
  uint64_t first = run->model->place.step_in_epoch * run->options.batch_size;
  uint64_t left = first < run->count ? run->count - first : 0;
  *batch = (fli_batch){
      .data = &run->data, .order = run->order, .first = first, .is_lasting = 1};
  batch->n =
      left < run->options.batch_size ? (size_t)left : run->options.batch_size;
  left -= batch->n;
  batch->n_next =
      left < run->options.batch_size ? (size_t)left : run->options.batch_size;
}

/* The next batch of the callback, checked, with room for it. */
static fl_status pulled_batch(fit_run *run, fli_batch *batch)
{
  fl_status st = FL_OK;
  fl_dataset given;
  uint64_t count = 0;
  *batch = (fli_batch){.data = &run->data};
  FLI_TRY(fl_dataset_init(&given, sizeof given));
  st = run->next(&given, run->model->place.epoch,
                 run->model->place.step_in_epoch, run->next_user);
  if (st != FL_OK) {
    return fli_error(st < 0 ? st : FL_E_CALLBACK,
                     "fit: stopped by the callback for batches");
  }
  if (given.n == 0) return FL_OK;
  FLI_TRY(fli_dataset_load(run->model, &given, 1, &run->data, &count));
  if (count > UINT32_MAX) {
    return fli_error(FL_E_ARGUMENT, "data set: want at most 2^32 - 1 samples");
  }
  FLI_TRY(fli_workspace_reserve(run->model, (size_t)count, 1));
  batch->order = run->data.indices;
  batch->n = (size_t)count;
out:
  return st;
}

static fl_status fit_batch(fit_run *run, const fli_batch *batch)
{
  double loss = 0.0;
  /* A callback may have changed what the plan was made for. */
  fl_status st = fli_workspace_reserve(run->model, batch->n, 1);
  if (st != FL_OK) return st;
  st = fli_step(run->model, batch, run->options.learning_rate, &loss);
  if (st != FL_OK) return st;
  run->model->place.step_in_epoch++;
  run->done++;
  run->result.steps++;
  run->result.samples += batch->n;
  run->epoch_loss += loss * (double)batch->n;
  run->epoch_samples += batch->n;
  run->report_loss += loss;
  run->report_steps++;
  return report(run, run->model->place.epoch);
}

static fl_status fit_epoch(fit_run *run)
{
  fl_status st = FL_OK;
  fli_batch batch;
  run->epoch_loss = 0.0;
  run->epoch_samples = 0;
  if (!run->next) set_order(run, run->model->place.epoch);
  for (;;) {
    if (fl_cancel_is_requested(run->options.cancel)) {
      return fli_error(FL_E_CANCELLED, "fit: cancelled by the host");
    }
    if (run->next) {
      FLI_TRY(pulled_batch(run, &batch));
    } else {
      own_batch(run, &batch);
    }
    if (batch.n == 0) break;
    batch.is_first = run->result.steps == 0;
    FLI_TRY(fit_batch(run, &batch));
  }
out:
  return st;
}

static fl_status fit_all(fit_run *run)
{
  fl_status st = FL_OK;
  fli_fit_place *place = &run->model->place;
  fli_fpguard guard;
  int goes_on = place->epoch > 0 || place->step_in_epoch > 0;
  if (run->options.resume && goes_on && place->seed != run->options.seed) {
    return fli_error(
        FL_E_CONFLICT, "fit: resumes one of seed %llu, got seed %llu",
        (unsigned long long)place->seed, (unsigned long long)run->options.seed);
  }
  fli_fpguard_enter(&guard);
  if (!run->options.resume) {
    *place = (fli_fit_place){0};
    run->model->workspace.n_batches = 0; /* gathered on other weights, maybe */
  }
  place->seed = run->options.seed;
  while (place->epoch < run->options.epochs) {
    FLI_TRY(fit_epoch(run));
    place->epoch++;
    place->step_in_epoch = 0;
  }
  *place = (fli_fit_place){.seed = place->seed};
out:
  fli_fpguard_leave(&guard);
  run->result.mean_loss = run->epoch_samples > 0
                              ? run->epoch_loss / (double)run->epoch_samples
                              : 0.0;
  return st;
}

/* Options and result are loaded. */
static fl_status begin_fit(fit_run *run, const fl_fit_options *options,
                           const fl_fit_result *result)
{
  fl_status st = FL_OK;
  FLI_TRY(fli_model_check_idle(run->model));
  FLI_TRY(fli_options_load(&run->options, sizeof run->options, options,
                           "fl_fit_options"));
  FLI_TRY(check_options(&run->options));
  if (result) {
    FLI_TRY(fli_options_load(&run->result, sizeof run->result, result,
                             "fl_fit_result"));
    run->result = (fl_fit_result){0};
  }
out:
  return st;
}

static fl_status end_fit(fit_run *run, fl_status st, fl_fit_result *result)
{
  if (!result || (st != FL_OK && st != FL_E_CANCELLED)) return st;
  fl_status stored = fli_options_store(result, &run->result, sizeof run->result,
                                       "fl_fit_result");
  return st == FL_OK ? stored : st;
}

fl_status fl_model_fit(fl_model *model, const fl_dataset *data,
                       const fl_fit_options *options, fl_fit_result *result)
{
  fl_status st = FL_OK;
  fit_run run = {.model = model, .options = fit_defaults};
  fli_clear_error();
  FLI_TRY(begin_fit(&run, options, result));
  FLI_TRY(fli_dataset_load(model, data, 1, &run.data, &run.count));
  if (run.count > UINT32_MAX) {
    return fli_error(FL_E_ARGUMENT, "data set: want at most 2^32 - 1 samples");
  }
  uint64_t batch = run.options.batch_size;
  uint64_t per_epoch = (run.count + batch - 1) / batch;
  run.steps = per_epoch * run.options.epochs;
  if (run.options.resume) {
    run.done = per_epoch * model->place.epoch + model->place.step_in_epoch;
  }
  run.order = fli_alloc(model->context, (size_t)run.count, sizeof *run.order);
  if (!run.order) return fli_nomem((size_t)run.count * sizeof *run.order);
  st = fli_workspace_reserve(
      model, (size_t)(batch < run.count ? batch : run.count), 1);
  if (st == FL_OK) st = end_fit(&run, fit_all(&run), result);
  fli_free(model->context, run.order, (size_t)run.count * sizeof *run.order);
out:
  return st;
}

fl_status fl_model_fit_pull(fl_model *model, fl_batch_fn next, void *user,
                            const fl_fit_options *options,
                            fl_fit_result *result)
{
  fl_status st = FL_OK;
  fit_run run = {
      .model = model, .options = fit_defaults, .next = next, .next_user = user};
  fli_clear_error();
  if (!model || !next) {
    return fli_error(FL_E_ARGUMENT, "fit: model or callback is NULL");
  }
  if (model->n_chain == 0) {
    return fli_error(FL_E_STATE, "model: has tensors only, no layers");
  }
  FLI_TRY(begin_fit(&run, options, result));
  st = end_fit(&run, fit_all(&run), result);
out:
  return st;
}
