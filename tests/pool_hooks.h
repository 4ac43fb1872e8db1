/* SPDX-License-Identifier: Apache-2.0 */
/* A context whose loops and tasks run on a pool of libfl-host, for programs
 * that make pools of their own. */
#ifndef POOL_HOOKS_H
#define POOL_HOOKS_H

#include <fl/base.h>

#include "adapters/host/pool.h"

static inline fl_status pool_loop(void *user, uint64_t count, fl_task_fn task,
                                  void *arg)
{
  fli_host_pool_run(user, count, task, arg);
  return FL_OK;
}

static inline fl_status pool_start(void *user, fl_task_fn task, void *arg,
                                   void **job)
{
  fli_host_job *made = NULL;
  fl_status st = fli_host_pool_start(user, task, arg, &made);
  if (st == FL_OK) *job = made;
  return st;
}

static inline void pool_finish(void *user, void *job)
{
  fli_host_pool_finish(user, job);
}

/* Its tasks only, or with `has_loops` its loops, too. */
static inline fl_status pool_context(fl_context **out, fli_host_pool *pool,
                                     int has_loops)
{
  fl_context_options options;
  fl_status st = fl_context_options_init(&options, sizeof options);
  if (st != FL_OK) return st;
  options.user = pool;
  if (has_loops) options.parallel_for = pool_loop;
  options.start = pool_start;
  options.finish = pool_finish;
  return fl_context_new(out, &options);
}

#endif
