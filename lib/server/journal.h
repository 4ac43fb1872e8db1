/* SPDX-License-Identifier: Apache-2.0 */
/* What is durable of a server, and when: journal.c, recover.c. */
#ifndef FLI_SERVER_JOURNAL_H
#define FLI_SERVER_JOURNAL_H

#include <fl/server.h>

typedef struct fli_job fli_job;
typedef struct fli_member fli_member;
typedef struct fli_participant fli_participant;
typedef struct fli_peer fli_peer;

enum { FLI_JOURNAL_SCHEMA = 1, FLI_PIECE_HASH_BYTES = 16 };

typedef struct fli_journal {
  const fl_store *store; /* NULL: none */
  int is_step_due;       /* a job made a step: all of the server is to be put */
  uint32_t n_updates;    /* put, not committed */
  uint64_t due_ns;       /* commit then; when there is something to */
  int is_failing;
  uint8_t (*pieces)[FLI_PIECE_HASH_BYTES]; /* of the state that is there */
  size_t n_pieces;                         /* 0 = not known */
  size_t piece_capacity;
  uint32_t pieces_put; /* by the last commit of a step */
  int is_putting;      /* the state that is being saved is the store's own */
} fli_journal;

/* FL_E_STATE when the store has a server's state already. */
fl_status fli_journal_check_empty(const fl_store *store);
void fli_journal_free(fl_server *server);
/* An update was counted, whose bytes the peer still has. */
void fli_journal_update(fli_peer *peer, const fli_member *member);
/* A record of a few bytes that is read beside the state until the next one,
 * which has what it says. */
void fli_journal_add(fl_server *server, const uint8_t *key, size_t n_key,
                     const uint8_t *value, size_t n);
/* Something happened that a restart must not undo. */
void fli_journal_step(fl_server *server);
/* The same, but it may wait for others as an update may. */
void fli_journal_note(fl_server *server);
/* 1 when bytes may be sent, after a commit if need be. */
int fli_journal_may_send(const fl_server *server);
/* Make durable what is not; 1 = nothing is left. What goes wrong is an event,
 * and tried again later. */
int fli_journal_commit(fl_server *server);
/* When fli_journal_may_send becomes 1; UINT64_MAX = it is. */
uint64_t fli_journal_next_timeout(const fl_server *server);
/* Keys of the schema: those of a piece of the state, and of an update. */
enum { FLI_PIECE_KEY_BYTES = 17, FLI_UPDATE_KEY_BYTES = 34 };
void fli_journal_piece_key(uint8_t key[FLI_PIECE_KEY_BYTES], uint32_t piece);
void fli_journal_update_key(uint8_t key[FLI_UPDATE_KEY_BYTES],
                            const fli_job *job, uint32_t slot);
extern const char fli_journal_head_key[];      /* "server/head" */
extern const char fli_journal_update_prefix[]; /* "server/update/" */
extern const char fli_journal_bound_prefix[];  /* "server/bound/" */

/* ---- bound.c ---- */

/* A client has got its key just now. */
void fli_bound_note(const fli_participant *who);
/* Bind what was bound after the state that the server was read from. */
fl_status fli_bound_replay(fl_server *server, const fl_store *store);

#endif
