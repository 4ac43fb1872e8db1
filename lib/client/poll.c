/* SPDX-License-Identifier: Apache-2.0 */
/* Time, events and the host's answers. Time is what the host says it is: all
 * timers are set and looked at here, and messages only leave notes for the
 * next poll (is_touched, has_new_wait).
 *
 * Events about what has happened come before requests for work, so that a host
 * that takes one event at a time sees them in a sensible order; each is given
 * out once. */
#include "client/client.h"

#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "base/size.h"
#include "wire/reader.h"

static uint64_t later(uint64_t now_ns, uint64_t pause_ns)
{
  uint64_t sum;
  return fli_add_u64(now_ns, pause_ns, &sum) ? sum : UINT64_MAX;
}

/* 1 while the next move is the server's. */
static int expects_answer(const fl_client *client)
{
  if (fli_client_is_over(client) || client->is_waiting) return 0;
  if (client->has_failed) return 1; /* as if it were: HELLO may mend it */
  if (client->link != FLI_LINK_WELCOMED)
    return client->link == FLI_LINK_HELLO_SENT;
  if (client->due || client->outgoing.is_active) return 0;
  return client->is_leaving || client->is_model_awaited ||
         client->phase == FLI_PHASE_MODEL || client->phase == FLI_PHASE_NORM ||
         client->phase == FLI_PHASE_UPDATE;
}

static void run_wait_timer(fl_client *client)
{
  /* What the device has is said in HELLO. */
  if (client->lacks != client->said && client->phase == FLI_PHASE_IDLE &&
      client->link == FLI_LINK_WELCOMED && !client->due)
    fli_client_resync(client);
  if (client->has_new_wait) {
    client->has_new_wait = 0;
    client->is_waiting = 1;
    client->wait_until_ns = later(client->now_ns, client->wait_ns);
    fli_client_raise(client, FL_CLIENT_WAIT);
  } else if (client->is_waiting && client->now_ns >= client->wait_until_ns) {
    client->is_waiting = 0;
    fli_client_resync(client);
  }
}

static void run_retry_timer(fl_client *client)
{
  int is_touched = client->is_touched;
  client->is_touched = 0;
  if (!expects_answer(client)) {
    client->is_retrying = 0;
    return;
  }
  if (!client->is_retrying || is_touched) {
    client->is_retrying = 1;
    client->retry_at_ns = later(client->now_ns, client->pause_ns);
    return;
  }
  if (client->now_ns < client->retry_at_ns) return;
  client->is_retrying = 0;
  client->tries++;
  if (client->options.max_retries > 0 &&
      client->tries > client->options.max_retries) {
    fli_client_abort(client, FL_REJECT_NO_ANSWER,
                     fl_reject_text(FL_REJECT_NO_ANSWER));
    return;
  }
  fli_client_resync(client);
  fli_client_double_pause(client);
}

static int wants_work(const fl_client *client)
{
  return !client->is_asked && (client->phase == FLI_PHASE_TRAIN ||
                               client->phase == FLI_PHASE_EVALUATE);
}

/* The job's name in a freeze plan, whose key 2 it is in every format
 * (docs/design/freeze.md); NULL = none. Anything else is the trainer's to
 * judge. */
static const uint8_t *job_of(const fli_bytes *freeze_plan)
{
  enum { KEY_JOB = 2 };
  uint32_t key;
  size_t size = 0;
  const uint8_t *job = NULL;
  fli_msg_reader reader;
  fli_reader_init(&reader, freeze_plan->data, freeze_plan->size);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    if (key == KEY_JOB)
      job = fli_reader_bin(&reader, &size);
    else
      fli_reader_skip(&reader);
  }
  const fl_status st = fli_reader_finish(&reader);
  fli_clear_error();
  return st == FL_OK && size == FL_HASH_BYTES ? job : NULL;
}

