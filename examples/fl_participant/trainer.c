/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The participant's own part: its shard of the images and the library's
 * trainer. The model comes as a description from the aggregator, so its shape
 * is checked against the data before it touches any of it.
 */
#include "fl_participant/trainer.h"

#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/partition.h"

enum { MIN_SAMPLES = 32, DRILL_STEPS = 3 };

int trainer_open(struct trainer *trainer, const struct config *config,
                 fl_cancel *cancel)
{
  char error[SETTING_TEXT_BYTES + 256];
  memset(trainer, 0, sizeof *trainer);
  trainer->cancel = cancel;
  trainer->die_in_round = config->die_in_round;
  if (idx_load(&trainer->data, config->data, "train", error, sizeof error)) {
    warnx("data: %s", error);
    return -1;
  }
  const struct partition partition = {
      .participants = (uint32_t)config->participants,
      .alpha = config->alpha,
      .seed = config->seed,
      .min_samples = MIN_SAMPLES,
  };
  int result = partition_shard(&partition, trainer->data.labels,
                               trainer->data.n, (uint32_t)config->index,
                               &trainer->shard, &trainer->samples);
  if (result == 0) return 0;
  if (result == -1) {
    warnx("participants: got %llu for %u samples, want %d samples for each",
          (unsigned long long)config->participants, trainer->data.n,
          MIN_SAMPLES);
  } else {
    warnx("out of memory");
  }
  return -1;
}

void trainer_close(struct trainer *trainer)
{
  freezing_close(&trainer->freezing);
  fl_model_free(trainer->model);
  fl_local_free(trainer->local);
  free(trainer->shard);
  idx_free(&trainer->data);
}

fl_status trainer_set_model(struct trainer *trainer, const uint8_t *description,
                            size_t n)
{
  fl_model *model = NULL;
  if (trainer->model) return FL_OK;
  fl_status st = fl_model_from_description(&model, NULL, description, n);
  if (st == FL_OK) st = fl_model_self_test(model);
  if (st != FL_OK) {
    warnx("model: %s", fl_last_error());
    fl_model_free(model);
    return st;
  }
  if (fl_model_input_count(model) != trainer->data.sample_size) {
    warnx("model: wants %llu values per sample, the data has %u",
          (unsigned long long)fl_model_input_count(model),
          trainer->data.sample_size);
    fl_model_free(model);
    return FL_E_DIM;
  }
  trainer->model = model;
  return FL_OK;
}

static void shard_as_dataset(const struct trainer *trainer, fl_dataset *data)
{
  *data = trainer->data.data;
  data->indices = trainer->shard;
  data->n_indices = trainer->samples;
}

/* The drill: a power cut in the middle of training. */
static fl_status die(const fl_fit_progress *progress, void *user)
{
  (void)progress;
  (void)user;
  raise(SIGKILL);
  return FL_E_CALLBACK;
}

/* FedProx: its pull to the global weights, if the aggregator asks for it. */
static fl_status follow_prox(struct trainer *trainer, const fl_train_task *task)
{
  fl_status st = FL_OK;
  if (task->prox_mu != trainer->mu) {
    fl_model_set_gradient_hook(trainer->model, NULL, NULL);
    fl_local_free(trainer->local);
    trainer->local = NULL;
    trainer->mu = task->prox_mu;
  }
  if (trainer->mu == 0) return FL_OK;
  if (!trainer->local)
    st = fl_local_new(&trainer->local, NULL, trainer->mu, task->n_weights);
  if (st == FL_OK)
    st = fl_local_begin(trainer->local, task->weights, NULL, task->n_weights);
  if (st != FL_OK) return st;
  return fl_model_set_gradient_hook(trainer->model, fl_local_gradient,
                                    trainer->local);
}

fl_status trainer_train(struct trainer *trainer, const fl_train_task *task,
                        fl_train_result *result)
{
  fl_dataset data;
  fl_fit_options options;
  fl_fit_result fitted;
  shard_as_dataset(trainer, &data);
  fl_fit_options_init(&options, sizeof options);
  fl_fit_result_init(&fitted, sizeof fitted);
  options.epochs = task->epochs;
  options.batch_size = task->batch_size;
  options.learning_rate = task->learning_rate;
  options.seed = task->seed;
  options.cancel = trainer->cancel;
  if (trainer->die_in_round != 0 && task->round == trainer->die_in_round) {
    options.progress = die;
    options.progress_every = DRILL_STEPS;
  }
  fl_status st = fl_model_set_weights(trainer->model, NULL, task->weights,
                                      task->n_weights);
  if (st == FL_OK) st = follow_prox(trainer, task);
  if (st == FL_OK)
    st = freezing_begin(&trainer->freezing, trainer->model, task,
                        trainer->samples);
  if (st == FL_OK) st = fl_model_fit(trainer->model, &data, &options, &fitted);
  freezing_end(&trainer->freezing, result);
  float *weights = NULL;
  uint64_t count = 0;
  if (st == FL_OK) st = fl_model_get_weights(trainer->model, &weights, &count);
  if (st != FL_OK) return st;
  result->weights = weights;
  result->n = count;
  result->samples = trainer->samples;
  result->loss = fitted.mean_loss;
  return FL_OK;
}

fl_status trainer_score(struct trainer *trainer, const fl_train_task *task,
                        fl_score *score)
{
  fl_dataset data;
  fl_evaluation evaluation;
  shard_as_dataset(trainer, &data);
  fl_evaluation_init(&evaluation, sizeof evaluation);
  fl_status st = fl_model_set_weights(trainer->model, NULL, task->weights,
                                      task->n_weights);
  if (st == FL_OK) st = fl_model_evaluate(trainer->model, &data, &evaluation);
  if (st != FL_OK) return st;
  score->loss = evaluation.loss;
  score->correct = evaluation.correct;
  score->count = evaluation.count;
  return FL_OK;
}
