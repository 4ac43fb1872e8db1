/* SPDX-License-Identifier: Apache-2.0 */
/* The thread pool and the storage of libfl-host. Internal and shared libfl
 * must not be mixed in one program, so the pool is reached through its own
 * files, as the library itself uses it. Runs under TSan. */
#define _XOPEN_SOURCE 700
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "adapters/host/pool.h"
#include "adapters/host/storage.h"

enum { THREADS = 4, ITEMS = 1000, TURNS = 200 };

typedef struct loop_data {
  fli_host_pool *pool;
  uint32_t items[ITEMS]; /* how often each was run */
} loop_data;

static void run_item(void *arg, uint64_t index)
{
  loop_data *data = arg;
  data->items[index]++;
}

static fli_host_pool *new_pool(uint32_t threads)
{
  fli_host_pool *pool = NULL;
  CHECK_OK(fli_host_pool_new(&pool, threads));
  if (!pool) exit(1);
  return pool;
}

static void check_items(const loop_data *data, uint32_t want)
{
  for (size_t i = 0; i < ITEMS; i++) {
    CHECK_EQ_U64(data->items[i], want);
  }
}

static void every_item_runs_once(void)
{
  for (uint32_t threads = 2; threads <= THREADS; threads++) {
    loop_data data = {.pool = new_pool(threads)};
    for (uint32_t turn = 0; turn < TURNS; turn++) {
      fli_host_pool_run(data.pool, ITEMS, run_item, &data);
    }
    fli_host_pool_free(data.pool);
    check_items(&data, TURNS);
  }
}

static void loops_shorter_than_the_pool_end(void)
{
  loop_data data = {.pool = new_pool(THREADS)};
  for (uint64_t count = 0; count < THREADS; count++) {
    for (uint32_t turn = 0; turn < TURNS; turn++) {
      fli_host_pool_run(data.pool, count, run_item, &data);
    }
  }
  fli_host_pool_free(data.pool);
  CHECK_EQ_U64(data.items[0], TURNS * (THREADS - 1));
  CHECK_EQ_U64(data.items[THREADS - 2], TURNS);
  CHECK_EQ_U64(data.items[THREADS - 1], 0);
}

static void run_nested(void *arg, uint64_t index)
{
  loop_data *rows = arg;
  fli_host_pool_run(rows[index].pool, ITEMS, run_item, &rows[index]);
}

static void nested_loops_run_to_the_end(void)
{
  static loop_data rows[8];
  fli_host_pool *pool = new_pool(THREADS);
  for (size_t i = 0; i < 8; i++) {
    rows[i].pool = pool;
  }
  fli_host_pool_run(pool, 8, run_nested, rows);
  fli_host_pool_free(pool);
  for (size_t i = 0; i < 8; i++) {
    check_items(&rows[i], 1);
  }
}

static void *call_loops(void *arg)
{
  loop_data data = {.pool = arg};
  for (uint32_t turn = 0; turn < TURNS; turn++) {
    fli_host_pool_run(data.pool, ITEMS, run_item, &data);
  }
  check_items(&data, TURNS);
  return NULL;
}

static void several_callers_share_a_pool(void)
{
  fli_host_pool *pool = new_pool(THREADS);
  pthread_t callers[THREADS];
  int count = 0;
  while (count < THREADS &&
         pthread_create(&callers[count], NULL, call_loops, pool) == 0) {
    count++;
  }
  CHECK_EQ_I64(count, THREADS);
  for (int i = 0; i < count; i++) {
    pthread_join(callers[i], NULL);
  }
  fli_host_pool_free(pool);
}

static void meet(void *arg, uint64_t index)
{
  (void)index;
  pthread_barrier_wait(arg);
}

/* Each item waits for the other one: with one thread this would never end. */
static void two_threads_work_at_once(void)
{
  pthread_barrier_t barrier;
  fli_host_pool *pool = new_pool(2);
  CHECK_EQ_I64(pthread_barrier_init(&barrier, NULL, 2), 0);
  for (int turn = 0; turn < TURNS; turn++) {
    fli_host_pool_run(pool, 2, meet, &barrier);
  }
  fli_host_pool_free(pool);
  pthread_barrier_destroy(&barrier);
}

/* Workers that still look for a loop, and such that sleep by now. */
static void loops_after_pauses_find_a_second_thread(void)
{
  pthread_barrier_t barrier;
  fli_host_pool *pool = new_pool(2);
  CHECK_EQ_I64(pthread_barrier_init(&barrier, NULL, 2), 0);
  for (int turn = 0; turn < TURNS / 4; turn++) {
    fli_host_pool_run(pool, 2, meet, &barrier);
    const struct timespec pause = {.tv_nsec = 50000 * (turn % 5) +
                                              1000000 * (turn % 2)};
    nanosleep(&pause, NULL);
  }
  fli_host_pool_free(pool);
  pthread_barrier_destroy(&barrier);
}

/* ---- tasks beside their callers ------------------------------------------ */

enum { JOBS = 40 };

typedef struct job_data {
  fli_host_job *job;
  uint32_t runs;
  pthread_t runner;
} job_data;

static void note_run(void *arg, uint64_t index)
{
  job_data *data = arg;
  CHECK_EQ_U64(index, 0);
  data->runs++;
  data->runner = pthread_self();
}

static void start_job(fli_host_pool *pool, job_data *data)
{
  CHECK_OK(fli_host_pool_start(pool, note_run, data, &data->job));
  if (!data->job) exit(1);
}

