/* SPDX-License-Identifier: Apache-2.0 */
/* The participants of a job: a hash table by id. An id that came once may come
 * again: it stays until it leaves for good. Ids are hashed with the server's
 * secret, so that nobody can choose ids that collide; the same hash yields the
 * token that proves a returning client, which therefore needs no memory of its
 * own in a snapshot. Nothing ever depends on the table's order: whoever
 * iterates sorts by id first.
 *
 * Those that are away and part of nothing rest (resting.c): they are called
 * back by their id, and put to rest when a job has nothing else to do.
 *
 * Those whose connection broke stand in a list, oldest first, until their
 * grace ends; as the grace is the same for all, only its head has a timer. */
#include "server/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "server/buffered.h"
#include "server/resting.h"
#include "server/selector.h"

enum { FLI_REGISTRY_FIRST = 16 };

/* Token (first 16 bytes) and table hash (the next 8). */
static void hash_id(const fli_job *job, const char *id,
                    uint8_t digest[FLI_HASH_BYTES])
{
  uint8_t text[2 * FLI_ID_BYTES] = {0};
  memcpy(text, job->name, strlen(job->name));
  memcpy(text + FLI_ID_BYTES, id, strlen(id));
  fli_hash_keyed(digest, job->server->secret, sizeof job->server->secret, text,
                 sizeof text);
}

static uint64_t table_hash(const uint8_t digest[FLI_HASH_BYTES])
{
  return fli_load_u64(digest + FLI_TOKEN_BYTES);
}

/* ---- lists ---- */

void fli_link_put(fli_link **list, fli_link *link)
{
  if (link->at) return;
  link->next = *list;
  link->at = list;
  if (*list) (*list)->at = &link->next;
  *list = link;
}

void fli_link_take(fli_link *link)
{
  if (!link->at) return;
  *link->at = link->next;
  if (link->next) link->next->at = link->at;
  link->next = NULL;
  link->at = NULL;
}

/* ---- the table ---- */

static const char *id_of(const fli_participant *participant)
{
  return fli_is_resting(participant) ? fli_resting_id(participant)
                                     : participant->id;
}

/* As much of it as tables go by: they have less than 2^32 slots. */
static uint32_t hash_of(const fli_participant *participant)
{
  return fli_is_resting(participant) ? fli_resting_hash(participant)
                                     : (uint32_t)participant->hash;
}

static int is_one(const fli_participant *participant, uint64_t hash,
                  const char *id)
{
  return hash_of(participant) == (uint32_t)hash &&
         strcmp(id_of(participant), id) == 0;
}

/* Where the id stands, or the free slot where it would. */
static fli_participant **place(const fli_registry *registry, uint64_t hash,
                               const char *id)
{
  const size_t mask = registry->capacity - 1;
  size_t i = (size_t)hash & mask;
  while (registry->slots[i] && !is_one(registry->slots[i], hash, id))
    i = (i + 1) & mask;
  return &registry->slots[i];
}

static fl_status make_room(fli_registry *registry, fl_context *context)
{
  /* At most three quarters full, or probing gets long. */
  if (registry->count + 1 <= registry->capacity / 4 * 3) return FL_OK;
  fli_registry grown = *registry;
  grown.capacity =
      registry->capacity ? 2 * registry->capacity : FLI_REGISTRY_FIRST;
  grown.slots = fli_alloc(context, grown.capacity, sizeof *grown.slots);
  if (!grown.slots) return fli_nomem(grown.capacity * sizeof *grown.slots);
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *participant = registry->slots[i];
    if (!participant) continue;
    *place(&grown, hash_of(participant), id_of(participant)) = participant;
  }
  fli_free(context, registry->slots,
           registry->capacity * sizeof *registry->slots);
  *registry = grown;
  return FL_OK;
}

void fli_registry_free(fli_registry *registry, fl_context *context)
{
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *participant = registry->slots[i];
    if (!participant) continue;
    if (fli_is_resting(participant)) {
      fli_resting_free(context, participant);
      continue;
    }
    fli_standing_free(participant);
    fli_free(context, participant, sizeof *participant);
  }
  fli_free(context, registry->slots,
           registry->capacity * sizeof *registry->slots);
  memset(registry, 0, sizeof *registry);
}

