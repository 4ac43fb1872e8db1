/* SPDX-License-Identifier: Apache-2.0 */
/* The thread pool and the storage of libfl-host. Internal and shared libfl
 * must not be mixed in one program, so the pool is reached through its own
 * files, as the library itself uses it. Runs under TSan. */
#define _XOPEN_SOURCE 700
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
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
  CHECK_CASE(unused_pool_ends);
  CHECK_CASE(writers_of_one_blob_never_mix);
  return check_report();
}
