/* SPDX-License-Identifier: Apache-2.0 */
/* Many sessions in flight in one round of a real fl-aggregator, all of them
 * from this process: an fl_client each, whose update is made up, on a socket of
 * its own, which epoll drives. The round begins when everybody is there and
 * ends when everybody is counted. */
#include "bench_server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fl/client.h>

#include "base/error.h"
#include "bench_http.h"

enum { CONNECTING = 200, SPARE = 64, PATIENCE_S = 300 };

struct swarm {
  const struct bench_sessions *wanted;
  pid_t aggregator;
  uint16_t port;
  int epoll;
  fl_model *model;
  float *update;
  struct http_link *links;
  fl_client **clients;
  uint32_t n_started;
  uint32_t n_busy; /* sent something and wait for its answer, first time */
  uint32_t n_planned;
  uint32_t n_accepted;
  uint32_t sockets;
  uint64_t rss_kib;
};

/* ---- the aggregator ---- */

static void path_of(const struct swarm *s, const char *name, char path[1024])
{
  snprintf(path, 1024, "%s/bench_sessions.%s", s->wanted->folder, name);
}

static int write_description(const struct swarm *s, const char *path)
{
  uint8_t data[4096];
  size_t n = 0;
  if (fl_model_copy_description(s->model, data, sizeof data, &n) != FL_OK)
    return -1;
  FILE *file = fopen(path, "wb");
  if (!file) return -1;
  const int is_written = fwrite(data, 1, n, file) == n;
  return fclose(file) == 0 && is_written ? 0 : -1;
}

static void exec_aggregator(const struct swarm *s)
{
  char text[6][1100], path[1024];
  const uint32_t n = s->wanted->sessions;
  path_of(s, "port", path);
  snprintf(text[0], sizeof text[0], "--port-file=%s", path);
  path_of(s, "model", path);
  snprintf(text[1], sizeof text[1], "--model-description=%s", path);
  path_of(s, "log", path);
  snprintf(text[2], sizeof text[2], "--log=%s", path);
  snprintf(text[3], sizeof text[3], "--min-clients=%u", n);
  snprintf(text[4], sizeof text[4], "--min-participants=%u", n);
  snprintf(text[5], sizeof text[5], "--max-sessions=%u", n);
  execl(s->wanted->aggregator, s->wanted->aggregator, "--listen=127.0.0.1:0",
        "--rounds=1", "--poll-seconds=120", text[0], text[1], text[2], text[3],
        text[4], text[5], (char *)NULL);
  perror(s->wanted->aggregator);
  _exit(127);
}

static int read_port(struct swarm *s, const char *path)
{
  const double end = bench_now_s() + PATIENCE_S;
  while (bench_now_s() < end) {
    unsigned port = 0;
    FILE *file = fopen(path, "r");
    const int got = file ? fscanf(file, "%u", &port) : 0;
    if (file) fclose(file);
    s->port = (uint16_t)port;
    if (got == 1) return 0;
    if (waitpid(s->aggregator, NULL, WNOHANG) != 0) break;
    usleep(10000);
  }
  fprintf(stderr, "bench_server: %s: does not serve\n", s->wanted->aggregator);
  return -1;
}

static int start_aggregator(struct swarm *s)
{
  char path[1024];
  path_of(s, "log", path);
  remove(path);
  path_of(s, "model", path);
  if (write_description(s, path) != 0) {
    perror(path);
    return -1;
  }
  path_of(s, "port", path);
  remove(path);
  s->aggregator = fork();
  if (s->aggregator == 0) exec_aggregator(s);
  return s->aggregator > 0 ? read_port(s, path) : -1;
}

static uint64_t status_kib(pid_t pid, const char *name)
{
  char path[64], line[256];
  uint64_t value = 0;
  snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, name, strlen(name)) == 0)
      value = strtoull(line + strlen(name), NULL, 10);
  }
  if (file) fclose(file);
  return value;
}

