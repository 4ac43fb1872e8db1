/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics log: one JSON object a line. */
#ifndef FL_AGGREGATOR_LOG_H
#define FL_AGGREGATOR_LOG_H

#include <jansson.h>

struct log {
  const char *path;
  int fd;         /* -1 = no log */
  int is_cut;     /* the last line is not whole: the next one ends it */
  int has_failed; /* an event is missing */
};

/* Append to `path` (borrowed); "" = no log, "-" = standard output. 0, or -1
 * with a line on stderr. */
int log_open(struct log *log, const char *path);
void log_close(struct log *log);
/* Write {"time": now, "event": name, ...fields}; takes `fields` over. What
 * cannot be written is left out, with a line on stderr for the first one. */
void log_event(struct log *log, const char *name, json_t *fields);
/* A number, or null when it is not finite. */
json_t *log_real(double value);

#endif
