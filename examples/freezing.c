/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fine-tune a network whose first layers stop learning (KGT: Wang et al.,
 * "Egeria", EuroSys 2023). A VGG is trained on five of Fashion-MNIST's classes,
 * or comes from a file, and learns all ten from other images: once as a whole,
 * and once under a controller that freezes modules, with a cache for what comes
 * out of them. Both runs begin with the same weights and see the same batches;
 * what the second one costs is printed beside the first.
 */
#include <err.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/images.h"
#include "common/progress.h"
#include "common/record.h"
#include "common/settings.h"
#include "common/stored.h"

enum { CLASSES = 10, BASE_CLASSES = 5, MODULES = 5, MAX_STAGES = 16 };
/* A status: it failed, and a line on standard error says why. */
enum { SAID = 1 };

struct config {
  char data[SETTING_TEXT_BYTES], base[SETTING_TEXT_BYTES];
  char save_base[SETTING_TEXT_BYTES], record[SETTING_TEXT_BYTES];
  char criterion[SETTING_TEXT_BYTES], preset[SETTING_TEXT_BYTES];
  char schedule[SETTING_TEXT_BYTES], cache[SETTING_TEXT_BYTES];
  char cache_type[SETTING_TEXT_BYTES];
  uint64_t pretrain_epochs, epochs, samples, batch, seed, threads;
  double lr;
};

/* From `epoch` on the first modules are frozen. */
struct stage {
  double epoch;
  uint32_t first_active;
};

/* All runs. */
struct training {
  const struct config *config;
  struct images images;
  struct progress progress;
  struct record record;
  fl_cancel *stop;
  float *base; /* weights that both runs begin with */
  uint64_t n_weights;
  struct stage stages[MAX_STAGES];
  uint32_t n_stages;
  char folder[PATH_FOLDER_BYTES]; /* of the cache's file; "" when it has none */
  char name[STORED_NAME_MAX + 1];
};

/* One run: a context of its own, so that its memory can be told; the cache has
 * another one. */
struct run {
  struct training *training;
  fl_host *host;
  fl_host *cache_host; /* NULL without a cache */
  fl_model *model;
  fl_freeze *freeze; /* NULL: nothing freezes */
  fl_cache *cache;   /* NULL: what is frozen is computed again */
};

struct outcome {
  double seconds;      /* of the processor */
  double share;        /* of the test images, in the right class */
  uint64_t peak_bytes; /* without the cache */
  uint64_t cache_peak;
  uint64_t step_bytes; /* a batch's memory, with what is frozen at the end */
  uint64_t update_bytes;
  uint64_t cache_bytes;
  uint64_t hits;
  uint32_t first_active;
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
    {"pretrain-epochs", SETTING_COUNT, AT(pretrain_epochs), 1, 1e6, NULL, "N",
     "times through the base's samples (8)"},
    {"epochs", SETTING_COUNT, AT(epochs), 1, 1e6, NULL, "N",
     "times through the samples of all classes (10)"},
    {"samples", SETTING_COUNT, AT(samples), 1, 1e9, NULL, "N",
     "so many images, the first ones, are fine-tuned on; the base is trained "
     "on those behind (12000)"},
    {"batch", SETTING_COUNT, AT(batch), 1, 65536, NULL, "N",
     "samples in a step (64)"},
    {"lr", SETTING_REAL, AT(lr), 0, 10, NULL, "X",
     "learning rate after an epoch of warm-up; a tenth from 70 % of the steps "
     "on (0.03)"},
    {"criterion", SETTING_TEXT, AT(criterion), 0, 0,
     "gradnorm|plasticity|relative|fixed", "NAME",
     "what freezes modules: gradnorm, plasticity, relative or fixed "
     "(gradnorm)"},
    {"preset", SETTING_TEXT, AT(preset), 0, 0, "careful|balanced|fast", "NAME",
     "of plasticity: careful, balanced or fast (balanced)"},
    {"schedule", SETTING_TEXT, AT(schedule), 0, 0, NULL, "EPOCH:F,...",
     "of fixed: from EPOCH on the first F modules are frozen (0:1,4:2)"},
    {"cache", SETTING_TEXT, AT(cache), 0, 0, NULL, "none|memory|FILE",
     "where outputs of frozen modules are kept (memory)"},
    {"cache-type", SETTING_TEXT, AT(cache_type), 0, 0, "f32|f16|i8", "TYPE",
     "and as what: f32, f16 or i8 (f32)"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "of first weights and of the order of samples (1)"},
    {"threads", SETTING_COUNT, AT(threads), 0, 1024, NULL, "N",
     "threads, 0 = one per CPU (1); the result is the same"},
    {"record", SETTING_TEXT, AT(record), 0, 0, NULL, "FILE",
     "write what the controller sees and does to FILE, an event a line"},
};

