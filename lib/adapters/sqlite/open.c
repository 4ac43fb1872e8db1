/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing: the lock, what kind of file it is, its schema. A file
 * says that it is ours by SQLite's application id, and which version by
 * user_version; a new one gets both in the transaction that makes the table.
 * The lock is on a file of its own, for SQLite's own locks are there to let
 * readers in, and closing any descriptor of the database would drop them. */
#define _DEFAULT_SOURCE
#include "adapters/sqlite/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapters/options.h"

enum { FILE_MODE = 0600, PAGE_BYTES = 4096 };
enum { APPLICATION_ID = 0x464c5354 /* "FLST" */, SCHEMA_VERSION = 1 };

static _Thread_local char last_error[FLI_SQLITE_TEXT_BYTES];

static const fl_sqlite_options sqlite_defaults = {
    .struct_size = sizeof(fl_sqlite_options),
    .busy_ms = 5000,
    .check = 1,
};

static fl_status fail(fli_sqlite *self, fl_status st, const char *format, ...)
{
  va_list args;
  va_start(args, format);
  vsnprintf(self->text, sizeof self->text, format, args);
  va_end(args);
  return st;
}

static fl_status load_options(fl_sqlite_options *local,
                              const fl_sqlite_options *options)
{
  *local = sqlite_defaults;
  const fl_status st = fli_adapter_options_load(local, sizeof *local, options);
  if (st != FL_OK) return st;
  if (local->busy_ms > INT32_MAX) return FL_E_OPTIONS;
  return FL_OK;
}

fl_status fl_sqlite_options_init(fl_sqlite_options *options, size_t size)
{
  return fli_adapter_options_init(options, size, &sqlite_defaults,
                                  sizeof sqlite_defaults);
}

const char *fl_sqlite_last_error(void)
{
  return last_error;
}

static char *name_beside(const char *path, const char *suffix)
{
  const size_t n = strlen(path), m = strlen(suffix) + 1;
  char *name = malloc(n + m);
  if (!name) return NULL;
  memcpy(name, path, n);
  memcpy(name + n, suffix, m);
  return name;
}

static fl_status take_lock(fli_sqlite *self, const char *path)
{
  char *name = name_beside(path, "-lock");
  if (!name) return fail(self, FL_E_NOMEM, "out of memory");
  fl_status st = FL_OK;
  self->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
  if (self->lock < 0) {
    st = fail(self, FL_E_IO, "%s: %s", name, strerror(errno));
  } else if (flock(self->lock, LOCK_EX | LOCK_NB) != 0) {
    st = errno == EWOULDBLOCK
             ? fail(self, FL_E_STATE, "%s: another store has the file", path)
             : fail(self, FL_E_IO, "%s: %s", name, strerror(errno));
  }
  free(name);
  return st;
}

/* SQLite takes what is missing of a last page for zeros. With a log beside it
 * the file may have been left so by a disk that was full, and the log has what
 * is missing. */
static fl_status check_size(fli_sqlite *self, const char *path)
{
  struct stat about;
  char *log = name_beside(path, "-wal");
  if (!log) return fail(self, FL_E_NOMEM, "out of memory");
  const int has_log = stat(log, &about) == 0 && about.st_size > 0;
  free(log);
  if (has_log) return FL_OK;
  if (stat(path, &about) != 0) {
    if (errno == ENOENT) return FL_OK;
    return fail(self, FL_E_IO, "%s: %s", path, strerror(errno));
  }
  if (about.st_size % PAGE_BYTES == 0) return FL_OK;
  return fail(self, FL_E_FORMAT, "%s: cut short, or not a database of libfl",
              path);
}

static fl_status execute(fli_sqlite *self, const char *sql)
{
  return fli_sqlite_result(self,
                           sqlite3_exec(self->database, sql, NULL, NULL, NULL));
}

/* The one number that a query gives. */
static fl_status ask(fli_sqlite *self, const char *sql, sqlite3_int64 *number)
{
  sqlite3_stmt *statement = NULL;
  int code = sqlite3_prepare_v2(self->database, sql, -1, &statement, NULL);
  if (code == SQLITE_OK) code = sqlite3_step(statement);
  const fl_status st = fli_sqlite_result(self, code);
  if (code == SQLITE_ROW) *number = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  return st;
}

/* "ok", or the first thing that is wrong. */
static fl_status check_pages(fli_sqlite *self)
{
  sqlite3_stmt *statement = NULL;
  int code = sqlite3_prepare_v2(self->database, "PRAGMA quick_check(1)", -1,
                                &statement, NULL);
  if (code == SQLITE_OK) code = sqlite3_step(statement);
  fl_status st = fli_sqlite_result(self, code);
  if (code == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    if (!text || strcmp(text, "ok") != 0)
      st = fail(self, FL_E_FORMAT, "damaged: %s", text ? text : "?");
  }
  sqlite3_finalize(statement);
  return st;
}

