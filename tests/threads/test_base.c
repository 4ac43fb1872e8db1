/* SPDX-License-Identifier: Apache-2.0 */
/* What several threads share: the context and its counters, a cancel flag;
 * and what they must not share: the error text. Runs under TSan. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>

#include "base/context.h"
#include "base/error.h"

enum { THREADS = 4, TURNS = 2000 };

static void run_threads(void *(*body)(void *), void *arg)
{
  pthread_t threads[THREADS];
  int count = 0;
  while (count < THREADS &&
         pthread_create(&threads[count], NULL, body, arg) == 0) {
    count++;
  }
  CHECK_EQ_I64(count, THREADS);
  for (int i = 0; i < count; i++) {
    pthread_join(threads[i], NULL);
  }
}

static void *set_own_error(void *arg)
{
  (void)arg;
  char want[32];
  CHECK_EQ_STR(fl_last_error(), "");
  for (int i = 0; i < TURNS; i++) {
    snprintf(want, sizeof want, "%p %d", (void *)want, i);
    fli_error(FL_E_IO, "%s", want);
    CHECK_EQ_STR(fl_last_error(), want);
  }
  return NULL;
}

static void error_text_belongs_to_its_thread(void)
{
  fli_error(FL_E_DIM, "of the main thread");
  run_threads(set_own_error, NULL);
  CHECK_EQ_STR(fl_last_error(), "of the main thread");
  fli_clear_error();
}

static void *use_context(void *arg)
{
  fl_context *context = arg;
  for (int i = 0; i < TURNS; i++) {
    fl_buffer *buffer = NULL;
    CHECK_OK(fl_buffer_new(&buffer, context));
    if (!buffer) return NULL;
    CHECK_OK(fl_buffer_append(buffer, "0123456789", 10));
    fl_buffer_free(buffer);
  }
  return NULL;
}

static void context_counts_handles_of_all_threads(void)
{
  fl_context *context = NULL;
  uint64_t now = 1;
  uint64_t peak = 0;
  CHECK_OK(fl_context_new(&context, NULL));
  run_threads(use_context, context);
  CHECK_OK(fl_context_get_memory(context, &now, &peak));
  CHECK_EQ_U64(now, 0);
  CHECK(peak > 0);
  fl_context_free(context);
}

static void *fill_to_the_cap(void *arg)
{
  fl_context *context = arg;
  for (int i = 0; i < TURNS; i++) {
    uint64_t now = 0;
    void *block = fli_alloc(context, 300, 1);
    CHECK_OK(fl_context_get_memory(context, &now, NULL));
    CHECK(now <= 1000);
    fli_free(context, block, 300);
  }
  return NULL;
}

static void cap_holds_for_all_threads_together(void)
{
  fl_context_options options;
  fl_context *context = NULL;
  uint64_t now = 1;
  uint64_t peak = UINT64_MAX;
  CHECK_OK(fl_context_options_init(&options, sizeof options));
  options.memory_cap = 1000;
  CHECK_OK(fl_context_new(&context, &options));
  run_threads(fill_to_the_cap, context);
  CHECK_OK(fl_context_get_memory(context, &now, &peak));
  CHECK_EQ_U64(now, 0);
  CHECK(peak <= 1000);
  fl_context_free(context);
}

static void *wait_for_cancel(void *arg)
{
  const fl_cancel *cancel = arg;
  uint64_t looks = 0;
  while (!fl_cancel_is_requested(cancel)) {
    looks++;
  }
  return NULL;
}

static void *request_cancel(void *arg)
{
  fl_cancel_request(arg);
  return NULL;
}

static void cancel_is_seen_by_another_thread(void)
{
  fl_cancel *cancel = NULL;
  pthread_t waiting;
  pthread_t requesting;
  CHECK_OK(fl_cancel_new(&cancel));
  CHECK_EQ_I64(pthread_create(&waiting, NULL, wait_for_cancel, cancel), 0);
  CHECK_EQ_I64(pthread_create(&requesting, NULL, request_cancel, cancel), 0);
  pthread_join(requesting, NULL);
  pthread_join(waiting, NULL);
  CHECK_EQ_I64(fl_cancel_is_requested(cancel), 1);
  fl_cancel_free(cancel);
}

int main(void)
{
  CHECK_CASE(error_text_belongs_to_its_thread);
  CHECK_CASE(context_counts_handles_of_all_threads);
  CHECK_CASE(cap_holds_for_all_threads_together);
  CHECK_CASE(cancel_is_seen_by_another_thread);
  return check_report();
}
