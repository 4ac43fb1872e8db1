/* SPDX-License-Identifier: Apache-2.0 */
/* How ids are mixed: two rounds of 64 x 64 -> 128 bit multiplication with the
 * secret (as in wyhash), so that whoever does not know it cannot choose ids
 * that meet. The upper bits say the segment, the lower 32 the first bucket,
 * all of them together the second. */
#ifndef FLI_EMBEDDING_HASH_H
#define FLI_EMBEDDING_HASH_H

#include "embedding/embedding.h"

#include "base/compiler.h"

static inline uint64_t fli_mix_fold(uint64_t a, uint64_t b)
{
#ifdef FLI_HAS_WIDE
  fli_wide product = (fli_wide)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
  uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
  uint64_t one = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
  uint64_t two = (a & UINT32_MAX) * (b >> 32) + (one & UINT32_MAX);
  uint64_t high = (a >> 32) * (b >> 32) + (one >> 32) + (two >> 32);
  return (two << 32 | (low & UINT32_MAX)) ^ high;
#endif
}

static inline uint64_t fli_mix(const uint64_t secret[2], uint64_t id)
{
  uint64_t once = fli_mix_fold(id ^ secret[0], secret[1] ^ 0xa0761d6478bd642fu);
  return fli_mix_fold(once ^ secret[1], id ^ secret[0] ^ 0xe7037ed1a0b428dbu);
}

#define FLI_ODD 0x9e3779b97f4a7c15u

/* Pseudo-random numbers that are named by a number (splitmix64). */
static inline uint64_t fli_scatter(uint64_t x)
{
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

static inline fli_segment *fli_segment_of(const fli_table *table, uint64_t hash)
{
  fli_directory *directory =
      atomic_load_explicit(&table->directory, memory_order_acquire);
  /* In two steps: a depth of 0 would shift by 64. */
  size_t at = (size_t)(hash >> 1 >> (63 - directory->depth));
  return atomic_load_explicit(&directory->segments[at], memory_order_acquire);
}

static inline uint32_t fli_first_bucket(uint64_t hash, uint32_t n_buckets)
{
  return (uint32_t)((hash & UINT32_MAX) * n_buckets >> 32);
}

static inline uint32_t fli_second_bucket(uint64_t hash, uint32_t n_buckets)
{
  uint64_t other = hash * 0x9e3779b97f4a7c15u >> 32;
  uint32_t bucket = (uint32_t)(other * n_buckets >> 32);
  if (bucket != fli_first_bucket(hash, n_buckets)) return bucket;
  return bucket + 1 == n_buckets ? 0 : bucket + 1;
}

static inline uint32_t fli_entry_where(const fli_entry *entry)
{
  return atomic_load_explicit(&entry->where, memory_order_relaxed);
}

static inline uint64_t fli_entry_id(const fli_entry *entry)
{
  return atomic_load_explicit(&entry->id, memory_order_relaxed);
}

static inline uint32_t fli_entry_is(const fli_entry *entry, uint64_t id)
{
  uint32_t is_its = fli_entry_id(entry) == id;
  return is_its & (uint32_t)(fli_entry_where(entry) != 0);
}

/* Bit i: entry i of the bucket is the id's. One at most. */
static inline uint32_t fli_bucket_match(const fli_entry *bucket, uint64_t id)
{
  return fli_entry_is(&bucket[0], id) | fli_entry_is(&bucket[1], id) << 1 |
         fli_entry_is(&bucket[2], id) << 2 | fli_entry_is(&bucket[3], id) << 3;
}

/* The same of places that may be free. */
static inline uint32_t fli_bucket_named(const fli_entry *bucket, uint64_t id)
{
  return (uint32_t)(fli_entry_id(&bucket[0]) == id) |
         (uint32_t)(fli_entry_id(&bucket[1]) == id) << 1 |
         (uint32_t)(fli_entry_id(&bucket[2]) == id) << 2 |
         (uint32_t)(fli_entry_id(&bucket[3]) == id) << 3;
}

/* The lowest bit of a match that is set, or 0: chance would not be predicted.
 */
static inline uint32_t fli_match_place(uint32_t match)
{
  return 0x12131210u >> 2 * match & 3u;
}

/* The entry of an id in a bucket, or NULL. */
static inline fli_entry *fli_bucket_find(fli_entry *bucket, uint64_t id)
{
  uint32_t match = fli_bucket_match(bucket, id);
  return match ? bucket + fli_match_place(match) : NULL;
}

/* How many chunks a mask of up to 4 bits has. */
static inline uint32_t fli_count_of(uint32_t mask)
{
  return (uint32_t)(0x4332322132212110u >> 4 * mask & 7u);
}

static inline uint32_t fli_where_count(uint32_t where)
{
  return fli_count_of(where >> FLI_MASK_SHIFT);
}

/* Have so many bytes on their way. */
static inline void fli_prefetch(const uint8_t *bytes, size_t n)
{
  for (size_t at = 0; at < n; at += 64)
    FLI_PREFETCH(bytes + at);
}

#endif
