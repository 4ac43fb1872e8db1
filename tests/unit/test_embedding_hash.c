/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table of ids: bounded probes and growth by small pieces, whatever
 * the ids are. */
#include <criterion/criterion.h>

#include <string.h>

#include "embedding/utility.h"
#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { MANY = 60000, DIM = 4 };

typedef uint64_t (*id_fn)(uint64_t i);

static uint64_t in_a_row(uint64_t i)
{
  return i;
}

static uint64_t top_bits(uint64_t i)
{
  return i << 47;
}

static uint64_t multiples(uint64_t i)
{
  return i * 0x10001;
}

static uint64_t from_the_end(uint64_t i)
{
  return UINT64_MAX - i * i;
}

/* What a table without a secret could be flooded with: the finaliser of
 * splitmix64, undone, so that its hashes would be in a row. */
static uint64_t undone(uint64_t i)
{
  uint64_t x = i;
  x ^= x >> 31 ^ x >> 62;
  x *= 0x319642b2d24d8ec3u;
  x ^= x >> 27 ^ x >> 54;
  x *= 0x96de1b173f119089u;
  x ^= x >> 30 ^ x >> 60;
  return x - 0x9e3779b97f4a7c15u;
}

static void insert_all(fl_embedding *e, uint32_t t, id_fn id)
{
  static uint64_t ids[1000];
  static float out[1000 * DIM];
  for (uint64_t first = 0; first < MANY; first += 1000) {
    for (uint64_t i = 0; i < 1000; i++)
      ids[i] = id(first + i);
    fl_embedding_bags bags = bags_of(ids, 1000, NULL, 1000);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
  }
}

Test(embedding_hash, no_ids_make_it_sparse_or_slow)
{
  const id_fn all[] = {in_a_row, top_bits, multiples, from_the_end, undone};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    fl_embedding *e = embedding_of(NULL, 0, 0);
    uint32_t t = table_of(e, DIM, 1);
    insert_all(e, t, all[k]);
    const fli_table *table = e->tables[t];
    cr_assert_eq(table->n_rows, MANY);
    /* An id has two buckets by construction; so what flooding could do is to
     * make tables grow beyond what the number of ids wants. */
    cr_assert_leq(table->segment_bytes, 2 * MANY * sizeof(fli_entry), "%zu", k);
    uint64_t at = 0;
    const fli_segment *segment;
    while ((segment = fli_segments_next(table, &at)) != NULL)
      cr_assert_leq(segment->n_buckets, 2 * e->segment_buckets);
    const char *problem = embedding_problem(e);
    cr_assert_null(problem, "%s", problem);
    fl_embedding_free(e);
  }
}

Test(embedding_hash, secrets_place_the_same_ids_elsewhere)
{
  const uint64_t one[2] = {1, 2}, two[2] = {1, 3};
  int same = 0;
  for (uint64_t id = 0; id < 1000; id++) {
    same += fli_first_bucket(fli_mix(one, id), 64) ==
            fli_first_bucket(fli_mix(two, id), 64);
    uint64_t hash = fli_mix(one, id);
    cr_assert_neq(fli_first_bucket(hash, 64), fli_second_bucket(hash, 64));
  }
  cr_assert_lt(same, 60); /* 16 by chance */
}

Test(embedding_hash, the_portable_product_is_the_compilers)
{
  uint64_t a = 0x123456789abcdef1u, b = 0xfedcba9876543211u;
  for (int i = 0; i < 1000; i++) {
    uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
    uint64_t one = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
    uint64_t two = (a & UINT32_MAX) * (b >> 32) + (one & UINT32_MAX);
    uint64_t high = (a >> 32) * (b >> 32) + (one >> 32) + (two >> 32);
    cr_assert_eq(fli_mix_fold(a, b), (a * b) ^ high);
    a = fli_scatter(a), b = fli_scatter(b ^ a);
  }
}

/* ---- utilities ----------------------------------------------------------- */