static const struct settings settings = {
    .program_doc =
        "Fine-tune a VGG with and without freezing layers."
        "\v"
        "Exit status: 0 done, 1 failure, or SIGINT or SIGTERM came, 2 bad "
        "option.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

/* ---- the model ----------------------------------------------------------- */

static void add_conv(fl_model_builder *b, uint32_t number, uint32_t filters)
{
  char name[16], relu[16];
  fl_conv2d_options options;
  fl_conv2d_options_init(&options, sizeof options);
  options.filters = filters;
  options.height = options.width = 3;
  options.padding = 1;
  snprintf(name, sizeof name, "c%u", number);
  snprintf(relu, sizeof relu, "c%u.relu", number);
  fl_model_builder_conv2d(b, name, &options);
  fl_model_builder_relu(b, relu);
}

/* Four modules of two convolutions, and the head. The builder keeps the first
 * error, so that one look at the end will do. */
static fl_model *build_vgg(fl_context *context)
{
  static const uint32_t filters[MODULES - 1] = {16, 32, 64, 64};
  const uint64_t image[3] = {1, 28, 28};
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&b, context) != FL_OK) return NULL;
  fl_model_builder_input(b, image, 3, 1 / 255.f / .353f, -.286f / .353f);
  for (uint32_t module = 0; module < MODULES - 1; module++) {
    fl_model_builder_module(b, module);
    add_conv(b, 2 * module, filters[module]);
    add_conv(b, 2 * module + 1, filters[module]);
    if (module == 0) fl_model_builder_pool2d(b, "p0", NULL);
    if (module == 1) fl_model_builder_pool2d(b, "p1", NULL);
  }
  fl_model_builder_mean(b, "mean");
  fl_model_builder_module(b, MODULES - 1);
  fl_model_builder_dense(b, "head", CLASSES);
  fl_model_builder_softmax_cross_entropy(b, "loss");
  fl_model_builder_build(b, &model);
  fl_model_builder_free(b);
  return model;
}

/* ---- training ------------------------------------------------------------ */

/* Say what the controller did, and record it. */
static void tell_events(struct run *run)
{
  struct training *training = run->training;
  fl_freeze_event event;
  fl_freeze_event_init(&event, sizeof event);
  while (run->freeze && fl_freeze_poll(run->freeze, &event) == FL_OK) {
    record_event(&training->record, &event);
    if (event.kind == FL_FREEZE_EVALUATED) continue;
    progress_line(
        &training->progress, "step %llu: %s%s", (unsigned long long)event.step,
        event.kind == FL_FREEZE_CACHE_OFF ? "no cache: " : "", event.text);
  }
}

static fl_status on_step(const fl_fit_progress *at, void *user)
{
  struct run *run = user;
  progress_step(&run->training->progress, at->step, at->loss);
  tell_events(run);
  progress_go_on(&run->training->progress);
  return FL_OK;
}

static uint64_t steps_per_epoch(const struct config *config, uint64_t samples)
{
  return (samples + config->batch - 1) / config->batch;
}

static fl_status set_optimiser(fl_model *model, const struct config *config,
                               uint64_t per_epoch, uint64_t epochs)
{
  fl_optimiser_options options;
  fl_optimiser_options_init(&options, sizeof options);
  options.learning_rate = (float)config->lr;
  options.momentum = .9f;
  options.weight_decay = 5e-4f;
  options.warmup = (uint32_t)per_epoch;
  options.schedule = FL_SCHEDULE_STEP;
  options.period = (7 * per_epoch * epochs + 9) / 10;
  return fl_model_set_optimiser(model, &options);
}

