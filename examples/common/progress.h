/* SPDX-License-Identifier: Apache-2.0 */
/* How far a training is, on standard output: a bar on a terminal, else a line
 * now and then. */
#ifndef EXAMPLES_PROGRESS_H
#define EXAMPLES_PROGRESS_H

#include <stdint.h>

struct progress {
  uint64_t steps; /* of the whole training */
  uint64_t first; /* steps done before this run */
  uint64_t batch; /* samples in a step */
  uint64_t step;
  double loss;     /* moving mean */
  double seconds;  /* spent on steps */
  double began_at; /* the step under way */
  double shown_at;
  int is_terminal;
};

/* A training of `steps` steps begins, or goes on after `first` of them. */
void progress_begin(struct progress *progress, uint64_t first, uint64_t steps,
                    uint64_t batch);
/* Step number `step` is done. */
void progress_step(struct progress *progress, uint64_t step, double loss);
/* The next step begins: what happened since progress_step was no training. */
void progress_go_on(struct progress *progress);
/* Print a line of text in the place of the bar. */
void progress_line(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Samples per second and seconds left; 0 when nothing was done yet. */
double progress_rate(const struct progress *progress);
double progress_left(const struct progress *progress);

#endif
