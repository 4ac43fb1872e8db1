/* SPDX-License-Identifier: Apache-2.0 */
/* One federated job: a server and its clients, joined by function calls, with
 * labels spread unevenly (Dirichlet, .5). Clients train one after the other,
 * on one model and from the server's weights each time, with momentum that
 * begins anew; only that is timed. With freezing the server decides from what
 * controllers at the model report, and announces what it decided. */
#include "kgt.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/client.h>
#include <fl/server.h>

#include "../models.h"
#include "base/rng.h"
#include "common/partition.h"

enum { VGG8 = 3, LAST_ROUNDS = 3, PASSES_MAX = 1 << 20 };

#define ALPHA .5
#define PASS_NS UINT64_C(1000000)

typedef struct world world;

typedef struct member {
  world *world;
  fl_client *client;
  uint32_t *places; /* of its images */
  uint32_t n;
} member;

struct world {
  const kgt_bench *bench;
  const kgt_federation *federation;
  kgt_federated_result *result;
  fl_model *model; /* the clients' */
  fl_server *server;
  member *members;
  uint64_t now_ns;
  double accuracies; /* sum */
  uint32_t n_done;   /* clients */
  int has_diverged;
};

/* ---- a client's training ---- */

static void prepare(world *w, const fl_train_task *task)
{
  model_recipe recipe = models_recipe(VGG8);
  kgt_must(fl_model_set_first_active(w->model, task->first_active), "freezing");
  kgt_must(fl_model_set_weights(w->model, NULL, task->weights, task->n_weights),
           "weights");
  kgt_must(fl_model_set_optimiser(w->model, &recipe.optimiser), "optimiser");
}

/* NULL when the job does not freeze. */
static fl_freeze *attach(world *w, const fl_train_task *task, uint64_t steps)
{
  fl_freeze *freeze = NULL;
  fl_freeze_options options;
  if (!task->freeze_plan) return NULL;
  kgt_must(fl_freeze_options_init(&options, sizeof options), "options");
  options.criterion = FL_FREEZE_SERVER;
  options.reports = task->freeze_reports;
  options.job = task->freeze_job;
  options.steps_per_epoch = steps;
  kgt_must(fl_freeze_new(&freeze, w->bench->context, KGT_MODULES, &options),
           "controller");
  kgt_must(
      fl_freeze_apply_plan(freeze, task->freeze_plan, task->freeze_plan_size),
      "plan");
  kgt_must(fl_freeze_attach(freeze, w->model, NULL), "attaching");
  return freeze;
}

static void take_report(const member *m, fl_freeze *freeze,
                        const fl_train_task *task, fl_train_result *result)
{
  fl_freeze_report report;
  if (!freeze) return;
  kgt_must(fl_freeze_report_init(&report, sizeof report), "report");
  if (fl_freeze_take_report(freeze, &report) == FL_OK) {
    result->report_module = report.module;
    result->report_value = report.value;
    if (m->world->federation->is_verbose) {
      fprintf(stderr,
              "round %" PRIu64 ": client %u: module %u: %.5g, %u images\n",
              task->round, (unsigned)(m - m->world->members), report.module,
              report.value, m->n);
    }
  }
  fl_freeze_free(freeze);
}

static fl_status run_steps(member *m, const fl_train_task *task,
                           const uint32_t *order, double *losses)
{
  world *w = m->world;
  for (uint32_t first = 0; first < m->n; first += task->batch_size) {
    uint32_t n = m->n - first;
    double loss = 0.0;
    if (n > task->batch_size) n = task->batch_size;
    fl_dataset data = kgt_batch(w->bench, order + first, n);
    fl_status st = fl_model_step(w->model, &data, task->learning_rate, &loss);
    if (st != FL_OK) return st;
    *losses += loss * n;
    kgt_progress_step(w->federation->name);
  }
  return FL_OK;
}

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  member *m = user;
  world *w = m->world;
  fli_rng rng;
  float *weights = NULL;
  double losses = 0.0;
  uint64_t steps = (m->n + task->batch_size - 1) / task->batch_size;
  uint32_t *order = kgt_get(m->n, sizeof *order);
  memcpy(order, m->places, m->n * sizeof *order);
  fli_rng_init(&rng, task->seed, FLI_RNG_TEST, task->round, 3);
  fli_rng_shuffle(&rng, order, m->n);
  double begin = kgt_cpu_us();
  prepare(w, task);
  fl_freeze *freeze = attach(w, task, steps);
  fl_status st = run_steps(m, task, order, &losses);
  take_report(m, freeze, task, result);
  w->result->cpu_us += kgt_cpu_us() - begin;
  w->result->flops += kgt_flops(w->model, m->n);
  free(order);
  if (st == FL_E_NOT_FINITE) {
    w->has_diverged = 1;
    return st;
  }
  kgt_must(st, "step");
  kgt_must(fl_model_get_weights(w->model, &weights, &result->n), "weights");
  result->weights = weights;
  result->loss = losses / m->n;
  return FL_OK;
}

