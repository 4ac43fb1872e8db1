/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fine-tune a transformer with few trained weights, as a participant with a
 * slow uplink would. The base is trained on five of Fashion-MNIST's classes (or
 * comes from a file); then low-rank updates (Hu et al., 2021) or bottleneck
 * adapters (Houlsby et al., 2019) and the last layer learn all ten, with the
 * rest of the weights fixed. At the end the low-rank updates are folded into
 * the weights, and the model without them gives the same answers.
 */
#include <err.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/images.h"
#include "common/progress.h"
#include "common/settings.h"

enum { CLASSES = 10, BASE_CLASSES = 5, ROWS = 28, WIDTH = 64, BLOCKS = 2 };

struct config {
  char data[SETTING_TEXT_BYTES], base[SETTING_TEXT_BYTES];
  char save_base[SETTING_TEXT_BYTES], save[SETTING_TEXT_BYTES];
  uint64_t base_epochs, epochs, batch, rank, width, seed, threads;
  double lr;
  int adapters;
};

struct training {
  const struct config *config;
  struct images images;
  struct progress progress;
  fl_cancel *stop;
  fl_model *base;
  fl_model *adapted;
  fl_model *merged;
};

#define AT(member) offsetof(struct config, member)
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */

static const struct setting table[] = {
    {"data", SETTING_TEXT, AT(data), 0, 0, NULL, "DIR",
     "folder with the IDX files, gzipped or not"},
    {"base", SETTING_TEXT, AT(base), 0, 0, NULL, "FILE",
     "weights of the base (safetensors), instead of training them"},
    {"save-base", SETTING_TEXT, AT(save_base), 0, 0, NULL, "FILE",
     "write them to FILE"},
    {"base-epochs", SETTING_COUNT, AT(base_epochs), 1, 1e6, NULL, "N",
     "times through the samples of the first five classes (2)"},
    {"epochs", SETTING_COUNT, AT(epochs), 1, 1e6, NULL, "N",
     "times through all samples afterwards (1)"},
    {"batch", SETTING_COUNT, AT(batch), 1, 65536, NULL, "N",
     "samples in a step (64)"},
    {"lr", SETTING_REAL, AT(lr), 0, 10, NULL, "X",
     "learning rate of Adam, for both (0.001)"},
    {"rank", SETTING_COUNT, AT(rank), 1, WIDTH, NULL, "N",
     "of the low-rank updates (8)"},
    {"adapters", SETTING_FLAG, AT(adapters), 0, 0, NULL, NULL,
     "bottleneck adapters instead of low-rank updates"},
    {"width", SETTING_COUNT, AT(width), 1, 4096, NULL, "N",
     "of the bottleneck (16)"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "of first weights and of the order of samples (1)"},
    {"threads", SETTING_COUNT, AT(threads), 0, 1024, NULL, "N",
     "threads, 0 = one per CPU (1); the result is the same"},
    {"save", SETTING_TEXT, AT(save), 0, 0, NULL, "FILE",
     "write the weights at the end to FILE; low-rank updates folded in"},
};

static const struct settings settings = {
    .program_doc =
        "Fine-tune a transformer by low-rank updates or adapters."
        "\v"
        "Exit status: 0 done, 1 failure, or SIGINT or SIGTERM came, 2 bad "
        "option.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

/* x + attention(norm(x)), then x + mlp(norm(x)); its input is `x`, and `out`
 * becomes the name of its output. */
static void add_block(fl_model_builder *b, uint64_t number, const char *x,
                      char out[32])
{
  char norm[32], attention[32], sum[32], norm2[32], up[32], relu[32], down[32];
  const struct {
    char *name;
    const char *suffix;
  } names[] = {{norm, "norm1"}, {attention, "attention"},
               {sum, "sum1"},   {norm2, "norm2"},
               {up, "up"},      {relu, "relu"},
               {down, "down"},  {out, "sum2"}};
  char input[32];
  snprintf(input, sizeof input, "%s", x); /* `out` may be the same */
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    snprintf(names[i].name, 32, "block%u.%s", (unsigned)number,
             names[i].suffix);
  fl_model_builder_layer_norm(b, norm, 1e-5f);
  fl_model_builder_attention(b, attention, 4, 0);
  fl_model_builder_add(b, sum, input);
  fl_model_builder_layer_norm(b, norm2, 1e-5f);
  fl_model_builder_dense(b, up, 2 * WIDTH);
  fl_model_builder_relu(b, relu);
  fl_model_builder_dense(b, down, WIDTH);
  fl_model_builder_add(b, out, sum);
}

/* The rows of an image are its tokens. The builder keeps the first error, so
 * that one look at the end will do. */
static fl_model *build_transformer(fl_context *context)
{
  const uint64_t image[2] = {ROWS, ROWS};
  char x[32] = "positions";
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&b, context) != FL_OK) return NULL;
  fl_model_builder_input(b, image, 2, 1 / 255.f / .353f, -.286f / .353f);
  fl_model_builder_dense(b, "tokens", WIDTH);
  fl_model_builder_positions(b, x);
  for (uint64_t i = 0; i < BLOCKS; i++)
    add_block(b, i, x, x);
  fl_model_builder_layer_norm(b, "norm", 1e-5f);
  fl_model_builder_mean(b, "mean");
  fl_model_builder_dense(b, "head", CLASSES);
  fl_model_builder_softmax_cross_entropy(b, "loss");
  fl_model_builder_build(b, &model);
  fl_model_builder_free(b);
  return model;
}

