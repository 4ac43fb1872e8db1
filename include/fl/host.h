/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file host.h
 * libfl-host: the context's hooks for ordinary systems (POSIX): a pool of
 * threads that never spins, a clock, a log and blob storage in a folder.
 * A library of its own; the core never needs it. Its functions leave no text
 * for fl_last_error.
 */
#ifndef FL_HOST_H
#define FL_HOST_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_host fl_host;

typedef struct fl_host_options {
  uint32_t struct_size;
  /** Threads of parallel_for, the caller included; default 1, 0 = one per CPU;
   * at most 1024. Those that no loop wants run what is started beside its
   * caller; with one thread nothing is. */
  uint32_t threads;
  /** Folder for blobs, made when missing (not its parents); NULL = no storage.
   * One process at a time may use a folder. */
  const char *storage_path;
  /** Log to stderr from this level on; FL_LOG_*; 0 = no log (default). */
  uint32_t log_level;
  uint32_t reserved;
  uint64_t memory_cap; /**< see fl_context_options */
  /** 1: blocks of 4 KiB and above lie in huge pages (2 MiB), where the system
   * gives them: embedding tables are read up to a quarter faster. What a
   * handle takes is as much, but the process holds whole pages. Default 0. */
  uint32_t huge_pages;
  uint32_t reserved2;
} fl_host_options;
/** Set the defaults. FL_E_OPTIONS. */
FL_API fl_status fl_host_options_init(fl_host_options *options, size_t size);

/** Make hooks and a context that uses them. FL_E_OPTIONS, FL_E_NOMEM, FL_E_IO
 * (folder). */
FL_API fl_status fl_host_new(fl_host **out, const fl_host_options *options);
/** Free it after every handle made with its context. */
FL_API void fl_host_free(fl_host *host);
/** Borrow the context; valid until fl_host_free. */
FL_API fl_context *fl_host_context(fl_host *host);
/** Monotonic time in ns.  Thread-safety: any thread. */
FL_API uint64_t fl_host_now(void);
/** The storage behind the context; NULL when no folder was given. */
FL_API const fl_storage *fl_host_storage(fl_host *host);

/** Streams over a blob of the storage: save to / restore from it. */
typedef struct fl_host_file fl_host_file;
/** Begin to write a blob. The bytes are collected and replace the blob
 * atomically at fl_host_file_close, durable when that returns FL_OK.
 *
 * @param name  [a-z0-9._-]{1,128}, not beginning with a dot.
 * @param writer  Filled in; borrows the file.
 * @return FL_E_ARGUMENT (name), FL_E_STATE (no storage), FL_E_NOMEM.
 * Ownership: *out is the caller's, to be closed or discarded before the host
 * is freed.  Thread-safety: one thread per file. */
FL_API fl_status fl_host_file_create(fl_host_file **out, fl_host *host,
                                     const char *name, fl_writer *writer);
/** Begin to read a blob; what is read stays the same when the blob is replaced
 * meanwhile. As fl_host_file_create, and FL_E_NOT_FOUND, FL_E_IO. */
FL_API fl_status fl_host_file_open(fl_host_file **out, fl_host *host,
                                   const char *name, fl_reader *reader);
/** Commit (writers) and free, NULL is fine. FL_E_IO, FL_E_NOMEM (a write had
 * failed): what readers see is the whole old or the whole new blob. */
FL_API fl_status fl_host_file_close(fl_host_file *file);
/** Free without committing. */
FL_API void fl_host_file_discard(fl_host_file *file);

#ifdef __cplusplus
}
#endif
#endif
