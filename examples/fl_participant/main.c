/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fl-participant: a process that embeds fl_client. It takes part in a training
 * by long polls: send what the client has, take what comes back, do what the
 * client asks for. A broken connection, a restarted aggregator and a restart
 * of its own are all mended the same way: a new session that begins with the
 * client's HELLO.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <fl/host.h>

#include "common/keyfile.h"
#include "common/stored.h"
#include "fl_participant/config.h"
#include "fl_participant/identity.h"
#include "fl_participant/trainer.h"
#include "fl_participant/transport.h"

enum { EXIT_REFUSED = 3, EXIT_UNREACHABLE = 4 };
enum { NOT_OVER = -1 };

static const uint64_t ms_ns = 1000000;
static const uint64_t second_ns = UINT64_C(1000000000);
static const uint64_t first_pause_ns = UINT64_C(100000000);
static const uint64_t longest_pause_ns = UINT64_C(5000000000);
/* The connection tells when it breaks: saying HELLO again is a last resort. */
static const uint64_t hello_ns = UINT64_C(120000000000);
static const size_t max_body = 8u << 20;

struct participant {
  const struct config *config;
  fl_client *client;
  struct trainer trainer;
  struct transport transport;
  struct stored state;
  uint8_t *body;
  size_t body_size;
  size_t body_capacity;
  uint64_t pause_ns;        /* before the next try */
  uint64_t broken_since_ns; /* 0 = the last exchange went well */
  uint64_t wait_until_ns;
  int is_done;
};

static volatile sig_atomic_t stop;
static fl_cancel *cancel;

static void on_signal(int number)
{
  (void)number;
  stop = 1;
  fl_cancel_request(cancel);
}

static void nap(uint64_t ns)
{
  while (ns > 0 && !stop) {
    uint64_t part = ns < 100 * ms_ns ? ns : 100 * ms_ns;
    const struct timespec pause = {.tv_nsec = (long)part};
    (void)nanosleep(&pause, NULL);
    ns -= part;
  }
}

static void say(const struct participant *self, const char *what,
                uint64_t round, const char *more)
{
  if (self->config->verbose)
    warnx("round %llu: %s%s%s", (unsigned long long)round, what,
          *more ? ": " : "", more);
}

static fl_status save_client(const fl_writer *writer, void *user)
{
  const struct participant *self = user;
  return fl_client_save(self->client, writer);
}

static void save(struct participant *self)
{
  struct stat there;
  if (!self->state.host) return;
  if (stored_save(&self->state, save_client, self) != FL_OK)
    warnx("%s: not saved: %s", self->config->state, self->state.error);
  else if (self->config->verbose && stat(self->config->state, &there) == 0)
    warnx("%s: %lld bytes", self->config->state, (long long)there.st_size);
}

static fl_status take_description(struct participant *self)
{
  const uint8_t *description = NULL;
  size_t n = 0;
  fl_status st = fl_client_get_description(self->client, &description, &n);
  if (st != FL_OK) {
    warnx("model: %s", fl_last_error());
    return st;
  }
  return trainer_set_model(&self->trainer, description, n);
}

static int train(struct participant *self, const fl_client_event *event)
{
  fl_train_result result;
  if (take_description(self) != FL_OK) return EXIT_FAILURE;
  fl_train_result_init(&result, sizeof result);
  fl_status st = trainer_train(&self->trainer, &event->task, &result);
  if (st == FL_E_CANCELLED) return NOT_OVER;
  uint64_t round = event->round;
  if (st == FL_OK) st = fl_client_submit(self->client, &result);
  if (st != FL_OK) {
    warnx("round %llu: %s", (unsigned long long)round, fl_last_error());
    (void)fl_client_decline(self->client);
  } else {
    char kept[64] = "";
    if (self->trainer.cache)
      snprintf(kept, sizeof kept, "%llu samples from the cache so far",
               (unsigned long long)trainer_cache_hits(&self->trainer));
    say(self, "trained", round, kept);
  }
  save(self);
  return NOT_OVER;
}

