/* SPDX-License-Identifier: Apache-2.0 */
#include "recommender/shards.h"

#include <stdlib.h>

static uint32_t shard_of(const struct clicks *clicks, uint64_t row, uint32_t n)
{
  if (clicks->customer_field == CLICKS_NO_FIELD) return (uint32_t)(row % n);
  return clicks->values[row * clicks->n_fields + clicks->customer_field] % n;
}

int shards_make(struct shards *shards, const struct clicks *clicks, uint32_t n)
{
  *shards = (struct shards){.n = n};
  shards->rows = malloc((size_t)clicks->n_train * sizeof *shards->rows);
  shards->begins = calloc((size_t)n + 2, sizeof *shards->begins);
  if (!shards->rows || !shards->begins) return -1;
  /* Sizes, two places ahead, so that filling makes ends of them. */
  for (uint64_t row = 0; row < clicks->n_train; row++)
    shards->begins[shard_of(clicks, row, n) + 2]++;
  for (uint32_t s = 2; s <= n; s++)
    shards->begins[s] += shards->begins[s - 1];
  for (uint64_t row = 0; row < clicks->n_train; row++)
    shards->rows[shards->begins[shard_of(clicks, row, n) + 1]++] =
        (uint32_t)row;
  return 0;
}

void shards_free(struct shards *shards)
{
  free(shards->rows);
  free(shards->begins);
}

void shards_part(const struct shards *shards, uint32_t shard, uint64_t turn,
                 uint64_t n_turns, uint64_t *first, uint64_t *end)
{
  const uint64_t begin = shards->begins[shard];
  const uint64_t n = shards->begins[shard + 1] - begin;
  if (turn > n_turns) turn = n_turns;
  *first = begin + n * turn / n_turns;
  *end = turn < n_turns ? begin + n * (turn + 1) / n_turns : begin + n;
}
