/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of threads for fl_context_options.parallel_for. Idle threads sleep;
 * a call that comes while the pool is busy (a nested one, or another thread's)
 * is run by its caller alone, so calls never wait for each other. Loops come
 * before tasks that go on beside their caller. */
#ifndef FLI_HOST_POOL_H
#define FLI_HOST_POOL_H

#include <fl/base.h>

enum { FLI_HOST_THREADS_MAX = 1024 };

typedef struct fli_host_pool fli_host_pool;

/* `threads` counts the caller of parallel_for: threads - 1 are started.
 * 2 <= threads <= FLI_HOST_THREADS_MAX. FL_E_NOMEM. */
fl_status fli_host_pool_new(fli_host_pool **out, uint32_t threads);
/* No call of fli_host_pool_run may be under way. */
void fli_host_pool_free(fli_host_pool *pool);
void fli_host_pool_run(fli_host_pool *pool, uint64_t count, fl_task_fn task,
                       void *arg);

/* A task beside its caller. */
typedef struct fli_host_job fli_host_job;
/* FL_E_NOMEM. */
fl_status fli_host_pool_start(fli_host_pool *pool, fl_task_fn task, void *arg,
                              fli_host_job **job);
/* Wait for the task, or run it if no thread has begun to; frees the job. Once
 * for each, and before the pool is freed. */
void fli_host_pool_finish(fli_host_pool *pool, fli_host_job *job);

#endif
