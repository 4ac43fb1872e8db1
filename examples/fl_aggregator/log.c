/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON lines, flushed one by one: whoever follows the file (the quick start
 * does) sees each event when it happens, and a killed process leaves no half
 * line but the last.
 */
#include "fl_aggregator/log.h"

#include <err.h>
#include <math.h>
#include <string.h>
#include <time.h>

int log_open(struct log *log, const char *path)
{
  log->file = NULL;
  if (!*path) return 0;
  log->file = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
  if (log->file) return 0;
  warn("%s", path);
  return -1;
}

void log_close(struct log *log)
{
  if (log->file && log->file != stdout) fclose(log->file);
  log->file = NULL;
}

void log_event(struct log *log, const char *name, json_t *fields)
{
  if (log->file) {
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
    json_dumpf(event, log->file, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', log->file);
    fflush(log->file);
    json_decref(event);
  }
  json_decref(fields);
}

json_t *log_real(double value)
{
  return isfinite(value) ? json_real(value) : json_null();
}
