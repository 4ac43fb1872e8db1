/* SPDX-License-Identifier: Apache-2.0 */
/* The server's messages, one handler each (docs/design/protocol.md).
 *
 * Any of them may come twice, late or out of order. Two rules keep that
 * harmless: what is older than the newest piece of work seen since WELCOME is
 * ignored, and a repeat of what is at hand only makes the client say again
 * what it said before. WELCOME resets the first rule, because a server that
 * came back from an older snapshot begins an earlier round. */
#include "client/client.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

/* Longest pause a server can ask for. */
static const uint64_t max_wait_ms = UINT64_C(24) * 3600 * 1000;
static const uint64_t ns_per_ms = 1000000;

static int compare_turns(fli_turn a, fli_turn b)
{
  if (a.round != b.round) return a.round < b.round ? -1 : 1;
  if (a.attempt != b.attempt) return a.attempt < b.attempt ? -1 : 1;
  return 0;
}

static int is_turn(fli_turn turn, uint64_t round, uint32_t attempt)
{
  return turn.round == round && turn.attempt == attempt;
}

/* 1 when `turn` is not older than anything seen on this connection. */
static int is_current(fl_client *client, fli_turn turn)
{
  if (compare_turns(turn, client->newest) < 0) return 0;
  client->newest = turn;
  return 1;
}

static void start_wait(fl_client *client, uint64_t wait_ms, uint32_t reason,
                       const char *text)
{
  if (wait_ms > max_wait_ms) wait_ms = max_wait_ms;
  client->has_new_wait = 1;
  client->wait_ns = wait_ms * ns_per_ms;
  client->wait_reason = reason;
  fli_client_copy_text(client->text, text);
  client->outgoing.is_active = 0;
  client->due &= ~(uint32_t)FLI_DUE_UPDATE;
}

static void end_wait(fl_client *client)
{
  client->is_waiting = 0;
  client->has_new_wait = 0;
  client->events &= ~FLI_EVENT_BIT(FL_CLIENT_WAIT);
}

void fli_client_supersede(fl_client *client, uint32_t reason, const char *text)
{
  int is_on_plan =
      client->phase == FLI_PHASE_TRAIN || client->phase == FLI_PHASE_NORM ||
      client->phase == FLI_PHASE_UPDATE ||
      (client->phase == FLI_PHASE_MODEL && client->demand == FLI_DEMAND_PLAN);
  int was_update = client->phase == FLI_PHASE_UPDATE;
  client->phase = FLI_PHASE_IDLE;
  client->outgoing.is_active = 0;
  client->due &= (uint32_t)FLI_DUE_GET_MODEL;
  if (!is_on_plan) return;
  /* Whether an update was counted whose ACK is missing, only the ACK can
   * say; it may still come. */
  if (was_update && fli_client_is_sent(client)) return;
  client->stale_round = client->plan.round;
  client->stale_reason = reason;
  fli_client_copy_text(client->stale_text,
                       text && text[0] ? text : fl_reject_text(reason));
  fli_client_raise(client, FL_CLIENT_STALE);
}

void fli_client_forgo(fl_client *client, const char *why)
{
  client->phase = FLI_PHASE_MODEL;
  client->demand = FLI_DEMAND_PLAN;
  fli_client_supersede(client, FL_REJECT_DECLINED, why);
  client->has_declined = 1;
  client->declined = (fli_turn){client->plan.round, client->plan.attempt};
  client->due |= FLI_DUE_DECLINE;
}

/* What is against the plan at hand; NULL = nothing. Who has no bytes for it
 * says so, and is not asked again today. */
static const char *objection(fl_client *client)
{
  const fli_limits *limits = client->limits;
  if (limits && !limits->allow(client, 1)) client->lacks |= FLI_LACKS_BYTES;
  if (client->lacks & FLI_LACKS_BYTES) return "the day's bytes are spent";
  if (client->plan.demands & client->lacks) return "conditions do not hold";
  return client->paging ? client->paging->objection(&client->plan) : NULL;
}

