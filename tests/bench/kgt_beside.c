/* SPDX-License-Identifier: Apache-2.0 */
/* How long steps last, by the wall clock, while plasticity is evaluated in the
 * step that asks for it, or beside that one and the next three: on a host whose
 * second thread is there for that alone, and on one whose steps use it, too.
 * Jobs take turns of an interval each, at whose end nothing is under way. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>

#include "../pool_hooks.h"

enum { SEED = 1, INTERVAL = 4, LAG = INTERVAL - 1, THREADS = 2 };
enum { PLAIN, INLINE, BESIDE, WAYS };
enum { TASKS_ALONE, STEPS_TOO, HOSTS };

typedef struct turns {
  kgt_bench bench; /* with the host's context */
  fl_model *models[WAYS];
  kgt_control controls[WAYS];
  uint64_t step;
  uint32_t *places;
  double *asking[WAYS]; /* us of the step that asks */
  double *all[WAYS];    /* us of the interval that begins with it */
} turns;

static double time_step(turns *t, uint32_t way, uint64_t i)
{
  double begin = kgt_wall_us();
  (void)kgt_time_step(&t->bench, t->models[way], i, t->places);
  kgt_progress_step("beside");
  return kgt_wall_us() - begin;
}

/* Number `round` is kept; < 0: none. */
static void take_turn(turns *t, uint32_t way, int round)
{
  double asking = time_step(t, way, t->step);
  double all = asking;
  for (uint64_t i = 1; i < INTERVAL; i++)
    all += time_step(t, way, t->step + i);
  if (round < 0) return;
  t->asking[way][round] = asking;
  t->all[way][round] = all;
}

static void open_turns(turns *t, uint32_t criterion, int runs)
{
  fl_freeze_options options = kgt_idle_options(&t->bench, criterion);
  options.interval = INTERVAL;
  t->places = kgt_get(t->bench.sizes.batch, sizeof *t->places);
  for (uint32_t way = 0; way < WAYS; way++) {
    t->models[way] = kgt_model(&t->bench, SEED);
    t->asking[way] = kgt_get((size_t)runs, sizeof(double));
    t->all[way] = kgt_get((size_t)runs, sizeof(double));
    options.lag = way == BESIDE ? LAG : 0;
    if (way != PLAIN) {
      kgt_control_open(&t->controls[way], &t->bench, t->models[way], &options,
                       0);
    }
    for (uint64_t i = 0; i + 1 < INTERVAL; i++)
      (void)time_step(t, way, i);
  }
  t->step = INTERVAL - 1;
}

static void close_turns(turns *t)
{
  for (uint32_t way = 0; way < WAYS; way++) {
    if (way != PLAIN) kgt_control_close(&t->controls[way]);
    fl_model_free(t->models[way]);
    free(t->asking[way]);
    free(t->all[way]);
  }
  free(t->places);
}

static void print_turns(turns *t, const char *host, int runs)
{
  static const char *const ways[WAYS] = {"plain", "inline", "beside"};
  char key[64];
  for (uint32_t way = 0; way < WAYS; way++) {
    (void)snprintf(key, sizeof key, "%s_%s_asking_step_us", host, ways[way]);
    kgt_print(key, kgt_median(t->asking[way], (size_t)runs));
    (void)snprintf(key, sizeof key, "%s_%s_interval_us", host, ways[way]);
    kgt_print(key, kgt_median(t->all[way], (size_t)runs));
    if (way == PLAIN) continue;
    (void)snprintf(key, sizeof key, "%s_%s_evaluations", host, ways[way]);
    kgt_print(key, (double)kgt_control_poll(&t->controls[way]));
  }
}

void kgt_part_beside(const kgt_bench *bench, const kgt_settings *settings)
{
  static const char *const names[HOSTS] = {"tasks_alone", "steps_too"};
  const uint32_t criterion = settings->criterion == FL_FREEZE_GRADNORM
                                 ? FL_FREEZE_RELATIVE_PLASTICITY
                                 : settings->criterion;
  fli_host_pool *pool = NULL;
  kgt_progress_begin((uint64_t)HOSTS * WAYS *
                     (INTERVAL * (uint64_t)(settings->runs + 2) - 1));
  kgt_must(fli_host_pool_new(&pool, THREADS), "pool");
  for (int host = 0; host < HOSTS; host++) {
    turns t = {.bench = *bench};
    kgt_must(pool_context(&t.bench.context, pool, host == STEPS_TOO),
             "context");
    open_turns(&t, criterion, settings->runs);
    for (int round = -1; round < settings->runs; round++) {
      for (uint32_t k = 0; k < WAYS; k++)
        take_turn(&t, (k + (uint32_t)(round + 1)) % WAYS, round);
      t.step += INTERVAL;
    }
    print_turns(&t, names[host], settings->runs);
    close_turns(&t);
    fl_context_free(t.bench.context);
  }
  fli_host_pool_free(pool);
  kgt_progress_line("beside");
}
