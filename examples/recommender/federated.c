/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server and devices in one process. Each device has a shard of the customers
 * and a store of its own, a cache of the server's: in a round it gets the rows
 * of its own ids, trains, and sends what has changed, beside the net's update.
 * Rows to train on come as time passes: with each turn a device has the next
 * ones, so that all turns are one pass. What devices find is the gradient of
 * the server's AdaGrad. Nothing here knows of rows but set_ids and attach; the
 * rest is any federation.
 */
#include "recommender/federated.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include <fl/client.h>
#include <fl/server.h>
#include <fl/slices.h>

#include "recommender/shards.h"

enum { LINES = 10, WAIT_MS = 100 };

struct federation;

struct device {
  struct federation *federation;
  uint32_t shard;
  uint64_t turn;
  fl_embedding *store;
  fl_slice_client *slices;
  fl_client *client;
  int is_over;
};

struct federation {
  const struct config *config;
  struct data *data;
  struct outcome *outcome;
  struct shards shards;
  struct recommender recommender; /* the server's; its model is all devices',
                                     too: one trains at a time */
  fl_slice_server *slices;
  fl_server *server;
  struct device *devices; /* [shards.n] */
  float *weights;         /* of the net, trained */
  uint64_t n_weights;
  uint64_t n_turns; /* of a device, about */
  uint64_t bytes_up, bytes_down;
  uint64_t now_ns;
  uint32_t job;
  uint64_t round;
  double loss;
  fl_status status; /* of a device's training */
};

/* ---- a device ------------------------------------------------------------ */

/* What the next turn's rows have. */
static fl_status set_ids(struct device *device)
{
  const struct federation *f = device->federation;
  const struct clicks *clicks = &f->data->clicks;
  uint64_t first, end;
  shards_part(&f->shards, device->shard, device->turn, f->n_turns, &first,
              &end);
  const uint64_t n = (end - first) * clicks->n_fields;
  uint64_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
  if (!ids) return FL_E_NOMEM;
  clicks_ids(clicks, f->shards.rows + first, end - first, ids);
  const fl_status st = fl_slice_client_set_ids(device->slices, 0, ids, n);
  free(ids);
  return st;
}

/* Rows of the turn in batches, through the device's own table. */
static fl_status train_shard(struct device *device, const fl_train_task *task,
                             double *loss)
{
  struct federation *f = device->federation;
  struct data *data = f->data;
  uint64_t first, end, n_batches = 0;
  fl_dataset batch;
  fl_status st = fl_dataset_init(&batch, sizeof batch);
  shards_part(&f->shards, device->shard, device->turn, f->n_turns, &first,
              &end);
  for (uint32_t epoch = 0; epoch < task->epochs; epoch++) {
    uint64_t at = first;
    for (; st == FL_OK && at < end; at += batch.n) {
      double one = 0;
      batch.n = end - at < task->batch_size ? end - at : task->batch_size;
      data_fill(data, f->shards.rows + at, batch.n, &batch);
      st = fl_model_step(f->recommender.model, &batch, task->learning_rate,
                         &one);
      *loss += one;
      n_batches++;
    }
  }
  if (n_batches > 0) *loss /= (double)n_batches;
  return st;
}

static fl_status attach(struct federation *f, fl_embedding *store)
{
  fl_embedding_attach_options options;
  fl_embedding_attach_options_init(&options, sizeof options);
  options.rate = (float)f->config->device_rows_lr;
  return fl_embedding_attach(store, f->recommender.model, &options);
}

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  struct device *device = user;
  struct federation *f = device->federation;
  fl_model *model = f->recommender.model;
  double loss = 0;
  fl_status st =
      fl_model_set_weights(model, NULL, task->weights, task->n_weights);
  if (st == FL_OK) st = attach(f, device->store);
  if (st != FL_OK) return f->status = st;
  st = train_shard(device, task, &loss);
  if (st == FL_OK) st = fl_model_copy_weights(model, f->weights, f->n_weights);
  fl_embedding_detach(device->store, model);
  if (st != FL_OK) return f->status = st;
  result->weights = f->weights;
  result->n = f->n_weights;
  result->loss = loss;
  device->turn++;
  return f->status = set_ids(device);
}

static fl_status open_client(struct device *device)
{
  struct federation *f = device->federation;
  fl_client_options options;
  char name[24];
  snprintf(name, sizeof name, "shard-%u", device->shard);
  fl_client_options_init(&options, sizeof options);
  options.client_id = name;
  options.model = f->recommender.model;
  options.train = train;
  options.user = device;
  options.samples =
      f->shards.begins[device->shard + 1] - f->shards.begins[device->shard] + 1;
  fl_status st = set_ids(device);
  if (st == FL_OK)
    st = fl_client_new(&device->client, fl_host_context(f->recommender.host),
                       &options);
  if (st == FL_OK) st = fl_client_attach_slices(device->client, device->slices);
  return st;
}

