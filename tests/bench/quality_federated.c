/* SPDX-License-Identifier: Apache-2.0 */
/* What a federated recommender loses against a central one of the same budget,
 * over several seeds: the parts of examples/recommender, which see libfl's
 * public functions alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recommender/federated.h"
#include "recommender/run.h"

static const char help[] =
    "usage: quality_federated [--seeds N] [--tuning] [--OPTION=VALUE]...\n"
    "  --seeds N   the first N seeds of 11..20, or of the tuning seeds 1..10;\n"
    "              3 (default)\n"
    "  --tuning    the tuning seeds\n"
    "Other options are examples/recommender's (its --help), but for --seed;\n"
    "without them 200 shards, 1600 rounds of 100 devices each, one pass, and "
    "a\n"
    "budget of 8 MB on the server. Central training is the same program's, "
    "with\n"
    "the same budget and rows, in batches of 2048. Prints `key value` lines;\n"
    "WHICH is central or federated:\n"
    "  auc_WHICH_sN               of a seed\n"
    "  auc_WHICH, spread_WHICH    mean over the seeds, largest - smallest\n"
    "  mb_WHICH                   of the store at the end\n"
    "  loss_federated             auc_central - auc_federated\n"
    "  loss_worst_federated       of the seed that loses most\n"
    "  mb_up, mb_down             of all devices and rounds, a seed's\n";

enum { SEEDS = 10, FIRST_SEED = 11, FIRST_TUNING_SEED = 1, ARGUMENTS = 64 };

typedef struct quality {
  const char *name;
  double sum, low, high;
  uint64_t bytes;
} quality;

static void stop(const char *text)
{
  fprintf(stderr, "quality_federated: %s\n", text);
  exit(1);
}

static double run_one(const struct config *config, struct data *data,
                      quality *figures, struct outcome *outcome)
{
  const fl_status st = outcome->is_federated
                           ? run_federated(config, data, NULL, outcome)
                           : run_training(config, data, NULL, outcome);
  if (st != FL_OK) stop("training failed");
  printf("auc_%s_s%llu %.4f\n", figures->name, (unsigned long long)config->seed,
         outcome->auc);
  (void)fflush(stdout);
  figures->sum += outcome->auc;
  figures->low = fmin(figures->low, outcome->auc);
  figures->high = fmax(figures->high, outcome->auc);
  figures->bytes = outcome->statistics.bytes_used;
  return outcome->auc;
}

static void print(const quality *figures, uint64_t seeds)
{
  printf("auc_%s %.4f\n", figures->name, figures->sum / (double)seeds);
  printf("spread_%s %.4f\n", figures->name, figures->high - figures->low);
  printf("mb_%s %.2f\n", figures->name, 1e-6 * (double)figures->bytes);
}

static void run_seeds(struct config *config, uint64_t first, uint64_t seeds)
{
  struct outcome outcome = {0};
  quality central = {.name = "central", .low = 1};
  quality federated = {.name = "federated", .low = 1};
  double worst = -1;
  for (uint64_t seed = first; seed < first + seeds; seed++) {
    struct data data;
    config->seed = seed;
    if (data_open(&data, config)) stop("no data");
    outcome = (struct outcome){.budget = config->budgets[0], .is_quiet = 1};
    const double best = run_one(config, &data, &central, &outcome);
    outcome = (struct outcome){
        .budget = config->budgets[0], .is_quiet = 1, .is_federated = 1};
    const double auc = run_one(config, &data, &federated, &outcome);
    worst = fmax(worst, best - auc);
    data_free(&data);
  }
  print(&central, seeds);
  print(&federated, seeds);
  printf("loss_federated %.4f\nloss_worst_federated %.4f\n",
         (central.sum - federated.sum) / (double)seeds, worst);
  printf("mb_up %.1f\nmb_down %.1f\n", 1e-6 * (double)outcome.bytes_up,
         1e-6 * (double)outcome.bytes_down);
}

static uint64_t number(const char *text)
{
  char *end = NULL;
  const unsigned long n = text ? strtoul(text, &end, 10) : 0;
  if (text && *text >= '0' && *text <= '9' && *end == 0 && n >= 1 && n <= SEEDS)
    return n;
  fprintf(stderr, "quality_federated: --seeds: got %s, want 1..%d\n",
          text ? text : "nothing", SEEDS);
  exit(2);
}

int main(int argc, char **argv)
{
  static char name[] = "quality_federated", budget[] = "--budget=8",
              shards[] = "--shards=200", rounds[] = "--rounds=1600",
              participants[] = "--participants=100",
              rate[] = "--server-rate=.1";
  char *arguments[ARGUMENTS] = {name,   budget,       shards,
                                rounds, participants, rate};
  int n = 6;
  uint64_t seeds = 3, first = FIRST_SEED;
  struct config config;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      (void)fputs(help, stdout);
      return 0;
    } else if (strcmp(argv[i], "--tuning") == 0) {
      first = FIRST_TUNING_SEED;
    } else if (strcmp(argv[i], "--seeds") == 0) {
      i++;
      seeds = number(i < argc ? argv[i] : NULL);
    } else if (n < ARGUMENTS - 1) {
      arguments[n++] = argv[i];
    } else {
      stop("too many options");
    }
  }
  config_parse(&config, n, arguments);
  if (config.n_budgets != 1 || config.shards == 0)
    stop("want one budget, and shards");
  run_seeds(&config, first, seeds);
  return 0;
}
