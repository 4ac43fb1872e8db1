/* SPDX-License-Identifier: Apache-2.0 */
/* Bans and allowances. A ban is of an id, and of the key that the id belongs
 * to; both are kept as hashes, at most max_bans of them: where there is no
 * room, the server's own ones replace the one that ends first, the host's are
 * refused.
 *
 * An allowance of n things in an interval is one number, the time at which it
 * is whole again: each thing moves it on by interval / n, and one that would
 * move it beyond an interval from now is one too many. Time that has passed
 * says nothing, so what is idle needs no memory and no timer. */
#include "server/server.h"

#include <string.h>

#include "base/error.h"
#include "server/cohorts.h"

/* ---- bans ---- */

static uint64_t left_of(const fl_server *server, const fli_mark *mark)
{
  if (!mark) return 0;
  if (mark->until_ns == UINT64_MAX) return UINT64_MAX;
  return mark->until_ns > server->now_ns ? mark->until_ns - server->now_ns : 0;
}

uint64_t fli_ban_left(const fl_server *server,
                      const uint8_t name[FLI_NAME_BYTES])
{
  return left_of(server, fli_marks_find(&server->trust.banned, name));
}

/* The one that ends first; of those, the one with the least name. */
static fli_mark *first_to_end(const fli_marks *marks)
{
  fli_mark *first = NULL;
  for (size_t i = 0; i < marks->capacity; i++) {
    fli_mark *mark = &marks->slots[i];
    if (!mark->is_there) continue;
    if (!first || mark->until_ns < first->until_ns ||
        (mark->until_ns == first->until_ns &&
         memcmp(mark->name, first->name, FLI_NAME_BYTES) < 0))
      first = mark;
  }
  return first;
}

static void name_of_id(uint8_t name[FLI_NAME_BYTES], const fl_server *server,
                       const char *id)
{
  fli_name_of(name, server, FLI_NAME_OF_ID, id, strlen(id));
}

/* What is banned with an id: subject 0 is the id, i + 1 the key that it has in
 * job i. 0 = there is none. */
static int subject_of(uint8_t name[FLI_NAME_BYTES], const fl_server *server,
                      const char *id, size_t i)
{
  if (i == 0) {
    name_of_id(name, server, id);
    return 1;
  }
  const uint8_t *key = fli_registry_key(server->jobs[i - 1], id);
  if (key) memcpy(name, key, FLI_NAME_BYTES);
  return key != NULL;
}

static fl_status make_room(fl_server *server, const char *id, int may_replace)
{
  fli_marks *banned = &server->trust.banned;
  uint8_t name[FLI_NAME_BYTES];
  uint32_t n = 0;
  for (size_t i = 0; i <= server->n_jobs; i++) {
    n += subject_of(name, server, id, i) && !fli_marks_find(banned, name);
  }
  while (n > 0 && banned->count + n > server->options.max_bans) {
    fli_mark *first = first_to_end(banned);
    if (!first || (left_of(server, first) > 0 && !may_replace))
      return fli_error(FL_E_LIMIT, "bans: got more than %u, want no more",
                       server->options.max_bans);
    fli_marks_remove(banned, first);
  }
  return fli_marks_reserve(banned, n) ? FL_OK : fli_nomem(n * sizeof(fli_mark));
}

static fl_status ban_id(fl_server *server, const char *id, uint64_t duration_ns,
                        int may_replace)
{
  uint8_t name[FLI_NAME_BYTES];
  const fl_status st = make_room(server, id, may_replace);
  if (st != FL_OK) return st;
  for (size_t i = 0; i <= server->n_jobs; i++) {
    if (!subject_of(name, server, id, i)) continue;
    fli_mark *mark = fli_marks_add(&server->trust.banned, name);
    if (!mark) continue;
    mark->until_ns = fli_later(server->now_ns, duration_ns);
    name_of_id(mark->owner, server, id);
    mark->has_owner = 1;
  }
  fl_server_event event = fli_event_blank(FL_SERVER_CLIENT_BANNED);
  event.reason = FL_REJECT_BANNED;
  if (duration_ns == UINT64_MAX) {
    fli_events_add(&server->events, &event, id, "banned");
  } else {
    fli_events_add(&server->events, &event, id, "banned for %llu s",
                   (unsigned long long)(duration_ns / 1000000000));
  }
  fli_journal_step(server);
  return FL_OK;
}

void fli_ban_turn_away(fli_participant *who, uint32_t reason, const char *text)
{
  fli_member *member = fli_member_of(who);
  /* Without memory for the REJECT the session is closed all the same. */
  if (who->peer) (void)fli_peer_reject(who->peer, reason, "%s", text);
  fli_registry_end_grace(who);
  if (member) fli_member_lose(who->job, member, reason, 1);
  fli_visits_lose(who);
}

static void end_sessions(fl_server *server, const char *id)
{
  for (size_t i = 0; i < server->n_jobs; i++) {
    fli_participant *who = fli_registry_find(server->jobs[i], id);
    if (!who) continue;
    fli_ban_turn_away(who, FL_REJECT_BANNED, "banned");
    fli_job_advance(server->jobs[i]);
  }
}

void fli_ban_enforce(fl_server *server)
{
  char id[FLI_ID_BYTES];
  if (!server->trust.due_id[0]) return;
  memcpy(id, server->trust.due_id, sizeof id);
  server->trust.due_id[0] = '\0';
  end_sessions(server, id);
}

