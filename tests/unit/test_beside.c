/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks that go on beside their caller, and contexts that have memory alone. */
#include <criterion/criterion.h>
#include <fenv.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/context.h"
#include "base/error.h"
#include "late_host.h"

typedef struct counting_host {
  late_host late;
  size_t blocks;
} counting_host;

/* As a thread whose rounding mode some other library has changed. */
static void upward_finish(void *user, void *job)
{
  fesetround(FE_UPWARD);
  late_finish(user, job);
  cr_expect_eq(fegetround(), FE_UPWARD, "the host's mode is left alone");
  fesetround(FE_TONEAREST);
}

static void *count_alloc(void *user, size_t size, size_t alignment)
{
  counting_host *host = user;
  host->blocks++;
  return aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));
}

static void count_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  counting_host *host = user;
  (void)size;
  (void)alignment;
  host->blocks--;
  free(ptr);
}

static fl_status any_loop(void *user, uint64_t count, fl_task_fn task,
                          void *arg)
{
  (void)user;
  for (uint64_t i = 0; i < count; i++) {
    task(arg, i);
  }
  return FL_OK;
}

static fl_context_options host_options(counting_host *host)
{
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.user = host;
  options.start = late_start;
  options.finish = upward_finish;
  options.alloc = count_alloc;
  options.dealloc = count_dealloc;
  return options;
}

static fl_context *make(const fl_context_options *options)
{
  fl_context *context = NULL;
  cr_assert_eq(fl_context_new(&context, options), FL_OK);
  return context;
}

/* volatile: the quotient must be made here and now, in the mode that is set. */
static double third(void)
{
  volatile double one = 1;
  volatile double three = 3;
  volatile double quotient = one / three;
  return quotient;
}

typedef struct notes {
  int runs;
  double third;
  uint64_t index;
} notes;

static void note(void *arg, uint64_t index)
{
  notes *n = arg;
  n->runs++;
  n->third = third();
  n->index = index;
}

Test(beside, task_runs_once_rounds_to_nearest_and_is_waited_for_once)
{
  notes seen = {.index = 7};
  counting_host host = {.blocks = 0};
  fl_context_options options = host_options(&host);
  fl_context *context = make(&options);
  fli_beside beside = {0};
  fli_beside_finish(context, &beside);
  cr_expect_eq(host.late.finished, 0, "nothing was under way");
  cr_assert_eq(fli_beside_start(context, &beside, note, &seen), 1);
  cr_expect_eq(seen.runs, 0, "the caller goes on at once");
  fli_beside_finish(context, &beside);
  fli_beside_finish(context, &beside);
  cr_expect_eq(host.late.finished, 1);
  cr_expect_eq(seen.runs, 1);
  cr_expect_eq(seen.third, third());
  cr_expect_eq(seen.index, 0);
  cr_assert_eq(fli_beside_start(context, &beside, note, &seen), 1);
  fli_beside_finish(context, &beside);
  cr_expect_eq(seen.runs, 2, "and may be started again");
  fl_context_free(context);
}

Test(beside, host_without_the_hook_or_that_refuses_starts_nothing)
{
  notes seen = {.index = 7};
  counting_host host = {.late = {.says = FL_E_LIMIT}};
  fl_context_options options = host_options(&host);
  fl_context *contexts[3] = {make(&options), NULL, make(NULL)};
  for (int i = 0; i < 3; i++) {
    fli_beside beside = {0};
    cr_expect_eq(fli_beside_start(contexts[i], &beside, note, &seen), 0);
    fli_beside_finish(contexts[i], &beside);
    cr_expect_str_eq(fl_last_error(), "");
    fl_context_free(contexts[i]);
  }
  cr_expect_eq(seen.runs, 0);
  cr_expect_eq(host.late.started + host.late.finished, 0);
}

Test(beside, one_hook_without_the_other_is_refused)
{
  counting_host host = {.blocks = 0};
  fl_context *context = NULL;
  fl_context_options options = host_options(&host);
  options.finish = NULL;
  cr_expect_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  cr_expect_str_eq(fl_last_error(),
                   "context: start and finish, got one of them");
  options.finish = late_finish;
  options.start = NULL;
  cr_expect_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  cr_expect_null(context);
}

Test(beside, hosts_from_before_it_have_shorter_options)
{
  counting_host host = {.blocks = 0};
  fl_context_options options = host_options(&host);
  fli_beside beside = {0};
  options.struct_size = offsetof(fl_context_options, start);
  fl_context *context = make(&options);
  cr_expect_eq(fli_beside_start(context, &beside, note, &host), 0);
  fl_context_free(context);
}

Test(beside, context_alone_has_the_memory_and_no_other_hook)
{
  counting_host host = {.blocks = 0};
  uint64_t now = 0;
  uint64_t peak = 0;
  fl_context *alone = NULL;
  fl_context *again = NULL;
  fl_context_options options = host_options(&host);
  fli_beside beside = {0};
  options.parallel_for = any_loop;
  options.memory_cap = 1000;
  fl_context *context = make(&options);
  cr_assert(fli_context_is_parallel(context));
  cr_assert_eq(fli_context_alone(&alone, context), FL_OK);
  cr_assert_eq(fli_context_alone(&again, alone), FL_OK);
  cr_expect_not(fli_context_is_parallel(alone));
  cr_expect_eq(fli_beside_start(alone, &beside, note, &host), 0);
  cr_expect_null(fli_context_storage(alone));
  void *first = fli_alloc(alone, 600, 1);
  cr_assert_not_null(first);
  cr_expect_null(fli_alloc(context, 401, 1), "one cap over both");
  cr_expect_null(fli_alloc(again, 401, 1));
  void *second = fli_alloc(again, 400, 1);
  cr_expect_not_null(second);
  cr_assert_eq(fl_context_get_memory(context, &now, &peak), FL_OK);
  cr_expect_eq(now, 1000);
  cr_expect_eq(peak, 1000);
  fl_context_free(context);
  fli_free(alone, first, 600);
  fli_context_unref(alone);
  fli_free(again, second, 400);
  cr_expect_eq(host.blocks, 2, "the last one keeps the whole");
  fli_context_unref(again);
  cr_expect_eq(host.blocks, 0);
  cr_assert_eq(fli_context_alone(&alone, NULL), FL_OK);
  cr_expect_null(alone);
}
