/* SPDX-License-Identifier: Apache-2.0 */
/* One loop at a time: the caller publishes it under the mutex, wakes the
 * workers and takes part itself. Indices are handed out by an atomic counter;
 * the loop is over when the counter is used up and no worker is inside. */
#define _POSIX_C_SOURCE 200809L
#include "adapters/host/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct pool_loop {
  uint64_t count;
  fl_task_fn task;
  void *arg;
} pool_loop;

struct fli_host_pool {
  pthread_mutex_t mutex;
  pthread_cond_t work;     /* a loop was published, or is_stopping */
  pthread_cond_t finished; /* workers_inside became 0 */
  int is_busy;
  int is_stopping;
  uint32_t workers_inside;
  pool_loop loop;        /* valid while is_busy */
  _Atomic uint64_t next; /* index to hand out; >= count: used up */
  uint32_t n_workers;
  pthread_t workers[];
};

static void run_share(fli_host_pool *pool, const pool_loop *loop)
{
  for (;;) {
    uint64_t index = atomic_fetch_add(&pool->next, 1);
    if (index >= loop->count) return;
    loop->task(loop->arg, index);
  }
}

static int has_work(fli_host_pool *pool)
{
  return pool->is_busy && atomic_load(&pool->next) < pool->loop.count;
}

static void *worker_main(void *arg)
{
  fli_host_pool *pool = arg;
  pthread_mutex_lock(&pool->mutex);
  while (!pool->is_stopping) {
    if (!has_work(pool)) {
      pthread_cond_wait(&pool->work, &pool->mutex);
      continue;
    }
    pool_loop loop = pool->loop;
    pool->workers_inside++;
    pthread_mutex_unlock(&pool->mutex);
    run_share(pool, &loop);
    pthread_mutex_lock(&pool->mutex);
    pool->workers_inside--;
    if (pool->workers_inside == 0) pthread_cond_signal(&pool->finished);
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

static fl_status init_locks(fli_host_pool *pool)
{
  if (pthread_mutex_init(&pool->mutex, NULL) != 0) return FL_E_NOMEM;
  if (pthread_cond_init(&pool->work, NULL) == 0) {
    if (pthread_cond_init(&pool->finished, NULL) == 0) return FL_OK;
    pthread_cond_destroy(&pool->work);
  }
  pthread_mutex_destroy(&pool->mutex);
  return FL_E_NOMEM;
}

/* The host's signals are for the host's threads: workers block all. */
static fl_status start_workers(fli_host_pool *pool, uint32_t count)
{
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return FL_E_NOMEM;
  while (pool->n_workers < count) {
    pthread_t *worker = &pool->workers[pool->n_workers];
    if (pthread_create(worker, NULL, worker_main, pool) != 0) break;
    pool->n_workers++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return pool->n_workers == count ? FL_OK : FL_E_NOMEM;
}

fl_status fli_host_pool_new(fli_host_pool **out, uint32_t threads)
{
  uint32_t count = threads - 1;
  fli_host_pool *pool =
      calloc(1, sizeof *pool + (size_t)count * sizeof pool->workers[0]);
  if (!pool) return FL_E_NOMEM;
  if (init_locks(pool) != FL_OK) {
    free(pool);
    return FL_E_NOMEM;
  }
  atomic_init(&pool->next, 0);
  if (start_workers(pool, count) != FL_OK) {
    fli_host_pool_free(pool);
    return FL_E_NOMEM;
  }
  *out = pool;
  return FL_OK;
}

void fli_host_pool_free(fli_host_pool *pool)
{
  if (!pool) return;
  pthread_mutex_lock(&pool->mutex);
  pool->is_stopping = 1;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->mutex);
  for (uint32_t i = 0; i < pool->n_workers; i++) {
    pthread_join(pool->workers[i], NULL);
  }
  pthread_cond_destroy(&pool->finished);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

void fli_host_pool_run(fli_host_pool *pool, uint64_t count, fl_task_fn task,
                       void *arg)
{
  pool_loop loop = {.count = count, .task = task, .arg = arg};
  pthread_mutex_lock(&pool->mutex);
  int is_alone = pool->is_busy;
  if (!is_alone) {
    pool->is_busy = 1;
    pool->loop = loop;
    atomic_store(&pool->next, 0);
    pthread_cond_broadcast(&pool->work);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (is_alone) {
    for (uint64_t i = 0; i < count; i++) {
      task(arg, i);
    }
    return;
  }
  run_share(pool, &loop);
  pthread_mutex_lock(&pool->mutex);
  while (pool->workers_inside > 0) {
    pthread_cond_wait(&pool->finished, &pool->mutex);
  }
  pool->is_busy = 0;
  pthread_mutex_unlock(&pool->mutex);
}