void fli_ban_rebase(fl_server *server, uint64_t delta_ns)
{
  const fli_marks *banned = &server->trust.banned;
  for (size_t i = 0; i < banned->capacity; i++) {
    fli_mark *mark = &banned->slots[i];
    if (mark->is_there) mark->until_ns = fli_later(mark->until_ns, delta_ns);
  }
}

fl_status fl_server_ban(fl_server *server, const char *client_id,
                        uint64_t duration_ns)
{
  fli_clear_error();
  if (!server || duration_ns == 0)
    return fli_error(FL_E_ARGUMENT, "fl_server_ban: NULL, or for no time");
  fl_status st = fli_enrol_check_id(client_id);
  if (st == FL_OK) st = ban_id(server, client_id, duration_ns, 0);
  if (st == FL_OK) end_sessions(server, client_id);
  return st;
}

/* Remove one entry that was banned under this id, which its keys are, too,
 * whether it still has them or not; 0: there is none. */
static int lift(fli_marks *banned, const uint8_t owner[FLI_NAME_BYTES])
{
  for (size_t i = 0; i < banned->capacity; i++) {
    fli_mark *mark = &banned->slots[i];
    if (!mark->is_there || !mark->has_owner ||
        memcmp(mark->owner, owner, FLI_NAME_BYTES) != 0)
      continue;
    fli_marks_remove(banned, mark);
    return 1;
  }
  return 0;
}

/* States from before owners were kept with bans have none: what the id has now
 * is lifted with it. */
static void lift_old(fl_server *server, const char *id)
{
  uint8_t name[FLI_NAME_BYTES];
  for (size_t i = 0; i <= server->n_jobs; i++) {
    if (!subject_of(name, server, id, i)) continue;
    fli_mark *mark = fli_marks_find(&server->trust.banned, name);
    if (mark && !mark->has_owner) fli_marks_remove(&server->trust.banned, mark);
  }
}

fl_status fl_server_unban(fl_server *server, const char *client_id)
{
  uint8_t name[FLI_NAME_BYTES];
  fli_clear_error();
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  const fl_status st = fli_enrol_check_id(client_id);
  if (st != FL_OK) return st;
  name_of_id(name, server, client_id);
  if (fli_ban_left(server, name) == 0)
    return fli_error(FL_E_NOT_FOUND, "client id: is not banned");
  while (lift(&server->trust.banned, name)) {
  }
  lift_old(server, client_id);
  fli_journal_step(server);
  return FL_OK;
}

uint64_t fl_server_ban_left(const fl_server *server, const char *client_id)
{
  uint8_t name[FLI_NAME_BYTES];
  fli_clear_error();
  if (!server || fli_enrol_check_id(client_id) != FL_OK) {
    fli_clear_error();
    return 0;
  }
  name_of_id(name, server, client_id);
  return fli_ban_left(server, name);
}

/* ---- allowances ---- */

/* Take one of `most`; 0 when there is none left. */
static int take_one(const fl_server *server, uint64_t *whole_ns, uint32_t most)
{
  const uint64_t interval = server->options.rate_interval_ns;
  const uint64_t cost = interval / most > 0 ? interval / most : 1;
  const uint64_t now = server->now_ns;
  const uint64_t at = *whole_ns > now ? *whole_ns : now;
  if (at - now > interval - cost) return 0;
  *whole_ns = fli_later(at, cost);
  return 1;
}

/* A client takes its allowance along when it comes by a new connection. */
static uint64_t *messages_of(fli_peer *peer)
{
  fli_standing *standing =
      peer->participant ? fli_standing_of(peer->participant) : NULL;
  if (!standing) return &peer->messages_ns;
  if (peer->messages_ns > standing->messages_ns)
    standing->messages_ns = peer->messages_ns;
  peer->messages_ns = 0;
  return &standing->messages_ns;
}

int fli_ban_meters(fli_peer *peer, const fli_frame *frame)
{
  const uint32_t most = peer->server->options.max_messages;
  if (most == 0) return 0;
  if (frame->type == FLI_MSG_CHUNK && peer->incoming.is_active) return 0;
  return !take_one(peer->server, messages_of(peer), most);
}

/* What only a broken client or a hostile one does. */
static int is_bad(uint32_t reason)
{
  switch (reason) {
  case FL_REJECT_FORMAT:
  case FL_REJECT_TOO_LARGE:
  case FL_REJECT_RANGE:
  case FL_REJECT_STATE:
  case FL_REJECT_SIGNATURE:
  case FL_REJECT_KEY:
  case FL_REJECT_REPLAY:
  case FL_REJECT_RATE: return 1;
  default: return 0;
  }
}

void fli_ban_count(fli_peer *peer, uint32_t reason)
{
  fl_server *server = peer->server;
  fli_participant *who = peer->participant;
  if (server->options.max_rejects == 0 || !who || !is_bad(reason)) return;
  fli_standing *standing = fli_standing_of(who);
  if (!standing ||
      take_one(server, &standing->rejects_ns, server->options.max_rejects))
    return;
  /* Without memory it is banned for the next bad message. */
  if (ban_id(server, who->id, server->options.ban_ns, 1) == FL_OK)
    memcpy(server->trust.due_id, who->id, sizeof server->trust.due_id);
}