static int stop_aggregator(const struct swarm *s)
{
  static const char *const names[] = {"port", "model", "log"};
  int status = 0;
  char path[1024];
  if (s->aggregator <= 0) return -1;
  kill(s->aggregator, SIGTERM);
  waitpid(s->aggregator, &status, 0);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    path_of(s, names[i], path);
    remove(path);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  fprintf(stderr, "bench_server: %s: status %#x\n", s->wanted->aggregator,
          (unsigned)status);
  return -1;
}

/* ---- clients ---- */

static fl_status give_update(const fl_train_task *task, fl_train_result *result,
                             void *user)
{
  struct swarm *s = user;
  if (task->round == 1) s->n_planned++;
  result->update = s->update;
  result->n = task->n_weights;
  result->loss = 1;
  return FL_OK;
}

/* What the client says next, or nothing, in a request. */
static fl_status ask(struct swarm *s, uint32_t i)
{
  fl_status st = FL_OK;
  const uint8_t *data;
  size_t n;
  fl_client_event event;
  FLI_TRY(fl_client_event_init(&event, sizeof event));
  do {
    FLI_TRY(fl_client_poll(s->clients[i], bench_now_ns(), &event));
    if (event.kind == FL_CLIENT_ACCEPTED) s->n_accepted++;
    if (event.kind == FL_CLIENT_ABORTED || event.kind == FL_CLIENT_STALE)
      FLI_TRY(fli_error(FL_E_STATE, "client %u: %s", i, event.text));
  } while (event.kind != FL_CLIENT_IDLE);
  http_begin(&s->links[i]);
  do {
    FLI_TRY(fl_client_send(s->clients[i], &data, &n));
    if (http_add(&s->links[i], data, n) != 0) FLI_TRY(fli_nomem(n));
  } while (n > 0);
  if (http_send(&s->links[i]) != 0)
    FLI_TRY(fli_error(FL_E_IO, "client %u: send: %s", i, strerror(errno)));
out:
  return st;
}

static fl_status start(struct swarm *s)
{
  fl_status st = FL_OK;
  const uint32_t i = s->n_started;
  char id[24];
  fl_client_options options;
  snprintf(id, sizeof id, "device-%08u", i);
  FLI_TRY(fl_client_options_init(&options, sizeof options));
  options.client_id = id;
  options.model = s->model;
  options.train = give_update;
  options.retry_ns = UINT64_C(600000000000);
  options.user = s;
  FLI_TRY(fl_client_new(&s->clients[i], NULL, &options));
  if (http_open(&s->links[i], s->port, i) != 0)
    FLI_TRY(fli_error(FL_E_IO, "client %u: %s", i, strerror(errno)));
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                              .data.u32 = i};
  if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->links[i].fd, &event) != 0)
    FLI_TRY(fli_error(FL_E_IO, "epoll: %s", strerror(errno)));
  s->n_started++;
  s->n_busy++;
  FLI_TRY(ask(s, i));
out:
  return st;
}

static fl_status on_ready(struct swarm *s, uint32_t i)
{
  fl_status st = FL_OK;
  struct http_link *link = &s->links[i];
  if (http_send(link) != 0)
    return fli_error(FL_E_IO, "client %u: %s", i, strerror(errno));
  for (;;) {
    const int got = http_receive(link);
    if (got == 0) return FL_OK;
    if (got < 0)
      return fli_error(FL_E_IO, "client %u: status %d", i, link->status);
    if (link->n_answers == 1) s->n_busy--;
    if (link->body_size > 0)
      FLI_TRY(fl_client_recv(s->clients[i], link->body, link->body_size));
    http_take(link);
    FLI_TRY(ask(s, i));
  }
out:
  return st;
}

static fl_status run(struct swarm *s)
{
  fl_status st = FL_OK;
  const double end = bench_now_s() + PATIENCE_S;
  const uint32_t n = s->wanted->sessions;
  struct epoll_event events[256];
  while (s->n_accepted < n) {
    while (s->n_started < n && s->n_busy < CONNECTING)
      FLI_TRY(start(s));
    const int count = epoll_wait(s->epoll, events, 256, 1000);
    for (int i = 0; i < count; i++)
      FLI_TRY(on_ready(s, events[i].data.u32));
    if (bench_now_s() > end)
      FLI_TRY(fli_error(FL_E_INTERNAL, "bench: %u of %u counted after %d s",
                        s->n_accepted, n, PATIENCE_S));
  }
out:
  return st;
}

