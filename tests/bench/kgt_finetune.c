/* SPDX-License-Identifier: Apache-2.0 */
/* The job as it is, with the controller (its activations kept or not), with the
 * schedule that a grid has found, and cut to the time that the controller
 * needs: what each saves, and what it costs in accuracy. */
#include "kgt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BASE, FREEZING, CACHED, ORACLE, SHORTENED, RUNS };

static const char *const names[RUNS] = {"base", "freezing", "cached", "oracle",
                                        "shortened"};

typedef struct tables {
  kgt_prices prices;
  kgt_result results[KGT_SEEDS][RUNS];
  uint32_t n;
} tables;

typedef double (*figure_fn)(const tables *t, uint32_t seed, uint32_t run);

static uint64_t all_steps(const kgt_result *result)
{
  uint64_t n = 0;
  for (uint32_t f = 0; f < KGT_FROZEN; f++)
    n += result->steps[f][0] + result->steps[f][1];
  return n;
}

/* At the prices, without a cache. */
static double saved(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return 100.0 * (1.0 - kgt_cost(&t->prices, &r[run], 0) /
                            kgt_cost(&t->prices, &r[BASE], 0));
}

static double saved_cache(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return 100.0 * (1.0 - kgt_cost(&t->prices, &r[run], 1) /
                            kgt_cost(&t->prices, &r[BASE], 0));
}

static double ideal(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return 100.0 * (1.0 - kgt_ideal(&t->prices, &r[run], 0) /
                            kgt_cost(&t->prices, &r[BASE], 0));
}

static double ideal_cache(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return 100.0 * (1.0 - kgt_ideal(&t->prices, &r[run], 1) /
                            kgt_cost(&t->prices, &r[BASE], 0));
}

/* By the clock. */
static double cpu_saved(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return 100.0 * (1.0 - r[run].cpu_us / r[BASE].cpu_us);
}

static double delta(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return r[run].accuracy - r[BASE].accuracy;
}

static double over_shortened(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return r[run].accuracy - r[SHORTENED].accuracy;
}

static double accuracy(const tables *t, uint32_t seed, uint32_t run)
{
  return t->results[seed][run].accuracy;
}

/* Steps that the cache has given the frozen modules' outputs for. */
static double hits(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = &t->results[seed][run];
  uint64_t n = 0;
  for (uint32_t f = 0; f < KGT_FROZEN; f++)
    n += r->steps[f][1];
  return 100.0 * (double)n / (double)all_steps(r);
}

static double share_of_steps(const tables *t, uint32_t seed, uint32_t run)
{
  const kgt_result *r = t->results[seed];
  return (double)all_steps(&r[run]) / (double)all_steps(&r[BASE]);
}

/* Mean over the seeds; with `has_interval` also its 95 % interval. */
static double print_mean(const tables *t, const char *key, figure_fn figure,
                         uint32_t run, int has_interval)
{
  double values[KGT_SEEDS];
  for (uint32_t i = 0; i < t->n; i++)
    values[i] = figure(t, i, run);
  return kgt_print_mean(key, values, t->n, has_interval);
}

static void print_seed(const tables *t, uint32_t i, uint64_t seed)
{
  char key[96];
  for (uint32_t run = 0; run < RUNS; run++) {
    const kgt_result *r = &t->results[i][run];
    (void)snprintf(key, sizeof key, "seed%u_%s_acc", (unsigned)seed,
                   names[run]);
    kgt_print(key, r->accuracy);
    (void)snprintf(key, sizeof key, "seed%u_%s_cpu_s", (unsigned)seed,
                   names[run]);
    kgt_print(key, 1e-6 * r->cpu_us);
    (void)snprintf(key, sizeof key, "seed%u_%s_saved_pct", (unsigned)seed,
                   names[run]);
    kgt_print(key, run == CACHED ? saved_cache(t, i, run) : saved(t, i, run));
    printf("seed%u_%s_frozen %s\n", (unsigned)seed, names[run], r->frozen);
  }
  (void)fflush(stdout);
}

