/* SPDX-License-Identifier: Apache-2.0 */
/* The store in memory, and the checks before any store's hooks. */
#include "store_suite.h"

static fl_store *suite_open(void)
{
  fl_store *store = NULL;
  WANT_OK(fl_store_memory_new(&store, NULL));
  return store;
}

/* It has no other process: what a kill would drop is what a rollback does. */
static fl_store *suite_reopen(fl_store *store)
{
  WANT_OK(fl_store_rollback(store));
  return store;
}

static void suite_close(fl_store *store)
{
  fl_store_free(store);
}

STORE_CASE(store, values_come_back_as_they_were_put)
STORE_CASE(store, the_last_put_counts)
STORE_CASE(store, removed_is_gone_and_may_be_put_again)
STORE_CASE(store, keys_come_in_order)
STORE_CASE(store, a_rollback_leaves_the_last_commit)
STORE_CASE(store, what_was_committed_stays_and_no_more)
STORE_CASE(store, what_it_lends_may_be_given_back)
STORE_CASE(store, clear_takes_a_prefix_and_nothing_else)
STORE_CASE(store, any_changes_are_as_a_table_says)

Test(store, sizes_and_pointers_are_checked)
{
  fl_store *store = suite_open();
  char key[FL_STORE_KEY_MAX + 1] = "";
  const void *found = NULL;
  size_t n = 0;
  cr_assert_eq(fl_store_put(store, key, 0, "", 0), FL_E_ARGUMENT);
  cr_assert_str_eq(fl_last_error(),
                   "fl_store_put: key: got 0 bytes, want 1..255");
  cr_assert_eq(fl_store_put(store, key, sizeof key, "", 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_put(store, NULL, 1, "", 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_put(store, key, 1, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_put(store, key, 1, key, (size_t)FL_STORE_VALUE_MAX + 1),
               FL_E_ARGUMENT);
  WANT_OK(fl_store_put(store, key, 1, NULL, 0));
  cr_assert_eq(fl_store_get(store, key, 1, NULL, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_get(store, key, 1, &found, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_get(store, key, 0, &found, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_remove(store, key, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_next(store, key, sizeof key, &found, &n),
               FL_E_ARGUMENT);
  cr_assert_eq(fl_store_next(store, NULL, 1, &found, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_next(store, key, 1, NULL, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_clear(store, key, sizeof key), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_clear(store, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_memory_new(NULL, NULL), FL_E_ARGUMENT);
  fl_store_free(store);
  fl_store_free(NULL);
}

Test(store, no_store_and_a_missing_hook_are_refused)
{
  fl_store *store = suite_open();
  fl_store other = *store;
  other.commit = NULL;
  cr_assert_eq(fl_store_commit(&other), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_rollback(&other), FL_E_ARGUMENT);
  other = *store;
  other.struct_size = 16;
  cr_assert_eq(fl_store_remove(&other, "a", 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_put(NULL, "a", 1, "", 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_commit(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_rollback(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_clear(NULL, "a", 1), FL_E_ARGUMENT);
  fl_store_free(store);
}

static fl_status full(void *user, const void *key, size_t key_size,
                      const void *value, size_t n)
{
  (void)user, (void)key, (void)key_size, (void)value, (void)n;
  return FL_E_IO;
}

static const char *why(void *user)
{
  (void)user;
  return "no space left";
}

Test(store, a_hooks_failure_has_the_stores_words)
{
  fl_store *store = suite_open();
  fl_store other = *store;
  other.put = full;
  cr_assert_eq(fl_store_put(&other, "a", 1, "", 0), FL_E_IO);
  cr_assert_str_eq(fl_last_error(),
                   "fl_store_put: a stream or storage hook failed");
  other.error = why;
  cr_assert_eq(fl_store_put(&other, "a", 1, "", 0), FL_E_IO);
  cr_assert_str_eq(fl_last_error(), "fl_store_put: no space left");
  fl_store_free(store);
}
