/* SPDX-License-Identifier: Apache-2.0 */
/* The hooks over one table of keys and values. A transaction begins with the
 * first change after a commit; in WAL mode its end is one write and one fsync
 * of the log. A row that was lent stays stepped to, so that nothing is copied;
 * the next call lets it go. */
#include "adapters/sqlite/sqlite.h"

#include <stdio.h>

static const char *const statements[FLI_SQLITE_STATEMENTS] = {
    [FLI_SQLITE_PUT] =
        ("INSERT INTO fl_store(key, value) VALUES(?1, ?2) "
         "ON CONFLICT(key) DO UPDATE SET value = excluded.value"),
    [FLI_SQLITE_GET] = "SELECT value FROM fl_store WHERE key = ?1",
    [FLI_SQLITE_REMOVE] = "DELETE FROM fl_store WHERE key = ?1",
    [FLI_SQLITE_NEXT] =
        "SELECT key FROM fl_store WHERE key > ?1 ORDER BY key LIMIT 1",
    [FLI_SQLITE_BEGIN] = "BEGIN IMMEDIATE",
    [FLI_SQLITE_COMMIT] = "COMMIT",
    [FLI_SQLITE_ROLLBACK] = "ROLLBACK",
};

fl_status fli_sqlite_result(fli_sqlite *self, int code)
{
  self->text[0] = '\0';
  if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW)
    return FL_OK;
  snprintf(self->text, sizeof self->text, "%s",
           self->database ? sqlite3_errmsg(self->database)
                          : sqlite3_errstr(code));
  switch (code & 0xff) {
  case SQLITE_NOMEM: return FL_E_NOMEM;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB: return FL_E_FORMAT;
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return FL_E_STATE;
  case SQLITE_TOOBIG: return FL_E_LIMIT;
  default: return FL_E_IO;
  }
}

static void take_back(fli_sqlite *self)
{
  if (self->lending) sqlite3_reset(self->lending);
  self->lending = NULL;
}

/* Run a statement that gives no rows. */
static fl_status run(fli_sqlite *self, int which)
{
  sqlite3_stmt *statement = self->statements[which];
  const fl_status st = fli_sqlite_result(self, sqlite3_step(statement));
  sqlite3_reset(statement);
  return st;
}

/* Within a transaction of changes. */
static fl_status change(fli_sqlite *self, int which)
{
  fl_status st = FL_OK;
  if (self->is_broken) return FL_E_STATE;
  if (sqlite3_get_autocommit(self->database)) st = run(self, FLI_SQLITE_BEGIN);
  if (st == FL_OK) st = run(self, which);
  if (st != FL_OK) self->is_broken = 1;
  sqlite3_clear_bindings(self->statements[which]);
  return st;
}

static fl_status bind(fli_sqlite *self, int which, int place, const void *data,
                      size_t n)
{
  /* The caller's bytes outlive the step. */
  const int code = sqlite3_bind_blob64(self->statements[which], place, data, n,
                                       SQLITE_STATIC);
  const fl_status st = fli_sqlite_result(self, code);
  if (st != FL_OK) self->is_broken = 1;
  return st;
}

static fl_status sqlite_put(void *user, const void *key, size_t key_size,
                            const void *value, size_t n)
{
  fli_sqlite *self = user;
  fl_status st = bind(self, FLI_SQLITE_PUT, 1, key, key_size);
  if (st == FL_OK) st = bind(self, FLI_SQLITE_PUT, 2, value, n);
  /* What was lent may be what is put: it is let go after the change. */
  if (st == FL_OK) st = change(self, FLI_SQLITE_PUT);
  take_back(self);
  return st;
}

static fl_status sqlite_remove(void *user, const void *key, size_t key_size)
{
  fli_sqlite *self = user;
  fl_status st = bind(self, FLI_SQLITE_REMOVE, 1, key, key_size);
  if (st == FL_OK) st = change(self, FLI_SQLITE_REMOVE);
  take_back(self);
  return st;
}