fli_participant *fli_registry_find(const fli_job *job, const char *id)
{
  uint8_t digest[FLI_HASH_BYTES];
  if (job->registry.count == 0) return NULL;
  hash_id(job, id, digest);
  fli_participant *found = *place(&job->registry, table_hash(digest), id);
  return found && fli_is_resting(found) ? NULL : found;
}

static fli_participant *new_participant(fli_job *job, const char *id,
                                        const uint8_t digest[FLI_HASH_BYTES])
{
  fli_participant *participant =
      fli_alloc(job->context, 1, sizeof *participant);
  if (!participant) return NULL;
  participant->job = participant->home = job;
  memcpy(participant->id, id, strlen(id) + 1);
  memcpy(participant->token, digest, FLI_TOKEN_BYTES);
  participant->hash = table_hash(digest);
  participant->samples = 1;
  participant->member = participant->visit = FLI_NO_MEMBER;
  participant->probe_cohort = FL_COHORT_NONE;
  return participant;
}

static fl_status take_standing(fli_participant *participant,
                               const fli_participant *resting)
{
  fli_standing standing;
  if (!fli_participant_standing(resting, &standing)) return FL_OK;
  if (!fli_standing_of(participant)) return fli_nomem(sizeof standing);
  *participant->standing = standing;
  return FL_OK;
}

const uint8_t *fli_registry_key(const fli_job *job, const char *id)
{
  uint8_t digest[FLI_HASH_BYTES];
  if (job->registry.count == 0) return NULL;
  hash_id(job, id, digest);
  const fli_participant *who = *place(&job->registry, table_hash(digest), id);
  return who ? fli_participant_key(who) : NULL;
}

fl_status fli_registry_call(fli_job *job, const char *id, fli_participant **out)
{
  uint8_t digest[FLI_HASH_BYTES];
  *out = NULL;
  if (job->registry.count == 0) return FL_OK;
  hash_id(job, id, digest);
  fli_participant **at = place(&job->registry, table_hash(digest), id);
  *out = *at;
  if (!*at || !fli_is_resting(*at)) return FL_OK;
  fli_participant *awake = new_participant(job, id, digest);
  if (!awake) return fli_nomem(sizeof *awake);
  fli_resting_read(*at, awake);
  if (take_standing(awake, *at) != FL_OK) {
    fli_free(job->context, awake, sizeof *awake);
    *out = NULL;
    return fli_nomem(sizeof *awake->standing);
  }
  fli_resting_free(job->context, *at);
  *at = *out = awake;
  fli_registry_tire(awake);
  return FL_OK;
}

fl_status fli_registry_add(fli_job *job, const char *id, fli_participant **out)
{
  uint8_t digest[FLI_HASH_BYTES];
  fli_participant *participant = NULL;
  fl_status st = make_room(&job->registry, job->context);
  if (st != FL_OK) return st;
  hash_id(job, id, digest);
  participant = new_participant(job, id, digest);
  if (!participant) return fli_nomem(sizeof *participant);
  participant->slot = fli_selector_take_slot(job);
  *place(&job->registry, participant->hash, id) = participant;
  job->registry.count++;
  job->server->n_participants++;
  *out = participant;
  return FL_OK;
}

/* Those behind it move up, so that nobody's search ends at the hole. */
static void take_out(fli_registry *registry, fli_participant **at)
{
  const size_t mask = registry->capacity - 1;
  size_t hole = (size_t)(at - registry->slots);
  size_t i = (hole + 1) & mask;
  for (; registry->slots[i]; i = (i + 1) & mask) {
    const size_t home = (size_t)hash_of(registry->slots[i]) & mask;
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    registry->slots[hole] = registry->slots[i];
    hole = i;
  }
  registry->slots[hole] = NULL;
}

void fli_registry_remove(fli_participant *participant)
{
  fli_job *job = participant->home;
  fli_registry *registry = &job->registry;
  fli_registry_end_grace(participant);
  registry->changes++;
  fli_link_take(&participant->tired);
  fli_link_take(&participant->leaving);
  take_out(registry, place(registry, participant->hash, participant->id));
  registry->count--;
  fli_selector_forget(participant);
  fli_buffered_drop(participant);
  job->server->n_participants--;
  fli_standing_free(participant);
  fli_free(job->context, participant, sizeof *participant);
}

