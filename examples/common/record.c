/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events as JSON lines. A line goes out whole, so that what a killed process
 * leaves can be read; numbers that are not known are null.
 */
#include "common/record.h"

#include <err.h>
#include <errno.h>
#include <math.h>
#include <string.h>

static const char *name_of(const char *const *names, size_t n, uint32_t number)
{
  return number < n ? names[number] : "unknown";
}

const char *record_kind(uint32_t kind)
{
  static const char *const names[] = {"unknown", "evaluated", "booted",
                                      "changed", "cache_off"};
  return name_of(names, sizeof names / sizeof names[0], kind);
}

static const char *reason_name(uint32_t reason)
{
  static const char *const names[] = {"none",   "criterion", "fixed",
                                      "server", "rate_fell", "restart"};
  return name_of(names, sizeof names / sizeof names[0], reason);
}

int record_open(struct record *record, const char *path)
{
  *record = (struct record){.file = fopen(path, "w"), .path = path};
  if (!record->file) {
    warn("%s", path);
    return -1;
  }
  setvbuf(record->file, NULL, _IOLBF, BUFSIZ);
  return 0;
}

void record_number(struct record *record, const char *key, double value)
{
  if (isfinite(value))
    fprintf(record->file, "\"%s\": %.9g, ", key, value);
  else
    fprintf(record->file, "\"%s\": null, ", key);
}

void record_event(struct record *record, const fl_freeze_event *event)
{
  FILE *file = record->file;
  if (!file) return;
  fprintf(file, "{\"step\": %llu, \"kind\": \"%s\", \"module\": %u, ",
          (unsigned long long)event->step, record_kind(event->kind),
          event->module);
  record_number(record, "value", event->value);
  record_number(record, "threshold", event->threshold);
  record_number(record, "raw", event->raw);
  fprintf(file,
          "\"below\": %u, \"first_active\": %u, \"reason\": \"%s\", "
          "\"version\": %llu}\n",
          event->below, event->first_active, reason_name(event->reason),
          (unsigned long long)event->version);
}

int record_close(struct record *record)
{
  if (!record->file) return 0;
  int has_failed = ferror(record->file);
  errno = 0;
  if (fclose(record->file)) has_failed = 1;
  record->file = NULL;
  if (has_failed)
    warnx("%s: not whole: %s", record->path,
          errno ? strerror(errno) : "the disk may be full");
  return has_failed ? -1 : 0;
}
