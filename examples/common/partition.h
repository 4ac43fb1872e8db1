/* SPDX-License-Identifier: Apache-2.0 */
/* Who owns which samples: a partition in which labels are unevenly spread. */
#ifndef EXAMPLES_PARTITION_H
#define EXAMPLES_PARTITION_H

#include <stdint.h>

struct partition {
  uint32_t participants; /* >= 1 */
  double alpha;          /* > 0: small = each one has few classes */
  uint64_t seed;
  uint32_t min_samples; /* everybody gets at least as many */
};

/* The samples of participant `index` of a data set with `n` labels, in
 * ascending order: malloc'd into *indices, their number in *count. Everybody
 * who calls with the same labels and partition gets disjoint shards that
 * cover the whole. Returns 0; -1 when there are fewer than
 * participants * min_samples labels; -2 when out of memory. */
int partition_shard(const struct partition *partition, const uint8_t *labels,
                    uint32_t n, uint32_t index, uint32_t **indices,
                    uint32_t *count);

#endif