/* Waited for from the last one to the first, with loops meanwhile. */
static void every_task_runs_once(void)
{
  static loop_data loop;
  for (uint32_t threads = 2; threads <= THREADS; threads++) {
    job_data jobs[JOBS] = {{0}};
    loop = (loop_data){.pool = new_pool(threads)};
    for (int i = 0; i < JOBS; i++) {
      start_job(loop.pool, &jobs[i]);
      fli_host_pool_run(loop.pool, ITEMS, run_item, &loop);
    }
    for (int i = JOBS - 1; i >= 0; i--) {
      fli_host_pool_finish(loop.pool, jobs[i].job);
      CHECK_EQ_U64(jobs[i].runs, 1);
    }
    fli_host_pool_free(loop.pool);
    check_items(&loop, JOBS);
  }
}

/* The only worker is kept busy: who waits for another task runs it, and loops
 * are their callers'. */
static void nothing_waits_for_a_busy_worker(void)
{
  static loop_data loop;
  pthread_barrier_t barrier;
  fli_host_job *busy = NULL;
  job_data jobs[3] = {{0}};
  fli_host_pool *pool = new_pool(2);
  CHECK_EQ_I64(pthread_barrier_init(&barrier, NULL, 2), 0);
  CHECK_OK(fli_host_pool_start(pool, meet, &barrier, &busy));
  for (int i = 0; i < 3; i++) {
    start_job(pool, &jobs[i]);
  }
  fli_host_pool_finish(pool, jobs[1].job);
  fli_host_pool_finish(pool, jobs[2].job);
  start_job(pool, &jobs[2]);
  fli_host_pool_finish(pool, jobs[2].job);
  CHECK_EQ_U64(jobs[1].runs, 1);
  CHECK_EQ_U64(jobs[2].runs, 2);
  CHECK(pthread_equal(jobs[1].runner, pthread_self()));
  CHECK(pthread_equal(jobs[2].runner, pthread_self()));
  loop = (loop_data){.pool = pool};
  fli_host_pool_run(pool, ITEMS, run_item, &loop);
  check_items(&loop, 1);
  pthread_barrier_wait(&barrier);
  fli_host_pool_finish(pool, busy);
  fli_host_pool_finish(pool, jobs[0].job);
  CHECK_EQ_U64(jobs[0].runs, 1);
  fli_host_pool_free(pool);
  pthread_barrier_destroy(&barrier);
}

/* Each task meets its caller: on one thread this would never end. */
static void tasks_go_on_beside_their_caller(void)
{
  pthread_barrier_t barrier;
  fli_host_pool *pool = new_pool(2);
  CHECK_EQ_I64(pthread_barrier_init(&barrier, NULL, 2), 0);
  for (int turn = 0; turn < TURNS; turn++) {
    fli_host_job *job = NULL;
    CHECK_OK(fli_host_pool_start(pool, meet, &barrier, &job));
    pthread_barrier_wait(&barrier);
    fli_host_pool_finish(pool, job);
  }
  fli_host_pool_free(pool);
  pthread_barrier_destroy(&barrier);
}

static void unused_pool_ends(void)
{
  fli_host_pool_free(new_pool(THREADS));
  fli_host_pool_free(NULL);
}

typedef struct write_data {
  const fl_storage *hooks;
  atomic_int next;
} write_data;

static void *write_same_blob(void *arg)
{
  write_data *data = arg;
  char text[64];
  memset(text, 'a' + atomic_fetch_add(&data->next, 1), sizeof text);
  for (int i = 0; i < 20; i++) {
    char got[sizeof text];
    CHECK_OK(data->hooks->write(data->hooks->user, "blob", text, sizeof text));
    CHECK_OK(data->hooks->read(data->hooks->user, "blob", 0, got, sizeof got));
    for (size_t j = 1; j < sizeof got; j++) {
      CHECK_EQ_U64(got[j], got[0]);
    }
  }
  return NULL;
}

static void writers_of_one_blob_never_mix(void)
{
  char folder[] = P_tmpdir "/fl-test-threads-XXXXXX";
  fli_host_storage *storage = NULL;
  fl_storage hooks;
  pthread_t writers[2];
  CHECK(mkdtemp(folder) != NULL);
  CHECK_OK(fli_host_storage_new(&storage, folder));
  if (!storage) return;
  fli_host_storage_hooks(storage, &hooks);
  write_data data = {.hooks = &hooks};
  for (int i = 0; i < 2; i++) {
    if (pthread_create(&writers[i], NULL, write_same_blob, &data) != 0) {
      exit(1);
    }
  }
  for (int i = 0; i < 2; i++) {
    pthread_join(writers[i], NULL);
  }
  CHECK_OK(hooks.remove(hooks.user, "blob"));
  fli_host_storage_free(storage);
  CHECK_EQ_I64(rmdir(folder), 0);
}

int main(void)
{
  CHECK_CASE(every_item_runs_once);
  CHECK_CASE(loops_shorter_than_the_pool_end);
  CHECK_CASE(nested_loops_run_to_the_end);
  CHECK_CASE(several_callers_share_a_pool);
  CHECK_CASE(two_threads_work_at_once);
  CHECK_CASE(loops_after_pauses_find_a_second_thread);
  CHECK_CASE(every_task_runs_once);
  CHECK_CASE(nothing_waits_for_a_busy_worker);
  CHECK_CASE(tasks_go_on_beside_their_caller);
  CHECK_CASE(unused_pool_ends);
  CHECK_CASE(writers_of_one_blob_never_mix);
  return check_report();
}
