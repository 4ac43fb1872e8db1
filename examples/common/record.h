/* SPDX-License-Identifier: Apache-2.0 */
/* What happened in a training, in a file: an event a line, each a JSON
 * object. */
#ifndef EXAMPLES_RECORD_H
#define EXAMPLES_RECORD_H

#include <stdio.h>

#include <fl/freeze.h>

struct record {
  FILE *file; /* NULL = nothing is recorded */
  const char *path;
};

/* Replace the file at `path`, which has to stay; 0, or -1 with a line on
 * standard error. */
int record_open(struct record *record, const char *path);
/* A member of the object under way, and a comma; what is not finite is null. */
void record_number(struct record *record, const char *key, double value);
/* What a freeze controller did. */
void record_event(struct record *record, const fl_freeze_event *event);
/* 0, or -1 with a line on standard error: some of it is not in the file. */
int record_close(struct record *record);

/* "evaluated", "booted", "changed" or "cache_off". */
const char *record_kind(uint32_t kind);

#endif
