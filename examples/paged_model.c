/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model that lies in files while it is trained: a client for a device that
 * has not the memory for it. The trainer reads, trains and writes one tensor at
 * a time, in every step of every epoch, and reads what the step before it
 * wrote; here a step moves every weight towards the mean of its minibatch. The
 * server is in the same process, so that there is something to see; an app
 * sends the bytes.
 *
 * usage: paged-model FOLDER
 */
#include <fl/client.h>
#include <fl/host.h>
#include <fl/server.h>
#include <math.h>
#include <stdio.h>

enum { ROUNDS = 3, ROWS = 512, COLUMNS = 1024, LAYERS = 4 };
enum { TENSOR = ROWS * COLUMNS };
enum { EPOCHS = 2, SAMPLES = 6, BATCH = 2 };

/* What the weights are to become: 1 in the mean. */
static const float samples[SAMPLES] = {.5f, 1.5f, .75f, 1.25f, 1.f, 1.f};

/* One tensor of the model at a time is in memory: this one. */
static float tensor[TENSOR];

/* A step of descent, tensor by tensor. */
static fl_status step(fl_paged *paged, const float *batch)
{
  float target = 0.f;
  for (int i = 0; i < BATCH; i++)
    target += batch[i] / BATCH;
  for (uint64_t i = 0; i < LAYERS; i++) {
    fl_status st = fl_paged_read(paged, i * TENSOR, TENSOR, tensor);
    if (st != FL_OK) return st;
    for (int k = 0; k < TENSOR; k++)
      tensor[k] += .125f * (target - tensor[k]);
    st = fl_paged_write(paged, i * TENSOR, TENSOR, tensor);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  (void)user;
  for (int epoch = 0; epoch < EPOCHS; epoch++) {
    for (int first = 0; first < SAMPLES; first += BATCH) {
      const fl_status st = step(task->paged, samples + first);
      if (st != FL_OK) return st;
    }
  }
  result->samples = SAMPLES;
  return FL_OK;
}

static fl_model *make_model(void)
{
  static const uint64_t shape[2] = {ROWS, COLUMNS};
  char name[8];
  fl_model *model = NULL;
  fl_model_builder *builder = NULL;
  fl_status st = fl_model_builder_new(&builder, NULL);
  for (int i = 0; i < LAYERS && st == FL_OK; i++) {
    (void)snprintf(name, sizeof name, "w%d", i);
    st = fl_model_builder_tensor(builder, name, shape, 2, 1);
  }
  if (st == FL_OK) st = fl_model_builder_build(builder, &model);
  fl_model_builder_free(builder);
  return model;
}

static fl_server *make_server(const fl_model *model)
{
  fl_server *server = NULL;
  fl_job_options job;
  fl_job_options_init(&job, sizeof job);
  job.rounds = ROUNDS;
  if (fl_server_new(&server, NULL, NULL) != FL_OK) return NULL;
  if (fl_server_add_job(server, model, &job, NULL) == FL_OK) return server;
  fl_server_free(server);
  return NULL;
}

/* Bytes to and fro until it is over: 0, or -1. */
static int run(fl_client *client, fl_server *server)
{
  fl_client_event event;
  fl_client_event_init(&event, sizeof event);
  for (uint64_t now = 0; now < 1000000; now++) {
    const uint8_t *data;
    size_t n;
    if (fl_client_poll(client, now, &event) != FL_OK) return -1;
    if (event.kind == FL_CLIENT_ABORTED) return -1;
    if (event.kind == FL_CLIENT_DONE) return 0;
    if (fl_client_send(client, &data, &n) != FL_OK ||
        fl_server_recv(server, 1, data, n) != FL_OK ||
        fl_server_send(server, 1, &data, &n) != FL_OK ||
        fl_client_recv(client, data, n) != FL_OK ||
        fl_server_tick(server, now) != FL_OK)
      return -1;
  }
  return -1;
}

static int learn(fl_context *context, fl_server *server, fl_paged *paged)
{
  uint64_t peak = 0;
  fl_client *client = NULL;
  fl_client_options options;
  fl_client_options_init(&options, sizeof options);
  options.client_id = "device";
  options.max_frame_size = 512 << 10; /* the server sends 256 KiB at a time */
  options.train = train;
  options.paged = paged;
  if (fl_client_new(&client, context, &options) != FL_OK) return -1;
  int failed = run(client, server);
  if (!failed && fl_paged_read(paged, 0, TENSOR, tensor) != FL_OK) failed = -1;
  fl_context_get_memory(context, NULL, &peak);
  fl_client_free(client);
  printf("%d weights, %.1f MB in files, %.1f MB of memory; the first is %.3f\n",
         LAYERS * TENSOR, LAYERS * TENSOR * 4e-6, (double)peak * 1e-6,
         (double)tensor[0]);
  return failed || !(fabsf(tensor[0] - .91f) < .05f) ? -1 : 0;
}

int main(int argc, char **argv)
{
  int failed = -1;
  fl_host *host = NULL;
  fl_paged *paged = NULL;
  fl_host_options options;
  fl_paged_options files;
  fl_host_options_init(&options, sizeof options);
  fl_paged_options_init(&files, sizeof files);
  options.storage_path = argc > 1 ? argv[1] : "paged-model";
  files.name = "model";
  files.memory_budget = 4 << 20;
  fl_model *model = make_model();
  fl_server *server = make_server(model);
  if (server && fl_host_new(&host, &options) == FL_OK &&
      fl_paged_new(&paged, fl_host_context(host), &files) == FL_OK)
    failed = learn(fl_host_context(host), server, paged);
  if (failed) fprintf(stderr, "paged-model: %s\n", fl_last_error());
  if (paged) fl_paged_remove(paged);
  fl_paged_free(paged);
  fl_host_free(host);
  fl_server_free(server);
  fl_model_free(model);
  return failed ? 1 : 0;
}
