/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Train LeNet-5 (LeCun et al., 1998, with ReLU and maximum pooling) on
 * Fashion-MNIST, and be interrupted as an app is: Ctrl-C stops between two
 * steps, and after kill -9 a second run with --resume goes on at the last
 * checkpoint. Both end with the bits of a run that nothing disturbed.
 */
#include <err.h>
#include <stddef.h>
#include <string.h>

#include "common/images.h"
#include "common/progress.h"
#include "common/settings.h"
#include "common/stored.h"

struct config {
  char data[SETTING_TEXT_BYTES], checkpoint[SETTING_TEXT_BYTES];
  char save[SETTING_TEXT_BYTES];
  uint64_t epochs, batch, seed, threads, checkpoint_every;
  double lr;
  int resume;
};

struct training {
  const struct config *config;
  struct images images;
  fl_model *model;
  struct stored checkpoint; /* when config->checkpoint is set */
  struct progress progress;
  uint64_t per_epoch; /* steps */
};

#define AT(member) offsetof(struct config, member)
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */

static const struct setting table[] = {
    {"data", SETTING_TEXT, AT(data), 0, 0, NULL, "DIR",
     "folder with the IDX files, gzipped or not"},
    {"epochs", SETTING_COUNT, AT(epochs), 1, 1e6, NULL, "N",
     "times through the data (5)"},
    {"batch", SETTING_COUNT, AT(batch), 1, 65536, NULL, "N",
     "samples in a step (32)"},
    {"lr", SETTING_REAL, AT(lr), 0, 10, NULL, "X",
     "learning rate, momentum is .9 (0.02)"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "of the first weights and of the order of samples (1)"},
    {"threads", SETTING_COUNT, AT(threads), 0, 1024, NULL, "N",
     "threads, 0 = one per CPU (1); the result is the same"},
    {"checkpoint", SETTING_TEXT, AT(checkpoint), 0, 0, NULL, "FILE",
     "keep the state of the training in FILE"},
    {"checkpoint-every", SETTING_COUNT, AT(checkpoint_every), 1, 1e9, NULL, "N",
     "steps between two checkpoints (200)"},
    {"resume", SETTING_FLAG, AT(resume), 0, 0, NULL, NULL,
     "go on from the checkpoint, with the same other options; from the begin "
     "when there is none"},
    {"save", SETTING_TEXT, AT(save), 0, 0, NULL, "FILE",
     "write the weights to FILE (safetensors)"},
};

static const struct settings settings = {
    .program_doc =
        "Train LeNet on Fashion-MNIST."
        "\v"
        "Exit status: 0 the training is over, or SIGINT or SIGTERM came and "
        "all files are written, 1 failure, 2 bad option.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

static fl_status conv(fl_model_builder *builder, const char *name,
                      uint32_t filters, uint32_t padding)
{
  fl_conv2d_options options;
  fl_conv2d_options_init(&options, sizeof options);
  options.filters = filters;
  options.height = options.width = 5;
  options.padding = padding;
  return fl_model_builder_conv2d(builder, name, &options);
}

/* The builder keeps the first error, so that one look at the end will do. */
static fl_model *build_lenet(fl_context *context)
{
  const uint64_t image[3] = {1, 28, 28};
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&b, context) != FL_OK) return NULL;
  /* Mean and deviation of the pixels. */
  fl_model_builder_input(b, image, 3, 1 / 255.f / .353f, -.286f / .353f);
  conv(b, "c1", 6, 2);
  fl_model_builder_relu(b, "c1.relu");
  fl_model_builder_pool2d(b, "p1", NULL);
  conv(b, "c2", 16, 0);
  fl_model_builder_relu(b, "c2.relu");
  fl_model_builder_pool2d(b, "p2", NULL);
  fl_model_builder_flatten(b, "flat");
  fl_model_builder_dense(b, "f1", 120);
  fl_model_builder_relu(b, "f1.relu");
  fl_model_builder_dense(b, "f2", 84);
  fl_model_builder_relu(b, "f2.relu");
  fl_model_builder_dense(b, "f3", 10);
  fl_model_builder_softmax_cross_entropy(b, "loss");
  fl_model_builder_build(b, &model);
  fl_model_builder_free(b);
  return model;
}

static fl_status prepare_model(struct training *training, fl_context *context)
{
  fl_optimiser_options optimiser;
  fl_optimiser_options_init(&optimiser, sizeof optimiser);
  optimiser.learning_rate = (float)training->config->lr;
  optimiser.momentum = .9f;
  training->model = build_lenet(context);
  if (!training->model) return FL_E_NOMEM;
  fl_status st = fl_model_init_weights(training->model, training->config->seed);
  if (st != FL_OK) return st;
  return fl_model_set_optimiser(training->model, &optimiser);
}

static fl_status write_checkpoint(const fl_writer *writer, void *model)
{
  return fl_model_save_checkpoint(model, writer);
}

static fl_status read_checkpoint(const fl_reader *reader, void *model)
{
  return fl_model_load_checkpoint(model, reader);
}

static fl_status save_checkpoint(struct training *training)
{
  fl_status st =
      stored_save(&training->checkpoint, write_checkpoint, training->model);
  if (st != FL_OK)
    warnx("%s: %s", training->config->checkpoint, training->checkpoint.error);
  return st;
}

