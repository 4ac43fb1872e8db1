/* SPDX-License-Identifier: Apache-2.0 */
/* Updates of 500 KB that are counted and committed, by fl_server_recv and
 * fl_server_send on one core. The clock runs in the server's calls alone, from
 * when a round asks for updates until it has all of them; so the round's step
 * is in the figure, and downloads are not. */
#include "bench_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_FL_SQLITE
#  include <fl/sqlite.h>
#endif

enum { WEIGHTS = 125000, MAX_STEPS = 100000 };

typedef struct job {
  bench_job all;
  uint32_t together; /* clients that speak before anybody is answered */
  uint32_t n_counted;
  int is_asked; /* a round waits for updates */
  double (*clock)(void);
  double seconds;
} job;

static fl_status take_events(job *j)
{
  fl_server_event event;
  const fl_status st = fl_server_event_init(&event, sizeof event);
  while (st == FL_OK && fl_server_poll(j->all.server, &event) == FL_OK) {
    switch (event.kind) {
    case FL_SERVER_SCALE_AGREED: j->is_asked = 1; break;
    case FL_SERVER_ROUND_FINISHED: j->is_asked = 0; break;
    case FL_SERVER_UPDATE_ACCEPTED: j->n_counted++; break;
    case FL_SERVER_ROUND_ABORTED:
    case FL_SERVER_STORE_FAILED:
      return fli_error(FL_E_INTERNAL, "bench: %s", event.text);
    default: break;
    }
  }
  return st;
}

/* What the client has to say. */
static fl_status speak(job *j, uint32_t i)
{
  fl_status st = FL_OK;
  const uint8_t *data;
  size_t n;
  FLI_TRY(bench_job_poll(&j->all, i));
  for (;;) {
    FLI_TRY(fl_client_send(j->all.clients[i], &data, &n));
    if (n == 0) break;
    const int was_asked = j->is_asked;
    const double before = j->clock();
    FLI_TRY(fl_server_recv(j->all.server, i, data, n));
    if (was_asked) j->seconds += j->clock() - before;
    FLI_TRY(take_events(j));
  }
out:
  return st;
}

static fl_status listen(job *j, uint32_t i)
{
  fl_status st = FL_OK;
  for (;;) {
    const uint8_t *data;
    size_t n;
    const double before = j->clock();
    FLI_TRY(fl_server_send(j->all.server, i, &data, &n));
    if (j->is_asked) j->seconds += j->clock() - before;
    if (n == 0) break;
    FLI_TRY(fl_client_recv(j->all.clients[i], data, n));
  }
out:
  return st;
}

static fl_status run(job *j)
{
  fl_status st = FL_OK;
  for (int step = 0; step < MAX_STEPS && j->all.n_done < j->all.n_clients;
       step++) {
    j->all.now_ns += 1000000;
    for (uint32_t from = 0; from < j->all.n_clients; from += j->together) {
      uint32_t to = from + j->together;
      if (to > j->all.n_clients) to = j->all.n_clients;
      for (uint32_t i = from; i < to; i++)
        FLI_TRY(speak(j, i));
      FLI_TRY(fl_server_tick(j->all.server, j->all.now_ns));
      for (uint32_t i = from; i < to; i++)
        FLI_TRY(listen(j, i));
    }
  }
  if (j->all.n_done < j->all.n_clients)
    FLI_TRY(fli_error(FL_E_INTERNAL, "bench: the job does not end"));
out:
  return st;
}

static fl_status measure(const char *name, const fl_store *store,
                         const job *shape, uint32_t rounds)
{
  fl_status st = FL_OK;
  job j = *shape;
  FLI_TRY(bench_job_begin(&j.all, store, WEIGHTS, FL_CODEC_F32, rounds));
  FLI_TRY(run(&j));
  if (j.n_counted != j.all.n_clients * rounds)
    FLI_TRY(fli_error(FL_E_INTERNAL, "bench: %u updates counted", j.n_counted));
  printf("updates_per_s_%s %.0f\n", name, j.n_counted / j.seconds);
  printf("updates_gbs_%s %.2f\n", name,
         4.0 * WEIGHTS * j.n_counted / j.seconds / 1e9);
out:
  bench_job_end(&j.all);
  return st;
}

#ifdef HAVE_FL_SQLITE
static fl_status measure_sqlite(const char *name, const char *folder,
                                const job *shape, uint32_t rounds)
{
  static const char *const suffixes[] = {"", "-wal", "-shm", "-lock"};
  char path[1024], file[1040];
  fl_store *store = NULL;
  snprintf(path, sizeof path, "%s/bench_server.sqlite", folder);
  fl_status st = fl_store_sqlite_open(&store, path, NULL);
  if (st != FL_OK) return fli_error(st, "%s: %s", path, fl_sqlite_last_error());
  st = measure(name, store, shape, rounds);
  fl_store_free(store);
  for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
    snprintf(file, sizeof file, "%s%s", path, suffixes[i]);
    remove(file);
  }
  return st;
}
#endif

fl_status bench_updates(uint32_t n_clients, uint32_t rounds, const char *folder)
{
  fl_status st = FL_OK;
  job shape = {.all.n_clients = n_clients < BENCH_MAX_CLIENTS
                                    ? n_clients
                                    : BENCH_MAX_CLIENTS,
               .clock = bench_cpu_s,
               .together = 1};
  shape.all.update = malloc(WEIGHTS * sizeof *shape.all.update);
  if (!shape.all.update) return fli_nomem(WEIGHTS * sizeof *shape.all.update);
  for (uint32_t i = 0; i < WEIGHTS; i++)
    shape.all.update[i] = (float)(i % 129) / 64.0f - 1.0f;
  printf("update_bytes %zu\n", WEIGHTS * sizeof(float));
  FLI_TRY(measure("memory", NULL, &shape, rounds));
#ifdef HAVE_FL_SQLITE
  shape.clock = bench_now_s; /* waiting for the disk counts */
  FLI_TRY(measure_sqlite("sqlite", folder, &shape, rounds));
  shape.together = 16;
  FLI_TRY(measure_sqlite("sqlite_by_16", folder, &shape, rounds));
#else
  (void)folder;
#endif
out:
  free(shape.all.update);
  return st;
}
