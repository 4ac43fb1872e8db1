/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file base.h
 * What every part of libfl shares: status codes, error text, the host's hooks,
 * cancellation, byte streams, version and build facts.
 *
 * Conventions of the whole library:
 * - A function that can fail returns fl_status: 0 is success, errors are
 *   negative, positive values do not occur. On failure outputs are untouched
 *   unless the comment says otherwise.
 * - Any function may return FL_E_ARGUMENT (a NULL that its comment does not
 *   allow), FL_E_OPTIONS (a struct whose struct_size cannot be) and, where it
 *   allocates, FL_E_NOMEM; comments name the other codes. A function that
 *   returns a value takes a NULL handle and returns 0.
 * - Constructors put the handle they make first. `_free(NULL)` does nothing.
 * - `_get_` borrows (valid as long as the comment says), `_copy_` writes into
 *   the caller's memory. Copying functions take (buffer, capacity, &needed):
 *   a NULL buffer with capacity 0 asks for the size only and succeeds; a
 *   buffer too small fails with FL_E_SIZE and still sets *needed.
 * - Option structs begin with `struct_size`, are set to defaults by
 *   `fl_<name>_init(&options, sizeof options)`, and only ever grow at the end.
 * - Unless a comment says more: different handles may be used by different
 *   threads at once, one handle by one thread at a time.
 * - Determinism classes: D0 = same bytes on every machine, ISA and thread
 *   count; D1 = same build and ISA; D2 = statistical.
 */
#ifndef FL_BASE_H
#define FL_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(FL_SHARED)
#  ifdef FL_BUILD
#    define FL_API __declspec(dllexport)
#  else
#    define FL_API __declspec(dllimport)
#  endif
#elif defined(__GNUC__)
#  define FL_API __attribute__((visibility("default")))
#else
#  define FL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---------------------------------------------------------- */

#define FL_VERSION_MAJOR 0
#define FL_VERSION_MINOR 1
#define FL_VERSION_PATCH 0
/** major * 1000000 + minor * 1000 + patch */
#define FL_VERSION_NUMBER \
  (FL_VERSION_MAJOR * 1000000 + FL_VERSION_MINOR * 1000 + FL_VERSION_PATCH)

/** Value of an option field that means "let the library choose". It is used
 * only where zero is a meaningful choice of its own. */
#define FL_AUTO UINT32_MAX

/* ---- status ----------------------------------------------------------- */

/** 0 or one of the negative codes below. */
typedef int32_t fl_status;

/* One table: name, number, text. Bands: caller -1.., peer's data -100..,
 * resources -200.., state -300..; at or below -900 the handle is poisoned:
 * only its _free may still be called. Remedies: docs/errors.md. */
#define FL_STATUS_TABLE(X)                                              \
  X(FL_OK, 0, "success")                                                \
  X(FL_E_ARGUMENT, -1, "an argument is out of range or NULL")           \
  X(FL_E_OPTIONS, -2, "an option struct has an unknown size or value")  \
  X(FL_E_DIM, -3, "shapes or element counts do not agree")              \
  X(FL_E_NOT_FINITE, -4, "a number is NaN or infinite")                 \
  X(FL_E_CONFLICT, -5, "two settings exclude each other")               \
  X(FL_E_UNSUPPORTED, -6, "not compiled into this build")               \
  X(FL_E_NOT_FOUND, -7, "no such name, index or id")                    \
  X(FL_E_CALLBACK, -8, "a callback of the host reported failure")       \
  X(FL_E_SIZE, -9, "the buffer is too small")                           \
  X(FL_E_FORMAT, -100, "malformed bytes")                               \
  X(FL_E_TRUNCATED, -101, "bytes end too early")                        \
  X(FL_E_TOO_LARGE, -102, "a declared size is above the limit")         \
  X(FL_E_VERSION, -103, "unknown format or protocol version")           \
  X(FL_E_SCHEMA, -104, "the model's schema is another one")             \
  X(FL_E_DUPLICATE, -105, "already counted")                            \
  X(FL_E_STALE, -106, "belongs to another round")                       \
  X(FL_E_RANGE, -107, "a value in the data is out of range")            \
  X(FL_E_NOMEM, -200, "out of memory")                                  \
  X(FL_E_LIMIT, -201, "above a limit set by the host")                  \
  X(FL_E_IO, -202, "a stream or storage hook failed")                   \
  X(FL_E_ENTROPY, -203, "no entropy to be had")                         \
  X(FL_E_STATE, -300, "not allowed in the present state")               \
  X(FL_E_CANCELLED, -301, "cancelled by the host")                      \
  X(FL_E_EMPTY, -302, "nothing there")                                  \
  X(FL_E_POISONED, -900, "an earlier failure left the handle unusable") \
  X(FL_E_INTERNAL, -901, "a defect in libfl: please report it")

enum {
#define FL_STATUS_ENUM_(name, number, text) name = number,
  FL_STATUS_TABLE(FL_STATUS_ENUM_)
#undef FL_STATUS_ENUM_
};

