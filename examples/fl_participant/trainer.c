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

#include <zlib.h>

#include "common/partition.h"

enum { MIN_SAMPLES = 32, DRILL_STEPS = 3 };

/* ---- opening ---- */

/* Names the samples, so that a file which is left from other ones is not
 * believed. */
static void name_data(const struct trainer *trainer, uint8_t tag[FL_HASH_BYTES])
{
  const struct idx_set *data = &trainer->data;
  const struct {
    const void *bytes;
    size_t n;
  } parts[2] = {
      {data->data.x, (size_t)data->n * data->sample_size},
      {trainer->shard, trainer->samples * sizeof *trainer->shard},
  };
  memset(tag, 0, FL_HASH_BYTES);
  memcpy(tag, &trainer->samples, sizeof trainer->samples);
  for (size_t i = 0; i < 2; i++) {
    const uint32_t sums[2] = {
        (uint32_t)crc32_z(0, parts[i].bytes, parts[i].n),
        (uint32_t)adler32_z(1, parts[i].bytes, parts[i].n),
    };
    memcpy(tag + 8 + 8 * i, sums, sizeof sums);
  }
}

static int open_cache(struct trainer *trainer, const char *where)
{
  uint8_t tag[FL_HASH_BYTES];
  fl_cache_options options;
  fl_context *context = NULL;
  if (strcmp(where, "none") == 0) return 0;
  trainer->ids = calloc(trainer->data.n, sizeof *trainer->ids);
  if (!trainer->ids) {
    warnx("out of memory");
    return -1;
  }
  for (uint32_t i = 0; i < trainer->samples; i++)
    trainer->ids[trainer->shard[i]] = i;
  fl_cache_options_init(&options, sizeof options);
  name_data(trainer, tag);
  options.data_tag = tag;
  if (strcmp(where, "memory") != 0) {
    if (stored_open(&trainer->cache_file, where) != 0) return -1;
    context = fl_host_context(trainer->cache_file.host);
    options.name = trainer->cache_file.name;
  }
  if (fl_cache_new(&trainer->cache, context, &options) != FL_OK) {
    warnx("cache: %s", fl_last_error());
    return -1;
  }
  trainer->freezing.cache = trainer->cache;
  return 0;
}

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
  if (result == 0) return open_cache(trainer, config->cache);
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
  fl_cache_free(trainer->cache);
  stored_close(&trainer->cache_file);
  free(trainer->ids);
  free(trainer->change);
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
  data->ids = trainer->ids;
}

uint64_t trainer_cache_hits(const struct trainer *trainer)
{
  fl_cache_status status;
  fl_cache_status_init(&status, sizeof status);
  if (trainer->cache) (void)fl_cache_get_status(trainer->cache, &status);
  return status.hits;
}

/* ---- training ---- */

/* The drill: a power cut in the middle of training. */
static fl_status die(const fl_fit_progress *progress, void *user)
{
  (void)progress;
  (void)user;
  raise(SIGKILL);
  return FL_E_CALLBACK;
}

/* FedProx's pull to the global weights and SCAFFOLD's controls, if the
 * aggregator asks for them. */
static fl_status begin_terms(struct trainer *trainer, const fl_train_task *task)
{
  fl_status st = FL_OK;
  if (task->prox_mu != trainer->mu) {
    fl_model_set_gradient_hook(trainer->model, NULL, NULL);
    fl_local_free(trainer->local);
    trainer->local = NULL;
    trainer->mu = task->prox_mu;
  }
  if (trainer->mu == 0 && !task->control) return FL_OK;
  if (!trainer->local)
    st = fl_local_new(&trainer->local, NULL, trainer->mu, task->n_weights);
  if (st == FL_OK)
    st = fl_local_begin(trainer->local, task->weights, task->control,
                        task->n_weights);
  if (st != FL_OK) return st;
  return fl_model_set_gradient_hook(trainer->model, fl_local_gradient,
                                    trainer->local);
}

/* How our control has changed goes with the weights. */
static fl_status end_terms(struct trainer *trainer, const fl_train_task *task,
                           fl_train_result *result)
{
  const uint64_t batches = (trainer->samples - 1) / task->batch_size + 1;
  if (!task->control) return FL_OK;
  if (!trainer->change)
    trainer->change = calloc(task->n_weights, sizeof *trainer->change);
  if (!trainer->change) return FL_E_NOMEM;
  result->control_change = trainer->change;
  return fl_local_end(trainer->local, result->weights, batches * task->epochs,
                      task->learning_rate, trainer->change, result->n);
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
  if (st == FL_OK) st = begin_terms(trainer, task);
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
  return end_terms(trainer, task, result);
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
