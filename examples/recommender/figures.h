/* SPDX-License-Identifier: Apache-2.0 */
/* What came of the trainings, in a file: `key value` lines that plot.py
 * draws. */
#ifndef RECOMMENDER_FIGURES_H
#define RECOMMENDER_FIGURES_H

#include <stdio.h>

#include "recommender/run.h"

struct figures {
  FILE *file; /* NULL = nothing is recorded */
  const char *path;
};

/* Replace the file at `path`, which has to stay; 0, or -1 with a line on
 * standard error. */
int figures_open(struct figures *figures, const char *path,
                 const struct data *data);
void figures_outcome(struct figures *figures, const struct config *config,
                     const struct data *data, const struct outcome *outcome);
/* 0, or -1 with a line on standard error: some of it is not in the file. */
int figures_close(struct figures *figures);

#endif
