/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of the store in memory: what was committed stays, and a
 * change that failed cannot be committed. */
#include "oom.h"

#include <fl/store.h>
#include "base/error.h"

static void want(const fl_store *store, const char *key, const char *value)
{
  const void *got = NULL;
  size_t n = 0;
  CHECK_OK(fl_store_get(store, key, 1, &got, &n));
  CHECK_EQ_U64(n, strlen(value));
  if (n == strlen(value)) CHECK_EQ_MEM(got, value, n);
}

/* Some of everything, not committed. */
static fl_status change(const fl_store *store)
{
  char key[2] = "c";
  fl_status st = fl_store_put(store, "a", 1, "changed", 7);
  if (st == FL_OK) st = fl_store_remove(store, "b", 1);
  for (; st == FL_OK && key[0] < 'z'; key[0]++)
    st = fl_store_put(store, key, 1, "added", 5);
  return st == FL_OK ? fl_store_clear(store, "d", 1) : st;
}

static fl_status use_store(fl_context *context, void *arg)
{
  (void)arg;
  fl_store *store = NULL;
  fl_status st = FL_OK;
  FLI_TRY(fl_store_memory_new(&store, context));
  FLI_TRY(fl_store_put(store, "a", 1, "1", 1));
  FLI_TRY(fl_store_put(store, "b", 1, "22", 2));
  FLI_TRY(fl_store_commit(store));
  st = change(store);
  if (st != FL_OK) {
    char text[128];
    snprintf(text, sizeof text, "%s", fl_last_error());
    CHECK_STATUS(fl_store_commit(store), FL_E_STATE);
    CHECK_OK(fl_store_rollback(store));
    want(store, "a", "1");
    want(store, "b", "22");
    const void *key = NULL;
    size_t n = 0;
    CHECK_STATUS(fl_store_next(store, "b", 1, &key, &n), FL_E_EMPTY);
    CHECK_OK(fl_store_commit(store));
    fli_error(st, "%s", text); /* what the loop looks at */
  }
out:
  fl_store_free(store);
  return st;
}

static void a_change_that_failed_is_not_committed(void)
{
  oom_loop(use_store, NULL);
}

int main(void)
{
  CHECK_CASE(a_change_that_failed_is_not_committed);
  return check_report();
}
