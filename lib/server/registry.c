/* SPDX-License-Identifier: Apache-2.0 */
/* The participants of a job: a hash table by id that only grows, since an id
 * that came once may come again. Ids are hashed with the server's secret, so
 * that nobody can choose ids that collide; the same hash yields the token that
 * proves a returning client, which therefore needs no memory of its own in a
 * snapshot. Nothing ever depends on the table's order: whoever iterates sorts
 * by id first.
 *
 * Those whose connection broke stand in a list, oldest first, until their
 * grace ends; as the grace is the same for all, only its head has a timer. */
#include "server/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"

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

/* Where the id stands, or the free slot where it would. */
static fli_participant **place(const fli_registry *registry, uint64_t hash,
                               const char *id)
{
  const size_t mask = registry->capacity - 1;
  size_t i = (size_t)hash & mask;
  while (registry->slots[i] && (registry->slots[i]->hash != hash ||
                                strcmp(registry->slots[i]->id, id) != 0)) {
    i = (i + 1) & mask;
  }
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
    *place(&grown, participant->hash, participant->id) = participant;
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
    if (participant) fli_free(context, participant, sizeof *participant);
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
  return *place(&job->registry, table_hash(digest), id);
}

fl_status fli_registry_add(fli_job *job, const char *id, fli_participant **out)
{
  uint8_t digest[FLI_HASH_BYTES];
  fli_participant *participant = NULL;
  fl_status st = make_room(&job->registry, job->context);
  if (st != FL_OK) return st;
  participant = fli_alloc(job->context, 1, sizeof *participant);
  if (!participant) return fli_nomem(sizeof *participant);
  hash_id(job, id, digest);
  participant->job = participant->home = job;
  memcpy(participant->id, id, strlen(id) + 1);
  memcpy(participant->token, digest, FLI_TOKEN_BYTES);
  participant->hash = table_hash(digest);
  participant->samples = 1;
  participant->slot = job->registry.count;
  participant->member = participant->visit = FLI_NO_MEMBER;
  participant->probe_cohort = FL_COHORT_NONE;
  *place(&job->registry, participant->hash, id) = participant;
  job->registry.count++;
  job->server->n_participants++;
  *out = participant;
  return FL_OK;
}

void fli_registry_undo(fli_participant *participant)
{
  fli_job *job = participant->home;
  *place(&job->registry, participant->hash, participant->id) = NULL;
  job->registry.count--;
  job->server->n_participants--;
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
  participant->has_model = 0;
  participant->probe_cohort = FL_COHORT_NONE;
  fli_registry_end_grace(participant);
  if (has_grace) begin_grace(participant);
}

static int compare_ids(const void *a, const void *b)
{
  const fli_participant *const *left = a;
  const fli_participant *const *right = b;
  return strcmp((*left)->id, (*right)->id);
}

fl_status fli_registry_sorted(const fli_job *job, uint64_t capability,
                              fli_participant ***out, uint32_t *count)
{
  const fli_registry *registry = &job->registry;
  uint32_t n = 0;
  size_t at = 0;
  for (size_t i = 0; i < registry->capacity; i++) {
    const fli_participant *who = registry->slots[i];
    n +=
        who && (!capability || (who->peer && (who->capabilities & capability)));
  }
  fli_participant **sorted = fli_alloc(job->context, n, sizeof *sorted);
  if (!sorted) return fli_nomem(n * sizeof *sorted);
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (who &&
        (!capability || (who->peer && (who->capabilities & capability)))) {
      sorted[at++] = who;
    }
  }
  qsort(sorted, n, sizeof *sorted, compare_ids);
  *out = sorted;
  *count = n;
  return FL_OK;
}
