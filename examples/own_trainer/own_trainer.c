/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host with a trainer of its own: logistic regression written out below. The
 * library sees two named tensors, hands weights to a callback, and takes
 * trained weights back. Four clients and their server live in one process and
 * pass bytes in memory; a real host puts a network in between.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/fl.h>

enum { CLIENTS = 4, DIM = 32, SAMPLES = 400, ROUNDS = 8 };
enum { BIAS = DIM, WEIGHTS = DIM + 1 };

struct owner {
  float x[SAMPLES][DIM], y[SAMPLES], weights[WEIGHTS];
};
static struct owner owners[CLIENTS + 1]; /* the last one's data is the test */

static float noise(void) /* uniform in -1..1 */
{
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1;
}

static float score(const float *w, const float *x)
{
  float sum = w[BIAS];
  for (int i = 0; i < DIM; i++)
    sum += w[i] * x[i];
  return sum;
}

static void make_data(void)
{
  float truth[WEIGHTS];
  for (int i = 0; i < WEIGHTS; i++)
    truth[i] = noise();
  for (int k = 0; k < (CLIENTS + 1) * SAMPLES; k++) {
    struct owner *own = &owners[k / SAMPLES];
    float *x = own->x[k % SAMPLES];
    for (int i = 0; i < DIM; i++)
      x[i] = noise();
    own->y[k % SAMPLES] = score(truth, x) + .3f * noise() > 0;
  }
}

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  struct owner *own = user;
  memcpy(own->weights, task->weights, sizeof own->weights);
  result->loss = 0;
  for (int s = 0; s < SAMPLES; s++) {
    float p = 1 / (1 + expf(-score(own->weights, own->x[s])));
    float step = task->learning_rate * (own->y[s] - p);
    for (int i = 0; i < DIM; i++)
      own->weights[i] += step * own->x[s][i];
    own->weights[BIAS] += step;
    result->loss -= log(own->y[s] > 0 ? p : 1 - p) / SAMPLES;
  }
  result->weights = own->weights;
  result->n = WEIGHTS;
  return FL_OK;
}

static void check(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

static double accuracy(const fl_server *server)
{
  const struct owner *test = &owners[CLIENTS];
  float w[WEIGHTS];
  int hits = 0;
  check(fl_server_copy_weights(server, 0, w, WEIGHTS, NULL));
  for (int s = 0; s < SAMPLES; s++)
    hits += (score(w, test->x[s]) > 0) == (test->y[s] > 0);
  return (double)hits / SAMPLES;
}

/* Move what a client and its server have for each other; 1 at the end. */
static int exchange(fl_client *client, fl_server *server, uint64_t peer,
                    uint64_t now_ns)
{
  fl_client_event event;
  const uint8_t *data;
  size_t n;
  check(fl_client_event_init(&event, sizeof event));
  check(fl_client_poll(client, now_ns, &event)); /* trains when asked to */
  while (fl_client_send(client, &data, &n) == FL_OK && n > 0)
    check(fl_server_recv(server, peer, data, n));
  check(fl_server_tick(server, now_ns));
  while (fl_server_send(server, peer, &data, &n) == FL_OK && n > 0)
    check(fl_client_recv(client, data, n));
  return event.kind == FL_CLIENT_DONE;
}

static void open_all(fl_server **server, fl_client *clients[CLIENTS])
{
  static const char *const names[CLIENTS] = {"ada", "bob", "cyd", "dan"};
  const uint64_t dim = DIM;
  fl_model_builder *builder;
  fl_model *model;
  fl_job_options job;
  uint32_t number;
  check(fl_model_builder_new(&builder, NULL));
  check(fl_model_builder_tensor(builder, "weight", &dim, 1, 1));
  check(fl_model_builder_tensor(builder, "bias", NULL, 0, 1));
  check(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  check(fl_job_options_init(&job, sizeof job));
  job.rounds = ROUNDS;
  job.min_clients = CLIENTS;
  check(fl_server_new(server, NULL, NULL));
  check(fl_server_add_job(*server, model, &job, &number));
  for (int k = 0; k < CLIENTS; k++) {
    fl_client_options options;
    check(fl_client_options_init(&options, sizeof options));
    options.client_id = names[k];
    options.model = model;
    options.samples = SAMPLES;
    options.train = train;
    options.user = &owners[k];
    check(fl_client_new(&clients[k], NULL, &options));
  }
  fl_model_free(model);
}

int main(void)
{
  fl_server *server;
  fl_client *clients[CLIENTS];
  fl_server_event event;
  double last = 0;
  make_data();
  open_all(&server, clients);
  check(fl_server_event_init(&event, sizeof event));
  for (int done = 0, turn = 0; done < CLIENTS && turn < 10000; turn++) {
    for (int k = 0; k < CLIENTS; k++)
      done += exchange(clients[k], server, (uint64_t)k, (uint64_t)turn << 20);
    while (fl_server_poll(server, &event) == FL_OK) {
      if (event.kind != FL_SERVER_ROUND_FINISHED) continue;
      printf("round %d: training loss %.3f", (int)event.round, event.loss);
      last = accuracy(server);
      printf(", accuracy %.1f %%\n", 100 * last);
    }
  }
  for (int k = 0; k < CLIENTS; k++)
    fl_client_free(clients[k]);
  fl_server_free(server);
  return last > .9 ? 0 : 1;
}