/* Training on `a` gives what training on `b` gives. */
static int is_same_task(const fli_plan *a, const fli_plan *b)
{
  return a->round == b->round && a->seed == b->seed && a->epochs == b->epochs &&
         a->batch_size == b->batch_size &&
         fli_f32_bits(a->learning_rate) == fli_f32_bits(b->learning_rate) &&
         a->first_active == b->first_active &&
         fli_f32_bits(a->prox_mu) == fli_f32_bits(b->prox_mu) &&
         a->has_control == b->has_control &&
         a->model_version == b->model_version &&
         memcmp(a->model_hash, b->model_hash, FLI_HASH_BYTES) == 0;
}

/* ---- WELCOME ------------------------------------------------------------ */

/* The server cannot be worked with: say why in the words of the failure. */
static fl_status abort_with(fl_client *client, uint32_t reason, fl_status st)
{
  if (st == FL_E_NOMEM) return st;
  fli_client_abort(client, reason, fl_last_error());
  return FL_OK;
}

/* Take the model's shape, or compare it. Sets ABORTED when it does not do. */
static fl_status take_schema(fl_client *client, const fli_welcome *welcome)
{
  if (!client->has_schema) {
    if (!welcome->description)
      return fli_error(FL_E_FORMAT, "welcome: no description of the model");
    fl_status st = fli_client_learn_description(client, welcome->description,
                                                welcome->description_size);
    if (st == FL_E_TOO_LARGE || st == FL_E_LIMIT)
      return abort_with(client, FL_REJECT_TOO_LARGE, st);
    if (st != FL_OK) return abort_with(client, FL_REJECT_SCHEMA, st);
  }
  if (memcmp(client->schema, welcome->schema, sizeof client->schema) != 0)
    fli_client_abort(client, FL_REJECT_SCHEMA,
                     "welcome: the server's model has another schema");
  return FL_OK;
}

static fl_status take_codec(fl_client *client, const fli_welcome *welcome)
{
  fl_compressor_options codec;
  const int wants_table =
      welcome->codec == FL_CODEC_THC && welcome->thc_mode == FL_THC_TABLE;
  if (wants_table != (welcome->table != NULL))
    return fli_error(FL_E_FORMAT, "welcome: got %zu table values in mode %u",
                     welcome->table_size, welcome->thc_mode);
  fl_status st = fl_compressor_options_init(&codec, sizeof codec);
  if (st != FL_OK) return st;
  codec.codec = welcome->codec;
  codec.thc_mode = welcome->thc_mode;
  codec.bits = welcome->bits;
  codec.granularity = welcome->granularity;
  codec.clip = welcome->clip;
  codec.table = welcome->table;
  codec.n_table = (uint32_t)welcome->table_size;
  memcpy(codec.rotation_seed, welcome->rotation_seed,
         sizeof codec.rotation_seed);
  st = fli_client_set_codec(client, &codec);
  if (st == FL_OK)
    st = fli_client_set_feedback(client, welcome->has_feedback,
                                 welcome->feedback_decay);
  if (st == FL_E_LIMIT) return abort_with(client, FL_REJECT_TOO_LARGE, st);
  return st == FL_OK ? st : abort_with(client, FL_REJECT_VERSION, st);
}

static fl_status on_welcome(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  fli_welcome welcome;
  FLI_TRY(fli_parse_welcome(&welcome, frame->body, frame->size));
  if (client->link == FLI_LINK_WELCOMED) return FL_OK;
  FLI_TRY(take_schema(client, &welcome));
  if (client->phase == FLI_PHASE_ABORTED) return FL_OK;
  FLI_TRY(take_codec(client, &welcome));
  if (client->phase == FLI_PHASE_ABORTED) return FL_OK;
  memcpy(client->token, welcome.token, sizeof client->token);
  client->has_token = 1;
  client->newest = (fli_turn){0, 0};
  client->incoming.knows_status = welcome.has_status != 0;
  if (!client->has_joined) fli_client_raise(client, FL_CLIENT_JOINED);
  client->has_joined = 1;
  end_wait(client);
  if (client->link == FLI_LINK_HELLO_SENT) client->link = FLI_LINK_WELCOMED;
  if (client->is_leaving) client->due |= FLI_DUE_LEAVE;
  if (client->has_missed) fli_client_resync(client);
out:
  return st;
}