/* ---- the job ---- */

static void add_job(world *w)
{
  const kgt_federation *federation = w->federation;
  const kgt_sizes *sizes = &w->bench->sizes;
  fl_job_options job;
  fl_freeze_options freeze;
  uint32_t index = 0;
  kgt_must(fl_job_options_init(&job, sizeof job), "job");
  kgt_must(fl_freeze_options_init(&freeze, sizeof freeze), "options");
  freeze.is_pretrained = federation->is_pretrained != 0;
  freeze.total_steps = sizes->rounds;
  freeze.gap = federation->gap;
  job.rounds = sizes->rounds;
  job.seed = federation->seed;
  job.participants = sizes->per_round;
  job.min_clients = sizes->clients;
  job.batch_size = sizes->local_batch;
  job.learning_rate = federation->rate;
  job.rate_schedule = FL_SCHEDULE_COSINE;
  if (federation->is_freezing) job.freeze = &freeze;
  kgt_must(fl_server_new(&w->server, NULL, NULL), "server");
  kgt_must(fl_server_add_job(w->server, w->model, &job, &index), "job");
}

static void add_member(world *w, uint32_t index)
{
  member *m = &w->members[index];
  const kgt_sizes *sizes = &w->bench->sizes;
  const struct partition partition = {.participants = sizes->clients,
                                      .alpha = ALPHA,
                                      .seed = w->federation->seed,
                                      .min_samples = 2 * sizes->local_batch};
  fl_client_options options;
  char id[24];
  m->world = w;
  if (partition_shard(&partition, w->bench->train.labels, sizes->tune, index,
                      &m->places, &m->n) != 0) {
    fprintf(stderr, "bench_kgt: too few images, or out of memory\n");
    exit(1);
  }
  (void)snprintf(id, sizeof id, "client-%02u", index);
  kgt_must(fl_client_options_init(&options, sizeof options), "client");
  options.client_id = id;
  options.samples = m->n;
  options.model = w->model;
  options.train = train;
  options.user = m;
  kgt_must(fl_client_new(&m->client, NULL, &options), "client");
}

/* ---- what happens ---- */

static void note(world *w, const char *what, uint64_t round)
{
  char *text = w->result->frozen;
  size_t used = strlen(text);
  (void)snprintf(text + used, KGT_LOG - used, "%s%s@%" PRIu64, used ? "," : "",
                 what, round);
}

static void see_round(world *w, const fl_server_event *event)
{
  if (w->federation->is_verbose) {
    fprintf(stderr, "round %" PRIu64 ": loss %.4f\n", event->round,
            event->loss);
  }
  if (event->round + LAST_ROUNDS <= w->bench->sizes.rounds) return;
  uint64_t n = fl_model_weight_count(w->model);
  float *weights = kgt_get((size_t)n, sizeof *weights);
  kgt_must(fl_server_copy_weights(w->server, 0, weights, n, NULL), "weights");
  kgt_must(fl_model_set_weights(w->model, NULL, weights, n), "weights");
  w->accuracies += kgt_accuracy(w->bench, w->model);
  free(weights);
}

