/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rounds in memory: one server and some clients joined by function
 * calls, synthetic updates instead of training. Prints, for float32 and for
 * THC, rounds a second (CPU time of this one thread, median over jobs) and the
 * bytes up and down that each client has a round.
 *
 *   bench_round [WEIGHTS [CLIENTS]] */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "bench_job.h"

enum { ROUNDS = 5, JOBS = 5, MAX_STEPS = 10000 };

typedef struct bench {
  bench_job all;
  uint64_t n_weights;
  uint64_t bytes_up;
  uint64_t bytes_down;
} bench;

static double cpu_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static fl_status run_client(bench *b, uint32_t i)
{
  fl_status st = FL_OK;
  const uint8_t *data;
  size_t n;
  FLI_TRY(bench_job_poll(&b->all, i));
  for (;;) {
    FLI_TRY(fl_client_send(b->all.clients[i], &data, &n));
    if (n == 0) break;
    b->bytes_up += n;
    FLI_TRY(fl_server_recv(b->all.server, i, data, n));
  }
out:
  return st;
}

static fl_status run_server(bench *b)
{
  fl_status st = FL_OK;
  uint64_t peer = UINT64_MAX;
  FLI_TRY(fl_server_tick(b->all.server, b->all.now_ns));
  while (fl_server_next_ready(b->all.server, &peer) == FL_OK) {
    const uint8_t *data;
    size_t n;
    for (;;) {
      FLI_TRY(fl_server_send(b->all.server, peer, &data, &n));
      if (n == 0) break;
      b->bytes_down += n;
      FLI_TRY(fl_client_recv(b->all.clients[peer], data, n));
    }
  }
out:
  return st;
}

static fl_status run_job(bench *b, uint32_t codec)
{
  fl_status st = FL_OK;
  FLI_TRY(bench_job_begin(&b->all, NULL, b->n_weights, codec, ROUNDS));
  for (int step = 0; step < MAX_STEPS && b->all.n_done < b->all.n_clients;
       step++) {
    b->all.now_ns += 1000000;
    for (uint32_t i = 0; i < b->all.n_clients; i++)
      FLI_TRY(run_client(b, i));
    FLI_TRY(run_server(b));
  }
  if (b->all.n_done < b->all.n_clients)
    FLI_TRY(fli_error(FL_E_INTERNAL, "bench: the job does not end"));
out:
  bench_job_end(&b->all);
  return st;
}

static int compare_doubles(const void *a, const void *b)
{
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

static fl_status measure(bench *b, const char *name, uint32_t codec)
{
  double seconds[JOBS];
  double share = (double)b->all.n_clients * ROUNDS * JOBS;
  b->bytes_up = 0;
  b->bytes_down = 0;
  for (int i = 0; i < JOBS; i++) {
    double before = cpu_s();
    fl_status st = run_job(b, codec);
    if (st != FL_OK) return st;
    seconds[i] = cpu_s() - before;
  }
  qsort(seconds, JOBS, sizeof *seconds, compare_doubles);
  printf("%s_rounds_per_s %.2f\n", name, ROUNDS / seconds[JOBS / 2]);
  printf("%s_bytes_up %.0f\n", name, (double)b->bytes_up / share);
  printf("%s_bytes_down %.0f\n", name, (double)b->bytes_down / share);
  return FL_OK;
}

int main(int argc, char **argv)
{
  bench b = {.n_weights = 100000, .all.n_clients = 8};
  fli_rng rng;
  if (argc > 1) b.n_weights = strtoull(argv[1], NULL, 10);
  if (argc > 2) b.all.n_clients = (uint32_t)strtoul(argv[2], NULL, 10);
  if (b.n_weights < 1 || b.n_weights > UINT32_MAX || b.all.n_clients < 1 ||
      b.all.n_clients > BENCH_MAX_CLIENTS) {
    fprintf(stderr, "usage: %s [WEIGHTS [CLIENTS <= %d]]\n", argv[0],
            BENCH_MAX_CLIENTS);
    return 2;
  }
  b.all.update = malloc((size_t)b.n_weights * sizeof *b.all.update);
  if (!b.all.update) return 1;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (uint64_t i = 0; i < b.n_weights; i++)
    b.all.update[i] = (fli_rng_f32(&rng) - .5f) * 1e-3f;
  printf("weights %" PRIu64 "\nclients %u\n", b.n_weights, b.all.n_clients);
  fl_status st = measure(&b, "f32", FL_CODEC_F32);
  if (st == FL_OK) st = measure(&b, "thc", FL_CODEC_THC);
  if (st != FL_OK)
    fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  free(b.all.update);
  return st != FL_OK;
}
