/* SPDX-License-Identifier: Apache-2.0 */
/* A federated job with and without freezing, from weights that are drawn and
 * from the start of the fine-tuning job: what clients save, and what goes over
 * the wire. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRATCH, PRETRAINED, STARTS };
enum { BASE, FREEZING, RUNS };

static const char *const names[STARTS][RUNS] = {
    {"scratch, base", "scratch, freezing"},
    {"pretrained, base", "pretrained, freezing"}};
static const char *const starts[STARTS] = {"scratch", "pretrained"};

typedef struct tables {
  kgt_federated_result results[KGT_SEEDS][STARTS][RUNS];
  uint32_t n;
} tables;

typedef double (*figure_fn)(const kgt_federated_result *runs);

static double saved(double own, double base)
{
  return 100.0 * (1.0 - own / base);
}

static double accuracy(const kgt_federated_result *runs)
{
  return runs[BASE].accuracy;
}

static double delta(const kgt_federated_result *runs)
{
  return runs[FREEZING].accuracy - runs[BASE].accuracy;
}

static double cpu_saved(const kgt_federated_result *runs)
{
  return saved(runs[FREEZING].cpu_us, runs[BASE].cpu_us);
}

static double compute_saved(const kgt_federated_result *runs)
{
  return saved(runs[FREEZING].flops, runs[BASE].flops);
}

static double up_saved(const kgt_federated_result *runs)
{
  return saved(runs[FREEZING].bytes_up, runs[BASE].bytes_up);
}

static double down_saved(const kgt_federated_result *runs)
{
  return saved(runs[FREEZING].bytes_down, runs[BASE].bytes_down);
}

static double bytes_saved(const kgt_federated_result *runs)
{
  return saved(runs[FREEZING].bytes_up + runs[FREEZING].bytes_down,
               runs[BASE].bytes_up + runs[BASE].bytes_down);
}

static void print_mean(const tables *t, uint32_t start, const char *what,
                       figure_fn figure, int has_interval)
{
  char key[64];
  double values[KGT_SEEDS];
  for (uint32_t i = 0; i < t->n; i++)
    values[i] = figure(t->results[i][start]);
  (void)snprintf(key, sizeof key, "federated_%s_%s", starts[start], what);
  (void)kgt_print_mean(key, values, t->n, has_interval);
}

static void print_start(const tables *t, uint32_t start)
{
  print_mean(t, start, "acc_base", accuracy, 0);
  print_mean(t, start, "acc_delta", delta, 1);
  print_mean(t, start, "cpu_saved_pct", cpu_saved, 0);
  print_mean(t, start, "compute_saved_pct", compute_saved, 0);
  print_mean(t, start, "bytes_saved_pct", bytes_saved, 0);
  print_mean(t, start, "bytes_up_saved_pct", up_saved, 0);
  print_mean(t, start, "bytes_down_saved_pct", down_saved, 0);
  printf("federated_%s_frozen ", starts[start]);
  for (uint32_t i = 0; i < t->n; i++)
    printf("%s%s", i > 0 ? ";" : "", t->results[i][start][FREEZING].frozen);
  printf("\n");
}

static int has_start(const kgt_settings *settings, uint32_t start)
{
  return (settings->starts & (start == SCRATCH ? KGT_DRAWN : KGT_TRAINED)) != 0;
}

static void print_seed(const kgt_settings *settings,
                       const kgt_federated_result results[STARTS][RUNS],
                       uint64_t seed)
{
  static const char *const runs[RUNS] = {"base", "freezing"};
  for (uint32_t i = 0; i < STARTS * RUNS; i++) {
    if (!has_start(settings, i / RUNS)) continue;
    char key[64], name[96];
    const kgt_federated_result *r = &results[i / RUNS][i % RUNS];
    (void)snprintf(key, sizeof key, "seed%u_%s_%s", (unsigned)seed,
                   starts[i / RUNS], runs[i % RUNS]);
    (void)snprintf(name, sizeof name, "%s_acc", key);
    kgt_print(name, r->accuracy);
    (void)snprintf(name, sizeof name, "%s_cpu_s", key);
    kgt_print(name, 1e-6 * r->cpu_us);
    (void)snprintf(name, sizeof name, "%s_up_bytes", key);
    kgt_print(name, r->bytes_up);
    (void)snprintf(name, sizeof name, "%s_down_bytes", key);
    kgt_print(name, r->bytes_down);
    printf("%s_frozen %s\n", key, r->frozen);
  }
  (void)fflush(stdout);
}

static void run_seed(const kgt_bench *bench, const kgt_settings *settings,
                     uint64_t seed, kgt_federated_result results[STARTS][RUNS])
{
  float *weights = kgt_pretrain(bench, seed);
  for (uint32_t i = 0; i < STARTS * RUNS; i++) {
    const uint32_t start = i / RUNS, run = i % RUNS;
    if (!has_start(settings, start)) continue;
    kgt_federation federation = {
        .name = names[start][run],
        .seed = seed,
        .weights = start == PRETRAINED ? weights : NULL,
        .rate = settings->rate,
        .gap = settings->gap,
        .is_pretrained = start == PRETRAINED,
        .is_freezing = run == FREEZING,
        .is_verbose = settings->is_verbose,
    };
    kgt_run_federation(bench, &federation, &results[start][run]);
  }
  free(weights);
}

void kgt_part_federated(const kgt_bench *bench, const kgt_settings *settings)
{
  static tables t;
  uint32_t runs = 0;
  for (uint32_t start = 0; start < STARTS; start++)
    runs += has_start(settings, start) ? RUNS : 0;
  t.n = settings->n_seeds;
  kgt_progress_begin(
      t.n * (kgt_steps_before(bench) + runs * kgt_steps_of_federation(bench)));
  for (uint32_t i = 0; i < t.n; i++) {
    run_seed(bench, settings, settings->seeds[i], t.results[i]);
    print_seed(settings, t.results[i], settings->seeds[i]);
  }
  kgt_print("federated_seeds", t.n);
  for (uint32_t start = 0; start < STARTS; start++) {
    if (has_start(settings, start)) print_start(&t, start);
  }
}
