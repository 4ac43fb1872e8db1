/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenMetrics 1.0 text. Labels have few values (reasons, never client ids), so
 * that a federation of any size makes the same number of series.
 */
#include "fl_aggregator/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <fl/protocol.h>

static const double bucket_bounds[METRICS_BUCKETS] = {.1, .25, .5, 1,   2.5,
                                                      5,  15,  60, 300, 1800};

static uint32_t slot_of(uint32_t reason)
{
  return reason < METRICS_REASONS ? reason : METRICS_REASONS - 1;
}

void metrics_refuse(struct metrics *metrics, uint32_t reason)
{
  metrics->refused[slot_of(reason)]++;
}

void metrics_lose(struct metrics *metrics, uint32_t reason)
{
  metrics->lost[slot_of(reason)]++;
}

void metrics_round(struct metrics *metrics, double seconds)
{
  size_t i = 0;
  while (i < METRICS_BUCKETS && seconds > bucket_bounds[i])
    i++;
  metrics->round_buckets[i]++;
  metrics->round_seconds += seconds;
  metrics->rounds++;
}

static void family(FILE *out, const char *name, const char *type,
                   const char *help)
{
  fprintf(out, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
}

static void counter(FILE *out, const char *name, const char *help,
                    uint64_t value)
{
  family(out, name, "counter", help);
  fprintf(out, "%s_total %" PRIu64 "\n", name, value);
}

static void gauge(FILE *out, const char *name, const char *help, double value)
{
  family(out, name, "gauge", help);
  fprintf(out, "%s %.17g\n", name, value);
}

static void by_reason(FILE *out, const char *name, const char *help,
                      const uint64_t counts[METRICS_REASONS])
{
  family(out, name, "counter", help);
  for (uint32_t i = 0; i < METRICS_REASONS; i++)
    if (counts[i] > 0)
      fprintf(out, "%s_total{reason=\"%s\"} %" PRIu64 "\n", name,
              fl_reject_name(i), counts[i]);
}

static void round_histogram(FILE *out, const struct metrics *metrics)
{
  const char *name = "fl_round_duration_seconds";
  uint64_t below = 0;
  fprintf(out, "# TYPE %s histogram\n# UNIT %s seconds\n", name, name);
  fprintf(out, "# HELP %s Time from one model version to the next.\n", name);
  for (size_t i = 0; i < METRICS_BUCKETS; i++) {
    below += metrics->round_buckets[i];
    /* Canonical numbers: another text would be another series. */
    int is_whole = rint(bucket_bounds[i]) == bucket_bounds[i];
    fprintf(out, "%s_bucket{le=\"%.4g%s\"} %" PRIu64 "\n", name,
            bucket_bounds[i], is_whole ? ".0" : "", below);
  }
  below += metrics->round_buckets[METRICS_BUCKETS];
  fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, below);
  fprintf(out, "%s_count %" PRIu64 "\n%s_sum %.9g\n", name, below, name,
          metrics->round_seconds);
}

char *metrics_text(const struct metrics *metrics, size_t *n)
{
  char *text = NULL;
  FILE *out = open_memstream(&text, n);
  if (!out) return NULL;
  family(out, "fl_build", "info", "The library in use.");
  fprintf(out, "fl_build_info{version=\"%s\"} 1\n", fl_version_string());
  counter(out, "fl_rounds", "Rounds finished.", metrics->rounds);
  counter(out, "fl_rounds_aborted", "Rounds given up and tried again.",
          metrics->rounds_aborted);
  counter(out, "fl_updates_accepted", "Updates counted.",
          metrics->updates_accepted);
  counter(out, "fl_store_failures",
          "Commits that failed, while nothing was answered.",
          metrics->store_failures);
  counter(out, "fl_publish_failures", "Models that could not be written.",
          metrics->publish_failures);
  by_reason(out, "fl_refused", "Peers and messages refused, by reason.",
            metrics->refused);
  by_reason(out, "fl_clients_lost",
            "Clients asked for an update that did not count, by reason.",
            metrics->lost);
  gauge(out, "fl_clients", "Clients that have joined and are there.",
        (double)metrics->clients);
  gauge(out, "fl_sessions", "HTTP sessions.", (double)metrics->sessions);
  counter(out, "fl_http_requests", "HTTP requests.", metrics->requests);
  counter(out, "fl_connections_too_slow",
          "Connections closed because they took too long.",
          metrics->connections_too_slow);
  counter(out, "fl_admin_refused", "Requests without the right token.",
          metrics->admin_refused);
  counter(out, "fl_received_bytes", "Bytes received, counted at the sockets.",
          metrics->received_bytes);
  counter(out, "fl_sent_bytes", "Bytes sent, counted at the sockets.",
          metrics->sent_bytes);
  round_histogram(out, metrics);
  gauge(out, "fl_model_version", "Version of the model.",
        (double)metrics->model_version);
  if (metrics->has_test) {
    gauge(out, "fl_test_accuracy_ratio", "Share of test samples got right.",
          metrics->test_accuracy);
    gauge(out, "fl_test_loss", "Mean loss on the test samples.",
          metrics->test_loss);
  }
  fputs("# EOF\n", out);
  if (fclose(out) == 0) return text;
  free(text);
  return NULL;
}
