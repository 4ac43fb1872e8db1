/* SPDX-License-Identifier: Apache-2.0 */
/* What open.c and sqlite.c share. */
#ifndef FLI_SQLITE_H
#define FLI_SQLITE_H

#include <fl/sqlite.h>
#include <sqlite3.h>

enum { FLI_SQLITE_TEXT_BYTES = 256 };

enum {
  FLI_SQLITE_PUT,
  FLI_SQLITE_GET,
  FLI_SQLITE_REMOVE,
  FLI_SQLITE_NEXT,
  FLI_SQLITE_BEGIN,
  FLI_SQLITE_COMMIT,
  FLI_SQLITE_ROLLBACK,
  FLI_SQLITE_STATEMENTS
};

typedef struct fli_sqlite {
  fl_store store;
  sqlite3 *database;
  sqlite3_stmt *statements[FLI_SQLITE_STATEMENTS];
  sqlite3_stmt *lending; /* its row is what the last call lent; NULL = none */
  int lock;              /* descriptor; -1 = none */
  int is_broken;         /* a change failed: see fl_store */
  char text[FLI_SQLITE_TEXT_BYTES];
} fli_sqlite;

/* Fill in the hooks and prepare the statements of an open database. */
fl_status fli_sqlite_start(fli_sqlite *self);
/* Undo it; the database stays open. */
void fli_sqlite_stop(fli_sqlite *self);
/* What an SQLite code means here, with SQLite's text kept. */
fl_status fli_sqlite_result(fli_sqlite *self, int code);
/* Close database and lock, and free (open.c). */
void fli_sqlite_close(void *user);

#endif
