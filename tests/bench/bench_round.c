/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rounds in memory: one server and some clients joined by function
 * calls, synthetic updates instead of training. Prints, for float32 and for
 * THC, rounds a second (CPU time of this one thread, median over jobs) and the
 * bytes up and down that each client has a round.
 *
 *   bench_round [WEIGHTS [CLIENTS]] */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <fl/client.h>
#include <fl/server.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/rng.h"

enum { ROUNDS = 5, JOBS = 5, MAX_CLIENTS = 256, MAX_STEPS = 10000 };

typedef struct bench {
  uint64_t n_weights;
  uint32_t n_clients;
  float *update;
  fl_model *model;
  fl_server *server;
  fl_client *clients[MAX_CLIENTS];
  uint32_t n_done;
  uint64_t now_ns;
  uint64_t bytes_up;
  uint64_t bytes_down;
} bench;

static double cpu_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static fl_status give_update(const fl_train_task *task, fl_train_result *result,
                             void *user)
{
  const bench *b = user;
  result->update = b->update;
  result->n = task->n_weights;
  return FL_OK;
}

static fl_status make_model(bench *b)
{
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, NULL));
  FLI_TRY(fl_model_builder_tensor(builder, "w", &b->n_weights, 1, 1));
  FLI_TRY(fl_model_builder_build(builder, &b->model));
out:
  fl_model_builder_free(builder);
  return st;
}

static fl_status begin(bench *b, uint32_t codec_id)
{
  fl_status st = FL_OK;
  fl_compressor_options codec;
  fl_job_options job;
  uint32_t index;
  FLI_TRY(make_model(b));
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = codec_id;
  FLI_TRY(fl_job_options_init(&job, sizeof job));
  job.codec = &codec;
  job.rounds = ROUNDS;
  job.min_clients = b->n_clients;
  FLI_TRY(fl_server_new(&b->server, NULL, NULL));
  FLI_TRY(fl_server_add_job(b->server, b->model, &job, &index));
  for (uint32_t i = 0; i < b->n_clients; i++) {
    char id[24];
    fl_client_options options;
    snprintf(id, sizeof id, "client-%u", i);
    FLI_TRY(fl_client_options_init(&options, sizeof options));
    options.client_id = id;
    options.model = b->model;
    options.train = give_update;
    options.user = b;
    FLI_TRY(fl_client_new(&b->clients[i], NULL, &options));
  }
out:
  return st;
}

static void end(bench *b)
{
  for (uint32_t i = 0; i < b->n_clients; i++) {
    fl_client_free(b->clients[i]);
    b->clients[i] = NULL;
  }
  fl_server_free(b->server);
  fl_model_free(b->model);
  b->server = NULL;
  b->model = NULL;
  b->n_done = 0;
}

static fl_status run_client(bench *b, uint32_t i)
{
  fl_status st = FL_OK;
  const uint8_t *data;
  size_t n;
  fl_client_event event;
  FLI_TRY(fl_client_event_init(&event, sizeof event));
  do {
    FLI_TRY(fl_client_poll(b->clients[i], b->now_ns, &event));
    if (event.kind == FL_CLIENT_DONE) b->n_done++;
  } while (event.kind != FL_CLIENT_IDLE);
  for (;;) {
    FLI_TRY(fl_client_send(b->clients[i], &data, &n));
    if (n == 0) break;
    b->bytes_up += n;
    FLI_TRY(fl_server_recv(b->server, i, data, n));
  }
out:
  return st;
}

static fl_status run_server(bench *b)
{
  fl_status st = FL_OK;
  uint64_t peer = UINT64_MAX;
  FLI_TRY(fl_server_tick(b->server, b->now_ns));
  while (fl_server_next_ready(b->server, &peer) == FL_OK) {
    const uint8_t *data;
    size_t n;
    for (;;) {
      FLI_TRY(fl_server_send(b->server, peer, &data, &n));
      if (n == 0) break;
      b->bytes_down += n;
      FLI_TRY(fl_client_recv(b->clients[peer], data, n));
    }
  }
out:
  return st;
}

static fl_status run_job(bench *b, uint32_t codec)
{
  fl_status st = FL_OK;
  FLI_TRY(begin(b, codec));
  for (int step = 0; step < MAX_STEPS && b->n_done < b->n_clients; step++) {
    b->now_ns += 1000000;
    for (uint32_t i = 0; i < b->n_clients; i++)
      FLI_TRY(run_client(b, i));
    FLI_TRY(run_server(b));
  }
  if (b->n_done < b->n_clients)
    FLI_TRY(fli_error(FL_E_INTERNAL, "bench: the job does not end"));
out:
  end(b);
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
  double share = (double)b->n_clients * ROUNDS * JOBS;
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
  bench b = {.n_weights = 100000, .n_clients = 8};
  fli_rng rng;
  if (argc > 1) b.n_weights = strtoull(argv[1], NULL, 10);
  if (argc > 2) b.n_clients = (uint32_t)strtoul(argv[2], NULL, 10);
  if (b.n_weights < 1 || b.n_weights > UINT32_MAX || b.n_clients < 1 ||
      b.n_clients > MAX_CLIENTS) {
    fprintf(stderr, "usage: %s [WEIGHTS [CLIENTS <= %d]]\n", argv[0],
            MAX_CLIENTS);
    return 2;
  }
  b.update = malloc((size_t)b.n_weights * sizeof *b.update);
  if (!b.update) return 1;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (uint64_t i = 0; i < b.n_weights; i++)
    b.update[i] = (fli_rng_f32(&rng) - .5f) * 1e-3f;
  printf("weights %" PRIu64 "\nclients %u\n", b.n_weights, b.n_clients);
  fl_status st = measure(&b, "f32", FL_CODEC_F32);
  if (st == FL_OK) st = measure(&b, "thc", FL_CODEC_THC);
  if (st != FL_OK)
    fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  free(b.update);
  return st != FL_OK;
}
