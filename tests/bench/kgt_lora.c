/* SPDX-License-Identifier: Apache-2.0 */
/* SAFE on the transformer of tests/models.h: trained on classes 0 to 4 of the
 * other images, then its dense layers get low-rank updates (or those before
 * residuals get bottlenecks), and these and the head are tuned on all ten
 * classes, with and without freezing, and with as many adapters frozen from the
 * front on whenever SAFE froze some. Rate and batch are the same throughout. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../models.h"
#include "base/rng.h"

enum { TRANSFORMER = 2, RANK = 8, NAME_BYTES = 64, FREEZES_MAX = 64 };
enum { BASE, FREEZING, FRONT, RUNS };

static const char *const names[RUNS] = {"base", "freezing", "front"};

typedef struct run {
  double accuracy; /* % */
  double cpu_us;   /* of the steps */
  double flops;
  double memory_before; /* bytes beside the weights, at the first step */
  double memory_after;  /* at the last one */
  double memory_mean;   /* of all steps */
  char frozen[KGT_LOG]; /* "e@1.01,b0.u@1.42": layers, epoch */
  uint64_t freezes[FREEZES_MAX]; /* steps, one for every adapter */
  uint32_t n_freezes;
} run;

typedef struct tables {
  run runs[KGT_SEEDS][RUNS];
  uint32_t n;
} tables;

/* A training that goes on. */
typedef struct lora {
  const kgt_bench *bench;
  uint64_t seed;
  float rate;
  fl_model *model;
  fl_freeze *freeze;  /* or NULL */
  const run *safe;    /* FRONT: what to freeze as much as; or NULL */
  uint8_t *is_frozen; /* [n_modules]: as far as it is noted */
  uint64_t step;
  run *run;
} lora;

/* ---- the model ---- */

static uint64_t steps_of(const kgt_bench *bench, uint64_t n)
{
  return (n + bench->sizes.batch - 1) / bench->sizes.batch;
}

static uint64_t steps_before(const kgt_bench *bench)
{
  uint32_t *places = kgt_get(bench->sizes.others, sizeof *places);
  uint64_t n = kgt_find_others(bench, places);
  free(places);
  return bench->sizes.adapted_epochs_before * steps_of(bench, n);
}

static uint64_t steps_of_run(const kgt_bench *bench)
{
  return bench->sizes.adapted_epochs * bench->steps_per_epoch;
}

static fl_model *pretrained(const kgt_bench *bench, uint64_t seed, float rate)
{
  const uint32_t batch = bench->sizes.batch;
  uint32_t *places = kgt_get(bench->sizes.others, sizeof *places);
  fl_model *model = models_new(TRANSFORMER, bench->context);
  if (!model) kgt_must(FL_E_STATE, "model");
  kgt_must(fl_model_init_weights(model, seed), "weights");
  for (uint32_t epoch = 0; epoch < bench->sizes.adapted_epochs_before;
       epoch++) {
    fli_rng rng;
    uint32_t n = kgt_find_others(bench, places);
    fli_rng_init(&rng, seed, FLI_RNG_TEST, epoch, 4);
    fli_rng_shuffle(&rng, places, n);
    for (uint32_t first = 0; first < n; first += batch) {
      uint32_t left = n - first;
      fl_dataset data =
          kgt_batch(bench, places + first, left < batch ? left : batch);
      kgt_must(fl_model_step(model, &data, rate, NULL), "step");
      kgt_progress_step("pre-training");
    }
  }
  free(places);
  return model;
}

static fl_model *adapted(const fl_model *base, uint64_t seed, int has_adapters)
{
  fl_model *model = NULL;
  fl_lora_options options;
  model_recipe recipe = models_recipe(TRANSFORMER);
  kgt_must(fl_lora_options_init(&options, sizeof options), "low-rank updates");
  options.rank = RANK;
  kgt_must(has_adapters ? fl_model_with_adapters(&model, base, NULL, seed)
                        : fl_model_with_lora(&model, base, &options, seed),
           "adapters");
  kgt_must(fl_model_set_optimiser(model, &recipe.optimiser), "optimiser");
  return model;
}

