/* SPDX-License-Identifier: Apache-2.0 */
/* HELLO, WELCOME, goodbye: how many a second, and what a server keeps of a
 * client that has gone, by its context's own accounts. The messages are made
 * before the clock runs. */
#include "bench_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/server.h>

#include "base/error.h"
#include "wire/messages.h"

enum { PART = 1000 }; /* HELLOs made at a time */

typedef struct world {
  fl_context *context;
  fl_model *model;
  fl_server *server;
  uint64_t now_ns;
  uint8_t schema[FL_HASH_BYTES];
  double seconds; /* in the server's calls */
} world;

static void end(world *w)
{
  fl_server_free(w->server);
  fl_model_free(w->model);
  fl_context_free(w->context);
}

static fl_status begin(world *w)
{
  fl_status st = FL_OK;
  fl_server_options options;
  fl_job_options job;
  memset(w, 0, sizeof *w);
  FLI_TRY(fl_context_new(&w->context, NULL));
  FLI_TRY(bench_make_model(&w->model, 1000));
  FLI_TRY(fl_model_copy_schema(w->model, w->schema));
  FLI_TRY(fl_server_options_init(&options, sizeof options));
  FLI_TRY(fl_job_options_init(&job, sizeof job));
  job.min_clients = UINT32_MAX; /* no round begins */
  FLI_TRY(fl_server_new(&w->server, w->context, &options));
  FLI_TRY(fl_server_add_job(w->server, w->model, &job, NULL));
  FLI_TRY(fl_server_tick(w->server, w->now_ns = UINT64_C(1000000000)));
out:
  return st;
}

static fl_status write_hello(const world *w, uint32_t number, fli_bytes *out)
{
  fli_hello hello;
  memset(&hello, 0, sizeof hello);
  hello.version_min = FLI_PROTOCOL_MIN;
  hello.version_max = FLI_PROTOCOL_MAX;
  snprintf(hello.client_id, sizeof hello.client_id, "device-%08u", number);
  hello.capabilities = FLI_CAP_TRAIN | FLI_CAP_EVALUATE;
  hello.samples = 100 + number % 1000;
  hello.has_schema = 1;
  memcpy(hello.schema, w->schema, sizeof hello.schema);
  return fli_write_hello(out, &hello);
}

/* One client comes, is told all that there is, and goes. */
static fl_status visit(world *w, uint64_t peer, const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  const uint8_t *answer;
  size_t size, total = 0;
  fl_server_event event;
  FLI_TRY(fl_server_recv(w->server, peer, data, n));
  do {
    FLI_TRY(fl_server_send(w->server, peer, &answer, &size));
    total += size;
  } while (size > 0);
  FLI_TRY(fl_server_disconnected(w->server, peer));
  FLI_TRY(fl_server_event_init(&event, sizeof event));
  while (fl_server_poll(w->server, &event) == FL_OK) {
    if (event.kind == FL_SERVER_PEER_REJECTED)
      FLI_TRY(fli_error(FL_E_INTERNAL, "bench: refused: %s", event.text));
  }
  if (total == 0) FLI_TRY(fli_error(FL_E_INTERNAL, "bench: no WELCOME"));
out:
  return st;
}

/* Clients `first` .. first + n - 1. */
static fl_status visit_all(world *w, uint32_t first, uint32_t n)
{
  fl_status st = FL_OK;
  fli_bytes hellos;
  fli_bytes_init(&hellos, NULL);
  for (uint32_t at = 0; at < n; at += PART) {
    const uint32_t count = n - at < PART ? n - at : PART;
    size_t ends[PART + 1] = {0};
    fli_bytes_clear(&hellos);
    for (uint32_t i = 0; i < count; i++) {
      FLI_TRY(write_hello(w, first + at + i, &hellos));
      ends[i + 1] = hellos.size;
    }
    const double before = bench_cpu_s();
    for (uint32_t i = 0; i < count; i++)
      FLI_TRY(visit(w, first + at + i, hellos.data + ends[i],
                    ends[i + 1] - ends[i]));
    w->seconds += bench_cpu_s() - before;
    w->now_ns += 1000000;
    FLI_TRY(fl_server_tick(w->server, w->now_ns));
  }
out:
  fli_bytes_free(&hellos);
  return st;
}

fl_status bench_checkins(uint32_t n)
{
  fl_status st = FL_OK;
  world w;
  FLI_TRY(begin(&w));
  FLI_TRY(visit_all(&w, 0, n));
  printf("first_checkins_per_s %.0f\n", n / w.seconds);
  w.seconds = 0;
  FLI_TRY(visit_all(&w, 0, n));
  printf("checkins_per_s %.0f\n", n / w.seconds);
out:
  end(&w);
  return st;
}

/* Beside all the others. */
static fl_status forget_some(world *w, uint32_t n)
{
  fl_status st = FL_OK;
  char id[32];
  const double before = bench_cpu_s();
  for (uint32_t i = 0; i < n; i++) {
    snprintf(id, sizeof id, "device-%08u", i);
    FLI_TRY(fl_server_forget(w->server, 0, id));
  }
  printf("us_per_forgotten_client %.2f\n", (bench_cpu_s() - before) / n * 1e6);
out:
  return st;
}

fl_status bench_registered(uint32_t n)
{
  fl_status st = FL_OK;
  world w;
  uint64_t before = 0, after = 0;
  FLI_TRY(begin(&w));
  FLI_TRY(fl_context_get_memory(w.context, &before, NULL));
  FLI_TRY(visit_all(&w, 0, n));
  /* Past every grace. */
  w.now_ns += UINT64_C(3600000000000);
  FLI_TRY(fl_server_tick(w.server, w.now_ns));
  FLI_TRY(fl_context_get_memory(w.context, &after, NULL));
  printf("registered_clients %u\n", n);
  printf("bytes_per_registered_client %.1f\n", (double)(after - before) / n);
  FLI_TRY(forget_some(&w, n / 1000));
out:
  end(&w);
  return st;
}
