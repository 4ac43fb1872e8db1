/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a training. Rate and time left count the time of steps only, so
 * that scoring in between does not blur them.
 */
#include "common/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <fl/host.h>

enum { WIDTH = 24 };
static const double bar_seconds = 0.1;
static const double line_seconds = 5;
static const double memory = 50; /* steps that the moving mean is over */

static double now(void)
{
  return (double)fl_host_now() * 1e-9;
}

void progress_begin(struct progress *progress, uint64_t first, uint64_t steps,
                    uint64_t batch)
{
  *progress = (struct progress){
      .steps = steps,
      .first = first,
      .step = first,
      .batch = batch,
      .is_terminal = isatty(STDOUT_FILENO),
  };
  progress->began_at = now();
  progress->shown_at = progress->is_terminal ? 0 : progress->began_at;
}

double progress_rate(const struct progress *progress)
{
  double samples =
      (double)(progress->step - progress->first) * (double)progress->batch;
  return progress->seconds > 0 ? samples / progress->seconds : 0;
}

double progress_left(const struct progress *progress)
{
  double done = (double)(progress->step - progress->first);
  double left = (double)(progress->steps - progress->step);
  return done > 0 ? progress->seconds / done * left : 0;
}

/* The facts behind the bar, or in a line of their own. */
static void print_facts(const struct progress *progress)
{
  unsigned left = (unsigned)(progress_left(progress) + 0.5);
  printf("step %llu of %llu, loss %.3f, %.0f samples/s, %u:%02u left",
         (unsigned long long)progress->step,
         (unsigned long long)progress->steps, progress->loss,
         progress_rate(progress), left / 60, left % 60);
}

static void draw(const struct progress *progress)
{
  char bar[WIDTH + 1];
  uint64_t filled =
      progress->steps > 0 ? WIDTH * progress->step / progress->steps : WIDTH;
  for (uint64_t i = 0; i < WIDTH; i++)
    bar[i] = i < filled ? '#' : '.';
  bar[WIDTH] = 0;
  printf("\r[%s] ", bar);
  print_facts(progress);
  printf("\033[K"); /* what the line before had behind it */
}

void progress_step(struct progress *progress, uint64_t step, double loss)
{
  double at = now();
  progress->seconds += at - progress->began_at;
  progress->step = step;
  double seen = (double)(step - progress->first);
  double share = 1 / (seen < memory ? seen : memory);
  progress->loss += share * (loss - progress->loss);
  if (at - progress->shown_at <
      (progress->is_terminal ? bar_seconds : line_seconds))
    return;
  progress->shown_at = at;
  if (progress->is_terminal) {
    draw(progress);
  } else {
    print_facts(progress);
    putchar('\n');
  }
  fflush(stdout);
}

void progress_go_on(struct progress *progress)
{
  progress->began_at = now();
}

void progress_line(struct progress *progress, const char *format, ...)
{
  va_list args;
  if (progress->is_terminal) printf("\r\033[K");
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  putchar('\n');
  fflush(stdout);
  progress->shown_at = progress->is_terminal ? 0 : now(); /* 0: at once */
}