static fl_status on_step(const fl_fit_progress *at, void *user)
{
  struct training *training = user;
  progress_step(&training->progress, at->step, at->loss);
  progress_go_on(&training->progress);
  return FL_OK;
}

/* Train `model` with Adam; the seconds it took in *seconds. */
static fl_status train(struct training *training, fl_model *model,
                       const fl_dataset *data, uint64_t epochs, double *seconds)
{
  const struct config *config = training->config;
  uint64_t n = data->indices ? data->n_indices : data->n;
  uint64_t steps = (n + config->batch - 1) / config->batch * epochs;
  fl_optimiser_options optimiser;
  fl_fit_options options;
  fl_optimiser_options_init(&optimiser, sizeof optimiser);
  optimiser.kind = FL_OPTIMISER_ADAM;
  optimiser.learning_rate = (float)config->lr;
  fl_fit_options_init(&options, sizeof options);
  options.epochs = (uint32_t)epochs;
  options.batch_size = (uint32_t)config->batch;
  options.seed = config->seed;
  options.cancel = training->stop;
  options.progress = on_step;
  options.progress_every = 1;
  options.user = training;
  fl_status st = fl_model_set_optimiser(model, &optimiser);
  if (st != FL_OK) return st;
  progress_begin(&training->progress, 0, steps, config->batch);
  st = fl_model_fit(model, data, &options, NULL);
  *seconds = training->progress.seconds;
  return st;
}

/* `data` with the samples of the base's classes only; indices are malloc'd. */
static int choose(const struct idx_set *set, fl_dataset *data,
                  uint32_t **indices)
{
  uint32_t *chosen = malloc(set->n * sizeof *chosen);
  uint64_t n = 0;
  if (!chosen) return -1;
  for (uint32_t i = 0; i < set->n; i++)
    if (set->labels[i] < BASE_CLASSES) chosen[n++] = i;
  *data = set->data;
  data->indices = *indices = chosen;
  data->n_indices = n;
  return n > 0 ? 0 : -1;
}

/* The base, trained or loaded. */
static fl_status prepare_base(struct training *training, fl_context *context)
{
  const struct config *config = training->config;
  fl_dataset few;
  uint32_t *indices = NULL;
  double share = 0;
  double seconds = 0;
  training->base = build_transformer(context);
  if (!training->base) return FL_E_NOMEM;
  if (config->base[0])
    return weights_load(training->base, config->base) ? FL_E_IO : FL_OK;
  fl_status st = fl_model_init_weights(training->base, config->seed);
  if (choose(&training->images.train, &few, &indices)) st = FL_E_EMPTY;
  if (st == FL_OK)
    st = train(training, training->base, &few, config->base_epochs, &seconds);
  free(indices);
  indices = NULL;
  if (st == FL_OK && choose(&training->images.test, &few, &indices))
    st = FL_E_EMPTY;
  if (st == FL_OK) st = accuracy_of(training->base, &few, &share);
  free(indices);
  if (st != FL_OK) return st;
  progress_line(&training->progress,
                "base: %.2f %% of the first %d classes, %.1f s", 100 * share,
                BASE_CLASSES, seconds);
  if (config->save_base[0] && weights_save(training->base, config->save_base))
    return FL_E_IO;
  return FL_OK;
}

static fl_status adapt(struct training *training)
{
  const struct config *config = training->config;
  if (config->adapters) {
    fl_adapter_options options;
    fl_adapter_options_init(&options, sizeof options);
    options.width = (uint32_t)config->width;
    return fl_model_with_adapters(&training->adapted, training->base, &options,
                                  config->seed);
  }
  fl_lora_options options;
  fl_lora_options_init(&options, sizeof options);
  options.rank = (uint32_t)config->rank;
  return fl_model_with_lora(&training->adapted, training->base, &options,
                            config->seed);
}