/** Return the constant's name ("FL_E_DIM"); "FL_E_?" for an unknown code.
 * Ownership: static text.  Thread-safety: any thread.  Determinism: D0. */
FL_API const char *fl_status_name(fl_status status);

/** Return the code's one-line meaning.
 * Ownership: static text.  Thread-safety: any thread.  Determinism: D0. */
FL_API const char *fl_status_text(fl_status status);

/** Return the detail of the calling thread's last failure, in the form
 * "thing: what, got X, want Y"; "" after a call that succeeded. Never holds a
 * secret. Valid until this thread's next call into libfl.
 * Ownership: borrowed.  Thread-safety: any thread (thread-local). */
FL_API const char *fl_last_error(void);

/** Number of rows of the status table, for bindings that mirror it. */
FL_API uint32_t fl_status_count(void);
/** Code of row `index`; FL_E_INTERNAL when out of range. */
FL_API fl_status fl_status_at(uint32_t index);

/* ---- version, features, build ------------------------------------------ */

/** FL_VERSION_NUMBER of the library that is linked (the macro is that of the
 * headers compiled against). Determinism: D0. */
FL_API uint32_t fl_version_number(void);
/** "0.1.0". Static text. */
FL_API const char *fl_version_string(void);

enum {
  FL_FEATURE_BLAS = 1,  /**< OpenBLAS compiled in */
  FL_FEATURE_MODEL = 2, /**< the training engine */
  FL_FEATURE_THC = 3,   /**< homomorphic compression */
  FL_FEATURE_CLIENT = 4,
  FL_FEATURE_SERVER = 5,
  FL_FEATURE_FREEZE = 6,
  FL_FEATURE_COHORT = 7,
  FL_FEATURE_EMBEDDING = 8
};
/** Return 1 when the feature is compiled in, 0 when not or unknown. */
FL_API int32_t fl_feature(uint32_t feature);

/** One line of text: version, compiler, ISA in use, BLAS and its core type.
 * Ownership: static, made once.  Thread-safety: any thread. */
FL_API const char *fl_build_info(void);

/* ---- cancellation -------------------------------------------------------- */

/** One atomic flag that long calls look at between chunks of work. */
typedef struct fl_cancel fl_cancel;
/** Make a flag that is not raised. FL_E_NOMEM. */
FL_API fl_status fl_cancel_new(fl_cancel **out);
FL_API void fl_cancel_free(fl_cancel *cancel);
/** Raise the flag. Safe from any thread and from a signal handler. */
FL_API void fl_cancel_request(fl_cancel *cancel);
/** Lower the flag, to use it again. */
FL_API void fl_cancel_reset(fl_cancel *cancel);
/** 1 when raised. NULL is never raised. */
FL_API int32_t fl_cancel_is_requested(const fl_cancel *cancel);

/* ---- byte streams -------------------------------------------------------- */

/** Source of bytes. `read` puts up to `n` bytes into `buf` and their count
 * into *got (0 = end of data). */
typedef struct fl_reader {
  fl_status (*read)(void *user, void *buf, size_t n, size_t *got);
  void *user;
} fl_reader;

/** Sink of bytes. `write` takes all `n` bytes or fails. */
typedef struct fl_writer {
  fl_status (*write)(void *user, const void *buf, size_t n);
  void *user;
} fl_writer;

/* ---- context: the host's hooks ------------------------------------------ */

/** The host's hooks. Reference-counted: handles keep theirs alive, so it may
 * be freed right after the handles are made. Everywhere a context is taken,
 * NULL means the defaults (malloc, no log, no clock, operating system's
 * entropy, no threads, no storage, no cap). */
typedef struct fl_context fl_context;

enum {
  FL_LOG_ERROR = 1,
  FL_LOG_WARNING = 2,
  FL_LOG_INFO = 3,
  FL_LOG_DEBUG = 4
};

/** Body of a parallel loop: work item `index` of a fl_parallel_for_fn. */
typedef void (*fl_task_fn)(void *arg, uint64_t index);

/** A named blob store (files, IndexedDB, a table): how state reaches disk.
 * Names are [a-z0-9._-]{1,128}. A `write` replaces the blob atomically;
 * `sync` returns once everything written is durable. */
