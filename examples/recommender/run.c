/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A training in batches that are pulled, so that ids are made a batch at a
 * time. Between steps the store is adjusted; now and then a line says where it
 * is: loss, AUC on rows that are not trained on, and what its bytes are.
 */
#include "recommender/run.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/progress.h"

enum { LINES = 10 };

struct run {
  const struct config *config;
  struct data *data;
  struct recommender recommender;
  struct progress progress;
  struct outcome *outcome;
  uint64_t steps;
  uint64_t line_every;
};

/* Say what failed, once. */
static fl_status fail(const char *what, fl_status st)
{
  if (st != SAID)
    warnx("%s: %s: %s", what, fl_status_text(st), fl_last_error());
  return SAID;
}

static uint64_t budget_of(const struct outcome *outcome)
{
  return (uint64_t)(1e6 * outcome->budget + .5);
}

/* ---- what is told -------------------------------------------------------- */

static double megabytes(uint64_t bytes)
{
  return 1e-6 * (double)bytes;
}

static void tell_head(struct run *run)
{
  if (run->outcome->is_quiet) return;
  if (run->outcome->budget > 0)
    progress_line(&run->progress, "\nat most %g MB", run->outcome->budget);
  else
    progress_line(&run->progress, "\nall rows");
  progress_line(&run->progress, "%6s %6s %6s %8s %7s %7s %7s %6s %6s %7s %7s",
                "step", "loss", "AUC", "MB", "values", "squares", "entries",
                "sketch", "rest", "rows", "evicted");
}

static fl_status tell_line(struct run *run, uint64_t step)
{
  struct outcome *outcome = run->outcome;
  fl_embedding_statistics *s = &outcome->statistics;
  fl_embedding_statistics_init(s, sizeof *s);
  fl_status st =
      fl_embedding_get_statistics(run->recommender.store, FL_AUTO, s);
  if (st == FL_OK)
    st = data_test(run->data, run->recommender.model, &outcome->auc);
  if (st != FL_OK || outcome->is_quiet) return st;
  progress_line(
      &run->progress,
      "%6llu %6.4f %6.4f %8.3f %7.3f %7.3f %7.3f %6.3f %6.3f %7llu %7llu",
      (unsigned long long)step, run->progress.loss, outcome->auc,
      megabytes(s->bytes_used), megabytes(s->bytes_values),
      megabytes(s->bytes_squares), megabytes(s->bytes_entries),
      megabytes(s->bytes_sketch), megabytes(s->bytes_free + s->bytes_fixed),
      (unsigned long long)s->rows, (unsigned long long)s->evicted);
  return FL_OK;
}

/* Rows and chunks of a field. */
struct kept {
  uint64_t rows;
  uint64_t chunks;
};

static fl_status count_kept(const struct recommender *r, const uint64_t *ids,
                            uint64_t n, struct kept *kept)
{
  for (uint64_t i = 0; i < n; i++) {
    uint32_t mask = 0;
    uint64_t field = ids[i] >> 32; /* clicks_id */
    fl_status st =
        fl_embedding_copy_row(r->store, r->table, ids[i], NULL, &mask);
    if (st != FL_OK) return st;
    kept[field].rows++;
    for (; mask; mask &= mask - 1)
      kept[field].chunks++;
  }
  return FL_OK;
}

/* Whose rows are worth their bytes. */
static fl_status tell_fields(const struct run *run)
{
  const struct recommender *r = &run->recommender;
  const struct clicks *clicks = &run->data->clicks;
  struct kept kept[CLICKS_FIELDS_MAX] = {{0, 0}};
  uint64_t n = fl_embedding_row_count(r->store, r->table);
  uint64_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
  fl_status st =
      ids ? fl_embedding_copy_ids(r->store, r->table, ids, n, &n) : FL_E_NOMEM;
  if (st == FL_OK) st = count_kept(r, ids, n, kept);
  free(ids);
  if (st != FL_OK) return st;
  printf("\n%-16s %10s %10s %14s\n", "field", "values", "rows", "chunks a row");
  for (uint32_t f = 0; f < clicks->n_fields; f++) {
    double rows = (double)kept[f].rows;
    printf("%-16s %10u %10.0f %14.2f\n", clicks->fields[f].name,
           clicks->fields[f].n_values, rows,
           rows > 0 ? (double)kept[f].chunks / rows : 0);
  }
  return FL_OK;
}

