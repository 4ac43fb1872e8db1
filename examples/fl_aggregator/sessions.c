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
  return 0;
}

void sessions_free(struct sessions *sessions)
{
  free(sessions->slots);
  memset(sessions, 0, sizeof *sessions);
}

struct session *sessions_find(struct sessions *sessions, const char *id)
{
  for (size_t i = 0; i < sessions->used; i++)
    if (strcmp(sessions->slots[i].id, id) == 0) return &sessions->slots[i];
  return NULL;
}

struct session *sessions_find_peer(struct sessions *sessions, uint64_t peer)
{
  struct session *session = &sessions->slots[peer % sessions->n];
  return session->id[0] && session->peer == peer ? session : NULL;
}

struct session *sessions_make(struct sessions *sessions, const char *id)
{
  for (size_t i = 0; i < sessions->n; i++) {
    struct session *session = &sessions->slots[i];
    if (session->id[0]) continue;
    memset(session, 0, sizeof *session);
    strncpy(session->id, id, SESSION_ID_MAX);
    session->peer = ++sessions->serial * sessions->n + i;
    session->account = LEDGER_NOBODY;
    sessions->live++;
    if (i >= sessions->used) sessions->used = i + 1;
    return session;
  }
  return NULL;
}

void sessions_drop(struct sessions *sessions, struct session *session)
{
  for (struct link *link = sessions->links; link; link = link->next)
    if (link->session == session) link->session = NULL;
  memset(session, 0, sizeof *session);
  sessions->live--;
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

struct link *link_open(struct sessions *sessions, int fd)
{
  struct link *link = calloc(1, sizeof *link);
  if (!link) return NULL;
  link->fd = fd;
  link->next = sessions->links;
  if (link->next) link->next->previous = link;
  sessions->links = link;
  return link;
}

static void leave_session(struct link *link, uint64_t now_ns)
{
  struct session *session = link->session;
  link->session = NULL;
  if (session && --session->links == 0) session->gone_since_ns = now_ns;
}

void link_close(struct sessions *sessions, struct link *link, uint64_t now_ns)
{
  link_sample(sessions, link);
  leave_session(link, now_ns);
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
    leave_session(link, now_ns);
    link->session = session;
    session->links++;
    session->gone_since_ns = 0;
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