/* ---- rounds ------------------------------------------------------------- */

static fl_status take_scale(fl_client *client, const uint8_t *noise_seed,
                            float clip, const uint8_t *norms, size_t size)
{
  fl_status st =
      fli_norms_from_bf16(client->scale_norms, client->n_norms, norms, size);
  if (st != FL_OK) return st;
  memcpy(client->noise_seed, noise_seed, sizeof client->noise_seed);
  client->clip = clip;
  return FL_OK;
}

/* The plan's model is held: train, or offer what was trained before. */
static fl_status start_plan(fl_client *client)
{
  const fli_plan *plan = &client->plan;
  if (client->has_declined &&
      is_turn(client->declined, plan->round, plan->attempt)) {
    client->due |= FLI_DUE_DECLINE;
    client->phase = FLI_PHASE_IDLE;
    return FL_OK;
  }
  if (client->trained.is_valid && is_same_task(&client->trained.plan, plan) &&
      fli_client_has_sparse(client))
    return fli_client_offer(client);
  fli_client_withdraw(client);
  fli_client_forget_trained(client);
  const fl_status st = fli_client_want_slices(client);
  if (st != FL_OK || fli_client_is_over(client) ||
      fli_client_awaits_slices(client))
    return st;
  if (client->phase != FLI_PHASE_TRAIN) {
    client->phase = FLI_PHASE_TRAIN;
    client->is_asked = 0;
  }
  return FL_OK;
}

/* Keep a plan without its views, and leave the piece of work it replaces. */
static void keep_plan(fl_client *client, const fli_plan *plan)
{
  int is_other_round = client->has_plan && client->plan.round != plan->round;
  if (is_other_round || client->phase == FLI_PHASE_EVALUATE)
    fli_client_supersede(client, FL_REJECT_STALE, NULL);
  else if (client->phase == FLI_PHASE_TRAIN &&
           !is_same_task(&client->plan, plan))
    client->phase = FLI_PHASE_IDLE;
  client->plan = *plan;
  client->plan.noise_seed = NULL;
  client->plan.norms = NULL;
  client->plan.norms_size = 0;
  client->plan.freeze_plan = NULL;
  client->plan.freeze_plan_size = 0;
  client->plan.slices = NULL;
  client->plan.slices_size = 0;
  client->has_plan = 1;
  /* The trainer's; there is room. */
  fli_bytes_clear(&client->freeze_plan);
  (void)fli_bytes_append(&client->freeze_plan, plan->freeze_plan,
                         plan->freeze_plan_size);
  fli_client_keep_slices(client, plan);
}

/* Before anything changes: some segment has to be left, and the freeze plan
 * needs room. */
static fl_status prepare_freezing(fl_client *client, const fli_plan *plan)
{
  uint32_t last = 0;
  for (uint32_t s = 0; s < client->n_segments; s++)
    if (client->modules[s] > last) last = client->modules[s];
  if (plan->first_active > last)
    return fli_error(FL_E_RANGE, "plan.first_active: got %u, want <= %u",
                     plan->first_active, last);
  return fli_bytes_reserve(&client->freeze_plan, plan->freeze_plan_size);
}