static fl_status open_device(struct federation *f, uint32_t shard)
{
  struct device *device = &f->devices[shard];
  fl_slice_client_options options;
  *device = (struct device){.federation = f, .shard = shard};
  fl_slice_client_options_init(&options, sizeof options);
  options.max_ids = f->data->clicks.n_train;
  fl_status st = recommender_store(
      &device->store, f->recommender.host, f->config,
      (uint64_t)(1e6 * f->config->device_budget), FL_EMBEDDING_SGD, 1.0f);
  if (st == FL_OK)
    st = fl_slice_client_new(&device->slices,
                             fl_host_context(f->recommender.host),
                             device->store, &options);
  return st == FL_OK ? open_client(device) : st;
}

/* ---- the server ---------------------------------------------------------- */

static fl_status add_job(struct federation *f)
{
  const struct config *config = f->config;
  fl_job_options options;
  fl_job_options_init(&options, sizeof options);
  options.rounds = (uint32_t)config->rounds;
  options.participants = (uint32_t)config->participants;
  options.min_clients = (uint32_t)config->shards;
  options.epochs = (uint32_t)config->epochs;
  options.batch_size = (uint32_t)config->device_batch;
  options.learning_rate = (float)config->device_lr;
  options.server_momentum = (float)config->server_momentum;
  options.seed = config->seed;
  fl_status st =
      fl_server_add_job(f->server, f->recommender.model, &options, &f->job);
  return st == FL_OK ? fl_server_attach_slices(f->server, f->job, f->slices)
                     : st;
}

static fl_status open_server(struct federation *f)
{
  fl_context *context = fl_host_context(f->recommender.host);
  fl_slice_server_options options;
  fl_slice_server_options_init(&options, sizeof options);
  options.min_clients = (uint32_t)f->config->min_clients;
  options.rate = (float)f->config->server_rate;
  options.seed = f->config->seed;
  options.max_ids = f->data->clicks.n_train;
  options.max_sum_ids = UINT64_C(1) << 24;
  fl_status st =
      fl_slice_server_new(&f->slices, context, f->recommender.store, &options);
  if (st == FL_OK) st = fl_server_new(&f->server, context, NULL);
  if (st == FL_OK) st = add_job(f);
  return st;
}

static fl_status open_all(struct federation *f)
{
  fl_status st = recommender_open_federated(
      &f->recommender, f->config, f->data->clicks.n_fields,
      (uint64_t)(1e6 * f->outcome->budget + .5));
  if (st != FL_OK) return st;
  const uint64_t asked =
      f->config->participants ? f->config->participants : f->config->shards;
  f->n_turns =
      (f->config->rounds * asked + f->config->shards - 1) / f->config->shards;
  f->n_weights = fl_model_weight_count(f->recommender.model);
  f->weights = malloc((size_t)f->n_weights * sizeof *f->weights);
  f->devices = calloc((size_t)f->config->shards, sizeof *f->devices);
  if (!f->weights || !f->devices ||
      shards_make(&f->shards, &f->data->clicks, (uint32_t)f->config->shards))
    return FL_E_NOMEM;
  st = open_server(f);
  for (uint32_t s = 0; st == FL_OK && s < f->shards.n; s++)
    st = open_device(f, s);
  return st;
}

/* Clients and server go before their slices, and these before their stores. */
static void close_all(struct federation *f)
{
  for (uint32_t s = 0; f->devices && s < f->config->shards; s++) {
    struct device *device = &f->devices[s];
    fl_client_free(device->client);
    fl_slice_client_free(device->slices);
    fl_embedding_free(device->store);
  }
  fl_server_free(f->server);
  fl_slice_server_free(f->slices);
  recommender_close(&f->recommender);
  shards_free(&f->shards);
  free(f->devices);
  free(f->weights);
}

/* ---- what is told -------------------------------------------------------- */

static fl_status test(struct federation *f)
{
  fl_model *model = f->recommender.model;
  struct outcome *outcome = f->outcome;
  fl_embedding_statistics *s = &outcome->statistics;
  fl_embedding_statistics_init(s, sizeof *s);
  fl_status st = fl_embedding_get_statistics(f->recommender.store, FL_AUTO, s);
  if (st == FL_OK)
    st = fl_server_copy_weights(f->server, f->job, f->weights, f->n_weights,
                                NULL);
  if (st == FL_OK)
    st = fl_model_set_weights(model, NULL, f->weights, f->n_weights);
  if (st == FL_OK) st = attach(f, f->recommender.store);
  if (st != FL_OK) return st;
  st = data_test(f->data, model, &outcome->auc);
  fl_embedding_detach(f->recommender.store, model);
  return st;
}

