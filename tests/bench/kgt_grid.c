/* SPDX-License-Identifier: Apache-2.0 */
/* What is chosen on the tuning seeds: the rate of the base, and the fixed
 * schedule that saves most without losing more than .3 points. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIRST_EPOCHS = 3, SECOND_EPOCHS = 4, THIRD_EPOCHS = 3, CELLS = 36 };

#define NEVER UINT32_MAX
#define LOSS_ALLOWED (-.3)

static const uint32_t first_epochs[FIRST_EPOCHS] = {0, 2, 4};
static const uint32_t second_epochs[SECOND_EPOCHS] = {NEVER, 2, 4, 6};
static const uint32_t third_epochs[THIRD_EPOCHS] = {NEVER, 6, 8};
static const float rates[] = {.01f, .02f, .03f, .05f, .08f};

enum { RATES = sizeof rates / sizeof *rates };

typedef struct cell {
  kgt_schedule schedule;
  char text[32]; /* as --oracle takes it */
  char key[64];
  kgt_result results[KGT_SEEDS];
} cell;

static void add_row(cell *c, uint32_t epoch, uint32_t first_active)
{
  kgt_schedule *s = &c->schedule;
  char *text = c->text, *key = c->key;
  size_t n = s->n++;
  s->epochs[n] = epoch;
  s->first_active[n] = first_active;
  for (; *text; text++) {
  }
  for (; *key; key++) {
  }
  (void)snprintf(text, sizeof c->text - (size_t)(text - c->text), "%s%u:%u",
                 n ? "," : "", epoch, first_active);
  (void)snprintf(key, sizeof c->key - (size_t)(key - c->key), "_%uat%u",
                 first_active, epoch);
}

/* Whether the second module may freeze then. With the first one, it does so at
 * once. */
static int make_cell(cell *c, uint32_t first, uint32_t second, uint32_t third)
{
  *c = (cell){.key = "grid"};
  if (second == NEVER && third != NEVER) return 0;
  if (second < first || (third != NEVER && third <= second)) return 0;
  if (second != first) add_row(c, first, 1);
  if (second != NEVER) add_row(c, second, 2);
  if (third != NEVER) add_row(c, third, 3);
  return 1;
}

static uint32_t make_cells(cell cells[CELLS])
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < FIRST_EPOCHS * SECOND_EPOCHS * THIRD_EPOCHS; i++) {
    n += (uint32_t)make_cell(&cells[n],
                             first_epochs[i / (SECOND_EPOCHS * THIRD_EPOCHS)],
                             second_epochs[i / THIRD_EPOCHS % SECOND_EPOCHS],
                             third_epochs[i % THIRD_EPOCHS]);
  }
  return n;
}

static void print_of(const char *key, const char *what, double value)
{
  char name[96];
  (void)snprintf(name, sizeof name, "%s_%s", key, what);
  kgt_print(name, value);
}

/* Of the schedules that lose little, the one that saves most. */
typedef struct best {
  const cell *cell; /* NULL: none */
  double saved;
} best;

static void prefer(best *b, const cell *c, double loss, double saved)
{
  if (loss < LOSS_ALLOWED || (b->cell && saved <= b->saved)) return;
  *b = (best){c, saved};
}

static void print_best(const char *key, const best *b)
{
  printf("%s %s\n", key, b->cell ? b->cell->text : "none");
}

static void print_cell(const kgt_prices *prices, const kgt_result *base,
                       const cell *c, uint32_t n_seeds, best bests[2])
{
  double lost[KGT_SEEDS], saved[2][KGT_SEEDS];
  for (uint32_t i = 0; i < n_seeds; i++) {
    lost[i] = c->results[i].accuracy - base[i].accuracy;
    for (int k = 0; k < 2; k++) {
      saved[k][i] = 100.0 * (1.0 - kgt_cost(prices, &c->results[i], k) /
                                       kgt_cost(prices, &base[i], 0));
    }
  }
  double loss = kgt_mean(lost, n_seeds);
  print_of(c->key, "saved_pct", kgt_mean(saved[0], n_seeds));
  print_of(c->key, "saved_cache_pct", kgt_mean(saved[1], n_seeds));
  print_of(c->key, "acc_delta", loss);
  print_of(c->key, "acc_delta_half_interval", kgt_half_interval(lost, n_seeds));
  for (int k = 0; k < 2; k++)
    prefer(&bests[k], c, loss, kgt_mean(saved[k], n_seeds));
}

static kgt_recipe recipe_of(const kgt_bench *bench,
                            const kgt_settings *settings, const char *name,
                            uint32_t seed, const float *weights)
{
  return (kgt_recipe){.name = name,
                      .seed = settings->seeds[seed],
                      .weights = weights,
                      .rate = settings->rate,
                      .steps = bench->sizes.epochs * bench->steps_per_epoch};
}

void kgt_part_grid(const kgt_bench *bench, const kgt_settings *settings)
{
  static cell cells[CELLS];
  kgt_result base[KGT_SEEDS];
  kgt_prices prices;
  best bests[2] = {{0}};
  uint32_t n = make_cells(cells);
  uint64_t job = bench->sizes.epochs * bench->steps_per_epoch;
  kgt_progress_begin(kgt_steps_of_prices(bench, settings->runs) +
                     settings->n_seeds *
                         (kgt_steps_before(bench) + (n + 1) * job));
  kgt_measure_prices(bench, settings->runs, settings->criterion, &prices);
  kgt_print_prices(&prices);
  for (uint32_t i = 0; i < settings->n_seeds; i++) {
    float *weights = kgt_pretrain(bench, settings->seeds[i]);
    kgt_recipe recipe = recipe_of(bench, settings, "base", i, weights);
    kgt_run(bench, &recipe, &base[i]);
    for (uint32_t k = 0; k < n; k++) {
      recipe.name = cells[k].text;
      recipe.schedule = &cells[k].schedule;
      kgt_run(bench, &recipe, &cells[k].results[i]);
    }
    free(weights);
  }
  for (uint32_t k = 0; k < n; k++)
    print_cell(&prices, base, &cells[k], settings->n_seeds, bests);
  print_best("grid_best", &bests[0]);
  print_best("grid_best_cache", &bests[1]);
}

void kgt_part_rates(const kgt_bench *bench, const kgt_settings *settings)
{
  double accuracies[RATES][KGT_SEEDS];
  uint64_t job = bench->sizes.epochs * bench->steps_per_epoch;
  size_t highest = 0;
  char key[32];
  kgt_progress_begin(settings->n_seeds *
                     (kgt_steps_before(bench) + RATES * job));
  for (uint32_t i = 0; i < settings->n_seeds; i++) {
    float *weights = kgt_pretrain(bench, settings->seeds[i]);
    for (size_t k = 0; k < RATES; k++) {
      kgt_result result;
      (void)snprintf(key, sizeof key, "rate_%g", (double)rates[k]);
      kgt_recipe recipe = recipe_of(bench, settings, key, i, weights);
      recipe.rate = rates[k];
      kgt_run(bench, &recipe, &result);
      accuracies[k][i] = result.accuracy;
    }
    free(weights);
  }
  for (size_t k = 0; k < RATES; k++) {
    (void)snprintf(key, sizeof key, "rate_%g", (double)rates[k]);
    double mean = kgt_mean(accuracies[k], settings->n_seeds);
    if (mean > kgt_mean(accuracies[highest], settings->n_seeds)) highest = k;
    print_of(key, "acc", mean);
    print_of(key, "acc_half_interval",
             kgt_half_interval(accuracies[k], settings->n_seeds));
  }
  kgt_print("rate_best", (double)rates[highest]);
}