static int evaluate(struct participant *self, const fl_client_event *event)
{
  fl_score score;
  if (take_description(self) != FL_OK) return EXIT_FAILURE;
  fl_score_init(&score, sizeof score);
  fl_status st = trainer_score(&self->trainer, &event->task, &score);
  if (st == FL_OK) st = fl_client_submit_score(self->client, &score);
  if (st != FL_OK) (void)fl_client_decline(self->client);
  return NOT_OVER;
}

/* Exit status, or NOT_OVER. */
static int on_event(struct participant *self, const fl_client_event *event)
{
  switch (event->kind) {
  case FL_CLIENT_JOINED:
    return take_description(self) == FL_OK ? NOT_OVER : EXIT_FAILURE;
  case FL_CLIENT_NEED_TRAIN: return train(self, event);
  case FL_CLIENT_NEED_EVALUATE: return evaluate(self, event);
  case FL_CLIENT_ACCEPTED: say(self, "counted", event->round, ""); break;
  case FL_CLIENT_STALE:
    say(self, "went on without us", event->round, event->text);
    break;
  case FL_CLIENT_WAIT: self->wait_until_ns = event->wait_until_ns; break;
  case FL_CLIENT_DONE:
    say(self, "the training is over", event->round, "");
    self->is_done = 1;
    break;
  case FL_CLIENT_ABORTED:
    if (event->reason == FL_REJECT_FORGOTTEN) return EXIT_SUCCESS;
    warnx("refused: %s: %s", fl_reject_text(event->reason), event->text);
    return EXIT_REFUSED;
  default: break;
  }
  return NOT_OVER;
}

static int poll_client(struct participant *self)
{
  fl_client_event event;
  fl_client_event_init(&event, sizeof event);
  for (;;) {
    if (fl_client_poll(self->client, fl_host_now(), &event) != FL_OK) {
      warnx("client: %s", fl_last_error());
      return EXIT_FAILURE;
    }
    if (event.kind == FL_CLIENT_IDLE || stop) return NOT_OVER;
    int result = on_event(self, &event);
    if (result != NOT_OVER) return result;
  }
}

/* Gather what the client wants to send into one body. */
static int gather(struct participant *self)
{
  while (self->body_size < max_body) {
    const uint8_t *data;
    size_t n;
    if (fl_client_send(self->client, &data, &n) != FL_OK) {
      warnx("client: %s", fl_last_error());
      return EXIT_FAILURE;
    }
    if (n == 0) break;
    if (self->body_size + n > self->body_capacity) {
      size_t capacity = 2 * (self->body_size + n);
      uint8_t *grown = realloc(self->body, capacity);
      if (!grown) {
        warnx("out of memory");
        return EXIT_FAILURE;
      }
      self->body = grown;
      self->body_capacity = capacity;
    }
    memcpy(self->body + self->body_size, data, n);
    self->body_size += n;
  }
  return NOT_OVER;
}

/* The exchange failed: begin a new session after a pause, unless it has
 * lasted too long. */
static int on_broken(struct participant *self)
{
  uint64_t now_ns = fl_host_now();
  if (self->broken_since_ns == 0) {
    self->broken_since_ns = now_ns;
    self->pause_ns = first_pause_ns;
    if (self->config->verbose) warnx("%s: trying again", self->transport.error);
  }
  if (now_ns - self->broken_since_ns >=
      self->config->retry_seconds * second_ns) {
    warnx("%s: cannot be reached for %llu s: %s", self->config->server,
          (unsigned long long)self->config->retry_seconds,
          self->transport.error);
    return EXIT_UNREACHABLE;
  }
  nap(self->pause_ns);
  self->pause_ns *= 2;
  if (self->pause_ns > longest_pause_ns) self->pause_ns = longest_pause_ns;
  transport_renew(&self->transport);
  (void)fl_client_disconnected(self->client);
  return NOT_OVER;
}

static int exchange(struct participant *self)
{
  struct transport *transport = &self->transport;
  enum transport_result result = transport_exchange(
      transport, self->body, self->body_size, self->body_size >= max_body);
  self->body_size = 0;
  if (result == TRANSPORT_STOPPED) return NOT_OVER;
  if (result == TRANSPORT_REFUSED) {
    warnx("%s: %s", self->config->server, transport->error);
    return EXIT_REFUSED;
  }
  if (result == TRANSPORT_BROKEN) return on_broken(self);
  self->broken_since_ns = 0;
  if (transport->reply_size > 0 &&
      fl_client_recv(self->client, transport->reply, transport->reply_size) !=
          FL_OK) {
    warnx("%s: %s", self->config->server, fl_last_error());
    return EXIT_REFUSED;
  }
  return NOT_OVER;
}

static int take_part(struct participant *self)
{
  while (!stop) {
    int result = poll_client(self);
    if (result == NOT_OVER) result = gather(self);
    if (result != NOT_OVER) return result;
    if (self->is_done && self->body_size == 0) return EXIT_SUCCESS;
    uint64_t now_ns = fl_host_now();
    if (self->body_size == 0 && self->wait_until_ns > now_ns) {
      nap(self->wait_until_ns - now_ns);
      continue;
    }
    if (stop) break;
    result = exchange(self);
    if (result != NOT_OVER) return result;
    /* Over, and its farewell is sent. */
    if (self->is_done) return EXIT_SUCCESS;
  }
  return EXIT_SUCCESS;
}

struct restored {
  fl_client *client;
  const fl_client_options *options;
};

static fl_status restore_client(const fl_reader *reader, void *user)
{
  struct restored *restored = user;
  return fl_client_restore(&restored->client, NULL, restored->options, reader);
}

static int open_client(struct participant *self)
{
  const struct config *config = self->config;
  fl_client_options options;
  fl_client_options_init(&options, sizeof options);
  options.client_id = config->id;
  options.job = config->job;
  options.samples = self->trainer.samples;
  options.retry_ns = hello_ns;
  options.max_retries = 0;
  if (*config->state && stored_open(&self->state, config->state) != 0)
    return -1;
  int is_there = self->state.host ? stored_exists(&self->state) : 0;
  if (is_there == 0) {
    if (fl_client_new(&self->client, NULL, &options) == FL_OK) return 0;
    warnx("client: %s", fl_last_error());
    return -1;
  }
  struct restored restored = {.options = &options};
  if (is_there < 0 ||
      stored_load(&self->state, restore_client, &restored) != FL_OK) {
    warnx("%s: %s (without the file we begin anew)", config->state,
          self->state.error);
    return -1;
  }
  self->client = restored.client;
  return 0;
}

static void close_all(struct participant *self)
{
  fl_client_free(self->client);
  trainer_close(&self->trainer);
  transport_close(&self->transport);
  stored_close(&self->state);
  free(self->body);
}

int main(int argc, char **argv)
{
  static struct config config;
  struct participant self = {.config = &config};
  config_defaults(&config);
  int is_check = settings_parse(&participant_settings, argc, argv, &config);
  if (config_check(&config) != 0) return SETTINGS_EXIT_USAGE;
  if (is_check) {
    settings_print(&participant_settings, &config);
    return 0;
  }
  if (config.new_key) return keyfile_make(config.key) == 0 ? 0 : EXIT_FAILURE;
  if (fl_cancel_new(&cancel) != FL_OK) errx(1, "%s", fl_last_error());
  const struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  int result = EXIT_FAILURE;
  if (trainer_open(&self.trainer, &config, cancel) == 0 &&
      transport_open(&self.transport, config.server, config.ca, &stop) == 0 &&
      open_client(&self) == 0 && identity_apply(self.client, &config) == 0) {
    result = take_part(&self);
    if (stop) save(&self);
  }
  close_all(&self);
  fl_cancel_free(cancel);
  return result;
}
