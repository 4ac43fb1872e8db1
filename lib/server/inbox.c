/* SPDX-License-Identifier: Apache-2.0 */
/* What peers say. A body that does not parse closes the session; a message
 * that parses but does not fit is answered where it is understood
 * (collect.c, evaluate.c). Only lack of memory is an error of the call. */
#include "server/buffered.h"
#include "server/server.h"

#include <string.h>

#include "base/error.h"
#include "server/cohorts.h"
#include "server/slices.h"

/* ---- HELLO ---- */

static fli_job *find_job(const fl_server *server, const char *name)
{
  for (size_t i = 0; i < server->n_jobs; i++) {
    if (name[0] == '\0' || strcmp(server->jobs[i]->name, name) == 0) {
      return server->jobs[i];
    }
  }
  return NULL;
}

static void hex_prefix(char out[17], const uint8_t *bytes)
{
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < 8; i++) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  out[16] = '\0';
}

/* What about a HELLO can be refused before its sender is looked up. */
static fl_status check_hello(fli_peer *peer, const fli_hello *hello,
                             fli_job **job)
{
  char got[17], want[17];
  fli_job *found = find_job(peer->server, hello->job);
  if (hello->version_min > FLI_PROTOCOL_MAX ||
      hello->version_max < FLI_PROTOCOL_MIN) {
    return fli_peer_reject(peer, FL_REJECT_VERSION,
                           "protocol version: got %u..%u, want %d..%d",
                           hello->version_min, hello->version_max,
                           FLI_PROTOCOL_MIN, FLI_PROTOCOL_MAX);
  }
  if (!found) {
    return fli_peer_reject(peer, FL_REJECT_UNKNOWN_JOB,
                           "job: got \"%s\", want one of %zu known", hello->job,
                           peer->server->n_jobs);
  }
  if (hello->has_schema &&
      memcmp(hello->schema, found->schema, FLI_HASH_BYTES) != 0) {
    hex_prefix(got, hello->schema);
    hex_prefix(want, found->schema);
    return fli_peer_reject(peer, FL_REJECT_SCHEMA,
                           "model schema: got %s..., want %s...", got, want);
  }
  if (hello->samples > found->options.max_samples) {
    return fli_peer_reject(peer, FL_REJECT_RANGE,
                           "samples: got %llu, want <= %llu",
                           (unsigned long long)hello->samples,
                           (unsigned long long)found->options.max_samples);
  }
  if (found->cohorts && !(hello->capabilities & FLI_CAP_COHORTS)) {
    return fli_peer_reject(peer, FL_REJECT_VERSION,
                           "hello: got a client that knows no cohorts");
  }
  *job = found;
  return FL_OK;
}

/* Find or make the participant; *who stays NULL when it was refused. */
static fl_status identify(fli_peer *peer, fli_job *job, const fli_hello *hello,
                          fli_participant **who, uint32_t *event_kind)
{
  const fl_server *server = peer->server;
  fli_participant *known = NULL;
  const fl_status found = fli_registry_call(job, hello->client_id, &known);
  if (found != FL_OK) return found;
  *event_kind = FL_SERVER_CLIENT_RETURNED;
  if (!known && server->n_participants >= server->options.max_clients) {
    return fli_peer_reject(peer, FL_REJECT_LIMIT,
                           "clients: got more than %u, want no more",
                           server->options.max_clients);
  }
  if (!known) {
    *event_kind = FL_SERVER_CLIENT_JOINED;
    fl_status st = fli_registry_add(job, hello->client_id, who);
    if (st != FL_OK) return st;
    st = fli_cohorts_join(*who);
    if (st != FL_OK) {
      fli_registry_remove(*who);
      *who = NULL;
    }
    return st;
  }
  if (known->peer && known->peer != peer) {
    if (!fli_identity_is_owner(peer, known) &&
        (!hello->has_token ||
         !fli_equal_secret(hello->token, known->token, FLI_TOKEN_BYTES))) {
      return fli_peer_reject(
          peer, FL_REJECT_ID_IN_USE,
          "client id: got \"%s\", want one that no other peer uses",
          hello->client_id);
    }
    fli_peer_close(known->peer, 0);
  }
  *who = known;
  return FL_OK;
}

static void announce(const fli_peer *peer, uint32_t kind)
{
  const fli_participant *who = peer->participant;
  fl_server_event event = fli_event_of(who->job, kind);
  event.peer = peer->number;
  event.samples = who->samples;
  fli_events_add(&peer->server->events, &event, who->id, "%s",
                 kind == FL_SERVER_CLIENT_JOINED ? "joined" : "returned");
}

static void take_hello(fli_participant *who, const fli_hello *hello)
{
  who->samples = hello->samples;
  who->capabilities = fli_backoff_capabilities(who->home, hello);
  who->depth = hello->depth;
  who->has_model = hello->has_model &&
                   fli_store_knows(&who->job->store, hello->model_version,
                                   hello->model_hash);
  who->model_version = hello->model_version;
}

