/* SPDX-License-Identifier: Apache-2.0 */
/* What a controller costs that evaluates as often as it does by default, and
 * never freezes: two models take the same steps in turns, one with it. Blocks
 * are long enough for a new snapshot, and compared as a whole. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEED = 1, EVALUATIONS = 8, INTERVALS_PER_EPOCH = 16 };

typedef struct pair {
  const kgt_bench *bench;
  uint32_t *places;
  fl_model *models[2];
  fl_freeze_options options;
  uint64_t evaluations;
} pair;

/* Steps of a half, of each model, that count. */
static uint64_t half_of(const kgt_bench *bench)
{
  uint64_t interval = bench->steps_per_epoch / INTERVALS_PER_EPOCH;
  return EVALUATIONS * (interval < 2 ? 2 : interval);
}

static int blocks_of(int runs)
{
  return (runs + 1) / 2;
}

uint64_t kgt_steps_of_overhead(const kgt_bench *bench, int runs)
{
  return 4 * (half_of(bench) + 1) * (uint64_t)blocks_of(runs);
}

/* Adds what steps take without a controller, and with one at this model. */
static void take_half(pair *p, uint32_t which, double us[2])
{
  kgt_control control;
  kgt_control_open(&control, p->bench, p->models[which], &p->options, 0);
  for (uint64_t i = 0; i <= half_of(p->bench); i++) {
    for (uint32_t k = 0; k < 2; k++) {
      uint32_t model = (uint32_t)(i + k) % 2;
      double step = kgt_time_step(p->bench, p->models[model], i, p->places);
      if (i > 0) us[model == which] += step;
      kgt_progress_step("overhead");
    }
  }
  p->evaluations += kgt_control_poll(&control);
  kgt_control_close(&control);
}

/* % that the controller adds. Each model has it once: where they lie in memory
 * makes a difference. */
static double take_block(pair *p)
{
  double us[2] = {0.0, 0.0};
  take_half(p, 0, us);
  take_half(p, 1, us);
  return 100.0 * (us[1] / us[0] - 1.0);
}

static void print_all(const char *key, double *shares, size_t n,
                      uint64_t evaluations)
{
  char name[64];
  (void)snprintf(name, sizeof name, "%s_pct", key);
  kgt_print(name, kgt_median(shares, n));
  (void)snprintf(name, sizeof name, "%s_pct_quartile1", key);
  kgt_print(name, kgt_quantile(shares, n, .25));
  (void)snprintf(name, sizeof name, "%s_pct_quartile3", key);
  kgt_print(name, kgt_quantile(shares, n, .75));
  (void)snprintf(name, sizeof name, "%s_evaluations", key);
  kgt_print(name, (double)evaluations);
}

void kgt_print_overhead(const kgt_bench *bench, int runs, uint32_t criterion,
                        const char *key)
{
  size_t n = (size_t)blocks_of(runs);
  pair p = {.bench = bench, .options = kgt_idle_options(bench, criterion)};
  double *shares = kgt_get(n, sizeof *shares);
  p.places = kgt_get(bench->sizes.batch, sizeof *p.places);
  for (uint32_t i = 0; i < 2; i++)
    p.models[i] = kgt_model(bench, SEED);
  for (size_t i = 0; i < n; i++)
    shares[i] = take_block(&p);
  print_all(key, shares, n, p.evaluations);
  fl_model_free(p.models[0]);
  fl_model_free(p.models[1]);
  free(p.places);
  free(shares);
  kgt_progress_line(key);
}
