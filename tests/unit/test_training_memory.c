/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the four app-sized models: the plan is what is taken, limits name
 * the largest batch that fits, and steps take nothing, from the context, the
 * heap or the system. */
#ifdef __linux__
#  define _GNU_SOURCE
#endif
#include <fl/train.h>

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#  include <errno.h>
#  include <fcntl.h>
#  include <unistd.h>
#endif

#include "model/model.h"
#include "models.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#  define HAS_SANITIZER 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#    define HAS_SANITIZER 1
#  endif
#endif
#if defined(__GLIBC__) && defined(__linux__) && !defined(HAS_SANITIZER)
#  define SEES_HEAP 1
#endif

enum { MAX_BATCH = 64, SMALL_BATCH = 8, STEPS = 100 };
enum { KIB = 1024 };

static uint8_t pixels[MAX_BATCH * 784];
static int32_t labels[MAX_BATCH];

static fl_dataset data_of(uint32_t n)
{
  fl_dataset data;
  for (size_t i = 0; i < sizeof pixels; i++) {
    pixels[i] = (uint8_t)(i * 2654435761u >> 13);
  }
  for (size_t i = 0; i < MAX_BATCH; i++) {
    labels[i] = (int32_t)(i % 10);
  }
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x_dtype = FL_DTYPE_U8;
  data.x = pixels;
  data.y = labels;
  data.n = n;
  return data;
}

static uint64_t bytes_of(const fl_context *context)
{
  uint64_t now = 0;
  cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
  return now;
}

static fl_memory_plan plan_of(const fl_model *model, uint32_t batch,
                              int32_t is_training)
{
  fl_memory_plan plan;
  cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
  cr_assert_eq(fl_model_plan_memory(model, batch, is_training, &plan), FL_OK,
               "%s", fl_last_error());
  return plan;
}

/* What the context counts for a batch is what the plan says. */
static void check_plan(uint32_t index, int32_t is_training, int clips)
{
  fl_context *context = NULL;
  model_recipe recipe = models_recipe(index);
  fl_dataset data = data_of(recipe.batch);
  static float outputs[MAX_BATCH * 10];
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fl_model *model = models_new(index, context);
  cr_assert_not_null(model);
  recipe.optimiser.clip_norm = clips ? 1.0f : 0.0f;
  uint64_t before = bytes_of(context);
  cr_assert_eq(fl_model_set_optimiser(model, &recipe.optimiser), FL_OK);
  cr_assert_eq(bytes_of(context), before);
  fl_memory_plan plan = plan_of(model, recipe.batch, is_training);
  cr_assert_eq(bytes_of(context), before, "planning takes nothing");
  cr_assert_geq(before, plan.weights + plan.optimiser);
  if (is_training) {
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  } else {
    cr_assert_eq(fl_model_predict(model, &data, outputs, recipe.batch * 10),
                 FL_OK);
  }
  uint64_t taken = bytes_of(context) - before;
  cr_assert_eq(taken, plan.activations + plan.gradients,
               "%s: took %d, planned %d", recipe.name, (int)taken,
               (int)(plan.activations + plan.gradients));
  cr_assert_eq(plan.gradients > 0, is_training && clips);
  fl_model_free(model);
  cr_assert_eq(bytes_of(context), 0);
  fl_context_free(context);
}

Test(training_memory, plan_is_what_is_taken)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    check_plan(index, 0, 0);
    check_plan(index, 1, 0);
    check_plan(index, 1, 1);
  }
}

/* Goals for weights, state, gradients and activations together. */
Test(training_memory, plans_are_below_the_goals)
{
  static const uint64_t goals[MODELS] = {1300, 3000, 14000, 16000}; /* kB */
  for (uint32_t index = 0; index < MODELS; index++) {
    fl_model *model = models_new(index, NULL);
    cr_assert_not_null(model);
    fl_memory_plan plan = plan_of(model, models_recipe(index).batch, 1);
    cr_assert_leq(plan.peak, goals[index] * 1000, "%s: %d bytes",
                  models_recipe(index).name, (int)plan.peak);
    fl_model_free(model);
  }
}