Test(embedding_hash, utilities_are_monotone_and_come_back)
{
  const int32_t base = 900;
  for (int level = 1; level < 256; level++) {
    float value = fli_utility_of((uint8_t)level, base);
    cr_assert_gt(value, fli_utility_of((uint8_t)(level - 1), base));
    cr_assert_eq(fli_utility_level(value, base, 0), level);
    cr_assert_eq(fli_utility_nearest(value, base), level);
  }
  cr_assert_eq(fli_utility_of(0, base), 0);
  cr_assert_eq(fli_utility_level(0, base, 0xfffff), 0);
  cr_assert_eq(fli_utility_level(1e38f, base, 0), 255);
}

Test(embedding_hash, utilities_add_up_on_the_average)
{
  enum { N = 4000, TIMES = 500 };
  const int32_t base = 900;
  const float increment = fli_utility_of(40, base) * 0.37f;
  double sum = 0;
  for (uint64_t i = 0; i < N; i++) {
    uint8_t level = 0;
    for (uint64_t k = 0; k < TIMES; k++) {
      uint32_t chance = (uint32_t)fli_scatter(i * TIMES + k) & 0xfffff;
      level = fli_utility_level(fli_utility_of(level, base) + increment, base,
                                chance);
    }
    sum += (double)fli_utility_of(level, base);
  }
  double want = (double)increment * TIMES;
  cr_assert_float_eq(sum / N / want, 1.0, 0.02);
  /* Also what is far below the first level. */
  uint64_t ones = 0;
  float small = fli_utility_of(1, base) * 0.01f;
  for (uint64_t i = 0; i < 100000; i++)
    ones += fli_utility_level(small, base, (uint32_t)fli_scatter(i) & 0xfffff);
  cr_assert(ones > 900 && ones < 1100, "%d", (int)ones);
}

/* The first free place of an entry's bucket gets the id, too. */
static int name_free_place(fli_segment *segment, const fli_entry *entry)
{
  size_t at = (size_t)(entry - segment->entries);
  fli_entry *bucket = &segment->entries[at - at % FLI_BUCKET];
  for (int i = 0; i < FLI_BUCKET; i++) {
    if (fli_entry_where(&bucket[i]) != 0) continue;
    atomic_store(&bucket[i].id, fli_entry_id(entry));
    return &bucket[i] < entry;
  }
  return 0;
}

/* What a free place was said to be counts for nothing, behind the entry or
 * before it, with a row or without one. */
Test(embedding_hash, free_places_with_the_same_id_are_passed_over)
{
  enum { N = 300 };
  static float before[2 * N * DIM], after[2 * N * DIM];
  uint64_t ids[2 * N];
  fl_embedding *e = embedding_of(NULL, 1, 0);
  const uint32_t t = table_of(e, DIM, 1);
  const fli_table *table = e->tables[t];
  size_t n_before = 0;
  for (uint64_t i = 0; i < 2 * N; i++)
    ids[i] = i; /* 0, which all free places say at first, is one of them */
  fl_embedding_bags some = bags_of(ids, N, NULL, N);
  fl_embedding_bags all = bags_of(ids, 2 * N, NULL, 2 * N);
  cr_assert_eq(fl_embedding_forward(e, t, &some, before), FL_OK);
  cr_assert_eq(fl_embedding_lookup(e, t, &all, before), FL_OK);
  for (uint64_t i = 0; i < N; i++) {
    const uint64_t hash = fli_mix(e->mix, i);
    fli_segment *segment = fli_segment_of(table, hash);
    fli_entry *entry = fli_hash_find(table, i, hash);
    cr_assert_not_null(entry);
    /* Entries of every other id go to the last place of their bucket. */
    fli_entry *last = entry + (FLI_BUCKET - 1) -
                      (size_t)(entry - segment->entries) % FLI_BUCKET;
    if (i % 2 && fli_entry_where(last) == 0) {
      memcpy(last, entry, sizeof *last);
      atomic_store(&entry->where, 0);
      entry = last;
    }
    n_before += (size_t)name_free_place(segment, entry);
  }
  cr_assert_gt(n_before, 20);
  e->layout++; /* entries have moved */
  cr_assert_eq(fl_embedding_lookup(e, t, &all, after), FL_OK);
  cr_assert_eq(memcmp(before, after, sizeof before), 0);
  cr_assert_eq(fl_embedding_forward(e, t, &some, after), FL_OK);
  cr_assert_eq(memcmp(before, after, sizeof before / 2), 0);
  cr_assert_eq(fl_embedding_row_count(e, t), N);
  fl_embedding_free(e);
}
