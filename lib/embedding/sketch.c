/* SPDX-License-Identifier: Apache-2.0 */
/* Ids without a chunk cost nothing each: a count-min sketch with conservative
 * update (two rows of levels; only the lower counter of an id rises) says about
 * what they are worth, and those above the last adjust's threshold are
 * candidates for the next one. Candidates have places like entries have: a
 * full bucket drops the one that is worth least. How many different ids are
 * dropped is counted by their bits (linear counting), for adjust to make as
 * much room, which those will get that come first: most likely the hot ones. */
#include "embedding/hash.h"

#include <string.h>

#include "base/error.h"
#include "embedding/utility.h"

size_t fli_candidate_bytes(const fli_table *table)
{
  return (size_t)table->n_candidate_buckets * FLI_BUCKET *
         sizeof *table->candidates;
}

static fl_status take(fl_embedding *embedding, void **out, size_t bytes)
{
  int no_memory;
  *out = fli_embedding_take(embedding, bytes, 0, &no_memory);
  if (*out) return FL_OK;
  if (no_memory) return fli_nomem(bytes);
  return fli_error(FL_E_LIMIT, "embedding: the budget has no %zu bytes left",
                   bytes);
}

size_t fli_dropped_bytes(const fli_table *table)
{
  return (size_t)FLI_DROPPED_BYTES * FLI_BUCKET * table->n_candidate_buckets;
}

fl_status fli_sketch_new(fl_embedding *embedding, fli_table *table,
                         size_t counters, size_t n_candidates)
{
  fl_status st = FL_OK;
  void *memory;
  table->n_candidate_buckets =
      (uint32_t)((n_candidates + FLI_BUCKET - 1) / FLI_BUCKET);
  if (table->n_candidate_buckets > 0) {
    st = take(embedding, &memory, fli_candidate_bytes(table));
    if (st != FL_OK) return st;
    table->candidates = memory;
    st = take(embedding, &memory, fli_dropped_bytes(table));
    if (st != FL_OK) return st;
    table->dropped_bits = memory;
  }
  if (counters < 2) return FL_OK;
  st = take(embedding, &memory, counters / 2 * 2);
  if (st != FL_OK) return st;
  table->sketch = memory;
  table->sketch_width = counters / 2;
  if (table->admit_after <= 1) return FL_OK;
  st = take(embedding, &memory, counters / 2 * 2);
  if (st == FL_OK) table->touches = memory;
  return st;
}

void fli_sketch_free(fl_embedding *embedding, fli_table *table)
{
  fli_embedding_give(embedding, table->touches, 2 * table->sketch_width);
  fli_embedding_give(embedding, table->sketch, 2 * table->sketch_width);
  fli_embedding_give(embedding, table->dropped_bits, fli_dropped_bytes(table));
  fli_embedding_give(embedding, table->candidates, fli_candidate_bytes(table));
}

/* Places of an id's two counters. */
static void find_counters(const fli_table *table, uint64_t hash, size_t at[2])
{
  uint64_t one = fli_scatter(hash);
  uint64_t two = fli_scatter(hash ^ 0x5851f42d4c957f2du);
  at[0] = (size_t)((one >> 32) * table->sketch_width >> 32);
  at[1] =
      table->sketch_width + (size_t)((two >> 32) * table->sketch_width >> 32);
}

static uint8_t lower_of(const uint8_t *counters, const size_t at[2])
{
  return counters[at[0]] < counters[at[1]] ? counters[at[0]] : counters[at[1]];
}

static void raise_to(uint8_t *counters, const size_t at[2], uint8_t level)
{
  for (int i = 0; i < 2; i++) {
    if (counters[at[i]] < level) counters[at[i]] = level;
  }
}

static uint8_t top_of(const uint8_t *levels)
{
  uint8_t top = 0;
  for (int k = 0; k < FLI_CHUNKS_MAX; k++)
    top = levels[k] > top ? levels[k] : top;
  return top;
}

/* Ids a little above the threshold are many, and no loss. Each half octave
 * that an id comes to has a bit. */