static fl_train_task make_task(const fl_client *client)
{
  const int is_plan = client->phase == FLI_PHASE_TRAIN;
  const fli_bytes *freeze_plan = &client->freeze_plan;
  const fli_canonical *scored = is_plan ? NULL : fli_client_scored(client);
  const fli_canonical *model = scored ? scored : &client->canonical;
  return (fl_train_task){
      .struct_size = sizeof(fl_train_task),
      .epochs = client->plan.epochs,
      .batch_size = client->plan.batch_size,
      .learning_rate = client->plan.learning_rate,
      .seed = client->plan.seed,
      .round = is_plan ? client->plan.round : client->evaluate.round,
      .model_version = model->version,
      .weights = model->weights,
      .n_weights = client->n_weights,
      .first_active = is_plan ? client->plan.first_active : 0,
      .freeze_reports = is_plan ? client->plan.freeze_reports : 0,
      .prox_mu = is_plan ? client->plan.prox_mu : 0.0f,
      .control =
          is_plan && client->plan.has_control ? client->probe.weights : NULL,
      .freeze_plan =
          is_plan && freeze_plan->size > 0 ? freeze_plan->data : NULL,
      .freeze_plan_size = is_plan ? freeze_plan->size : 0,
      .freeze_job =
          is_plan && freeze_plan->size > 0 ? job_of(freeze_plan) : NULL,
      .cohort = is_plan ? client->plan.cohort : client->evaluate.cohort,
      .is_probe = !is_plan && client->evaluate.is_probe,
      .paged = client->options.paged,
  };
}

/* A trainer that fails declines the round; what it gave that cannot be used
 * does so too, and is also an error of the poll, because it is a defect. */
static fl_status run_trainer(fl_client *client)
{
  const fl_train_task task = make_task(client);
  fl_train_result result = {.struct_size = sizeof result,
                            .loss = (double)NAN,
                            .report_value = (double)NAN};
  fl_status st = client->options.train(&task, &result, client->options.user);
  fli_clear_error();
  if (st == FL_OK) {
    st = fli_client_take_result(client, &result);
    if (st != FL_OK) fli_client_refuse(client);
    return st;
  }
  fli_log(client->context, FL_LOG_INFO, "round %llu declined: trainer gave %s",
          (unsigned long long)task.round, fl_status_name(st));
  fli_client_refuse(client);
  return FL_OK;
}

static fl_status run_evaluator(fl_client *client)
{
  fl_score score = {.struct_size = sizeof score,
                    .paged = client->options.paged};
  const fli_canonical *model = fli_client_scored(client);
  fl_status st = fli_client_evaluator(client)(model->weights, client->n_weights,
                                              &score, client->options.user);
  fli_clear_error();
  if (st == FL_OK) {
    st = fli_client_take_score(client, &score);
    if (st != FL_OK) fli_client_refuse(client);
    return st;
  }
  fli_client_refuse(client);
  return FL_OK;
}

/* Take one of the events that tell what happened; 0 when there is none. */
static int take_event(fl_client *client, fl_client_event *event)
{
  static const uint32_t order[] = {FL_CLIENT_ABORTED,     FL_CLIENT_JOINED,
                                   FL_CLIENT_ACCEPTED,    FL_CLIENT_STALE,
                                   FL_CLIENT_MODEL_READY, FL_CLIENT_DONE,
                                   FL_CLIENT_WAIT};
  uint32_t kind = FL_CLIENT_IDLE;
  for (size_t i = 0; i < FLI_COUNT_OF(order) && kind == FL_CLIENT_IDLE; i++)
    if (client->events & FLI_EVENT_BIT(order[i])) kind = order[i];
  if (kind == FL_CLIENT_IDLE) return 0;
  client->events &= ~FLI_EVENT_BIT(kind);
  event->kind = kind;
  switch (kind) {
  case FL_CLIENT_ACCEPTED: event->round = client->accepted_round; break;
  case FL_CLIENT_STALE:
    event->round = client->stale_round;
    event->reason = client->stale_reason;
    event->text = client->stale_text;
    break;
  case FL_CLIENT_ABORTED:
    event->reason = client->aborted_reason;
    event->text = client->text;
    break;
  case FL_CLIENT_WAIT:
    event->reason = client->wait_reason;
    event->wait_until_ns = client->wait_until_ns;
    event->text = client->text;
    break;
  case FL_CLIENT_DONE: event->round = client->done.rounds; break;
  default: break;
  }
  return 1;
}

/* Run a callback, or ask the host. */
static fl_status begin_work(fl_client *client, fl_client_event *event)
{
  if (client->phase == FLI_PHASE_TRAIN && client->paging)
    client->paging->begin(client);
  if (client->phase == FLI_PHASE_TRAIN && client->options.train)
    return run_trainer(client);
  if (client->phase == FLI_PHASE_EVALUATE && fli_client_evaluator(client))
    return run_evaluator(client);
  client->is_asked = 1;
  event->kind = client->phase == FLI_PHASE_TRAIN ? FL_CLIENT_NEED_TRAIN
                                                 : FL_CLIENT_NEED_EVALUATE;
  event->task = make_task(client);
  event->round = event->task.round;
  return FL_OK;
}

fl_status fl_client_poll(fl_client *client, uint64_t now_ns,
                         fl_client_event *event)
{
  fl_status st = FL_OK;
  fl_client_event local = {.text = ""};
  fli_clear_error();
  if (!client || !event) return fli_client_null("fl_client_poll");
  FLI_TRY(fli_options_store(event, &local, sizeof local, "fl_client_event"));
  if (now_ns > client->now_ns) client->now_ns = now_ns;
  run_wait_timer(client);
  run_retry_timer(client);
  if (!take_event(client, &local) && wants_work(client))
    st = begin_work(client, &local);
  if (client->has_canonical && client->canonical.is_valid)
    local.model_version = client->canonical.version;
  if (st == FL_OK)
    st = fli_options_store(event, &local, sizeof local, "fl_client_event");
out:
  return st;
}

fl_status fl_client_next_timeout(const fl_client *client, uint64_t *deadline_ns)
{
  fli_clear_error();
  if (!client || !deadline_ns) return fli_client_null("fl_client_next_timeout");
  int is_expecting = expects_answer(client);
  uint64_t deadline = UINT64_MAX;
  if (client->is_waiting) deadline = client->wait_until_ns;
  if (is_expecting) deadline = client->retry_at_ns;
  if (client->events || client->has_new_wait || wants_work(client) ||
      (is_expecting && (client->is_touched || !client->is_retrying)))
    deadline = client->now_ns;
  *deadline_ns = deadline;
  return FL_OK;
}

fl_status fl_client_submit(fl_client *client, const fl_train_result *result)
{
  fli_clear_error();
  if (!client || !result) return fli_client_null("fl_client_submit");
  if (client->phase != FLI_PHASE_TRAIN || !client->is_asked)
    return fli_error(FL_E_STATE, "submit: no training is asked for");
  return fli_client_take_result(client, result);
}

fl_status fl_client_submit_score(fl_client *client, const fl_score *score)
{
  fli_clear_error();
  if (!client || !score) return fli_client_null("fl_client_submit_score");
  if (client->phase != FLI_PHASE_EVALUATE || !client->is_asked)
    return fli_error(FL_E_STATE, "submit: no evaluation is asked for");
  return fli_client_take_score(client, score);
}

fl_status fl_client_decline(fl_client *client)
{
  fli_clear_error();
  if (!client) return fli_client_null("fl_client_decline");
  if (!client->is_asked ||
      (client->phase != FLI_PHASE_TRAIN && client->phase != FLI_PHASE_EVALUATE))
    return fli_error(FL_E_STATE, "decline: nothing is asked for");
  fli_client_refuse(client);
  return FL_OK;
}
