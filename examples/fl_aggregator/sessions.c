/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions outlive connections: HTTP clients and proxies open and close these
 * as they like. A peer number names the slot (peer modulo capacity) and
 * never comes twice, so an answer of the library for an old peer cannot reach
 * a new one. Bytes are booked on the client of the session whose request was
 * the connection's last.
 */
#include "fl_aggregator/sessions.h"

#include <stdlib.h>
#include <string.h>

int sessions_init(struct sessions *sessions, size_t capacity,
                  struct ledger *ledger)
{
  memset(sessions, 0, sizeof *sessions);
  sessions->slots = calloc(capacity, sizeof *sessions->slots);
  if (!sessions->slots) return -1;
  sessions->n = capacity;
  sessions->ledger = ledger;
  sessions->names.stride = sizeof *sessions->slots;
  return 0;
}

void sessions_free(struct sessions *sessions)
{
  free(sessions->slots);
  names_free(&sessions->names);
  memset(sessions, 0, sizeof *sessions);
}

struct session *sessions_find(struct sessions *sessions, const char *id)
{
  const uint32_t found = names_find(&sessions->names, sessions->slots, id);
  return found == names_none ? NULL : &sessions->slots[found];
}

struct session *sessions_find_peer(struct sessions *sessions, uint64_t peer)
{
  struct session *session = &sessions->slots[peer % sessions->n];
  return session->id[0] && session->peer == peer ? session : NULL;
}

struct session *sessions_make(struct sessions *sessions, const char *id)
{
  struct session *session = sessions->free;
  if (!session && sessions->used == sessions->n) return NULL;
  if (!session) session = &sessions->slots[sessions->used];
  struct session *next_free = session->next;
  const size_t i = (size_t)(session - sessions->slots);
  memset(session, 0, sizeof *session);
  strncpy(session->id, id, SESSION_ID_MAX);
  if (names_add(&sessions->names, sessions->slots, (uint32_t)i) != 0) {
    memset(session, 0, sizeof *session);
    session->next = next_free;
    return NULL;
  }
  if (sessions->free == session) sessions->free = next_free;
  if (i >= sessions->used) sessions->used = i + 1;
  session->peer = ++sessions->serial * sessions->n + i;
  session->account = LEDGER_NOBODY;
  sessions->live++;
  return session;
}

static void append_gone(struct sessions *sessions, struct session *session,
                        uint64_t now_ns)
{
  session->gone_since_ns = now_ns;
  session->next = NULL;
  session->previous = sessions->gone_last;
  if (sessions->gone_last)
    sessions->gone_last->next = session;
  else
    sessions->gone_first = session;
  sessions->gone_last = session;
}

static void remove_gone(struct sessions *sessions, struct session *session)
{
  if (session->gone_since_ns == 0) return;
  if (session->previous)
    session->previous->next = session->next;
  else
    sessions->gone_first = session->next;
  if (session->next)
    session->next->previous = session->previous;
  else
    sessions->gone_last = session->previous;
  session->next = session->previous = NULL;
  session->gone_since_ns = 0;
}

/* Only one without connections is dropped: no link points to it. */
void sessions_drop(struct sessions *sessions, struct session *session)
{
  remove_gone(sessions, session);
  names_remove(&sessions->names, sessions->slots,
               (uint32_t)(session - sessions->slots));
  memset(session, 0, sizeof *session);
  session->next = sessions->free;
  sessions->free = session;
  sessions->live--;
}

int sessions_is_over(const fl_server *server, const struct session *session)
{
  return fl_server_wants_close(server, session->peer) &&
         !fl_server_has_unsent(server, session->peer);
}

void sessions_identify(struct sessions *sessions, uint64_t peer,
                       const char *client_id)
{
  struct session *session = sessions_find_peer(sessions, peer);
  if (!session || session->account != LEDGER_NOBODY) return;
  session->account = ledger_find(sessions->ledger, client_id);
  ledger_assign(sessions->ledger, session->account, session->pending_up,
                session->pending_down);
}

struct link *link_open(struct sessions *sessions, int fd, uint64_t now_ns)
{
  struct link *link = calloc(1, sizeof *link);
  if (!link) return NULL;
  link->fd = fd;
  link->idle_since_ns = now_ns;
  link->next = sessions->links;
  if (link->next) link->next->previous = link;
  sessions->links = link;
  return link;
}

static void leave_session(struct sessions *sessions, struct link *link,
                          uint64_t now_ns)
{
  struct session *session = link->session;
  link->session = NULL;
  if (session && --session->links == 0) append_gone(sessions, session, now_ns);
}

void link_close(struct sessions *sessions, struct link *link, uint64_t now_ns)
{
  link_sample(sessions, link);
  leave_session(sessions, link, now_ns);
  if (link->previous)
    link->previous->next = link->next;
  else
    sessions->links = link->next;
  if (link->next) link->next->previous = link->previous;
  free(link);
}

void link_use(struct sessions *sessions, struct link *link,
              struct session *session, uint64_t now_ns)
{
  if (link->session != session) {
    if (link->session) link_sample(sessions, link);
    leave_session(sessions, link, now_ns);
    link->session = session;
    session->links++;
    remove_gone(sessions, session);
  }
  link_sample(sessions, link);
}

void link_sample(struct sessions *sessions, struct link *link)
{
  uint64_t received;
  uint64_t sent;
  if (tcp_bytes(link->fd, &received, &sent) != 0) return;
  /* A repetition that the kernel counted but could not send, or a reset
   * taken for a FIN, makes a figure smaller. */
  uint64_t up = received > link->received ? received - link->received : 0;
  uint64_t down = sent > link->sent ? sent - link->sent : 0;
  link->received += up;
  link->sent += down;
  struct session *session = link->session;
  if (session && session->account == LEDGER_NOBODY) {
    session->pending_up += up;
    session->pending_down += down;
  }
  ledger_add(sessions->ledger, session ? session->account : LEDGER_NOBODY, up,
             down);
}

void sessions_sample_all(struct sessions *sessions)
{
  for (struct link *link = sessions->links; link; link = link->next)
    if (link->session) link_sample(sessions, link);
}
