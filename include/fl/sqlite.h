/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sqlite.h
 * libfl-sqlite: a store (fl/store.h) in one SQLite file. A library of its own;
 * the core never needs it. The file is in WAL mode and commits are synchronous
 * (PRAGMA synchronous=FULL): what was committed survives a kill and the loss of
 * power, as far as the disk keeps what fsync promises.
 *
 * One store at a time has a file (a lock on FILE-lock beside it), whose process
 * may be killed without leaving anything locked. Others may read it meanwhile:
 * `sqlite3 FILE ".backup COPY"` is a backup of the last commit.
 */
#ifndef FL_SQLITE_H
#define FL_SQLITE_H

#include <fl/store.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_sqlite_options {
  uint32_t struct_size;
  /** How long to wait for a reader that is in the way, ms; default 5000. */
  uint32_t busy_ms;
  /** Pages are compared with each other when the file is opened, which reads
   * all of it; 0: only as they are used. Default 1. */
  uint32_t check;
  uint32_t reserved;
  /** The file may not get larger (a put is FL_E_IO then); 0 = no matter. Not
   * counted: the WAL beside it, about 4 MiB or the largest commit. */
  uint64_t max_bytes;
} fl_sqlite_options;
/** Set the defaults. FL_E_OPTIONS. */
FL_API fl_status fl_sqlite_options_init(fl_sqlite_options *options,
                                        size_t size);

/** Open a store in the file `path`, made when it is not there.
 *
 * @return FL_E_ARGUMENT, FL_E_OPTIONS, FL_E_NOMEM; FL_E_IO; FL_E_STATE: another
 * store has the file; FL_E_FORMAT: it is damaged, or none of ours;
 * FL_E_VERSION: a newer libfl made it. fl_sqlite_last_error says more.
 * Ownership: *out is the caller's, fl_store_free. Its memory is SQLite's. */
FL_API fl_status fl_store_sqlite_open(fl_store **out, const char *path,
                                      const fl_sqlite_options *options);
/** Why this thread's last fl_store_sqlite_open failed, for people; never NULL.
 * Valid until the next one.  Thread-safety: any thread. */
FL_API const char *fl_sqlite_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