Test(training_memory, plans_grow_with_the_batch)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    fl_model *model = models_new(index, NULL);
    uint64_t last = 0;
    cr_assert_not_null(model);
    for (uint32_t batch = 1; batch <= 257; batch += 64) {
      uint64_t training = plan_of(model, batch, 1).activations;
      cr_assert_gt(training, last);
      cr_assert_gt(training, plan_of(model, batch, 0).activations);
      last = training;
    }
    fl_model_free(model);
  }
}

/* ---- limits ---------------------------------------------------------------
 */

static uint32_t largest_named(void)
{
  const char *text = strstr(fl_last_error(), "largest batch that fits is ");
  unsigned batch = 0;
  cr_assert_not_null(text, "%s", fl_last_error());
  cr_assert_eq(sscanf(text, "largest batch that fits is %u", &batch), 1);
  return batch;
}

/* Scoring finds a batch that the limit allows, and stays below it. */
static void check_scoring(uint32_t index, uint64_t limit)
{
  fl_context *context = NULL;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fl_model *model = models_new(index, context);
  fl_dataset data = data_of(MAX_BATCH);
  fl_evaluation e;
  cr_assert_not_null(model);
  uint64_t others = bytes_of(context) - plan_of(model, 1, 0).weights -
                    plan_of(model, 1, 0).optimiser;
  cr_assert_eq(fl_model_set_memory_limit(model, limit), FL_OK);
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &data, &e), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(e.count, MAX_BATCH);
  cr_assert_leq(bytes_of(context), limit + others);
  cr_assert_eq(fl_model_set_memory_limit(model, 1), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &data, &e), FL_E_LIMIT);
  fl_model_free(model);
  fl_context_free(context);
}

static void check_limit(uint32_t index, uint32_t fits)
{
  fl_model *model = models_new(index, NULL);
  cr_assert_not_null(model);
  uint64_t limit = plan_of(model, fits, 1).peak;
  fl_dataset data = data_of(MAX_BATCH);
  size_t bytes = (size_t)model->n_weights * sizeof(float);
  float *before = malloc(bytes);
  cr_assert_not_null(before);
  memcpy(before, model->values, bytes);
  cr_assert_eq(fl_model_set_memory_limit(model, limit), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_LIMIT);
  uint32_t largest = largest_named();
  cr_assert(largest >= fits && largest < MAX_BATCH, "%u and %u", largest, fits);
  cr_assert_leq(plan_of(model, largest, 1).peak, limit);
  cr_assert_gt(plan_of(model, largest + 1, 1).peak, limit);
  data.n = largest + 1;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_LIMIT);
  cr_assert_arr_eq(before, model->values, bytes);
  data.n = largest;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_model_set_memory_limit(model, limit / 2), FL_OK);
  data.n = MAX_BATCH;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_LIMIT);
  cr_assert_eq(fl_model_set_memory_limit(model, 0), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  free(before);
  fl_model_free(model);
}

Test(training_memory, limit_names_the_largest_batch_that_fits)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    check_limit(index, 1);
    check_limit(index, 5);
    check_limit(index, 33);
  }
}

Test(training_memory, scoring_keeps_to_the_limit)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    fl_model *model = models_new(index, NULL);
    cr_assert_not_null(model);
    uint64_t limit = plan_of(model, 7, 1).peak;
    fl_model_free(model);
    check_scoring(index, limit);
  }
}

Test(training_memory, limit_below_everything_fits_no_batch)
{
  fl_model *model = models_new(1, NULL);
  fl_dataset data = data_of(1);
  cr_assert_not_null(model);
  cr_assert_eq(fl_model_set_memory_limit(model, 1), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_LIMIT);
  cr_assert_eq(largest_named(), 0);
  cr_assert_eq(fl_model_set_memory_limit(NULL, 1), FL_E_ARGUMENT);
  fl_model_free(model);
}

/* A model in a context of its own, which counts its bytes; `others` of them are
 * in no plan: names, layers, description. */
typedef struct limited {
  fl_context *context;
  fl_model *model;
  uint64_t others;
} limited;