void fli_registry_end_grace(fli_participant *participant)
{
  fli_registry *registry = &participant->home->registry;
  if (!participant->is_in_grace) return;
  if (participant->previous) {
    participant->previous->next = participant->next;
  } else {
    registry->grace_first = participant->next;
  }
  if (participant->next) {
    participant->next->previous = participant->previous;
  } else {
    registry->grace_last = participant->previous;
  }
  participant->previous = participant->next = NULL;
  participant->is_in_grace = 0;
  registry->changes++;
  fli_registry_tire(participant);
}

void fli_registry_tire(fli_participant *participant)
{
  if (participant->home->cohorts) return;
  fli_link_put(&participant->home->registry.tired, &participant->tired);
}

static int may_rest(const fli_participant *participant)
{
  return !participant->peer && !participant->is_in_grace &&
         !participant->is_leaving && participant->member == FLI_NO_MEMBER &&
         participant->visit == FLI_NO_MEMBER && !participant->home->cohorts;
}

void fli_registry_rest(fli_job *job)
{
  fli_registry *registry = &job->registry;
  while (registry->tired) {
    fli_participant *who = FLI_PARTICIPANT_OF(registry->tired, tired);
    fli_link_take(&who->tired);
    if (!may_rest(who)) continue;
    /* Without memory it stays awake. */
    fli_participant *resting = fli_resting_make(who);
    if (!resting) continue;
    *place(registry, who->hash, who->id) = resting;
    fli_buffered_drop(who);
    fli_standing_free(who);
    fli_free(job->context, who, sizeof *who);
  }
}

void fli_registry_rebase(fli_job *job, uint64_t delta_ns)
{
  const fli_registry *registry = &job->registry;
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (!who) continue;
    if (fli_is_resting(who)) {
      fli_resting_rebase(who, delta_ns);
    } else if (who->standing) {
      fli_standing *standing = who->standing;
      standing->messages_ns = fli_later(standing->messages_ns, delta_ns);
      standing->rejects_ns = fli_later(standing->rejects_ns, delta_ns);
    }
  }
  for (fli_participant *who = registry->grace_first; who; who = who->next)
    who->lost_ns += delta_ns;
}

static void begin_grace(fli_participant *participant)
{
  fli_registry *registry = &participant->home->registry;
  participant->is_in_grace = 1;
  participant->lost_ns = participant->home->server->now_ns;
  participant->previous = registry->grace_last;
  if (registry->grace_last) {
    registry->grace_last->next = participant;
  } else {
    registry->grace_first = participant;
  }
  registry->grace_last = participant;
}

static uint32_t is_trainer(const fli_participant *participant)
{
  return (participant->capabilities & FLI_CAP_TRAIN) != 0;
}

void fli_registry_attach(fli_participant *participant, fli_peer *peer)
{
  fli_registry_end_grace(participant);
  participant->peer = peer;
  peer->participant = participant;
  participant->home->registry.changes++;
  participant->home->registry.live++;
  participant->home->registry.trainers += is_trainer(participant);
}

void fli_registry_detach(fli_participant *participant, int has_grace)
{
  if (participant->peer) {
    participant->home->registry.live--;
    participant->home->registry.trainers -= is_trainer(participant);
  }
  participant->peer = NULL;
  participant->home->registry.changes++;
  participant->has_model = 0;
  participant->probe_cohort = FL_COHORT_NONE;
  fli_registry_end_grace(participant);
  if (has_grace) begin_grace(participant);
}

static int compare_ids(const void *a, const void *b)
{
  const fli_participant *const *left = a;
  const fli_participant *const *right = b;
  return strcmp(id_of(*left), id_of(*right));
}

static int is_wanted(const fli_participant *who, uint64_t capability)
{
  if (!who || !capability) return who != NULL;
  return !fli_is_resting(who) && who->peer && (who->capabilities & capability);
}

fl_status fli_registry_sorted(const fli_job *job, uint64_t capability,
                              fli_participant ***out, uint32_t *count)
{
  const fli_registry *registry = &job->registry;
  uint32_t n = 0;
  size_t at = 0;
  for (size_t i = 0; i < registry->capacity; i++) {
    const fli_participant *who = registry->slots[i];
    n += (uint32_t)is_wanted(who, capability);
  }
  fli_participant **sorted = fli_alloc(job->context, n, sizeof *sorted);
  if (!sorted) return fli_nomem(n * sizeof *sorted);
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (is_wanted(who, capability)) sorted[at++] = who;
  }
  qsort(sorted, n, sizeof *sorted, compare_ids);
  *out = sorted;
  *count = n;
  return FL_OK;
}
