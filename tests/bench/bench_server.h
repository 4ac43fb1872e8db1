/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of bench_server. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include <stdint.h>
#include <time.h>

#include "bench_job.h"

static inline double bench_now_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Of this thread: what others do meanwhile does not count. */
static inline double bench_cpu_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline uint64_t bench_now_ns(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Clients that say HELLO (bench_checkins.c). */
fl_status bench_checkins(uint32_t n);
fl_status bench_registered(uint32_t n);

/* Updates of 500 KB (bench_updates.c); `folder` is for the SQLite file. */
fl_status bench_updates(uint32_t n_clients, uint32_t rounds,
                        const char *folder);

/* A round of the real fl-aggregator (bench_sessions.c). */
struct bench_sessions {
  const char *aggregator; /* path of the program */
  const char *folder;     /* for its files */
  uint32_t sessions;
  uint32_t weights;
  double limit_s; /* longer is a failure */
};
/* 0, or 1 with a line on stderr: it took too long, needed more memory than the
 * bound, or counted fewer updates. */
int bench_sessions(const struct bench_sessions *wanted);

#endif