/* ---- training ------------------------------------------------------------ */

static fl_status next_batch(fl_dataset *batch, uint32_t epoch, uint64_t step,
                            void *user)
{
  const struct run *run = user;
  (void)epoch;
  data_batch(run->data, step, batch);
  return FL_OK;
}

/* Early on every adjust counts: most ids are new. */
static int is_adjusted_at(const struct run *run, uint64_t step)
{
  if (run->outcome->budget <= 0) return 0;
  return step == 3 || step == 6 || step == 9 || step == 30 || step == 60 ||
         step == 90 || step % run->config->adjust_every == 0;
}

static fl_status on_step(const fl_fit_progress *at, void *user)
{
  struct run *run = user;
  fl_status st = FL_OK;
  if (is_adjusted_at(run, at->step))
    st = fl_embedding_adjust(run->recommender.store, NULL);
  if (!run->outcome->is_quiet)
    progress_step(&run->progress, at->step, at->loss);
  if (st == FL_OK &&
      (at->step % run->line_every == 0 || at->step == run->steps))
    st = tell_line(run, at->step);
  progress_go_on(&run->progress);
  return st;
}

static fl_status fit(struct run *run, fl_cancel *stop)
{
  fl_fit_options options;
  fl_fit_options_init(&options, sizeof options);
  options.epochs = (uint32_t)run->config->epochs;
  options.seed = run->config->seed;
  options.cancel = stop;
  options.progress = on_step;
  options.progress_every = 1;
  options.user = run;
  progress_begin(&run->progress, 0, run->steps, run->config->batch);
  tell_head(run);
  progress_go_on(&run->progress);
  return fl_model_fit_pull(run->recommender.model, next_batch, run, &options,
                           NULL);
}

/* Training was stopped: a last line, of where. */
static fl_status stopped(struct run *run)
{
  uint64_t step = run->progress.step;
  fl_status st = step > 0 ? tell_line(run, step) : FL_OK;
  progress_line(&run->progress, "stopped after step %llu",
                (unsigned long long)step);
  return st == FL_OK ? FL_E_CANCELLED : st;
}

static fl_status train(struct run *run, fl_cancel *stop)
{
  const struct config *config = run->config;
  struct outcome *outcome = run->outcome;
  fl_status st =
      recommender_open(&run->recommender, config, run->data->clicks.n_fields,
                       budget_of(outcome));
  if (st == FL_OK) st = fit(run, stop);
  outcome->seconds = run->progress.seconds;
  if (st == FL_E_CANCELLED) return stopped(run);
  if (st != FL_OK) return st;
  outcome->is_whole = 1;
  if (outcome->budget <= 0) return FL_OK;
  if (!outcome->is_quiet) st = tell_fields(run);
  int is_last = outcome->budget >= config->budgets[config->n_budgets - 1];
  if (st == FL_OK && is_last && config->save[0] &&
      recommender_save(&run->recommender, config->save))
    st = SAID;
  return st;
}

fl_status run_training(const struct config *config, struct data *data,
                       fl_cancel *stop, struct outcome *outcome)
{
  char what[48] = "all rows";
  struct run run = {.config = config, .data = data, .outcome = outcome};
  run.steps = data_steps(data) * config->epochs;
  run.line_every =
      config->auc_every ? config->auc_every : (run.steps + LINES - 1) / LINES;
  if (outcome->is_quiet) run.line_every = run.steps;
  if (outcome->budget > 0)
    snprintf(what, sizeof what, "--budget %g", outcome->budget);
  fl_status st = train(&run, stop);
  if (st != FL_OK && st != FL_E_CANCELLED) st = fail(what, st);
  recommender_close(&run.recommender);
  return st;
}

fl_status run_saved(const struct config *config, struct data *data,
                    const struct outcome *trained)
{
  struct recommender recommender;
  double auc = 0;
  fl_status st = SAID;
  if (!recommender_load(&recommender, config, data->clicks.n_fields,
                        budget_of(trained)))
    st = data_test(data, recommender.model, &auc);
  if (st == FL_OK)
    printf("%s, read back: version %016llx, %llu rows, AUC %.4f\n",
           config->save,
           (unsigned long long)fl_embedding_version(recommender.store),
           (unsigned long long)fl_embedding_row_count(recommender.store,
                                                      recommender.table),
           auc);
  else
    st = fail(config->save, st);
  recommender_close(&recommender);
  return st;
}