/* ---- all ---- */

static uint64_t raise_descriptors(uint32_t n)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= n + SPARE) return limit.rlim_cur;
  fprintf(stderr, "bench_server: %" PRIu64 " descriptors, want %u\n",
          (uint64_t)limit.rlim_cur, n + SPARE);
  return 0;
}

static fl_status prepare(struct swarm *s)
{
  fl_status st = FL_OK;
  const struct bench_sessions *wanted = s->wanted;
  FLI_TRY(bench_make_model(&s->model, wanted->weights));
  s->links = calloc(wanted->sessions, sizeof *s->links);
  s->clients = calloc(wanted->sessions, sizeof(fl_client *));
  s->update = malloc(wanted->weights * sizeof *s->update);
  if (!s->links || !s->clients || !s->update)
    FLI_TRY(fli_nomem(wanted->sessions * sizeof *s->links));
  for (uint32_t i = 0; i < wanted->weights; i++)
    s->update[i] = (float)(i % 129) / 64.0f - 1.0f;
  s->epoll = epoll_create1(0);
  if (s->epoll < 0) FLI_TRY(fli_error(FL_E_IO, "epoll: %s", strerror(errno)));
out:
  return st;
}

static void release(struct swarm *s)
{
  for (uint32_t i = 0; i < s->n_started; i++) {
    http_close(&s->links[i]);
    fl_client_free(s->clients[i]);
  }
  if (s->epoll >= 0) close(s->epoll);
  fl_model_free(s->model);
  free(s->links);
  free(s->clients);
  free(s->update);
}

/* What the process may need, KiB: the default staging cap is 256 MiB. */
static uint64_t bound_kib(const struct swarm *s)
{
  const uint64_t n = s->wanted->sessions;
  return (48 + 256) * 1024 + 64 * (uint64_t)s->sockets + n + n * 64 / 1024 +
         3 * (uint64_t)s->wanted->weights * 4 / 1024;
}

static int report(const struct swarm *s, double seconds)
{
  const uint32_t n = s->wanted->sessions;
  printf("sessions_in_flight %u\n", s->n_planned);
  printf("open_sockets %u\n", s->sockets);
  printf("updates_committed %u\n", s->n_accepted);
  printf("sessions_seconds %.2f\n", seconds);
  printf("aggregator_rss_kib %" PRIu64 "\n", s->rss_kib);
  printf("aggregator_rss_bound_kib %" PRIu64 "\n", bound_kib(s));
  if (s->n_planned == n && s->n_accepted == n && seconds < s->wanted->limit_s &&
      s->rss_kib > 0 && s->rss_kib <= bound_kib(s))
    return 0;
  fprintf(stderr, "bench_server: want %u sessions in %.0f s within the bound\n",
          n, s->wanted->limit_s);
  return 1;
}

int bench_sessions(const struct bench_sessions *wanted)
{
  struct swarm s = {.wanted = wanted, .epoll = -1};
  const uint64_t descriptors = raise_descriptors(wanted->sessions);
  int result = 1;
  double seconds = 0;
  if (descriptors == 0) return 1;
  printf("rlimit_nofile %" PRIu64 "\n", descriptors);
  signal(SIGPIPE, SIG_IGN);
  fl_status st = prepare(&s);
  if (st == FL_OK && start_aggregator(&s) == 0) {
    const double before = bench_now_s();
    st = run(&s);
    seconds = bench_now_s() - before;
    for (uint32_t i = 0; i < s.n_started; i++)
      s.sockets += http_is_open(&s.links[i]) != 0;
    s.rss_kib = status_kib(s.aggregator, "VmHWM:");
    if (st == FL_OK) result = report(&s, seconds);
  }
  if (st != FL_OK) fprintf(stderr, "bench_server: %s\n", fl_last_error());
  release(&s);
  if (stop_aggregator(&s) != 0) result = 1;
  return result;
}
