/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to train on by who has them, and which ids that are. */
#ifndef RECOMMENDER_SHARDS_H
#define RECOMMENDER_SHARDS_H

#include "recommender/data.h"

struct shards {
  uint32_t n;
  uint32_t *rows;   /* of all shards, each in the order of time */
  uint64_t *begins; /* [n + 1] in rows */
};

/* Customers, or single rows where there are none, are dealt out to `n` shards.
 * 0, or -1 when memory is out. Free with shards_free in any case. */
int shards_make(struct shards *shards, const struct clicks *clicks, uint32_t n);
void shards_free(struct shards *shards);
/* Part `turn` of `n_turns` of a shard's rows: places first..end in rows. */
void shards_part(const struct shards *shards, uint32_t shard, uint64_t turn,
                 uint64_t n_turns, uint64_t *first, uint64_t *end);

#endif
