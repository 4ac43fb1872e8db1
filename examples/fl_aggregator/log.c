/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON lines, each in one write: whoever follows the file (the quick start
 * does) sees an event when it happens, whole. When a full disk or a power cut
 * has left half a line, the next event begins on a line of its own. A training
 * does not end because its log cannot be written, but the exit status tells.
 */
#include "fl_aggregator/log.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Does the file end within a line? What is no regular file has no end. */
static int ends_in_a_line(const char *path)
{
  char last = '\n';
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return 0;
  off_t size = lseek(fd, 0, SEEK_END);
  if (size > 0) (void)!pread(fd, &last, 1, size - 1);
  close(fd);
  return last != '\n';
}

int log_open(struct log *log, const char *path)
{
  *log = (struct log){.path = path, .fd = -1};
  if (!*path) return 0;
  if (strcmp(path, "-") == 0) {
    log->fd = STDOUT_FILENO;
    return 0;
  }
  log->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (log->fd < 0) {
    warn("%s", path);
    return -1;
  }
  log->is_cut = ends_in_a_line(path);
  return 0;
}

void log_close(struct log *log)
{
  if (log->fd > STDOUT_FILENO) close(log->fd);
  log->fd = -1;
}

static int write_all(int fd, const char *data, size_t n)
{
  while (n > 0) {
    ssize_t count = write(fd, data, n);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    data += count;
    n -= (size_t)count;
  }
  return 0;
}

/* "\n", the event, "\n"; the first only after a line that was cut. */
static char *line_of(const json_t *event)
{
  char *json = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(9));
  char *line = NULL;
  if (json && asprintf(&line, "\n%s\n", json) < 0) line = NULL;
  free(json);
  return line;
}

static void write_event(struct log *log, const json_t *event)
{
  char *line = line_of(event);
  const char *from = line && !log->is_cut ? line + 1 : line;
  if (line && write_all(log->fd, from, strlen(from)) == 0) {
    log->is_cut = 0;
  } else {
    log->is_cut = 1;
    if (!log->has_failed) warn("%s: events are missing from now on", log->path);
    log->has_failed = 1;
  }
  free(line);
}

void log_event(struct log *log, const char *name, json_t *fields)
{
  if (log->fd >= 0) {
    struct timespec now;
    struct tm utc;
    char date[32];
    char text[48];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, sizeof text, "%s.%03ldZ", date, now.tv_nsec / 1000000);
    json_t *event = json_pack("{s:s,s:s}", "time", text, "event", name);
    json_object_update(event, fields);
    write_event(log, event);
    json_decref(event);
  }
  json_decref(fields);
}

json_t *log_real(double value)
{
  return isfinite(value) ? json_real(value) : json_null();
}