/* HELLO begins the conversation anew: what was under way on this connection
 * is dropped, and everything that still matters is said again. */
static fl_status start_over(fli_peer *peer, fli_participant *who,
                            const fli_hello *hello)
{
  fli_member *member = fli_member_of(who);
  peer->version = hello->version_max < FLI_PROTOCOL_MAX ? hello->version_max
                                                        : FLI_PROTOCOL_MAX;
  peer->due = 0;
  fli_bytes_clear(&peer->queue);
  peer->answers = 0;
  fli_parked_keep(peer);
  fli_peer_drop_upload(peer);
  fli_peer_drop_download(peer);
  peer->incoming.knows_status = (hello->capabilities & FLI_CAP_STATUS) != 0;
  fli_registry_detach(who, 0);
  fli_forget_cancel(who);
  fli_identity_bind(peer, who);
  take_hello(who, hello);
  fli_registry_attach(who, peer);
  if (member) fli_member_revive(who->job, member);
  const fl_status st = fli_outbox_welcome(peer, !hello->has_schema);
  return st != FL_OK ? st : fli_job_resync(who->job, peer);
}

static fl_status on_hello(fli_peer *peer, const fli_frame *frame)
{
  fli_hello hello;
  fli_job *job = NULL;
  fli_participant *who = NULL;
  fl_status st = fli_parse_hello(&hello, frame->body, frame->size);
  uint32_t kind = 0;
  if (st != FL_OK) return st;
  st = check_hello(peer, &hello, &job);
  if (st != FL_OK || !job) return st;
  if (peer->participant && (peer->participant->home != job ||
                            strcmp(peer->participant->id, hello.client_id))) {
    return fli_peer_ack(peer, 0, 0, FL_REJECT_STATE,
                        "hello: got client \"%s\", want \"%s\"",
                        hello.client_id, peer->participant->id);
  }
  const int is_repeat = peer->participant != NULL;
  int is_welcome = 0;
  st = fli_identity_check(peer, job, &hello, &is_welcome);
  if (st != FL_OK || !is_welcome) return st;
  st = identify(peer, job, &hello, &who, &kind);
  if (st != FL_OK || !who) return st;
  st = start_over(peer, who, &hello);
  if (st == FL_OK && !is_repeat) announce(peer, kind);
  return st;
}

/* ---- the others ---- */

/* A full copy, and what it is for. */
static fl_status send_model(fli_peer *peer)
{
  if (fli_visits_are_asking(peer)) return FL_OK;
  fli_peer_drop_download(peer);
  peer->participant->has_model = 0;
  peer->participant->probe_cohort = FL_COHORT_NONE;
  if (fli_visits_resync(peer)) return FL_OK;
  fli_peer_add_due(peer, FLI_DUE_MODEL);
  return fli_job_resync(peer->participant->job, peer);
}

static fl_status on_norm(fli_peer *peer, const fli_frame *frame)
{
  fli_norm norm;
  const fl_status st = fli_parse_norm(&norm, frame->body, frame->size);
  return st != FL_OK ? st : fli_collect_norm(peer, &norm);
}

static fl_status on_manifest(fli_peer *peer, const fli_frame *frame)
{
  fli_manifest manifest;
  const fl_status st = fli_parse_manifest(&manifest, frame->body, frame->size);
  return st != FL_OK ? st : fli_collect_manifest(peer, &manifest);
}

static fl_status on_chunk(fli_peer *peer, const fli_frame *frame)
{
  fli_chunk chunk;
  int is_complete = 0;
  const fli_manifest manifest = peer->incoming.manifest;
  fl_status st = fli_parse_chunk(&chunk, frame->body, frame->size);
  if (st != FL_OK) return st;
  const uint64_t held = peer->incoming.held;
  st = fli_incoming_chunk(&peer->incoming, &chunk, &is_complete);
  if (st == FL_E_EMPTY) return FL_OK; /* of an upload that was refused */
  if (st == FL_E_FORMAT) {
    st = fli_peer_ack(peer, manifest.round, manifest.attempt, FL_REJECT_FORMAT,
                      "%s", fl_last_error());
    fli_peer_drop_upload(peer);
    return st;
  }
  if (st != FL_OK) return st;
  fli_peer_progress(peer, peer->incoming.held - held);
  if (!is_complete) return fli_peer_status(peer);
  st = fli_collect_update(peer);
  if (!peer->is_closing) fli_peer_drop_upload(peer);
  return st;
}

/* What of a download has not arrived. One that is over is not held any more:
 * the model is announced again, and what is missing of it asked again. */
static fl_status on_status(fli_peer *peer, const fli_frame *frame)
{
  fli_missing missing;
  const fl_status st = fli_parse_missing(&missing, frame->body, frame->size);
  if (st != FL_OK) return st;
  if (!peer->outgoing.data) return send_model(peer);
  fli_outgoing_resend(&peer->outgoing, &missing);
  fli_peer_touch(peer);
  return FL_OK;
}