static fl_status on_plan(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  fli_plan plan;
  FLI_TRY(fli_parse_plan(&plan, frame->body, frame->size));
  if (!is_current(client, (fli_turn){plan.round, plan.attempt})) return FL_OK;
  end_wait(client);
  FLI_TRY(prepare_freezing(client, &plan));
  FLI_TRY(fli_client_reserve_slices(client, &plan));
  if (plan.norms)
    FLI_TRY(take_scale(client, plan.noise_seed, plan.clip, plan.norms,
                       plan.norms_size));
  else if (plan.scale_mode == FL_SCALE_PUBLIC)
    FLI_TRY(fli_error(FL_E_FORMAT, "plan: public, yet without norms"));
  keep_plan(client, &plan);
  const char *why = objection(client);
  if (why) {
    fli_client_forgo(client, why);
    return FL_OK;
  }
  FLI_TRY(fli_client_enter_cohort(client, &plan));
  fli_client_settle(client, &plan);
  if (fli_client_has_models(client)) return start_plan(client);
  client->phase = FLI_PHASE_MODEL;
  client->demand = FLI_DEMAND_PLAN;
  return fli_client_continue(client);
out:
  return st;
}

static fl_status on_scale(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  fli_scale_msg scale;
  FLI_TRY(fli_parse_scale(&scale, frame->body, frame->size));
  if (client->phase != FLI_PHASE_NORM && client->phase != FLI_PHASE_UPDATE)
    return FL_OK;
  if (scale.round != client->plan.round ||
      scale.attempt != client->plan.attempt ||
      client->plan.scale_mode != FL_SCALE_EXCHANGED)
    return FL_OK;
  FLI_TRY(take_scale(client, scale.noise_seed, scale.clip, scale.norms,
                     scale.norms_size));
  FLI_TRY(fli_client_upload(client));
out:
  return st;
}

static void take_accepted(fl_client *client, uint64_t round)
{
  client->is_unacked = 0;
  client->accepted_round = round;
  fli_client_raise(client, FL_CLIENT_ACCEPTED);
}

static fl_status on_ack(fl_client *client, const fli_frame *frame)
{
  fli_ack ack;
  fl_status st = fli_parse_ack(&ack, frame->body, frame->size);
  if (st != FL_OK) return st;
  int is_counted =
      ack.reason == FL_REJECT_NONE || ack.reason == FL_REJECT_DUPLICATE;
  int is_at_hand =
      client->has_plan && client->plan.round == ack.round &&
      client->plan.attempt == ack.attempt &&
      (client->phase == FLI_PHASE_NORM || client->phase == FLI_PHASE_UPDATE ||
       client->phase == FLI_PHASE_TRAIN);
  if (!is_at_hand) {
    if (is_counted && client->is_unacked &&
        is_turn(client->unacked, ack.round, ack.attempt))
      take_accepted(client, ack.round);
    return FL_OK;
  }
  switch (ack.reason) {
  case FL_REJECT_NONE:
  case FL_REJECT_DUPLICATE:
    client->phase = FLI_PHASE_IDLE;
    client->outgoing.is_active = 0;
    client->due &= ~(uint32_t)(FLI_DUE_NORM | FLI_DUE_UPDATE);
    take_accepted(client, ack.round);
    break;
  case FL_REJECT_FORMAT:
    /* The bytes were not those of the hash. They are made anew: in a storage,
     * the update may have changed. */
    fli_client_forget_encoded(client);
    break;
  case FL_REJECT_STATE:
  case FL_REJECT_LIMIT:
    /* Something got lost or came too early: the retry timer asks where the
     * server is, and its answer makes the client send again. */
    client->outgoing.is_active = 0;
    client->due &= ~(uint32_t)FLI_DUE_UPDATE;
    break;
  default:
    client->is_unacked = 0;
    fli_client_supersede(client, ack.reason, ack.text);
    break;
  }
  return FL_OK;
}

/* ---- evaluation, the end ------------------------------------------------ */

static int is_same_evaluate(const fli_evaluate *a, const fli_evaluate *b)
{
  return a->round == b->round && a->model_version == b->model_version &&
         a->is_probe == b->is_probe && a->cohort == b->cohort &&
         a->attempt == b->attempt &&
         memcmp(a->model_hash, b->model_hash, sizeof a->model_hash) == 0;
}