/* Step to the one row that a query has, and keep it. */
static fl_status lend(fli_sqlite *self, int which, const void *key, size_t n,
                      fl_status if_none)
{
  sqlite3_stmt *statement = self->statements[which];
  /* The key may be what this statement lent: SQLite copies it first. */
  sqlite3_stmt *before = self->lending;
  unsigned char copy[FL_STORE_KEY_MAX];
  for (size_t i = 0; i < n; i++)
    copy[i] = ((const unsigned char *)key)[i];
  if (before) take_back(self);
  fl_status st = fli_sqlite_result(
      self, sqlite3_bind_blob64(statement, 1, copy, n, SQLITE_TRANSIENT));
  if (st != FL_OK) return st;
  const int code = sqlite3_step(statement);
  st = fli_sqlite_result(self, code);
  if (code == SQLITE_ROW) {
    self->lending = statement;
    return FL_OK;
  }
  sqlite3_reset(statement);
  return st == FL_OK ? if_none : st;
}

static fl_status lent(fli_sqlite *self, const void **data, size_t *n)
{
  *data = sqlite3_column_blob(self->lending, 0);
  *n = (size_t)sqlite3_column_bytes(self->lending, 0);
  if (!*data && *n > 0) return FL_E_NOMEM;
  if (!*data) *data = "";
  return FL_OK;
}

static fl_status sqlite_get(void *user, const void *key, size_t key_size,
                            const void **value, size_t *n)
{
  fli_sqlite *self = user;
  const fl_status st =
      lend(self, FLI_SQLITE_GET, key, key_size, FL_E_NOT_FOUND);
  return st == FL_OK ? lent(self, value, n) : st;
}

static fl_status sqlite_next(void *user, const void *after, size_t after_size,
                             const void **key, size_t *key_size)
{
  fli_sqlite *self = user;
  const fl_status st =
      lend(self, FLI_SQLITE_NEXT, after, after_size, FL_E_EMPTY);
  if (st != FL_OK) return st;
  const fl_status got = lent(self, key, key_size);
  if (got != FL_OK || (*key_size > 0 && *key_size <= FL_STORE_KEY_MAX))
    return got;
  take_back(self);
  snprintf(self->text, sizeof self->text, "a key of %zu bytes", *key_size);
  return FL_E_FORMAT;
}

static fl_status sqlite_rollback(void *user)
{
  fli_sqlite *self = user;
  take_back(self);
  self->is_broken = 0;
  /* A failure may have rolled back already. */
  if (sqlite3_get_autocommit(self->database)) return FL_OK;
  return run(self, FLI_SQLITE_ROLLBACK);
}

static fl_status sqlite_commit(void *user)
{
  fli_sqlite *self = user;
  take_back(self);
  if (self->is_broken) return FL_E_STATE;
  if (sqlite3_get_autocommit(self->database)) return FL_OK;
  const fl_status st = run(self, FLI_SQLITE_COMMIT);
  if (st == FL_OK) return FL_OK;
  char why[FLI_SQLITE_TEXT_BYTES];
  snprintf(why, sizeof why, "%s", self->text);
  (void)sqlite_rollback(self);
  snprintf(self->text, sizeof self->text, "%s", why);
  return st;
}

static const char *sqlite_error(void *user)
{
  const fli_sqlite *self = user;
  return self->text;
}

fl_status fli_sqlite_start(fli_sqlite *self)
{
  for (int i = 0; i < FLI_SQLITE_STATEMENTS; i++) {
    const fl_status st = fli_sqlite_result(
        self, sqlite3_prepare_v3(self->database, statements[i], -1,
                                 SQLITE_PREPARE_PERSISTENT,
                                 &self->statements[i], NULL));
    if (st != FL_OK) return st;
  }
  self->store = (fl_store){
      .struct_size = (uint32_t)sizeof self->store,
      .user = self,
      .put = sqlite_put,
      .get = sqlite_get,
      .remove = sqlite_remove,
      .next = sqlite_next,
      .commit = sqlite_commit,
      .rollback = sqlite_rollback,
      .error = sqlite_error,
      .free = fli_sqlite_close,
  };
  return FL_OK;
}

void fli_sqlite_stop(fli_sqlite *self)
{
  for (int i = 0; i < FLI_SQLITE_STATEMENTS; i++)
    sqlite3_finalize(self->statements[i]);
}