static void print_all(const tables *t)
{
  int is_same = 1;
  for (uint32_t i = 0; i < t->n; i++)
    is_same &= t->results[i][FREEZING].losses == t->results[i][CACHED].losses;
  kgt_print("finetune_seeds", t->n);
  (void)print_mean(t, "finetune_acc_base", accuracy, BASE, 0);
  double own = print_mean(t, "finetune_saved_pct", saved, FREEZING, 0);
  (void)print_mean(t, "finetune_saved_cache_pct", saved_cache, CACHED, 0);
  (void)print_mean(t, "finetune_cpu_saved_pct", cpu_saved, FREEZING, 0);
  (void)print_mean(t, "finetune_cpu_saved_cache_pct", cpu_saved, CACHED, 0);
  (void)print_mean(t, "finetune_ideal_pct", ideal, FREEZING, 0);
  (void)print_mean(t, "finetune_ideal_cache_pct", ideal_cache, CACHED, 0);
  (void)print_mean(t, "finetune_acc_delta", delta, FREEZING, 1);
  (void)print_mean(t, "finetune_cache_hit_pct", hits, CACHED, 0);
  kgt_print("finetune_cache_same_losses", is_same);
  double best = print_mean(t, "oracle_saved_pct", saved, ORACLE, 0);
  (void)print_mean(t, "oracle_saved_cache_pct", saved_cache, ORACLE, 0);
  (void)print_mean(t, "oracle_cpu_saved_pct", cpu_saved, ORACLE, 0);
  (void)print_mean(t, "oracle_ideal_pct", ideal, ORACLE, 0);
  (void)print_mean(t, "oracle_ideal_cache_pct", ideal_cache, ORACLE, 0);
  (void)print_mean(t, "oracle_acc_delta", delta, ORACLE, 1);
  (void)print_mean(t, "shortened_saved_pct", saved, SHORTENED, 0);
  (void)print_mean(t, "shortened_cpu_saved_pct", cpu_saved, SHORTENED, 0);
  (void)print_mean(t, "shortened_share_of_steps", share_of_steps, SHORTENED, 0);
  (void)print_mean(t, "shortened_acc_delta", delta, SHORTENED, 1);
  (void)print_mean(t, "finetune_over_shortened", over_shortened, FREEZING, 1);
  kgt_print("finetune_share_of_oracle_pct", 100.0 * own / best);
}

/* Steps that cost as much as the controller's run. */
static uint64_t shortened_steps(const tables *t, const kgt_result *freezing)
{
  double cost = kgt_cost(&t->prices, freezing, 0);
  return (uint64_t)llround(cost / t->prices.step[0][KGT_PLAIN]);
}

static void run_seed(const kgt_bench *bench, const kgt_settings *settings,
                     tables *t, uint32_t index)
{
  kgt_result *results = t->results[index];
  float *weights = kgt_pretrain(bench, settings->seeds[index]);
  for (uint32_t run = 0; run < RUNS; run++) {
    int is_freezing = run == FREEZING || run == CACHED;
    kgt_recipe recipe = {
        .name = names[run],
        .seed = settings->seeds[index],
        .weights = weights,
        .rate = settings->rate,
        .steps = bench->sizes.epochs * bench->steps_per_epoch,
        .schedule = run == ORACLE ? &settings->oracle : NULL,
        .criterion = is_freezing ? settings->criterion : 0,
        .has_cache = run == CACHED,
    };
    if (run == SHORTENED) recipe.steps = shortened_steps(t, &results[FREEZING]);
    kgt_run(bench, &recipe, &results[run]);
  }
  free(weights);
}

void kgt_part_finetune(const kgt_bench *bench, const kgt_settings *settings)
{
  static tables t;
  uint64_t job = bench->sizes.epochs * bench->steps_per_epoch;
  t.n = settings->n_seeds;
  kgt_progress_begin(kgt_steps_of_prices(bench, settings->runs) +
                     t.n * (kgt_steps_before(bench) + RUNS * job));
  kgt_measure_prices(bench, settings->runs, settings->criterion, &t.prices);
  kgt_print_prices(&t.prices);
  for (uint32_t i = 0; i < t.n; i++) {
    run_seed(bench, settings, &t, i);
    print_seed(&t, i, settings->seeds[i]);
  }
  print_all(&t);
}
