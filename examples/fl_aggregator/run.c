/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server's events mean for log, metrics, byte accounts and snapshot.
 * The traffic of a round is all that passed between the end of the round
 * before and its own end, so that rows add up to the whole; joining belongs to
 * round 1, and fetching the final model to what comes after the last.
 */
#include "fl_aggregator/run.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

#include <fl/weights.h>

#include "fl_aggregator/durable.h"
#include "fl_aggregator/setup.h"

static const double ns = 1e-9;

static json_t *client_fields(const fl_server_event *event)
{
  return json_pack("{s:I,s:s}", "round", (json_int_t)event->round, "client",
                   event->client_id);
}

static json_t *reason_fields(const fl_server_event *event)
{
  json_t *fields = client_fields(event);
  json_object_set_new(fields, "reason",
                      json_string(fl_reject_name(event->reason)));
  json_object_set_new(fields, "text", json_string(event->text));
  return fields;
}

static void on_joined(struct run *run, const fl_server_event *event,
                      const char *name)
{
  json_t *fields = client_fields(event);
  sessions_identify(&run->sessions, event->peer, event->client_id);
  log_event(&run->log, name, fields);
}

static void on_started(struct run *run, const fl_server_event *event,
                       uint64_t now_ns)
{
  if (run->round_began_ns == 0) run->round_began_ns = now_ns;
  log_event(&run->log, "round_started",
            json_pack("{s:I,s:i}", "round", (json_int_t)event->round,
                      "selected", (int)event->selected));
}

static void on_accepted(struct run *run, const fl_server_event *event)
{
  json_t *fields = client_fields(event);
  int account = ledger_find(&run->ledger, event->client_id);
  if (account != LEDGER_NOBODY) run->ledger.accounts[account].is_counted = 1;
  run->metrics.updates_accepted++;
  json_object_set_new(fields, "samples",
                      json_integer((json_int_t)event->samples));
  json_object_set_new(fields, "train_loss", log_real(event->loss));
  log_event(&run->log, "update_accepted", fields);
}

static void copy_model(struct run *run)
{
  float *weights = NULL;
  uint64_t count = 0;
  fl_model_get_weights(run->model, &weights, &count);
  if (fl_server_copy_weights(run->server, 0, weights, count, NULL) != FL_OK)
    warnx("model: %s", fl_last_error());
}

/* Close the round's books at once; scoring comes later (run_settle). */
static void on_finished(struct run *run, const fl_server_event *event,
                        uint64_t now_ns)
{
  run_settle(run);
  double seconds = 0;
  if (run->round_began_ns != 0)
    seconds = (double)(now_ns - run->round_began_ns) * ns;
  run->round_began_ns = now_ns;
  sessions_sample_all(&run->sessions);
  run->row = json_pack(
      "{s:I,s:I,s:i,s:i,s:i,s:o,s:f,s:o}", "round", (json_int_t)event->round,
      "version", (json_int_t)event->model_version, "selected",
      (int)event->selected, "accepted", (int)event->accepted, "frozen",
      (int)event->first_active, "train_loss", log_real(event->loss), "seconds",
      seconds, "clients", ledger_round(&run->ledger));
  ledger_begin_round(&run->ledger);
  metrics_round(&run->metrics, seconds);
  run->metrics.model_version = event->model_version;

  copy_model(run);
}

/* Why modules are frozen, and what it went by. */
static void on_freezing(struct run *run, const fl_server_event *event)
{
  static const char *const reasons[] = {"none",   "criterion", "fixed",
                                        "server", "rate_fell", "restart"};
  const size_t n_reasons = sizeof reasons / sizeof reasons[0];
  const json_int_t round = (json_int_t)event->round;
  if (event->kind == FL_SERVER_FREEZE_BOOTED) {
    log_event(&run->log, "freeze_booted", json_pack("{s:I}", "round", round));
  } else if (event->kind == FL_SERVER_FREEZE_CHANGED) {
    const char *reason = event->freeze_reason < n_reasons
                             ? reasons[event->freeze_reason]
                             : "unknown";
    log_event(&run->log, "freeze_changed",
              json_pack("{s:I,s:i,s:I,s:s}", "round", round, "frozen",
                        (int)event->first_active, "plan",
                        (json_int_t)event->plan_version, "reason", reason));
  } else {
    log_event(&run->log, "freeze_evaluated",
              json_pack("{s:I,s:i,s:o,s:o,s:o,s:i}", "round", round, "module",
                        (int)event->module, "value", log_real(event->value),
                        "threshold", log_real(event->threshold), "median",
                        log_real(event->raw), "below", (int)event->below));
  }
}