static limited limited_new(uint32_t index)
{
  limited l = {0};
  cr_assert_eq(fl_context_new(&l.context, NULL), FL_OK);
  l.model = models_new(index, l.context);
  cr_assert_not_null(l.model);
  fl_memory_plan plan = plan_of(l.model, 1, 0);
  l.others = bytes_of(l.context) - plan.weights - plan.optimiser;
  return l;
}

static void limited_free(limited *l)
{
  fl_model_free(l->model);
  fl_context_free(l->context);
}

static uint64_t held_by(const limited *l)
{
  return bytes_of(l->context) - l->others;
}

static void clip_from_now_on(fl_model *model)
{
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_model_get_optimiser(model, &o), FL_OK);
  o.clip_norm = 1.0f;
  cr_assert_eq(fl_model_set_optimiser(model, &o), FL_OK);
}

Test(training_memory, gathering_refused_leaves_steps_as_they_were)
{
  limited l = limited_new(0);
  fl_dataset data = data_of(SMALL_BATCH);
  uint64_t limit = plan_of(l.model, SMALL_BATCH, 1).peak;
  cr_assert_eq(fl_model_set_memory_limit(l.model, limit), FL_OK);
  cr_assert_eq(fl_model_step(l.model, &data, 0.1f, NULL), FL_OK);
  uint64_t held = held_by(&l);
  cr_assert_eq(fl_model_accumulate(l.model, &data, NULL), FL_E_LIMIT);
  cr_assert_eq(held_by(&l), held);
  cr_assert_eq(plan_of(l.model, SMALL_BATCH, 1).gradients, 0);
  cr_assert_eq(fl_model_step(l.model, &data, 0.1f, NULL), FL_OK, "%s",
               fl_last_error());
  limited_free(&l);
}

Test(training_memory, refused_batch_keeps_no_gradient)
{
  limited l = limited_new(0);
  fl_dataset data = data_of(MAX_BATCH);
  clip_from_now_on(l.model);
  uint64_t held = held_by(&l);
  uint64_t limit = plan_of(l.model, SMALL_BATCH, 1).peak;
  cr_assert_eq(fl_model_set_memory_limit(l.model, limit), FL_OK);
  cr_assert_eq(fl_model_step(l.model, &data, 0.1f, NULL), FL_E_LIMIT);
  cr_assert_eq(held_by(&l), held);
  limited_free(&l);
}

/* What was taken for a large score is in a small gathered step's way, and its
 * gradient then in that of the next large score. */
Test(training_memory, what_is_held_stays_within_the_limit)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    limited l = limited_new(index);
    fl_dataset many = data_of(MAX_BATCH);
    fl_dataset few = data_of(SMALL_BATCH);
    static float outputs[MAX_BATCH * 10];
    clip_from_now_on(l.model);
    uint64_t gathered = plan_of(l.model, SMALL_BATCH, 1).peak;
    uint64_t scored = plan_of(l.model, MAX_BATCH, 0).peak;
    uint64_t limit = gathered > scored ? gathered : scored;
    cr_assert_eq(fl_model_set_memory_limit(l.model, limit), FL_OK);
    for (int i = 0; i < 3; i++) {
      cr_assert_eq(
          fl_model_predict(l.model, &many, outputs, MAX_BATCH * (uint64_t)10),
          FL_OK, "%s", fl_last_error());
      cr_assert_leq(held_by(&l), limit, "model %u: %llu", index,
                    (unsigned long long)held_by(&l));
      cr_assert_eq(fl_model_step(l.model, &few, 0.1f, NULL), FL_OK, "%s",
                   fl_last_error());
      cr_assert_leq(held_by(&l), limit, "model %u: %llu", index,
                    (unsigned long long)held_by(&l));
    }
    limited_free(&l);
  }
}

Test(training_memory, settings_give_activations_back_below_a_limit)
{
  limited l = limited_new(0);
  fl_dataset data = data_of(SMALL_BATCH);
  uint64_t limit = plan_of(l.model, SMALL_BATCH, 1).peak;
  fl_memory_plan plan = plan_of(l.model, 1, 0);
  cr_assert_eq(fl_model_set_memory_limit(l.model, limit), FL_OK);
  cr_assert_eq(fl_model_step(l.model, &data, 0.1f, NULL), FL_OK);
  cr_assert_gt(held_by(&l), plan.weights + plan.optimiser);
  clip_from_now_on(l.model);
  cr_assert_eq(held_by(&l), plan.weights + plan.optimiser);
  limited_free(&l);
}

