/* SPDX-License-Identifier: Apache-2.0 */
/* Training and running the four models of tests/models.h: time of whole steps,
 * of forward passes and of single samples, memory as planned and as taken, and
 * the share of what the processor's multiply-add can do, which is measured in
 * the same rounds. Figures are medians of rounds in which models and
 * instruction sets take turns; with one thread times are the processor's, with
 * more the clock's. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../models.h"
#include "adapters/host/pool.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"
#include "model_costs.h"
#include "peak.h"

enum {
  RUNS_MAX = 101,
  ISAS_MAX = 4,
  BATCHES = 8, /* different ones */
  PIXELS = 784,
  CLASSES = 10,
  SAMPLES = 64 * BATCHES,
  SLICE_US = 20000 /* a figure's time in a round, about */
};

static const char help[] =
    "usage: bench_models [OPTION VALUE]... [--profile]\n"
    "  --model NAME   mlp, lenet, transformer, vgg8; all of them (default)\n"
    "  --isa NAME     c, avx2, avx512, ..., best, all (default)\n"
    "  --runs N       rounds, 1..101; 15 (default)\n"
    "  --threads N    of the host's pool, 1..64; 1 (default)\n"
    "  --input NAME   pixels as f32 (default) or u8\n"
    "  --profile      print each layer's time too, forward and backward (with\n"
    "                 the update of its weights)\n"
    "Keys begin with the model and end in the ISA unless it is best.\n"
    "  MODEL_step_us         forward, backward and update of a batch\n"
    "  MODEL_forward_us      fl_model_predict of a batch\n"
    "  MODEL_single_us       fl_model_predict of one sample\n"
    "  MODEL_step_gflops     operations of direct methods per time\n"
    "  MODEL_step_share      of peak_gflops\n"
    "  MODEL_planned_bytes   beside the parameters, as planned for training\n"
    "  MODEL_measured_bytes  the most that was ever taken beside them\n";

typedef struct settings {
  const char *model; /* NULL: all */
  const char *isa;
  int runs;
  uint32_t threads;
  int is_u8;
  int has_profile;
} settings;

/* One model with one table. */
typedef struct subject {
  model_recipe recipe;
  fl_model *model;
  const char *isa;
  char suffix[16];
  double step[RUNS_MAX], forward[RUNS_MAX], single[RUNS_MAX];
} subject;

static float pixels_f32[SAMPLES * PIXELS];
static uint8_t pixels_u8[SAMPLES * PIXELS];
static int32_t labels[SAMPLES];
static float outputs[SAMPLES * CLASSES];

static clockid_t clock_used = CLOCK_THREAD_CPUTIME_ID;
static fli_host_pool *pool; /* NULL: one thread */