typedef struct fl_storage {
  uint32_t struct_size;
  uint32_t reserved;
  void *user;
  /** Size of a blob; FL_E_NOT_FOUND. */
  fl_status (*size)(void *user, const char *name, uint64_t *size);
  /** Read `n` bytes at `offset`; FL_E_NOT_FOUND, FL_E_IO. */
  fl_status (*read)(void *user, const char *name, uint64_t offset, void *buf,
                    size_t n);
  /** Replace the blob, all or nothing; FL_E_IO. */
  fl_status (*write)(void *user, const char *name, const void *buf, size_t n);
  /** Delete; succeeds when the blob is not there. */
  fl_status (*remove)(void *user, const char *name);
  fl_status (*sync)(void *user);
  /** Map a blob read-only; may be NULL. Released by `unmap`. */
  fl_status (*map)(void *user, const char *name, const void **data, size_t *n);
  void (*unmap)(void *user, const void *data, size_t n);
  /** Map a blob of exactly `n` > 0 bytes for reading and writing, aligned to 16
   * at least; what is written is the blob's content, at the latest after
   * unmap_write, and durable after `sync`. One that is missing or of another
   * size is made anew, all zeros: *is_new = 1. Its space is really there: a
   * full disk is FL_E_IO now, not a signal later. One mapping of a blob at a
   * time. Set together with `unmap_write` or not at all. */
  fl_status (*map_write)(void *user, const char *name, uint64_t n, void **data,
                         int32_t *is_new);
  void (*unmap_write)(void *user, void *data, uint64_t n);
  /** `n` bytes at `offset` of a blob that map_write has mapped at `data` will
   * be read soon; may be NULL. */
  void (*advise)(void *user, const void *data, uint64_t offset, uint64_t n);
} fl_storage;

typedef struct fl_context_options {
  uint32_t struct_size;
  /** Least severe level that reaches `log`: FL_LOG_*; default
   * FL_LOG_WARNING. */
  uint32_t log_level;
  /** Passed to every hook below. */
  void *user;
  /** Return `size` (> 0) bytes aligned to `alignment` (a power of two >= 16)
   * or NULL. Set together with `dealloc` or not at all. */
  void *(*alloc)(void *user, size_t size, size_t alignment);
  void (*dealloc)(void *user, void *ptr, size_t size, size_t alignment);
  /** Take one line without newline. Called on the calling thread. */
  void (*log)(void *user, uint32_t level, const char *text);
  /** Monotonic clock in ns. Nothing calls it yet; it would be for statistics
   * only: what decides by time takes it as an argument. */
  uint64_t (*now)(void *user);
  /** Fill `buf` with unpredictable bytes. */
  fl_status (*entropy)(void *user, void *buf, size_t n);
  /** Run task(arg, 0..count-1), in any order, on any threads; return when
   * all are done. */
  fl_status (*parallel_for)(void *user, uint64_t count, fl_task_fn task,
                            void *arg);
  /** Blob store; copied, its `user` must outlive the context. */
  const fl_storage *storage;
  /** Upper bound in bytes of what handles of this context allocate together;
   * beyond it allocations fail with FL_E_NOMEM. 0 = no bound. */
  uint64_t memory_cap;
  /** Have task(arg, 0) run once on another thread and return at once; put what
   * `finish` needs to know it by into *job. Called on any thread that uses a
   * handle of this context, and from no task. A failure means that it will
   * never run: the library then does the work itself. Several may be under way
   * at a time. The task calls `alloc` and `dealloc`, no other hook, and waits
   * for nothing. Set together with `finish` or not at all; NULL, the default:
   * nothing runs beside its caller. fl_freeze_options.lag is for this. */
  fl_status (*start)(void *user, fl_task_fn task, void *arg, void **job);
  /** Return when that task is over, and forget it: called once for each task
   * that was started, at the latest when its handle is freed. Running it here,
   * when it has not begun, is fine. */
  void (*finish)(void *user, void *job);
} fl_context_options;

FL_API fl_status fl_context_options_init(fl_context_options *options,
                                         size_t size);
/** Make a context. `options` may be NULL. FL_E_OPTIONS, FL_E_NOMEM. */
FL_API fl_status fl_context_new(fl_context **out,
                                const fl_context_options *options);
/** Drop the caller's reference. */
FL_API void fl_context_free(fl_context *context);
/** Bytes that handles of this context hold now, and the most they ever held.
 * Either pointer may be NULL.  Thread-safety: any thread. */
FL_API fl_status fl_context_get_memory(const fl_context *context,
                                       uint64_t *bytes_now,
                                       uint64_t *bytes_peak);

/* ---- growable buffer ----------------------------------------------------- */

/** Bytes in memory behind an fl_writer and an fl_reader: the easy way to save
 * a handle into memory and to restore it. */
typedef struct fl_buffer fl_buffer;
/** Make an empty buffer. FL_E_NOMEM. */
FL_API fl_status fl_buffer_new(fl_buffer **out, fl_context *context);
FL_API void fl_buffer_free(fl_buffer *buffer);
/** Append bytes, which are not the buffer's own. FL_E_NOMEM leaves the buffer
 * as it was. */
FL_API fl_status fl_buffer_append(fl_buffer *buffer, const void *data,
                                  size_t n);
/** Drop the content and start reading at 0. */
FL_API void fl_buffer_clear(fl_buffer *buffer);
/** Borrow the content; valid until the next append, clear or free. */
FL_API fl_status fl_buffer_get(const fl_buffer *buffer, const uint8_t **data,
                               size_t *n);
/** Fill in streams that append to / read from the buffer. They borrow it.
 * A reader starts at the first byte. */
FL_API fl_status fl_buffer_as_writer(fl_buffer *buffer, fl_writer *writer);
FL_API fl_status fl_buffer_as_reader(fl_buffer *buffer, fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif
