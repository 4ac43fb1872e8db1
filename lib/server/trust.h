/* SPDX-License-Identifier: Apache-2.0 */
/* Who may take part, and whose bytes are whose: identity.c (proofs and
 * signatures), enrol.c (the list of keys), ban.c (bans, allowances), forget.c
 * (clients that leave), trust_state.c (snapshots). */
#ifndef FLI_TRUST_H
#define FLI_TRUST_H

#include "server/marks.h"
#include "wire/messages.h"

typedef struct fli_job fli_job;
typedef struct fli_participant fli_participant;
typedef struct fli_peer fli_peer;

/* What is known of a client beyond its id; many have none. */
typedef struct fli_standing {
  uint8_t key[FLI_NAME_BYTES];
  int has_key;
  uint64_t messages_ns; /* when the allowance of messages is whole again */
  uint64_t rejects_ns;  /* that of bad messages */
} fli_standing;

/* Of a connection. */
typedef struct fli_proof {
  int has_nonce;
  int is_proven; /* the key's owner is at the other end */
  uint8_t nonce[FLI_KEY_BYTES];
  uint8_t key[FLI_KEY_BYTES];
  uint8_t name[FLI_NAME_BYTES];    /* of the key */
  uint8_t session[FLI_HASH_BYTES]; /* see signed.h */
  fli_standing *spare;             /* for a client that has none yet */
} fli_proof;

/* Of the server. */
typedef struct fli_trust {
  fli_marks allowed;
  fli_marks banned;
  int has_server_key;
  uint8_t server_key[FLI_KEY_BYTES];
  char due_id[FLI_ID_BYTES]; /* banned just now; its sessions are to end */
} fli_trust;

/* ---- identity.c ---- */

enum { FLI_NAME_OF_ID = 1, FLI_NAME_OF_KEY = 2 };
void fli_name_of(uint8_t name[FLI_NAME_BYTES], const fl_server *server,
                 uint8_t kind, const void *data, size_t n);
fl_status fli_identity_check_options(const fl_server_options *options);
/* Whether a HELLO's sender may be who it says; *is_welcome stays 0 when it was
 * answered here: challenged, or refused. */
fl_status fli_identity_check(fli_peer *peer, fli_job *job,
                             const fli_hello *hello, int *is_welcome);
/* The client is the peer's: what fli_identity_check has found holds for it.
 * Cannot fail. */
void fli_identity_bind(fli_peer *peer, fli_participant *who);
/* 1 when the peer has proven to have the key that the client belongs to. */
int fli_identity_is_owner(const fli_peer *peer, const fli_participant *who);
/* Whether an update is its sender's; *is_good stays 0 when it was answered. */
fl_status fli_identity_check_update(fli_peer *peer,
                                    const fli_manifest *manifest, int *is_good);
/* 1 when a client with a key sends what is older than what was counted. */
int fli_identity_is_replay(const fli_participant *who, uint64_t round,
                           uint32_t attempt);
void fli_identity_free(fli_peer *peer);
void fli_standing_free(fli_participant *who);
/* Find or make; NULL: no memory. */
fli_standing *fli_standing_of(fli_participant *who);

/* ---- enrol.c ---- */

/* FL_REJECT_NONE, or why a key may not be this client. */
uint32_t fli_enrol_check(const fl_server *server,
                         const uint8_t key[FLI_NAME_BYTES], const char *id);
/* A key on the list without an id has this one from now on. */
void fli_enrol_take(fl_server *server, const uint8_t key[FLI_NAME_BYTES],
                    const char *id);
/* The client has left: an id that its key took is free. */
void fli_enrol_release(fl_server *server, const uint8_t key[FLI_NAME_BYTES]);
/* FL_E_ARGUMENT when no client can have this id. */
fl_status fli_enrol_check_id(const char *id);

/* ---- ban.c ---- */

/* How long the name is still banned; 0 = not. */
uint64_t fli_ban_left(const fl_server *server,
                      const uint8_t name[FLI_NAME_BYTES]);
/* 1 when the peer may not send this message any more. */
int fli_ban_meters(fli_peer *peer, const fli_frame *frame);
/* A client was refused for this reason. */
void fli_ban_count(fli_peer *peer, uint32_t reason);
/* End the sessions of a client that was banned just now. */
void fli_ban_enforce(fl_server *server);
/* Turn a client away: REJECT, and no part in the round any more. */
void fli_ban_turn_away(fli_participant *who, uint32_t reason, const char *text);
/* The clock jumped by `delta_ns`. */
void fli_ban_rebase(fl_server *server, uint64_t delta_ns);

/* ---- forget.c ---- */

void fli_forget_ask(fli_participant *who);
/* It is to be forgotten; who was told, and what else it is part of, is not
 * looked at. */
void fli_forget_mark(fli_participant *who);
/* It has come back before it was forgotten. */
void fli_forget_cancel(fli_participant *who);
/* Forget those who wait for it, and are in no round. */
void fli_forget_sweep(fli_job *home);

/* ---- trust_state.c ---- */

fl_status fli_trust_write(fli_msg_writer *writer, const fl_server *server);
fl_status fli_trust_read(fl_server *server, fli_msg_reader *reader);

#endif
