/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions (what the library calls peers) and the TCP connections that carry
 * them. */
#ifndef FL_AGGREGATOR_SESSIONS_H
#define FL_AGGREGATOR_SESSIONS_H

#include <stddef.h>
#include <stdint.h>

#include <fl/server.h>

#include "fl_aggregator/ledger.h"

enum { SESSION_ID_MIN = 16, SESSION_ID_MAX = 64 };

struct request;

struct session {
  char id[SESSION_ID_MAX + 1]; /* "" = the slot is free */
  uint64_t peer;
  size_t links;             /* connections that carried its last requests */
  uint64_t gone_since_ns;   /* without a connection since; 0 = has one */
  struct request *waiting;  /* held until there is something to say */
  struct request *answered; /* whose answer is being sent, of several parts */
  int account;              /* in the ledger */
  uint64_t pending_up;      /* bytes from before the client was known */
  uint64_t pending_down;
  int is_closed;        /* the library is done with the peer */
  struct session *next; /* of the free ones, or of those that are gone */
  struct session *previous;
};

/* One TCP connection. */
struct link {
  int fd;
  struct session *session; /* of its last request; may be NULL */
  struct request *request; /* that has begun; may be NULL */
  uint64_t idle_since_ns;  /* without a request since */
  uint64_t received;       /* booked so far */
  uint64_t sent;
  struct link *next;
  struct link *previous;
};

struct sessions {
  struct session *slots;
  size_t n;    /* slots */
  size_t used; /* slots from here on were never used */
  size_t live;
  struct names names;
  struct session *free;       /* used before */
  struct session *gone_first; /* without a connection, the longest first */
  struct session *gone_last;
  uint64_t serial; /* of the last session made */
  struct link *links;
  struct ledger *ledger;
};

int sessions_init(struct sessions *sessions, size_t capacity,
                  struct ledger *ledger);
void sessions_free(struct sessions *sessions);

/* NULL when there is none. */
struct session *sessions_find(struct sessions *sessions, const char *id);
struct session *sessions_find_peer(struct sessions *sessions, uint64_t peer);
/* NULL when all slots are taken. */
struct session *sessions_make(struct sessions *sessions, const char *id);
void sessions_drop(struct sessions *sessions, struct session *session);
/* 1 when the server wants it closed and has said why. */
int sessions_is_over(const fl_server *server, const struct session *session);
/* The client behind a peer is known now: book what it cost so far. */
void sessions_identify(struct sessions *sessions, uint64_t peer,
                       const char *client_id);

struct link *link_open(struct sessions *sessions, int fd, uint64_t now_ns);
void link_close(struct sessions *sessions, struct link *link, uint64_t now_ns);
/* The connection carries this session from now on. */
void link_use(struct sessions *sessions, struct link *link,
              struct session *session, uint64_t now_ns);
/* Book what passed since the last sample on the connection's session. */
void link_sample(struct sessions *sessions, struct link *link);
void sessions_sample_all(struct sessions *sessions);

#endif