static double processor_seconds(void)
{
  struct timespec at;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
  return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* The processor's seconds in *seconds. */
static fl_status train(struct run *run, const fl_dataset *data, uint64_t epochs,
                       double *seconds)
{
  struct training *training = run->training;
  const struct config *config = training->config;
  uint64_t per_epoch =
      steps_per_epoch(config, data->indices ? data->n_indices : data->n);
  fl_fit_options options;
  fl_fit_options_init(&options, sizeof options);
  options.epochs = (uint32_t)epochs;
  options.batch_size = (uint32_t)config->batch;
  options.seed = config->seed;
  options.cancel = training->stop;
  options.progress = on_step;
  options.progress_every = 1;
  options.user = run;
  fl_status st = set_optimiser(run->model, config, per_epoch, epochs);
  if (st != FL_OK) return st;
  progress_begin(&training->progress, 0, per_epoch * epochs, config->batch);
  double began_at = processor_seconds();
  st = fl_model_fit(run->model, data, &options, NULL);
  *seconds = processor_seconds() - began_at;
  return st;
}

/* ---- the base ------------------------------------------------------------ */

/* `data` with the base's samples only: those of its classes, from `first` on;
 * indices are malloc'd. */
static fl_status choose(const struct idx_set *set, uint64_t first,
                        fl_dataset *data, uint32_t **indices)
{
  uint32_t *chosen = malloc(set->n * sizeof *chosen);
  uint64_t n = 0;
  if (!chosen) return FL_E_NOMEM;
  for (uint64_t i = first; i < set->n; i++)
    if (set->labels[i] < BASE_CLASSES) chosen[n++] = (uint32_t)i;
  *data = set->data;
  data->indices = *indices = chosen;
  data->n_indices = n;
  if (n > 0) return FL_OK;
  warnx("no images are left to train the base on: want fewer --samples");
  return SAID;
}

static fl_status train_base(struct run *run)
{
  struct training *training = run->training;
  const struct config *config = training->config;
  fl_dataset few;
  uint32_t *indices = NULL;
  double share = 0;
  double seconds = 0;
  fl_status st = fl_model_init_weights(run->model, config->seed);
  if (st == FL_OK)
    st = choose(&training->images.train, config->samples, &few, &indices);
  if (st == FL_OK) st = train(run, &few, config->pretrain_epochs, &seconds);
  free(indices);
  indices = NULL;
  if (st == FL_OK) st = choose(&training->images.test, 0, &few, &indices);
  if (st == FL_OK) st = accuracy_of(run->model, &few, &share);
  free(indices);
  if (st != FL_OK) return st;
  progress_line(&training->progress,
                "base: %.2f %% of the first %d classes, %.1f s", 100 * share,
                BASE_CLASSES, seconds);
  if (config->save_base[0] && weights_save(run->model, config->save_base))
    return SAID;
  return FL_OK;
}

/* ---- runs ---------------------------------------------------------------- */

static uint32_t criterion_of(const struct config *config)
{
  switch (config->criterion[0]) {
  case 'p': return FL_FREEZE_PLASTICITY;
  case 'r': return FL_FREEZE_RELATIVE_PLASTICITY;
  case 'f': return FL_FREEZE_FIXED;
  default: return FL_FREEZE_GRADNORM;
  }
}

static uint32_t preset_of(const struct config *config)
{
  switch (config->preset[0]) {
  case 'c': return FL_FREEZE_CAREFUL;
  case 'f': return FL_FREEZE_FAST;
  default: return FL_FREEZE_BALANCED;
  }
}

static uint32_t cache_type_of(const struct config *config)
{
  switch (config->cache_type[0]) {
  case 'i': return FL_CACHE_I8;
  default: return config->cache_type[1] == '1' ? FL_CACHE_F16 : FL_CACHE_F32;
  }
}

static fl_status add_cache(struct run *run)
{
  const struct training *training = run->training;
  fl_cache_options options;
  fl_cache_options_init(&options, sizeof options);
  options.dtype = cache_type_of(training->config);
  options.name = training->folder[0] ? training->name : NULL;
  run->cache_host = host_open(1, training->folder[0] ? training->folder : NULL);
  if (!run->cache_host) return SAID;
  return fl_cache_new(&run->cache, fl_host_context(run->cache_host), &options);
}

static fl_status add_freeze(struct run *run)
{
  const struct training *training = run->training;
  const struct config *config = training->config;
  fl_freeze_fixed fixed[MAX_STAGES] = {0};
  fl_freeze_options options;
  fl_freeze_attach_options attach;
  fl_freeze_options_init(&options, sizeof options);
  fl_freeze_attach_options_init(&attach, sizeof attach);
  options.criterion = criterion_of(config);
  options.preset = preset_of(config);
  options.steps_per_epoch = steps_per_epoch(config, config->samples);
  options.total_steps = options.steps_per_epoch * config->epochs;
  options.is_pretrained = 1;
  /* Measured beside the next step, where there is a thread for it. */
  if (options.criterion == FL_FREEZE_PLASTICITY ||
      options.criterion == FL_FREEZE_RELATIVE_PLASTICITY)
    options.lag = 1;
  for (uint32_t i = 0; i < training->n_stages; i++) {
    double step = training->stages[i].epoch * (double)options.steps_per_epoch;
    fixed[i].step = (uint64_t)(step + .5);
    fixed[i].first_active = training->stages[i].first_active;
  }
  if (options.criterion == FL_FREEZE_FIXED) {
    options.fixed = fixed;
    options.n_fixed = training->n_stages;
  }
  fl_status st = fl_freeze_new(&run->freeze, fl_host_context(run->host),
                               MODULES, &options);
  attach.cache = run->cache;
  if (st == FL_OK) st = fl_freeze_attach(run->freeze, run->model, &attach);
  return st;
}

/* Free it, and say what failed. */
static void end_run(struct run *run, fl_status st)
{
  if (st != FL_OK && st != FL_E_CANCELLED && st != SAID)
    warnx("%s: %s", fl_status_text(st), fl_last_error());
  fl_freeze_free(run->freeze);
  fl_cache_free(run->cache);
  fl_model_free(run->model);
  fl_host_free(run->cache_host);
  fl_host_free(run->host);
}

/* A model without weights, in a context of its own. */
static fl_status begin_run(struct run *run, struct training *training)
{
  *run = (struct run){.training = training};
  run->host = host_open(training->config->threads, NULL);
  if (!run->host) return SAID;
  run->model = build_vgg(fl_host_context(run->host));
  return run->model ? FL_OK : FL_E_NOMEM;
}

/* The weights that both runs begin with. */
static fl_status prepare_base(struct training *training)
{
  const struct config *config = training->config;
  struct run run;
  fl_status st = begin_run(&run, training);
  if (st == FL_OK && config->base[0])
    st = weights_load(run.model, config->base) ? SAID : FL_OK;
  else if (st == FL_OK)
    st = train_base(&run);
  if (st == FL_OK) {
    training->n_weights = fl_model_weight_count(run.model);
    training->base = malloc(training->n_weights * sizeof *training->base);
    st = training->base ? fl_model_copy_weights(run.model, training->base,
                                                training->n_weights)
                        : FL_E_NOMEM;
  }
  end_run(&run, st);
  return st;
}

static fl_status measure(struct run *run, struct outcome *outcome)
{
  fl_memory_plan plan;
  fl_cache_status cache;
  const struct training *training = run->training;
  fl_memory_plan_init(&plan, sizeof plan);
  fl_cache_status_init(&cache, sizeof cache);
  fl_context_get_memory(fl_host_context(run->host), NULL, &outcome->peak_bytes);
  if (run->cache_host)
    fl_context_get_memory(fl_host_context(run->cache_host), NULL,
                          &outcome->cache_peak);
  fl_status st = fl_model_plan_memory(
      run->model, (uint32_t)training->config->batch, 1, &plan);
  if (st == FL_OK && run->cache) st = fl_cache_get_status(run->cache, &cache);
  if (st == FL_OK) st = update_size(run->model, &outcome->update_bytes);
  outcome->step_bytes = plan.peak;
  outcome->cache_bytes = cache.bytes;
  outcome->hits = cache.hits;
  outcome->first_active = fl_model_first_active(run->model);
  if (st == FL_OK)
    st = accuracy_of(run->model, &training->images.test.data, &outcome->share);
  return st;
}

static fl_status fine_tune(struct training *training, int freezes,
                           struct outcome *outcome)
{
  const struct config *config = training->config;
  struct run run;
  fl_dataset data = training->images.train.data;
  data.n = config->samples;
  fl_status st = begin_run(&run, training);
  if (st == FL_OK)
    st = fl_model_set_weights(run.model, NULL, training->base,
                              training->n_weights);
  if (st == FL_OK && freezes && strcmp(config->cache, "none") != 0)
    st = add_cache(&run);
  if (st == FL_OK && freezes) st = add_freeze(&run);
  if (st == FL_OK) st = train(&run, &data, config->epochs, &outcome->seconds);
  if (st == FL_OK) st = measure(&run, outcome);
  if (st == FL_OK)
    progress_line(&training->progress, "%s freezing: %.2f %%, %.1f s",
                  freezes ? "with" : "without", 100 * outcome->share,
                  outcome->seconds);
  end_run(&run, st);
  return st;
}

/* ---- the whole ----------------------------------------------------------- */

static void print_row(const char *what, uint64_t without, uint64_t with)
{
  printf("%-28s %14llu %14llu\n", what, (unsigned long long)without,
         (unsigned long long)with);
}

static void print_table(const struct outcome *whole, const struct outcome *less)
{
  printf("\n%-28s %14s %14s\n", "freezing", "without", "with");
  printf("%-28s %14.2f %14.2f\n", "CPU seconds", whole->seconds, less->seconds);
  printf("%-28s %14.2f %14.2f\n", "test accuracy, %", 100 * whole->share,
         100 * less->share);
  print_row("memory at most, bytes", whole->peak_bytes, less->peak_bytes);
  print_row("and of the cache", whole->cache_peak, less->cache_peak);
  print_row("memory of the last step", whole->step_bytes, less->step_bytes);
  print_row("update with thc, bytes", whole->update_bytes, less->update_bytes);
  print_row("cache, bytes", whole->cache_bytes, less->cache_bytes);
  print_row("samples from the cache", whole->hits, less->hits);
  print_row("frozen modules", whole->first_active, less->first_active);
  printf("saved: %.1f %% of the CPU time, accuracy %+.2f points\n",
         100 * (1 - less->seconds / whole->seconds),
         100 * (less->share - whole->share));
}

static fl_status run_all(struct training *training)
{
  struct outcome whole = {0};
  struct outcome less = {0};
  fl_status st = prepare_base(training);
  if (st == FL_OK) st = fine_tune(training, 0, &whole);
  if (st == FL_OK) st = fine_tune(training, 1, &less);
  if (st == FL_OK) print_table(&whole, &less);
  return st;
}

/* 0, or -1 with a line on standard error. */
static int parse_schedule(struct training *training)
{
  const char *at = training->config->schedule;
  struct stage *stage = training->stages;
  for (; stage < training->stages + MAX_STAGES; stage++) {
    int n = 0;
    if (sscanf(at, "%lf:%u%n", &stage->epoch, &stage->first_active, &n) != 2 ||
        !(stage->epoch >= 0 && stage->epoch <= 1e6) ||
        stage->first_active > MODULES - 2 || (at[n] && at[n] != ',') ||
        (training->n_stages > 0 && stage->epoch <= stage[-1].epoch))
      break;
    training->n_stages++;
    if (!at[n]) return 0;
    at += n + 1;
  }
  warnx(
      "--schedule: got \"%s\", want EPOCH:F,..., %d at most, rising epochs, F "
      "in 0..%d",
      training->config->schedule, MAX_STAGES, MODULES - 2);
  return -1;
}

/* Load the images, make `samples` what there is, and look at paths before hours
 * are spent. */
static int load(struct training *training, struct config *config)
{
  int is_file = strcmp(config->cache, "none") != 0 &&
                strcmp(config->cache, "memory") != 0;
  if (is_file && path_split(config->cache, training->folder, training->name))
    return -1;
  if (images_load(&training->images, config->data)) return -1;
  if (config->samples > training->images.train.n)
    config->samples = training->images.train.n;
  return config->record[0] ? record_open(&training->record, config->record) : 0;
}

int main(int argc, char **argv)
{
  struct config config = {.data = "/usr/share/datasets/fashion-mnist",
                          .criterion = "gradnorm",
                          .preset = "balanced",
                          .schedule = "0:1,4:2",
                          .cache = "memory",
                          .cache_type = "f32",
                          .pretrain_epochs = 8,
                          .epochs = 10,
                          .samples = 12000,
                          .batch = 64,
                          .seed = 1,
                          .threads = 1,
                          .lr = .03};
  struct training training = {.config = &config};
  if (settings_parse(&settings, argc, argv, &config)) {
    settings_print(&settings, &config);
    return 0;
  }
  if (parse_schedule(&training)) return SETTINGS_EXIT_USAGE;
  fl_status st = SAID;
  training.stop = stop_flag();
  if (training.stop && !load(&training, &config)) {
    st = run_all(&training);
    if (st == FL_E_CANCELLED)
      progress_line(&training.progress, "stopped after step %llu",
                    (unsigned long long)training.progress.step);
  }
  if (record_close(&training.record)) st = SAID;
  free(training.base);
  images_free(&training.images);
  return st != FL_OK;
}