static fl_status make_schema(fli_sqlite *self)
{
  char sql[256];
  snprintf(sql, sizeof sql,
           "BEGIN IMMEDIATE;"
           "CREATE TABLE fl_store(key BLOB PRIMARY KEY, value BLOB NOT NULL);"
           "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT",
           (int)APPLICATION_ID, (int)SCHEMA_VERSION);
  return execute(self, sql);
}

static fl_status check_schema(fli_sqlite *self)
{
  sqlite3_int64 id = 0, version = 0, tables = 0;
  fl_status st = ask(self, "PRAGMA application_id", &id);
  if (st == FL_OK) st = ask(self, "PRAGMA user_version", &version);
  if (st == FL_OK)
    st = ask(self, "SELECT count(*) FROM sqlite_schema", &tables);
  if (st != FL_OK) return st;
  if (id == 0 && version == 0 && tables == 0) return make_schema(self);
  if (id != APPLICATION_ID)
    return fail(self, FL_E_FORMAT, "a database, but no store of libfl");
  if (version < 1 || version > SCHEMA_VERSION)
    return fail(self, FL_E_VERSION, "version of the file: got %lld, want 1..%d",
                (long long)version, (int)SCHEMA_VERSION);
  return FL_OK;
}

static fl_status configure(fli_sqlite *self, const fl_sqlite_options *options)
{
  char sql[64];
  sqlite3_busy_timeout(self->database, (int)options->busy_ms);
  snprintf(sql, sizeof sql, "PRAGMA page_size=%d", (int)PAGE_BYTES);
  fl_status st = execute(self, sql); /* of a new file */
  if (st != FL_OK) return st;
  st = execute(self, "PRAGMA journal_mode=WAL;"
                     "PRAGMA synchronous=FULL;"
                     "PRAGMA trusted_schema=OFF");
  if (st != FL_OK) return st;
  if (options->max_bytes > 0) {
    sqlite3_int64 page = PAGE_BYTES;
    st = ask(self, "PRAGMA page_size", &page);
    if (st != FL_OK) return st;
    const uint64_t pages = options->max_bytes / (uint64_t)page;
    snprintf(sql, sizeof sql, "PRAGMA max_page_count=%llu",
             (unsigned long long)(pages < 1            ? 1
                                  : pages > UINT32_MAX ? UINT32_MAX
                                                       : pages));
    st = execute(self, sql);
  }
  return st;
}

void fli_sqlite_close(void *user)
{
  fli_sqlite *self = user;
  fli_sqlite_stop(self);
  /* An open transaction is rolled back. */
  sqlite3_close(self->database);
  if (self->lock >= 0) close(self->lock);
  free(self);
}

static fl_status open_all(fli_sqlite *self, const char *path,
                          const fl_sqlite_options *options)
{
  fl_status st = take_lock(self, path);
  if (st == FL_OK) st = check_size(self, path);
  if (st != FL_OK) return st;
  st = fli_sqlite_result(self, sqlite3_open_v2(path, &self->database,
                                               SQLITE_OPEN_READWRITE |
                                                   SQLITE_OPEN_CREATE |
                                                   SQLITE_OPEN_NOMUTEX,
                                               NULL));
  if (st == FL_OK) st = configure(self, options);
  if (st == FL_OK) st = check_schema(self);
  if (st == FL_OK && options->check) st = check_pages(self);
  if (st == FL_OK) st = fli_sqlite_start(self);
  return st;
}

fl_status fl_store_sqlite_open(fl_store **out, const char *path,
                               const fl_sqlite_options *options)
{
  fl_sqlite_options local;
  last_error[0] = '\0';
  if (!out || !path || !*path) {
    snprintf(last_error, sizeof last_error, "out or path: NULL or empty");
    return FL_E_ARGUMENT;
  }
  fl_status st = load_options(&local, options);
  if (st != FL_OK) {
    snprintf(last_error, sizeof last_error, "fl_sqlite_options: out of range");
    return st;
  }
  fli_sqlite *self = calloc(1, sizeof *self);
  if (!self) {
    snprintf(last_error, sizeof last_error, "out of memory");
    return FL_E_NOMEM;
  }
  self->lock = -1;
  st = open_all(self, path, &local);
  if (st != FL_OK) {
    snprintf(last_error, sizeof last_error, "%s", self->text);
    fli_sqlite_close(self);
    return st;
  }
  *out = &self->store;
  return FL_OK;
}
