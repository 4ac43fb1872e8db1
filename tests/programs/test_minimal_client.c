/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest client, with the library's trainer and with its own, as two
 * processes in one training: the server is here, and pipes are between. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fl/fl.h>

#include "check.h"

enum { CLIENTS = 2, SAMPLES = 200, SIDE = 4, INPUTS = SIDE * SIDE };
enum { CLASSES = 10, ROUNDS = 5 };

struct peer {
  pid_t process;
  int to, from; /* -1: closed */
};

static char folder[64] = "/tmp/libfl-minimal-XXXXXX"; /* with the IDX files */
static char images_path[96], labels_path[96];
static uint8_t images[16 + SAMPLES * INPUTS], labels[8 + SAMPLES];
static int32_t y[SAMPLES];
static char **programs;

/* A bright pixel says the class, the others are noise. */
static void make_data(void)
{
  const uint8_t x_head[16] = {0, 0, 8, 3,    0, 0, 0, SAMPLES,
                              0, 0, 0, SIDE, 0, 0, 0, SIDE};
  const uint8_t y_head[8] = {0, 0, 8, 1, 0, 0, 0, SAMPLES};
  uint32_t state = 1;
  memcpy(images, x_head, sizeof x_head);
  memcpy(labels, y_head, sizeof y_head);
  for (int i = 0; i < SAMPLES; i++) {
    uint8_t *image = images + sizeof x_head + i * INPUTS;
    y[i] = i % CLASSES;
    labels[sizeof y_head + (size_t)i] = (uint8_t)y[i];
    for (int j = 0; j < INPUTS; j++) {
      state = state * 1664525u + 1013904223u;
      image[j] = (uint8_t)(state >> 26);
    }
    image[y[i]] = 255;
  }
}

