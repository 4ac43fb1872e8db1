/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys are those of tests/bench/quality_embedding, so that one script draws
 * both: `full_N` has all rows of N values, `budget_N` at most N MB. A line goes
 * out whole, so that what a killed process leaves can be drawn.
 */
#include "recommender/figures.h"

#include <err.h>
#include <errno.h>
#include <string.h>

int figures_open(struct figures *figures, const char *path,
                 const struct data *data)
{
  *figures = (struct figures){.file = fopen(path, "w"), .path = path};
  if (!figures->file) {
    warn("%s", path);
    return -1;
  }
  setvbuf(figures->file, NULL, _IOLBF, BUFSIZ);
  fprintf(figures->file, "rows %llu\nvalues %llu\n",
          (unsigned long long)data->clicks.n_rows,
          (unsigned long long)clicks_count_values(&data->clicks));
  return 0;
}

static void write_bytes(const struct figures *figures, const char *key,
                        const char *name, uint64_t bytes)
{
  fprintf(figures->file, "%s_%s %.3f\n", key, name, 1e-6 * (double)bytes);
}

void figures_outcome(struct figures *figures, const struct config *config,
                     const struct data *data, const struct outcome *outcome)
{
  const fl_embedding_statistics *s = &outcome->statistics;
  char name[48];
  if (!figures->file) return;
  if (outcome->is_federated)
    snprintf(name, sizeof name, "federated_%g", outcome->budget);
  else if (outcome->budget > 0)
    snprintf(name, sizeof name, "budget_%g", outcome->budget);
  else
    snprintf(name, sizeof name, "full_%llu", (unsigned long long)config->dim);
  fprintf(figures->file, "auc_%s %.4f\n", name, outcome->auc);
  write_bytes(figures, "mb", name, s->bytes_used);
  if (outcome->budget <= 0)
    write_bytes(figures, "array_mb", name, data_array_bytes(data, config->dim));
  write_bytes(figures, "values_mb", name, s->bytes_values);
  write_bytes(figures, "squares_mb", name, s->bytes_squares);
  write_bytes(figures, "entries_mb", name, s->bytes_entries);
  write_bytes(figures, "sketch_mb", name, s->bytes_sketch);
  write_bytes(figures, "free_mb", name, s->bytes_free);
  write_bytes(figures, "fixed_mb", name, s->bytes_fixed);
  fprintf(figures->file, "rows_%s %llu\nchunks_%s %llu\n", name,
          (unsigned long long)s->rows, name, (unsigned long long)s->chunks);
  if (!outcome->is_federated) {
    fprintf(figures->file, "seconds_%s %.1f\n", name, outcome->seconds);
    return;
  }
  write_bytes(figures, "up_mb", name, outcome->bytes_up);
  write_bytes(figures, "down_mb", name, outcome->bytes_down);
}

int figures_close(struct figures *figures)
{
  if (!figures->file) return 0;
  int has_failed = ferror(figures->file);
  errno = 0;
  if (fclose(figures->file)) has_failed = 1;
  figures->file = NULL;
  if (has_failed)
    warnx("%s: not whole: %s", figures->path,
          errno ? strerror(errno) : "the disk may be full");
  return has_failed ? -1 : 0;
}