static fl_status tell_line(struct federation *f)
{
  fl_slice_report report;
  fl_slice_report_init(&report, sizeof report);
  fl_status st = fl_slice_server_get_report(f->slices, &report);
  if (st == FL_OK) st = test(f);
  if (st != FL_OK) return st;
  f->outcome->bytes_up = f->bytes_up;
  f->outcome->bytes_down = f->bytes_down;
  if (f->outcome->is_quiet) return FL_OK;
  const fl_embedding_statistics *s = &f->outcome->statistics;
  printf("%6llu %6.4f %6.4f %8.3f %8llu %8llu %8llu %6.2f %9.1f %9.1f\n",
         (unsigned long long)f->round, f->loss, f->outcome->auc,
         1e-6 * (double)s->bytes_used, (unsigned long long)s->rows,
         (unsigned long long)report.ids, (unsigned long long)report.dropped,
         report.values ? 100. * (double)report.clamped / (double)report.values
                       : 0,
         1e-6 * (double)f->bytes_up, 1e-6 * (double)f->bytes_down);
  fflush(stdout);
  return FL_OK;
}

static fl_status hear_server(struct federation *f)
{
  fl_server_event event;
  fl_status st = FL_OK;
  const uint64_t lines = f->outcome->is_quiet ? 1 : LINES;
  const uint64_t every = (f->config->rounds + lines - 1) / lines;
  fl_server_event_init(&event, sizeof event);
  while (st == FL_OK && fl_server_poll(f->server, &event) == FL_OK) {
    if (event.kind == FL_SERVER_PEER_REJECTED ||
        event.kind == FL_SERVER_ROUND_ABORTED)
      warnx("%s: %s", event.client_id, event.text);
    if (event.kind != FL_SERVER_ROUND_FINISHED) continue;
    f->round = event.round;
    f->loss = event.loss;
    if (f->round % every == 0 || f->round == f->config->rounds)
      st = tell_line(f);
  }
  return st;
}

/* ---- bytes and time ------------------------------------------------------ */

/* One device and the server have a word; *any = 1 when something was said. */
static fl_status exchange(struct federation *f, struct device *device, int *any)
{
  const uint8_t *data;
  size_t n = 0;
  fl_client_event event;
  fl_client_event_init(&event, sizeof event);
  fl_status st = fl_client_poll(device->client, f->now_ns, &event);
  if (st == FL_OK) st = fl_client_send(device->client, &data, &n);
  if (st == FL_OK && n > 0) {
    *any = 1;
    f->bytes_up += n;
    st = fl_server_recv(f->server, device->shard, data, n);
  }
  if (st == FL_OK) st = fl_server_send(f->server, device->shard, &data, &n);
  if (st == FL_OK && n > 0) {
    *any = 1;
    f->bytes_down += n;
    st = fl_client_recv(device->client, data, n);
  }
  if (event.kind == FL_CLIENT_ABORTED) warnx("%s", event.text);
  if (event.kind == FL_CLIENT_ABORTED || event.kind == FL_CLIENT_DONE)
    device->is_over = 1;
  if (event.kind != FL_CLIENT_IDLE) *any = 1;
  return st;
}

static fl_status run_rounds(struct federation *f, fl_cancel *stop)
{
  uint32_t n_over = 0;
  while (n_over < f->shards.n) {
    int any = 0;
    fl_status st = FL_OK;
    n_over = 0;
    for (uint32_t s = 0; st == FL_OK && s < f->shards.n; s++) {
      st = exchange(f, &f->devices[s], &any);
      n_over += (uint32_t)f->devices[s].is_over;
    }
    if (st == FL_OK) st = hear_server(f);
    if (st == FL_OK) st = f->status;
    if (st == FL_OK && fl_cancel_is_requested(stop)) st = FL_E_CANCELLED;
    if (st != FL_OK) return st;
    if (!any) f->now_ns += UINT64_C(1000000) * WAIT_MS;
    fl_server_tick(f->server, f->now_ns);
  }
  return FL_OK;
}

static void tell_head(const struct config *config)
{
  printf("\n%llu shards, %llu a round%s\n", (unsigned long long)config->shards,
         (unsigned long long)config->participants,
         config->participants ? "" : " (all)");
  printf("%6s %6s %6s %8s %8s %8s %8s %6s %9s %9s\n", "round", "loss", "AUC",
         "MB", "rows", "ids", "dropped", "clamp%", "MB up", "MB down");
}

fl_status run_federated(const struct config *config, struct data *data,
                        fl_cancel *stop, struct outcome *outcome)
{
  struct federation f = {.config = config, .data = data, .outcome = outcome};
  if (!outcome->is_quiet) tell_head(config);
  fl_status st = open_all(&f);
  if (st == FL_OK) st = run_rounds(&f, stop);
  outcome->is_whole = st == FL_OK;
  if (st != FL_OK && st != FL_E_CANCELLED) {
    warnx("federated: %s: %s", fl_status_text(st), fl_last_error());
    st = SAID;
  }
  close_all(&f);
  return st;
}
