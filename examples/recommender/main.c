/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does a recommender lose when its table is small? The same model is
 * trained on the same rows, once with a row for every id and then within each
 * budget; bytes and AUC stand side by side at the end (FIITED: Luo et al.,
 * 2024).
 */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "common/images.h"
#include "recommender/federated.h"
#include "recommender/figures.h"
#include "recommender/run.h"

static void print_data(const struct config *config, const struct data *data)
{
  const struct clicks *clicks = &data->clicks;
  printf("%s: %llu rows to train on, %llu behind them to test on, %u fields, "
         "%llu values; a plain array of all takes %.3f MB\n",
         config->data[0] ? config->data : "made-up rows",
         (unsigned long long)clicks->n_train,
         (unsigned long long)(clicks->n_rows - clicks->n_train),
         clicks->n_fields, (unsigned long long)clicks_count_values(clicks),
         1e-6 * (double)data_array_bytes(data, config->dim));
  if (data->ceiling > 0) printf("the best AUC there is: %.4f\n", data->ceiling);
}

static void print_row(const struct outcome *outcome, const struct outcome *full)
{
  const fl_embedding_statistics *s = &outcome->statistics;
  char name[48] = "all rows";
  if (s->struct_size == 0) return; /* stopped before there was a line */
  if (outcome->budget > 0)
    snprintf(name, sizeof name, "%g MB%s", outcome->budget,
             outcome->is_federated ? " fed" : "");
  printf("%-12s %9.3f %9llu %7.2f %7.4f ", name, 1e-6 * (double)s->bytes_used,
         (unsigned long long)s->rows,
         s->rows ? (double)s->chunks / (double)s->rows : 0, outcome->auc);
  if (outcome != full && outcome->is_whole && full->is_whole)
    printf("%+8.4f", outcome->auc - full->auc);
  else
    printf("%8s", outcome == full ? "" : "-");
  if (outcome->is_federated)
    printf(" %7s", "-"); /* of all devices, one after the other */
  else
    printf(" %7.1f", outcome->seconds);
  printf("%s\n", outcome->is_whole ? "" : "  stopped");
}

static void print_table(const struct outcome *outcomes, uint32_t n)
{
  printf("\n%-12s %9s %9s %7s %7s %8s %7s\n", "table", "MB", "rows", "chunks",
         "AUC", "to all", "seconds");
  for (uint32_t i = 0; i < n; i++)
    print_row(&outcomes[i], &outcomes[0]);
}

static fl_status run_all(const struct config *config, struct data *data,
                         fl_cancel *stop, struct figures *figures)
{
  struct outcome outcomes[2 + BUDGETS_MAX]; /* the last one federated */
  uint32_t n = 0;
  fl_status st = FL_OK;
  memset(outcomes, 0, sizeof outcomes);
  for (; st == FL_OK && n <= config->n_budgets; n++) {
    struct outcome *outcome = &outcomes[n];
    if (n > 0) outcome->budget = config->budgets[n - 1];
    st = run_training(config, data, stop, outcome);
    if (outcome->is_whole) figures_outcome(figures, config, data, outcome);
  }
  if (st == FL_OK && config->shards > 0) {
    outcomes[n] =
        (struct outcome){.budget = config->budgets[n - 2], .is_federated = 1};
    st = run_federated(config, data, stop, &outcomes[n]);
    if (outcomes[n].is_whole)
      figures_outcome(figures, config, data, &outcomes[n]);
    n++;
  }
  print_table(outcomes, n);
  if (st == FL_OK && config->save[0])
    st = run_saved(config, data, &outcomes[n - 1]);
  return st;
}

int main(int argc, char **argv)
{
  struct config config;
  struct data data;
  struct figures figures = {0};
  fl_status st = SAID;
  config_parse(&config, argc, argv);
  fl_cancel *stop = stop_flag();
  int is_open = stop && data_open(&data, &config) == 0;
  if (is_open && config.save[0]) is_open = recommender_check(config.save) == 0;
  if (is_open && config.record[0])
    is_open = figures_open(&figures, config.record, &data) == 0;
  if (is_open) {
    print_data(&config, &data);
    st = run_all(&config, &data, stop, &figures);
  }
  if (figures_close(&figures)) st = SAID;
  if (stop) data_free(&data);
  return st != FL_OK;
}