static void start_evaluate(fl_client *client)
{
  if (client->has_metrics &&
      is_same_evaluate(&client->scored, &client->evaluate)) {
    client->phase = FLI_PHASE_IDLE;
    client->due |= FLI_DUE_METRICS;
    return;
  }
  client->phase = FLI_PHASE_EVALUATE;
  client->is_asked = 0;
}

static fl_status on_evaluate(fl_client *client, const fli_frame *frame)
{
  fli_evaluate evaluate;
  fl_status st = fli_parse_evaluate(&evaluate, frame->body, frame->size);
  if (st != FL_OK) return st;
  /* Probes come before their round. */
  const fli_turn turn = {evaluate.round - (evaluate.is_probe ? 1 : 0),
                         UINT32_MAX};
  if (!is_current(client, turn)) return FL_OK;
  end_wait(client);
  if (client->phase == FLI_PHASE_EVALUATE &&
      is_same_evaluate(&client->evaluate, &evaluate))
    return FL_OK;
  fli_client_supersede(client, FL_REJECT_STALE, NULL);
  client->evaluate = evaluate;
  client->phase = FLI_PHASE_MODEL;
  client->demand = FLI_DEMAND_EVALUATE;
  return fli_client_continue(client);
}

static fl_status on_done(fl_client *client, const fli_frame *frame)
{
  fl_status st = fli_parse_done(&client->done, frame->body, frame->size);
  if (st != FL_OK) return st;
  end_wait(client);
  fli_client_supersede(client, FL_REJECT_STALE, NULL);
  client->phase = FLI_PHASE_MODEL;
  client->demand = FLI_DEMAND_DONE;
  return fli_client_continue(client);
}

static void finish(fl_client *client)
{
  client->phase = FLI_PHASE_DONE;
  client->due = 0;
  client->is_waiting = 0;
  fli_client_forget_trained(client);
  fli_client_drop_feedback(client);
  fli_client_drop_probe(client);
  fli_client_raise(client, FL_CLIENT_DONE);
}

fl_status fli_client_continue(fl_client *client)
{
  uint64_t version = client->plan.model_version;
  const uint8_t *hash = client->plan.model_hash;
  if (client->phase != FLI_PHASE_MODEL) return FL_OK;
  if (client->demand == FLI_DEMAND_EVALUATE) {
    version = client->evaluate.model_version;
    hash = client->evaluate.model_hash;
  } else if (client->demand == FLI_DEMAND_DONE) {
    version = client->done.model_version;
    hash = client->done.model_hash;
  }
  int is_held = fli_client_holds(client, version, hash);
  if (client->demand == FLI_DEMAND_EVALUATE)
    is_held = fli_client_scored(client) != NULL;
  else if (client->demand == FLI_DEMAND_PLAN)
    is_held = fli_client_has_models(client);
  if (!is_held && client->paging && client->demand == FLI_DEMAND_EVALUATE &&
      client->evaluate.is_probe) {
    client->phase = FLI_PHASE_EVALUATE;
    fli_client_refuse(client);
    return FL_OK;
  }
  if (!is_held) {
    fli_client_ask_model(client, version);
    return FL_OK;
  }
  client->due &= ~(uint32_t)FLI_DUE_GET_MODEL;
  switch (client->demand) {
  case FLI_DEMAND_PLAN: return start_plan(client);
  case FLI_DEMAND_EVALUATE: start_evaluate(client); break;
  case FLI_DEMAND_DONE: finish(client); break;
  }
  return FL_OK;
}

/* ---- refusals ----------------------------------------------------------- */

static fl_status on_wait(fl_client *client, const fli_frame *frame)
{
  fli_wait wait;
  fl_status st = fli_parse_wait(&wait, frame->body, frame->size);
  if (st != FL_OK) return st;
  start_wait(client, wait.wait_ms, FL_REJECT_NONE, wait.text);
  return FL_OK;
}

/* 1 when the refusal may be the connection's fault or pass by itself, so that
 * a new HELLO can do better. An id in use may be our own ghost: the server has
 * not noticed yet that an earlier connection of this client is gone. A
 * signature may have been for another challenge, and late. */