static void on_event(struct run *run, const fl_server_event *event,
                     uint64_t now_ns)
{
  switch (event->kind) {
  case FL_SERVER_CLIENT_JOINED: on_joined(run, event, "joined"); break;
  case FL_SERVER_CLIENT_RETURNED: on_joined(run, event, "returned"); break;
  case FL_SERVER_PEER_REJECTED:
    metrics_refuse(&run->metrics, event->reason);
    log_event(&run->log, "refused", reason_fields(event));
    break;
  case FL_SERVER_CLIENT_BANNED:
    log_event(&run->log, "banned", reason_fields(event));
    break;
  case FL_SERVER_CLIENT_LEFT:
    log_event(&run->log, "left", reason_fields(event));
    break;
  case FL_SERVER_ROUND_STARTED: on_started(run, event, now_ns); break;
  case FL_SERVER_UPDATE_ACCEPTED: on_accepted(run, event); break;
  case FL_SERVER_CLIENT_LOST:
    metrics_lose(&run->metrics, event->reason);
    log_event(&run->log, "client_lost", reason_fields(event));
    break;
  case FL_SERVER_ROUND_FINISHED: on_finished(run, event, now_ns); break;
  case FL_SERVER_ROUND_ABORTED:
    run->metrics.rounds_aborted++;
    log_event(&run->log, "round_aborted", reason_fields(event));
    break;
  case FL_SERVER_FREEZE_EVALUATED:
  case FL_SERVER_FREEZE_BOOTED:
  case FL_SERVER_FREEZE_CHANGED: on_freezing(run, event); break;
  case FL_SERVER_STORE_FAILED:
    run->metrics.store_failures++;
    log_event(&run->log, "store_failed",
              json_pack("{s:s}", "text", event->text));
    break;
  case FL_SERVER_JOB_FINISHED:
    run->is_end_due = 1;
    run->finished_at_ns = now_ns;
    break;
  default: break;
  }
}

void run_drain(struct run *run, uint64_t now_ns)
{
  fl_server_event event;
  fl_server_event_init(&event, sizeof event);
  while (fl_server_poll(run->server, &event) == FL_OK)
    on_event(run, &event, now_ns);
}

static void score(struct run *run)
{
  fl_evaluation result;
  fl_evaluation_init(&result, sizeof result);
  if (fl_model_evaluate(run->model, &run->test.data, &result) != FL_OK) {
    warnx("test: %s", fl_last_error());
    return;
  }
  run->metrics.has_test = 1;
  run->metrics.test_accuracy = (double)result.correct / (double)result.count;
  run->metrics.test_loss = result.loss;
  json_object_set_new(run->row, "accuracy",
                      json_real(run->metrics.test_accuracy));
  json_object_set_new(run->row, "loss", log_real(result.loss));
}

static fl_status save_model(const fl_writer *writer, void *user)
{
  const struct run *run = user;
  return fl_model_save_weights(run->model, writer);
}

/* The scratch copy has the last version by now. */
static void write_model(struct run *run)
{
  if (!run->model_file.host) return;
  if (stored_save(&run->model_file, save_model, run) == FL_OK) return;
  warnx("%s: not written: %s", run->config->model_out, run->model_file.error);
}

/* Before the round's line is in the log: who reads that finds the file. */
static void publish(struct run *run)
{
  const struct config *config = run->config;
  if (!*config->models) return;
  const char *name = publish_model(&run->publish, config, run->model, run->row);
  if (name) {
    json_object_set_new(run->row, "file", json_string(name));
    return;
  }
  run->metrics.publish_failures++;
  log_event(&run->log, "publish_failed",
            json_pack("{s:O,s:s}", "version",
                      json_object_get(run->row, "version"), "text",
                      run->publish.error));
}

