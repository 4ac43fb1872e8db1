/* SPDX-License-Identifier: Apache-2.0 */
/* One loop at a time: the caller publishes it under the mutex, wakes the
 * workers and takes part itself. Indices are handed out by an atomic counter;
 * the loop is over when the counter is used up and no worker is inside. Tasks
 * beside their callers wait in a list, for workers that no loop wants.
 *
 * Loops follow each other closely, and who sleeps in between is late: tens of
 * microseconds, on a busy machine until another's time slice ends. So both
 * sides look for each other for a while before they sleep. */
#define _POSIX_C_SOURCE 200809L
#include "adapters/host/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/compiler.h"

/* About 30 to 80 microseconds, as long as x86 and 64-bit Arm pause; where
 * FLI_PAUSE is nothing, one or two. */
enum { LOOKS = 2000 };

typedef struct pool_loop {
  uint64_t count;
  fl_task_fn task;
  void *arg;
} pool_loop;

struct fli_host_job {
  fl_task_fn task;
  void *arg;
  int is_done;
  fli_host_job *next; /* while it waits */
};

struct fli_host_pool {
  pthread_mutex_t mutex;
  pthread_cond_t work;     /* a loop or job was published, or is_stopping */
  pthread_cond_t finished; /* workers_inside became 0 */
  pthread_cond_t done;     /* a job is */
  fli_host_job *first;     /* of those that wait */
  fli_host_job **last;     /* where the next one goes */
  int is_busy;
  int is_stopping;
  int looks;                       /* before a thread sleeps */
  _Atomic uint32_t published;      /* loops, jobs and is_stopping */
  _Atomic uint32_t workers_inside; /* the loop */
  pool_loop loop;                  /* valid while is_busy */
  _Atomic uint64_t next;           /* index to hand out; >= count: used up */
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

/* What follows is called and returns with the mutex held. */

static void work_on_loop(fli_host_pool *pool)
{
  pool_loop loop = pool->loop;
  pool->workers_inside++;
  pthread_mutex_unlock(&pool->mutex);
  run_share(pool, &loop);
  pthread_mutex_lock(&pool->mutex);
  pool->workers_inside--;
  if (pool->workers_inside == 0) pthread_cond_signal(&pool->finished);
}

/* Take the job at *place out of the list. */
static fli_host_job *take_job(fli_host_pool *pool, fli_host_job **place)
{
  fli_host_job *job = *place;
  *place = job->next;
  if (!*place) pool->last = place;
  return job;
}

static void work_on_job(fli_host_pool *pool)
{
  fli_host_job *job = take_job(pool, &pool->first);
  pthread_mutex_unlock(&pool->mutex);
  job->task(job->arg, 0);
  pthread_mutex_lock(&pool->mutex);
  job->is_done = 1;
  pthread_cond_broadcast(&pool->done);
}

static void wait_for_work(fli_host_pool *pool)
{
  const uint32_t seen = atomic_load(&pool->published);
  pthread_mutex_unlock(&pool->mutex);
  for (int i = 0; i < pool->looks; i++) {
    if (atomic_load_explicit(&pool->published, memory_order_relaxed) != seen)
      break;
    FLI_PAUSE();
  }
  pthread_mutex_lock(&pool->mutex);
  if (atomic_load(&pool->published) == seen)
    pthread_cond_wait(&pool->work, &pool->mutex);
}

static void *worker_main(void *arg)
{
  fli_host_pool *pool = arg;
  pthread_mutex_lock(&pool->mutex);
  while (!pool->is_stopping) {
    if (has_work(pool)) {
      work_on_loop(pool);
    } else if (pool->first) {
      work_on_job(pool);
    } else {
      wait_for_work(pool);
    }
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

static fl_status init_locks(fli_host_pool *pool)
{
  pthread_cond_t *conditions[] = {&pool->work, &pool->finished, &pool->done};
  size_t n = sizeof conditions / sizeof *conditions;
  size_t made = 0;
  if (pthread_mutex_init(&pool->mutex, NULL) != 0) return FL_E_NOMEM;
  while (made < n && pthread_cond_init(conditions[made], NULL) == 0) {
    made++;
  }
  if (made == n) return FL_OK;
  while (made > 0) {
    pthread_cond_destroy(conditions[--made]);
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
  atomic_init(&pool->published, 0);
  atomic_init(&pool->workers_inside, 0);
  pool->looks = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? LOOKS : 0;
  pool->last = &pool->first;
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
  pool->published++;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->mutex);
  for (uint32_t i = 0; i < pool->n_workers; i++) {
    pthread_join(pool->workers[i], NULL);
  }
  pthread_cond_destroy(&pool->done);
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
    pool->published++;
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
  for (int i = 0; i < pool->looks && atomic_load(&pool->workers_inside); i++)
    FLI_PAUSE();
  pthread_mutex_lock(&pool->mutex);
  while (pool->workers_inside > 0) {
    pthread_cond_wait(&pool->finished, &pool->mutex);
  }
  pool->is_busy = 0;
  pthread_mutex_unlock(&pool->mutex);
}

fl_status fli_host_pool_start(fli_host_pool *pool, fl_task_fn task, void *arg,
                              fli_host_job **job)
{
  fli_host_job *made = calloc(1, sizeof *made);
  if (!made) return FL_E_NOMEM;
  made->task = task;
  made->arg = arg;
  pthread_mutex_lock(&pool->mutex);
  *pool->last = made;
  pool->last = &made->next;
  pool->published++;
  pthread_cond_signal(&pool->work);
  pthread_mutex_unlock(&pool->mutex);
  *job = made;
  return FL_OK;
}

/* The place of a job that waits, or NULL. With the mutex held. */
static fli_host_job **find_job(fli_host_pool *pool, const fli_host_job *job)
{
  fli_host_job **place = &pool->first;
  while (*place && *place != job) {
    place = &(*place)->next;
  }
  return *place ? place : NULL;
}

void fli_host_pool_finish(fli_host_pool *pool, fli_host_job *job)
{
  pthread_mutex_lock(&pool->mutex);
  fli_host_job **place = find_job(pool, job);
  if (place) {
    (void)take_job(pool, place);
    job->is_done = 1;
  }
  while (!job->is_done) {
    pthread_cond_wait(&pool->done, &pool->mutex);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (place) job->task(job->arg, 0);
  free(job);
}
