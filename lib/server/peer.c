/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: its stream parser, its send queue and the one upload and
 * one download that may be under way. A peer that is closing keeps only what
 * is still to be sent (its REJECT), until the host says that the connection is
 * gone: whatever it sends meanwhile is ignored. */
#include "server/server.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/context.h"
#include "base/error.h"
#include "wire/gaps.h"

/* Answers that a peer may let pile up before it counts as not listening. */
enum { FLI_MAX_ANSWERS = 64 * 1024 };
/* An upload without a chunk for so long gives way when others need its room. */
#define FLI_STALLED_NS UINT64_C(30000000000)

fl_status fli_peer_new(fli_peer **out, fl_server *server, uint64_t number)
{
  fli_peer *peer = fli_alloc(server->context, 1, sizeof *peer);
  if (!peer) return fli_nomem(sizeof *peer);
  peer->server = server;
  peer->number = number;
  fli_frame_parser_init(&peer->parser, server->context, FLI_FRAME_MAX_BODY);
  peer->parser.max_control = server->options.max_control_size;
  fli_bytes_init(&peer->queue, server->context);
  fli_incoming_init(&peer->incoming, server->context);
  peer->incoming.note = fli_gaps_note;
  const fl_status st = fli_peer_table_insert(&server->peers, peer);
  if (st != FL_OK) {
    fli_free(server->context, peer, sizeof *peer);
    return st;
  }
  *out = peer;
  return FL_OK;
}

void fli_peer_free(fli_peer *peer)
{
  fl_context *context = peer->server->context;
  fli_peer_close(peer, 0);
  fli_peer_table_remove(&peer->server->peers, peer);
  fli_free(context, peer, sizeof *peer);
}

int fli_peer_is_midway(const fli_peer *peer)
{
  return peer->queue.size == 0 && !peer->is_closing && peer->outgoing.is_active;
}

void fli_peer_touch(fli_peer *peer)
{
  const int is_ready =
      peer->queue.size > 0 ||
      (!peer->is_closing && (peer->outgoing.is_active || peer->due != 0));
  fli_peer_table_set_ready(peer, FLI_READY_ANY, is_ready);
  fli_peer_table_set_ready(peer, FLI_READY_MIDWAY, fli_peer_is_midway(peer));
}

void fli_peer_add_due(fli_peer *peer, uint32_t due)
{
  if (peer->is_closing) return;
  peer->due |= due;
  fli_peer_touch(peer);
}

/* ---- uploads ---- */

static void unlink_upload(fli_peer *peer)
{
  fl_server *server = peer->server;
  if (peer->upload_previous) {
    peer->upload_previous->upload_next = peer->upload_next;
  } else {
    server->upload_first = peer->upload_next;
  }
  if (peer->upload_next) {
    peer->upload_next->upload_previous = peer->upload_previous;
  } else {
    server->upload_last = peer->upload_previous;
  }
  peer->upload_previous = peer->upload_next = NULL;
}

static void link_upload(fli_peer *peer)
{
  fl_server *server = peer->server;
  peer->progress_ns = server->now_ns;
  peer->upload_previous = server->upload_last;
  if (server->upload_last) {
    server->upload_last->upload_next = peer;
  } else {
    server->upload_first = peer;
  }
  server->upload_last = peer;
}

void fli_peer_drop_upload(fli_peer *peer)
{
  fli_incoming_reset(&peer->incoming);
  if (peer->staged == 0) return;
  unlink_upload(peer);
  peer->server->staged -= peer->staged;
  peer->staged = 0;
}

/* One upload always fits, or a cap below its size would stop the job. */
static int has_room(const fl_server *server, uint64_t size)
{
  const uint64_t cap = server->options.staging_cap;
  return server->staged == 0 || (size <= cap && server->staged <= cap - size);
}

fl_status fli_peer_reserve(fli_peer *peer, uint64_t size)
{
  fl_server *server = peer->server;
  fli_peer *oldest = server->upload_first;
  if (!has_room(server, size)) fli_parked_drop_all(server);
  while (!has_room(server, size) && oldest &&
         server->now_ns - oldest->progress_ns >= FLI_STALLED_NS) {
    fli_peer_drop_upload(oldest);
    /* A courtesy: without it the client asks again by HELLO. */
    (void)fli_peer_wait(oldest, FLI_STAGING_WAIT_MS, "upload: stood still");
    oldest = server->upload_first;
  }
  if (!has_room(server, size))
    return fli_error(FL_E_LIMIT, "uploads: at the server's limit");
  peer->staged = size;
  server->staged += size;
  link_upload(peer);
  return FL_OK;
}

