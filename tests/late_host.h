/* SPDX-License-Identifier: Apache-2.0 */
/* A host that runs a task as late as it may: when somebody waits for it. It is
 * what the hooks' `user` points to, or begins with. */
#ifndef LATE_HOST_H
#define LATE_HOST_H

#include <fl/base.h>

typedef struct late_host {
  fl_task_fn task;
  void *arg;
  int is_waiting;
  fl_status says; /* other than FL_OK: it starts nothing */
  uint32_t started;
  uint32_t finished;
  uint32_t wrong; /* calls that should not have been */
} late_host;

static inline fl_status late_start(void *user, fl_task_fn task, void *arg,
                                   void **job)
{
  late_host *host = user;
  if (host->says != FL_OK) return host->says;
  host->wrong += host->is_waiting != 0;
  host->is_waiting = 1;
  host->task = task;
  host->arg = arg;
  host->started++;
  *job = host;
  return FL_OK;
}

static inline void late_finish(void *user, void *job)
{
  late_host *host = user;
  host->wrong += job != host || !host->is_waiting;
  host->is_waiting = 0;
  host->finished++;
  host->task(host->arg, 0);
}

#endif