static uint32_t module_count(const fl_model *model)
{
  uint32_t n = fl_model_segment_count(model);
  uint32_t most = 0;
  uint32_t *modules = kgt_get(n, sizeof *modules);
  kgt_must(fl_model_copy_segment_modules(model, modules, n), "modules");
  for (uint32_t i = 0; i < n; i++) {
    if (modules[i] > most) most = modules[i];
  }
  free(modules);
  return most + 1;
}

/* ---- with the controller ---- */

static void open_control(lora *l)
{
  uint32_t n_modules = module_count(l->model);
  fl_freeze_options options;
  kgt_must(fl_freeze_options_init(&options, sizeof options), "options");
  options.criterion = FL_FREEZE_CKA;
  options.steps_per_epoch = l->bench->steps_per_epoch;
  options.total_steps = steps_of_run(l->bench);
  kgt_must(fl_freeze_new(&l->freeze, l->bench->context, n_modules, &options),
           "controller");
  kgt_must(fl_freeze_attach(l->freeze, l->model, NULL), "attaching");
  l->is_frozen = kgt_get(n_modules, 1);
}

/* The layer that has the module's update: "b0.u" of "b0.u.lora_a", or of
 * "b0.u.up.weight". */
static void name_of(const fl_model *model, uint32_t module,
                    char name[NAME_BYTES])
{
  fl_tensor_info info;
  kgt_must(fl_tensor_info_init(&info, sizeof info), "tensor");
  for (uint32_t i = 0; i < fl_model_tensor_count(model); i++) {
    kgt_must(fl_model_get_tensor(model, i, &info), "tensor");
    const char *end = strstr(info.name, ".lora_a");
    if (!end) end = strstr(info.name, ".up.weight");
    if (info.module != module || !end) continue;
    (void)snprintf(name, NAME_BYTES, "%.*s", (int)(end - info.name), info.name);
    return;
  }
  (void)snprintf(name, NAME_BYTES, "%u", module);
}

/* Modules without weights to train count as frozen once all before them are. */
static int has_weights(const fl_model *model, uint32_t module)
{
  uint32_t n = fl_model_segment_count(model);
  uint32_t *modules = kgt_get(n, sizeof *modules);
  int found = 0;
  kgt_must(fl_model_copy_segment_modules(model, modules, n), "modules");
  for (uint32_t i = 0; i < n; i++)
    found |= modules[i] == module;
  free(modules);
  return found;
}

/* What the plan freezes now, and did not before. */
static void note(lora *l)
{
  char name[NAME_BYTES];
  fl_freeze_plan plan;
  kgt_must(fl_freeze_plan_init(&plan, sizeof plan), "plan");
  kgt_must(fl_freeze_get_plan(l->freeze, &plan), "plan");
  for (uint32_t i = 0; i < plan.n_modules; i++) {
    char *text = l->run->frozen;
    size_t used = strlen(text);
    if (!plan.frozen[i] || l->is_frozen[i] || !has_weights(l->model, i))
      continue;
    l->is_frozen[i] = 1;
    if (l->run->n_freezes < FREEZES_MAX)
      l->run->freezes[l->run->n_freezes++] = l->step;
    name_of(l->model, i, name);
    (void)snprintf(text + used, KGT_LOG - used, "%s%s@%.2f", used ? "," : "",
                   name, (double)l->step / (double)l->bench->steps_per_epoch);
  }
}

/* Importance, once it has been measured. */
static void show_importance(lora *l)
{
  fl_freeze_event event;
  char name[NAME_BYTES];
  kgt_must(fl_freeze_event_init(&event, sizeof event), "events");
  while (fl_freeze_poll(l->freeze, &event) == FL_OK) {
    if (event.kind != FL_FREEZE_EVALUATED) continue;
    name_of(l->model, event.module, name);
    fprintf(stderr, "step %u: %s: importance %.5g\n", (unsigned)event.step,
            name, event.value);
  }
}

/* ---- a run ---- */

static double memory_of(const lora *l)
{
  fl_memory_plan plan;
  kgt_must(fl_memory_plan_init(&plan, sizeof plan), "memory");
  kgt_must(fl_model_plan_memory(l->model, l->bench->sizes.batch, 1, &plan),
           "memory");
  return (double)(plan.peak - plan.weights);
}

/* As many adapters as SAFE had frozen after this step, from the front on. Each
 * module that is trained has one, but for the last. */
static void freeze_front(const lora *l)
{
  uint32_t n_modules = module_count(l->model);
  uint32_t n = fl_model_segment_count(l->model);
  uint32_t left = 0;
  while (left < l->safe->n_freezes && l->safe->freezes[left] <= l->step)
    left++;
  uint8_t *frozen = kgt_get(n_modules, 1);
  uint32_t *modules = kgt_get(n, sizeof *modules);
  kgt_must(fl_model_copy_segment_modules(l->model, modules, n), "modules");
  for (uint32_t i = 0; i < n && left > 0; i++) {
    left -= !frozen[modules[i]];
    frozen[modules[i]] = 1;
  }
  kgt_must(fl_model_set_frozen(l->model, frozen, n_modules), "freezing");
  free(modules);
  free(frozen);
}

static void one_step(lora *l, const uint32_t *places, uint64_t n,
                     int is_verbose)
{
  fl_dataset data = kgt_batch(l->bench, places, n);
  double begin = kgt_cpu_us();
  if (l->safe) freeze_front(l);
  kgt_must(fl_model_step(l->model, &data, l->rate, NULL), "step");
  l->run->cpu_us += kgt_cpu_us() - begin;
  l->run->flops += kgt_flops(l->model, n);
  l->run->memory_after = memory_of(l);
  l->run->memory_mean += l->run->memory_after;
  if (l->freeze) note(l);
  if (l->freeze && is_verbose) show_importance(l);
}

static void run_steps(lora *l, const char *what, const kgt_settings *settings)
{
  const kgt_sizes *sizes = &l->bench->sizes;
  uint32_t *order = kgt_get(sizes->tune, sizeof *order);
  uint64_t steps = steps_of_run(l->bench);
  l->run->memory_before = memory_of(l);
  for (; l->step < steps; l->step++) {
    uint64_t first = l->step % l->bench->steps_per_epoch * sizes->batch;
    uint64_t n = sizes->tune - first;
    if (first == 0) {
      fli_rng rng;
      for (uint32_t i = 0; i < sizes->tune; i++)
        order[i] = i;
      fli_rng_init(&rng, l->seed, FLI_RNG_TEST,
                   l->step / l->bench->steps_per_epoch, 5);
      fli_rng_shuffle(&rng, order, sizes->tune);
    }
    if (n > sizes->batch) n = sizes->batch;
    one_step(l, order + first, n, settings->is_verbose);
    kgt_progress_step(what);
  }
  l->run->memory_mean /= (double)steps;
  free(order);
}

static void tune(const kgt_bench *bench, const kgt_settings *settings,
                 const fl_model *base, uint64_t seed, uint32_t which, run *runs)
{
  char line[64 + KGT_LOG];
  run *out = &runs[which];
  lora l = {.bench = bench, .seed = seed, .rate = settings->rate, .run = out};
  *out = (run){0};
  if (which == FRONT) l.safe = &runs[FREEZING];
  l.model = adapted(base, seed, settings->has_adapters);
  if (which == FREEZING) open_control(&l);
  run_steps(&l, names[which], settings);
  out->accuracy = kgt_accuracy(bench, l.model);
  fl_freeze_free(l.freeze);
  fl_model_free(l.model);
  free(l.is_frozen);
  if (!*out->frozen) (void)snprintf(out->frozen, KGT_LOG, "none");
  (void)snprintf(line, sizeof line, "seed %u: %s: %.2f %%, frozen: %s",
                 (unsigned)seed, names[which], out->accuracy, out->frozen);
  kgt_progress_line(line);
}

/* ---- figures ---- */

typedef double (*figure_fn)(const run *base, const run *own);

static double accuracy(const run *base, const run *own)
{
  (void)own;
  return base->accuracy;
}

static double delta(const run *base, const run *own)
{
  return own->accuracy - base->accuracy;
}

static double time_saved(const run *base, const run *own)
{
  return 100.0 * (1.0 - own->cpu_us / base->cpu_us);
}

static double compute_saved(const run *base, const run *own)
{
  return 100.0 * (1.0 - own->flops / base->flops);
}

static double memory_saved(const run *base, const run *own)
{
  (void)base;
  return 100.0 * (1.0 - own->memory_after / own->memory_before);
}

static double memory_mean_saved(const run *base, const run *own)
{
  return 100.0 * (1.0 - own->memory_mean / base->memory_mean);
}

static void print_mean(const tables *t, const char *key, figure_fn figure,
                       uint32_t which, int has_interval)
{
  double values[KGT_SEEDS];
  for (uint32_t i = 0; i < t->n; i++)
    values[i] = figure(&t->runs[i][BASE], &t->runs[i][which]);
  (void)kgt_print_mean(key, values, t->n, has_interval);
}

static void print_run(const run *r, uint64_t seed, const char *name)
{
  char prefix[64], key[96];
  (void)snprintf(prefix, sizeof prefix, "seed%u_%s", (unsigned)seed, name);
  (void)snprintf(key, sizeof key, "%s_acc", prefix);
  kgt_print(key, r->accuracy);
  (void)snprintf(key, sizeof key, "%s_cpu_s", prefix);
  kgt_print(key, 1e-6 * r->cpu_us);
  (void)snprintf(key, sizeof key, "%s_memory_bytes", prefix);
  kgt_print(key, r->memory_after);
  printf("%s_frozen %s\n", prefix, r->frozen);
  (void)fflush(stdout);
}

void kgt_part_lora(const kgt_bench *bench, const kgt_settings *settings)
{
  static tables t;
  t.n = settings->n_seeds;
  kgt_progress_begin(t.n * (steps_before(bench) + RUNS * steps_of_run(bench)));
  for (uint32_t i = 0; i < t.n; i++) {
    uint64_t seed = settings->seeds[i];
    fl_model *base = pretrained(bench, seed, settings->rate);
    for (uint32_t which = 0; which < RUNS; which++) {
      tune(bench, settings, base, seed, which, t.runs[i]);
      print_run(&t.runs[i][which], seed, names[which]);
    }
    fl_model_free(base);
  }
  kgt_print("lora_seeds", t.n);
  print_mean(&t, "lora_acc_base", accuracy, BASE, 0);
  print_mean(&t, "lora_acc_delta", delta, FREEZING, 1);
  print_mean(&t, "lora_time_saved_pct", time_saved, FREEZING, 0);
  print_mean(&t, "lora_compute_saved_pct", compute_saved, FREEZING, 0);
  print_mean(&t, "lora_memory_saved_pct", memory_saved, FREEZING, 0);
  print_mean(&t, "lora_memory_mean_saved_pct", memory_mean_saved, FREEZING, 0);
  print_mean(&t, "lora_front_acc_delta", delta, FRONT, 1);
  print_mean(&t, "lora_front_time_saved_pct", time_saved, FRONT, 0);
  print_mean(&t, "lora_front_memory_saved_pct", memory_saved, FRONT, 0);
  printf("lora_frozen ");
  for (uint32_t i = 0; i < t.n; i++)
    printf("%s%s", i > 0 ? ";" : "", t.runs[i][FREEZING].frozen);
  printf("\n");
}
