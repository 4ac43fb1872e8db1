/* SPDX-License-Identifier: Apache-2.0 */
/* The participants of a job (registry.c). */
#ifndef FLI_SERVER_PARTICIPANT_H
#define FLI_SERVER_PARTICIPANT_H

#include <stddef.h>

#include "server/trust.h"
#include "wire/messages.h"

typedef struct fli_job fli_job;
typedef struct fli_peer fli_peer;
typedef struct fli_participant fli_participant;

/* Of a list of participants; `at` NULL = in none. */
typedef struct fli_link {
  struct fli_link *next, **at;
} fli_link;

struct fli_participant {
  fli_job *job;  /* whose rounds it takes part in */
  fli_job *home; /* in whose registry it is: the same without cohorts */
  char id[FLI_ID_BYTES];
  uint8_t token[FLI_TOKEN_BYTES];
  uint64_t hash; /* of the id, keyed: place in the table */
  uint64_t samples;
  uint64_t capabilities;
  uint32_t depth;  /* last modules it can train; 0 = all */
  fli_peer *peer;  /* NULL = away */
  int is_in_grace; /* in the job's list of those just lost */
  int is_leaving;  /* to be forgotten, and in that list: forget.c */
  fli_link leaving;
  fli_standing *standing; /* NULL: neither key nor anything else to note */
  uint64_t lost_ns;
  fli_participant *previous, *next; /* that list, oldest first */
  int has_model;
  uint64_t model_version; /* held, as far as we know */
  uint32_t member;        /* index in the running round, or FLI_NO_MEMBER */
  uint64_t counted_round; /* last update counted */
  uint32_t counted_attempt;
  uint64_t before_round; /* the one before, for when that is taken back */
  uint32_t before_attempt;
  /* With cohorts: */
  uint32_t slot;         /* in the set; without cohorts: of all, as they came */
  uint32_t visit;        /* of the running round, or FLI_NO_MEMBER */
  uint32_t probe_cohort; /* the probe held, as far as we know */
  uint64_t probe_version;
  uint32_t lane;  /* of `visit`, see cohorts.h */
  fli_link tired; /* in the list of those that may rest */
};

typedef struct fli_registry {
  fli_participant **slots; /* open addressing, a power of two */
  size_t capacity;
  uint32_t count;
  uint32_t live;
  uint32_t trainers; /* of those live */
  uint64_t changes;  /* of who is there, or waited for: each counts */
  fli_link *leaving;
  int is_sweep_due; /* some of them may go now */
  fli_participant *grace_first, *grace_last;
  fli_link *tired; /* see fli_registry_rest */
} fli_registry;

/* Put first into a list, unless it is in one. */
void fli_link_put(fli_link **list, fli_link *link);
/* Take out of the one that it is in, if any. */
void fli_link_take(fli_link *link);
#define FLI_PARTICIPANT_OF(link, list) \
  ((fli_participant *)((char *)(link)-offsetof(fli_participant, list)))

void fli_registry_free(fli_registry *registry, fl_context *context);
/* NULL: not known, or at rest. */
fli_participant *fli_registry_find(const fli_job *job, const char *id);
/* The same, of those at rest too, which it wakes; *out NULL: not known. */
fl_status fli_registry_call(fli_job *job, const char *id,
                            fli_participant **out);
fl_status fli_registry_add(fli_job *job, const char *id, fli_participant **out);
/* The name of the key that an id has (FLI_NAME_BYTES), NULL: none. */
const uint8_t *fli_registry_key(const fli_job *job, const char *id);
/* Forget one that no peer and no round has. */
void fli_registry_remove(fli_participant *participant);
/* It may have nothing more to do: look at it with the next fli_registry_rest.
 */
void fli_registry_tire(fli_participant *participant);
/* Put to rest (resting.h) who is away and part of nothing. Nobody may hold
 * pointers to such a one. */
void fli_registry_rest(fli_job *job);
/* The clock jumped by `delta_ns`. */
void fli_registry_rebase(fli_job *job, uint64_t delta_ns);
void fli_registry_attach(fli_participant *participant, fli_peer *peer);
/* The connection is gone; with `has_grace` it may come back for a while. */
void fli_registry_detach(fli_participant *participant, int has_grace);
void fli_registry_end_grace(fli_participant *participant);
/* Live participants with a capability (0 = everybody known, away or not, and
 * resting: fli_is_resting), by id. Free with *count * sizeof(fli_participant
 * *). */
fl_status fli_registry_sorted(const fli_job *job, uint64_t capability,
                              fli_participant ***out, uint32_t *count);

#endif