static fl_status print_sizes(const struct training *training)
{
  uint64_t all = fl_model_weight_count(training->base);
  uint64_t few = fl_model_weight_count(training->adapted);
  uint64_t of_base = 0;
  uint64_t of_adapted = 0;
  fl_status st = update_size(training->base, &of_base);
  if (st == FL_OK) st = update_size(training->adapted, &of_adapted);
  if (st != FL_OK) return st;
  printf("trained weights: %llu of %llu (%.1f %%)\n", (unsigned long long)few,
         (unsigned long long)all, 100 * (double)few / (double)all);
  printf("bytes of an update: %llu, whole model %llu; with thc %llu, whole "
         "model %llu\n",
         (unsigned long long)(few * sizeof(float)),
         (unsigned long long)(all * sizeof(float)),
         (unsigned long long)of_adapted, (unsigned long long)of_base);
  return FL_OK;
}

/* Train on all classes; accuracy before and after. */
static fl_status learn_all(struct training *training)
{
  const struct images *images = &training->images;
  double before = 0;
  double after = 0;
  double seconds = 0;
  fl_status st = accuracy_of(training->adapted, &images->test.data, &before);
  if (st == FL_OK)
    st = train(training, training->adapted, &images->train.data,
               training->config->epochs, &seconds);
  if (st == FL_OK)
    st = accuracy_of(training->adapted, &images->test.data, &after);
  if (st != FL_OK) return st;
  progress_line(&training->progress,
                "all %d classes: %.2f %% before, %.2f %% after, %.1f s",
                CLASSES, 100 * before, 100 * after, seconds);
  return FL_OK;
}

/* Compare the answers of two models; FL_E_INTERNAL when they are not the same
 * but for rounding. */
static fl_status compare(const struct training *training, fl_model *a,
                         fl_model *b)
{
  const fl_dataset *data = &training->images.test.data;
  uint64_t n = data->n * CLASSES;
  float *of_a = malloc(n * sizeof *of_a);
  float *of_b = malloc(n * sizeof *of_b);
  uint32_t *best = malloc(2 * data->n * sizeof *best);
  uint64_t others = 0;
  double largest = 0;
  fl_status st = of_a && of_b && best ? FL_OK : FL_E_NOMEM;
  if (st == FL_OK) st = fl_model_predict(a, data, of_a, n);
  if (st == FL_OK) st = fl_model_predict(b, data, of_b, n);
  if (st == FL_OK) st = fl_model_predict_top(a, data, 1, best, NULL, data->n);
  if (st == FL_OK)
    st = fl_model_predict_top(b, data, 1, best + data->n, NULL, data->n);
  for (uint64_t i = 0; i < n && st == FL_OK; i++)
    largest = fmax(largest, fabs((double)of_a[i] - (double)of_b[i]));
  for (uint64_t i = 0; i < data->n && st == FL_OK; i++)
    others += best[i] != best[data->n + i];
  if (st == FL_OK)
    printf("merged: %llu of %llu answers differ, scores by %.1e at most\n",
           (unsigned long long)others, (unsigned long long)data->n, largest);
  free(of_a);
  free(of_b);
  free(best);
  return st == FL_OK && largest > 1e-2 ? FL_E_INTERNAL : st;
}

static fl_status run_all(struct training *training, fl_context *context)
{
  const struct config *config = training->config;
  fl_status st = prepare_base(training, context);
  if (st == FL_OK) st = adapt(training);
  if (st == FL_OK) st = print_sizes(training);
  if (st == FL_OK) st = learn_all(training);
  if (st == FL_OK && !config->adapters) {
    st = fl_model_merge_lora(&training->merged, training->adapted);
    if (st == FL_OK)
      st = compare(training, training->adapted, training->merged);
  }
  if (st != FL_OK || !config->save[0]) return st;
  fl_model *last = training->merged ? training->merged : training->adapted;
  return weights_save(last, config->save) ? FL_E_IO : FL_OK;
}

int main(int argc, char **argv)
{
  struct config config = {.data = "/usr/share/datasets/fashion-mnist",
                          .base_epochs = 2,
                          .epochs = 1,
                          .batch = 64,
                          .rank = 8,
                          .width = 16,
                          .seed = 1,
                          .threads = 1,
                          .lr = 1e-3};
  struct training training = {.config = &config};
  if (settings_parse(&settings, argc, argv, &config)) {
    settings_print(&settings, &config);
    return 0;
  }
  fl_host *host = host_open(config.threads, NULL);
  fl_status st = FL_E_STATE;
  training.stop = stop_flag();
  if (host && training.stop && !images_load(&training.images, config.data)) {
    st = run_all(&training, fl_host_context(host));
    if (st != FL_OK) warnx("%s: %s", fl_status_text(st), fl_last_error());
  }
  fl_model_free(training.merged);
  fl_model_free(training.adapted);
  fl_model_free(training.base);
  images_free(&training.images);
  fl_host_free(host);
  return st != FL_OK;
}
