/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file store.h
 * Keys and values that outlive a process: where a server keeps what it has
 * acknowledged (fl_server_options.store). A store is a table of hooks: one in
 * memory is here, one in an SQLite file in fl/sqlite.h, and a host may write
 * its own (tests/unit/store_suite.h is what it has to pass).
 *
 *   fl_store_put(store, "a", 1, "1", 1);
 *   fl_store_remove(store, "b", 1);
 *   fl_store_commit(store);    <- both are durable, or neither
 *
 * **What a commit promises.** When it has returned FL_OK, all that was put and
 * removed since the last one is there for whoever opens the store next, also
 * when the process is killed at once, and, with a store that says so, when the
 * power goes. Killed at any moment before, the store has what the last commit
 * left: all of a commit or nothing of it.
 *
 * Keys are 1..FL_STORE_KEY_MAX bytes and ordered as memcmp orders them, a
 * prefix before what it begins. Values are 0..FL_STORE_VALUE_MAX bytes.
 *
 * For every function here. Thread-safety: one thread per store at a time.
 * Determinism: D0.
 */
#ifndef FL_STORE_H
#define FL_STORE_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FL_STORE_KEY_MAX = 255, FL_STORE_VALUE_MAX = 1 << 28 };

/** The hooks. Arguments are checked before they are called: a key or value is
 * within its limits, and no pointer is NULL. All but `error` and `free` are
 * required. Changes are seen by get and next at once. After a put or remove has
 * failed, the changes since the last commit cannot be committed any more (they
 * would not be all of them): commit is FL_E_STATE until a rollback. */
typedef struct fl_store {
  uint32_t struct_size;
  uint32_t reserved;
  void *user; /**< passed to every hook */
  /** Set a key's value; FL_E_NOMEM, FL_E_IO (a full disk, too). */
  fl_status (*put)(void *user, const void *key, size_t key_size,
                   const void *value, size_t n);
  /** Borrow a key's value until the next call; FL_E_NOT_FOUND. */
  fl_status (*get)(void *user, const void *key, size_t key_size,
                   const void **value, size_t *n);
  /** Remove a key; succeeds when it is not there. */
  fl_status (*remove)(void *user, const void *key, size_t key_size);
  /** Borrow the first key after `after` until the next call; after_size 0:
   * the first of all. FL_E_EMPTY: there is none. */
  fl_status (*next)(void *user, const void *after, size_t after_size,
                    const void **key, size_t *key_size);
  /** See above. Fine without changes. When it fails, the changes are dropped,
   * as by rollback; after FL_E_IO they may be found when the store is opened
   * again, all or none. */
  fl_status (*commit)(void *user);
  /** Drop the changes since the last commit. Never fails for want of memory. */
  fl_status (*rollback)(void *user);
  /** Why the last hook failed, for people; NULL or "" = nothing to add. */
  const char *(*error)(void *user);
  /** Drop the changes since the last commit, and all that `user` holds. */
  void (*free)(void *user);
} fl_store;

/** Make a store in memory: for tests, and for servers whose host saves by
 * itself. Its commits last as long as it does. FL_E_ARGUMENT, FL_E_NOMEM.
 * Ownership: *out is the caller's, fl_store_free. */
FL_API fl_status fl_store_memory_new(fl_store **out, fl_context *context);
/** Call the store's `free`, NULL is fine. What is not committed is dropped. */
FL_API void fl_store_free(fl_store *store);

/** Set a key's value. FL_E_ARGUMENT: NULL, a hook missing, a key or value of
 * another size; else what the store says. */
FL_API fl_status fl_store_put(const fl_store *store, const void *key,
                              size_t key_size, const void *value, size_t n);
/** Borrow a key's value until the next call on the store. FL_E_NOT_FOUND, which
 * leaves no text; else as fl_store_put. */
FL_API fl_status fl_store_get(const fl_store *store, const void *key,
                              size_t key_size, const void **value, size_t *n);
/** Remove a key, there or not. Errors as fl_store_put. */
FL_API fl_status fl_store_remove(const fl_store *store, const void *key,
                                 size_t key_size);
/** Borrow the first key after `after` (after_size 0: the first) until the next
 * call on the store. FL_E_EMPTY, which leaves no text: there is none; else as
 * fl_store_put. */
FL_API fl_status fl_store_next(const fl_store *store, const void *after,
                               size_t after_size, const void **key,
                               size_t *key_size);
/** Make durable what was put and removed since the last commit, all or nothing:
 * see above. FL_E_STATE: one of them had failed; FL_E_IO, FL_E_NOMEM: the
 * changes are dropped. */
FL_API fl_status fl_store_commit(const fl_store *store);
/** Drop what was put and removed since the last commit. FL_E_IO. */
FL_API fl_status fl_store_rollback(const fl_store *store);
/** Remove every key that begins with `prefix` (size 0: all); not committed.
 * Errors as fl_store_put. */
FL_API fl_status fl_store_clear(const fl_store *store, const void *prefix,
                                size_t prefix_size);

#ifdef __cplusplus
}
#endif
#endif
