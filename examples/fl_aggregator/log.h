/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics log: one JSON object a line. */
#ifndef FL_AGGREGATOR_LOG_H
#define FL_AGGREGATOR_LOG_H

#include <stdio.h>

#include <jansson.h>

struct log {
  FILE *file; /* NULL = no log */
};

/* Append to `path`; "" = no log, "-" = standard output. 0, or -1 with a line
 * on stderr. */
int log_open(struct log *log, const char *path);
void log_close(struct log *log);
/* Write {"time": now, "event": name, ...fields}; takes `fields` over. */
void log_event(struct log *log, const char *name, json_t *fields);
/* A number, or null when it is not finite. */
json_t *log_real(double value);

#endif
