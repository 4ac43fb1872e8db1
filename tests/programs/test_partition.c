/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Dirichlet partition: shards cover everything once, depend on nothing but
 * their inputs, and are as uneven as alpha says. Seeds are printed by the
 * failed check's values.
 */
#include "common/partition.h"

#include <stdlib.h>

#include "check.h"

enum { N = 6000, CLASSES = 10, MAX_PARTICIPANTS = 64 };

static uint8_t labels[N];
static uint32_t *shards[MAX_PARTICIPANTS];
static uint32_t sizes[MAX_PARTICIPANTS];

static struct partition partition_of(uint32_t participants, double alpha,
                                     uint64_t seed)
{
  return (struct partition){.participants = participants,
                            .alpha = alpha,
                            .seed = seed,
                            .min_samples = 32};
}

static void cut(const struct partition *partition)
{
  for (uint32_t k = 0; k < partition->participants; k++)
    CHECK_EQ_I64(
        partition_shard(partition, labels, N, k, &shards[k], &sizes[k]), 0);
}

static void drop(const struct partition *partition)
{
  for (uint32_t k = 0; k < partition->participants; k++)
    free(shards[k]);
}

static void shards_cover_every_sample_once(void)
{
  static const uint32_t counts[] = {1, 2, 8, MAX_PARTICIPANTS};
  static const double alphas[] = {.01, .5, 100};
  for (size_t i = 0; i < 4; i++) {
    for (size_t j = 0; j < 3; j++) {
      uint8_t seen[N] = {0};
      uint32_t total = 0;
      struct partition partition = partition_of(counts[i], alphas[j], 11 + i);
      cut(&partition);
      for (uint32_t k = 0; k < counts[i]; k++) {
        total += sizes[k];
        for (uint32_t s = 0; s < sizes[k]; s++) {
          CHECK(s == 0 || shards[k][s - 1] < shards[k][s]);
          CHECK(shards[k][s] < N && !seen[shards[k][s]]++);
        }
      }
      CHECK_EQ_U64(total, N);
      drop(&partition);
    }
  }
}

static void everybody_gets_the_minimum(void)
{
  for (uint64_t seed = 0; seed < 20; seed++) {
    struct partition partition = partition_of(MAX_PARTICIPANTS, .01, seed);
    cut(&partition);
    for (uint32_t k = 0; k < MAX_PARTICIPANTS; k++)
      CHECK(sizes[k] >= partition.min_samples);
    drop(&partition);
  }
}

static void same_inputs_give_the_same_shard(void)
{
  struct partition partition = partition_of(8, .5, 3);
  uint32_t *again = NULL;
  uint32_t n = 0;
  cut(&partition);
  CHECK_EQ_I64(partition_shard(&partition, labels, N, 5, &again, &n), 0);
  CHECK_EQ_U64(n, sizes[5]);
  CHECK_EQ_MEM(again, shards[5], n * sizeof *again);
  free(again);
  drop(&partition);
}

static void another_seed_gives_other_shards(void)
{
  struct partition one = partition_of(8, .5, 3);
  struct partition other = partition_of(8, .5, 4);
  uint32_t *a = NULL, *b = NULL;
  uint32_t n = 0, m = 0;
  CHECK_EQ_I64(partition_shard(&one, labels, N, 0, &a, &n), 0);
  CHECK_EQ_I64(partition_shard(&other, labels, N, 0, &b, &m), 0);
  CHECK(n != m || memcmp(a, b, n * sizeof *a) != 0);
  free(a);
  free(b);
}

/* Mean over participants of the share of their most frequent class. */
static double concentration(double alpha)
{
  double sum = 0;
  struct partition partition = partition_of(8, alpha, 5);
  cut(&partition);
  for (uint32_t k = 0; k < 8; k++) {
    uint32_t count[CLASSES] = {0};
    uint32_t most = 0;
    for (uint32_t s = 0; s < sizes[k]; s++) {
      uint32_t c = ++count[labels[shards[k][s]]];
      if (c > most) most = c;
    }
    sum += (double)most / sizes[k];
  }
  drop(&partition);
  return sum / 8;
}

static void small_alpha_is_uneven_and_large_alpha_even(void)
{
  CHECK(concentration(1e4) < .12); /* a tenth if wholly even */
  CHECK(concentration(.5) > .25);
  CHECK(concentration(.05) > concentration(.5));
}

static void too_many_participants_are_refused(void)
{
  struct partition partition = partition_of(N / 32 + 1, .5, 1);
  uint32_t *shard = NULL;
  uint32_t n = 0;
  CHECK_EQ_I64(partition_shard(&partition, labels, N, 0, &shard, &n), -1);
  partition.participants = N / 32;
  CHECK_EQ_I64(partition_shard(&partition, labels, N, 0, &shard, &n), 0);
  free(shard);
  CHECK_EQ_I64(partition_shard(&partition, labels, 0, 0, &shard, &n), -1);
}

int main(void)
{
  for (uint32_t i = 0; i < N; i++)
    labels[i] = (uint8_t)(i * 7 % CLASSES);
  CHECK_CASE(shards_cover_every_sample_once);
  CHECK_CASE(everybody_gets_the_minimum);
  CHECK_CASE(same_inputs_give_the_same_shard);
  CHECK_CASE(another_seed_gives_other_shards);
  CHECK_CASE(small_alpha_is_uneven_and_large_alpha_even);
  CHECK_CASE(too_many_participants_are_refused);
  return check_report();
}