static int write_file(char path[96], const char *name, const uint8_t *data,
                      size_t n)
{
  (void)snprintf(path, 96, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  int is_written = file && fwrite(data, 1, n, file) == n;
  if (file) fclose(file);
  return is_written;
}

static struct peer start(const char *program, const char *id)
{
  int in[2], out[2];
  struct peer peer = {.process = -1, .to = -1, .from = -1};
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) return peer;
  peer.process = fork();
  if (peer.process == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    execl(program, program, id, images_path, labels_path, (char *)NULL);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  peer.to = in[1];
  peer.from = out[0];
  return peer;
}

static uint64_t now_ns(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void leave(struct peer *peer)
{
  if (peer->from >= 0) close(peer->from);
  if (peer->to >= 0) close(peer->to);
  peer->from = peer->to = -1;
}

static void send_all(fl_server *server, uint64_t number, struct peer *peer)
{
  const uint8_t *data;
  size_t n;
  while (peer->to >= 0 && fl_server_send(server, number, &data, &n) == FL_OK &&
         n > 0) {
    for (ssize_t done; n > 0; data += done, n -= (size_t)done) {
      done = write(peer->to, data, n);
      if (done > 0) continue;
      leave(peer);
      return;
    }
  }
}

/* Serve until all clients have left. */
static void serve(fl_server *server, struct peer peers[CLIENTS])
{
  static uint8_t bytes[65536];
  for (int n_open = CLIENTS; n_open > 0;) {
    struct pollfd files[CLIENTS];
    for (int k = 0; k < CLIENTS; k++) {
      files[k] = (struct pollfd){.fd = peers[k].from, .events = POLLIN};
    }
    (void)poll(files, CLIENTS, 100);
    for (int k = 0; k < CLIENTS; k++) {
      if (!files[k].revents) continue;
      ssize_t n = read(peers[k].from, bytes, sizeof bytes);
      if (n > 0) {
        CHECK_EQ_I64(fl_server_recv(server, (uint64_t)k, bytes, (size_t)n),
                     FL_OK);
        continue;
      }
      (void)fl_server_disconnected(server, (uint64_t)k);
      leave(&peers[k]);
      n_open--;
    }
    CHECK_EQ_I64(fl_server_tick(server, now_ns()), FL_OK);
    for (int k = 0; k < CLIENTS; k++) {
      send_all(server, (uint64_t)k, &peers[k]);
    }
  }
}

/* One dense layer, which both trainers know. */
static fl_model *make_model(void)
{
  const uint64_t dims[2] = {SIDE, SIDE};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&builder, NULL) != FL_OK) return NULL;
  (void)fl_model_builder_input(builder, dims, 2, 1.0f / 255, 0);
  (void)fl_model_builder_flatten(builder, "flat");
  (void)fl_model_builder_dense(builder, "dense", CLASSES);
  (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
  (void)fl_model_builder_build(builder, &model);
  fl_model_builder_free(builder);
  return model;
}

static fl_server *make_server(const fl_model *model)
{
  fl_server *server = NULL;
  fl_job_options job;
  uint32_t number = 0;
  (void)fl_job_options_init(&job, sizeof job);
  job.rounds = ROUNDS;
  job.min_clients = CLIENTS;
  job.epochs = 5;
  job.learning_rate = .5f;
  CHECK_EQ_I64(fl_server_new(&server, NULL, NULL), FL_OK);
  CHECK_EQ_I64(fl_server_add_job(server, model, &job, &number), FL_OK);
  return server;
}

static uint64_t correct(fl_model *model)
{
  fl_dataset data;
  fl_evaluation evaluation;
  (void)fl_dataset_init(&data, sizeof data);
  (void)fl_evaluation_init(&evaluation, sizeof evaluation);
  data.x_dtype = FL_DTYPE_U8;
  data.x = images + 16;
  data.y = y;
  data.n = SAMPLES;
  CHECK_EQ_I64(fl_model_evaluate(model, &data, &evaluation), FL_OK);
  return evaluation.correct;
}

static void count_updates(fl_server *server, uint32_t counted[2])
{
  fl_server_event event;
  (void)fl_server_event_init(&event, sizeof event);
  while (fl_server_poll(server, &event) == FL_OK) {
    counted[0] += event.kind == FL_SERVER_UPDATE_ACCEPTED;
    counted[1] += event.kind == FL_SERVER_ROUND_FINISHED;
  }
}

static void both_trainers_take_part_in_one_training(void)
{
  float weights[(INPUTS + 1) * CLASSES];
  struct peer peers[CLIENTS];
  uint32_t counted[2] = {0};
  fl_model *model = make_model();
  CHECK(model != NULL);
  CHECK_EQ_I64(fl_model_init_weights(model, 1), FL_OK);
  CHECK(correct(model) < SAMPLES / 2);
  fl_server *server = make_server(model);
  for (int k = 0; k < CLIENTS; k++) {
    peers[k] = start(programs[k], k == 0 ? "ada" : "bob");
    CHECK(peers[k].process > 0);
  }
  serve(server, peers);
  for (int k = 0; k < CLIENTS; k++) {
    int status = -1;
    CHECK_EQ_I64(waitpid(peers[k].process, &status, 0), peers[k].process);
    CHECK_EQ_I64(status, 0);
  }
  count_updates(server, counted);
  CHECK_EQ_U64(counted[0], CLIENTS * ROUNDS);
  CHECK_EQ_U64(counted[1], ROUNDS);
  CHECK_EQ_I64(fl_server_copy_weights(server, 0, weights,
                                      sizeof weights / sizeof *weights, NULL),
               FL_OK);
  CHECK_EQ_I64(fl_model_set_weights(model, NULL, weights,
                                    sizeof weights / sizeof *weights),
               FL_OK);
  CHECK(correct(model) > SAMPLES * 9 / 10);
  fl_server_free(server);
  fl_model_free(model);
}

static void a_client_without_a_server_fails(void)
{
  for (int k = 0; k < CLIENTS; k++) {
    int status = 0;
    struct peer peer = start(programs[k], "ada");
    leave(&peer);
    CHECK_EQ_I64(waitpid(peer.process, &status, 0), peer.process);
    CHECK(status != 0);
  }
}

int main(int argc, char **argv)
{
  if (argc != 1 + CLIENTS || !mkdtemp(folder)) return 2;
  programs = argv + 1;
  signal(SIGPIPE, SIG_IGN);
  alarm(120);
  make_data();
  if (!write_file(images_path, "images", images, sizeof images) ||
      !write_file(labels_path, "labels", labels, sizeof labels))
    return 2;
  CHECK_CASE(both_trainers_take_part_in_one_training);
  CHECK_CASE(a_client_without_a_server_fails);
  (void)unlink(images_path);
  (void)unlink(labels_path);
  (void)rmdir(folder);
  return check_report();
}
