/* SPDX-License-Identifier: Apache-2.0 */
/* What every store (fl/store.h) has to pass, whoever wrote it. A test file says
 * how its store is opened and lists the cases with STORE_CASE; public headers
 * only. */
#ifndef STORE_SUITE_H
#define STORE_SUITE_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/store.h>

/* Defined by the test file: open an empty store; drop the handle as a killed
 * process does, and open again what its last commit left; drop all. */
static fl_store *suite_open(void);
static fl_store *suite_reopen(fl_store *store);
static void suite_close(fl_store *store);

#define STORE_CASE(suite, name)     \
  Test(suite, name)                 \
  {                                 \
    fl_store *store = suite_open(); \
    store = suite_##name(store);    \
    suite_close(store);             \
  }

#define WANT_OK(call)                                        \
  do {                                                       \
    const fl_status want_ok_ = (call);                       \
    cr_assert_eq(want_ok_, FL_OK, "%s: %s (%s)", #call,      \
                 fl_status_name(want_ok_), fl_last_error()); \
  } while (0)

static inline void suite_put(const fl_store *store, const char *key,
                             const char *value)
{
  WANT_OK(fl_store_put(store, key, strlen(key), value, strlen(value)));
}

static inline void suite_remove(const fl_store *store, const char *key)
{
  WANT_OK(fl_store_remove(store, key, strlen(key)));
}

/* want NULL: not there. */
static inline void suite_want(const fl_store *store, const char *key,
                              const char *want)
{
  const void *value = NULL;
  size_t n = 0;
  const fl_status st = fl_store_get(store, key, strlen(key), &value, &n);
  if (!want) {
    cr_assert_eq(st, FL_E_NOT_FOUND, "%s: %s", key, fl_status_name(st));
    cr_assert_str_eq(fl_last_error(), "");
    return;
  }
  WANT_OK(st);
  cr_assert(n == strlen(want) && memcmp(value, want, n) == 0,
            "%s: got \"%.*s\", want \"%s\"", key, (int)n, (const char *)value,
            want);
}

/* All keys, each with a comma behind it. */
static inline void suite_want_keys(const fl_store *store, const char *want)
{
  char got[1024] = "", key[FL_STORE_KEY_MAX + 1];
  const void *found = NULL;
  size_t n = 0;
  fl_status st = fl_store_next(store, NULL, 0, &found, &n);
  while (st == FL_OK) {
    memcpy(key, found, n);
    key[n] = '\0';
    strcat(strcat(got, key), ",");
    st = fl_store_next(store, key, n, &found, &n);
  }
  cr_assert_eq(st, FL_E_EMPTY, "%s", fl_status_name(st));
  cr_assert_str_eq(got, want);
}

static inline fl_store *suite_values_come_back_as_they_were_put(fl_store *store)
{
  static const size_t sizes[] = {0, 1, 7, 4095, 4096, 65537, 3u << 20};
  uint8_t key[FL_STORE_KEY_MAX] = {0, 255, 0, 1};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const size_t key_size = i == 0 ? 1 : i == 1 ? sizeof key : 3 + i;
    uint8_t *want = malloc(sizes[i] + 1);
    const void *got = NULL;
    size_t n = 1;
    cr_assert_not_null(want);
    for (size_t j = 0; j < sizes[i]; j++)
      want[j] = (uint8_t)(j * 7 + i);
    for (int pass = 0; pass < 2; pass++) {
      if (pass == 0)
        WANT_OK(fl_store_put(store, key, key_size, want, sizes[i]));
      WANT_OK(fl_store_get(store, key, key_size, &got, &n));
      cr_assert_not_null(got);
      cr_assert(n == sizes[i] && memcmp(got, want, n) == 0, "size %zu",
                sizes[i]);
      WANT_OK(fl_store_commit(store));
      store = suite_reopen(store);
    }
    free(want);
  }
  return store;
}

static inline fl_store *suite_the_last_put_counts(fl_store *store)
{
  suite_put(store, "a", "first");
  suite_put(store, "a", "");
  suite_put(store, "b", "other");
  suite_put(store, "a", "a longer one than the first");
  suite_want(store, "a", "a longer one than the first");
  suite_want(store, "b", "other");
  suite_want(store, "c", NULL);
  return store;
}

static inline fl_store *
suite_removed_is_gone_and_may_be_put_again(fl_store *store)
{
  suite_remove(store, "a");
  suite_put(store, "a", "1");
  suite_put(store, "ab", "2");
  suite_remove(store, "a");
  suite_remove(store, "a");
  suite_want(store, "a", NULL);
  suite_want(store, "ab", "2");
  suite_put(store, "a", "3");
  suite_want(store, "a", "3");
  return store;
}

static inline fl_store *suite_keys_come_in_order(fl_store *store)
{
  static const char *const keys[] = {"b",  "a", "ab", "\xff", "a\x01",
                                     "aa", "Z", "b/", "\x7f", "a/b"};
  suite_want_keys(store, "");
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    suite_put(store, keys[i], "");
  suite_want_keys(store, "Z,a,a\x01,a/b,aa,ab,b,b/,\x7f,\xff,");
  const void *key = NULL;
  size_t n = 0;
  WANT_OK(fl_store_next(store, "ac", 2, &key, &n)); /* one that is not there */
  cr_assert(n == 1 && memcmp(key, "b", 1) == 0);
  return store;
}