static int is_passing(const fl_client *client, uint32_t reason)
{
  switch (reason) {
  case FL_REJECT_LIMIT:
  case FL_REJECT_RATE:
  case FL_REJECT_STATE: return 1;
  case FL_REJECT_FORMAT: return client->has_joined;
  case FL_REJECT_SIGNATURE: return client->signer != NULL;
  case FL_REJECT_ID_IN_USE: return client->has_said_hello || client->has_token;
  default: return 0;
  }
}

static fl_status on_reject(fl_client *client, const fli_frame *frame)
{
  fli_reject reject;
  fl_status st = fli_parse_reject(&reject, frame->body, frame->size);
  if (st != FL_OK) return st;
  const char *text =
      reject.text[0] ? reject.text : fl_reject_text(reject.reason);
  client->is_stream_void = 1;
  client->tries++;
  if (!is_passing(client, reject.reason) ||
      (client->options.max_retries > 0 &&
       client->tries > client->options.max_retries)) {
    fli_client_abort(client, reject.reason, text);
    return FL_OK;
  }
  fli_client_resync(client);
  start_wait(client, client->pause_ns / ns_per_ms, reject.reason, text);
  fli_client_double_pause(client);
  return FL_OK;
}

/* ---- dispatch ----------------------------------------------------------- */

/* Only what is still wanted, and paid for. */
static int may_resend(const fl_client *client)
{
  return client->phase == FLI_PHASE_UPDATE && !client->is_waiting &&
         !client->has_new_wait &&
         (!client->limits || client->limits->allow(client, 0));
}

static fl_status on_transfer(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  if (frame->type == FLI_MSG_MANIFEST) {
    fli_manifest manifest;
    FLI_TRY(fli_parse_manifest(&manifest, frame->body, frame->size));
    FLI_TRY(fli_client_on_manifest(client, &manifest));
  } else if (frame->type == FLI_MSG_STATUS) {
    fli_missing missing;
    FLI_TRY(fli_parse_missing(&missing, frame->body, frame->size));
    if (may_resend(client)) fli_outgoing_resend(&client->outgoing, &missing);
  } else {
    fli_chunk chunk;
    FLI_TRY(fli_parse_chunk(&chunk, frame->body, frame->size));
    FLI_TRY(fli_client_on_chunk(client, &chunk));
  }
out:
  return st;
}

static fl_status dispatch(fl_client *client, const fli_frame *frame)
{
  switch (frame->type) {
  case FLI_MSG_PLAN: return on_plan(client, frame);
  case FLI_MSG_SCALE: return on_scale(client, frame);
  case FLI_MSG_ACK: return on_ack(client, frame);
  case FLI_MSG_EVALUATE: return on_evaluate(client, frame);
  case FLI_MSG_DONE: return on_done(client, frame);
  case FLI_MSG_SLICE: return fli_client_on_slice(client, frame);
  case FLI_MSG_MANIFEST:
  case FLI_MSG_STATUS:
  case FLI_MSG_CHUNK: return on_transfer(client, frame);
  default:
    return fli_error(FL_E_FORMAT, "frame: got type %u, no server's",
                     frame->type);
  }
}

fl_status fli_client_on_frame(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  if (frame->type == FLI_MSG_REJECT) return on_reject(client, frame);
  if (frame->type == FLI_MSG_WELCOME)
    FLI_TRY(on_welcome(client, frame));
  else if (frame->type == FLI_MSG_WAIT)
    FLI_TRY(on_wait(client, frame));
  else if (frame->type == FLI_MSG_CHALLENGE && client->signer)
    return client->signer->on_challenge(client, frame);
  else if (client->is_leaving)
    return FL_OK;
  else if (!client->compressor)
    client->has_missed = 1; /* it overtook WELCOME: asked for again then */
  else
    FLI_TRY(dispatch(client, frame));
  client->tries = 0;
  client->pause_ns = client->options.retry_ns;
out:
  return st;
}
