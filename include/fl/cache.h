/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cache.h
 * Outputs of a frozen prefix of layers, one row per sample, kept so that later
 * epochs and rounds read them instead of computing them. A row is a function
 * of its sample and of what is frozen: for a prefix in evaluation mode (no
 * dropout) and samples that are the same each time (no random augmentation,
 * or one that the id determines).
 *
 *   fl_cache_begin(cache, tag of the prefix, samples, values of a row);
 *   for every batch:
 *     if (fl_cache_get(cache, ids, n, rows) != FL_OK)
 *       compute the rows; fl_cache_put(cache, ids, n, rows);
 *
 * Rows are kept in memory, or in a blob of the context's storage, where they
 * outlive the process. They are as private as the data set: keep them where it
 * lies, wipe them with it, or encrypt them (docs/design/activation-cache.md).
 *
 * For every function here. Thread-safety: one thread per fl_cache at a time;
 * one cache at a time per blob. Determinism: D0: what comes back is what was
 * put, as the data type says.
 */
#ifndef FL_CACHE_H
#define FL_CACHE_H

#include <fl/base.h>
#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_cache fl_cache;

/** How rows are kept; m = the largest magnitude of a row. */
enum {
  FL_CACHE_F32 = 1, /**< bit for bit; the default */
  /** Half the size. Nearest, ties to even: off by at most |x| 2^-11, or 2^-25
   * below 2^-14; beyond 65504 the sign times 65504. */
  FL_CACHE_F16 = 2,
  /** A quarter. Multiples of m / 127, nearest, ties to even: off by at most
   * m / 253 + 2^-142. */
  FL_CACHE_I8 = 3
};

enum { FL_CACHE_KEY_BYTES = 32 };

typedef struct fl_cache_options {
  uint32_t struct_size;
  uint32_t dtype; /**< FL_CACHE_* */
  /** Bytes that rows, bitmap and header may take together; default 256 MiB.
   * With a key come a row's bytes in memory. */
  uint64_t byte_cap;
  /** Blob of the context's storage, which has to have map_write; NULL = in
   * memory, lost with the handle. Copied. */
  const char *name;
  /** FL_CACHE_KEY_BYTES; rows are encrypted and authenticated with it. NULL =
   * plain. Not kept: keys derived from it are. */
  const uint8_t *key;
  /** Names the data set: FL_HASH_BYTES; NULL = zeros. Copied. */
  const uint8_t *data_tag;
} fl_cache_options;
FL_API fl_status fl_cache_options_init(fl_cache_options *options, size_t size);

/** Make a cache that is off until fl_cache_begin. `options` NULL = defaults.
 * FL_E_OPTIONS: a value out of range, a name that is none; FL_E_UNSUPPORTED: a
 * name without a storage that has map_write; FL_E_ENTROPY: libsodium.
 * Ownership: *out is the caller's. */
FL_API fl_status fl_cache_new(fl_cache **out, fl_context *context,
                              const fl_cache_options *options);
/** Free it; a blob stays, for a later cache. */
FL_API void fl_cache_free(fl_cache *cache);

/** From now on rows are `n_values` outputs for each of `n_samples` samples, of
 * the prefix that `tag` names: FL_HASH_BYTES, a hash of everything that they
 * depend on (schema, number of frozen modules, their weights). What is kept
 * stays valid when all of that, data_tag, data type and key are as before, also
 * by an earlier process; otherwise everything is forgotten. A blob that is
 * damaged or not one of ours counts as empty, and is written over.
 *
 * On failure, but FL_E_ARGUMENT, the cache is off: FL_E_LIMIT: all rows would
 * take more than byte_cap, the text says how much; FL_E_IO: the storage could
 * not, the disk may be full; FL_E_NOMEM; FL_E_STATE: it was wiped.
 * FL_E_ARGUMENT: also n_samples or n_values 0. */
FL_API fl_status fl_cache_begin(fl_cache *cache, const uint8_t *tag,
                                uint64_t n_samples, uint64_t n_values);
/** Keep rows [n, n_values] of n samples; of an id that comes twice the last.
 * FL_E_STATE: it is off; FL_E_RANGE: an id >= n_samples; FL_E_NOT_FINITE;
 * nothing has changed then. FL_E_ENTROPY (encrypted): rows may be missing. */
FL_API fl_status fl_cache_put(fl_cache *cache, const uint64_t *ids, uint32_t n,
                              const float *rows);
/** Copy rows of n samples into `rows` [n, n_values]: all or none. FL_E_EMPTY:
 * one is not there, or not as it was written (it is forgotten then): `rows` is
 * unspecified. FL_E_STATE: it is off; FL_E_RANGE: an id. */
FL_API fl_status fl_cache_get(fl_cache *cache, const uint64_t *ids, uint32_t n,
                              float *rows);
/** 1 when all these rows are there, as far as one can tell without reading
 * them; 0 when not, when it is off, for NULL and for ids out of range. */
FL_API int32_t fl_cache_has(const fl_cache *cache, const uint64_t *ids,
                            uint32_t n);
/** Say which rows will be asked for soon, so that the storage can fetch them.
 * FL_E_STATE, FL_E_RANGE. */
FL_API fl_status fl_cache_prefetch(const fl_cache *cache, const uint64_t *ids,
                                   uint32_t n);
/** Return when what was put would survive a crash of the machine. Without it
 * nothing wrong comes back after one; rows may be missing. FL_E_IO. */
FL_API fl_status fl_cache_flush(fl_cache *cache);
/** Forget everything for good: the rows, the blob, on or off, and the keys. The
 * cache stays off. FL_E_IO: the storage could not remove the blob; what was
 * mapped of it is overwritten. */
FL_API fl_status fl_cache_wipe(fl_cache *cache);

typedef struct fl_cache_status {
  uint32_t struct_size;
  uint32_t is_on;
  uint64_t n_samples; /**< 0 when off, as the next three */
  uint64_t n_values;
  uint64_t rows;   /**< how many are there */
  uint64_t bytes;  /**< of rows, bitmap and header */
  uint64_t hits;   /**< rows that fl_cache_get has copied, since the handle was
                        made */
  uint64_t misses; /**< rows that it was asked for in vain, whole calls */
} fl_cache_status;
FL_API fl_status fl_cache_status_init(fl_cache_status *status, size_t size);
FL_API fl_status fl_cache_get_status(const fl_cache *cache,
                                     fl_cache_status *status);

#ifdef __cplusplus
}
#endif
#endif