static double now(void)
{
  struct timespec t;
  clock_gettime(clock_used, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now_us(void)
{
  return 1e6 * now();
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n)
{
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

static void draw_samples(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < (size_t)SAMPLES * PIXELS; i++) {
    pixels_u8[i] = (uint8_t)fli_rng_below(&rng, 256);
    pixels_f32[i] = (float)pixels_u8[i];
  }
  for (size_t i = 0; i < SAMPLES; i++) {
    labels[i] = (int32_t)fli_rng_below(&rng, CLASSES);
  }
}

/* `n` samples: batch number `index`. */
static fl_dataset batch_of(const settings *s, size_t n, size_t index)
{
  fl_dataset data;
  size_t first = index % BATCHES * n;
  (void)fl_dataset_init(&data, sizeof data);
  data.x_dtype = s->is_u8 ? FL_DTYPE_U8 : FL_DTYPE_F32;
  data.x = s->is_u8 ? (const void *)(pixels_u8 + first * PIXELS)
                    : (const void *)(pixels_f32 + first * PIXELS);
  data.y = labels + first;
  data.n = n;
  return data;
}

static void must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", what, fl_last_error());
  exit(1);
}

static fl_status parallel_for(void *user, uint64_t count, fl_task_fn task,
                              void *arg)
{
  fli_host_pool_run(user, count, task, arg);
  return FL_OK;
}

static fl_context *new_context(void)
{
  fl_context_options options;
  fl_context *context = NULL;
  must(fl_context_options_init(&options, sizeof options), "context");
  options.user = pool;
  if (pool) options.parallel_for = parallel_for;
  must(fl_context_new(&context, &options), "context");
  return context;
}

enum { STEP, FORWARD, SINGLE };

static void run_once(const settings *s, subject *u, int what, size_t index)
{
  size_t n = what == SINGLE ? 1 : u->recipe.batch;
  fl_dataset data = batch_of(s, n, index);
  if (what == STEP) {
    /* Weights stay about as they are; rate 0 would save products. */
    must(fl_model_step(u->model, &data, 1e-9f, NULL), "step");
  } else {
    must(fl_model_predict(u->model, &data, outputs, n * CLASSES), "predict");
  }
}

/* us of one, over a slice of time; the first one is not counted. */
static double time_of(const settings *s, subject *u, int what)
{
  size_t n = 0;
  if (!flk_nn_choose(u->isa)) exit(1);
  run_once(s, u, what, 0);
  double begin = now_us(), end;
  do {
    run_once(s, u, what, ++n);
    end = now_us();
  } while (end - begin < SLICE_US);
  return (end - begin) / (double)n;
}

/* The most that training takes beside the parameters. */
static void print_memory(const settings *s, uint32_t index)
{
  fl_context *context = new_context();
  fl_memory_plan plan;
  uint64_t peak = 0;
  subject u = {.recipe = models_recipe(index)};
  u.model = models_new(index, context);
  if (!u.model) must(FL_E_STATE, "model");
  must(fl_memory_plan_init(&plan, sizeof plan), "plan");
  must(fl_model_plan_memory(u.model, u.recipe.batch, 1, &plan), "plan");
  run_once(s, &u, STEP, 0);
  must(fl_context_get_memory(context, NULL, &peak), "memory");
  printf("%s_planned_bytes %llu\n", u.recipe.name,
         (unsigned long long)(plan.peak - plan.weights));
  printf("%s_measured_bytes %llu\n", u.recipe.name,
         (unsigned long long)(peak - plan.weights));
  fl_model_free(u.model);
  fl_context_free(context);
}

static void print_profile(const settings *s, subject *u)
{
  uint64_t n = 0;
  double begin = now_us();
  if (!flk_nn_choose(u->isa)) exit(1);
  profile_begin(u->model, now_us);
  do {
    run_once(s, u, STEP, (size_t)n++);
  } while (now_us() - begin < 4 * SLICE_US);
  profile_end(n, u->recipe.name, u->suffix);
}

static void print_subject(const settings *s, subject *u, double peak)
{
  double step = median(u->step, s->runs);
  double flops = model_flops(u->model, u->recipe.batch, 1);
  double rate = 1e-3 * flops / step;
  const char *name = u->recipe.name;
  printf("%s_step_us%s %.1f\n", name, u->suffix, step);
  printf("%s_forward_us%s %.1f\n", name, u->suffix,
         median(u->forward, s->runs));
  printf("%s_single_us%s %.2f\n", name, u->suffix, median(u->single, s->runs));
  printf("%s_step_gflops%s %.1f\n", name, u->suffix, rate);
  printf("%s_step_share%s %.3f\n", name, u->suffix, rate / peak);
  if (s->has_profile) print_profile(s, u);
}

/* Whether `text` is NAME or "all" of them. */
static int is_wanted(const char *text, const char *name)
{
  return strcmp(text, "all") == 0 || strcmp(text, name) == 0;
}

static size_t choose_isas(const settings *s, const char *isas[ISAS_MAX])
{
  size_t n = 0;
  if (strcmp(s->isa, "best") == 0) {
    isas[0] = flk_nn()->name;
    return 1;
  }
  for (size_t i = 0; flk_nn_at(i) && n < ISAS_MAX; i++) {
    if (is_wanted(s->isa, flk_nn_at(i)->name)) isas[n++] = flk_nn_at(i)->name;
  }
  return n;
}

static size_t make_subjects(const settings *s, const char *const *isas,
                            size_t n_isas, fl_context *context,
                            subject *subjects)
{
  size_t n = 0;
  for (uint32_t m = 0; m < MODELS; m++) {
    model_recipe recipe = models_recipe(m);
    if (!is_wanted(s->model, recipe.name)) continue;
    print_memory(s, m);
    for (size_t i = 0; i < n_isas; i++) {
      subject *u = &subjects[n++];
      *u = (subject){.recipe = recipe, .isa = isas[i]};
      u->model = models_new(m, context);
      if (!u->model) must(FL_E_STATE, "model");
      if (strcmp(s->isa, "best") == 0) continue;
      (void)snprintf(u->suffix, sizeof u->suffix, "_%s", u->isa);
    }
  }
  return n;
}

static int run_all(const settings *s, fl_context *context)
{
  static subject subjects[MODELS * ISAS_MAX];
  static double peaks[ISAS_MAX][RUNS_MAX];
  const char *isas[ISAS_MAX];
  size_t n_isas = choose_isas(s, isas);
  if (n_isas == 0) return 0;
  size_t n = make_subjects(s, isas, n_isas, context, subjects);
  if (n == 0) return 0;
  for (int r = 0; r < s->runs; r++) {
    for (size_t i = 0; i < n_isas; i++) {
      peaks[i][r] = peak_gflops(isas[i], now);
    }
    for (size_t i = 0; i < n; i++) {
      subjects[i].step[r] = time_of(s, &subjects[i], STEP);
      subjects[i].forward[r] = time_of(s, &subjects[i], FORWARD);
      subjects[i].single[r] = time_of(s, &subjects[i], SINGLE);
    }
  }
  double peak[ISAS_MAX];
  for (size_t i = 0; i < n_isas; i++) {
    peak[i] = median(peaks[i], s->runs);
    printf("peak_gflops%s %.1f\n", subjects[i].suffix, peak[i]);
  }
  for (size_t i = 0; i < n; i++) {
    print_subject(s, &subjects[i], peak[i % n_isas]);
    fl_model_free(subjects[i].model);
  }
  return 1;
}

static int parse_pair(settings *s, const char *name, const char *value)
{
  if (strcmp(name, "--model") == 0) {
    s->model = value;
  } else if (strcmp(name, "--isa") == 0) {
    s->isa = value;
  } else if (strcmp(name, "--runs") == 0) {
    s->runs = atoi(value);
  } else if (strcmp(name, "--threads") == 0) {
    s->threads = (uint32_t)atoi(value);
  } else if (strcmp(name, "--input") == 0) {
    s->is_u8 = strcmp(value, "u8") == 0;
    return s->is_u8 || strcmp(value, "f32") == 0;
  } else {
    return 0;
  }
  return 1;
}

static int parse(int argc, char **argv, settings *s)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--profile") == 0) {
      s->has_profile = 1;
    } else if (i + 1 == argc || !parse_pair(s, argv[i], argv[i + 1])) {
      return 0;
    } else {
      i++;
    }
  }
  return s->runs >= 1 && s->runs <= RUNS_MAX && s->threads >= 1 &&
         s->threads <= 64;
}

int main(int argc, char **argv)
{
  settings s = {.model = "all", .isa = "all", .runs = 15, .threads = 1};
  if (argc == 2 && strcmp(argv[1], "--help") == 0) {
    fputs(help, stdout);
    return 0;
  }
  if (!parse(argc, argv, &s)) {
    fputs(help, stderr);
    return 1;
  }
  draw_samples();
  if (s.threads > 1) {
    must(fli_host_pool_new(&pool, s.threads), "threads");
    clock_used = CLOCK_MONOTONIC;
  }
  fl_context *context = new_context();
  printf("threads %u\n", s.threads);
  int is_known = run_all(&s, context);
  if (!is_known) fprintf(stderr, "no such model or ISA here\n");
  fl_context_free(context);
  if (pool) fli_host_pool_free(pool);
  return !is_known;
}