/* 1 when there was a checkpoint, 0 when not, -1 with a line on standard
 * error. */
static int load_checkpoint(struct training *training)
{
  const struct config *config = training->config;
  struct stored *file = &training->checkpoint;
  int is_there = stored_exists(file);
  if (is_there == 0) return 0;
  if (is_there == 1 &&
      stored_load(file, read_checkpoint, training->model) == FL_OK) {
    fl_optimiser_options found;
    fl_optimiser_options_init(&found, sizeof found);
    fl_model_get_optimiser(training->model, &found);
    if (found.learning_rate == (float)config->lr) return 1;
    warnx("%s: --lr: was %g, is %g", config->checkpoint,
          (double)found.learning_rate, config->lr);
    return -1;
  }
  warnx("%s: %s", config->checkpoint, file->error);
  return -1;
}

/* After every step; a failure ends the training. */
static fl_status on_step(const fl_fit_progress *at, void *user)
{
  struct training *training = user;
  const struct config *config = training->config;
  fl_status st = FL_OK;
  progress_step(&training->progress, at->step, at->loss);
  if (at->step % training->per_epoch == 0) {
    double share = 0;
    st = accuracy_of(training->model, &training->images.test.data, &share);
    progress_line(&training->progress,
                  "epoch %u of %llu: loss %.3f, test accuracy %.2f %%, %.0f "
                  "samples/s",
                  at->epoch + 1, (unsigned long long)config->epochs,
                  training->progress.loss, 100 * share,
                  progress_rate(&training->progress));
  }
  int is_due =
      at->step % config->checkpoint_every == 0 || at->step == at->steps;
  if (st == FL_OK && config->checkpoint[0] && is_due)
    st = save_checkpoint(training);
  progress_go_on(&training->progress);
  return st;
}

static fl_status train(struct training *training, fl_cancel *stop,
                       int is_resumed)
{
  const struct config *config = training->config;
  uint64_t done = 0;
  fl_fit_options options;
  fl_fit_options_init(&options, sizeof options);
  options.epochs = (uint32_t)config->epochs;
  options.batch_size = (uint32_t)config->batch;
  options.seed = config->seed;
  options.cancel = stop;
  options.progress = on_step;
  options.progress_every = 1;
  options.user = training;
  options.resume = (uint32_t)is_resumed;
  training->per_epoch =
      (training->images.train.n + config->batch - 1) / config->batch;
  /* One update for each step: the optimiser knows how many there were. */
  fl_model_get_progress(training->model, &done, NULL);
  progress_begin(&training->progress, done,
                 training->per_epoch * config->epochs, config->batch);
  if (is_resumed)
    progress_line(&training->progress, "goes on after step %llu",
                  (unsigned long long)done);
  return fl_model_fit(training->model, &training->images.train.data, &options,
                      NULL);
}

/* Save what there is to save and say how it ended; 0 or 1. */
static int finish(struct training *training, fl_status st)
{
  const struct config *config = training->config;
  struct progress *progress = &training->progress;
  if (st != FL_OK && st != FL_E_CANCELLED) {
    progress_line(progress, "failed after step %llu",
                  (unsigned long long)progress->step);
    warnx("training: %s", fl_last_error());
    return 1;
  }
  if (st == FL_E_CANCELLED) {
    progress_line(progress, "stopped after step %llu",
                  (unsigned long long)progress->step);
    if (config->checkpoint[0] && save_checkpoint(training) != FL_OK) return 1;
  }
  if (config->save[0] && weights_save(training->model, config->save)) return 1;
  return 0;
}

static int run(struct training *training, fl_context *context)
{
  const struct config *config = training->config;
  fl_cancel *stop = stop_flag();
  int is_resumed = 0;
  if (!stop || images_load(&training->images, config->data)) return 1;
  if (prepare_model(training, context) != FL_OK) {
    warnx("model: %s", fl_last_error());
    return 1;
  }
  if (config->checkpoint[0] &&
      stored_open(&training->checkpoint, config->checkpoint))
    return 1;
  if (config->resume) is_resumed = load_checkpoint(training);
  if (is_resumed < 0) return 1;
  return finish(training, train(training, stop, is_resumed));
}

int main(int argc, char **argv)
{
  struct config config = {.data = "/usr/share/datasets/fashion-mnist",
                          .epochs = 5,
                          .batch = 32,
                          .seed = 1,
                          .threads = 1,
                          .checkpoint_every = 200,
                          .lr = .02};
  struct training training = {.config = &config};
  if (settings_parse(&settings, argc, argv, &config)) {
    settings_print(&settings, &config);
    return 0;
  }
  if (config.resume && !config.checkpoint[0]) {
    warnx("--resume: wants --checkpoint");
    return SETTINGS_EXIT_USAGE;
  }
  fl_host *host = host_open(config.threads, NULL);
  int status = host ? run(&training, fl_host_context(host)) : 1;
  fl_model_free(training.model);
  if (training.checkpoint.host) stored_close(&training.checkpoint);
  images_free(&training.images);
  fl_host_free(host);
  return status;
}
