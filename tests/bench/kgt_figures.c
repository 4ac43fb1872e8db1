/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers out of numbers, and lines of text: results to standard output, how
 * far it is to standard error. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, isatty */
#include "kgt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct {
  uint64_t steps;
  uint64_t done;
  double begin_s;
  double shown_s;
} progress;

void kgt_must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  fprintf(stderr, "bench_kgt: %s: %s\n", what, fl_last_error());
  exit(1);
}

void *kgt_get(size_t count, size_t size)
{
  void *memory = calloc(count, size);
  if (memory) return memory;
  fprintf(stderr, "bench_kgt: out of memory for %zu bytes\n", count * size);
  exit(1);
}

static double seconds_of(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kgt_wall_us(void)
{
  return 1e6 * seconds_of(CLOCK_MONOTONIC);
}

double kgt_cpu_us(void)
{
  return 1e6 * seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double kgt_quantile(double *values, size_t n, double share)
{
  qsort(values, n, sizeof *values, compare);
  double place = share * (double)(n - 1);
  size_t below = (size_t)place;
  if (below + 1 >= n) return values[n - 1];
  double part = place - (double)below;
  return (1.0 - part) * values[below] + part * values[below + 1];
}

double kgt_median(double *values, size_t n)
{
  return kgt_quantile(values, n, .5);
}

double kgt_mean(const double *values, size_t n)
{
  double sum = 0.0;
  for (size_t i = 0; i < n; i++)
    sum += values[i];
  return sum / (double)n;
}

double kgt_half_interval(const double *values, size_t n)
{
  /* Of Student's t with n - 1 degrees of freedom, the .975 quantile. */
  static const double t[KGT_SEEDS + 1] = {NAN,    NAN,    12.7062,
                                          4.3027, 3.1824, 2.7764};
  double mean = kgt_mean(values, n);
  double squares = 0.0;
  if (n < 2 || n > KGT_SEEDS) return NAN;
  for (size_t i = 0; i < n; i++)
    squares += (values[i] - mean) * (values[i] - mean);
  return t[n] * sqrt(squares / (double)(n - 1) / (double)n);
}

void kgt_print(const char *key, double value)
{
  printf("%s %.6g\n", key, value);
  (void)fflush(stdout);
}

double kgt_print_mean(const char *key, const double *values, size_t n,
                      int has_interval)
{
  char name[96];
  double mean = kgt_mean(values, n);
  kgt_print(key, mean);
  if (!has_interval) return mean;
  double half = kgt_half_interval(values, n);
  (void)snprintf(name, sizeof name, "%s_low", key);
  kgt_print(name, mean - half);
  (void)snprintf(name, sizeof name, "%s_high", key);
  kgt_print(name, mean + half);
  return mean;
}

void kgt_progress_begin(uint64_t steps)
{
  progress.steps = steps;
  progress.done = 0;
  progress.begin_s = seconds_of(CLOCK_MONOTONIC);
  progress.shown_s = 0.0;
}

static void show(const char *what, const char *begin, const char *end)
{
  double now = seconds_of(CLOCK_MONOTONIC);
  double done = (double)progress.done;
  double left = (double)progress.steps - done;
  double eta = (now - progress.begin_s) * (left > 0.0 ? left : 0.0) / done;
  fprintf(stderr, "%s%s: %.0f %% of all, %.0f s, %.0f s left%s", begin, what,
          100.0 * done / (double)progress.steps, now - progress.begin_s, eta,
          end);
  progress.shown_s = now;
}

void kgt_progress_step(const char *what)
{
  progress.done++;
  if (!isatty(2) || progress.done % 16 != 0) return;
  if (seconds_of(CLOCK_MONOTONIC) - progress.shown_s < .5) return;
  show(what, "\r\033[K", "");
}

void kgt_progress_line(const char *what)
{
  show(what, isatty(2) ? "\r\033[K" : "", "\n");
}