static void drop(fli_table *table, const fli_candidate *candidate)
{
  uint8_t level = top_of(candidate->levels);
  if (level < table->admit_level + FLI_DROPPED_ABOVE) return;
  uint64_t n_bits = (uint64_t)fli_dropped_bytes(table) * 8;
  uint64_t name =
      fli_scatter(candidate->id + level / FLI_DROPPED_LEVELS * FLI_ODD);
  uint64_t bit = (name >> 32) * n_bits >> 32;
  uint8_t mask = (uint8_t)(1u << bit % 8);
  if (table->dropped_bits[bit / 8] & mask) return;
  table->dropped_bits[bit / 8] |= mask;
  table->dropped[level / FLI_DROPPED_LEVELS]++;
}

static void note_candidate(fli_table *table, uint64_t hash,
                           const fli_candidate *candidate)
{
  if (table->n_candidate_buckets == 0) return;
  fli_candidate *bucket =
      table->candidates +
      (size_t)fli_first_bucket(hash, table->n_candidate_buckets) * FLI_BUCKET;
  fli_candidate *least = &bucket[0];
  for (int i = 0; i < FLI_BUCKET; i++) {
    fli_candidate *other = &bucket[i];
    if (!other->is_there || other->id == candidate->id) {
      *other = *candidate;
      return;
    }
    if (top_of(other->levels) < top_of(least->levels)) least = other;
  }
  if (top_of(least->levels) >= top_of(candidate->levels)) {
    drop(table, candidate);
    return;
  }
  drop(table, least);
  *least = *candidate;
}

void fli_sketch_add(fli_table *table, uint64_t id, uint64_t hash,
                    const float *increments, uint64_t chance)
{
  size_t at[2];
  float sum = 0;
  uint8_t level = 0;
  for (uint32_t k = 0; k < table->chunks; k++)
    sum += increments[k];
  if (table->sketch) {
    find_counters(table, hash, at);
    level = lower_of(table->sketch, at);
    level = fli_utility_level(fli_utility_of(level, table->base) + sum,
                              table->base, (uint32_t)chance & 0xfffff);
    raise_to(table->sketch, at, level);
    if (table->touches) {
      uint8_t touches = lower_of(table->touches, at);
      if (touches < UINT8_MAX) raise_to(table->touches, at, touches + 1);
      if (touches + 1u < table->admit_after) return;
    }
  } else {
    level = fli_utility_nearest(sum, table->base);
  }
  if (level <= table->admit_level || sum <= 0) return;
  fli_candidate candidate = {.id = id, .is_there = 1};
  float factor = fli_utility_of(level, table->base) / sum;
  for (uint32_t k = 0; k < table->chunks; k++)
    candidate.levels[k] =
        fli_utility_nearest(factor * increments[k], table->base);
  note_candidate(table, hash, &candidate);
}

void fli_sketch_raise(fli_table *table, uint64_t hash, float utility)
{
  size_t at[2];
  if (!table->sketch) return;
  find_counters(table, hash, at);
  raise_to(table->sketch, at, fli_utility_nearest(utility, table->base));
}

int fli_sketch_admits(const fli_table *table, uint64_t hash)
{
  size_t at[2];
  if (!table->touches) return 1;
  find_counters(table, hash, at);
  return lower_of(table->touches, at) + 1u >= table->admit_after;
}

void fli_sketch_lower(fli_table *table, uint32_t levels)
{
  size_t n_used = 0;
  if (table->candidates) {
    memset(table->candidates, 0, fli_candidate_bytes(table));
    memset(table->dropped_bits, 0, fli_dropped_bytes(table));
    memset(table->dropped, 0, sizeof table->dropped);
  }
  for (size_t i = 0; i < 2 * table->sketch_width && levels > 0; i++) {
    uint8_t *counter = &table->sketch[i];
    *counter = *counter > levels ? (uint8_t)(*counter - levels) : 0;
  }
  if (!table->touches) return;
  for (size_t i = 0; i < 2 * table->sketch_width; i++)
    n_used += table->touches[i] > 0;
  /* Full of what others have counted, it would admit everybody. */
  if (n_used < table->sketch_width) return;
  for (size_t i = 0; i < 2 * table->sketch_width; i++)
    table->touches[i] /= 2;
}
