/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fl-aggregator: a process that embeds fl_server. One thread, one loop:
 * sockets feed the server, time passes, its events are taken, held requests
 * are answered, and what takes long (scoring the model) comes last, when the
 * participants are at work already. SIGTERM and SIGINT drain: requests under
 * way are answered, the state is saved, and the process leaves.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <fl/host.h>

#include "fl_aggregator/config.h"
#include "fl_aggregator/http.h"
#include "fl_aggregator/run.h"

static const uint64_t ms_ns = 1000000;
static const uint64_t drain_ns = UINT64_C(3000000000);
/* Time for clients to fetch the end of a job. */
static const uint64_t done_ns = UINT64_C(10000000000);

enum { LONGEST_WAIT_MS = 60000 };

/* Written by the handler, which may come until the process ends, and which may
 * run on any thread: a BLAS has some before main begins, on which nothing can
 * be blocked. */
static int signal_event = -1;

static void on_signal(int number)
{
  const uint64_t one = 1;
  const int kept = errno;
  (void)number;
  (void)!write(signal_event, &one, sizeof one);
  errno = kept;
}

static int open_signals(void)
{
  const struct sigaction action = {.sa_handler = on_signal,
                                   .sa_flags = SA_RESTART};
  signal_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (signal_event < 0) {
    warn("eventfd");
    return -1;
  }
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  return signal_event;
}

/* 1 when a signal has come. */
static int take_signal(int fd)
{
  uint64_t count;
  return read(fd, &count, sizeof count) == (ssize_t)sizeof count;
}

static int write_port(const char *path, uint16_t port)
{
  char temporary[SETTING_TEXT_BYTES + 8];
  snprintf(temporary, sizeof temporary, "%s.part", path);
  FILE *file = fopen(temporary, "we");
  /* Renamed when it is whole: whoever waits for it reads all of it. */
  if (file && fprintf(file, "%u\n", port) > 0 && fclose(file) == 0 &&
      rename(temporary, path) == 0)
    return 0;
  warn("%s", path);
  return -1;
}

static int wait_ms(const struct http *http, const struct run *run,
                   uint64_t now_ns, uint64_t leave_at_ns)
{
  uint64_t deadline = http_next_deadline(http);
  uint64_t server = UINT64_MAX;
  (void)fl_server_next_timeout(run->server, &server);
  if (server < deadline) deadline = server;
  if (leave_at_ns < deadline) deadline = leave_at_ns;
  if (deadline <= now_ns) return 0;
  uint64_t left = (deadline - now_ns + ms_ns - 1) / ms_ns;
  return left < LONGEST_WAIT_MS ? (int)left : LONGEST_WAIT_MS;
}

/* One turn of the loop, after something happened or time went by. */
static void turn(struct http *http, struct run *run)
{
  http_run(http, fl_host_now());
  uint64_t now_ns = fl_host_now();
  if (fl_server_tick(run->server, now_ns) != FL_OK)
    warnx("server: %s", fl_last_error());
  run_drain(run, now_ns);
  http_answer(http, now_ns);
  run_settle(run);
}

/* Until a signal has come and all is answered, or the job is over. */
static const char *serve(struct http *http, struct run *run, int signals)
{
  uint64_t leave_at_ns = UINT64_MAX;
  turn(http, run);
  for (;;) {
    struct pollfd fds[] = {{.fd = http->epoll, .events = POLLIN},
                           {.fd = signals, .events = POLLIN}};
    int timeout = wait_ms(http, run, fl_host_now(), leave_at_ns);
    if (poll(fds, 2, timeout) < 0 && errno != EINTR) err(1, "poll");
    if (take_signal(signals) && !http->is_draining) {
      http_drain(http);
      leave_at_ns = fl_host_now() + drain_ns;
    }
    turn(http, run);
    if (http->is_draining) {
      if (http->requests == 0 || fl_host_now() >= leave_at_ns) return "signal";
    } else if (run->config->exit_when_done && run->finished_at_ns != 0) {
      leave_at_ns = run->finished_at_ns + done_ns;
      /* A restored job may be over before anybody has come back to hear it. */
      if (run->sessions.serial > 0 && http_is_deserted(http)) return "done";
      if (fl_host_now() >= leave_at_ns) return "done";
    }
  }
}

int main(int argc, char **argv)
{
  static struct config config;
  struct run run;
  struct http http = {.epoll = -1};
  config_defaults(&config);
  int is_check = settings_parse(&aggregator_settings, argc, argv, &config);
  if (config_check(&config) != 0) return SETTINGS_EXIT_USAGE;
  if (is_check) {
    settings_print(&aggregator_settings, &config);
    return 0;
  }
  int result = 1;
  int signals = open_signals();
  if (signals < 0) return 1;
  if (run_open(&run, &config) != 0) goto out;
  if (http_start(&http, &config, &run) != 0) goto out;
  if (*config.port_file && write_port(config.port_file, http_port(&http)) != 0)
    goto out;
  log_event(&run.log, "listening",
            json_pack("{s:i}", "port", (int)http_port(&http)));
  const char *reason = serve(&http, &run, signals);
  http_stop(&http);
  run_log_exit(&run, reason);
  result = run_save(&run) == 0 && !run.log.has_failed ? 0 : 1;
out:
  http_stop(&http);
  run_close(&run);
  return result;
}