static fl_status on_metrics(fli_peer *peer, const fli_frame *frame)
{
  fli_metrics metrics;
  const fl_status st = fli_parse_metrics(&metrics, frame->body, frame->size);
  return st != FL_OK ? st : fli_evaluate_on_metrics(peer, &metrics);
}

/* What is declined is what is asked of it now; an evaluation has no attempts.
 */
static int is_asked(const fli_job *job, const fli_member *member,
                    const fli_decline *decline)
{
  if (!member) return 0;
  if (job->phase == FLI_PHASE_EVALUATING) return decline->round == job->round;
  return fli_collect_is_turn(job, member, decline->round, decline->attempt);
}

static fl_status on_decline(fli_peer *peer, const fli_frame *frame)
{
  fli_decline decline;
  fli_job *job = peer->participant->job;
  fli_member *member = fli_member_of(peer->participant);
  const fl_status st = fli_parse_decline(&decline, frame->body, frame->size);
  if (st != FL_OK) return st;
  if (fli_visits_on_decline(peer, &decline)) return FL_OK;
  if (job->phase == FLI_PHASE_WAITING) fli_buffered_drop(peer->participant);
  if (!is_asked(job, member, &decline)) {
    return fli_peer_ack(peer, decline.round, decline.attempt, FL_REJECT_STALE,
                        "%s", fl_reject_text(FL_REJECT_STALE));
  }
  fli_peer_drop_upload(peer);
  fli_member_lose(job, member, FL_REJECT_DECLINED, 1);
  return fli_backoff_tell(peer);
}

static fl_status on_get_model(fli_peer *peer, const fli_frame *frame)
{
  fli_get_model message;
  const fl_status st = fli_parse_get_model(&message, frame->body, frame->size);
  return st != FL_OK ? st : send_model(peer);
}

static fl_status on_get_slice(fli_peer *peer, const fli_frame *frame)
{
  fli_get_slice message;
  const fl_status st = fli_parse_get_slice(&message, frame->body, frame->size);
  return st != FL_OK ? st : fli_slices_answer(peer, &message);
}

/* The client leaves for good: nobody waits for it. */
static fl_status on_bye(fli_peer *peer, const fli_frame *frame)
{
  fli_decline decline;
  fli_participant *who = peer->participant;
  fli_member *member = fli_member_of(who);
  const fl_status st = fli_parse_decline(&decline, frame->body, frame->size);
  if (st != FL_OK) return st;
  if (decline.forgets) {
    fli_forget_ask(who);
    return FL_OK;
  }
  fli_peer_close(peer, 0);
  fli_registry_end_grace(who);
  if (member) fli_member_lose(who->job, member, FL_REJECT_VANISHED, 0);
  fli_visits_lose(who);
  return FL_OK;
}

static const struct {
  uint8_t type;
  fl_status (*handle)(fli_peer *peer, const fli_frame *frame);
} handlers[] = {
    {FLI_MSG_HELLO, on_hello},         {FLI_MSG_NORM, on_norm},
    {FLI_MSG_METRICS, on_metrics},     {FLI_MSG_DECLINE, on_decline},
    {FLI_MSG_GET_MODEL, on_get_model}, {FLI_MSG_BYE, on_bye},
    {FLI_MSG_MANIFEST, on_manifest},   {FLI_MSG_CHUNK, on_chunk},
    {FLI_MSG_GET_SLICE, on_get_slice}, {FLI_MSG_STATUS, on_status},
};

static fl_status dispatch(fli_peer *peer, const fli_frame *frame)
{
  if (fli_ban_meters(peer, frame)) {
    return fli_peer_reject(peer, FL_REJECT_RATE, "%s",
                           fl_reject_text(FL_REJECT_RATE));
  }
  for (size_t i = 0; i < FLI_COUNT_OF(handlers); i++) {
    if (handlers[i].type != frame->type) continue;
    if (!peer->participant && frame->type != FLI_MSG_HELLO) {
      return fli_peer_reject(peer, FL_REJECT_STATE,
                             "first message: got type %u, want HELLO (%d)",
                             frame->type, FLI_MSG_HELLO);
    }
    return handlers[i].handle(peer, frame);
  }
  return fli_peer_reject(peer, FL_REJECT_FORMAT,
                         "message type: got %u, want one for a server",
                         frame->type);
}

/* Why bytes that could not be read were refused. */
static uint32_t reason_of(fl_status status)
{
  switch (status) {
  case FL_E_VERSION: return FL_REJECT_VERSION;
  case FL_E_TOO_LARGE: return FL_REJECT_TOO_LARGE;
  default: return FL_REJECT_FORMAT;
  }
}

fl_status fli_inbox_refuse(fli_peer *peer, fl_status status)
{
  if (status == FL_E_NOMEM) {
    fli_peer_close(peer, 0);
    return status;
  }
  return fli_peer_reject(peer, reason_of(status), "%s", fl_last_error());
}

fl_status fli_inbox_handle(fli_peer *peer, const fli_frame *frame)
{
  const fl_status st = dispatch(peer, frame);
  return st == FL_OK ? FL_OK : fli_inbox_refuse(peer, st);
}
