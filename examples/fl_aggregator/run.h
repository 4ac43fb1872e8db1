/* SPDX-License-Identifier: Apache-2.0 */
/* The training that the process serves: job, test data, log, snapshot. */
#ifndef FL_AGGREGATOR_RUN_H
#define FL_AGGREGATOR_RUN_H

#include <fl/model.h>
#include <fl/server.h>

#include "common/idx.h"
#include "common/stored.h"
#include "fl_aggregator/config.h"
#include "fl_aggregator/ledger.h"
#include "fl_aggregator/log.h"
#include "fl_aggregator/metrics.h"
#include "fl_aggregator/publish.h"
#include "fl_aggregator/sessions.h"

struct run {
  const struct config *config;
  fl_server *server;
  fl_model *model; /* scratch copy that is scored */
  struct idx_set test;
  struct stored snapshot;
  struct stored model_file; /* --model-out */
  struct publish publish;   /* --models */
  fl_store *store;          /* --state; NULL = none */
  struct ledger ledger;
  struct sessions sessions;
  struct metrics metrics;
  struct log log;
  uint64_t round_began_ns; /* 0 = none has begun */
  uint64_t finished_at_ns; /* 0 = the job goes on */
  json_t *row;    /* a finished round that is not scored and logged yet */
  int is_end_due; /* job_finished is to be logged after it */
};

/* 0, or -1 with a line on stderr. run_close is fine after both. */
int run_open(struct run *run, const struct config *config);
void run_close(struct run *run);
/* Take all events of the server. */
void run_drain(struct run *run, uint64_t now_ns);
/* Do what takes longer and need not hold up answers: score the model of the
 * last finished round, log the round, save. */
void run_settle(struct run *run);
/* Save the snapshot, if there is one to save to. 0 or -1. */
int run_save(struct run *run);
/* Last line of the log: why, and the bytes of everybody. */
void run_log_exit(struct run *run, const char *reason);
/* malloc'd OpenMetrics text. */
char *run_metrics_text(struct run *run, size_t *n);

#endif