/* ---- steps allocate nothing ----------------------------------------------
 */

typedef struct counts {
  uint64_t allocs;
  uint64_t frees;
} counts;

static void *count_alloc(void *user, size_t size, size_t alignment)
{
  ((counts *)user)->allocs++;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void count_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  (void)size;
  (void)alignment;
  ((counts *)user)->frees++;
  free(ptr);
}

/* Calls of the C library's allocator by anybody in this process: these stand
 * before the library's own. */
static atomic_uint_fast64_t heap_calls;

#ifdef SEES_HEAP
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *ptr, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
  atomic_fetch_add(&heap_calls, 1);
  return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
  atomic_fetch_add(&heap_calls, 1);
  return __libc_calloc(count, n);
}

void *realloc(void *ptr, size_t n)
{
  atomic_fetch_add(&heap_calls, 1);
  return __libc_realloc(ptr, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
  atomic_fetch_add(&heap_calls, 1);
  return __libc_memalign(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
  atomic_fetch_add(&heap_calls, 1);
  *out = __libc_memalign(alignment, n);
  return *out ? 0 : ENOMEM;
}
#endif

/* What the process has of the system: the break and pages that are mapped, and
 * what it has asked the heap for. Zeros where that cannot be seen. */
typedef struct footprint {
  uintptr_t end;
  unsigned long pages;
  uint64_t heap_calls;
} footprint;

static footprint look(void)
{
  footprint f = {.heap_calls = atomic_load(&heap_calls)};
#ifdef SEES_HEAP
  char text[128] = {0};
  int file = open("/proc/self/statm", O_RDONLY);
  cr_assert_geq(file, 0);
  cr_assert_gt(read(file, text, sizeof text - 1), 0);
  cr_assert_eq(sscanf(text, "%lu", &f.pages), 1);
  (void)close(file);
  f.end = (uintptr_t)sbrk(0);
#endif
  return f;
}

static void check_steps(uint32_t index, int gathers)
{
  fl_context *context = NULL;
  fl_context_options options;
  counts seen = {0};
  model_recipe recipe = models_recipe(index);
  fl_dataset data = data_of(SMALL_BATCH);
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.alloc = count_alloc;
  options.dealloc = count_dealloc;
  options.user = &seen;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fl_model *model = models_new(index, context);
  cr_assert_not_null(model);
  recipe.optimiser.clip_norm = gathers ? 1.0f : 0.0f;
  cr_assert_eq(fl_model_set_optimiser(model, &recipe.optimiser), FL_OK);
  /* The first one plans, and the stack has grown. */
  cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  (void)look();
  counts before = seen;
  footprint first = look();
  for (uint32_t i = 0; i < STEPS; i++) {
    data.n = SMALL_BATCH - i % 3;
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  }
  footprint last = look();
  cr_assert_eq(seen.allocs, before.allocs);
  cr_assert_eq(seen.frees, before.frees);
  cr_assert_eq(last.end, first.end, "%s: the break has moved", recipe.name);
  cr_assert_eq(last.pages, first.pages, "%s: %lu pages, then %lu", recipe.name,
               first.pages, last.pages);
  cr_assert_eq(last.heap_calls, first.heap_calls, "%s", recipe.name);
  fl_model_free(model);
  fl_context_free(context);
}

Test(training_memory, hundred_steps_take_nothing)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    check_steps(index, 0);
    check_steps(index, 1);
  }
}

#ifdef SEES_HEAP
/* What the test above looks at does change when something is taken. */
Test(training_memory, allocations_would_be_seen)
{
  (void)look();
  footprint first = look();
  void *small = malloc(1);
  footprint second = look();
  void *large = aligned_alloc(64, 64 * KIB * KIB);
  footprint third = look();
  cr_assert(small && large);
  cr_assert_gt(second.heap_calls, first.heap_calls);
  cr_assert_gt(third.heap_calls, second.heap_calls);
  cr_assert_gt(third.pages, second.pages);
  free(small);
  free(large);
}
#endif
