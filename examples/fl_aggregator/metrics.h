/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of the aggregator and their OpenMetrics text. */
#ifndef FL_AGGREGATOR_METRICS_H
#define FL_AGGREGATOR_METRICS_H

#include <stddef.h>
#include <stdint.h>

enum { METRICS_REASONS = 32, METRICS_BUCKETS = 10 };

struct metrics {
  uint64_t rounds;
  uint64_t rounds_aborted;
  uint64_t updates_accepted;
  uint64_t refused[METRICS_REASONS]; /* by FL_REJECT_* */
  uint64_t lost[METRICS_REASONS];
  uint64_t clients; /* joined and there */
  uint64_t sessions;
  uint64_t requests;
  uint64_t received_bytes;
  uint64_t sent_bytes;
  uint64_t round_buckets[METRICS_BUCKETS + 1]; /* the last: no bound */
  double round_seconds;
  int has_test; /* the model was scored */
  double test_accuracy;
  double test_loss;
  uint64_t model_version;
  uint64_t store_failures;
  uint64_t connections_too_slow;
  uint64_t admin_refused;
  uint64_t publish_failures;
};

void metrics_refuse(struct metrics *metrics, uint32_t reason);
void metrics_lose(struct metrics *metrics, uint32_t reason);
void metrics_round(struct metrics *metrics, double seconds);
/* malloc'd OpenMetrics 1.0 text of *n bytes; NULL without memory. */
char *metrics_text(const struct metrics *metrics, size_t *n);

#endif
