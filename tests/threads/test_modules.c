/* SPDX-License-Identifier: Apache-2.0 */
/* The build facts, asked for by several threads at once for the first time:
 * lib/modules.c is compiled into this program. Runs under TSan. */
#define _XOPEN_SOURCE 700
#include "check.h"

#include <pthread.h>
#include <stdlib.h>

enum { THREADS = 8 };

static pthread_barrier_t start;

static void *ask(void *arg)
{
  const char **info = arg;
  pthread_barrier_wait(&start);
  *info = fl_build_info();
  return NULL;
}

static void build_info_is_one_text_for_all_first_callers(void)
{
  pthread_t threads[THREADS];
  const char *infos[THREADS] = {NULL};
  CHECK_EQ_I64(pthread_barrier_init(&start, NULL, THREADS), 0);
  for (int i = 0; i < THREADS; i++) {
    /* fewer would wait at the barrier for ever */
    if (pthread_create(&threads[i], NULL, ask, &infos[i]) != 0) exit(1);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  pthread_barrier_destroy(&start);
  for (int i = 0; i < THREADS; i++) {
    CHECK(infos[i] == fl_build_info());
  }
  CHECK(strstr(fl_build_info(), fl_version_string()) != NULL);
  CHECK(strlen(fl_build_info()) < 255); /* not cut */
}

int main(void)
{
  CHECK_CASE(build_info_is_one_text_for_all_first_callers);
  return check_report();
}