static inline fl_store *suite_a_rollback_leaves_the_last_commit(fl_store *store)
{
  suite_put(store, "kept", "1");
  suite_put(store, "changed", "1");
  suite_put(store, "removed", "1");
  WANT_OK(fl_store_commit(store));
  suite_put(store, "changed", "2");
  suite_put(store, "changed", "3");
  suite_remove(store, "removed");
  suite_put(store, "added", "1");
  suite_put(store, "gone", "1");
  suite_remove(store, "gone");
  WANT_OK(fl_store_rollback(store));
  suite_want_keys(store, "changed,kept,removed,");
  suite_want(store, "changed", "1");
  WANT_OK(fl_store_rollback(store));
  suite_put(store, "added", "2");
  WANT_OK(fl_store_commit(store));
  WANT_OK(fl_store_rollback(store));
  suite_want_keys(store, "added,changed,kept,removed,");
  return store;
}

static inline fl_store *
suite_what_was_committed_stays_and_no_more(fl_store *store)
{
  WANT_OK(fl_store_commit(store)); /* nothing: fine */
  suite_put(store, "a", "1");
  suite_put(store, "b", "1");
  WANT_OK(fl_store_commit(store));
  suite_put(store, "a", "2");
  suite_remove(store, "b");
  suite_put(store, "c", "2");
  store = suite_reopen(store);
  suite_want_keys(store, "a,b,");
  suite_want(store, "a", "1");
  suite_remove(store, "b");
  WANT_OK(fl_store_commit(store));
  store = suite_reopen(store);
  suite_want_keys(store, "a,");
  return store;
}

static inline fl_store *suite_what_it_lends_may_be_given_back(fl_store *store)
{
  const void *lent = NULL;
  size_t n = 0;
  suite_put(store, "b", "some bytes that the store lends");
  suite_put(store, "c", "");
  WANT_OK(fl_store_get(store, "b", 1, &lent, &n));
  WANT_OK(fl_store_put(store, "a", 1, lent, n));
  suite_want(store, "a", "some bytes that the store lends");
  WANT_OK(fl_store_next(store, "a", 1, &lent, &n));
  WANT_OK(fl_store_next(store, lent, n, &lent, &n));
  cr_assert(n == 1 && memcmp(lent, "c", 1) == 0);
  WANT_OK(fl_store_remove(store, lent, n));
  WANT_OK(fl_store_next(store, "a", 1, &lent, &n));
  WANT_OK(fl_store_get(store, lent, n, &lent, &n));
  WANT_OK(fl_store_next(store, NULL, 0, &lent, &n));
  WANT_OK(fl_store_put(store, lent, n, lent, n));
  suite_want(store, "a", "a");
  return store;
}

static inline fl_store *
suite_clear_takes_a_prefix_and_nothing_else(fl_store *store)
{
  static const char *const keys[] = {"a", "b", "b/", "b/1", "b/2", "b0", "c"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    suite_put(store, keys[i], "x");
  WANT_OK(fl_store_clear(store, "b/", 2));
  suite_want_keys(store, "a,b,b0,c,");
  WANT_OK(fl_store_clear(store, "d", 1));
  suite_want_keys(store, "a,b,b0,c,");
  WANT_OK(fl_store_clear(store, NULL, 0));
  suite_want_keys(store, "");
  return store;
}

/* ---- against a table ---- */

enum { SUITE_KEYS = 40, SUITE_STEPS = 3000 };

/* Numbers of values; 0 = not there. */
typedef struct suite_table {
  unsigned now[SUITE_KEYS];
  unsigned committed[SUITE_KEYS];
} suite_table;

static inline void suite_key(char key[16], unsigned i)
{
  /* Lengths differ, and some begin with others. */
  snprintf(key, 16, "k%.*s%u", (int)(i % 3), "//", i / 3);
}

static inline void suite_compare(const fl_store *store,
                                 const suite_table *table, unsigned step)
{
  unsigned n_keys = 0, n_want = 0;
  char key[16], value[16];
  for (unsigned i = 0; i < SUITE_KEYS; i++) {
    suite_key(key, i);
    snprintf(value, sizeof value, "%u", table->now[i]);
    suite_want(store, key, table->now[i] ? value : NULL);
    n_want += table->now[i] != 0;
  }
  const void *found = NULL;
  size_t n = 0;
  fl_status st = fl_store_next(store, NULL, 0, &found, &n);
  for (; st == FL_OK; st = fl_store_next(store, found, n, &found, &n))
    n_keys++;
  cr_assert_eq(n_keys, n_want, "step %u", step);
}

static inline fl_store *suite_any_changes_are_as_a_table_says(fl_store *store)
{
  static suite_table table;
  uint32_t random = 20260801; /* the seed */
  char key[16], value[16];
  for (unsigned step = 1; step <= SUITE_STEPS; step++) {
    random = random * 1664525u + 1013904223u;
    const unsigned i = (random >> 8) % SUITE_KEYS, what = random >> 26;
    suite_key(key, i);
    snprintf(value, sizeof value, "%u", step);
    if (what < 34) {
      suite_put(store, key, value);
      table.now[i] = step;
    } else if (what < 56) {
      suite_remove(store, key);
      table.now[i] = 0;
    } else if (what < 60) {
      WANT_OK(fl_store_commit(store));
      memcpy(table.committed, table.now, sizeof table.now);
    } else {
      if (what < 63) WANT_OK(fl_store_rollback(store));
      if (what == 63) store = suite_reopen(store);
      memcpy(table.now, table.committed, sizeof table.now);
    }
    if (what >= 54) suite_compare(store, &table, step);
  }
  return store;
}

#endif