static void see_events(world *w)
{
  fl_server_event event;
  char what[16];
  kgt_must(fl_server_event_init(&event, sizeof event), "events");
  while (fl_server_poll(w->server, &event) == FL_OK) {
    if (event.kind == FL_SERVER_ROUND_FINISHED) {
      see_round(w, &event);
    } else if (event.kind == FL_SERVER_FREEZE_CHANGED) {
      (void)snprintf(what, sizeof what, "%u", event.first_active);
      note(w, what, event.round);
    } else if (w->federation->is_verbose &&
               (event.kind == FL_SERVER_FREEZE_EVALUATED ||
                event.kind == FL_SERVER_FREEZE_BOOTED)) {
      fprintf(stderr, "%s\n", event.text);
    }
  }
}

/* ---- bytes ---- */

static void run_client(world *w, uint32_t i)
{
  fl_client *client = w->members[i].client;
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_client_event event;
  kgt_must(fl_client_event_init(&event, sizeof event), "events");
  do {
    fl_status st = fl_client_poll(client, w->now_ns, &event);
    if (w->has_diverged) {
      note(w, "diverged", event.round);
      return;
    }
    kgt_must(st, "client");
    w->n_done += event.kind == FL_CLIENT_DONE;
  } while (event.kind != FL_CLIENT_IDLE);
  for (;;) {
    kgt_must(fl_client_send(client, &data, &n), "client");
    if (n == 0) return;
    w->result->bytes_up += (double)n;
    kgt_must(fl_server_recv(w->server, i, data, n), "server");
  }
}

static void run_server(world *w)
{
  uint64_t peer = UINT64_MAX;
  kgt_must(fl_server_tick(w->server, w->now_ns), "server");
  while (fl_server_next_ready(w->server, &peer) == FL_OK) {
    const uint8_t *data = NULL;
    size_t n = 0;
    for (;;) {
      kgt_must(fl_server_send(w->server, peer, &data, &n), "server");
      if (n == 0) break;
      w->result->bytes_down += (double)n;
      kgt_must(fl_client_recv(w->members[peer].client, data, n), "client");
    }
  }
  see_events(w);
}

static void run_rounds(world *w)
{
  const uint32_t n_clients = w->bench->sizes.clients;
  for (uint32_t pass = 0; pass < PASSES_MAX; pass++) {
    w->now_ns += PASS_NS;
    for (uint32_t i = 0; i < n_clients && !w->has_diverged; i++)
      run_client(w, i);
    if (w->has_diverged) return;
    run_server(w);
    if (w->n_done == n_clients) return;
  }
  kgt_must(FL_E_STATE, "the job does not end");
}

uint64_t kgt_steps_of_federation(const kgt_bench *bench)
{
  const kgt_sizes *sizes = &bench->sizes;
  uint64_t steps = sizes->tune / sizes->clients / sizes->local_batch + 1;
  return steps * sizes->per_round * sizes->rounds;
}

void kgt_run_federation(const kgt_bench *bench,
                        const kgt_federation *federation,
                        kgt_federated_result *result)
{
  char line[64 + KGT_LOG];
  const uint32_t n_clients = bench->sizes.clients;
  world w = {.bench = bench, .federation = federation, .result = result};
  *result = (kgt_federated_result){0};
  w.model = kgt_model(bench, federation->seed);
  if (federation->weights) {
    kgt_must(fl_model_set_weights(w.model, NULL, federation->weights,
                                  fl_model_weight_count(w.model)),
             "weights");
  }
  w.members = kgt_get(n_clients, sizeof *w.members);
  add_job(&w);
  for (uint32_t i = 0; i < n_clients; i++)
    add_member(&w, i);
  run_rounds(&w);
  if (!w.has_diverged) result->accuracy = w.accuracies / LAST_ROUNDS;
  for (uint32_t i = 0; i < n_clients; i++) {
    fl_client_free(w.members[i].client);
    free(w.members[i].places);
  }
  fl_server_free(w.server);
  fl_model_free(w.model);
  free(w.members);
  if (!*result->frozen) (void)snprintf(result->frozen, KGT_LOG, "none");
  (void)snprintf(line, sizeof line, "seed %u: %s: %.2f %%, frozen: %s",
                 (unsigned)federation->seed, federation->name, result->accuracy,
                 result->frozen);
  kgt_progress_line(line);
}
