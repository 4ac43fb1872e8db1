/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into a store's hooks: arguments are checked here, once for all stores,
 * and the text of a failure is set here, from what the store says of it. */
#include "store/store.h"

#include <string.h>

#include "base/error.h"

static int has_hooks(const fl_store *store)
{
  /* Up to rollback: what comes after may be missing in an older host's. */
  return store->struct_size >= offsetof(fl_store, error) && store->put &&
         store->get && store->remove && store->next && store->commit &&
         store->rollback;
}

static fl_status check_store(const fl_store *store, const char *what)
{
  fli_clear_error();
  if (!store) return fli_error(FL_E_ARGUMENT, "%s: store is NULL", what);
  if (!has_hooks(store))
    return fli_error(FL_E_ARGUMENT, "%s: a hook of the store is missing", what);
  return FL_OK;
}

static fl_status check_key(const fl_store *store, const void *key, size_t size,
                           const char *what)
{
  const fl_status st = check_store(store, what);
  if (st != FL_OK) return st;
  if (!key || size < 1 || size > FL_STORE_KEY_MAX)
    return fli_error(FL_E_ARGUMENT, "%s: key: got %zu bytes, want 1..%d", what,
                     key ? size : (size_t)0, (int)FL_STORE_KEY_MAX);
  return FL_OK;
}

/* Pass a hook's status on, with a text. */
static fl_status result(const fl_store *store, fl_status st, const char *what)
{
  const char *why = NULL;
  if (st == FL_OK) return FL_OK;
  if (store->struct_size >= offsetof(fl_store, free) && store->error) {
    why = store->error(store->user);
  }
  if (!why || !*why) why = fl_status_text(st);
  return fli_error(st, "%s: %s", what, why);
}

void fl_store_free(fl_store *store)
{
  if (!store || store->struct_size < sizeof *store || !store->free) return;
  store->free(store->user);
}

fl_status fl_store_put(const fl_store *store, const void *key, size_t key_size,
                       const void *value, size_t n)
{
  const fl_status st = check_key(store, key, key_size, "fl_store_put");
  if (st != FL_OK) return st;
  if ((!value && n > 0) || n > FL_STORE_VALUE_MAX)
    return fli_error(FL_E_ARGUMENT,
                     "fl_store_put: value: got %zu bytes%s, want <= %d", n,
                     value ? "" : " at NULL", (int)FL_STORE_VALUE_MAX);
  return result(store,
                store->put(store->user, key, key_size, value ? value : "", n),
                "fl_store_put");
}

fl_status fl_store_get(const fl_store *store, const void *key, size_t key_size,
                       const void **value, size_t *n)
{
  fl_status st = check_key(store, key, key_size, "fl_store_get");
  if (st != FL_OK) return st;
  if (!value || !n)
    return fli_error(FL_E_ARGUMENT, "fl_store_get: value or n is NULL");
  st = store->get(store->user, key, key_size, value, n);
  return st == FL_E_NOT_FOUND ? st : result(store, st, "fl_store_get");
}

fl_status fl_store_remove(const fl_store *store, const void *key,
                          size_t key_size)
{
  const fl_status st = check_key(store, key, key_size, "fl_store_remove");
  if (st != FL_OK) return st;
  return result(store, store->remove(store->user, key, key_size),
                "fl_store_remove");
}

fl_status fl_store_next(const fl_store *store, const void *after,
                        size_t after_size, const void **key, size_t *key_size)
{
  fl_status st = check_store(store, "fl_store_next");
  if (st != FL_OK) return st;
  if ((!after && after_size > 0) || after_size > FL_STORE_KEY_MAX || !key ||
      !key_size)
    return fli_error(FL_E_ARGUMENT, "fl_store_next: NULL, or a key too long");
  st = store->next(store->user, after ? after : "", after_size, key, key_size);
  return st == FL_E_EMPTY ? st : result(store, st, "fl_store_next");
}

fl_status fl_store_commit(const fl_store *store)
{
  const fl_status st = check_store(store, "fl_store_commit");
  if (st != FL_OK) return st;
  return result(store, store->commit(store->user), "fl_store_commit");
}

fl_status fl_store_rollback(const fl_store *store)
{
  const fl_status st = check_store(store, "fl_store_rollback");
  if (st != FL_OK) return st;
  return result(store, store->rollback(store->user), "fl_store_rollback");
}

int fli_store_key_has(const void *key, size_t key_size, const void *prefix,
                      size_t prefix_size)
{
  return key_size >= prefix_size &&
         (prefix_size == 0 || memcmp(key, prefix, prefix_size) == 0);
}

fl_status fl_store_clear(const fl_store *store, const void *prefix,
                         size_t prefix_size)
{
  uint8_t key[FL_STORE_KEY_MAX];
  const void *found = NULL;
  size_t n = prefix_size;
  fl_status st = check_store(store, "fl_store_clear");
  if (st != FL_OK) return st;
  if ((!prefix && n > 0) || n > FL_STORE_KEY_MAX)
    return fli_error(FL_E_ARGUMENT,
                     "fl_store_clear: NULL, or a prefix too long");
  /* The one key that is the prefix itself comes after nothing that has it. */
  if (n > 0) memcpy(key, prefix, n);
  if (n > 0) st = fl_store_remove(store, key, n);
  while (st == FL_OK) {
    st = fl_store_next(store, key, n, &found, &n);
    if (st == FL_E_EMPTY) return FL_OK;
    if (st != FL_OK) return st;
    if (!fli_store_key_has(found, n, prefix, prefix_size)) return FL_OK;
    if (n > sizeof key)
      return fli_error(FL_E_INTERNAL, "store: got a key of %zu bytes", n);
    memcpy(key, found, n);
    st = fl_store_remove(store, key, n);
  }
  return st;
}
