/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings and their defaults. What one of them cannot say alone is checked
 * here, too, before minutes are spent.
 */
#include "recommender/config.h"

#include <err.h>
#include <stddef.h>
#include <stdlib.h>

#include <fl/embedding.h>

#define AT(member) offsetof(struct config, member)
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */
#define BUDGET_MIN .01
#define BUDGET_MAX 1e5

static const struct setting table[] = {
    {"data", SETTING_TEXT, AT(data), 0, 0, NULL, "FILE",
     "rows that examples/recommender/prepare.py wrote; without it rows are "
     "made "
     "up, with Zipf's ids"},
    {"rows", SETTING_COUNT, AT(rows), 0, 4294967295.0, NULL, "N",
     "the first N rows, the last tenth to test on; 0 = all of FILE, its last "
     "ones to test on, or 400000 made-up ones (0)"},
    {"budget", SETTING_TEXT, AT(budget), 0, 0, NULL, "MB,...",
     "of 10^6 bytes, one training each; everything counts (1,4)"},
    {"dim", SETTING_COUNT, AT(dim), 4, 1024, NULL, "N",
     "values of a row, a multiple of 4 x chunks (16)"},
    {"chunks", SETTING_COUNT, AT(chunks), 1, FL_EMBEDDING_MAX_CHUNKS, NULL, "N",
     "that a row is cut in: 1, 2 or 4 (4)"},
    {"sketch", SETTING_REAL, AT(sketch), 0, 50, NULL, "PERCENT",
     "of the budget, to rank ids without a row; 0 = they are forgotten (3)"},
    {"adjust-every", SETTING_COUNT, AT(adjust_every), 1, 1e9, NULL, "N",
     "steps between two adjusts; early ones at 3, 6, 9, 30, 60, 90 (50)"},
    {"epochs", SETTING_COUNT, AT(epochs), 1, 1e6, NULL, "N",
     "times through the rows (1)"},
    {"batch", SETTING_COUNT, AT(batch), 1, 65536, NULL, "N",
     "rows in a step (2048)"},
    {"lr", SETTING_REAL, AT(lr), 0, 10, NULL, "X",
     "learning rate of the net, Adam (0.001)"},
    {"rows-lr", SETTING_REAL, AT(rows_lr), 0, 10, NULL, "X",
     "of the table's rows, AdaGrad (0.05)"},
    {"auc-every", SETTING_COUNT, AT(auc_every), 0, 1e9, NULL, "N",
     "steps between two lines of the table; 0 = a tenth of them (0)"},
    {"record", SETTING_TEXT, AT(record), 0, 0, NULL, "FILE",
     "write what plot.py draws, `key value` lines"},
    {"save", SETTING_TEXT, AT(save), 0, 0, NULL, "FILE",
     "write the rows of the last budget to FILE and the net to FILE.net, and "
     "test what is read back"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "of first values, made-up rows and their order (1)"},
    {"shards", SETTING_COUNT, AT(shards), 0, 65535, NULL, "N",
     "also federated: the customers' rows stay with N devices; 0 = not (0)"},
    {"rounds", SETTING_COUNT, AT(rounds), 1, 1e6, NULL, "N",
     "of the federation, one pass through the rows in all (200)"},
    {"participants", SETTING_COUNT, AT(participants), 0, 65535, NULL, "N",
     "devices in a round; 0 = all (0)"},
    {"min-clients", SETTING_COUNT, AT(min_clients), 1, 65535, NULL, "N",
     "ids that fewer of them touched are dropped (1)"},
    {"device-budget", SETTING_REAL, AT(device_budget), 0, 1e5, NULL, "MB",
     "of a device's own table; 0 = no bound (4)"},
    {"device-batch", SETTING_COUNT, AT(device_batch), 1, 65536, NULL, "N",
     "rows in a device's step (16)"},
    {"device-lr", SETTING_REAL, AT(device_lr), 0, 10, NULL, "X",
     "learning rate of the net on a device, SGD (0.5)"},
    {"device-rows-lr", SETTING_REAL, AT(device_rows_lr), 0, 10, NULL, "X",
     "of a device's rows, SGD (1)"},
    {"server-rate", SETTING_REAL, AT(server_rate), 0, 1e6, NULL, "X",
     "of the server's rows, AdaGrad (0.15)"},
    {"server-momentum", SETTING_REAL, AT(server_momentum), 0, .999, NULL, "X",
     "of the net (0.9)"},
    {"server-decay", SETTING_REAL, AT(server_decay), .01, 1, NULL, "X",
     "of what rows are worth, per round (0.9998)"},
    {"threads", SETTING_COUNT, AT(threads), 0, 1024, NULL, "N",
     "threads, 0 = one per CPU (1); the result is the same"},
};

static const struct settings settings = {
    .program_doc =
        "Train a recommender whose embedding table fits a budget of bytes, "
        "beside one with all rows."
        "\v"
        "Exit status: 0 done, 1 failure, or SIGINT or SIGTERM came, 2 bad "
        "option.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

static void refuse(const char *name, const char *got, const char *want)
{
  warnx("--%s: got \"%s\", want %s", name, got, want);
  exit(SETTINGS_EXIT_USAGE);
}

/* Comma-separated numbers that rise, so that they are all different. */
static void parse_budgets(struct config *config)
{
  double last = 0;
  for (const char *at = config->budget; at;) {
    char *end = NULL;
    double value = strtod(at, &end);
    if (end == at || (*end && *end != ',') || !(value >= BUDGET_MIN) ||
        value > BUDGET_MAX || value <= last || config->n_budgets == BUDGETS_MAX)
      refuse("budget", config->budget,
             "MB,...: rising numbers in 0.01..100000, 16 at most");
    config->budgets[config->n_budgets++] = last = value;
    at = *end ? end + 1 : NULL;
  }
}

void config_parse(struct config *config, int argc, char **argv)
{
  *config = (struct config){.budget = "1,4",
                            .epochs = 1,
                            .batch = 2048,
                            .dim = 16,
                            .chunks = 4,
                            .sketch = 3,
                            .adjust_every = 50,
                            .seed = 1,
                            .threads = 1,
                            .lr = .001,
                            .rows_lr = .05,
                            .rounds = 200,
                            .min_clients = 1,
                            .device_budget = 4,
                            .device_batch = 16,
                            .device_lr = .5,
                            .device_rows_lr = 1,
                            .server_rate = .15,
                            .server_momentum = .9,
                            .server_decay = .9998};
  int check_only = settings_parse(&settings, argc, argv, config);
  if (config->chunks == 3) refuse("chunks", "3", "1, 2 or 4");
  if (config->dim % (4 * config->chunks) != 0) {
    warnx("--dim: got %llu, want a multiple of 4 x chunks, %llu",
          (unsigned long long)config->dim,
          (unsigned long long)(4 * config->chunks));
    exit(SETTINGS_EXIT_USAGE);
  }
  parse_budgets(config);
  if (!check_only) return;
  settings_print(&settings, config);
  exit(0);
}