void run_settle(struct run *run)
{
  if (run->row) {
    if (run->test.n > 0) score(run);
    publish(run);
    log_event(&run->log, "round_finished", run->row);
    run->row = NULL;
    (void)run_save(run);
  }
  if (run->is_end_due) {
    run->is_end_due = 0;
    write_model(run);
    log_event(&run->log, "job_finished",
              json_pack("{s:I,s:I}", "rounds", (json_int_t)run->metrics.rounds,
                        "version", (json_int_t)run->metrics.model_version));
  }
}

static fl_status save_server(const fl_writer *writer, void *user)
{
  const struct run *run = user;
  return fl_server_save(run->server, writer);
}

int run_save(struct run *run)
{
  if (fl_server_commit(run->server) != FL_OK) {
    warnx("%s: not saved: %s", run->config->state, fl_last_error());
    return -1;
  }
  if (!run->snapshot.host) return 0;
  if (stored_save(&run->snapshot, save_server, run) == FL_OK) return 0;
  warnx("%s: not saved: %s", run->config->snapshot, run->snapshot.error);
  return -1;
}

void run_log_exit(struct run *run, const char *reason)
{
  sessions_sample_all(&run->sessions);
  log_event(&run->log, "exit",
            json_pack("{s:s,s:o,s:o,s:I,s:I}", "reason", reason, "since_round",
                      ledger_round(&run->ledger), "clients",
                      ledger_totals(&run->ledger), "up",
                      (json_int_t)run->ledger.total_up, "down",
                      (json_int_t)run->ledger.total_down));
}

char *run_metrics_text(struct run *run, size_t *n)
{
  fl_job_status status;
  fl_job_status_init(&status, sizeof status);
  if (fl_server_get_status(run->server, 0, &status) == FL_OK) {
    run->metrics.clients = status.clients;
    run->metrics.model_version = status.model_version;
  }
  run->metrics.sessions = run->sessions.live;
  run->metrics.received_bytes = run->ledger.total_up;
  run->metrics.sent_bytes = run->ledger.total_down;
  return metrics_text(&run->metrics, n);
}

static void on_restored(struct run *run)
{
  fl_job_status status;
  fl_job_status_init(&status, sizeof status);
  if (fl_server_get_status(run->server, 0, &status) != FL_OK) return;
  copy_model(run);
  if (status.is_finished) run->finished_at_ns = fl_host_now();
  if (status.is_finished) write_model(run);
  /* Of a round that was running, this process sees the rest. */
  run->round_began_ns = fl_host_now();
  log_event(&run->log, "restored",
            json_pack("{s:I,s:I}", "round", (json_int_t)status.round, "version",
                      (json_int_t)status.model_version));
}

int run_open(struct run *run, const struct config *config)
{
  memset(run, 0, sizeof *run);
  run->config = config;
  run->log.fd = -1;
  if (sessions_init(&run->sessions, config->max_sessions, &run->ledger) != 0) {
    warnx("out of memory");
    return -1;
  }
  if (log_open(&run->log, config->log) != 0) return -1;
  if (*config->snapshot && stored_open(&run->snapshot, config->snapshot) != 0)
    return -1;
  if (*config->model_out &&
      stored_open(&run->model_file, config->model_out) != 0)
    return -1;
  if (*config->state && durable_open(&run->store, config) != 0) return -1;
  if (setup_model(&run->model, config) != 0) return -1;
  if (setup_test_data(&run->test, run->model, config) != 0) return -1;
  int is_restored = 0;
  const struct kept kept = {.snapshot = &run->snapshot, .store = run->store};
  run->server = setup_server(run->model, &kept, config, &is_restored);
  if (!run->server) return -1;
  if (is_restored) on_restored(run);
  return 0;
}

void run_close(struct run *run)
{
  json_decref(run->row);
  fl_server_free(run->server);
  fl_model_free(run->model);
  idx_free(&run->test);
  fl_store_free(run->store);
  stored_close(&run->snapshot);
  stored_close(&run->model_file);
  publish_close(&run->publish);
  sessions_free(&run->sessions);
  ledger_free(&run->ledger);
  log_close(&run->log);
}