void fli_peer_progress(fli_peer *peer, uint64_t n)
{
  /* A trickle of bytes is no progress. */
  if (peer->staged == 0 || n < FLI_CHUNK_MIN) return;
  unlink_upload(peer);
  link_upload(peer);
}

void fli_peer_drop_download(fli_peer *peer)
{
  peer->outgoing.is_active = 0;
  peer->outgoing.data = NULL;
  fli_blob_unref(peer->blob);
  peer->blob = NULL;
  fli_peer_touch(peer);
}

void fli_peer_close(fli_peer *peer, int keep_queue)
{
  peer->is_closing = 1;
  peer->due = 0;
  fli_frame_parser_free(&peer->parser);
  fli_parked_keep(peer);
  fli_peer_drop_upload(peer);
  fli_peer_drop_download(peer);
  fli_identity_free(peer);
  if (!keep_queue) fli_bytes_free(&peer->queue);
  if (peer->participant) {
    fli_registry_detach(peer->participant, 1);
    peer->participant = NULL;
  }
  fli_peer_touch(peer);
}

static void report(fli_peer *peer, uint64_t round, uint32_t reason,
                   const char *text)
{
  const fli_participant *who = peer->participant;
  fl_server_event event = who ? fli_event_of(who->job, FL_SERVER_PEER_REJECTED)
                              : fli_event_blank(FL_SERVER_PEER_REJECTED);
  event.peer = peer->number;
  event.reason = reason;
  event.round = round;
  fli_events_add(&peer->server->events, &event, who ? who->id : "", "%s", text);
  fli_ban_count(peer, reason);
}

fl_status fli_peer_dismiss(fli_peer *peer, uint32_t reason, const char *text)
{
  fli_reject message = {.reason = reason};
  snprintf(message.text, sizeof message.text, "%s", text);
  fli_bytes_clear(&peer->queue);
  const fl_status st = fli_write_reject(&peer->queue, &message);
  fli_peer_close(peer, 1);
  return st;
}

fl_status fli_peer_reject(fli_peer *peer, uint32_t reason, const char *format,
                          ...)
{
  char text[FLI_TEXT_BYTES];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  report(peer, 0, reason, text);
  return fli_peer_dismiss(peer, reason, text);
}

/* A peer that sends without reading the answers must not fill our memory. What
 * else is in the queue was not its doing: one message or chunk, however long.
 */
static int is_overrun(fli_peer *peer)
{
  if (peer->queue.size == 0) peer->answers = 0;
  return peer->answers > FLI_MAX_ANSWERS;
}

static void count_answer(fli_peer *peer, size_t size_before)
{
  peer->answers += peer->queue.size - size_before;
  fli_peer_touch(peer);
}

fl_status fli_peer_ack(fli_peer *peer, uint64_t round, uint32_t attempt,
                       uint32_t reason, const char *format, ...)
{
  fli_ack message = {.round = round, .attempt = attempt, .reason = reason};
  va_list args;
  va_start(args, format);
  vsnprintf(message.text, sizeof message.text, format, args);
  va_end(args);
  if (reason != FL_REJECT_NONE && reason != FL_REJECT_STALE) {
    report(peer, round, reason, message.text);
  }
  if (is_overrun(peer)) {
    return fli_peer_reject(peer, FL_REJECT_LIMIT,
                           "answers: got %zu bytes unread, want <= %d",
                           peer->answers, FLI_MAX_ANSWERS);
  }
  const size_t before = peer->queue.size;
  const fl_status st = fli_write_ack(&peer->queue, &message);
  count_answer(peer, before);
  return st;
}

fl_status fli_peer_wait(fli_peer *peer, uint64_t wait_ms, const char *text)
{
  fli_wait message = {.wait_ms = wait_ms};
  if (is_overrun(peer)) return FL_OK;
  snprintf(message.text, sizeof message.text, "%s", text);
  const size_t before = peer->queue.size;
  const fl_status st = fli_write_wait(&peer->queue, &message);
  count_answer(peer, before);
  return st;
}

fl_status fli_peer_status(fli_peer *peer)
{
  if (!peer->incoming.is_status_due || is_overrun(peer)) return FL_OK;
  const size_t before = peer->queue.size;
  const fl_status st = fli_gaps_write_status(&peer->incoming, &peer->queue);
  count_answer(peer, before);
  return st;
}
